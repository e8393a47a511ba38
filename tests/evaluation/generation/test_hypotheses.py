"""The file of hypotheses: complete or absent, resumed after a kill, skipped when done, replaced only on request."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import time
from pathlib import Path

import pytest
import torch
from filelock import FileLock
from transformers import GPT2LMHeadModel

from rosa.config import DecodingConfig
from rosa.errors import DecodingError
from rosa.evaluation.generation.hypotheses import Written, weights_sha256, write
from tests import causal
from tests.commands import begin

ORIGIN = {"split": "test", "weights": "best"}


def written(path: Path, count: int = 8, seed: int = 0, overwrite: bool = False, **settings: int) -> Written:
    config = DecodingConfig(**{"max_new_tokens": 6, "beams": 2, "batch_size": 2} | settings)  # type: ignore[arg-type]
    model, tokenizer = causal.build_model(seed), causal.build_tokenizer()
    return write(model, tokenizer, causal.prompts(count), config, path, ORIGIN, overwrite, progress=False)


def test_a_line_a_prompt_and_beside_it_what_it_was_made_from(tmp_path: Path) -> None:
    path = tmp_path / "new" / "test.txt"
    found = written(path)
    assert path.read_text() == "".join(f"{text}\n" for text in found.texts)
    facts = json.loads((tmp_path / "new" / "test.txt.json").read_text())
    assert facts == found.facts
    assert facts["hypotheses"] == {"file": "test.txt", "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
    assert facts["prompts_sha256"] == hashlib.sha256("\n".join([*causal.prompts(8), ""]).encode()).hexdigest()
    assert (facts["split"], facts["prompts"], facts["unended"], facts["empty"]) == ("test", 8, 8, 0)
    assert "batch_size" not in facts["decoding"]
    assert not list(path.parent.glob("*journal*"))


def test_what_is_done_is_done_and_what_is_there_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "test.txt"
    first = written(path)
    stamp = path.stat().st_mtime_ns
    again = written(path, batch_size=5)
    assert (again.skipped, again.texts, path.stat().st_mtime_ns) == (True, first.texts, stamp)
    for changes in ({"count": 7}, {"seed": 1}, {"beams": 3}):
        with pytest.raises(DecodingError, match=r"test.txt: already exists, with other content"):
            written(path, **changes)
    assert path.stat().st_mtime_ns == stamp
    other = written(path, overwrite=True, beams=3)
    assert not other.skipped
    assert path.read_text().splitlines() == list(other.texts)


@pytest.mark.parametrize("touched", ["test.txt", "test.txt.json"])
def test_a_file_that_was_changed_is_not_taken_for_ours(tmp_path: Path, touched: str) -> None:
    written(tmp_path / "test.txt")
    (tmp_path / touched).write_text("The Eagle.\n")
    with pytest.raises(DecodingError, match="already exists, with other content"):
        written(tmp_path / "test.txt")


def test_only_one_process_writes_a_file(tmp_path: Path) -> None:
    with FileLock(tmp_path / ".test.txt.lock"), pytest.raises(DecodingError, match="another process is writing"):
        written(tmp_path / "test.txt")
    (tmp_path / "file").write_text("")
    with pytest.raises(DecodingError, match="cannot be written"):
        written(tmp_path / "file" / "test.txt")


def test_the_hash_is_of_names_types_and_values() -> None:
    model = causal.build_model()
    first = weights_sha256(model)
    assert weights_sha256(causal.build_model()) == first
    assert weights_sha256(causal.build_model(1)) != first
    assert weights_sha256(causal.build_model().to(torch.bfloat16)) != first
    with torch.no_grad():
        model.transformer.h[1].mlp.c_fc.bias[3] += 1e-6
    assert weights_sha256(model) != first


SLOWLY = """
import sys, time
from pathlib import Path
from transformers import GPT2LMHeadModel
from tests.evaluation.generation.test_hypotheses import written

generate = GPT2LMHeadModel.generate
def slow(self, *arguments, **settings):
    found = generate(self, *arguments, **settings)
    time.sleep(0.3)
    return found
GPT2LMHeadModel.generate = slow
written(Path(sys.argv[1]), count=24)
"""


@pytest.mark.slow
def test_a_killed_process_is_gone_on_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, journal = tmp_path / "test.txt", tmp_path / ".test.txt.journal"
    program = tmp_path / "program" / "slowly.py"
    program.parent.mkdir()
    program.write_text(SLOWLY)
    process = begin(program, path)
    while process.poll() is None and not (journal.exists() and journal.read_bytes().count(b"\n") >= 4):
        time.sleep(0.02)
    if process.poll() is None:
        os.kill(process.pid, signal.SIGKILL)
    assert process.end().returncode == -signal.SIGKILL
    done = journal.read_bytes().count(b"\n")
    assert 4 <= done < 24
    assert [entry.name for entry in tmp_path.iterdir() if not entry.name.startswith(".")] == ["program"]

    rows = []
    generate = GPT2LMHeadModel.generate

    def counting(self: GPT2LMHeadModel, ids: torch.Tensor, **arguments: object) -> torch.Tensor:
        rows.append(len(ids))
        return generate(self, ids, **arguments)

    monkeypatch.setattr(GPT2LMHeadModel, "generate", counting)
    resumed = written(path, count=24)
    assert sum(rows) == 24 - done
    whole = written(tmp_path / "whole.txt", count=24)
    assert path.read_bytes() == (tmp_path / "whole.txt").read_bytes()
    assert resumed.texts == whole.texts
    assert resumed.facts["weights_sha256"] == whole.facts["weights_sha256"]
    assert not journal.exists()
