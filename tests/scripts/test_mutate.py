"""scripts/mutate.py: mutants are valid and differ in one place; the tests run on a copy."""

from __future__ import annotations

import ast
import random
from pathlib import Path

import mutate
import pytest

from rosa.errors import ConfigError

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


@pytest.mark.parametrize("named", ["rosa/module.py", "./rosa/../rosa/module.py", "ROOT/rosa/module.py"])
def test_the_checkout_stays_as_it_is_however_the_module_is_named(
    named: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkout = tmp_path / "checkout"
    for name in mutate.COPIED:
        (checkout / name).mkdir(parents=True)
    (checkout / "rosa" / "module.py").write_text("LIMIT = 2\n")
    targets = []

    def survives(folder: Path, module: Path, *others: object) -> bool:
        targets.append(folder / module)
        return True

    monkeypatch.setattr(mutate, "ROOT", checkout)
    monkeypatch.setattr(mutate, "survives", survives)
    monkeypatch.setattr("sys.argv", ["mutate.py", named.replace("ROOT", str(checkout)), "tests"])
    mutate.main()
    assert len(targets) == 2
    assert not any(target.is_relative_to(checkout) for target in targets)
    assert {target.relative_to(target.parents[1]) for target in targets} == {Path("rosa/module.py")}


@pytest.mark.parametrize("named", ["rosa/nothing.py", "rosa", "../outside.py", "ROOT/outside.py", "setup.py"])
def test_a_module_that_is_not_copied_is_refused(named: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkout = tmp_path / "checkout"
    (checkout / "rosa").mkdir(parents=True)
    for path in (tmp_path / "outside.py", checkout / "setup.py"):
        path.write_text("LIMIT = 2\n")
    monkeypatch.setattr(mutate, "ROOT", checkout)
    module = Path(named.replace("ROOT", str(tmp_path)))
    with pytest.raises(ConfigError, match=f"^{module}: no module of the project; expected a path such as rosa/"):
        mutate.relative(module)
