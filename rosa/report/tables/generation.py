"""The table of a text generation task: rows are methods, columns are scores of the texts, and perplexity."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rosa.records import Generation, Record, Rule
from rosa.records.schema import Perplexities, Scorer, Settings
from rosa.report import baselines, formatting
from rosa.report.comparison import Comparison, Row, Task, Trial, complete, summarise
from rosa.report.published import Published
from rosa.report.tables import notes
from rosa.report.tables.footnotes import Footnotes
from rosa.report.tables.highlights import Column, Standings, legend, standings
from rosa.report.tables.results import (
    published_cell,
    remarks,
    standing_cell,
    trainable,
    trial_text,
    with_number,
    with_seeds,
)
from rosa.report.tables.table import Cell, Line, Table, loud, text

SCORES = {
    "e2e": ("bleu", "nist", "meteor", "rouge_l", "cider"),
    "number": ("exact_match",),
    "slots": ("exact_match", "slot_f1"),
    "sql": ("exact_match", "execution"),
}
"""By ``task.scorer``, the scores of the texts in the order of the columns; higher is better for all."""
AUTHORS = "mean_of_batches"
"""The perplexity that ROSA's authors publish, see :class:`rosa.records.schema.Perplexities`: another quantity than the
headline, so that it has a column of its own."""
KIND = "generation"
"""``task.kind`` of these tasks."""


def generated(run: Record) -> Generation | None:
    """A record's entry on the run's generated texts; None if there are none."""
    return run.get("generation") or None


def text_scores(run: Record) -> tuple[str, ...]:
    """The scores that a run's texts have."""
    return SCORES[run["config"]["task"].get("scorer", "e2e")]


def generated_splits(trial: Trial) -> list[str]:
    """The splits for which a trial's runs generated texts with the weights of the trial's rule."""
    return sorted({found["split"] for run in trial.scored.values() if (found := _scored(run, trial.rule))})


def generated_scores(trial: Trial, metric: str, split: str) -> dict[int, float]:
    """Seed -> score of the texts generated with the weights of the trial's rule, for the seeds that have it."""
    values = {
        seed: found["scores"].get(metric)
        for seed, run in sorted(trial.scored.items())
        if (found := _scored(run, trial.rule)) and found["split"] == split
    }
    return {seed: float(value) for seed, value in values.items() if value is not None}


def _scored(run: Record, rule: Rule) -> Generation | None:
    """The run's texts, if they are scored and were generated with the weights of the rule."""
    found = generated(run)
    return found if found and found.get("scores") and found["weights"] == rule else None


def generation_table(comparison: Comparison, task: Task, published: Sequence[Published] = ()) -> Table:
    """One row per method and setting: the scores of the texts, headline and trainable parameters.

    A missing score has its reason in a footnote; no other scorer's value replaces it. Beside published perplexities of
    ROSA's authors stand this project's by their definition.
    """
    footnotes = Footnotes()
    beside = [AUTHORS] if any((one.task, one.metric) == (task.name, AUTHORS) for one in published) else []
    split = _split(comparison, task)
    metrics = _metrics(comparison, task)
    columns = _columns(comparison, task, metrics, split)
    shown = [row for row in comparison.rows if task.name in row.results]
    rows = []
    for row in shown:
        *cells, trained = _row(row, task, comparison, metrics, columns, split, footnotes)
        rows.append((*cells, *(_by_authors(row.results[task.name].selected) for _ in beside), trained))
    for line in baselines.lines(comparison, task).values():
        rows.append((*_baseline_row(line, task, metrics, split), *(Cell(formatting.MISSING) for _ in beside)))
    rows += _published_rows(task, [*metrics, task.metric, *beside], published, footnotes)
    headlines = [f"{formatting.scaled_name(metric)} ({task.splits[0]})" for metric in (task.metric, *beside)]
    header = ("Method", *map(formatting.scaled_name, metrics), *(one[0].upper() + one[1:] for one in headlines))
    header += ("Trainable",)
    model = ", ".join(sorted({row.model for row in comparison.rows}))
    name = formatting.task_name(task.name)
    caption = f"{comparison.experiment}: {model} on {name}, texts of the {split} split, {comparison.epoch}"
    explained = "Trainable: adapter + head parameters. " + legend(list(columns.values()), comparison.rows)
    lines = [
        *notes.notes(comparison),
        *notes.on_baselines(comparison),
        *_texts_notes(comparison, task, split),
        *([_authors_note(comparison, task)] if beside else []),
    ]
    keys = [*map(text, footnotes.lines()), text(f"{explained} {formatting.MISSING}: no run, or no score.")]
    return Table(comparison.experiment, caption, header, tuple(rows), tuple(lines), tuple(keys))


