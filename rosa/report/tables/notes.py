"""The notes under a table: contents, selection, data and baselines."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from rosa.config import TRAIN, registry
from rosa.config.data import FILES
from rosa.records import HOLDOUT, Record, default_settings
from rosa.records.schema import Data, Split
from rosa.records.selection import has_diverged
from rosa.report import baselines, formatting
from rosa.report.comparison import Comparison, Result, Row, Task, complete
from rosa.report.grouping import frozen
from rosa.report.tables.provenance import command_of, provenance
from rosa.report.tables.table import Line, Span, loud, text

COMMITTED = "Of a record that is committed with the project; this folder has not done the run."
NAMED_ROWS = 4
"""Largest number of rows named in one note."""
EXPLAINED = {
    baselines.CONSTANT: "Constant answer: the most frequent class of the training rows, or their mean score.",
    baselines.WORDS: (
        "Bag of words: logistic or ridge regression on which words are there; of several forms the best on the split "
        "shown, which flatters it, named by a letter."
    ),
    baselines.RETRIEVAL: "Retrieval: a reference of the training input with the most similar words.",
}
"""Row of baselines -> its explanation."""
NOT_ABOVE = "Not above the best baseline for the same rows."
"""The footnote of a method's score."""


def notes(comparison: Comparison) -> list[Line]:
    """All notes under the table of a comparison, warnings first."""
    return [
        *_scale(comparison),
        *_unequal(comparison),
        *_changed_data(comparison),
        _metrics(comparison),
        _rule(comparison),
        _seeds(comparison),
        *_defaults(comparison),
        *_rates(comparison),
        *_models(comparison),
        *_data(comparison),
        *_overlap(comparison),
        *provenance(comparison),
    ]


def grid_of(result: Result) -> tuple[tuple[float, ...], str]:
    """The learning rates tried for a row and task, and how the shown one was selected.

    Returns:
        The learning rates, ascending; and ``fixed``, ``here`` (selected among the table's own runs), or
        ``tuned: EXPERIMENT on TASK, seed N, by the score there`` (as recorded in the runs), with the rate that won
        there if the table's own runs have several, among which the shown one was selected again.
    """
    rates = {trial.lr for trial in result.trials}
    tuned = [run["tuning"] for trial in result.trials for run in trial.runs if run["tuning"]]
    how = "fixed" if len(rates) == 1 else "here"
    if tuned:
        first = tuned[0]
        committed = " (committed records)" if first.get("committed") else ""
        task = formatting.task_name(first["task"])
        how = f"tuned: {first['experiment']}{committed} on {task}, seed {first['seed']}, by the score there"
        if len(rates) > 1:
            won = " or ".join(map(formatting.rate, sorted({tuning["chosen"] for tuning in tuned})))
            how += f": {won}; then in each cell among the rates that were run here, {_listed(sorted(rates))}"
        rates |= {entry["lr"] for tuning in tuned for entry in tuning["grid"]}
    return tuple(sorted(rates)), how


def _on(tasks: Iterable[str]) -> str:
    """`` on CoLA, MRPC``."""
    return f" on {', '.join(map(formatting.task_name, tasks))}"


def _scale(comparison: Comparison) -> list[Line]:
    mini = sorted({run["identity"]["task"] for run in comparison.runs if run["config"]["data"].get("source") == "mini"})
    if not mini:
        return []
    shapes = " and ".join(
        dict.fromkeys("GLUE" if task in formatting.TASKS else formatting.task_name(task) for task in mini)
    )
    body = (
        f"the data are small, of {shapes}'s shape, and the project generates them. This table exercises the whole "
        f"pipeline; it is no reproduction of the paper, and its numbers say nothing about {shapes}."
    )
    return [loud("Mini scale:", body)]


def _unequal(comparison: Comparison) -> list[Line]:
    lines = []
    for key, values in comparison.unequal:
        listed = "; ".join(f"{value} ({' / '.join(labels)})" for value, labels in values.items())
        lines.append(loud("Settings are not equal:", f"{key} is {listed}."))
    grids: dict[str, list[str]] = {}
    for row in comparison.rows:
        own: dict[tuple[float, ...], list[str]] = {}
        for task in comparison.tasks:
            if task.name in row.results:
                own.setdefault(grid_of(row.results[task.name])[0], []).append(task.name)
        written = [_listed(grid) + (_on(tasks) if len(own) > 1 else "") for grid, tasks in sorted(own.items())]
        grids.setdefault(" and ".join(written), []).append(row.label)
    if len(grids) > 1:
        listed = "; ".join(f"{grid} for {' / '.join(labels)}" for grid, labels in sorted(grids.items()))
        lines.append(loud("Learning-rate grids are not equal:", listed + "."))
    return lines


