"""scripts/export.py: from a run to an export, and scores of the loaded export."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import PeftModel
from sklearn.metrics import matthews_corrcoef
from transformers import AutoModelForSequenceClassification, PreTrainedModel

from rosa import data, models
from rosa.run import Outcome, run
from tests.commands import script
from tests.conftest import Composer

SETTINGS = ("method.rank=2", "train.epochs=2", "train.lr=0.02")


def finished(composed: Composer, *overrides: str) -> Outcome:
    return run(composed(*overrides), "python scripts/train.py again", progress=False)


def scores(model: PreTrainedModel | PeftModel, composed: Composer) -> dict[str, float]:
    """Matthews' correlation and cross-entropy on the dev set, one example at a time."""
    config = composed()
    tokenizer = models.load(config.model, config.task, 0)[1]
    rows = data.tokenize(data.load(config.task, config.data, config.seed), tokenizer, 128).evaluation["validation"]
    with torch.no_grad():
        logits = torch.cat([model.eval()(input_ids=torch.tensor([row["input_ids"]])).logits for row in rows])
    labels = torch.tensor(rows["label"])
    return {
        "matthews_correlation": float(matthews_corrcoef(labels.numpy(), np.argmax(logits.numpy(), axis=1))),
        "loss": float(torch.nn.functional.cross_entropy(logits, labels)),
    }


