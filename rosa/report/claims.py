"""The page that compares the papers' claims with the records: differences, verdict and caveats of each claim.

Every number on the page comes from records, and from the benchmark's table; ``scripts/make_claims.py`` updates it when
there are more.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rosa import records
from rosa.records import Record
from rosa.report import formatting
from rosa.report.benchmarked import CONTRADICTED, NOT_RUN, OPEN, SUPPORTED, Line, costs_claims
from rosa.report.comparison import Comparison, Row, Task, compare
from rosa.report.significance import LEVEL, Paired, compare_with, holm
from rosa.report.tables.costs import PEAK, STATE, Quantity, measured, ratio
from rosa.report.tables.generation import KIND, SCORES, generated_scores
from rosa.report.tables.markdown import markdown
from rosa.report.tables.notes import text
from rosa.report.tables.table import Cell, Table

EXPERIMENT = "evidence_glue"
ON_TEXTS = "e2e_real"
"""The experiment whose generated texts are compared."""
SAME = 0.02
"""Largest relative difference in memory that counts as equal."""
HELD = 0.5
"""A tuned learning rate fails on a seed whose score is below this share of its score in tuning."""

Settings = Mapping[str, Any]
ROSA: Settings = {"method.name": "rosa", "method.every": 1}
NEVER: Settings = {"method.name": "rosa", "method.every": 0}
LORA: Settings = {"method.name": "lora"}
IA3: Settings = {"method.name": "ia3"}
FULL: Settings = {"method.name": "full"}
ROBUST: Settings = {"method.name": "robust", "method.schedule": "joint"}
SPARSE: Settings = {"method.name": "robust", "method.schedule": "sparse_only"}


@dataclass(frozen=True)
class Claim:
    """The claim that one row scores higher than another on most tasks, or costs the same."""

    words: str
    """The papers' claim, shortened."""
    row: Settings
    against: Settings
    quantity: Quantity | None = None
    """The cost that is claimed to be equal; None if scores are compared."""


CLAIMS = (
    Claim("ROSA is better than LoRA on most GLUE tasks", ROSA, LORA),
    Claim("ROSA is as good as full fine-tuning (contradicted where full is better on most tasks)", ROSA, FULL),
    Claim("ROSA is better than (IA)3", ROSA, IA3),
    Claim("A new subspace each epoch is better than the first one kept", ROSA, NEVER),
    Claim("The SVD initialisation alone is better than LoRA's", NEVER, LORA),
    Claim("RoSA (robust adaptation) is better than LoRA at its budget", ROBUST, LORA),
    Claim("RoSA is better than its sparse part alone", ROBUST, SPARSE),
    Claim("RoSA is as good as full fine-tuning (contradicted where full is better on most tasks)", ROBUST, FULL),
    Claim("ROSA is better than RoSA", ROSA, ROBUST),
    Claim("ROSA's weights, gradients and optimizer state take LoRA's memory", ROSA, LORA, STATE),
    Claim("ROSA's peak memory is LoRA's", ROSA, LORA, PEAK),
)
CLAIMS_ON_TEXTS = (
    Claim("ROSA is better than LoRA", ROSA, LORA),
    Claim("ROSA is as good as full fine-tuning (contradicted where full is better in most scores)", ROSA, FULL),
    Claim("ROSA is better than (IA)3", ROSA, IA3),
    Claim("RoSA (robust adaptation) is better than LoRA at its budget", ROBUST, LORA),
    Claim("RoSA is better than its sparse part alone", ROBUST, SPARSE),
    Claim("RoSA is as good as full fine-tuning (contradicted where full is better in most scores)", ROBUST, FULL),
    Claim("ROSA is better than RoSA", ROSA, ROBUST),
)
"""Claims about generated texts, each compared by every score of the texts."""
UNANSWERED = (
    "random sampling at least as good as top and bottom; orthogonality matters: at rates tuned for each arm",
    "rank trades memory for speed of convergence and not for expressiveness",
)
"""Claims that the study does not answer."""


