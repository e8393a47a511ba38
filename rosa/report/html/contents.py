"""Collect what the report shows from the records, as plain data independent of its rendering."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rosa.config import registry
from rosa.errors import RecordError
from rosa.records import Record, Rule, is_committed, order_key
from rosa.records.baselines import Found
from rosa.report import formatting
from rosa.report.html.figures import Drawings, FigureView
from rosa.report.html.missing import Gap, counts, gaps
from rosa.report.html.runs import Runs
from rosa.report.html.tables import TableView, crossed, named, view
from rosa.report.published import Published
from rosa.report.study import Study
from rosa.report.tables import notes
from rosa.report.tables.costs import costs_table
from rosa.report.tables.experiment import model_tables
from rosa.report.tables.rank_frequency import RANK, rank_maps


@dataclass(frozen=True)
class ModelView:
    """The tables and figures of one model of an experiment."""

    name: str
    tables: tuple[TableView, ...]
    figures: tuple[FigureView, ...]
    not_drawn: tuple[str, ...]
    gaps: tuple[Gap, ...]


@dataclass(frozen=True)
class Section:
    """The part of the page about one experiment."""

    name: str
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
    drawings: Drawings | None = None,
    linked: bool = True,
    baselines: Found | None = None,
) -> Page:
    """Collect the contents of the page.

    Args:
        located: path of a record's file, relative to the page -> record.
        problems: records that could not be read.
        experiments: names in the order of the page; empty: all, sorted by name.
        rule: epoch selection rule, one of :data:`rosa.records.RULES`; None: each experiment's own.
        published: scores to show beside the results of the same model on real data.
        drawings: draws the figures; None: one with the default limit.
        linked: whether the page can link to the records' files.
        baselines: records of baselines, shown below the methods.

    Raises:
        ReportError: an experiment has no records.
        rosa.records.RecordError: ``rule`` is not a rule, or a record lacks what the page shows.
    """
    found = list(located.values())
    names = experiments or sorted({run["identity"]["experiment"] for run in found})
    runs = Runs({order_key(run): path for path, run in located.items() if linked})
    drawings = drawings or Drawings()
    sections = [_section(Study(found, name, rule, baselines), runs, published, drawings) for name in names]
    tasks = formatting.task_order({task for section in sections for task in section.tasks})
    methods = sorted({method for section in sections for method in section.methods}, key=registry.order)
    return Page(
        tuple(sections),
        {task: formatting.TASK_NAMES.get(task, task) for task in tasks},
        {method: registry.label(method) for method in methods},
        runs,
        tuple(map(str, problems)),
    )


def _section(study: Study, runs: Runs, published: Sequence[Published], drawings: Drawings) -> Section:
    models = [_model(study, model, runs, published, drawings) for model in study.models]
    own = study.runs
    lacking = [gap for model in models for gap in model.gaps]
    return Section(
        study.name,
        tuple(models),
        tuple(formatting.task_order({run["identity"]["task"] for run in own})),
        tuple(sorted({run["identity"]["method"] for run in own}, key=registry.order)),
        len(own),
        sum(map(is_committed, own)),
        counts(own, lacking, study.rule),
        tuple(sorted({notes.commit(run) for run in own})),
        max((run["finished"] for run in own if run["finished"]), default=""),
    )


def _model(study: Study, name: str, runs: Runs, published: Sequence[Published], drawings: Drawings) -> ModelView:
    comparison = study.models[name]
    made = model_tables(study, name, published)
    costly = [table for table in (costs_table(comparison),) if table is not None]
    crosses = itertools.product(rank_maps(comparison.rows), comparison.tasks)
    methods = {one.label: one.method for one in published}
    views = []
    for table in (*made, *costly):
        places = crossed(*next(crosses)) if table.header[0] == RANK else named(table, comparison)
        views.append(view(table, places, comparison, runs, methods))
    figures, not_drawn = drawings.of(comparison)
    return ModelView(name, tuple(views), tuple(figures), tuple(not_drawn), tuple(gaps(comparison, runs)))
