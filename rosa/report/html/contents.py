"""Collect what the report shows from the records, as plain data independent of its rendering."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rosa.config import registry
from rosa.errors import RecordError
from rosa.records import Record, Rule, is_committed, order_key
from rosa.records.baselines import Found
from rosa.report import formatting
from rosa.report.comparison import Words
from rosa.report.grouping import tuning_experiments
from rosa.report.html.figures import FigureView, costs_figure, curves_figures, differences_figure, rates_figures
from rosa.report.html.missing import Gap, counts, gaps
from rosa.report.html.runs import Runs
from rosa.report.html.tables import TableView, crossed, named, view
from rosa.report.published import Published
from rosa.report.study import Study
from rosa.report.tables.costs import costs_table
from rosa.report.tables.differences import BETTER, OPEN, WORSE, Difference, differences
from rosa.report.tables.experiment import model_tables
from rosa.report.tables.provenance import commit
from rosa.report.tables.rank_frequency import RANK, rank_maps

GROUPS = ("Real data", "Regressions on vectors", "Mini scale (generated data)", "Learning-rate grids")
"""Kinds of experiments, in the order of the page."""
NAMED = 6
"""Largest number of rows with a sentence for each; more are summarised in one."""


@dataclass(frozen=True)
class ModelView:
    """The tables and figures of one model of an experiment."""

    name: str
    answers: tuple[str, ...]
    """The findings, a sentence each."""
    glance: tuple[FigureView, ...]
    """The figures of differences from LoRA and of score against cost."""
    tables: tuple[TableView, ...]
    curves: tuple[FigureView, ...]
    not_drawn: tuple[str, ...]
    gaps: tuple[Gap, ...]


@dataclass(frozen=True)
class Section:
    """The part of the page about one experiment."""

    name: str
    group: str
    """One of :data:`GROUPS`."""
    models: tuple[ModelView, ...]
    tasks: tuple[str, ...]
    methods: tuple[str, ...]
    runs: int
    committed: int
    """Number of these runs that come from committed records."""
    states: Counter[str]
    """State in :data:`rosa.report.html.missing.COUNTED` -> number of runs."""
    commits: tuple[str, ...]
    last: str
    """When its last run ended, by the records; empty if none has."""


@dataclass(frozen=True)
class Page:
    """All that the page shows."""

    sections: tuple[Section, ...]
    tasks: Mapping[str, str]
    """Every task of the page -> its name, in the tables' order: the choices of the filter."""
    methods: Mapping[str, str]
    runs: Runs
    left_out: tuple[str, ...]
    """Records that could not be used, and why."""

    @property
    def states(self) -> Counter[str]:
        """State -> number of runs of all experiments."""
        return sum((section.states for section in self.sections), Counter())

    @property
    def commits(self) -> tuple[str, ...]:
        """The commits of all experiments, sorted."""
        return tuple(sorted({commit for section in self.sections for commit in section.commits}))


def contents(
    located: Mapping[Path, Record],
    problems: Sequence[RecordError] = (),
    experiments: Sequence[str] = (),
    rule: Rule | None = None,
    published: Sequence[Published] = (),
    linked: bool = True,
    baselines: Found | None = None,
    words: Words | None = None,
) -> Page:
    """Collect the contents of the page.

    Args:
        located: path of a record's file, relative to the page -> record.
        problems: records that could not be read.
        experiments: names in the order of the page; empty: all, by group, and within one those with the most methods,
            seeds and tasks first.
        rule: epoch selection rule, one of :data:`rosa.records.RULES`; None: each experiment's own.
        published: scores to show beside the results of the same model on real data.
        linked: whether the page can link to the records' files.
        baselines: records of baselines, shown below the methods.
        words: options with which the records were found.

    Raises:
        ReportError: an experiment has no records.
        rosa.records.RecordError: ``rule`` is not a rule, or a record lacks what the page shows.
    """
    found = list(located.values())
    names = list(experiments) or sorted({run["identity"]["experiment"] for run in found})
    runs = Runs({order_key(run): path for path, run in located.items() if linked})
    studies = [Study(found, name, rule, baselines, words) for name in names]
    if not experiments:
        studies.sort(key=_place)
    sections = [_section(study, runs, published) for study in studies]
    tasks = formatting.task_order({task for section in sections for task in section.tasks})
    methods = sorted({method for section in sections for method in section.methods}, key=registry.order)
    return Page(
        tuple(sections),
        {task: formatting.task_name(task) for task in tasks},
        {method: registry.label(method) for method in methods},
        runs,
        tuple(map(str, problems)),
    )


