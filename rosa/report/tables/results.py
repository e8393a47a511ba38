"""The results table of an experiment: methods x tasks, with highlights, missing runs and provenance."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

from rosa.records import is_committed
from rosa.report import baselines, formatting
from rosa.report.comparison import Comparison, Row, Summary, Task, Trial, complete, summarise
from rosa.report.published import Published
from rosa.report.tables import notes
from rosa.report.tables.footnotes import Footnotes
from rosa.report.tables.highlights import Column, Standing, Standings, legend, standings
from rosa.report.tables.table import Cell, Line, Table, text
from rosa.report.tuned import holds

AVERAGE = "Average"


def results_table(comparison: Comparison, published: Sequence[Published] = ()) -> Table:
    """Rows are methods and settings, columns tasks, their average and the trainable parameters.

    Among the rows of one model that have a score for every seed, the best of a column is bold, and those within the
    best's standard deviation are underlined. Baselines and published scores are listed below and get no highlights;
    a score that is not above the best baseline has a footnote.
    """
    footnotes = Footnotes()
    averaged = _can_average(comparison)
    columns = task_columns(comparison)
    rows = [_results_row(row, comparison, columns, footnotes) for row in comparison.rows]
    rows += [_baseline_row(label, comparison, averaged, footnotes) for label in baselines.labels(comparison)]
    rows += _published_rows(comparison, published, averaged, footnotes)
    names = [formatting.task_name(task.name) for task in comparison.tasks]
    header = ("Method", *names, *([AVERAGE] if averaged else []), "Trainable")
    models = ", ".join(sorted({row.model for row in comparison.rows}))
    caption = f"{comparison.experiment}: {models}, {_shown(comparison.tasks)} at the {comparison.epoch}"
    lines = (*notes.notes(comparison), *notes.on_baselines(comparison))
    keys = (*map(text, footnotes.lines()), _legend(comparison, list(columns.values()), averaged))
    return Table(comparison.experiment, caption, header, tuple(rows), lines, keys)


def task_columns(comparison: Comparison) -> dict[str, Standings]:
    """Column name -> standings of its rows: each task's headline on its first split, and the average over tasks.

    The average is the mean of a row's cells, for the rows that have every seed of every task. Its spread is that of the
    seeds' averages, where a row has the same seeds on every task.
    """
    columns = {}
    for task in comparison.tasks:
        own = [row for row in comparison.rows if task.name in row.results]
        scores = {row.label: row.scores(task) for row in own}
        whole = {row.label for row in own if complete(row.results[task.name], task)}
        columns[task.name] = Column(task.name, task.metric, task.lower_is_better, scores, whole)
    if _can_average(comparison) and len({task.seeds for task in comparison.tasks}) == 1:
        columns[AVERAGE] = _average_column(comparison.tasks[0], list(columns.values()))
    return {name: standings(column, comparison.rows) for name, column in columns.items()}


def _average_column(first: Task, columns: Sequence[Column]) -> Column:
    scores, averages = {}, {}
    for label in set.intersection(*(set(column.complete) for column in columns)):
        own = [column.scores[label] for column in columns]
        shared = sorted(set.intersection(*(set(one) for one in own)))
        scores[label] = {seed: statistics.fmean(one[seed] for one in own) for seed in shared}
        if any(one.keys() != set(shared) for one in own):
            mean = statistics.fmean(statistics.fmean(one.values()) for one in own)
            averages[label] = Summary(mean, None, len(shared))
    return Column(AVERAGE, first.metric, first.lower_is_better, scores, set(scores), averages)


def _can_average(comparison: Comparison) -> bool:
    """Whether there are several tasks, with the same scale and direction, and every row has a mean over them."""
    return (
        len(comparison.tasks) > 1 and _alike(comparison) and all(averages(row, comparison) for row in comparison.rows)
    )


def _alike(comparison: Comparison) -> bool:
    return len({(formatting.scale(task.metric), task.lower_is_better) for task in comparison.tasks}) == 1


def averages(row: Row, comparison: Comparison) -> bool:
    """Whether a mean over the tasks makes sense for a row: it has scores on each, at rates that did not fail."""
    return all(map(row.scores, comparison.tasks)) and not failed_rates(row, comparison)


def failed_rates(row: Row, comparison: Comparison) -> list[Task]:
    """The tasks on which a row's learning rate failed on a seed, whose scores would decide a mean over tasks."""
    return [
        task
        for task in comparison.tasks
        if (result := row.results.get(task.name)) and holds(comparison, task, result, result.selected) is False
    ]


def _why_no_average(comparison: Comparison) -> str:
    if not _alike(comparison):
        return "the tasks' scores differ in scale or direction."
    if not all(row.scores(task) for row in comparison.rows for task in comparison.tasks):
        return "not every row has a score on each."
    failed = [
        f"{row.label} on {formatting.task_name(task.name)}"
        for row in comparison.rows
        for task in failed_rates(row, comparison)
    ]
    return f"rows whose learning rate failed on a seed would decide it: {'; '.join(failed)}."


