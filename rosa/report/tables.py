"""The tables of an experiment: methods x tasks, the learning-rate grid, and the long CSV with everything in it."""

from __future__ import annotations

import csv
import io
import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rosa.records import RULES
from rosa.report import formats, notes
from rosa.report.comparison import (
    Comparison,
    Record,
    ReportError,
    Result,
    Row,
    Task,
    Trial,
    compare,
    complete,
    summarise,
)
from rosa.report.published import Published
from rosa.report.render import Cell, Line, Table

CSV_COLUMNS = [
    *("experiment", "model", "method", "row", "settings", "task", "split", "metric", "headline", "rule"),
    *("lr", "selected", "status", "n", "seeds", "scores", "mean", "deviation"),
    *("seeds_of_task", "failed_seeds", "running_seeds", "trainable", "head", "commands"),
]


class _Footnotes:
    """Letters for the footnotes of a table, in the order in which its cells first use them."""

    def __init__(self) -> None:
        self._letters: dict[str, str] = {}

    def mark(self, text: str) -> str:
        if text not in self._letters:
            number, letters = len(self._letters), ""
            while True:
                letters = chr(ord("a") + number % 26) + letters
                number = number // 26 - 1
                if number < 0:
                    break
            self._letters[text] = letters
        return self._letters[text]

    def lines(self) -> list[tuple[str, str]]:
        return [(letters, text) for text, letters in self._letters.items()]


# --- methods x tasks -------------------------------------------------------------------------------------------------


def results_table(comparison: Comparison, published: Sequence[Published] = ()) -> Table:
    """Rows are methods and settings, columns tasks, their average and the trainable parameters.

    Best of a column in bold: among the rows of one model whose every seed has a score, all that show the highest
    number. Published numbers stand below, and never compete.
    """
    footnotes = _Footnotes()
    best = _best(comparison)
    rows = [_results_row(row, comparison, best, footnotes) for row in comparison.rows]
    rows += _published_rows(comparison, published, footnotes)
    names = [formats.TASK_NAMES.get(task.name, task.name) for task in comparison.tasks]
    header = ("Method", *names, "Average", "Trainable")
    models = sorted({row.model for row in comparison.rows})
    caption = f"{comparison.experiment}: {', '.join(models)}, scores ×100 at the {comparison.rule} epoch"
    lines = [*(notes.text(f"({letters}) {text}") for letters, text in footnotes.lines()), _average_note(comparison)]
    return Table(comparison.experiment, caption, header, tuple(rows), (*notes.notes(comparison), *lines))


def _average_note(comparison: Comparison) -> Line:
    each = "the first split" if any(len(task.splits) > 1 for task in comparison.tasks) else "each task"
    return notes.text(
        f"Average: the mean of the {len(comparison.tasks)} columns ({each}), given where every column has a score. "
        "Trainable: adapter + head parameters. Bold: best of a column among rows with all seeds. "
        f"{formats.MISSING}: no run."
    )


def _mean(result: Result | None, task: Task) -> float | None:
    """The mean headline on the selection split."""
    summary = summarise(result.selected.scores(task.splits[0], task.metric).values()) if result else None
    return summary.mean if summary else None


def _average(row: Row, tasks: Sequence[Task]) -> float | None:
    means = [_mean(row.results.get(task.name), task) for task in tasks]
    known = [mean for mean in means if mean is not None]
    return statistics.fmean(known) if len(known) == len(tasks) else None


def _all_complete(row: Row, tasks: Sequence[Task]) -> bool:
    return all(task.name in row.results and complete(row.results[task.name], task) for task in tasks)


def _best(comparison: Comparison) -> set[tuple[str, str]]:
    """(row label, column) of every bold cell; the average's column is ``""``. Ties are by the number as written."""
    found: set[tuple[str, str]] = set()
    for model in {row.model for row in comparison.rows}:
        rows = [row for row in comparison.rows if row.model == model]
        columns: dict[str, dict[str, float | None]] = {
            task.name: {
                row.label: _mean(row.results[task.name], task)
                for row in rows
                if task.name in row.results and complete(row.results[task.name], task)
            }
            for task in comparison.tasks
        }
        columns[""] = {
            row.label: _average(row, comparison.tasks) for row in rows if _all_complete(row, comparison.tasks)
        }
        for column, means in columns.items():
            written = {label: float(formats.points(mean)) for label, mean in means.items() if mean is not None}
            if len(written) > 1:
                found |= {(label, column) for label, value in written.items() if value == max(written.values())}
    return found