def _group(study: Study) -> str:
    """Which of the groups an experiment belongs to; one with runs on real data belongs to the first."""
    vectors = all(run["config"]["task"]["kind"] == "vector_regression" for run in study.runs)
    mini = all(run["config"]["data"].get("source") == "mini" for run in study.runs)
    only_grid = study.is_grid and study.name not in tuning_experiments(study.runs)
    return GROUPS[3 if only_grid else 1 if vectors else 2 if mini else 0]


def _place(study: Study) -> tuple[Any, ...]:
    runs = study.runs
    sizes = (len({str(run["identity"][key]) for run in runs}) for key in ("method", "seed", "task"))
    return GROUPS.index(_group(study)), *(-size for size in sizes), study.name


def _section(study: Study, runs: Runs, published: Sequence[Published]) -> Section:
    models = [_model(study, model, runs, published) for model in study.models]
    own = study.runs
    lacking = [gap for model in models for gap in model.gaps]
    return Section(
        study.name,
        _group(study),
        tuple(models),
        tuple(formatting.task_order({run["identity"]["task"] for run in own})),
        tuple(sorted({run["identity"]["method"] for run in own}, key=registry.order)),
        len(own),
        sum(map(is_committed, own)),
        counts(own, lacking, study.rule),
        tuple(sorted({commit(run) for run in own})),
        max((run["finished"] for run in own if run["finished"]), default=""),
    )


def _model(study: Study, name: str, runs: Runs, published: Sequence[Published]) -> ModelView:
    comparison = study.models[name]
    made = model_tables(study, name, published)
    costly = [table for table in (costs_table(comparison),) if table is not None]
    crosses = itertools.product(rank_maps(comparison.rows), comparison.tasks)
    methods = {one.label: one.method for one in published}
    views = []
    for table in (*made, *costly):
        places = crossed(*next(crosses)) if table.header[0] == RANK else named(table, comparison)
        views.append(view(table, places, comparison, runs, methods))
    found = differences(comparison)
    grid = rates_figures(comparison)
    only_grid = _group(study) == GROUPS[3]
    if only_grid:
        glance = grid
    else:
        glance = [one for one in (differences_figure(comparison, found), costs_figure(comparison)) if one]
    curves, not_drawn = curves_figures(comparison)
    return ModelView(
        name,
        () if only_grid else tuple(_answers(found)),
        tuple(glance),
        tuple(views),
        tuple(curves if only_grid else [*grid, *curves]),
        tuple(not_drawn),
        tuple(gaps(comparison, runs)),
    )


def _answers(found: Sequence[Difference]) -> Iterator[str]:
    """Sentences on the differences from LoRA: one per row, or one on all rows if there are more than :data:`NAMED`."""
    rows: dict[str, list[Difference]] = {}
    for one in found:
        rows.setdefault(one.row.label, []).append(one)
    if not any(one.p_holm is not None for one in found):
        if found:
            yield "Too few seeds for a test: whether any row differs from LoRA is open."
        return
    if len(rows) > NAMED:
        yield f"{len(rows)} rows beside LoRA: {_verdicts(found)}."
        return
    for label, own in rows.items():
        yield f"{label}, beside {own[0].paired.against}: {_verdicts(own)}."


def _verdicts(found: Sequence[Difference]) -> str:
    parts = []
    for verdict in (BETTER, WORSE, OPEN):
        own = [formatting.task_name(one.task.name) for one in found if one.verdict == verdict]
        if own and len(found) <= NAMED + len(formatting.TASKS):
            parts.append(f"{verdict} on {', '.join(dict.fromkeys(own))}")
        elif own:
            parts.append(f"{verdict} {len(own)} times")
    return "; ".join(parts)
