#!/usr/bin/env python
"""Change the code in one small way at a time, and list the changes with which all tests pass.

python scripts/mutate.py rosa/adapters/callback.py tests/adapters/test_resampling.py --count 20 --seed 0

Each mutant differs from a module in one operator, number, condition or statement; which ones are tried is drawn with
the seed. The tests run on a copy of the checkout, so the checkout stays as it is.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import importlib
import itertools
import multiprocessing
import os
import random
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import from_clone  # noqa: F401  # finds rosa
import pytest

from rosa.errors import ConfigError
from rosa.utils.console import run_command

ROOT = Path(__file__).resolve().parent.parent
COPIED = ("rosa", "tests", "conf", "experiments", "scripts", "docs")
LOADED = ("torch", "transformers", "hypothesis")
"""Libraries that are loaded once, for all mutants."""
SWAPPED: dict[type[ast.AST], type[ast.AST]] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Add: ast.Sub, ast.Sub: ast.Add,
    ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult, ast.Mod: ast.Mult, ast.MatMult: ast.Add,
    ast.And: ast.Or, ast.Or: ast.And,
}  # fmt: skip


def mutants(source: str, draw: random.Random) -> Iterator[tuple[int, str, str]]:
    """Every mutant of a module, in a drawn order: the line, what was changed, and the whole changed source."""
    count = sum(1 for _ in ast.walk(ast.parse(source)))
    for position in draw.sample(range(count), count):
        tree = ast.parse(source)
        node = list(ast.walk(tree))[position]
        said = _change(node)
        if said:
            yield getattr(node, "lineno", 0), said, ast.unparse(ast.fix_missing_locations(tree))


def _change(node: ast.AST) -> str:
    """Change a node in place, and return a description of the change; empty if nothing can be changed."""
    before = ast.unparse(node) if isinstance(node, (ast.expr, ast.stmt)) else ""
    match node:
        case ast.Compare(ops=[operator]) if type(operator) in SWAPPED:
            node.ops = [SWAPPED[type(operator)]()]  # type: ignore[list-item]
        case ast.BinOp() | ast.BoolOp() if type(node.op) in SWAPPED:
            node.op = SWAPPED[type(node.op)]()  # type: ignore[assignment]
        case ast.Constant(value=bool() as value):
            node.value = not value
        case ast.Constant(value=int() | float() as value):
            node.value = value + 1
        case ast.If(test=ast.Name("TYPE_CHECKING")):
            return ""  # for type checkers alone
        case ast.If() | ast.IfExp() | ast.While():
            node.test = ast.UnaryOp(ast.Not(), node.test)
            return f"not: {before.splitlines()[0]}"
        case ast.Return(value=ast.expr()) if ast.unparse(node) != "return None":
            node.value = ast.Constant(None)
        case ast.Expr(value=ast.Call()):
            node.value = ast.Constant(None)
        case _:
            return ""
    return f"{before.splitlines()[0]} -> {ast.unparse(node).splitlines()[0]}"


def survives(folder: Path, module: Path, changed: str, tests: list[str], seconds: int) -> bool:
    """Whether the tests pass with this source of a module; a mutant that does not end is noticed."""
    target = folder / module
    kept = target.read_text(encoding="utf-8")
    target.write_text(changed, encoding="utf-8")
    child = multiprocessing.get_context("fork").Process(target=_test, args=(folder, tests))
    child.start()
    assert child.pid is not None
    try:
        child.join(seconds)
        return child.exitcode == 0
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)  # with what the tests have started
        child.join()
        target.write_text(kept, encoding="utf-8")


def _test(folder: Path, tests: list[str]) -> None:
    """In a process of its own, run the tests on the code in a folder; its status is pytest's.

    It begins as a copy of this process, in which the libraries are loaded: they take longer than most tests.
    """
    os.setsid()
    nowhere = os.open(os.devnull, os.O_RDWR)
    for descriptor in range(3):
        os.dup2(nowhere, descriptor)
    copied = tuple(f"{ROOT / name}{os.sep}" for name in COPIED)
    for name, loaded in list(sys.modules.items()):
        if (getattr(loaded, "__file__", None) or "").startswith(copied):
            del sys.modules[name]
    ours = {ROOT, *(ROOT / name for name in COPIED)}
    sys.path[:] = [str(folder), *(path for path in sys.path if Path(path).resolve() not in ours)]
    sys.dont_write_bytecode = True
    os.environ["PYTHONPATH"] = str(folder)
    os.chdir(folder)
    os._exit(pytest.main(["-q", "-x", "-p", "no:cacheprovider", *tests]))


def relative(module: Path) -> Path:
    """A module's path in the checkout, and so in its copy: joined to the copy, an absolute one would be the checkout's.

    Raises:
        ConfigError: it is no file of the folders that are copied.
    """
    path = (ROOT / module).resolve()
    if not any(path.is_relative_to(ROOT / name) for name in COPIED) or not path.is_file():
        raise ConfigError(f"{module}: no module of the project; expected a path such as rosa/adapters/callback.py")
    return path.relative_to(ROOT)


def main() -> None:
    """Try the drawn mutants, and print those that survive."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("module", type=Path, help="the module to change")
    parser.add_argument("tests", nargs="+", help="what pytest runs for each mutant")
    parser.add_argument("--count", type=int, default=20, help="mutants to try (20)")
    parser.add_argument("--seed", type=int, default=0, help="of the draw (0)")
    parser.add_argument("--seconds", type=int, default=120, help="the longest that the tests may take (120)")
    arguments = parser.parse_args()
    module = relative(arguments.module)
    for option in ("count", "seconds"):
        if getattr(arguments, option) < 1:
            raise ConfigError(f"--{option} {getattr(arguments, option)}: expected at least 1")
    source = (ROOT / module).read_text(encoding="utf-8")
    drawn = list(itertools.islice(mutants(source, random.Random(arguments.seed)), arguments.count))
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place, "checkout")
        for name in COPIED:
            shutil.copytree(ROOT / name, folder / name, symlinks=True)
        for path in ROOT.glob("*.*"):
            if path.is_file():
                shutil.copy(path, folder)
        for library in LOADED:
            importlib.import_module(library)
        if not survives(folder, module, source, arguments.tests, arguments.seconds):
            raise ConfigError(f"{' '.join(arguments.tests)}: fails without a change, or takes longer than --seconds")
        survivors = 0
        for line, said, changed in sorted(drawn):
            if survives(folder, module, changed, arguments.tests, arguments.seconds):
                survivors += 1
                print(f"survived: {module}:{line}: {said}", flush=True)
    print(f"{module}: {survivors} of {len(drawn)} drawn mutants survived")


if __name__ == "__main__":
    sys.exit(run_command(main))
