"""Group the records of an experiment for tables: rows are methods with their settings, columns are tasks.

A row has one model, one method with one set of options, and one value of every other setting that takes several values
for the same model, method and task. Settings that differ only between tasks (such as a batch size for MNLI) do not make
separate rows; settings that differ between methods are listed in ``Comparison.unequal``, for a warning.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from rosa import records
from rosa.config import registry
from rosa.errors import ReportError
from rosa.records import Record, Rule, by_split, selection
from rosa.records.baselines import Found
from rosa.report import formatting


@dataclass(frozen=True)
class Trial:
    """The runs of all seeds for one row, task and learning rate."""

    lr: float
    runs: tuple[Record, ...]
    """Sorted by seed."""
    rule: Rule

    @cached_property
    def scored(self) -> dict[int, Record]:
        """Seed -> run, for the runs that finished with a score."""
        return {run["identity"]["seed"]: run for run in self.runs if _finished(run, self.rule)}

    @cached_property
    def failed(self) -> list[int]:
        """Seeds that failed, or diverged to a score that is not finite."""
        lost = (r for r in self.runs if r["status"] != "running" and not _finished(r, self.rule))
        return sorted({run["identity"]["seed"] for run in lost} - set(self.scored))

    @cached_property
    def running(self) -> list[int]:
        """Seeds that are running, or were stopped and not resumed."""
        going = {run["identity"]["seed"] for run in self.runs if run["status"] == "running"}
        return sorted(going - set(self.scored) - set(self.failed))

    def scores(self, split: str, metric: str) -> dict[int, float]:
        """Seed -> score, for the seeds that have it."""
        if (split, metric) not in self._scores:
            shown = {seed: by_split(run["metrics"][self.rule]) for seed, run in self.scored.items()}
            values = {seed: scores.get(split, {}).get(metric) for seed, scores in shown.items()}
            self._scores[split, metric] = {s: float(value) for s, value in sorted(values.items()) if value is not None}
        return dict(self._scores[split, metric])

    @cached_property
    def _scores(self) -> dict[tuple[str, str], dict[int, float]]:
        """Split and metric -> what :meth:`scores` has found."""
        return {}


@dataclass(frozen=True)
class Summary:
    """Mean and spread over seeds."""

    mean: float
    deviation: float | None
    """Sample standard deviation (n - 1); None for one seed."""
    n: int


@dataclass(frozen=True)
class Result:
    """The trials of one row on one task."""

    trials: tuple[Trial, ...]
    """By learning rate, ascending."""
    selected: Trial
    """The trial of the learning rate that the table shows."""

    @property
    def runs(self) -> list[Record]:
        """The runs of all trials."""
        return [run for trial in self.trials for run in trial.runs]


@dataclass(frozen=True)
class Row:
    """One model and method with one set of settings."""

    label: str
    """The method, its rank and resampling, and what else differs from the method's defaults."""
    model: str
    method: str
    settings: Mapping[str, Any]
    """The settings that define the row, by dotted key."""
    results: Mapping[str, Result]
    """Task -> result; without tasks that have no run."""


@dataclass(frozen=True)
class Task:
    """One task: a column of the table."""

    name: str
    metric: str
    """The headline metric."""
    splits: tuple[str, ...]
    """Evaluation splits of the data; epochs and learning rates are selected on the first."""
    seeds: tuple[int, ...]
    """The seeds that at least half of its rows have run, and at least two, so that a further seed of one row does not
    make the others incomplete; every seed of any row, where that leaves fewer than two of several."""
    kind: str = "classification"
    lower_is_better: bool = False
    """Whether a lower headline score is better."""

    def shared(self, scores: Mapping[int, float]) -> dict[int, float]:
        """The scores of the task's seeds: a mean over further ones would be of other seeds than the other rows'."""
        return {seed: scores[seed] for seed in self.seeds if seed in scores}


@dataclass(frozen=True)
class Words:
    """Options of the command that shows the records, which the commands printed in tables repeat."""

    records: tuple[str, ...] = ()
    """Which records there are: of every command that reads records from files."""
    table: tuple[str, ...] = ()
    """Further options of ``scripts/make_tables.py``."""