def _changed_data(comparison: Comparison) -> list[Line]:
    seen: dict[tuple[str, str, int], set[str]] = {}
    for run in comparison.runs:
        # Each seed has its own data then, but all runs of a seed have the same.
        seed = run["identity"]["seed"] if run["config"]["data"].get("per_seed") else 0
        for split, facts in run["data"].get("splits", {}).items():
            if facts.get("sha256"):
                seen.setdefault((run["identity"]["task"], split, seed), set()).add(facts["sha256"])
    changed = dict.fromkeys(
        f"{formatting.task_name(task)} {split}" for (task, split, _), found in sorted(seen.items()) if len(found) > 1
    )
    if not changed:
        return []
    return [loud("The data changed between runs:", ", ".join(changed) + " (see data.splits in the records).")]


def _metrics(comparison: Comparison) -> Line:
    by_metric: dict[str, list[str]] = {}
    for task in comparison.tasks:
        name = formatting.task_name(task.name)
        if len(task.splits) > 1:
            name += f" ({' / '.join(task.splits)}; {_first_split(comparison)} by the first)"
        elif task.splits[0] != "validation":
            name += f" ({task.splits[0]})"
        by_metric.setdefault(_metric(task), []).append(name)
    listed = "; ".join(f"{metric} of {', '.join(tasks)}" for metric, tasks in by_metric.items())
    split = ""
    if _all_validation(comparison.tasks):
        glue = all(task.name in formatting.TASKS for task in comparison.tasks)
        split = " on the validation split" + (", which GLUE also calls dev" if glue else "")
    return text(f"Metric{split}: {listed}. All official metrics are in {comparison.experiment}.csv.")


def _first_split(comparison: Comparison) -> str:
    return "ranked" if HOLDOUT in comparison.selections else "chosen and ranked"


def _metric(task: Task) -> str:
    return formatting.scaled_name(task.metric) + (" (an error: the lower, the better)" if task.lower_is_better else "")


def _all_validation(tasks: Sequence[Task]) -> bool:
    return all(split.startswith("validation") for task in tasks for split in task.splits)


def _rule(comparison: Comparison) -> Line:
    if comparison.rule == "last":
        return text("Epoch: last; the best epoch is in the CSV file.")
    words = sorted({"lowest error" if task.lower_is_better else "highest score" for task in comparison.tasks})
    places: dict[tuple[str, ...], str] = {
        (HOLDOUT,): "a seeded part of the training split that was kept aside; the split that is shown chose nothing",
        ("dev-best",): "the very split that is shown, which flatters every method",
    }
    where = places.get(
        comparison.selections, "what each row names: a part of the training split kept aside, or the split shown"
    )
    return text(f"Epoch: best, the one with the {' or '.join(words)} on {where}; the last epoch is in the CSV file.")


def _seeds(comparison: Comparison) -> Line:
    by_seeds: dict[tuple[int, ...], list[str]] = {}
    for task in comparison.tasks:
        by_seeds.setdefault(task.seeds, []).append(formatting.task_name(task.name))
    listed = "; ".join(
        f"{', '.join(map(str, seeds))} (n={len(seeds)})" + (f" for {', '.join(tasks)}" if len(by_seeds) > 1 else "")
        for seeds, tasks in by_seeds.items()
    )
    if all(len(seeds) == 1 for seeds in by_seeds):
        return text(f"One seed: {listed}, so no spread is given; differences of this size may be chance.")
    body = f"Mean ± sample standard deviation over seeds {listed}."
    cells = [(row.results[task.name], task) for row in comparison.rows for task in comparison.tasks
             if task.name in row.results]  # fmt: skip
    further: dict[str, set[int]] = {}
    for result, task in cells:
        own = {*result.selected.scored} - {*task.seeds}
        further.setdefault(formatting.task_name(task.name), set()).update(own)
    listed = "; ".join(f"{name} {', '.join(map(str, sorted(own)))}" for name, own in further.items() if own)
    if listed:
        body += (
            f" Further seeds of some rows count in their means, and n says how many they have: {listed}. Means over "
            "other seeds compare less well than the differences from LoRA, which are over the seeds that both have."
        )
    if any(not complete(*cell) for cell in cells):
        body += " A cell with fewer seeds says how many; it is never bold, and neither is an average over one."
    return text(body)


