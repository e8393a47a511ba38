"""The details of a cell as plain data: its runs with scores, settings, curves and commands."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from rosa.records import (
    RULES,
    Record,
    Rule,
    by_split,
    default_settings,
    error_line,
    learning_rate,
    order_key,
    score,
    settings,
)
from rosa.report import formatting
from rosa.report.comparison import Result, Row, Task
from rosa.report.grouping import frozen
from rosa.report.histories import history

DIVERGED = "diverged"
NAMED_ELSEWHERE = ("task.", "model.name", "method.name", "train.lr")
"""Settings that the cell's title already names, or that the task determines."""


class Runs:
    """Collects the runs behind all cells; each run, and each set of settings that runs share, is stored once.

    Args:
        files: :func:`rosa.records.order_key` of a run -> its record's file, relative to the page.
    """

    def __init__(self, files: Mapping[tuple[Any, ...], Path]) -> None:
        self._files = files
        self._numbers: dict[tuple[Any, ...], int] = {}
        self._runs: list[dict[str, Any]] = []
        self._settings: dict[Any, int] = {}
        self._different: list[list[tuple[str, str, str]]] = []
        self._cells: list[dict[str, Any]] = []

    def cell(self, row: Row, task: Task, lr: float | None = None) -> int | None:
        """Add the cell of a row and task, of one learning rate or (None) of all; its index, or None without a run."""
        result = row.results.get(task.name)
        trials = [trial for trial in result.trials if lr in (None, trial.lr)] if result else []
        if result is None or not trials:
            return None
        runs = [self._run(run, result, task) for trial in trials for run in trial.runs]
        title = f"{row.label}, {formatting.task_name(task.name)}"
        if lr is not None:
            title += f", learning rate {formatting.rate(lr)}"
        self._cells.append({"title": title, "method": row.method, "curve": _curve_name(task), "runs": runs})
        return len(self._cells) - 1

    def file(self, run: Record) -> str:
        """URL of a run's record relative to the page; empty if unknown."""
        path = self._files.get(order_key(run))
        return quote(path.as_posix()) if path else ""

    def data(self) -> dict[str, Any]:
        """All data for JSON: ``cells`` refer to ``runs`` by index, and runs to ``settings``."""
        return {"cells": self._cells, "runs": self._runs, "settings": self._different}

    def _run(self, run: Record, result: Result, task: Task) -> int:
        key = order_key(run)
        if key not in self._numbers:
            self._numbers[key] = len(self._runs)
            self._runs.append(self._facts(run, result, task))
        return self._numbers[key]

    def _facts(self, run: Record, result: Result, task: Task) -> dict[str, Any]:
        facts: dict[str, Any] = {
            "seed": run["identity"]["seed"],
            "lr": formatting.rate(learning_rate(run)),
            "shown": learning_rate(run) == result.selected.lr,
            "status": status(run, result.selected.rule),
            **{rule: _score(run, rule, task) for rule in RULES},
            "curve": [
                [epoch, float(formatting.score(value, task.metric))]
                for epoch, value in history(run, task.splits[0], task.metric)
            ],
            "settings": self._of_settings(run),
            "command": run["command"],
            "file": self.file(run),
        }
        return facts | {"warnings": list(run["warnings"])} | ({"error": error_line(run)} if run["error"] else {})

    def _of_settings(self, run: Record) -> int:
        found = different_settings(run)
        key = frozen(found)
        if key not in self._settings:
            self._settings[key] = len(self._different)
            self._different.append(found)
        return self._settings[key]


def status(run: Record, rule: Rule) -> str:
    """``done``, ``failed``, ``running`` (or stopped), or ``diverged``: finished with a score that is not finite."""
    finished = run["status"] == "done"
    return DIVERGED if finished and not math.isfinite(score(run, rule)) else str(run["status"])


def different_settings(run: Record) -> list[tuple[str, str, str]]:
    """Key, value and default of every setting that affects results and differs from its default, sorted by key."""
    defaults = default_settings(run["identity"]["method"])
    return [
        (key, written(value), written(defaults[key]) if key in defaults else "")
        for key, value in sorted(settings(run).items())
        if not key.startswith(NAMED_ELSEWHERE) and (key not in defaults or frozen(value) != frozen(defaults[key]))
    ]


def written(value: Any) -> str:
    """A setting's value as typed on the command line: ``[query, key]``, ``true``, ``0.1``; ``''`` if empty."""
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(written, value))}]"
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    return str(value) if value != "" else "''"


def _curve_name(task: Task) -> str:
    return f"{formatting.scaled_name(task.metric)} ({task.splits[0]})"


def _score(run: Record, rule: Rule, task: Task) -> str:
    """The headline score on every split, and its epoch; empty if the run has none."""
    if not run["metrics"]:
        return ""
    found = run["metrics"][rule]
    values = [by_split(found).get(split, {}).get(task.metric) for split in task.splits]
    shown = [formatting.score(value, task.metric) for value in values if value is not None and math.isfinite(value)]
    return f"{' / '.join(shown)} (epoch {found['epoch']:g})" if shown else ""
