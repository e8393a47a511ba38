"""Registration with PEFT: by one import in any order, and a clear error where it is impossible."""

from __future__ import annotations

from pathlib import Path

import peft
import pytest

import rosa.peft
from rosa.errors import DependencyError
from rosa.peft.registration import add_peft_type, register
from tests.peft.elsewhere import python


def test_the_entry_is_one_of_the_enumeration():
    entry = peft.PeftType.ROSA
    assert entry == "ROSA" == entry.value == entry.name
    assert peft.PeftType("ROSA") is entry is peft.PeftType["ROSA"]
    assert entry in list(peft.PeftType)
    assert isinstance(entry, peft.PeftType)
    assert add_peft_type("ROSA") is entry
    assert list(peft.PeftType).count(entry) == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    "lines",
    [
        "import rosa.peft, peft",
        "import peft, rosa.peft",
        "import rosa; rosa.peft.RosaConfig",
        "import rosa.peft, importlib; importlib.reload(rosa.peft)",
        "import rosa.peft, sys\nfor n in [n for n in sys.modules if n.startswith('rosa')]: del sys.modules[n]\n"
        "import rosa.peft",
    ],
)
def test_the_order_and_number_of_imports_do_not_matter(tmp_path, lines):
    checks = (
        "import peft, rosa.peft; from peft.mapping import *; k = peft.PeftType.ROSA\n"
        "assert PEFT_TYPE_TO_CONFIG_MAPPING[k] is rosa.peft.RosaConfig and PEFT_TYPE_TO_PREFIX_MAPPING[k] == 'rosa_'\n"
        "assert PEFT_TYPE_TO_TUNER_MAPPING[k] is rosa.peft.RosaModel and rosa.peft.RosaConfig().peft_type is k"
    )
    done = python(f"{lines}\n{checks}", tmp_path)
    assert done.returncode == 0, done.stderr


def test_another_method_of_the_name_is_refused():
    class RosaConfig(peft.PeftConfig):
        pass

    with pytest.raises(DependencyError, match=r"has a method 'rosa' already \(rosa\.peft\.config\.RosaConfig\)"):
        register("rosa", RosaConfig, rosa.peft.RosaModel, "rosa_")


@pytest.mark.slow
def test_importing_the_package_does_not_import_peft(tmp_path):
    code = "import rosa, sys; rosa.attach; assert 'peft' not in sys.modules"
    assert python(code, tmp_path).returncode == 0


def plant_peft(folder: Path, version: str, files: dict[str, str]) -> None:
    """A package that calls itself peft of this version."""
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    info = folder / f"peft-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: peft\nVersion: {version}\n")


OLD = {
    "peft/__init__.py": "",
    "peft/tuners/__init__.py": "",
    "peft/tuners/tuners_utils.py": "class BaseTuner: pass\n",
    "peft/utils/__init__.py": "def register_peft_method(): pass\n",
}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (OLD, "peft 0.21.0 or later; the tuners of 0.13.0 lack _get_adapter_state_dict"),
        ({"peft/__init__.py": ""}, "peft 0.21.0 or later; 0.13.0 is too old"),
    ],
)
def test_an_old_peft_is_named(tmp_path, files, expected):
    plant_peft(tmp_path, "0.13.0", files)
    done = python("import rosa.peft", tmp_path)
    assert done.returncode == 1
    assert expected in done.stderr
    assert "pip install 'peft>=0.21.0'" in done.stderr.splitlines()[-1]


@pytest.mark.slow
def test_a_missing_peft_is_named(tmp_path):
    hide = "import importlib.metadata as m, sys\nsys.modules['peft'] = None\n"
    hide += "def version(name): raise m.PackageNotFoundError(name)\nm.version = version\n"
    done = python(hide + "try:\n    import rosa.peft\nexcept ImportError as e: print(e)", tmp_path)
    assert "the package peft, which is not installed: pip install" in done.stdout, done.stderr
