"""All tables of one experiment, in the order of its output files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from rosa.records import Record, Rule
from rosa.records.baselines import Found
from rosa.report.comparison import Comparison, by_model, compare, tuning_experiments
from rosa.report.published import Published
from rosa.report.tables.costs import costs_csv, costs_table
from rosa.report.tables.differences import differences_table
from rosa.report.tables.generation import KIND, generation_table
from rosa.report.tables.learning_rates import grid_table
from rosa.report.tables.rank_frequency import rank_frequency_tables
from rosa.report.tables.results import results_table
from rosa.report.tables.table import Table


def tables(
    found: Sequence[Record],
    experiment: str,
    rule: Rule = "best",
    published: Sequence[Published] = (),
    baselines: Found | None = None,
) -> list[Table]:
    """The tables of each model of an experiment: results, texts, rank x frequency, and the learning-rate grid.

    An experiment from which others take their learning rates has the grid alone; one that tunes itself has both.

    Args:
        found: all records, because other experiments tell whether this one is a learning-rate grid.
        experiment: its name.
        rule: epoch selection rule, ``best`` or ``last``.
        published: scores to show beside the results of the same model on real data.
        baselines: records of baselines; those of the runs' own data are shown below the methods.

    Raises:
        ReportError: the experiment has no records.
    """
    made: list[Table] = []
    is_grid = experiment in tuning_experiments(found)
    models = by_model(found, experiment)
    for model, runs in models.items():
        label = experiment if len(models) == 1 else f"{experiment}-{model}"
        tunes_itself = experiment in tuning_experiments(runs)
        if not is_grid or tunes_itself:
            # Published scores do not apply to generated data.
            real = all(run["config"]["data"].get("source") != "mini" for run in runs)
            beside = [one for one in published if real and one.model == model]
            made += _results(runs, experiment, rule, beside, baselines, label)
        if is_grid:
            name = f"{label}-grid" if tunes_itself else label
            made.append(replace(grid_table(compare(runs, experiment, rule)), name=name))
    return made


def costs(found: Sequence[Record], experiment: str, rule: Rule = "best") -> tuple[list[Table], str]:
    """The costs table of each model of an experiment, and one CSV text of all of them.

    Raises:
        ReportError: the experiment has no records.
    """
    models = by_model(found, experiment)
    comparisons = [compare(runs, experiment, rule) for runs in models.values()]
    made = []
    for model, comparison in zip(models, comparisons, strict=True):
        table = costs_table(comparison)
        if table is not None:
            made.append(table if len(models) == 1 else replace(table, name=f"{table.name}-{model}"))
    return made, costs_csv(comparisons)


def differences(found: Sequence[Record], experiment: str, rule: Rule = "best") -> list[Table]:
    """The table of differences from LoRA for each model of an experiment that has seeds to pair.

    Raises:
        ReportError: the experiment has no records.
    """
    models = by_model(found, experiment)
    made = []
    for model, runs in models.items():
        table = differences_table(compare(runs, experiment, rule))
        if table is not None:
            made.append(table if len(models) == 1 else replace(table, name=f"{table.name}-{model}"))
    return made


def _results(
    runs: Sequence[Record],
    experiment: str,
    rule: Rule,
    published: Sequence[Published],
    baselines: Found | None,
    label: str,
) -> list[Table]:
    """One table of all tasks with one score, and one table per text generation task."""
    writing = [run for run in runs if run["config"]["task"]["kind"] == KIND]
    others = [run for run in runs if run["config"]["task"]["kind"] != KIND]
    made = []
    if others:
        comparison = compare(others, experiment, rule, baselines)
        made.append(replace(results_table(comparison, published), name=label))
        made += _rank_frequency(comparison, label)
    if writing:
        comparison = compare(writing, experiment, rule, baselines)
        for task in comparison.tasks:
            only_one = not others and len(comparison.tasks) == 1
            name = label if only_one else f"{label}-{task.name}"
            made.append(replace(generation_table(comparison, task, published), name=name))
        made += _rank_frequency(comparison, label)
    return made


def _rank_frequency(comparison: Comparison, label: str) -> list[Table]:
    found = rank_frequency_tables(comparison)
    return [replace(table, name=f"{label}-rank-frequency-{number}") for number, table in enumerate(found, 1)]