@pytest.mark.parametrize("weights", ["best", "last"])
@pytest.mark.parametrize("method", ["rosa", "lora"])
def test_peft_export_of_a_run_scores_as_its_record_says(
    method: str,
    weights: str,
    composed: Composer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    every = ["method.every=1"] if method == "rosa" else []
    outcome = finished(composed, f"method={method}", *SETTINGS, *every)
    out = tmp_path / "adapter"
    assert (
        script(monkeypatch, "export", outcome.folder, "--format=peft", "--out", out, "--weights", weights, "--check")
        == 0
    )
    said = capsys.readouterr().out
    # A user has the pretrained folder, and a head of their own that is drawn at random.
    base = AutoModelForSequenceClassification.from_pretrained(composed().model.path, num_labels=2)
    found = scores(PeftModel.from_pretrained(base, out), composed)
    recorded = outcome.record["metrics"][weights]["validation"]
    assert found["matthews_correlation"] == pytest.approx(recorded["matthews_correlation"], abs=1e-9)
    assert found["loss"] == pytest.approx(recorded["loss"], rel=1e-4)
    value = f"{recorded['matthews_correlation']:.4f}"
    assert f"validation  matthews_correlation  {value} (record: {value})" in said
    assert said.splitlines()[-1] == f"done: {out}"
    changes = {"lora": 1, "rosa": 2 * outcome.record["metrics"][weights]["epoch"]}[method]
    ranks = {int(line.split()[4]) for line in said.splitlines() if line.startswith("roberta.")}
    assert max(ranks) == 2 * changes, "rank 2; ROSA has twice that in each subspace, and one subspace an epoch"
    card = (out / "README.md").read_text()
    assert f"{weights} epoch" in card
    assert f"/{outcome.record['identity']['hash']}"[1:] in card


STANDALONE = """
import json, sys
sys.modules["rosa"] = None  # importing it is an error
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer
folder, text = sys.argv[1:]
model, tokenizer = AutoModelForSequenceClassification.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
logits = model.eval()(**tokenizer(text, return_tensors="pt")).logits.tolist()
print(json.dumps({"logits": logits, "labels": model.config.id2label, "kind": type(model).__name__}))
"""


@pytest.mark.parametrize("method", ["rosa", "lora", "ia3", "full"])
def test_merged_export_loads_without_us_and_scores_as_the_record_says(
    method: str, composed: Composer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    overrides = [setting for setting in SETTINGS if "rank" not in setting or method in ("rosa", "lora")]
    outcome = finished(composed, f"method={method}", *overrides)
    out = tmp_path / "plain"
    assert script(monkeypatch, "export", outcome.folder, "--format=merged", "--out", out, "--weights=last") == 0
    model = AutoModelForSequenceClassification.from_pretrained(out)
    found, recorded = scores(model, composed), outcome.record["metrics"]["last"]["validation"]
    assert found["matthews_correlation"] == pytest.approx(recorded["matthews_correlation"], abs=1e-9)
    assert found["loss"] == pytest.approx(recorded["loss"], rel=1e-4)
    if method != "rosa":
        return
    command = [sys.executable, "-I", "-c", STANDALONE, str(out), "the cat sees the dog"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    theirs = json.loads(done.stdout)
    tokenizer = models.load(composed().model, composed().task, 0)[1]
    with torch.no_grad():
        ours = model(**tokenizer("the cat sees the dog", return_tensors="pt")).logits
    assert torch.allclose(torch.tensor(theirs["logits"]), ours, rtol=1e-5)
    assert list(theirs["labels"].values()) == composed().task.labels
    assert theirs["kind"] == "RobertaForSequenceClassification"


# --- what is refused -------------------------------------------------------------------------------------------------


def refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], folder: Path, out: Path, *options: str
) -> str:
    code = script(monkeypatch, "export", folder, *(options or ("--format=merged",)), "--out", out)
    said = capsys.readouterr().err
    assert code == 2
    assert not out.exists()
    return said


def test_folder_that_is_no_run_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    said = refused(monkeypatch, capsys, tmp_path, tmp_path / "out")
    assert f"{tmp_path}: expected the folder of a run, with record.json" in said


def rewrite(folder: Path, **changes: Any) -> None:
    path = folder / "record.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_run_that_cannot_be_exported_is_refused(
    composed: Composer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Refused: an unfinished run, missing weights, changed pretrained weights, and an unknown setting."""
    out = tmp_path / "out"
    outcome = finished(composed, "train.max_steps=2", "train.epochs=1", "train.keep=last")
    said = refused(monkeypatch, capsys, outcome.folder, out)
    assert "no such file (the run had train.keep=last); use --weights last, or run again with train.keep=best" in said
    (outcome.folder / "last.safetensors").unlink()
    said = refused(monkeypatch, capsys, outcome.folder, out, "--format=merged", "--weights=last")
    assert "(the run had train.keep=last); run again with train.keep=last train.force=true" in said
    (outcome.folder / "best.safetensors").touch()
    rewrite(outcome.folder, status="running")
    said = refused(monkeypatch, capsys, outcome.folder, out)
    assert "status is running, expected done; finish it with: python scripts/train.py again" in said
    rewrite(outcome.folder, status="done", model=outcome.record["model"] | {"sha256": {"model.safetensors": "0" * 64}})
    said = refused(monkeypatch, capsys, outcome.folder, out)
    assert "are not the pretrained weights of the run" in said
    assert outcome.record["model"]["sha256"]["model.safetensors"] in said
    method = outcome.record["config"]["method"] | {"warp": 9}
    rewrite(outcome.folder, config=outcome.record["config"] | {"method": method})
    assert "method.warp: this version of rosa has no such key" in refused(monkeypatch, capsys, outcome.folder, out)


def test_ia3_run_is_refused_as_an_adapter(
    composed: Composer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    outcome = finished(composed, "method=ia3", "train.epochs=1", "train.lr=0.02")
    said = refused(monkeypatch, capsys, outcome.folder, tmp_path / "out", "--format=peft")
    assert said.startswith("error: roberta.encoder.layer.0.attention.self.key (32 x 32): its change has rank ")
    assert "export the merged model" in said


def test_tolerance_of_a_merged_export_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert script(monkeypatch, "export", tmp_path, "--format=merged", "--out", tmp_path, "--tolerance=0.1") == 2
    assert "--tolerance needs --format peft" in capsys.readouterr().err
