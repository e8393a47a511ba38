"""Predictions of a finished run's model for a split or a file, also as files for the GLUE leaderboard."""

from __future__ import annotations

import csv
import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rosa import data, models
from rosa.config import TRAIN, TaskConfig
from rosa.data import base, unlabelled
from rosa.data.collator import PaddingCollator
from rosa.errors import DataError, ScoringError
from rosa.evaluation.classification import predictions_of
from rosa.run.device import device_for
from rosa.run.reload import FinishedRun
from rosa.utils import files

LEADERBOARD = {
    ("cola", "test"): "CoLA", ("sst2", "test"): "SST-2", ("mrpc", "test"): "MRPC", ("qqp", "test"): "QQP",
    ("stsb", "test"): "STS-B", ("mnli", "test_matched"): "MNLI-m", ("mnli", "test_mismatched"): "MNLI-mm",
    ("mnli", "ax"): "AX", ("qnli", "test"): "QNLI", ("rte", "test"): "RTE", ("wnli", "test"): "WNLI",
}  # fmt: skip
"""(task, split) -> name of the file in a submission to gluebenchmark.com."""
OFFICIAL_ROWS = {
    "CoLA": 1063, "SST-2": 1821, "MRPC": 1725, "QQP": 390965, "STS-B": 1379, "MNLI-m": 9796, "MNLI-mm": 9847,
    "AX": 1104, "QNLI": 5463, "RTE": 3000, "WNLI": 146,
}  # fmt: skip
"""Name of a file -> rows that the leaderboard expects."""
NAMED = ("mnli", "qnli", "rte")
"""Tasks whose classes the leaderboard names; the others' are numbers."""
BATCH = 64


@dataclass(frozen=True)
class Predictions:
    """Predictions for the rows of a split, in its order."""

    texts: Sequence[Sequence[str]]
    labels: Sequence[float] | None
    """None where they are unknown."""
    values: np.ndarray
    """(rows,): class numbers, or numbers."""
    probabilities: np.ndarray | None
    """(rows, classes); None for a regression."""


def predict(run: FinishedRun, texts: Sequence[Sequence[str]], labels: Sequence[float] | None = None) -> Predictions:
    """Predict a class or a number for each row, with the texts cut as in training.

    Raises:
        ScoringError: a run of a task without classes or numbers.
        DivergedError: an output is not finite.
    """
    task = run.config.task
    if not task.is_labelled:
        raise ScoringError(
            f"task={task.name}: predictions are of classes or numbers; scripts/decode_e2e.py writes texts"
        )
    model = run.plain.to(torch.device(device_for(run.config.train.device))).eval()  # type: ignore[arg-type]
    limit = models.length_limit(run.config.train.max_length, model)
    encoded = run.tokenizer(*map(list, texts), truncation="longest_first", max_length=limit, verbose=False)
    rows = [{name: values[row] for name, values in encoded.items()} for row in range(len(texts[0]))]
    order = sorted(range(len(rows)), key=lambda row: len(rows[row]["input_ids"]))
    collate = PaddingCollator(run.tokenizer)
    outputs: list[np.ndarray] = [np.empty(0)] * len(rows)
    with torch.no_grad():
        for start in range(0, len(order), BATCH):
            part = order[start : start + BATCH]
            batch = {name: values.to(model.device) for name, values in collate([rows[row] for row in part]).items()}
            logits = model(**batch).logits
            for row, output in zip(part, logits.float().cpu().numpy(), strict=True):
                outputs[row] = output
    stacked = np.stack(outputs).astype(np.float64)
    values = predictions_of(stacked, task.kind)
    if task.kind == "regression":
        return Predictions(texts, labels, values, None)
    powers = np.exp(stacked - stacked.max(axis=1, keepdims=True))
    return Predictions(texts, labels, values, powers / powers.sum(axis=1, keepdims=True))


def read(run: FinishedRun, split: str) -> tuple[list[list[str]], Sequence[float] | None]:
    """The texts of a split of the run's data, and its labels if they are known.

    Raises:
        DataError: there is no such split, or it cannot be read.
    """
    config = run.config
    known = [TRAIN, *config.evaluated]
    if split not in known:
        if split not in unlabelled.test_splits(config.task):
            others = [*known, *unlabelled.test_splits(config.task)]
            raise DataError(f"--split {split}: expected one of {', '.join(others)}, the splits of {config.task.name}")
        return unlabelled.read_split(config.task, config.drawn_data, split), None
    loaded = data.load(config.task, config.drawn_data, config.seed, config.holdout_share)
    table = loaded.train if split == TRAIN else loaded.evaluation[split]
    return [table[name][:] for name in base.TEXT_COLUMNS if name in table.column_names], table["label"][:]


def leaderboard(task: TaskConfig, predictions: Predictions) -> str:
    """The content of a file for the GLUE leaderboard: a header, then the row's number from 0 and the prediction."""
    if task.kind == "regression":
        low, high = task.label_range or (-np.inf, np.inf)
        written = [f"{value:.3f}" for value in np.clip(predictions.values, low, high)]
    else:
        written = [task.labels[value] if task.name in NAMED else str(value) for value in predictions.values]
    return "index\tprediction\n" + "".join(f"{row}\t{one}\n" for row, one in enumerate(written))


def table(task: TaskConfig, predictions: Predictions, as_json: bool) -> str:
    """All rows as CSV or JSON lines: texts, the label if known, the prediction, and each class's probability.

    The names are ``prediction`` and ``probability_CLASS``; if a column of the data has one, a ``_`` is added to ours.
    """
    lines = [_line(task, predictions, row) for row in range(len(predictions.values))]
    if as_json:
        return "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    out = io.StringIO()
    writer = csv.DictWriter(out, list(lines[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return out.getvalue()


def _line(task: TaskConfig, predictions: Predictions, row: int) -> Mapping[str, Any]:
    def name(value: float) -> Any:
        return task.labels[int(value)] if task.labels else float(value)

    line: dict[str, Any] = {column: texts[row] for column, texts in zip(task.texts, predictions.texts, strict=True)}
    if predictions.labels is not None:
        line[task.label] = name(predictions.labels[row])
    found = {"prediction": name(predictions.values[row])}
    if predictions.probabilities is not None:
        shares = zip(task.labels, predictions.probabilities[row], strict=True)
        found |= {f"probability_{label}": round(float(share), 6) for label, share in shares}
    for column, value in found.items():
        while column in line:
            column += "_"
        line[column] = value
    return line


def pack(written: Sequence[Path], path: Path) -> None:
    """Zip files in the order of their names; equal files give equal bytes.

    Raises:
        OutputError: the archive cannot be written.
    """
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(written):
            archive.writestr(zipfile.ZipInfo(file.name), file.read_bytes())
    files.write(path, out.getvalue())
