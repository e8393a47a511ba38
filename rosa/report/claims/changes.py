"""Whether a method did what it is meant to do: what training changed in the weights, by the records' diagnostics."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence

from rosa.records import Record
from rosa.records.schema import LayerChange
from rosa.report import formatting
from rosa.report.claims import ablations
from rosa.report.claims.resamples import resamples
from rosa.report.claims.section import Section, listed
from rosa.report.claims.verdicts import difference_on, mean_and_reach
from rosa.report.comparison import Comparison, Row, seeds_of_all
from rosa.report.tables.table import Cell, Table, text

Column = tuple[str, Callable[[LayerChange], float | None], Callable[[float], str]]
"""Heading, value of a layer, and format."""
COLUMNS: tuple[Column, ...] = (
    ("Rank", lambda layer: layer["rank"], formatting.significant),
    ("Effective rank", lambda layer: layer["effective_rank"], formatting.significant),
    ("Size", lambda layer: layer["relative_norm"], "{:.1%}".format),
    ("Directions drawn", lambda layer: layer["visited"], "{:.1%}".format),
)


def section(comparison: Comparison, parts: Comparison | None = None) -> Section:
    """The changes of the study's rows.

    Args:
        comparison: the study's.
        parts: the ablations', one of which keeps the optimizer's state.
    """
    return Section(
        "Did resampling do what it is for?",
        (
            "A new subspace each epoch is to give the sum of the updates a higher rank than LoRA's. The table says "
            "whether it did; whether that helps is for the claims to say.",
            changes_table(comparison),
            "Possible reasons: each new subspace starts with a smaller learning rate and an empty optimizer state."
            + _kept(parts),
            *resamples(comparison),
        ),
    )


def changes_table(comparison: Comparison) -> Table:
    """The change of the adapted weights of each row, averaged over layers, and the seeds and tasks that all have."""
    changed = [row for row in comparison.rows if any(map(_run_layers, _runs(row, row.results)))]
    tasks = [task for task in comparison.tasks if all(task.name in row.results for row in changed)]
    shared = {task.name: seeds_of_all(changed, task) for task in tasks}
    layers = {row.label: [one for run in _runs(row, shared, shared) for one in _run_layers(run)] for row in changed}
    rows = [(Cell(label), *map(Cell, _cells(own))) for label, own in layers.items()]
    full = sorted({layer["full_rank"] for own in layers.values() for layer in own})
    names = listed(formatting.task_name(task.name) for task in tasks)
    note = text(
        "Of the difference of each adapted weight after training to the pretrained one, the mean over layers, and over "
        f"the tasks and seeds that all these rows have ({names}): its rank (at most {', '.join(map(str, full))}); its "
        "effective rank, the exponential of the "
        "entropy of its normalized singular values; its Frobenius norm relative to the weight's; and the share of the "
        f"weight's singular directions drawn at least once. {formatting.MISSING}: the method draws none."
    )
    header = ("Row", *(name for name, *_ in COLUMNS))
    return Table("claims-changes", "The change of the adapted weights", header, tuple(rows), (note,))


def _kept(parts: Comparison | None) -> str:
    """What keeping the optimizer's state changed, by the ablations; nothing without them."""
    found = [] if parts is None else [difference_on(parts, ablations.KEPT, task) for task in parts.tasks]
    known = [one for one in found if one is not None]
    told = listed(f"{mean_and_reach(one)} on {one.name}" for one in known)
    return f" (Dropping the state less keeping it: {told}.)" if known else ""


def change_of(runs: Iterable[Record]) -> str:
    """Effective rank and size of the change that the runs of a row made; nothing where they have no diagnostics."""
    layers = [layer for run in runs for layer in _run_layers(run)]
    cells = _cells(layers)
    return f"{cells[1]}, {cells[2]}" if layers else ""


def _cells(layers: Sequence[LayerChange]) -> list[str]:
    """The cells of a row: the mean over its layers."""
    found = []
    for _, of, written in COLUMNS:
        known = [value for layer in layers if (value := of(layer)) is not None]
        found.append(written(statistics.fmean(known)) if known else formatting.MISSING)
    return found


def _runs(row: Row, tasks: Iterable[str], seeds: Mapping[str, Sequence[int]] | None = None) -> list[Record]:
    """The runs that a row shows on some tasks, of all seeds or of those given for each task."""
    found = ((task, row.results[task].selected.scored) for task in tasks)
    return [run for task, runs in found for seed, run in runs.items() if seeds is None or seed in seeds[task]]


def _run_layers(run: Record) -> list[LayerChange]:
    """The diagnostics of every layer of a run; none where the method adds nothing to weights."""
    return run.get("diagnostics", {}).get("layers", [])
