"""The claims about time, memory and storage, by the benchmark's measurements; and what each row of the study costs."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence

from rosa.report import formatting
from rosa.report.benchmarked import FULL, LORA, ROSA, Case, Line, lower_quartiles, ratios, values
from rosa.report.claims.section import VERDICT, Section
from rosa.report.claims.verdicts import CONTRADICTED, NOT_RUN, OPEN, SUPPORTED
from rosa.report.comparison import Comparison, Row, Task
from rosa.report.significance import compare_with
from rosa.report.tables.costs import CHECKPOINT, STATE, Quantity, mean, measured
from rosa.report.tables.results import trainable
from rosa.report.tables.table import Cell, Table, text

LATENCY = "latency once merged, relative to the base"
"""The benchmark's name of it."""
FASTER = "ROSA's training step takes less time than full fine-tuning's"
"""The one claim for which costing no more is not enough."""
ALLOWED = 1.02
"""Largest ratio of two costs that counts as no more."""


def section(comparison: Comparison, lines: Sequence[Line]) -> Section:
    """What the methods cost: the claims, and the rows of the study."""
    name = comparison.experiment
    return Section(
        "Time, memory and storage",
        (
            "The study's runs were on different machines and beside others, so their times say nothing. Times and "
            "peaks come from `python scripts/benchmark.py costs`, which measures all methods side by side on a CPU: "
            "[its table with batches, machine and quartiles](../results/tables/costs.md).",
            costs_claims(lines),
            "What does not depend on the machine comes from the study's records. (They [have "
            f"times and memory peaks, too](../results/tables/{name}_costs.md), but those were taken beside other work; "
            "do not compare them.)",
            rows_table(comparison),
            f"![scores against what they cost, with the front](../results/figures/{name}/minilm-quality.svg)",
        ),
    )


# --- claims ----------------------------------------------------------------------------------------------------------


def costs_claims(lines: Sequence[Line]) -> Table:
    """One line per claim: ROSA's ratios on the benchmark's models and ranks, and a verdict."""
    claims: tuple[tuple[str, Callable[[Sequence[Line]], dict[Case, float]]], ...] = (
        ("ROSA's training step takes no longer than that of the faster LoRA", to_faster_lora),
        (FASTER, to_full),
        ("Once merged, a model is as fast as before any method (no latency)", _merged),
        ("ROSA's weights, gradients and optimizer state take no more memory than LoRA's", _state),
        ("ROSA's peak memory is no more than LoRA's", _peak),
        ("ROSA's checkpoint takes no more bytes than LoRA's", _checkpoints),
    )
    rows = []
    for words, of in claims:
        found = of(lines)
        lows = lower_quartiles(lines, ROSA, LATENCY) if of is _merged else {}
        rows.append(
            tuple(map(Cell, (words, _extremes(found), str(len(found)), verdict_of(found, lows, words == FASTER))))
        )
    note = text(
        "Found: the smallest and the largest of the ratios of ROSA's cost to the other's, over models and ranks. A "
        "time is the median of ratios of steps on the same batch; a peak that of a process, above what it held before "
        f"the model was loaded. Verdict: {SUPPORTED} where every ratio is at most {ALLOWED:g}, {CONTRADICTED} where "
        f'none is, {OPEN} otherwise. For "less time" a ratio has to be below 1. For latency, where a merged layer is '
        "the base's own and any difference is noise, it is enough that the lower quartile of the ratios is at most 1."
    )
    header = ("Claim", "Found", "Cases", VERDICT)
    return Table("claims-costs", "The claims about time, memory and storage", header, tuple(rows), (note,))


def verdict_of(found: Mapping[Case, float], lows: Mapping[Case, float], less: bool = False) -> str:
    """Whether ROSA costs no more than the other (or ``less``) in every case, by the ratios or their lower quartiles."""
    if not found:
        return NOT_RUN
    within = [ratio < 1 if less else ratio <= ALLOWED or lows.get(case, ratio) <= 1 for case, ratio in found.items()]
    return SUPPORTED if all(within) else OPEN if any(within) else CONTRADICTED


def to_faster_lora(lines: Sequence[Line]) -> dict[Case, float]:
    """The time of ROSA's step relative to that of the faster LoRA."""
    return values(lines, ROSA, "step relative to LoRA")


