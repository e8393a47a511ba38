"""scripts/mutate.py: mutants are valid and differ in one place; the tests run on a copy."""

from __future__ import annotations

import ast
import random
from pathlib import Path

import mutate
import pytest

SOURCE = """
if TYPE_CHECKING:
    from c import d

def f(a, b):
    print(a)
    if a < b and b:
        return a + 1
    if a:
        return None
    return True
"""


def test_every_kind_of_place_is_changed_once() -> None:
    found = {said for _, said, _ in mutate.mutants(SOURCE, random.Random(0))}
    assert found == {
        "print(a) -> None",
        "not: if a < b and b:",
        "not: if a:",
        "return True -> return None",
        "a < b and b -> a < b or b",
        "return a + 1 -> return None",
        "True -> False",
        "a < b -> a <= b",
        "a + 1 -> a - 1",
        "1 -> 2",
    }
    for line, _, changed in mutate.mutants(SOURCE, random.Random(0)):
        assert 1 < line <= SOURCE.count("\n")
        assert ast.dump(ast.parse(changed)) != ast.dump(ast.parse(SOURCE))


@pytest.mark.parametrize(("changed", "survived"), [("LIMIT = 3\n", True), ("LIMIT = 5\n", False)])
def test_a_change_that_no_test_notices_survives_and_the_module_comes_back(
    changed: str, survived: bool, tmp_path: Path
) -> None:
    (tmp_path / "module.py").write_text("LIMIT = 2\n")
    (tmp_path / "test_module.py").write_text("import module\n\ndef test_limit():\n    assert module.LIMIT < 4\n")
    assert mutate.survives(tmp_path, Path("module.py"), changed, ["test_module.py"], 60) is survived
    assert (tmp_path / "module.py").read_text() == "LIMIT = 2\n"