def _results_row(
    row: Row, comparison: Comparison, best: set[tuple[str, str]], footnotes: _Footnotes
) -> tuple[Cell, ...]:
    cells = [Cell(row.label)]
    for task in comparison.tasks:
        result = row.results.get(task.name)
        warnings = sorted({w for run in result.selected.scored.values() for w in run["warnings"]}) if result else []
        marks = tuple(footnotes.mark(f"Warning of the run: {warning}") for warning in warnings)
        written = formats.MISSING if result is None else _trial_text(result.selected, task)
        cells.append(Cell(written, (row.label, task.name) in best, marks))
    average = _average(row, comparison.tasks)
    partial = "" if _all_complete(row, comparison.tasks) else " (partial)"
    written = formats.MISSING if average is None else formats.points(average) + partial
    return (*cells, Cell(written, (row.label, "") in best), Cell(_trainable(row)))


def _trial_text(trial: Trial, task: Task) -> str:
    """``71.2 ± 0.4``, ``70.1 ± 0.3 / 69.8 ± 0.2`` with two splits; and what is missing: ``(n=2, 1 failed)``."""
    lost = {"failed": len(trial.failed), "running": len(trial.running)}
    counted = [f"{number} {state}" for state, number in lost.items() if number]
    summaries = [summarise(trial.scores(split, task.metric).values()) for split in task.splits]
    shown = [formats.mean_and_deviation(s.mean, s.deviation) for s in summaries if s]
    if not shown:
        one_seed = len(task.seeds) == 1
        return ", ".join([state for state in lost if lost[state]] if one_seed else counted) or formats.MISSING
    joined = (" / " if "±" in shown[0] else "/").join(shown)
    if tuple(sorted(trial.scored)) == task.seeds and not counted:
        return joined
    return f"{joined} ({', '.join([f'n={len(trial.scored)}', *counted])})"


def _trainable(row: Row) -> str:
    params = [
        run["params"]
        for result in row.results.values()
        for run in result.selected.runs
        if {"trainable", "head"} <= run["params"].keys()
    ]
    if not params:
        return formats.MISSING
    head = formats.count_range(found["head"] for found in params)
    tail = f" + {head} head"
    if head == "0":  # frozen, or a task that needs none
        tail = " (head frozen)" if row.settings.get("method.head") == "freeze" else ""
    return formats.count_range(found["trainable"] for found in params) + tail


def _published_rows(
    comparison: Comparison, published: Sequence[Published], footnotes: _Footnotes
) -> list[tuple[Cell, ...]]:
    rows = []
    for label in dict.fromkeys(entry.label for entry in published):
        entries = {entry.task: entry for entry in published if entry.label == label}
        cited = footnotes.mark(f"Published, not run here: {next(iter(entries.values())).source}.")
        cells, means = [Cell(label, marks=(cited,))], []
        for task in comparison.tasks:
            entry = entries.get(task.name)
            if entry is None:
                cells.append(Cell(formats.MISSING))
            elif entry.metric != task.metric:
                why = f"Published as {entry.metric}, while this column is {task.metric}: not shown."
                cells.append(Cell(formats.MISSING, marks=(footnotes.mark(why),)))
            else:
                means.append(entry.mean)
                deviation = None if entry.deviation is None else entry.deviation / 100
                written = formats.mean_and_deviation(entry.mean / 100, deviation)
                cells.append(Cell(written, marks=(footnotes.mark(entry.note),) if entry.note else ()))
        whole = len(means) == len(comparison.tasks)
        average = formats.points(statistics.fmean(means) / 100) if whole else formats.MISSING
        counts = formats.count_range(entry.trainable for entry in entries.values())
        rows.append((*cells, Cell(average), Cell(counts)))
    return rows


# --- the learning-rate grid ------------------------------------------------------------------------------------------