@dataclass(frozen=True)
class Comparison:
    """The records of one experiment, grouped."""

    experiment: str
    rule: Rule
    tasks: tuple[Task, ...]
    rows: tuple[Row, ...]
    unequal: tuple[tuple[str, Mapping[str, tuple[str, ...]]], ...]
    """Settings that differ between the rows of a task and are in no label: key, then value -> labels."""
    baselines: Found = field(default_factory=dict)
    """Records of baselines, of these runs' data and maybe of others."""
    words: Words = Words()

    @property
    def selections(self) -> tuple[str, ...]:
        """How the shown epochs and learning rates were selected: ``dev-best``, ``dev-last``, ``holdout``."""
        return tuple(sorted({_selection(run, self.rule) for run in self.runs}))

    @property
    def epoch(self) -> str:
        """``best epoch (selection: dev-best)``, for a caption."""
        return f"{self.rule} epoch (selection: {' and '.join(self.selections)})"

    @property
    def runs(self) -> list[Record]:
        """All runs of the table, including those of learning rates that were not selected."""
        results = [result for row in self.rows for result in row.results.values()]
        return [run for result in results for run in result.runs]

    def runs_of(self, task: str) -> list[Record]:
        """Every run of one task."""
        return [run for run in self.runs if run["identity"]["task"] == task]

    @property
    def shown(self) -> list[Record]:
        """The runs whose scores are in the table's cells."""
        results = [result for row in self.rows for result in row.results.values()]
        return [run for result in results for run in result.selected.scored.values()]


def summarise(values: Iterable[float]) -> Summary | None:
    """Mean and sample standard deviation; None without values."""
    found = list(values)
    if not found:
        return None
    return Summary(statistics.fmean(found), statistics.stdev(found) if len(found) > 1 else None, len(found))


def complete(result: Result, task: Task) -> bool:
    """Whether every seed of the task has a score at the selected learning rate, and none of them failed."""
    return result.selected.scored.keys() >= set(task.seeds) and not set(task.seeds) & set(result.selected.failed)


def seeds_of_all(rows: Iterable[Row], task: Task) -> list[int]:
    """The seeds of which every row that was run on a task has a score, so that the rows compare.

    A row with one seed leaves the others theirs, as a mean over one seed would say little of any row.
    """
    found = [set(row.results[task.name].selected.scored) for row in rows if task.name in row.results]
    several = [seeds for seeds in found if len(seeds) > 1] or found
    return sorted(set.intersection(*several)) if several else []


def compare(
    found: Sequence[Record],
    experiment: str,
    rule: Rule = "best",
    baselines: Found | None = None,
    words: Words | None = None,
) -> Comparison:
    """Group the records of one experiment; the result does not depend on their order.

    Args:
        found: records, of this and of other experiments.
        experiment: its name.
        rule: epoch selection rule.
        baselines: records of baselines, for the tables.
        words: options with which the records were found.

    Raises:
        ReportError: the experiment has no records, or two scores for one seed of a row.
        rosa.records.RecordError: ``rule`` is neither ``best`` nor ``last``.
    """
    runs = _of_experiment(found, experiment)
    runs.sort(key=lambda run: sorted((key, str(value)) for key, value in run["identity"].items()))
    flat = [records.settings(run) for run in runs]
    moving = _moving(flat)
    split_by = _split_by(runs, moving)
    grouped: dict[Any, list[int]] = {}
    for i, run in enumerate(runs):
        options = {key: value for key, value in flat[i].items() if key.startswith("method.") or key in split_by}
        grouped.setdefault((run["identity"]["model"], frozen(options)), []).append(i)

    members = sorted(grouped.values(), key=lambda group: _row_order(runs[group[0]], flat[group[0]], split_by))
    several_models = len({run["identity"]["model"] for run in runs}) > 1
    varying = _varying([run["identity"]["method"] for run in runs], moving)
    rows = [
        _row([runs[i] for i in group], flat[group[0]], split_by, varying, several_models, rule) for group in members
    ]
    unequal = _unequal(runs, moving, members, [row.label for row in rows], split_by)
    return Comparison(experiment, rule, _tasks(runs, rows), tuple(rows), unequal, baselines or {}, words or Words())


def at_epoch(comparison: Comparison, rule: Rule) -> Comparison:
    """The same comparison by another epoch selection rule, which may select other learning rates."""
    rows = tuple(
        replace(row, results={task: _result(result.runs, rule) for task, result in row.results.items()})
        for row in comparison.rows
    )
    return replace(comparison, rule=rule, rows=rows)