def _shown(tasks: Sequence[Task]) -> str:
    """``scores ×100``, and the names of metrics that are not scaled."""
    as_they_are = [task.metric for task in tasks if formatting.scale(task.metric) == 1]
    names = [formatting.METRIC_NAMES.get(metric, metric) for metric in dict.fromkeys(as_they_are)]
    return ", ".join([*(["scores ×100"] if len(as_they_are) < len(tasks) else []), *names])


def _legend(comparison: Comparison, columns: Sequence[Standings], averaged: bool) -> Line:
    parts = []
    if averaged:
        each = "the first split" if any(len(task.splits) > 1 for task in comparison.tasks) else "each task"
        parts.append(
            f"Average: the mean of the {len(comparison.tasks)} columns ({each}); its deviation is that of the seeds' "
            "averages, where a row has the same seeds in each."
        )
    elif len(comparison.tasks) > 1:
        parts.append(f"No average over the tasks: {_why_no_average(comparison)}")
    parts += ["Trainable: adapter + head parameters.", legend(columns, comparison.rows)]
    parts += [f"{formatting.MISSING}: no run, or no score."]
    return text(" ".join(parts))


# --- one row ---------------------------------------------------------------------------------------------------------


def _results_row(
    row: Row, comparison: Comparison, columns: dict[str, Standings], footnotes: Footnotes
) -> tuple[Cell, ...]:
    cells = [Cell(row.label)]
    for task in comparison.tasks:
        result = row.results.get(task.name)
        letters = tuple(map(footnotes.mark, remarks(result.selected, comparison))) if result else ()
        letters += not_above(comparison, result.selected, task, footnotes) if result else ()
        written = formatting.MISSING if result is None else trial_text(result.selected, task)
        cells.append(standing_cell(written, columns[task.name][row.label], letters))
    if _can_average(comparison):
        standing = columns[AVERAGE][row.label] if AVERAGE in columns else Standing()
        cells.append(standing_cell(_average(row, comparison.tasks, columns), standing))
    return (*cells, Cell(trainable(row)))


def not_above(comparison: Comparison, trial: Trial, task: Task, footnotes: Footnotes) -> tuple[str, ...]:
    """The letter of the footnote for a headline score that is not above every baseline."""
    place = (task.splits[0], task.metric)
    found = baselines.not_above(comparison, trial, task, trial.scores(*place).values(), place)
    return (footnotes.mark(notes.NOT_ABOVE),) if found else ()


def _baseline_row(label: str, comparison: Comparison, averaged: bool, footnotes: Footnotes) -> tuple[Cell, ...]:
    cells, means = [Cell(label)], []
    for task in comparison.tasks:
        line = baselines.lines(comparison, task).get(label)
        summaries = [summarise(line.scores.get((split, task.metric), ())) for split in task.splits] if line else []
        shown = [formatting.mean_and_deviation(s.mean, s.deviation, task.metric) for s in summaries if s]
        means += [summary.mean for summary in summaries[:1] if summary]
        letters = (footnotes.mark(f"On {line.form}."),) if line and shown and label == baselines.WORDS else ()
        n = max((s.n for s in summaries if s), default=0)
        cells.append(Cell(with_number(joined(shown), n, task) or formatting.MISSING, marks=letters))
    if averaged:
        whole = len(means) == len(comparison.tasks)
        metric = comparison.tasks[0].metric
        cells.append(Cell(formatting.score(statistics.fmean(means), metric) if whole else formatting.MISSING))
    return (*cells, Cell(formatting.MISSING))


def standing_cell(text: str, standing: Standing, letters: tuple[str, ...] = ()) -> Cell:
    """A cell with its highlights and the letters of its footnotes."""
    return Cell(text, standing.best, (*standing.marks, *letters), standing.close)


def remarks(trial: Trial, comparison: Comparison) -> list[str]:
    """Footnotes of a cell: warnings of its runs, and that some are committed where others of the table are not."""
    found = [f"Warning of the run: {w}" for w in sorted({w for r in trial.scored.values() for w in r["warnings"]})]
    if any(map(is_committed, trial.runs)) and not all(map(is_committed, comparison.runs)):
        found.append(notes.COMMITTED)
    return found


