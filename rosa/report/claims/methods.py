"""The claims that compare methods: on the tasks of the GLUE study, and in the scores of generated texts."""

from __future__ import annotations

from collections.abc import Sequence

from rosa.report import baselines, formatting
from rosa.report.apart import apart
from rosa.report.claims import texts
from rosa.report.claims.section import VERDICT, ClaimsTable, Section, listed, model_of, protocol, study_of
from rosa.report.claims.verdicts import (
    CONTRADICTED,
    DIFFERENCE,
    FULL,
    HOLM,
    IA3,
    LORA,
    NEVER,
    OPEN,
    RANK,
    ROBUST,
    ROSA,
    SPARSE,
    SUPPORTED,
    UNCORRECTED,
    Claim,
    Difference,
    corrected,
    detectable,
    difference_on,
    margin_to,
    mean_and_reach,
    on_detectable,
    on_margins,
    rows_of,
    verdict_of,
)
from rosa.report.comparison import Comparison, Row, Task
from rosa.report.significance import LEVEL, compare_with
from rosa.report.tables.footnotes import Footnotes
from rosa.report.tables.generation import KIND, SCORES, generated_scores
from rosa.report.tables.table import Cell, Line, Table, text

EXPERIMENT = "evidence_glue"
ON_TEXTS, WITH_LARGER = "e2e_real", "evidence_e2e"
"""The experiments whose generated texts are compared: with a small model, and with a larger one."""

BETWEEN_METHODS = (
    Claim("ROSA is as good as full fine-tuning", ROSA, FULL, as_good=True),
    Claim("ROSA is better than (IA)3", ROSA, IA3),
    Claim("LoRA is as good as full fine-tuning", LORA, FULL, as_good=True),
    Claim("RoSA (robust adaptation) is better than LoRA at its budget", ROBUST, LORA),
    Claim("RoSA is better than its sparse part alone", ROBUST, SPARSE),
    Claim("RoSA is as good as full fine-tuning", ROBUST, FULL, as_good=True),
    Claim("ROSA is better than RoSA", ROSA, ROBUST),
)
ON_TASKS = (
    Claim("ROSA is better than LoRA on most GLUE tasks", ROSA, LORA),
    Claim("A new subspace each epoch is better than the first one kept", ROSA, NEVER),
    Claim("The SVD initialisation alone is better than LoRA's", NEVER, LORA),
    *BETWEEN_METHODS,
)
IN_TEXTS = (
    Claim("ROSA is better than LoRA", ROSA, LORA),
    Claim("ROSA is better than LoRA at rank 2", ROSA | {RANK: 2}, LORA | {RANK: 2}),
    *BETWEEN_METHODS,
)


def tasks_section(comparison: Comparison) -> Section:
    """The claims on GLUE's tasks, with the differences from LoRA as a figure."""
    return Section(
        "On GLUE's tasks",
        (
            f"{model_of(comparison)} on real GLUE files: {protocol(comparison)}. [Scores and commands]"
            f"(../results/tables/{EXPERIMENT}.md), [learning-rate grids](../results/tables/{EXPERIMENT}_tune.md), "
            f"[every difference from LoRA with its p-value](../results/tables/{EXPERIMENT}_differences.md), which the "
            "figure shows at a glance:",
            f"![differences from LoRA](../results/figures/{EXPERIMENT}/minilm-differences.svg)",
            tasks_table(comparison),
            *below_words(comparison),
        ),
        study_of(comparison, "GLUE"),
    )


def texts_section(comparison: Comparison) -> Section:
    """The claims in the scores of generated texts, those about rows that were run."""
    made = [facts for run in comparison.shown if (facts := run["model"].get("pretraining"))]
    on_glue = any("glue_sha256" in facts.get("text", {}) for facts in made)
    sources = "the references of the training file" + (" and GLUE's sentences" if on_glue else "")
    name = comparison.experiment
    return Section(
        "On generated texts" + (", with a larger model" if name == WITH_LARGER else ""),
        (
            f"The same claims with {model_of(comparison)}, which the project pretrains on {sources}: "
            f"{protocol(comparison)}. [Scores and commands](../results/tables/{name}.md), [learning-rate "
            f"grids](../results/tables/{name}_tune.md), [what each row costs](../results/tables/{name}_costs.md).",
            texts_table(comparison),
            *texts.course(comparison),
            f"![scores against what they cost](../results/figures/{name}/{comparison.rows[0].model}-quality.svg)",
        ),
        study_of(comparison),
    )


def tasks_table(comparison: Comparison) -> Table:
    """One line per claim: the difference on each task, corrected over the whole table, and a verdict."""
    found = corrected([[difference_on(comparison, claim, task) for task in comparison.tasks] for claim in ON_TASKS])
    footnotes = Footnotes()
    rows = [
        (Cell(claim.words), *(difference_cell(one, footnotes) for one in line), Cell(verdict_of(line)))
        for claim, line in zip(ON_TASKS, found, strict=True)
    ]
    names = [formatting.task_name(task.name) for task in comparison.tasks]
    verdict = (
        f"{SUPPORTED} where most of the {len(names)} tasks have a {HOLM} in the claim's direction, {CONTRADICTED} "
        f"where most have one in the other, {OPEN} otherwise"
    )
    header, notes = ("Claim", *names, VERDICT), _notes(found, footnotes, verdict)
    return ClaimsTable("claims", "The claims", header, tuple(rows), notes, found=tuple(map(tuple, found)), each="tasks")


