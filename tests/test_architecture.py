"""Import rules between the packages, checked by reading every import.

Imports inside functions and under ``TYPE_CHECKING`` count: a hidden dependency is one too.
"""

from __future__ import annotations

import ast
import builtins
import functools
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from rosa import errors

ROOT = Path(__file__).resolve().parents[1]

ORDER = (
    {"errors"},
    {"utils"},
    {"config"},
    {"mini"},
    {"data", "models", "adapters", "evaluation"},
    {"training"},
    {"records"},
    {"run"},
    {"sweep", "export", "report"},
    {"peft"},
)
"""The packages of ``rosa`` from the bottom up: each may import itself and those below, never one beside it."""

ONLY = {"training": ("adapters.base", "adapters.modules", "adapters.state", "adapters.callback")}
"""Modules of a package that another may import from it: training uses the protocol of adapters, no method."""

LEVELS = {package: level for level, packages in enumerate(ORDER) for package in packages}


def module_name(path: Path, root: Path) -> str:
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def inside(module: str, package: str) -> bool:
    return module == package or module.startswith(f"{package}.")


@functools.cache
def parsed(source: str) -> ast.Module:
    """The tree of a file's text; several tests walk those of all files."""
    return ast.parse(source)


def imports(path: Path, root: Path, known: set[str]) -> Iterator[tuple[int, str]]:
    """Every import of ``rosa`` in a file: its line, and the module that it names."""
    module = module_name(path, root)
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(parsed(path.read_text(encoding="utf-8"))):
        targets: list[str] = []
        if isinstance(node, ast.Import):
            targets = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*above, *([base] if base else [])])
            # `from rosa import run` names the module rosa.run, `from rosa.run import run` a function in it.
            named = [f"{base}.{alias.name}" for alias in node.names]
            targets = [name if name in known else base for name in named]
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            function = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if function in ("import_module", "__import__") and isinstance(node.args[0].value, str):
                targets = [node.args[0].value]
        for target in dict.fromkeys(targets):
            if inside(target, "rosa"):
                yield node.lineno, target


def allowed(package: str, target: str) -> bool:
    """Whether a package may import a module of ``rosa`` (both without the leading ``rosa.``)."""
    theirs = target.partition(".")[0]
    if theirs == package:
        return True
    if theirs not in LEVELS or LEVELS[theirs] >= LEVELS[package]:
        return False
    named = [only for only in ONLY.get(package, ()) if only.partition(".")[0] == theirs]
    return not named or any(inside(target, only) for only in named)


def violations(root: Path) -> list[str]:
    """Every import under ``root/rosa`` against the order, and every module that has no place in it.

    No module imports ``rosa`` itself, whose names are defined in its packages. Scripts may import anything, and are
    not importable as ``rosa``.
    """
    files = sorted(root.glob("rosa/**/*.py"))
    known = {module_name(path, root) for path in files}
    found = []
    for path in files:
        module = module_name(path, root)
        if module == "rosa":  # its names load on first use; `test_light_modules_stay_light` watches that they do
            continue
        package = module.split(".")[1]
        if package not in LEVELS:
            found.append(f"{path.relative_to(root)}: {module} has no place in ORDER")
            continue
        for line, target in imports(path, root, known):
            if not allowed(package, target.removeprefix("rosa").removeprefix(".")):
                found.append(f"{path.relative_to(root)}:{line}: {module} imports {target}")
    return found


def test_imports_keep_their_direction():
    assert violations(ROOT) == []


def test_the_rules_read_this_project():
    known = {module_name(path, ROOT) for path in ROOT.glob("rosa/**/*.py")}
    assert {"rosa", "rosa.config", "rosa.evaluation.classification"} <= known
    tracking = ROOT / "rosa/records/tracking.py"
    assert "rosa.config" in [target for _, target in imports(tracking, ROOT, known)]


def test_nothing_lies_loose_in_the_package():
    assert {path.name for path in (ROOT / "rosa").glob("*.py")} == {"__init__.py", "errors.py"}
    packages = {path.parent.name for path in (ROOT / "rosa").glob("*/__init__.py")}
    assert packages | {"errors"} == set(LEVELS)


def test_tests_lie_in_the_folders_of_what_they_test():
    whole = {"test_architecture.py", "test_configs.py", "test_gpu.py", "test_package.py", "test_tiers.py"}
    assert {path.name for path in (ROOT / "tests").glob("test_*.py")} == whole
    beside = {"scripts", "experiments", "docs"}
    assert {path.name for path in (ROOT / "tests").iterdir() if (path / "__init__.py").is_file()} <= {*LEVELS, *beside}


# --- the rules can be broken -----------------------------------------------------------------------------------------

