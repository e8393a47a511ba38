"""All tables of one experiment, in the order of its output files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from rosa.report.comparison import Comparison
from rosa.report.grouping import tuning_experiments
from rosa.report.published import Published
from rosa.report.study import Study
from rosa.report.tables.costs import costs_csv, costs_table
from rosa.report.tables.differences import differences_table
from rosa.report.tables.generation import KIND, generation_table
from rosa.report.tables.learning_rates import grid_table
from rosa.report.tables.rank_frequency import rank_frequency_tables
from rosa.report.tables.results import results_table
from rosa.report.tables.table import Table


def tables(study: Study, published: Sequence[Published] = ()) -> list[Table]:
    """The tables of each model of an experiment; see :func:`model_tables`."""
    return [table for model in study.models for table in model_tables(study, model, published)]


def model_tables(study: Study, model: str, published: Sequence[Published] = ()) -> list[Table]:
    """The tables of one model of an experiment: results, texts, rank x frequency, and the learning-rate grid.

    An experiment from which others take their learning rates has the grid alone; one that tunes itself has both.

    Args:
        study: the experiment.
        model: one of its models.
        published: scores to show beside the results of the same model on real data.
    """
    made: list[Table] = []
    runs = study.by_model[model]
    label = study.name if len(study.models) == 1 else f"{study.name}-{model}"
    tunes_itself = study.name in tuning_experiments(runs)
    if not study.is_grid or tunes_itself:
        # Published scores do not apply to generated data.
        real = all(run["config"]["data"].get("source") != "mini" for run in runs)
        made += _results(study, model, [one for one in published if real and one.model == model], label)
    if study.is_grid:
        made.append(replace(grid_table(study.models[model]), name=f"{label}-grid" if tunes_itself else label))
    return made


def costs(study: Study) -> tuple[list[Table], str]:
    """The costs table of each model of an experiment, and one CSV text of all of them."""
    return _of_each_model(study, costs_table), costs_csv(study.models.values())


def differences(study: Study) -> list[Table]:
    """The table of differences from LoRA for each model of an experiment that has seeds to pair."""
    return _of_each_model(study, differences_table)


def _of_each_model(study: Study, make: Callable[[Comparison], Table | None]) -> list[Table]:
    made = {model: make(comparison) for model, comparison in study.models.items()}
    several = len(made) > 1
    return [replace(one, name=f"{one.name}-{model}") if several else one for model, one in made.items() if one]


def _results(study: Study, model: str, published: Sequence[Published], label: str) -> list[Table]:
    """One table of all tasks with one score, and one table per text generation task."""
    runs = study.by_model[model]
    writing = [run for run in runs if run["config"]["task"]["kind"] == KIND]
    others = [run for run in runs if run["config"]["task"]["kind"] != KIND]
    both = bool(writing and others)
    made = []
    if others:
        comparison = study.compare(others) if both else study.models[model]
        made.append(replace(results_table(comparison, published), name=label))
        made += _rank_frequency(comparison, label)
    if writing:
        comparison = study.compare(writing) if both else study.models[model]
        for task in comparison.tasks:
            name = label if not both and len(comparison.tasks) == 1 else f"{label}-{task.name}"
            made.append(replace(generation_table(comparison, task, published), name=name))
        made += _rank_frequency(comparison, label)
    return made


def _rank_frequency(comparison: Comparison, label: str) -> list[Table]:
    found = rank_frequency_tables(comparison)
    return [replace(table, name=f"{label}-rank-frequency-{number}") for number, table in enumerate(found, 1)]