def below_words(comparison: Comparison) -> list[str]:
    """The tasks on which rows are not above the best baseline, which tell little; nothing without baselines."""
    told = []
    for task in comparison.tasks:
        place = (task.splits[0], task.metric)
        behind = [
            row.label
            for row in comparison.rows
            if task.name in row.results
            and (trial := row.results[task.name].selected).scored
            and baselines.not_above(comparison, trial, task, trial.scores(*place).values(), place)
        ]
        if behind:
            told.append(
                f"{len(behind)} of {sum(task.name in row.results for row in comparison.rows)} rows on "
                f"{formatting.task_name(task.name)} ({'; '.join(behind)})"
            )
    if not told:
        return []
    return [
        "Not above the best baseline without a pretrained model (a constant answer, a bag of words) are "
        f"{', '.join(told)}. Where that is most rows, the task tells nothing about the methods."
    ]


def texts_table(comparison: Comparison) -> Table:
    """One line per claim about generated texts: the difference in each of their scores, and a verdict by the first.

    The scores are of the same texts, so that the first alone is tested.
    """
    task = next(task for task in comparison.tasks if task.kind == KIND)
    pairs = ((claim, rows_of(comparison, claim)) for claim in IN_TEXTS)
    found = [(claim, _in_texts(comparison, claim, pair, task)) for claim, pair in pairs if pair is not None]
    tested = corrected([line[:1] for _, line in found])
    footnotes = Footnotes()
    rows = [
        (Cell(claim.words), *(difference_cell(one, footnotes) for one in (*first, *line[1:])), Cell(verdict_of(first)))
        for (claim, line), first in zip(found, tested, strict=True)
    ]
    names = [formatting.METRIC_NAMES[metric] for metric in SCORES["e2e"]]
    verdict = (
        f"by {names[0]} alone, the score that the papers lead with, as all {len(names)} are of the same texts: "
        f"{SUPPORTED} where it has a {HOLM} in the claim's direction, {CONTRADICTED} where it has one in the other, "
        f"{OPEN} otherwise"
    )
    lines = _notes(tested, footnotes, verdict, tuning_seeds(comparison))
    caption = f"The claims, on generated texts ({formatting.task_name(task.name)})"
    name, header = f"claims-texts-{comparison.experiment}", ("Claim", *names, VERDICT)
    return ClaimsTable(name, caption, header, tuple(rows), lines, found=tuple(map(tuple, tested)))


def _notes(
    tested: Sequence[Sequence[Difference | None]], footnotes: Footnotes, verdict: str, further: Sequence[Line] = ()
) -> tuple[Line, ...]:
    """The notes of a table of claims; ``further`` ones come before the rule of the verdict."""
    known = [one for line in tested for one in line if one is not None]
    rule = text(f"Verdict: {verdict}. {UNCORRECTED}")
    return (legend(known), *map(text, footnotes.lines()), *further, rule, *on_margins(known))


def legend(known: Sequence[Difference]) -> Line:
    """What :func:`difference_cell` writes of a table's differences."""
    tests = max((one.tests or 0 for one in known), default=0)
    return text(
        f"A cell: {DIFFERENCE}; in brackets n, after {on_detectable(known)}. {HOLM}: p < {LEVEL:g} after Holm's "
        f"correction over the table's tests ({tests}). {formatting.MISSING}: not run."
    )


def tuning_seeds(comparison: Comparison) -> list[Line]:
    """Which of the seeds that are compared also chose the learning rates; nothing where none did."""
    compared = {run["identity"]["seed"] for run in comparison.shown}
    chose = sorted(compared & {run["tuning"]["seed"] for run in comparison.shown if run["tuning"]})
    named = f"seed{'s' * (len(chose) > 1)} {listed(map(str, chose))}"
    return [text(f"The runs of {named}, which are compared here, also chose the learning rates.")] if chose else []


def difference_cell(one: Difference | None, footnotes: Footnotes) -> Cell:
    """A difference; with what could be detected where it is tested."""
    if one is None:
        return Cell(formatting.MISSING)
    reach = "" if one.paired.interval is None or one.tests is None else f"{detectable(one)}, "
    return Cell(
        f"{mean_and_reach(one, HOLM if one.counts else '')} ({reach}n={one.paired.n})",
        marks=tuple(map(footnotes.mark, one.apart)),
    )


def _in_texts(comparison: Comparison, claim: Claim, rows: tuple[Row, Row], task: Task) -> list[Difference | None]:
    """The difference of two rows in each score of the test split's texts."""
    found: list[Difference | None] = []
    for metric in SCORES["e2e"]:
        own, other = (generated_scores(row.results[task.name].selected, metric, "test") for row in rows)
        margin = margin_to(comparison, task, own, other, ("test", metric)) if claim.as_good else 0.0
        paired = compare_with(rows[1].label, own, other, margin)
        one = Difference(formatting.METRIC_NAMES[metric], metric, False, paired, apart(*rows, task))
        found.append(one if paired.n else None)
    return found