def own_rule(found: Sequence[Record], experiment: str) -> Rule:
    """The experiment's own epoch rule: ``last`` if all its runs have ``selection=dev-last``, otherwise ``best``.

    Raises:
        ReportError: the experiment has no records.
    """
    made = {records.selection_rule(run) for run in _of_experiment(found, experiment)}
    return "last" if made == {"dev-last"} else "best"


def by_model(found: Sequence[Record], experiment: str) -> dict[str, list[Record]]:
    """Model -> its records of one experiment; a table or figure compares the runs of one model.

    Raises:
        ReportError: the experiment has no records.
    """
    runs = _of_experiment(found, experiment)
    models = sorted({run["identity"]["model"] for run in runs})
    return {model: [run for run in runs if run["identity"]["model"] == model] for model in models}


def tuning_experiments(found: Iterable[Record]) -> set[str]:
    """Names of the experiments that other runs took their learning rate from."""
    return {run["tuning"]["experiment"] for run in found if run["tuning"]}


def _of_experiment(found: Sequence[Record], experiment: str) -> list[Record]:
    runs = [run for run in found if run["identity"]["experiment"] == experiment]
    if not runs:
        raise no_experiment(experiment, {run["identity"]["experiment"] for run in found})
    return runs


def no_experiment(name: str, known: Iterable[str]) -> ReportError:
    """The error for an experiment without records, with those that have some."""
    return ReportError(f"experiment {name!r} has no records; there are: {', '.join(sorted(known)) or 'none'}")


def _selection(run: Record, rule: Rule) -> str:
    return records.HOLDOUT if records.selection_rule(run) == records.HOLDOUT else f"dev-{rule}"


def _finished(run: Record, rule: Rule) -> bool:
    return run["status"] == "done" and math.isfinite(records.score(run, rule))


def frozen(value: Any) -> Any:
    """A hashable value that is equal for equal settings."""
    if isinstance(value, Mapping):
        return tuple((key, frozen(inner)) for key, inner in sorted(value.items()))
    return tuple(map(frozen, value)) if isinstance(value, (list, tuple)) else value


