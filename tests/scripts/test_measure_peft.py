"""scripts/measure_peft.py refuses an option that a measurement has no use for, and numbers without a spread."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.commands import script


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["step", "--repeats", "5"], "--repeats 5: step has no use for it; expected it with ways alone"),
        (["fsdp", "--repeats", "5"], "--repeats 5: fsdp has no use for it; expected it with ways alone"),
        (["--minutes", "2"], "--minutes 2.0: ways has no use for it; expected it with step alone"),
        (["fsdp", "--minutes", "0"], "--minutes 0.0: fsdp has no use for it; expected it with step alone"),
        (["--repeats", "1"], "--repeats 1: expected at least 2, for a spread"),
        (["ways", "--repeats", "0"], "--repeats 0: expected at least 2, for a spread"),
        (["step", "--minutes", "0"], "--minutes 0.0: expected a number above 0"),
        (["step", "--minutes", "nan"], "--minutes nan: expected a number above 0"),
    ],
)
def test_an_option_that_does_not_fit_is_refused(
    words: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert script(monkeypatch, "measure_peft", *words) == 2
    assert f"error: {said}\n" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