def _average(row: Row, tasks: Sequence[Task], columns: dict[str, Standings]) -> str:
    metric = tasks[0].metric
    column = columns[AVERAGE].column if AVERAGE in columns else None
    summary = column.shown(row.label) if column else None
    if column and summary:
        other = row.label not in column.averages and column.scores[row.label].keys() != set(tasks[0].seeds)
        shown = formatting.mean_and_deviation(summary.mean, summary.deviation, metric)
        return f"{shown} (n={summary.n})" if other else shown
    means = [columns[task.name].column.shown(row.label) for task in tasks]
    known = [found.mean for found in means if found]
    whole = all(row.label in columns[task.name].column.complete for task in tasks)
    return formatting.score(statistics.fmean(known), metric) + ("" if whole else " (partial)")


def trial_text(trial: Trial, task: Task) -> str:
    """``71.2 ± 0.4``, ``70.1 ± 0.3 / 69.8 ± 0.2`` with two splits; then other seeds: ``(n=2, 1 failed)``, ``(n=5)``."""
    scores = [trial.scores(split, task.metric) for split in task.splits]
    summaries = [summarise(one.values()) for one in scores]
    shown = [formatting.mean_and_deviation(s.mean, s.deviation, task.metric) for s in summaries if s]
    return with_seeds(joined(shown), [one for one in scores if one], trial, task)


def with_number(shown: str, n: int, task: Task) -> str:
    """The mean of a baseline; with the number of sets of rows, if they are several and not one for each seed."""
    return f"{shown} (n={n})" if n not in (0, 1, len(task.seeds)) else shown


def joined(scores: Sequence[str]) -> str:
    """The scores of several splits: ``70.1 ± 0.3 / 69.8 ± 0.2``, ``70.1/69.8``."""
    return (" / " if "±" in "".join(scores) else "/").join(scores)


def with_seeds(shown: str, scores: Sequence[Mapping[int, float]], trial: Trial, task: Task) -> str:
    """A cell's numbers; if their seeds are not the task's, also how many, and the counts of failed and running ones.

    Args:
        shown: the numbers.
        scores: seed -> score, of each split that has some.
        trial: of the cell.
        task: of the cell.
    """
    lost = {"failed": len(trial.failed), "running": len(trial.running)}
    counted = [f"{number} {state}" for state, number in lost.items() if number]
    if not shown:
        one_seed = len(task.seeds) == 1
        return ", ".join([state for state in lost if lost[state]] if one_seed else counted) or formatting.MISSING
    if all(one.keys() == set(task.seeds) for one in scores) and not counted:
        return shown
    numbers = list(dict.fromkeys(len(one) for one in scores))
    n = "/".join(str(len(one)) for one in scores) if len(numbers) > 1 else numbers[0]
    return f"{shown} ({', '.join([f'n={n}', *counted])})"


def trainable(row: Row, task: str | None = None) -> str:
    """Trainable parameters of a row's runs, of all tasks or of one: ``0.29M + 0.59M head``."""
    params = [
        run["params"]
        for name, result in row.results.items()
        if task in (None, name)
        for run in result.selected.runs
        if {"trainable", "head"} <= run["params"].keys()
    ]
    if not params:
        return formatting.MISSING
    head = formatting.count_range(found["head"] for found in params)
    tail = f" + {head} head"
    if head == "0":  # frozen, or a task without a head
        tail = " (head frozen)" if row.settings.get("method.head") == "freeze" else ""
    return formatting.count_range(found["trainable"] for found in params) + tail


def _published_rows(
    comparison: Comparison, published: Sequence[Published], averaged: bool, footnotes: Footnotes
) -> list[tuple[Cell, ...]]:
    rows = []
    for label, counts in dict.fromkeys((entry.label, entry.trainable) for entry in published):
        own = [entry for entry in published if (entry.label, entry.trainable) == (label, counts)]
        entries = {(entry.task, entry.metric): entry for entry in own}
        cited = footnotes.mark(f"Published, not run here: {own[0].source}.")
        cells, means = [Cell(label, marks=(cited,))], []
        for task in comparison.tasks:
            entry = entries.get((task.name, task.metric))
            others = " and ".join(entry.metric for entry in own if entry.task == task.name)
            if entry is not None:
                means.append(entry.score)
                cells.append(published_cell(entry, footnotes))
            elif others:
                why = f"Published as {others}, while this column is {task.metric}: not shown."
                cells.append(Cell(formatting.MISSING, marks=(footnotes.mark(why),)))
            else:
                cells.append(Cell(formatting.MISSING))
        if averaged:
            whole = len(means) == len(comparison.tasks)
            metric = comparison.tasks[0].metric
            cells.append(Cell(formatting.score(statistics.fmean(means), metric) if whole else formatting.MISSING))
        rows.append((*cells, Cell(formatting.MISSING if counts is None else formatting.count(counts))))
    return rows


def published_cell(entry: Published, footnotes: Footnotes) -> Cell:
    """A published number with its note."""
    marks = (footnotes.mark(entry.note),) if entry.note else ()
    return Cell(formatting.mean_and_deviation(entry.score, entry.spread, entry.metric), marks=marks)
