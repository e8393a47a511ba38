"""The registry of methods: the project's own, registered ones, and those of installed packages."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest

from rosa.config import LoraConfig, MethodConfig, RankedConfig, RosaConfig, registry
from rosa.config.registry import OTHER_LOOKS, OWN, Look, Method, methods, register_method
from rosa.errors import ConfigError
from tests.conftest import ROOT


@dataclass
class OtherConfig(RankedConfig):
    """The configuration of another package's method."""

    NAME: ClassVar[str] = "other"


def build(*_: object) -> list[object]:
    return []


@pytest.fixture(autouse=True)
def nothing_else_is_registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_registered", {})
    monkeypatch.setattr(registry, "_installed", dict)


def test_the_projects_methods_can_be_built_and_told_apart() -> None:
    for method in OWN:
        made = registry.builder(method.config())
        assert (made is None) == (method.name == "full")
        assert made is None or made.__module__ == f"rosa.adapters.{method.name}"
    looks = [method.look for method in OWN]
    assert len({look.color for look in looks}) == len({look.marker for look in looks}) == len(OWN)
    assert not {look.color for look in looks} & {look.color for look in OTHER_LOOKS}
    assert not {look.marker for look in looks} & {look.marker for look in OTHER_LOOKS}


def test_a_registered_method_has_a_place_a_label_and_a_look() -> None:
    assert registry.label("other") == "other"
    before = registry.look("other")
    register_method(Method(OtherConfig, build, "Other"))
    assert list(methods()) == [*(method.name for method in OWN), "other"]
    assert registry.label("other") == "Other"
    assert registry.look("other") == before, "the look depends on what is installed"
    assert registry.builder(OtherConfig()) is build
    assert sorted(["zeta", "other", "rosa", "full"], key=registry.order) == ["full", "rosa", "other", "zeta"]


def test_a_look_that_is_chosen_is_the_one() -> None:
    register_method(Method(OtherConfig, build, "Other", Look("#123456", "*")))
    assert registry.look("other") == Look("#123456", "*")


def test_a_look_by_name_is_the_same_on_every_machine() -> None:
    # The check value of CRC-32, as its catalogues give it.
    assert registry.look("123456789") == OTHER_LOOKS[0xCBF43926 % len(OTHER_LOOKS)]


def test_a_name_is_given_once() -> None:
    @dataclass
    class Another(LoraConfig):
        NAME: ClassVar[str] = "lora"

    with pytest.raises(ConfigError, match=r"'lora': .*LoraConfig already has this name.*another NAME"):
        register_method(Method(Another, build, "Another"))


def test_a_class_that_is_defined_again_takes_its_own_place() -> None:
    def define() -> type[MethodConfig]:
        @dataclass
        class Cell(MethodConfig):
            NAME: ClassVar[str] = "cell"

        return Cell

    first, second = define(), define()
    register_method(Method(first, build, "First"))
    register_method(Method(second, build, "Second"))
    assert methods()["cell"].config is second
    with pytest.raises(ConfigError, match="is not the configuration of a registered method"):
        registry.builder(first())


class Plain(MethodConfig):
    NAME: ClassVar[str] = "plain"


@dataclass
class Nameless(RosaConfig):
    pass


@dataclass
class Spaced(MethodConfig):
    NAME: ClassVar[str] = "two words"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((int, build, "Int"), "expected a dataclass derived from"),
        ((Plain, build, "Plain"), "expected a class decorated with @dataclass"),
        ((Nameless, build, "Nameless"), "expected a name of a-z, 0-9 and _, set in this class"),
        ((Spaced, build, "Spaced"), "expected a name of a-z"),
        ((OtherConfig, build, " "), "expected a name for tables and figures"),
        ((OtherConfig, build, "Other", Look("red", "o")), "expected a colour #rrggbb"),
        ((OtherConfig, build, "Other", Look("#ff0000", "q")), "expected one of o, s"),
        ((OtherConfig, build, "Other", None, Path("nowhere")), "expected a folder of YAML files"),
    ],
)
def test_a_method_that_cannot_work_is_refused(arguments: tuple[object, ...], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Method(*arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize("place", ["nowhere:build", "rosa.adapters.lora:biuld", "rosa adapters"])
def test_a_builder_that_is_not_there_is_named(place: str) -> None:
    register_method(Method(OtherConfig, place, "Other"))
    with pytest.raises(ConfigError, match=rf"method 'other': build='{place}' cannot be imported"):
        registry.builder(OtherConfig())


def test_a_builder_whose_package_is_missing_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "loralib", None)
    monkeypatch.delitem(sys.modules, "rosa.adapters.lora", raising=False)
    with pytest.raises(ConfigError, match=r"^method 'lora': LoRA needs the package loralib, .*: pip install loralib"):
        registry.builder(LoraConfig())


# --- entry points ----------------------------------------------------------------------------------------------------

MODULE = """
from dataclasses import dataclass
from typing import ClassVar
from rosa.config import Method, MethodConfig

@dataclass
class Config(MethodConfig):
    NAME: ClassVar[str] = "far"

METHOD = Method(Config, "far:build", "Far")
"""


def install(site: Path, name: str, module: str, value: str) -> None:
    """Put a package where an interpreter with ``site`` on its path finds it as if pip had installed it."""
    (site / f"{name}.py").write_text(module)
    facts = site / f"{name}-1.0.dist-info"
    facts.mkdir(parents=True)
    (facts / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (facts / "entry_points.txt").write_text(f"[rosa.methods]\n{name} = {value}\n")


def known_with(site: Path) -> str:
    """The output of an interpreter with ``site`` on its path: the methods' labels, or the error."""
    program = (
        "import sys\nfrom rosa.config import registry\nfrom rosa.errors import ConfigError\n"
        "try: print([method.label for method in registry.methods().values()], 'torch' in sys.modules)\n"
        "except ConfigError as error: print(error)"
    )
    command = [sys.executable, "-c", program]
    environment = {"PYTHONPATH": f"{ROOT}:{site}"}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.strip()


@pytest.mark.slow
def test_an_installed_packages_method_is_known(tmp_path: Path) -> None:
    install(tmp_path, "far", MODULE, "far:METHOD")
    assert known_with(tmp_path) == f"{[*(method.label for method in OWN), 'Far']} False"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("module", "value", "message"),
    [
        (
            "import nothing_of_this_name",
            "far:METHOD",
            "cannot be loaded: ModuleNotFoundError: No module named 'nothing",
        ),
        (MODULE, "far:MEHTOD", "entry point far = 'far:MEHTOD' of far cannot be loaded: AttributeError"),
        (MODULE, "far:Config", "expected a rosa.Method"),
        (MODULE.replace('"far"', '"ia3"'), "far:METHOD", "rosa.config.method.IA3Config already has this name"),
    ],
)
def test_a_package_that_is_broken_is_named(tmp_path: Path, module: str, value: str, message: str) -> None:
    install(tmp_path, "far", module, value)
    assert message in known_with(tmp_path)


@pytest.mark.slow
def test_two_packages_cannot_have_one_name(tmp_path: Path) -> None:
    install(tmp_path, "far", MODULE, "far:METHOD")
    install(tmp_path, "near", MODULE, "near:METHOD")
    assert "method 'far': " in known_with(tmp_path)
