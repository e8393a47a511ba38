"""Who may import whom: the plan of the house, enforced by reading the imports.

Imports inside functions and under ``TYPE_CHECKING`` count: a dependency that hides is one all the same.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

ANYTHING = ("rosa",)
LEAVES = (
    "rosa.columns",
    "rosa.config",
    "rosa.costs",
    "rosa.files",
    "rosa.hub",
    "rosa.labels",
    "rosa.messages",
    "rosa.processes",
    "rosa.scores",
    "rosa.seeding",
)

RULES: dict[str, tuple[str, ...]] = {
    "rosa": ANYTHING,  # names that load on first use; `test_light_modules_stay_light` watches that they do
    "rosa.columns": (),
    "rosa.labels": (),
    "rosa.config": ("rosa.config",),
    "rosa.costs": (),
    "rosa.files": (),
    "rosa.hub": (),
    "rosa.messages": (),
    "rosa.processes": (),
    "rosa.scores": (),
    "rosa.screen": ("rosa.columns", "rosa.scores"),
    "rosa.seeding": (),
    "rosa.adapters": ("rosa.adapters", *LEAVES),
    "rosa.data": ("rosa.data", *LEAVES),
    "rosa.evaluation": ("rosa.evaluation", *LEAVES),
    "rosa.models": LEAVES,
    "rosa.perceptron": LEAVES,
    "rosa.inputs": ("rosa.data", "rosa.evaluation", "rosa.models", "rosa.perceptron", "rosa.training", *LEAVES),
    "rosa.pretraining": ("rosa.pretraining", *LEAVES),
    # Training knows the protocol of adapters, and no method by name.
    "rosa.diagnostics": ("rosa.adapters.base", "rosa.adapters.subspace", *LEAVES),
    "rosa.resampling": ("rosa.adapters.base", "rosa.adapters.resample", "rosa.diagnostics", *LEAVES),
    "rosa.progress": ("rosa.resampling", "rosa.scores"),
    "rosa.training": ("rosa.training", "rosa.adapters.base", "rosa.resampling", *LEAVES),
    "rosa.tracking": ("rosa.config",),
    "rosa.records": ("rosa.config", "rosa.files"),
    "rosa.selection": ("rosa.config", "rosa.records"),
    "rosa.report": ("rosa.report", "rosa.records", "rosa.scores", "rosa.selection"),
    "rosa.export": ("rosa.adapters", "rosa.export", *LEAVES),
    # A run's models are rebuilt as the run built them.
    "rosa.export.runs": ANYTHING,
    "rosa.benchmarks": ANYTHING,
    "rosa.hypotheses": ("rosa.evaluation", *LEAVES),
    "rosa.trial": ("rosa.data", "rosa.evaluation", "rosa.hypotheses", *LEAVES),
    "rosa.mini_models": ("rosa.data", "rosa.pretraining", *LEAVES),
    "rosa.decoding": ANYTHING,
    "rosa.samples": ("rosa.config", "rosa.data", "rosa.records", "rosa.report"),
    "rosa.bookkeeping": (
        "rosa.diagnostics",
        "rosa.inputs",
        "rosa.records",
        "rosa.resampling",
        "rosa.tracking",
        "rosa.training",
        *LEAVES,
    ),
    "rosa.run": ANYTHING,
    "rosa.workers": (),
    "rosa.stopping": (),
    "rosa.overview": (),
    "rosa.grid": ("rosa.config", "rosa.run"),
    "rosa.sweep": ANYTHING,
    "rosa.batch": ("rosa.grid", "rosa.processes", "rosa.sweep", "rosa.training"),
    "rosa.status": ("rosa.columns", "rosa.config", "rosa.grid", "rosa.messages", "rosa.records", "rosa.selection"),
    "scripts": (
        "rosa.batch",
        "rosa.config",
        "rosa.decoding",
        "rosa.export",
        "rosa.files",
        "rosa.grid",
        "rosa.messages",
        "rosa.processes",
        "rosa.records",
        "rosa.report",
        "rosa.run",
        "rosa.samples",
        "rosa.screen",
        "rosa.status",
        "rosa.sweep",
    ),
    "scripts.benchmark": ("rosa.benchmarks", "rosa.messages"),
    "scripts.score_e2e": ("rosa.columns", "rosa.evaluation.nlg", "rosa.files", "rosa.messages"),
}
"""Module, or package with all that is in it -> the modules, or packages with all that is in them, that it may import.