def _defaults(comparison: Comparison) -> list[Line]:
    """Defaults of the options that the labels of some rows of a method name and others omit."""
    found = []
    for method in dict.fromkeys(row.method for row in comparison.rows):
        own = [row.settings for row in comparison.rows if row.method == method]
        for key, value in default_settings(method).items():
            name = key.removeprefix("method.")
            if name != key and name not in formatting.OPTIONS_IN_NAME and len({frozen(s.get(key)) for s in own}) > 1:
                found.append(f"{formatting.setting(name, value)} ({registry.label(method)})")
    return [text(f"Where a row does not name it, as by default: {', '.join(found)}.")] if found else []


def _rates(comparison: Comparison) -> list[Line]:
    ways: dict[str, list[tuple[Row, str, Result]]] = {}
    for row in comparison.rows:
        for task in comparison.tasks:
            if task.name in row.results:
                result = row.results[task.name]
                ways.setdefault(grid_of(result)[1], []).append((row, task.name, result))
    lines = []
    for how, members in sorted(ways.items()):
        own: dict[str, list[str]] = {}
        for row, task_name, _ in members:
            own.setdefault(row.label, []).append(task_name)
        whole = all(len(own[row.label]) == len(row.results) for row, *_ in members)
        same = len(set(map(tuple, own.values()))) == 1
        where = "" if whole or not same else _on(next(iter(own.values())))
        by = f"by its mean score at the {comparison.rule} epoch{_chosen_on(comparison)}"
        told = {"fixed": "fixed (the records know of no search)", "here": f"chosen in each cell {by}"}
        again = any(len(result.trials) > 1 for *_, result in members)
        body = told.get(how, f"{how}, {by}" if again else how)
        winners = _winners(members, named=not whole and not same)
        lines.append(text(f"Learning rate{where}, {body}: {winners}.{_lost(members)}"))
    return lines


def _lost(members: Iterable[tuple[Row, str, Result]]) -> str:
    """How runs without a score, or of other seeds, affected the selection; empty without such runs."""
    results = [result for *_, result in members]
    runs = [run for result in results for trial in result.trials for run in trial.runs]
    cells = [cell["status"] for run in runs if run["tuning"] for cell in run["tuning"]["grid"]]
    choosing = [run for result in results if len(result.trials) > 1 for trial in result.trials for run in trial.runs]
    states = {*cells, *("diverged" if has_diverged(run) else run["status"] for run in choosing)}
    found = {
        "diverged": " A learning rate with a diverged seed ranks last.",
        "failed": " A seed that failed without diverging is left out of its learning rate's mean.",
        "unequal": (
            " Learning rates with other seeds are compared over those that they share with the rate that has most, and "
            "one that shares fewer than half of that rate's seeds is not chosen."
        ),
    }
    for result in results:
        if len({frozenset(trial.scored) for trial in result.trials if trial.scored}) > 1:
            states.add("unequal")
    return "".join(sentence for state, sentence in found.items() if state in states)


def _chosen_on(comparison: Comparison) -> str:
    """The split on which the table's own selection was made, if it is the same for all tasks."""
    if HOLDOUT not in comparison.selections:
        return ", as shown"
    return " on the holdout" if len(comparison.selections) == 1 else " on the split of each row's selection"


def _winners(members: Iterable[tuple[Row, str, Result]], named: bool) -> str:
    """``5e-4 of {...} for LABEL / LABEL``; by task if the tasks of a row differ, or ``named``."""
    rows: dict[str, dict[str, list[str]]] = {}
    for row, task, result in members:
        grid = grid_of(result)[0]
        written = formatting.rate(result.selected.lr) + (f" of {_listed(grid)}" if len(grid) > 1 else "")
        rows.setdefault(row.label, {}).setdefault(written, []).append(task)
    labels: dict[str, list[str]] = {}
    for label, outcomes in rows.items():
        parts = [written + (_on(tasks) if named or len(outcomes) > 1 else "") for written, tasks in outcomes.items()]
        labels.setdefault(", ".join(parts), []).append(label)
    if len(labels) == 1 and len(rows) > NAMED_ROWS:
        return f"{next(iter(labels))} for all {len(rows)} rows"
    return "; ".join(f"{outcome} for {' / '.join(same)}" for outcome, same in labels.items())


def _listed(grid: Sequence[float]) -> str:
    return "{" + ", ".join(map(formatting.rate, grid)) + "}"


def _models(comparison: Comparison) -> list[Line]:
    lines = set()
    for run in comparison.runs:
        model = run["config"]["model"]
        parts = [model["source"], *([model["path"]] if model.get("path") else [])]
        if model.get("revision"):
            parts.append(f"revision {model['revision'][:12]}")
        for file, digest in sorted(run["model"].get("sha256", {}).items()):
            parts.append(f"{file} sha256 {digest[:12]}")
        lines.add(f"Model: {run['identity']['model']} ({', '.join(parts)}).")
    return [text(line) for line in sorted(lines)]