def _split(comparison: Comparison, task: Task) -> str:
    """The split of the texts; ``test`` until a run has written some."""
    found = {texts["split"] for run in comparison.runs_of(task.name) if (texts := generated(run))}
    return sorted(found)[-1] if found else "test"


def _metrics(comparison: Comparison, task: Task) -> tuple[str, ...]:
    return next((text_scores(run) for run in comparison.runs_of(task.name)), SCORES["e2e"])


def _columns(comparison: Comparison, task: Task, metrics: Sequence[str], split: str) -> dict[str, Standings]:
    trials = {row.label: row.results[task.name].selected for row in comparison.rows if task.name in row.results}
    columns = {}
    for metric in metrics:
        scores = {label: generated_scores(trial, metric, split) for label, trial in trials.items()}
        whole = {label for label, values in scores.items() if values.keys() >= set(task.seeds)}
        columns[metric] = Column(metric, metric, False, scores, whole)
    scores = {label: trial.scores(task.splits[0], task.metric) for label, trial in trials.items()}
    whole = {
        row.label for row in comparison.rows if task.name in row.results and complete(row.results[task.name], task)
    }
    columns[task.metric] = Column(task.metric, task.metric, task.lower_is_better, scores, whole)
    return {name: standings(column, comparison.rows) for name, column in columns.items()}


def _baseline_row(line: baselines.Line, task: Task, metrics: Sequence[str], split: str) -> tuple[Cell, ...]:
    cells = [Cell(line.label)]
    for place in (*((split, metric) for metric in metrics), (task.splits[0], task.metric)):
        summary = summarise(line.scores.get(place, ()))
        shown = formatting.mean_and_deviation(summary.mean, summary.deviation, place[1]) if summary else ""
        cells.append(Cell(with_number(shown, summary.n, task) if summary else formatting.MISSING))
    return (*cells, Cell(formatting.MISSING))


def _row(
    row: Row,
    task: Task,
    comparison: Comparison,
    metrics: Sequence[str],
    columns: Mapping[str, Standings],
    split: str,
    footnotes: Footnotes,
) -> tuple[Cell, ...]:
    trial = row.results[task.name].selected
    cells = [Cell(row.label)]
    for metric in metrics:
        values = columns[metric].column.scores[row.label]
        summary = summarise(values.values())
        shown = formatting.mean_and_deviation(summary.mean, summary.deviation, metric) if summary else ""
        reasons = _reasons(trial, metric, split) if len(values) < len(trial.scored) else []
        written = with_seeds(shown, [values], trial, task)
        if baselines.not_above(comparison, trial, task, values.values(), (split, metric)):
            reasons.append(notes.NOT_ABOVE)
        cells.append(standing_cell(written, columns[metric][row.label], tuple(map(footnotes.mark, reasons))))
    letters = tuple(map(footnotes.mark, remarks(trial, comparison)))
    cells.append(standing_cell(trial_text(trial, task), columns[task.metric][row.label], letters))
    return (*cells, Cell(trainable(row)))


def _reasons(trial: Trial, metric: str, split: str) -> list[str]:
    """Why finished runs of a cell lack a score."""
    found = set()
    for run in trial.scored.values():
        texts = generated(run)
        if not texts:
            found.add("Finished runs that wrote no texts, or whose texts were not scored.")
        elif texts["weights"] != trial.rule:
            found.add(f"Texts were written with the weights of the {texts['weights']} epoch, not the {trial.rule} one.")
        elif texts["split"] != split:
            found.add(f"Texts were written for the {texts['split']} split, not for {split}.")
        elif texts.get("scores", {}).get(metric) is None:
            why = texts.get("scorer", {}).get("missing", {}).get(metric, "the record gives no reason")
            found.add(f"{formatting.METRIC_NAMES[metric]} is missing: {why}.")
    return sorted(found)


