"""The wheel in a fresh environment with its declared dependencies and no other package."""

from __future__ import annotations

import ast
import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.conftest import ROOT
from tests.docs.pages import blocks

LIBRARY = {"torch", "transformers", "numpy", "scipy", "threadpoolctl", "safetensors"}
"""All that the library may need."""

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def command(*arguments: object, cwd: Path) -> str:
    """Run a command in a folder to its end; what it printed. A failure shows both of its outputs.

    Neither the working folder nor PYTHONPATH may be the checkout: an editable install leaves its metadata there, which
    pip takes for an installed package.
    """
    done = subprocess.run(
        [str(part) for part in arguments],
        cwd=cwd,
        env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{arguments}: exit {done.returncode}\n{done.stdout}{done.stderr}"
    return done.stdout


def required(distribution: importlib.metadata.Distribution) -> set[str]:
    """Canonical names of what a distribution requires here, without its extras."""
    requirements = [Requirement(line) for line in distribution.requires or []]
    return {
        canonicalize_name(requirement.name)
        for requirement in requirements
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""})
    }


def closure(names: Iterable[str]) -> dict[str, importlib.metadata.Distribution]:
    """The installed distributions of these names, and of all that they require in turn."""
    found: dict[str, importlib.metadata.Distribution] = {}
    ahead = set(names)
    while ahead:
        name = ahead.pop()
        found[name] = importlib.metadata.distribution(name)
        ahead |= required(found[name]) - set(found)
    return found


def link(distribution: importlib.metadata.Distribution, folder: Path) -> None:
    """Link the files of an installed distribution into another site-packages folder."""
    for top in {file.parts[0] for file in distribution.files or []} - {"..", "__pycache__"}:
        if not (folder / top).exists():  # distributions may share a folder
            (folder / top).symlink_to(distribution.locate_file(top))


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel that `pip install .` builds, from a copy of the sources."""
    source = tmp_path_factory.mktemp("source")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    shutil.copytree(ROOT / "rosa", source / "rosa", ignore=shutil.ignore_patterns("__pycache__"))
    build = "import sys; from setuptools.build_meta import build_wheel; build_wheel(sys.argv[1])"
    command(sys.executable, "-c", build, source / "dist", cwd=source)
    (built,) = (source / "dist").glob("*.whl")
    return built


@pytest.fixture(scope="module")
def fresh(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of a new virtual environment with the wheel, what it requires, and no other package."""
    folder = tmp_path_factory.mktemp("fresh")
    command(sys.executable, "-m", "venv", "--without-pip", folder, cwd=folder)
    python = folder / "bin" / "python"
    command(*pip(python), "install", "--quiet", "--no-index", "--no-deps", wheel, cwd=folder)
    packages = Path(command(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=folder).strip())
    (metadata,) = packages.glob("rosa_finetune-*.dist-info")
    ours = required(importlib.metadata.Distribution.at(metadata))
    assert ours == LIBRARY
    for distribution in closure(ours).values():
        link(distribution, packages)
    return python


def pip(python: Path) -> list[object]:
    return [sys.executable, "-m", "pip", "--python", python, "--disable-pip-version-check"]


USER = """
import json, sys
from importlib.metadata import distributions

import torch
from transformers import RobertaConfig, RobertaForSequenceClassification, TrainerControl, TrainerState
from transformers.trainer_callback import CallbackHandler

import rosa

first, second, third = json.loads(sys.argv[1])
torch.manual_seed(0)
shape = RobertaConfig(vocab_size=20, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64)
model = RobertaForSequenceClassification(shape)
kind, names = type(model), list(model.state_dict())
inputs, labels = torch.randint(3, 20, (4, 6)), torch.tensor([0, 1, 1, 0])

exec(first)

# A Trainer needs accelerate. This takes callbacks and calls them as a Trainer does.
optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], 1e-2)
trainer = CallbackHandler([], model, None, optimizer, None)
trainer.train_dataloader = [inputs]  # one update an epoch

exec(second)

state, control = TrainerState(), TrainerControl()
arguments = type("Arguments", (), {"gradient_accumulation_steps": 1, "output_dir": "none", "seed": 0})()
trainer.on_train_begin(arguments, state, control)
losses = []
for state.global_step in range(5):
    trainer.on_step_begin(arguments, state, control)
    losses.append(model(inputs, labels=labels).loss)
    losses[-1].backward()
    trainer.on_pre_optimizer_step(arguments, state, control)
    optimizer.step()
    trainer.on_optimizer_step(arguments, state, control)
    optimizer.zero_grad()
trained = model.eval()(inputs).logits

exec(third)

assert losses[-1] < losses[0], losses
assert type(plain) is kind and list(plain.state_dict()) == names
torch.testing.assert_close(plain(inputs).logits, trained)
try:
    rosa.attach(plain, rosa.LoraConfig(rank=2))
except rosa.AdapterError as error:
    refused = str(error)
print(json.dumps({
    "version": rosa.__version__,
    "resampled": [entry["step"] for entry in state.log_history if "resample_layers" in entry],
    "refused": refused,
    "packages": sorted({found.name for found in distributions()}),
    "modules": [name for name in sys.modules if name.split(".")[0] == "rosa"],
}))
"""


