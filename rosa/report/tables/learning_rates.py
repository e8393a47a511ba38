"""The learning-rate grid of an experiment: every rate tried, and the one selected for each row."""

from __future__ import annotations

from rosa.report import formatting
from rosa.report.comparison import Comparison
from rosa.report.tables import notes
from rosa.report.tables.results import trial_text
from rosa.report.tables.table import Cell, Table, text


def grid_table(comparison: Comparison) -> Table:
    """Rows are methods and settings (and tasks, if several), columns are learning rates; the selected one is bold.

    If some tasks have a grid, tasks that every row ran at a single learning rate are left out.
    """
    every = [(row, task) for row in comparison.rows for task in comparison.tasks if task.name in row.results]
    with_grid = {task.name for row, task in every if len(row.results[task.name].trials) > 1}
    pairs = [(row, task) for row, task in every if task.name in with_grid] or every
    rates = sorted({trial.lr for row, task in pairs for trial in row.results[task.name].trials})
    rows = []
    for row, task in pairs:
        result = row.results[task.name]
        by_lr = {trial.lr: trial for trial in result.trials}
        name = formatting.task_name(task.name)
        cells = [Cell(f"{row.label}, {name}" if len(comparison.tasks) > 1 else row.label)]
        for lr in rates:
            written = trial_text(by_lr[lr], task) if lr in by_lr else formatting.MISSING
            cells.append(Cell(written, lr == result.selected.lr and bool(result.selected.scored)))
        rows.append(tuple(cells))
    models = ", ".join(sorted({row.model for row in comparison.rows}))
    shown = ", ".join(dict.fromkeys(formatting.scaled_name(task.metric) for _, task in pairs))
    caption = f"{comparison.experiment}: learning-rate grid of {models}, {shown} at the {comparison.epoch}"
    legend = text(f"Bold: the learning rate that each row chooses. {formatting.MISSING}: no run.")
    header = ("Method", *map(formatting.rate, rates))
    return Table(comparison.experiment, caption, header, tuple(rows), tuple(notes.notes(comparison)), (legend,))