def _by_authors(trial: Trial) -> Cell:
    """A row's perplexity by the definition of ROSA's authors, of the weights that wrote the scored texts."""
    found = _perplexities(run for run in trial.scored.values() if _scored(run, trial.rule))
    known = [one["mean_of_batches"] for one in found if one["mean_of_batches"] is not None]
    summary = summarise(known) if len(known) == len(found) else None  # without an infinite one a mean says too little
    shown = formatting.mean_and_deviation(summary.mean, summary.deviation, AUTHORS) if summary else formatting.MISSING
    return Cell(shown)


def _perplexities(runs: Iterable[Record]) -> list[Perplexities]:
    """What runs recorded as their perplexities by several definitions."""
    return [found for run in runs if (texts := generated(run)) and (found := texts.get("perplexities"))]


# --- notes -----------------------------------------------------------------------------------------------------------


def _texts_notes(comparison: Comparison, task: Task, split: str) -> list[Line]:
    """Notes on a task's decoded split, the decoding options and the scorer; a warning if rows differ in them."""
    runs = [run for run in comparison.shown if run["identity"]["task"] == task.name]
    found = [texts for run in runs if (texts := _scored(run, comparison.rule))]
    if not found:
        return []
    lines = []
    for heading, different, values in (
        ("Decoding", "Decoding is not equal:", [texts["decoding"] for texts in found]),
        ("Scorer", "Scorers are not equal:", [_scorer(texts["scorer"]) for texts in found]),
    ):
        distinct = list(dict.fromkeys(map(_written, values)))
        if len(distinct) == 1:
            lines.append(text(f"{heading}: {distinct[0]}."))
        else:
            lines.append(loud(different, "; ".join(sorted(distinct)) + "."))
    prompts = sorted({texts["prompts"] for texts in found})
    lines.append(
        text(
            f"Texts: {split}, {' or '.join(map(str, prompts))} prompts, each decoded once, with the weights of the "
            f"{comparison.rule} epoch by the headline; that split chose nothing. Over all runs shown, "
            f"{sum(texts['unended'] for texts in found)} texts did not end by themselves and "
            f"{sum(texts['empty'] for texts in found)} are empty."
        )
    )
    return lines


def _authors_note(comparison: Comparison, task: Task) -> Line:
    found = _perplexities(run for run in comparison.shown if run["identity"]["task"] == task.name)
    sizes = sorted({one["batch_size"] for one in found})
    batches = f", here of {' or '.join(map(str, sizes))} examples," if sizes else ""
    return text(
        f"Perplexity by ROSA's code: the mean over batches{batches} of exp of the mean loss of all tokens, those of "
        "the prompts included. Published ones are of this quantity, and compare at the same batch size only."
    )


def _scorer(scorer: Scorer) -> Settings:
    """The scorer's fields that must agree for scores to be comparable; missing scores have footnotes instead."""
    return {"tokenizer": scorer.get("tokenizer"), **scorer.get("versions", {}), **scorer.get("options", {})}


def _written(settings: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{key} {value if isinstance(value, (str, int, float)) else json.dumps(value, sort_keys=True)}"
        for key, value in settings.items()
    )


# --- published numbers -----------------------------------------------------------------------------------------------


def _published_rows(
    task: Task, metrics: Sequence[str], published: Iterable[Published], footnotes: Footnotes
) -> list[tuple[Cell, ...]]:
    own = [entry for entry in published if entry.task == task.name]
    rows = []
    for label, count in dict.fromkeys((entry.label, entry.trainable) for entry in own):
        entries = {entry.metric: entry for entry in own if (entry.label, entry.trainable) == (label, count)}
        cited = footnotes.mark(f"Published, not run here: {next(iter(entries.values())).source}.")
        cells = [
            published_cell(entries[metric], footnotes) if metric in entries else Cell(formatting.MISSING)
            for metric in metrics
        ]
        rows.append(
            (
                Cell(label, marks=(cited,)),
                *cells,
                Cell(formatting.MISSING if count is None else formatting.count(count)),
            )
        )
    return rows