def to_full(lines: Sequence[Line]) -> dict[Case, float]:
    """The time of ROSA's step relative to full fine-tuning's."""
    return ratios(values(lines, ROSA, "step"), values(lines, FULL, "step"))


def _merged(lines: Sequence[Line]) -> dict[Case, float]:
    return values(lines, ROSA, LATENCY)


def _state(lines: Sequence[Line]) -> dict[Case, float]:
    own, other = (
        _together(*(values(lines, method, part) for part in ("weights", "gradients", "optimizer state")))
        for method in (ROSA, LORA)
    )
    return ratios(own, other)


def _peak(lines: Sequence[Line]) -> dict[Case, float]:
    own, other = (
        _together(
            values(lines, method, "peak memory"),
            {case: -held for case, held in values(lines, method, "memory before the model").items()},
        )
        for method in (ROSA, LORA)
    )
    return ratios(own, other)


def _checkpoints(lines: Sequence[Line]) -> dict[Case, float]:
    return ratios(values(lines, ROSA, "checkpoint"), values(lines, LORA, "checkpoint"))


def _together(*parts: Mapping[Case, float]) -> dict[Case, float]:
    """The sums of the cases that every part has."""
    return {case: sum(part[case] for part in parts) for case in parts[0] if all(case in part for part in parts)}


def _extremes(found: Mapping[Case, float]) -> str:
    if not found:
        return formatting.MISSING
    ends = dict.fromkeys(choose(found, key=lambda case: found[case]) for choose in (min, max))
    return " to ".join(f"{formatting.significant(found[case])} ({' '.join(case)})" for case in ends)


# --- what each row costs ---------------------------------------------------------------------------------------------


def rows_table(comparison: Comparison) -> Table:
    """Each row's memory and storage, and the tasks on which no row that costs no more is better."""
    rows = []
    for row in comparison.rows:
        rivals = {task: _rivals(row, task, comparison.rows) for task in comparison.tasks}
        compared = [task for task, found in rivals.items() if found]
        best = [task for task in compared if not any(_better(other, row, task) for other in rivals[task])]
        names = ", ".join(formatting.task_name(task.name) for task in best)
        on = names or ("none" if compared else formatting.MISSING)
        cells = (trainable(row), _mean(row, STATE), _mean(row, CHECKPOINT), on)
        rows.append((Cell(row.label), *map(Cell, cells)))
    header = ("Row", "Trainable", STATE.name, CHECKPOINT.name, "Best at its cost on")
    note = text(
        "Training state: weights, gradients and optimizer state. Checkpoint: what restores the trained model beside "
        "the pretrained one. Best at its cost: of all rows of the task with at most its training state (or "
        f"{ALLOWED - 1:.0%} more) none has a higher mean score over the seeds that both have, whatever the interval; "
        "without the tasks on which no other row costs as little, for which there is nothing to be better than. "
        f"{formatting.MISSING}: not measured, or no other row costs as little."
    )
    return Table("claims-rows", "What each row of the study costs", header, tuple(rows), (note,))


def _mean(row: Row, quantity: Quantity) -> str:
    found = mean(measured(row, quantity))
    return formatting.MISSING if found is None else formatting.significant(found / quantity.unit)


def _rivals(row: Row, task: Task, rows: Sequence[Row]) -> list[Row]:
    """The other rows of a task that cost no more."""
    own = _state_on(row, task)
    costs = {other.label: _state_on(other, task) for other in rows if other is not row}
    return (
        [] if own is None else [o for o in rows if (cost := costs.get(o.label)) is not None and cost <= ALLOWED * own]
    )


def _better(other: Row, row: Row, task: Task) -> bool:
    """Whether another row has the higher mean, over the seeds that both have: a seed may be easier than others."""
    difference = compare_with(row.label, other.scores(task), row.scores(task)).difference or 0.0
    return difference < 0 if task.lower_is_better else difference > 0


def _state_on(row: Row, task: Task) -> float | None:
    """The mean training state of a row's runs on a task that have a score."""
    costs = [value for (name, *_), value in measured(row, STATE).items() if name == task.name]
    return statistics.fmean(costs) if costs and row.scores(task) else None