def grid_table(comparison: Comparison) -> Table:
    """Rows are methods and settings (and tasks, where there are several), columns every learning rate; bold wins.

    Where some tasks have a grid, those that every row ran at one learning rate alone are left out.
    """
    every = [(row, task) for row in comparison.rows for task in comparison.tasks if task.name in row.results]
    with_grid = {task.name for row, task in every if len(row.results[task.name].trials) > 1}
    pairs = [(row, task) for row, task in every if task.name in with_grid] or every
    rates = sorted({trial.lr for row, task in pairs for trial in row.results[task.name].trials})
    rows = []
    for row, task in pairs:
        result = row.results[task.name]
        by_lr = {trial.lr: trial for trial in result.trials}
        name = formats.TASK_NAMES.get(task.name, task.name)
        cells = [Cell(f"{row.label}, {name}" if len(comparison.tasks) > 1 else row.label)]
        for lr in rates:
            written = _trial_text(by_lr[lr], task) if lr in by_lr else formats.MISSING
            cells.append(Cell(written, lr == result.selected.lr and bool(result.selected.scored)))
        rows.append(tuple(cells))
    models = ", ".join(sorted({row.model for row in comparison.rows}))
    caption = f"{comparison.experiment}: learning-rate grid of {models}, scores ×100 at the {comparison.rule} epoch"
    legend = notes.text(f"Bold: the learning rate that each row chooses. {formats.MISSING}: no run.")
    header = ("Method", *map(formats.rate, rates))
    return Table(comparison.experiment, caption, header, tuple(rows), (*notes.notes(comparison), legend))


# --- CSV -------------------------------------------------------------------------------------------------------------


def long_csv(found: Sequence[Record], experiment: str) -> str:
    """Every score that the records of an experiment have, in long form.

    One line for each row of the table, task, split, official metric, rule (best and last epoch) and learning rate, the
    losing ones too; a cell without any run, or without a finished one, has a line with an empty mean. Scores are as
    recorded (not ×100).
    """
    out = io.StringIO()
    writer = csv.DictWriter(out, CSV_COLUMNS, lineterminator="\n")
    writer.writeheader()
    for rule in RULES:
        comparison = compare(found, experiment, rule)
        for row in comparison.rows:
            for task in comparison.tasks:
                head = {
                    "experiment": experiment,
                    "model": row.model,
                    "method": row.method,
                    "row": row.label,
                    "settings": json.dumps(row.settings, sort_keys=True),
                    "task": task.name,
                    "rule": rule,
                    "seeds_of_task": _spaced(task.seeds),
                }
                result = row.results.get(task.name)
                if result is None:
                    missing = {"split": task.splits[0], "metric": task.metric, "headline": True, "status": "missing"}
                    writer.writerow({**head, **missing, "n": 0})
                    continue
                for trial in result.trials:
                    chosen = trial is result.selected and bool(trial.scored)
                    writer.writerows({**head, **line} for line in _trial_lines(trial, task, chosen))
    return out.getvalue()


def _trial_lines(trial: Trial, task: Task, selected: bool) -> list[dict[str, Any]]:
    official = {metric for run in trial.scored.values() for metric in run["config"]["task"]["metrics"]}
    pairs = [(split, metric) for split in task.splits for metric in sorted(official)] or [(task.splits[0], task.metric)]
    params = [run["params"] for run in trial.runs if run["params"]]
    common = {
        "lr": formats.rate(trial.lr),
        "selected": selected,
        "status": _status(trial, task),
        "failed_seeds": _spaced(trial.failed),
        "running_seeds": _spaced(trial.running),
        "trainable": _spaced(sorted({found["trainable"] for found in params if "trainable" in found})),
        "head": _spaced(sorted({found["head"] for found in params if "head" in found})),
        "commands": "\n".join(sorted({run["command"] for run in trial.runs})),
    }
    lines = []
    for split, metric in pairs:
        scores = trial.scores(split, metric)
        summary = summarise(scores.values())
        numbers = {
            "split": split,
            "metric": metric,
            "headline": metric == task.metric and split in task.splits,
            "n": len(scores),
            "seeds": _spaced(scores),
            "scores": _spaced(scores.values()),
            "mean": summary.mean if summary else "",
            "deviation": summary.deviation if summary and summary.deviation is not None else "",
        }
        lines.append({**common, **numbers})
    return lines


def _status(trial: Trial, task: Task) -> str:
    if trial.scored:
        return "done" if tuple(sorted(trial.scored)) == task.seeds and not trial.failed else "partial"
    return "running" if trial.running else "failed"


def _spaced(values: Any) -> str:
    return " ".join(map(str, values))


def write_text(path: Path, text: str) -> None:
    """Write a table's file, making its folder.

    Raises:
        ReportError: the file cannot be written; names it.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ReportError(f"{path}: cannot write: {error}") from error