The package ``rosa`` itself may be imported by nobody in the house: its names live elsewhere.
"""


def module_name(path: Path, root: Path) -> str:
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def inside(module: str, package: str) -> bool:
    return module == package or module.startswith(f"{package}.")


def imports(path: Path, root: Path, known: set[str]) -> Iterator[tuple[int, str]]:
    """Every import of ``rosa`` in a file: its line, and the module that it names."""
    module = module_name(path, root)
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), str(path))):
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


def violations(root: Path) -> list[str]:
    """Every import under ``root`` that the rules do not allow, and every module that they do not know."""
    files = sorted([*root.glob("rosa/**/*.py"), *root.glob("scripts/**/*.py")])
    known = {module_name(path, root) for path in files}
    found = []
    for path in files:
        module = module_name(path, root)
        place = path.relative_to(root)
        # The most particular rule holds; "rosa" is that of the package's own __init__ and of no other module.
        owner = max((name for name in RULES if inside(module, name)), key=len, default="")
        if not owner or (owner == "rosa" and module != "rosa"):
            found.append(f"{place}: {module} has no rule; say in RULES whom it may import")
            continue
        for line, target in imports(path, root, known):
            allowed = RULES[owner] == ANYTHING or any(inside(target, name) for name in RULES[owner])
            if not allowed:
                rule = ", ".join(RULES[owner]) or "nothing of rosa"
                found.append(f"{place}:{line}: {module} imports {target}; allowed: {rule}")
    return found


def test_imports_keep_their_direction():
    assert violations(ROOT) == []


def test_the_rules_read_this_project():
    known = {module_name(path, ROOT) for path in ROOT.glob("rosa/**/*.py")}
    assert {"rosa", "rosa.config", "rosa.evaluation.classify"} <= known
    assert [target for _, target in imports(ROOT / "rosa/tracking.py", ROOT, known)] == ["rosa.config"]


# --- the rules can be broken -----------------------------------------------------------------------------------------

SOUND = {
    "rosa/__init__.py": "import importlib\n",
    "rosa/config.py": "import torch\nimport rosalind\n",
    "rosa/seeding.py": "",
    "rosa/costs.py": "",
    "rosa/adapters/__init__.py": "from rosa.adapters import base, lora\n",
    "rosa/adapters/base.py": "from rosa.config import x\n",
    "rosa/adapters/lora.py": "from . import base\nfrom ..seeding import x\n",
    "rosa/data/__init__.py": "from rosa.data.glue import load\n",
    "rosa/data/glue.py": "from rosa import seeding\n",
    "rosa/training.py": "from rosa.adapters.base import x\nfrom rosa.adapters import base\n",
    "rosa/records.py": "from rosa.config import x\n",
    "rosa/report/__init__.py": "from rosa import records\n",
    "rosa/run.py": "from rosa import adapters, data, training\n",
    "scripts/train.py": "from rosa.run import run\nfrom rosa import config\n",
}

BROKEN = [
    ("rosa/config.py", "import rosa.seeding", "rosa.config imports rosa.seeding"),
    ("rosa/costs.py", "from rosa import seeding", "rosa.costs imports rosa.seeding"),
    ("rosa/data/glue.py", "from rosa.adapters import base", "rosa.data.glue imports rosa.adapters.base"),
    ("rosa/data/glue.py", "from ..adapters import attach", "rosa.data.glue imports rosa.adapters;"),
    ("rosa/data/__init__.py", "from .. import records", "rosa.data imports rosa.records"),
    ("rosa/adapters/lora.py", "def f():\n    from rosa import attach", "rosa.adapters.lora imports rosa;"),
    ("rosa/adapters/base.py", "import importlib\nimportlib.import_module('rosa.data')", "imports rosa.data;"),
    ("rosa/training.py", "from rosa.adapters import attach", "rosa.training imports rosa.adapters;"),
    ("rosa/training.py", "from rosa.adapters import lora", "rosa.training imports rosa.adapters.lora"),
    ("rosa/training.py", "if TYPE_CHECKING:\n    from rosa.adapters.lora import L", "imports rosa.adapters.lora"),
    ("rosa/records.py", "from rosa.training import x", "rosa.records imports rosa.training"),
    ("rosa/report/__init__.py", "from rosa.config import x", "rosa.report imports rosa.config"),
    ("rosa/report/html.py", "from rosa.run import run", "rosa.report.html imports rosa.run"),
    ("scripts/train.py", "from rosa.training import x", "scripts.train imports rosa.training"),
    ("rosa/newcomer.py", "", "rosa.newcomer has no rule"),
]


def plant(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


def test_a_sound_house_has_no_violations(tmp_path):
    plant(tmp_path, SOUND)
    assert violations(tmp_path) == []


@pytest.mark.parametrize(("name", "text", "expected"), BROKEN)
def test_a_broken_rule_is_found(tmp_path, name, text, expected):
    plant(tmp_path, SOUND | {name: text})
    found = violations(tmp_path)
    assert len(found) == 1
    assert expected in found[0]
    assert found[0].startswith(name)


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
    return sorted({module_name(path, ROOT) for pattern in patterns for path in ROOT.glob(pattern)})


def test_light_modules_stay_light():
    light = modules_under("rosa/__init__.py", "rosa/config.py", "rosa/records.py", "rosa/report/**/*.py")
    assert "rosa.records" in light
    assert importing(light, "torch") == ""


@pytest.mark.slow
def test_no_module_loads_wandb():
    assert importing(modules_under("rosa/**/*.py"), "wandb") == ""


def test_an_unwanted_import_is_found():
    assert importing(["rosa", "rosa.config"], "hashlib") == "importing rosa.config imports hashlib"