SOUND = {
    "rosa/__init__.py": "import importlib\n",
    "rosa/errors.py": "",
    "rosa/utils/seeding.py": "import torch\nimport rosalind\n",
    "rosa/config/__init__.py": "from rosa.errors import x\n",
    "rosa/adapters/__init__.py": "from rosa.adapters import base, lora\n",
    "rosa/adapters/base.py": "from rosa.config import x\n",
    "rosa/adapters/lora.py": "from . import base\nfrom ..utils.seeding import x\n",
    "rosa/data/__init__.py": "from rosa.data.sources import load\n",
    "rosa/data/sources.py": "from rosa.utils import seeding\n",
    "rosa/training/__init__.py": "from rosa.adapters.base import x\nfrom rosa.adapters import base\n",
    "rosa/records/__init__.py": "from rosa.config import x\n",
    "rosa/run/__init__.py": "from rosa import adapters, data, training\n",
    "rosa/report/__init__.py": "from rosa import records\n",
    "rosa/export/__init__.py": "from rosa.run import run\n",
}

BROKEN = [
    ("rosa/errors.py", "import rosa.utils.seeding", "rosa.errors imports rosa.utils.seeding"),
    ("rosa/utils/seeding.py", "from rosa import config", "rosa.utils.seeding imports rosa.config"),
    ("rosa/data/sources.py", "from rosa.adapters import base", "rosa.data.sources imports rosa.adapters.base"),
    ("rosa/data/sources.py", "from ..adapters import attach", "rosa.data.sources imports rosa.adapters"),
    ("rosa/data/__init__.py", "from .. import records", "rosa.data imports rosa.records"),
    ("rosa/adapters/lora.py", "def f():\n    from rosa import attach", "rosa.adapters.lora imports rosa"),
    ("rosa/adapters/base.py", "import importlib\nimportlib.import_module('rosa.data')", "imports rosa.data"),
    ("rosa/training/__init__.py", "from rosa.adapters import attach", "rosa.training imports rosa.adapters"),
    ("rosa/training/__init__.py", "from rosa.adapters import lora", "rosa.training imports rosa.adapters.lora"),
    ("rosa/training/__init__.py", "if TYPE_CHECKING:\n    from rosa.adapters.lora import L", "rosa.adapters.lora"),
    ("rosa/records/__init__.py", "from rosa.run import x", "rosa.records imports rosa.run"),
    ("rosa/report/html.py", "from rosa.export import x", "rosa.report.html imports rosa.export"),
    ("rosa/newcomer.py", "", "rosa.newcomer has no place in ORDER"),
]


def plant(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


def test_a_correct_layout_has_no_violations(tmp_path):
    plant(tmp_path, SOUND)
    assert violations(tmp_path) == []


@pytest.mark.parametrize(("name", "text", "expected"), BROKEN)
def test_a_broken_rule_is_found(tmp_path, name, text, expected):
    plant(tmp_path, SOUND | {name: text})
    found = violations(tmp_path)
    assert len(found) == 1
    assert expected in found[0]
    assert found[0].startswith(name)


# --- one root of errors ----------------------------------------------------------------------------------------------

ALLOWED = {
    "NotImplementedError": "a subclass is incomplete",
    "AssertionError": "a programmer's mistake",
    "AttributeError": "what a module's __getattr__ must raise",
    "SystemExit": "the exit status that a batch system expects",
}
"""Built-in errors that the project raises, with the reason why no user error causes them."""


def foreign_errors(root: Path) -> list[str]:
    """Every ``raise`` under ``root/rosa`` of a built-in error that is not allowed: a user would get a traceback."""
    found = []
    for path in sorted(root.glob("rosa/**/*.py")):
        for node in ast.walk(parsed(path.read_text(encoding="utf-8"))):
            raised = node.exc if isinstance(node, ast.Raise) else None
            named = raised.func if isinstance(raised, ast.Call) else raised
            builtin = getattr(builtins, named.id, None) if isinstance(named, ast.Name) else None
            if isinstance(builtin, type) and issubclass(builtin, BaseException) and builtin.__name__ not in ALLOWED:
                found.append(f"{path.relative_to(root)}:{node.lineno}: {builtin.__name__}")
    return found


def test_every_error_raised_on_purpose_is_the_projects_own():
    assert foreign_errors(ROOT) == []
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and kind.__module__ == "rosa.errors"]
    assert kinds
    assert all(issubclass(kind, errors.RosaError) and kind.exit_status in (1, 2) for kind in kinds)


def test_a_foreign_error_is_found(tmp_path):
    plant(tmp_path, {"rosa/run/x.py": "def f():\n    raise ValueError('no')\n\ndef g(e):\n    raise e\n"})
    assert foreign_errors(tmp_path) == ["rosa/run/x.py:2: ValueError"]


# --- nothing that is read can run code -------------------------------------------------------------------------------

RUNS_CODE = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "code", "imp"}
"""Modules whose readers run code, or construct objects of any class."""
CALLS_CODE = {"eval", "exec", "compile", "execfile"}


