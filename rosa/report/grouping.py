"""Group the records of an experiment for tables: rows are methods with their settings, columns are tasks.

A row has one model, one method with one set of options, and one value of every other setting that takes several values
for the same model, method and task. Settings that differ only between tasks (such as a batch size for MNLI) do not make
separate rows; settings that differ between methods are listed in ``Comparison.unequal``, for a warning.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from rosa import records
from rosa.config import registry
from rosa.errors import ReportError
from rosa.records import Record, Rule, selection
from rosa.records.baselines import Found
from rosa.report import formatting
from rosa.report.comparison import Comparison, Result, Row, Task, Trial, Words, finished


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
    rows = _told_apart(
        [_row([runs[i] for i in group], flat[group[0]], split_by, varying, several_models, rule) for group in members]
    )
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


def _told_apart(rows: Sequence[Row]) -> list[Row]:
    """The rows, those of one label with the settings in which they differ: a label may round or not spell them out."""
    alike: dict[str, list[Row]] = {}
    for row in rows:
        alike.setdefault(row.label, []).append(row)
    found = []
    for row in rows:
        others = [other.settings for other in alike[row.label]]
        different = {key for own in others for key in own if any(other.get(key) != own[key] for other in others)}
        more = [formatting.setting(key.removeprefix("method."), row.settings.get(key)) for key in sorted(different)]
        found.append(replace(row, label=", ".join([row.label, *more])))
    return found


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
        if shown is not run and finished(run, trial.rule):
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
