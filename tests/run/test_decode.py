"""scripts/decode_e2e.py: from a run or checkpoint to a file of hypotheses."""

from __future__ import annotations

import csv
import runpy
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from rosa.config import DecodingConfig
from rosa.evaluation.generation.hypotheses import weights_sha256
from rosa.export import to_merged
from rosa.run import run
from rosa.run.decode import preset
from rosa.run.reload import load
from tests import causal
from tests.conftest import ROOT, Composer

PAIRS = {
    "trainset.csv": [(f"name[w{i}], food[w{i + 1}]", f"w{i} serves w{i + 1} food .") for i in range(24)],
    "devset.csv": [(f"name[w{i}], food[w{i + 2}]", f"w{i} serves w{i + 2} food .") for i in (1, 1, 3)],
    "testset_w_refs.csv": [(f"name[w{i}], food[w{i + 3}]", f"w{i} has w{i + 3} food .") for i in (5, 5, 7, 9, 2)],
}
TEST_MRS = 4

pytestmark = pytest.mark.usefixtures("without_java")

Decode = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def e2e_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("e2e")
    for name, pairs in PAIRS.items():
        with (folder / name).open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([("mr", "ref"), *pairs])
    return folder


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoint")
    texts = [f"Input: {mr} Output: {reference}" for pairs in PAIRS.values() for mr, reference in pairs]
    tokenizer = causal.build_tokenizer(sorted({word for text in texts for word in text.split(" ")}))
    causal.build_model(vocabulary=len(tokenizer)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def decode(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Decode:
    """Call the script; its exit code, output and errors."""

    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["decode_e2e.py", *map(str, arguments), "--device", "cpu"])
        with pytest.raises(SystemExit) as ended:
            runpy.run_path(str(ROOT / "scripts" / "decode_e2e.py"), run_name="__main__")
        captured = capsys.readouterr()
        return int(ended.value.code or 0), captured.out, captured.err

    return call


def test_a_run_and_its_exported_checkpoint_say_the_same(
    composed: Composer, e2e_dir: Path, checkpoint: Path, decode: Decode, tmp_path: Path
) -> None:
    config = composed(
        "task=e2e",
        "data=local",
        f"data.dir={e2e_dir}",
        f"model.path={checkpoint}",
        "method=rosa",
        "method.rank=2",
        "method.every=1",
        "train.epochs=2",
        "train.lr=1e-2",
        "decoding.max_new_tokens=6",
        "decoding.beams=2",
    )
    folder = run(config, "command", progress=False).folder
    code, out, _ = decode(folder, "--weights", "last")
    assert code == 0
    assert f"done: {folder / 'test.last.txt'}" in out
    lines = (folder / "test.last.txt").read_text().split("\n")
    assert len(lines) == TEST_MRS + 1
    finished = load(folder, "last")
    to_merged(finished.plain, tmp_path / "merged", tokenizer=finished.tokenizer)
    options = ("--data-dir", e2e_dir, "--max-new-tokens", 6, "--beams", 2)
    code, out, _ = decode(tmp_path / "merged", *options)
    assert code == 0
    assert (tmp_path / "merged" / "test.txt").read_text().split("\n") == lines
    # Fine-tuning changed something, and the run's weights are those that were decoded.
    assert weights_sha256(finished.plain) != weights_sha256(finished.base)
    assert weights_sha256(finished.plain) in (folder / "test.last.txt.json").read_text()
    assert "already finished" in decode(tmp_path / "merged", *options)[1]


def test_options_reach_the_file(e2e_dir: Path, checkpoint: Path, decode: Decode, tmp_path: Path) -> None:
    out = tmp_path / "some" / "file.txt"
    options = ("--preset", "greedy", "--max-new-tokens", 3, "--limit", 2, "--split", "validation", "--out", out)
    code, said, errors = decode(checkpoint, "--data-dir", e2e_dir, *options)
    assert code == 0, errors
    assert "2 hypotheses of split validation" in said
    assert out.read_text().count("\n") == 2
    facts = Path(f"{out}.json").read_text()
    assert '"max_new_tokens": 3' in facts
    assert '"beams": 1' in facts


def test_presets() -> None:
    conf = ROOT / "conf"
    assert preset(conf, "reference") == DecodingConfig()
    lora = preset(conf, "lora")
    assert (lora.beams, lora.length_penalty, lora.no_repeat_ngram) == (10, 0.8, 4)
    assert preset(conf, "greedy").beams == 1


def test_what_is_refused(e2e_dir: Path, checkpoint: Path, decode: Decode, tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    shutil.copytree(checkpoint, bare, ignore=shutil.ignore_patterns("tokenizer*"))
    cases = [
        ((tmp_path,), "expected the folder of a run, with record.json, or of a saved model"),
        ((checkpoint,), "a saved model needs --data-dir DIR"),
        ((checkpoint, "--data-dir", e2e_dir, "--weights", "last"), "--weights last: "),
        ((checkpoint, "--data-dir", tmp_path), "trainset.csv"),
        ((checkpoint, "--data-dir", e2e_dir, "--beams", 0), "decoding.beams=0: expected a whole number above 0"),
        ((checkpoint, "--data-dir", e2e_dir, "--limit", -1), "--limit -1: expected"),
        ((bare, "--data-dir", e2e_dir), "tokenizer"),
    ]
    for arguments, message in cases:
        code, out, errors = decode(*arguments)
        assert (code, out) == (2, "")
        assert errors.startswith("error: ")
        assert errors.count("\n") == 2
        assert message in errors