def _moving(flat: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The settings of each run that are not the same in all of them, which are few among thousands of runs."""
    first, different = flat[0], set[str]()
    for settings in flat:
        if settings.keys() != first.keys():
            different |= settings.keys() ^ first.keys()
        different |= {key for key, value in settings.items() if key not in different and value != first.get(key)}
    return [{key: settings[key] for key in different if key in settings} for settings in flat]


def _split_by(runs: Sequence[Record], flat: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """Keys, other than the method's own, that take several values for one model, method and task."""
    places = [tuple(run["identity"][key] for key in ("model", "method", "task")) for run in runs]
    found = {key for _, key in _varying(places, flat)}
    return tuple(sorted(key for key in found if key != "train.lr" and not key.startswith("method.")))


def _varying(places: Sequence[Any], flat: Sequence[Mapping[str, Any]]) -> set[tuple[Any, str]]:
    """(place, key) of every setting that takes several values among the runs of one place."""
    first: dict[Any, Mapping[str, Any]] = {}
    found = set()
    for place, settings in zip(places, flat, strict=True):
        known = first.setdefault(place, settings)
        if settings != known:
            keys = settings.keys() | known.keys()
            found |= {(place, key) for key in keys if settings.get(key) != known.get(key)}
    return found


def _row_order(run: Record, settings: Mapping[str, Any], split_by: Sequence[str]) -> tuple[Any, ...]:
    """Sort key of a row: model, method, rank and period; then the other settings, each with its default first."""
    defaults = records.default_settings(run["identity"]["method"])
    rest = {key: value for key, value in settings.items() if key.startswith("method.") or key in split_by}
    numbers = [settings.get(key) for key in ("method.rank", "method.every")]
    rank, every = (value if isinstance(value, (int, float)) else 0 for value in numbers)
    written = sorted((key, frozen(value) != frozen(defaults.get(key)), str(value)) for key, value in rest.items())
    return (run["identity"]["model"], registry.order(run["identity"]["method"]), rank, every, written)


def _row(
    runs: Sequence[Record],
    settings: Mapping[str, Any],
    split_by: Sequence[str],
    varying: set[tuple[Any, str]],
    several_models: bool,
    rule: Rule,
) -> Row:
    model, method = runs[0]["identity"]["model"], runs[0]["identity"]["method"]
    defaults = records.default_settings(method)
    options = {key: value for key, value in settings.items() if key.startswith("method.")}
    shown = [
        key.removeprefix("method.")
        for key, value in sorted(options.items())
        if (frozen(defaults[key]) != frozen(value) if key in defaults else (method, key) in varying)
    ]
    label = formatting.method_label({key.removeprefix("method."): value for key, value in options.items()}, shown)
    parts = [label, *(formatting.setting(key, settings[key]) for key in split_by if key in settings)]
    label = ", ".join(parts)
    results = {
        task: _result([run for run in runs if run["identity"]["task"] == task], rule)
        for task in sorted({run["identity"]["task"] for run in runs})
    }
    apart = options | {key: settings[key] for key in split_by if key in settings}
    return Row(f"{model}: {label}" if several_models else label, model, method, apart, results)


def _result(runs: Sequence[Record], rule: Rule) -> Result:
    by_lr: dict[float, list[Record]] = {}
    for run in sorted(runs, key=lambda run: (run["identity"]["seed"], run["identity"]["hash"])):
        by_lr.setdefault(records.learning_rate(run), []).append(run)
    trials = [Trial(lr, tuple(members), rule) for lr, members in sorted(by_lr.items())]
    for trial in trials:
        _refuse_second(trial)
    chosen = trials[0]
    if any(trial.scored for trial in trials):
        winner, _ = selection.best_lr(runs, rule)
        chosen = next(trial for trial in trials if trial.lr == winner)
    return Result(tuple(trials), chosen)


def _refuse_second(trial: Trial) -> None:
    """Refuse two scores for one seed, of which a table would show one; two names of one run come of a changed default.

    Raises:
        ReportError: it names both runs.
    """
    for run in trial.runs:
        shown = trial.scored.get(run["identity"]["seed"], run)
        if shown is not run and _finished(run, trial.rule):
            raise ReportError(
                f"{records.describe(run)} and {records.describe(shown)} have the same settings and seed, and a table "
                "has one score for each; move the record of one of them elsewhere"
            )


def _tasks(runs: Sequence[Record], rows: Sequence[Row]) -> tuple[Task, ...]:
    tasks = []
    for name in formatting.task_order({run["identity"]["task"] for run in runs}):
        own = [run for run in runs if run["identity"]["task"] == name]
        config = own[0]["config"]["task"]
        metric, splits = config["headline"], tuple(config["evaluation"])
        results = [row.results[name] for row in rows if name in row.results]
        seeds = _common([{run["identity"]["seed"] for run in result.runs} for result in results])
        tasks.append(Task(name, metric, splits, seeds, config["kind"], records.lower_is_better(own[0])))
    return tuple(tasks)


def _common(seeds: Sequence[set[int]]) -> tuple[int, ...]:
    """Of the seeds of each row, those of at least half of the rows and of two; all, if fewer than two are left."""
    every = sorted(set.union(*seeds))
    enough = max(len(seeds) / 2, min(2, len(seeds)))
    most = [seed for seed in every if sum(seed in own for own in seeds) >= enough]
    return tuple(most if len(most) >= min(2, len(every)) else every)


def _unequal(
    runs: Sequence[Record],
    flat: Sequence[Mapping[str, Any]],
    positions: Sequence[Sequence[int]],
    labels: Sequence[str],
    split_by: Sequence[str],
) -> tuple[tuple[str, Mapping[str, tuple[str, ...]]], ...]:
    """Settings outside the method that differ between rows of one model and task and are in no label."""
    places = [(run["identity"]["model"], run["identity"]["task"]) for run in runs]
    differing: dict[str, dict[str, set[str]]] = {}
    label_of = {i: label for group, label in zip(positions, labels, strict=True) for i in group}
    for place, key in _varying(places, flat):
        if key == "train.lr" or key.startswith("method.") or key in split_by:
            continue
        for i, settings in enumerate(flat):
            if places[i] == place:
                differing.setdefault(key, {}).setdefault(str(settings.get(key)), set()).add(label_of[i])
    return tuple(
        (key, {value: tuple(sorted(where)) for value, where in sorted(values.items())})
        for key, values in sorted(differing.items())
    )
