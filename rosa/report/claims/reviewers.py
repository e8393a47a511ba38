"""What the paper's reviewers asked: convergence, storage, fluctuation and wall-clock time."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from rosa.report import formatting
from rosa.report.benchmarked import FULL, LORA, ROSA, Case, Line, ratios, values
from rosa.report.claims import answers, verdicts
from rosa.report.claims.convergence import SHARE, converged, fluctuation, last_epoch
from rosa.report.claims.costs import to_faster_lora, to_full
from rosa.report.claims.section import Section, listed
from rosa.report.comparison import Comparison, Row, Task, seeds_of_all
from rosa.report.significance import deviation_interval
from rosa.report.tables.table import Cell, Table, text
from rosa.report.tables.table import Line as Note
from rosa.utils.formatting import MIB


def section(comparison: Comparison, lines: Sequence[Line]) -> Section:
    """The four questions, each with its answer in a sentence and its numbers."""
    return Section(
        "What the reviewers asked",
        (
            _asked("Does it converge as full fine-tuning does?", answers.convergence(comparison)),
            convergence_table(comparison),
            _asked("Do scores fluctuate on small tasks?", answers.fluctuation(comparison)),
            fluctuation_table(comparison),
            _asked("Must the whole model be stored, and is there a gain in wall-clock time?", answers.storage(lines))
            + " A resample changes the frozen part of each adapted layer, so that a checkpoint holds all of it, though "
            "no other layer; once trained, the change can be exported as a LoRA adapter ([how](tables.md#export)).",
            benchmark_table(lines),
            *_epochs(comparison, lines),
        ),
    )


def _asked(question: str, answer: str) -> str:
    return f"**{question}** {answer}".strip()


# --- convergence and fluctuation -------------------------------------------------------------------------------------


def convergence_table(comparison: Comparison) -> Table:
    """The epoch after which each row has nearly full fine-tuning's last score, on each task."""
    over = verdicts.over_constant(any(task.lower_is_better for task in comparison.tasks))
    note = text(
        f"The first epoch after which the mean score has {SHARE:.0%} of what full fine-tuning's after its last one has "
        f"{over}, over the seeds that all rows have, on the split that chose nothing. {formatting.MISSING}: not run, "
        "or not with these seeds."
    )
    return _by_task("claims-convergence", "The epoch of convergence", comparison, _converged, note)


def _converged(comparison: Comparison, row: Row, task: Task) -> str:
    epoch = converged(comparison, row, task)
    if epoch is None:
        return formatting.MISSING
    return f"not in {last_epoch(row, task):g}" if math.isinf(epoch) else f"{epoch:g}"


def fluctuation_table(comparison: Comparison) -> Table:
    """The standard deviation over seeds of each row, on each task."""
    counts = sorted({len(seeds_of_all(comparison.rows, task)) for task in comparison.tasks})
    reach = listed(
        f"{low:.2f} to {high:.1f} times it with n={n}" for n in counts if n > 1 for low, high in [deviation_interval(n)]
    )
    note = text(
        "Sample standard deviation of the scores over the n seeds that all rows have, in points. So few seeds say "
        f"little about it: a deviation's own 95% interval is {reach}."
    )
    return _by_task("claims-fluctuation", "Fluctuation over seeds", comparison, _deviation, note)


def _deviation(comparison: Comparison, row: Row, task: Task) -> str:
    found = fluctuation(comparison, row, task)
    if found is None or found.deviation is None:
        return formatting.MISSING
    return f"{formatting.score(found.deviation, task.metric)} (n={found.n})"


def _by_task(
    name: str, caption: str, comparison: Comparison, cell: Callable[[Comparison, Row, Task], str], note: Note
) -> Table:
    rows = [
        (Cell(row.label), *(Cell(cell(comparison, row, task)) for task in comparison.tasks)) for row in comparison.rows
    ]
    names = [formatting.task_name(task.name) for task in comparison.tasks]
    return Table(name, caption, ("Row", *names), tuple(rows), (note,))


# --- storage and time ------------------------------------------------------------------------------------------------


def benchmark_table(lines: Sequence[Line]) -> Table:
    """The bytes of a checkpoint, ROSA's step relative to others', and what a resample takes, of each model."""
    stored = [values(lines, method, "checkpoint") for method in (ROSA, LORA, FULL)]
    times = (to_full(lines), to_faster_lora(lines), resample_in_steps(lines))
    rows = []
    for case in values(lines, ROSA, "step"):
        model, rank = case
        sizes = [found.get(case, found.get((model, ""))) for found in stored]
        cells = [_significant(size and size / MIB) for size in sizes] + [
            _significant(found.get(case)) for found in times
        ]
        rows.append((Cell(f"{model} {rank}"), *map(Cell, cells)))
    header = ("Case", "ROSA (MiB)", "LoRA (MiB)", "Full (MiB)", "Step / full's", "Step / LoRA's", "Resample (steps)")
    note = text(
        "From the benchmark. MiB: the tensors that restore the trained model beside the pretrained one. ROSA's step is "
        "that between resamples, relative to full fine-tuning's and to the faster LoRA's; a resample is of all layers, "
        f"and as long as so many of ROSA's steps. {formatting.MISSING}: not measured."
    )
    return Table("claims-benchmark", "Storage and wall-clock time", header, tuple(rows), (note,))


def resample_in_steps(lines: Sequence[Line]) -> dict[Case, float]:
    """The time of a resample of all layers, relative to that of ROSA's step."""
    return ratios(values(lines, ROSA, "resample"), values(lines, ROSA, "step"))


def _epochs(comparison: Comparison, lines: Sequence[Line]) -> list[str]:
    """What resampling each epoch adds to the epochs of the study; nothing where either is not measured."""
    row = verdicts.row_of(comparison, verdicts.ROSA)
    if row is None:
        return []
    steps = resample_in_steps(lines).get((row.model, f"r={row.settings['method.rank']}"))
    updates = {
        formatting.task_name(task): first["step"] / first["epoch"]
        for task, result in row.results.items()
        for run in result.selected.scored.values()
        for first in run["history"][:1]
    }
    if steps is None or not updates:
        return []
    short, long = (chosen(updates, key=lambda task: updates[task]) for chosen in (min, max))
    return [
        f"An epoch of the study has {updates[short]:.0f} ({short}) to {updates[long]:.0f} ({long}) steps, so that a "
        f"resample each epoch makes the training of ROSA {steps / updates[long]:.1%} to {steps / updates[short]:.1%} "
        "longer."
    ]


def _significant(value: float | None) -> str:
    return formatting.MISSING if value is None else formatting.significant(value)
