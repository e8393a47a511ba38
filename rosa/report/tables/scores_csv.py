"""All scores of an experiment's records as CSV in long form, for further analysis and to check tables."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from rosa.records import RULES
from rosa.report import formatting
from rosa.report.baselines import forms
from rosa.report.comparison import Comparison, Row, Task, Trial, summarise
from rosa.report.significance import compare_with, lora_of
from rosa.report.study import Study
from rosa.report.tables.generation import SCORES, generated_scores, generated_splits, text_scores

COLUMNS = [
    *("experiment", "model", "method", "row", "settings", "task", "split", "metric", "headline", "rule"),
    *("lr", "selected", "status", "n", "seeds", "scores", "mean", "deviation"),
    *("lora_row", "pairs", "difference_to_lora", "p_paired_t"),
    *("seeds_of_task", "failed_seeds", "running_seeds", "trainable", "head", "commands"),
]

Scores = Mapping[tuple[str, str], Mapping[int, float]]
"""(split, metric) -> seed -> score."""


def long_csv(study: Study) -> str:
    """All scores in the records of an experiment, in long form.

    One line per row, task, split of the data, official metric, rule (best and last epoch) and learning rate, selected
    or not; a cell without a finished run has a line with an empty mean. Scores are as recorded (not ×100). Lines of the
    selected learning rate compare with LoRA: ``p_paired_t`` is the two-sided p-value over ``pairs`` seeds. Every form
    of baseline has lines of the method ``baseline``, one score for each set of rows.
    """
    return write(COLUMNS, (line for rule in RULES for line in _lines(study.at(rule))))


def write(columns: Sequence[str], lines: Iterable[Mapping[str, Any]]) -> str:
    """CSV text of the lines; missing fields are empty."""
    out = io.StringIO()
    writer = csv.DictWriter(out, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return out.getvalue()


def spaced(values: Iterable[Any]) -> str:
    """Values joined by spaces, for one CSV field."""
    return " ".join(map(str, values))


def _lines(comparison: Comparison) -> Iterator[dict[str, Any]]:
    for row in comparison.rows:
        lora = lora_of(row, comparison.rows)
        for task in comparison.tasks:
            head = {
                "experiment": comparison.experiment,
                "model": row.model,
                "method": row.method,
                "row": row.label,
                "settings": json.dumps(row.settings, sort_keys=True),
                "task": task.name,
                "rule": comparison.rule,
                "seeds_of_task": spaced(task.seeds),
            }
            result = row.results.get(task.name)
            if result is None:
                missing = {"split": task.splits[0], "metric": task.metric, "headline": True, "status": "missing"}
                yield {**head, **missing, "n": 0}
                continue
            for trial in result.trials:
                chosen = trial is result.selected and bool(trial.scored)
                rival = _rival(lora, task) if chosen and lora is not None else {}
                for line in _trial_lines(trial, task, chosen):
                    place = (line["split"], line["metric"])
                    yield {**head, **line, **(_paired(lora, trial, rival, place) if lora and place in rival else {})}
    yield from _baseline_lines(comparison)


def _baseline_lines(comparison: Comparison) -> Iterator[dict[str, Any]]:
    for task in comparison.tasks:
        for form in forms(comparison, task):
            for (split, metric), scores in form.scores.items():
                summary = summarise(scores)
                yield {
                    "experiment": comparison.experiment,
                    "method": "baseline",
                    "row": f"{form.label}, {form.form}",
                    "task": task.name,
                    "split": split,
                    "metric": metric,
                    "headline": metric == task.metric and split in task.splits,
                    "rule": comparison.rule,
                    "status": "done",
                    "n": len(scores),
                    "scores": spaced(scores),
                    "mean": summary.mean if summary else "",
                    "deviation": summary.deviation if summary and summary.deviation is not None else "",
                }


def _rival(lora: Row, task: Task) -> Scores:
    """Scores of the LoRA row at its selected learning rate."""
    return _scores(lora.results[task.name].selected, task) if task.name in lora.results else {}


def _paired(lora: Row, trial: Trial, rival: Scores, place: tuple[str, str]) -> dict[str, Any]:
    paired = compare_with(lora.label, _one(trial, *place), rival[place])
    return {
        "lora_row": paired.against,
        "pairs": paired.n,
        "difference_to_lora": paired.difference,
        "p_paired_t": paired.p,
    }


def _one(trial: Trial, split: str, metric: str) -> dict[int, float]:
    texts = {name for names in SCORES.values() for name in names}
    return generated_scores(trial, metric, split) if metric in texts else trial.scores(split, metric)


def _scores(trial: Trial, task: Task) -> Scores:
    """All official scores of a trial, and those of the texts generated with the weights of its rule."""
    official = {metric for run in trial.scored.values() for metric in run["config"]["task"]["metrics"]}
    pairs = [(split, metric) for split in task.splits for metric in sorted(official)] or [(task.splits[0], task.metric)]
    texts = dict.fromkeys(metric for run in trial.scored.values() for metric in text_scores(run))
    pairs += [(split, metric) for split in generated_splits(trial) for metric in texts]
    return {(split, metric): _one(trial, split, metric) for split, metric in pairs}


def _trial_lines(trial: Trial, task: Task, selected: bool) -> list[dict[str, Any]]:
    params = [run["params"] for run in trial.runs if run["params"]]
    common = {
        "lr": formatting.rate(trial.lr),
        "selected": selected,
        "status": _status(trial, task),
        "failed_seeds": spaced(trial.failed),
        "running_seeds": spaced(trial.running),
        "trainable": _counts(found["trainable"] for found in params),
        "head": _counts(found["head"] for found in params),
        "commands": "\n".join(sorted({run["command"] for run in trial.runs})),
    }
    lines = []
    for (split, metric), scores in _scores(trial, task).items():
        summary = summarise(scores.values())
        numbers = {
            "split": split,
            "metric": metric,
            "headline": metric == task.metric and split in task.splits,
            "n": len(scores),
            "seeds": spaced(scores),
            "scores": spaced(scores.values()),
            "mean": summary.mean if summary else "",
            "deviation": summary.deviation if summary and summary.deviation is not None else "",
        }
        lines.append({**common, **numbers})
    return lines


def _counts(numbers: Iterable[int]) -> str:
    return spaced(sorted(set(numbers)))


def _status(trial: Trial, task: Task) -> str:
    if trial.scored:
        return "done" if trial.scored.keys() >= set(task.seeds) and not trial.failed else "partial"
    return "running" if trial.running else "failed"
