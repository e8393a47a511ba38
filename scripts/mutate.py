#!/usr/bin/env python
"""Change the code in one small way at a time, and list the changes with which all tests pass.

python scripts/mutate.py rosa/adapters/callback.py tests/adapters/test_resampling.py --count 20 --seed 0

Each mutant differs from a module in one operator, number, condition or statement; which ones are tried is drawn with
the seed. The tests run on a copy of the checkout, so the checkout stays as it is.
"""

from __future__ import annotations

import argparse
import ast
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from rosa.errors import ConfigError
from rosa.utils.console import run_command

ROOT = Path(__file__).resolve().parent.parent
COPIED = ("rosa", "tests", "conf", "experiments", "scripts", "docs")
SWAPPED: dict[type[ast.AST], type[ast.AST]] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Add: ast.Sub, ast.Sub: ast.Add,
    ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult, ast.Mod: ast.Mult, ast.MatMult: ast.Add,
    ast.And: ast.Or, ast.Or: ast.And,
}  # fmt: skip


def mutants(source: str) -> Iterator[tuple[int, str, str]]:
    """Every mutant of a module: the line, what was changed, and the whole changed source."""
    count = sum(1 for _ in ast.walk(ast.parse(source)))
    for position in range(count):
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
        case ast.If() | ast.IfExp() | ast.While():
            node.test = ast.UnaryOp(ast.Not(), node.test)
            return f"not: {before.splitlines()[0]}"
        case ast.Return(value=ast.expr()):
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
    command = [sys.executable, "-B", "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *tests]
    try:
        done = subprocess.run(
            command, cwd=folder, env={**os.environ, "PYTHONPATH": str(folder)}, capture_output=True, timeout=seconds,
            check=False,
        )  # fmt: skip
        return done.returncode == 0
    except subprocess.TimeoutExpired:
        return False
    finally:
        target.write_text(kept, encoding="utf-8")


def main() -> None:
    """Try the drawn mutants, and print those that survive."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("module", type=Path, help="the module to change")
    parser.add_argument("tests", nargs="+", help="what pytest runs for each mutant")
    parser.add_argument("--count", type=int, default=20, help="mutants to try (20)")
    parser.add_argument("--seed", type=int, default=0, help="of the draw (0)")
    parser.add_argument("--seconds", type=int, default=120, help="the longest that the tests may take (120)")
    arguments = parser.parse_args()
    if not (ROOT / arguments.module).is_file():
        raise ConfigError(f"{arguments.module}: no such module; expected a path such as rosa/adapters/callback.py")
    source = (ROOT / arguments.module).read_text(encoding="utf-8")
    found = list(mutants(source))
    drawn = random.Random(arguments.seed).sample(found, min(arguments.count, len(found)))
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place, "checkout")
        for name in COPIED:
            shutil.copytree(ROOT / name, folder / name, symlinks=True)
        for path in ROOT.glob("*.*"):
            if path.is_file():
                shutil.copy(path, folder)
        if not survives(folder, arguments.module, source, arguments.tests, arguments.seconds):
            raise ConfigError(f"{' '.join(arguments.tests)}: fails without a change, or takes longer than --seconds")
        survivors = 0
        for line, said, changed in sorted(drawn):
            if survives(folder, arguments.module, changed, arguments.tests, arguments.seconds):
                survivors += 1
                print(f"survived: {arguments.module}:{line}: {said}", flush=True)
    print(f"{arguments.module}: {survivors} of {len(drawn)} drawn mutants ({len(found)} in all) survived")


if __name__ == "__main__":
    sys.exit(run_command(main))