def page(found: Sequence[Record], costs: Sequence[Line] = ()) -> str:
    """The Markdown page.

    Args:
        found: records of the study.
        costs: measurements of the benchmark; without them the page has no claims about time and storage.

    Raises:
        ReportError: the study has no records.
    """
    comparison = compare(found, EXPERIMENT)
    texts = any(run["identity"]["experiment"] == ON_TEXTS for run in found)
    return "\n".join(
        [
            "# The papers' claims, and what was found",
            "",
            "Made by `python scripts/make_claims.py` from the records of `evidence_glue`; no number here is typed. The",
            "runs, their commands and their learning-rate grids: [tables](../results/tables/evidence_glue.md),",
            "[grids](../results/tables/evidence_glue_tune.md). The differences from LoRA at a glance:",
            "",
            "![differences from LoRA](../results/figures/evidence_glue/minilm-differences.svg)",
            "",
            markdown(claims_table(comparison)),
            markdown(rates_table(comparison)),
            *(texts_section(compare(found, ON_TEXTS)) if texts else ()),
            *(_costs_section(costs) if costs else ()),
            "## What was cut",
            "",
            "The study had twice eight minutes of one GPU (an H200, then an H100), sixteen runs at a time. All seven",
            "methods have five seeds on CoLA; elsewhere n says how many there are of the five that were planned. (IA)3",
            "was not run on SST-2; of RoSA and its sparse part only the learning rates of the four other tasks were",
            "tuned. `experiments/evidence_glue_tune.yaml` and `experiments/evidence_glue.yaml` have the commands.",
            "",
            "## What the study does not answer",
            "",
            *(f"- {line}: {NOT_RUN}" for line in (*UNANSWERED, *(() if texts else ("better on E2E NLG",)))),
            "",
        ]
    )


# --- claims ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Difference:
    """A row's score less another row's."""

    name: str
    """Of the task or, where one task has several scores, of the score."""
    metric: str
    lower_is_better: bool
    paired: Paired


def claims_table(comparison: Comparison) -> Table:
    """One line per claim: the difference on each task, and a verdict."""
    rows = tuple(_line(claim, comparison, _on_tasks, len(comparison.tasks)) for claim in CLAIMS)
    lines = (
        text(_FOUND.format(what="tasks")),
        text(
            f"Verdict: {SUPPORTED} where most of the {len(comparison.tasks)} tasks have a star in the claim's "
            f"direction, {CONTRADICTED} where most have one in the other, {OPEN} otherwise; memory is the same within "
            f"{SAME:.0%}."
        ),
    )
    return Table("claims", "The claims", ("Claim", "Found", "Verdict"), rows, lines)


def texts_table(comparison: Comparison) -> Table:
    """One line per claim about generated texts: the difference in each of their scores, and a verdict."""
    task, metrics = _text_task(comparison), SCORES["e2e"]
    rows = tuple(_line(claim, comparison, _on_texts, len(metrics)) for claim in CLAIMS_ON_TEXTS)
    lines = (
        text(_FOUND.format(what="scores")),
        text(
            f"Verdict: {SUPPORTED} where most of the {len(metrics)} scores have a star in the claim's direction, "
            f"{CONTRADICTED} where most have one in the other, {OPEN} otherwise. The scores are of the same texts, so "
            "they are no independent tests."
        ),
    )
    name = formatting.TASK_NAMES.get(task.name, task.name)
    return Table("claims-texts", f"The claims, on generated texts ({name})", ("Claim", "Found", "Verdict"), rows, lines)


def texts_section(comparison: Comparison) -> list[str]:
    """The part of the page about generated texts."""
    model = ", ".join(sorted({row.model for row in comparison.rows}))
    sizes = sorted({run["params"]["total"] for run in comparison.shown if run["identity"]["method"] == "full"})
    return [
        f"On texts, the same claims with {model} ({formatting.count_range(sizes)} parameters), which the project",
        f"pretrains on the references of the training file: `experiments/{ON_TEXTS}.yaml` has the commands,",
        f"[the table](../results/tables/{ON_TEXTS}.md) the scores,",
        f"[the grid](../results/tables/{ON_TEXTS}_tune.md) the learning rates.",
        "",
        markdown(texts_table(comparison)),
    ]


def _costs_section(costs: Sequence[Line]) -> list[str]:
    """The part of the page about time and storage."""
    return [
        "The study's runs shared a GPU, so their times say nothing. `python scripts/benchmark.py costs` measures all",
        "methods side by side on a CPU: [the table](../results/tables/costs.md).",
        "",
        markdown(costs_claims(costs)),
    ]


_FOUND = (
    f"Found: the mean of paired differences over n seeds, in points, with a {1 - LEVEL:.0%} interval by Student's t. A "
    f"star: p < {LEVEL:g} after Holm's correction over the {{what}} of its line."
)


def _line(
    claim: Claim, comparison: Comparison, differ: Callable[[Row, Row, Comparison], list[Difference]], number: int
) -> tuple[Cell, ...]:
    own, other = (_row(comparison, wanted) for wanted in (claim.row, claim.against))
    if own is None or other is None:
        return Cell(claim.words), Cell(formatting.MISSING), Cell(NOT_RUN)
    if claim.quantity is not None:
        share = ratio(measured(own, claim.quantity), measured(other, claim.quantity))
        if share is None:
            return Cell(claim.words), Cell(formatting.MISSING), Cell(NOT_RUN)
        verdict = SUPPORTED if abs(share - 1) <= SAME else CONTRADICTED
        return Cell(claim.words), Cell(f"{formatting.significant(share)} times LoRA's"), Cell(verdict)
    found = differ(own, other, comparison)
    stars = _stars(found)
    written = "; ".join(_written(one, one.name in stars) for one in found)
    return Cell(claim.words), Cell(written or formatting.MISSING), Cell(verdict_of(found, number))