def dangers(root: Path) -> list[str]:
    """Every place under ``rosa`` and ``scripts`` that could run what it reads."""
    found = []
    for path in sorted([*root.glob("rosa/**/*.py"), *root.glob("scripts/**/*.py")]):
        for node in ast.walk(parsed(path.read_text(encoding="utf-8"))):
            where = f"{path.relative_to(root)}:{getattr(node, 'lineno', 0)}"
            if isinstance(node, ast.Import):
                names = [alias.name.partition(".")[0] for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and not node.level:
                names = [(node.module or "").partition(".")[0]]
            else:
                names = []
            found += [f"{where}: import {name}" for name in names if name in RUNS_CODE]
            if not isinstance(node, ast.Call):
                continue
            keywords = {keyword.arg: keyword.value for keyword in node.keywords}
            called = ast.unparse(node.func)
            if "trust_remote_code" in keywords:
                found.append(f"{where}: trust_remote_code")
            if called in CALLS_CODE or called in ("yaml.load", "yaml.unsafe_load", "yaml.full_load"):
                found.append(f"{where}: {called}")
            if called == "torch.load" and ast.unparse(keywords.get("weights_only", ast.Constant(None))) != "True":
                found.append(f"{where}: torch.load without weights_only=True")
            if called in ("np.load", "numpy.load") and "allow_pickle" in keywords:
                found.append(f"{where}: allow_pickle")
    return found


def test_nothing_that_is_read_can_run_code():
    assert dangers(ROOT) == []


@pytest.mark.parametrize(
    ("line", "danger"),
    [
        ("import pickle", "import pickle"),
        ("from joblib import load", "import joblib"),
        ("torch.load(path)", "torch.load without weights_only=True"),
        ("torch.load(path, weights_only=False)", "torch.load without weights_only=True"),
        ("AutoModel.from_pretrained(name, trust_remote_code=True)", "trust_remote_code"),
        ("yaml.load(text, Loader=yaml.Loader)", "yaml.load"),
        ("np.load(path, allow_pickle=True)", "allow_pickle"),
        ("eval(text)", "eval"),
    ],
)
def test_a_danger_is_found(tmp_path, line, danger):
    plant(tmp_path, {"rosa/run/x.py": f"x = 1\n{line}\n"})
    assert dangers(tmp_path) == [f"rosa/run/x.py:2: {danger}"]
    plant(tmp_path, {"rosa/run/x.py": "torch.load(path, weights_only=True)\nmodel.eval()\n"})
    assert dangers(tmp_path) == []


# --- what an import costs --------------------------------------------------------------------------------------------

LOADED_BY = """
import importlib, sys
for name in sys.argv[2:]:
    importlib.import_module(name)
    if sys.argv[1] in sys.modules:
        sys.exit(f"importing {name} imports {sys.argv[1]}")
"""


def importing(modules: list[str], unwanted: str) -> str:
    """Import modules one after the other in a fresh interpreter; the complaint if one of them loads ``unwanted``."""
    command = [sys.executable, "-c", LOADED_BY, unwanted, *modules]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stderr.strip()


def modules_under(*patterns: str) -> list[str]:
    """The modules that each of the patterns matches; a pattern that matches none is a mistake in the test."""
    matched = {pattern: [module_name(path, ROOT) for path in ROOT.glob(pattern)] for pattern in patterns}
    assert all(matched.values()), f"no module matches {[pattern for pattern, found in matched.items() if not found]}"
    return sorted({module for found in matched.values() for module in found})


@pytest.mark.slow
def test_light_modules_stay_light():
    light = modules_under("rosa/__init__.py", "rosa/errors.py", "rosa/config/*.py", "rosa/report/**/*.py")
    assert importing([*light, "rosa.records"], "torch") == ""


def test_a_pattern_that_matches_nothing_fails():
    with pytest.raises(AssertionError, match="no module matches"):
        modules_under("rosa/__init__.py", "rosa/config.py")


@pytest.mark.slow
def test_no_module_loads_wandb():
    assert importing(modules_under("rosa/**/*.py"), "wandb") == ""


def importers(package: str) -> set[str]:
    """The packages of ``rosa`` that import a third-party package when they are loaded."""
    found = set()
    for path in ROOT.glob("rosa/**/*.py"):
        for node in parsed(path.read_text(encoding="utf-8")).body:
            named = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            named += [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
            if any(inside(name, package) for name in named):
                found.add(module_name(path, ROOT).split(".")[1])
    return found


def test_one_package_alone_imports_peft():
    assert importers("peft") == {"peft"}
    assert {"adapters", "models"} <= importers("transformers")


@pytest.mark.slow
def test_an_unwanted_import_is_found():
    # A module of rosa, as the measurement of coverage imports much of the standard library beforehand.
    assert importing(["rosa", "rosa.config"], "rosa.errors") == "importing rosa.config imports rosa.errors"
