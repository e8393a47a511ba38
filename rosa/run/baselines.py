"""Compute the baselines of a run's data, once for all runs that share it."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import TYPE_CHECKING

from rosa import data, records
from rosa.config import Config
from rosa.data import base, e2e
from rosa.errors import DataError
from rosa.evaluation import baselines
from rosa.records import baselines as store
from rosa.records.environment import environment
from rosa.run import build
from rosa.run.test_split import scored

if TYPE_CHECKING:
    import datasets


def make(config: Config, results_dir: Path, command: str, expected: Path | None = None) -> Path:
    """Read a run's data, compute the baselines unless their record exists, and return its file.

    Args:
        config: the run's configuration, of a task with texts.
        results_dir: the record is written to its folder ``baselines``.
        command: stored in the record.
        expected: the file name for the rows of a recorded run.

    Raises:
        DataError: the data cannot be read, or are not the recorded run's.
        ScoringError: retrieved texts cannot be scored.
        OutputError: the record cannot be written.
    """
    texts = build.read(config)
    assert texts is not None, "a regression of vectors has no texts"
    key = store.data_key(config.task.name, config.task.texts, texts.facts, config.seed, config.task.scorer)
    path = store.path_of(results_dir, key)
    if expected not in (None, path):
        raise DataError("the rows that can be read now are not those of the record")
    if path.is_file():
        return path
    record: store.Baselines = {
        "schema": store.SCHEMA,
        "method": "baseline",
        "model": None,
        "data": key,
        "forms": [],
        "command": command,
        "environment": environment("cpu"),
        "started": records.now(),
    }
    if isinstance(texts, e2e.GenerationData):
        start = time.perf_counter()
        groups = texts.groups[config.task.test]
        found = baselines.retrieve(
            [group.mr for group in groups], texts.train[e2e.PAIR_COLUMNS[0]][:], texts.train[e2e.PAIR_COLUMNS[1]][:]
        )
        scores = scored(config.task, groups, found).as_dict()
        seconds = time.perf_counter() - start
        one = {config.task.test: scores["scores"]}
        record["forms"] = [{"name": baselines.RETRIEVAL, "seconds": seconds, "scores": one}]
        record["scorer"] = scores["scorer"]
    else:
        task = data.resolved_task(config.task, texts.facts)
        splits = {name: _labelled(split) for name, split in texts.evaluation.items()}
        record["forms"] = [
            {"name": form.name, "seconds": form.seconds, "scores": _plain(form.scores)}
            for form in baselines.of_labels(task, _labelled(texts.train), splits)
        ]
    store.write(path, record)
    return path


def _labelled(split: datasets.Dataset) -> baselines.Labelled:
    columns = [split[name][:] for name in base.TEXT_COLUMNS if name in split.column_names]
    return baselines.Labelled(columns, split["label"][:])


def _plain(scores: baselines.Scores) -> dict[str, dict[str, float | None]]:
    return {
        split: {metric: value if math.isfinite(value) else None for metric, value in values.items()}
        for split, values in scores.items()
    }