def verdict_of(found: Sequence[Difference], number: int) -> str:
    """Whether most of ``number`` tasks or scores differ in one direction after Holm's correction.

    Args:
        found: own scores minus the other's, for each task or score that both have.
        number: of tasks or scores in the study; those without a difference count as none.
    """
    if not found:
        return NOT_RUN
    stars = _stars(found)
    ahead = [((one.paired.difference or 0) > 0) != one.lower_is_better for one in found if one.name in stars]
    if 2 * sum(ahead) > number:
        return SUPPORTED
    return CONTRADICTED if 2 * (len(ahead) - sum(ahead)) > number else OPEN


def _on_tasks(own: Row, other: Row, comparison: Comparison) -> list[Difference]:
    """The differences of the headline on each task that both rows have."""
    found = []
    for task in comparison.tasks:
        if task.name in own.results and task.name in other.results:
            ours, theirs = (r.results[task.name].selected.scores(task.splits[0], task.metric) for r in (own, other))
            name = formatting.TASK_NAMES.get(task.name, task.name)
            paired = compare_with(other.label, ours, theirs)
            found.append(Difference(name, task.metric, task.lower_is_better, paired))
    return found


def _on_texts(own: Row, other: Row, comparison: Comparison) -> list[Difference]:
    """The differences in each score of the test split's texts."""
    task, found = _text_task(comparison), []
    for metric in SCORES["e2e"]:
        ours, theirs = (generated_scores(r.results[task.name].selected, metric, "test") for r in (own, other))
        paired = compare_with(other.label, ours, theirs)
        if paired.n:
            found.append(Difference(formatting.METRIC_NAMES[metric], metric, False, paired))
    return found


def _text_task(comparison: Comparison) -> Task:
    return next(task for task in comparison.tasks if task.kind == KIND)


def _stars(found: Sequence[Difference]) -> set[str]:
    tested = [(one.name, one.paired.p) for one in found if one.paired.p is not None]
    adjusted = holm([p for _, p in tested])
    return {name for (name, _), p in zip(tested, adjusted, strict=True) if p < LEVEL}


def _written(one: Difference, star: bool) -> str:
    if one.paired.difference is None:
        return f"{one.name} {formatting.MISSING}"
    mean = formatting.signed_score(one.paired.difference, one.metric)
    reach = " to ".join(formatting.signed_score(end, one.metric) for end in one.paired.interval or ())
    return f"{one.name} {mean}{'*' if star else ''} ({f'{reach}, ' if reach else ''}n={one.paired.n})"


def _row(comparison: Comparison, wanted: Settings) -> Row | None:
    found = [row for row in comparison.rows if all(row.settings.get(key) == value for key, value in wanted.items())]
    return found[0] if len(found) == 1 else None


# --- tuned learning rates on other seeds -----------------------------------------------------------------------------


def rates_table(comparison: Comparison) -> Table:
    """The score of each tuned learning rate in tuning (one seed) and on the other seeds."""
    rows = []
    for task in comparison.tasks:
        for row in comparison.rows:
            if task.name in row.results:
                rows.append(_rate_line(row, task))
    lines = (
        text(
            "Tuned: the score of the winning rate in tuning, on the holdout of its one seed. Seeds: the same score of "
            f"the study's runs. It does not hold where one of them is below {HELD:.0%} of it: a rate at the edge of "
            "what training bears wins on one seed and fails on another, and the differences above then speak of the "
            "rate and not of the method."
        ),
    )
    header = ("Task", "Method", "Rate", "Tuned", "Seeds", "Holds")
    return Table("rates", "Does the rate that one seed chose hold on others?", header, tuple(rows), lines)


def _rate_line(row: Row, task: Task) -> tuple[Cell, ...]:
    result = row.results[task.name]
    trial = result.selected
    # Of all runs, as those of the shown rate have no grid if it was asked for by hand.
    tuned = {
        entry["score"]
        for run in result.runs
        for entry in (run["tuning"] or {"grid": []})["grid"]
        if entry["lr"] == trial.lr
    }
    scores = [records.score(run, trial.rule) for run in trial.scored.values()]
    before = max((score for score in tuned if score is not None), default=None)
    holds = formatting.MISSING if before is None else "no" if min(scores, default=before) < HELD * before else "yes"
    return (
        Cell(formatting.TASK_NAMES.get(task.name, task.name)),
        Cell(row.label),
        Cell(formatting.rate(trial.lr)),
        Cell(formatting.MISSING if before is None else formatting.score(before, task.metric)),
        Cell(", ".join(formatting.score(score, task.metric) for score in scores) or formatting.MISSING),
        Cell(holds, bold=holds == "no"),
    )