def _data(comparison: Comparison) -> list[Line]:
    """One line per data source, with tasks of equal sizes joined."""
    sources: dict[str, dict[str, str]] = {}
    for task in comparison.tasks:
        for run in comparison.runs:
            # A run that failed early may have no sizes; the first run that has them is used for the task.
            if run["identity"]["task"] == task.name and run["data"].get("splits"):
                sources.setdefault(_source(run), {}).setdefault(formatting.task_name(task.name), _sizes(run))
    lines = []
    for source, tasks in sorted(sources.items()):
        same: dict[str, list[str]] = {}
        for name, sizes in tasks.items():
            same.setdefault(sizes, []).append(name)
        rows = "; ".join(f"{sizes} ({', '.join(names)})" for sizes, names in same.items())
        lines.append(text(f"Data: {source}. Rows: {rows}."))
    return lines


def _source(run: Record) -> str:
    data = run["config"]["data"]
    if data["source"] == "hub":
        return f"hub {data.get('path', '')}, revision {data.get('revision', '')[:12] or 'not pinned'}"
    if data["source"] == "local":
        return "local files"
    if data["source"] == "files":
        return f"own files ({', '.join(f'{split} {data[split]}' for split in FILES if data.get(split))})"
    made = "split" if data["source"] == "diabetes" else "generated"
    if data.get("per_seed"):
        return f"{data['source']}, {made} anew for each seed of a run"
    return f"{data['source']}, {made} with seed {data.get('seed', 0)}"


def _sizes(run: Record) -> str:
    splits: dict[str, Any] = run["data"]["splits"]
    order = dict.fromkeys([TRAIN, HOLDOUT, *run["config"]["task"]["evaluation"]])
    return ", ".join(f"{split} {splits[split]['rows']}" for split in order if split in splits)


def _facts(comparison: Comparison, task: Task) -> list[Data]:
    """What the runs of a task recorded about their data."""
    return [
        run["data"] for run in comparison.runs if run["identity"]["task"] == task.name and run["data"].get("splits")
    ]


def _overlap(comparison: Comparison) -> list[Line]:
    """The numbers of evaluation rows that also occur in the training rows, for tasks whose runs counted them."""
    counted: dict[str, list[str]] = {}
    for task in comparison.tasks:
        splits: dict[str, list[Split]] = {}
        for facts in _facts(comparison, task):
            for name, split in facts["splits"].items():
                if "in_train" in split:
                    splits.setdefault(name, []).append(split)
        written = ", ".join(f"{name} {_in_train(found)}" for name, found in splits.items()) or "not counted"
        counted.setdefault(written, []).append(formatting.task_name(task.name))
    if list(counted) in ([], ["not counted"]):
        return []
    listed = "; ".join(f"{written} ({', '.join(names)})" for written, names in counted.items())
    return [text(f"Evaluation rows whose texts are a training row's too: {listed}.")]


def _in_train(found: Sequence[Split]) -> str:
    """``2 of 600``, and those that are a part of a training text; a range where the runs differ."""
    inputs = [split["given"] for split in found if "given" in split]
    rows = f"{_range(inputs)} inputs" if inputs else _range([split["rows"] for split in found])
    inside = [split["inside_train"] for split in found if "inside_train" in split]
    more = f", {_range(inside)} within a training text" if any(inside) else ""
    return f"{_range([split['in_train'] for split in found])} of {rows}{more}"


def _range(numbers: Sequence[int]) -> str:
    """A number, or the smallest and the largest of several."""
    least, most = min(numbers), max(numbers)
    return f"{least:,}" if least == most else f"{least:,}–{most:,}"


def on_baselines(comparison: Comparison) -> list[Line]:
    """Explanations of the rows of baselines, or the command that computes them."""
    texts = [task for task in comparison.tasks if task.kind != "vector_regression"]
    command = command_of("make_baselines", comparison, comparison.words.records)
    lacking = [formatting.task_name(task.name) for task in texts if not baselines.lines(comparison, task)]
    if not texts:
        return []
    if len(lacking) == len(texts):
        return [(Span("Baselines, which tell what a score is worth: not computed; "), command, Span(" does."))]
    missing = f" None for {', '.join(lacking)}." if lacking else ""
    explained = " ".join(EXPLAINED[label] for label in baselines.labels(comparison))
    body = f"Baselines use no pretrained model, and the rows that the methods use. {explained}{missing} Made by "
    return [(Span(body), command, Span("."))]