@pytest.fixture(scope="module")
def told(fresh: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The output of a script that runs the README's three lines on a tiny model in the fresh environment."""
    code = [block.text for block in blocks((ROOT / "README.md").read_text(encoding="utf-8")) if block.label == "python"]
    lines = [line for line in code[0].splitlines() if line and not line.startswith("import ")]
    said = command(fresh, "-I", "-c", USER, json.dumps(lines), cwd=tmp_path_factory.mktemp("elsewhere"))
    return json.loads(said.splitlines()[-1])


@pytest.mark.slow
def test_the_three_lines_run_with_every_other_package_absent(told: dict[str, Any]) -> None:
    assert told["resampled"] == [2, 4]
    assert set(map(canonicalize_name, told["packages"])) == {"rosa-finetune", *closure(LIBRARY)}
    assert "loralib" in told["refused"]
    assert "pip install" in told["refused"]


@pytest.mark.slow
def test_the_version_is_the_packages(told: dict[str, Any]) -> None:
    assert told["version"] == PROJECT["version"]
    assert f"## {PROJECT['version']}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_library_imports_what_it_declares(told: dict[str, Any]) -> None:
    """Every imported package is declared, not only a dependency of another package."""
    imported = set()
    for name in told["modules"]:
        path = ROOT.joinpath(*name.split("."))
        source = path.with_suffix(".py") if path.with_suffix(".py").is_file() else path / "__init__.py"
        for node in ast.parse(
            source.read_text(encoding="utf-8")
        ).body:  # those at a module's top: its import needs them
            if isinstance(node, ast.Import):
                imported |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                imported.add((node.module or "").partition(".")[0])
    assert "torch" in imported
    assert imported - set(sys.stdlib_module_names) - {"rosa"} <= LIBRARY


@pytest.mark.slow
def test_pip_finds_the_environment_complete(fresh: Path) -> None:
    """The declared ranges contain the pinned versions."""
    assert "No broken requirements" in command(*pip(fresh), "check", cwd=fresh.parent)


@pytest.mark.slow
def test_the_wheel_holds_every_file_of_the_package(fresh: Path) -> None:
    (installed,) = fresh.parents[1].glob("lib/python*/site-packages/rosa")
    assert files_of(installed) == files_of(ROOT / "rosa")
    assert "py.typed" in files_of(installed)


def files_of(package: Path) -> set[str]:
    return {str(path.relative_to(package)) for path in package.rglob("*.*") if "__pycache__" not in path.parts}


def test_the_harness_is_the_pinned_requirements() -> None:
    extras = PROJECT["optional-dependencies"]
    beside = {"trl", "quant"}  # their tests are skipped where they are absent
    declared = [*PROJECT["dependencies"], *(line for name in extras.keys() - beside for line in extras[name])]
    ranges = [Requirement(line) for line in declared if not line.startswith(PROJECT["name"])]
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    pinned = [Requirement(line.partition("#")[0]) for line in lines if "==" in line.partition("#")[0]]
    assert {requirement.name for requirement in ranges} == {pin.name for pin in pinned}
    for pin in pinned:
        (version,) = (specifier.version for specifier in pin.specifier)
        assert all(requirement.specifier.contains(version) for requirement in ranges if requirement.name == pin.name), (
            pin
        )


def test_pip_reads_the_requirements_that_conda_gives_it(tmp_path: Path) -> None:
    """Conda writes the list under ``pip:`` to a file of requirements beside environment.yml."""
    from pip._internal.network.session import PipSession
    from pip._internal.req.req_file import parse_requirements

    listed = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))["dependencies"]
    (lines,) = (entry["pip"] for entry in listed if isinstance(entry, dict))
    for file in ROOT.glob("*.txt"):
        shutil.copy(file, tmp_path)
    (tmp_path / "conda.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    names = {
        canonicalize_name(Requirement(found.requirement.partition("#")[0]).name)
        for found in parse_requirements(str(tmp_path / "conda.txt"), session=PipSession())
        if not found.constraint
    }
    assert {"torch", "pytest"} <= names
