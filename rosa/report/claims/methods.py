"""The claims that compare methods: on the tasks of the GLUE study, and in the scores of generated texts."""

from __future__ import annotations

from collections.abc import Sequence

from rosa.report import formatting
from rosa.report.claims.section import VERDICT, Section, protocol
from rosa.report.claims.verdicts import (
    AS_GOOD,
    CONTRADICTED,
    DETECTABLE,
    DIFFERENCE,
    FULL,
    IA3,
    LORA,
    NEVER,
    OPEN,
    ROBUST,
    ROSA,
    SPARSE,
    SUPPORTED,
    Claim,
    Difference,
    detectable,
    difference_on,
    mean_and_reach,
    rows_of,
    significant,
    verdict_of,
)
from rosa.report.comparison import Comparison, Row, Task
from rosa.report.significance import LEVEL, compare_with
from rosa.report.tables.generation import KIND, SCORES, generated_scores
from rosa.report.tables.notes import text
from rosa.report.tables.table import Cell, Line, Table

EXPERIMENT = "evidence_glue"
ON_TEXTS, WITH_LARGER = "e2e_real", "evidence_e2e"
"""The experiments whose generated texts are compared: with a small model, and with a larger one."""

BETWEEN_METHODS = (
    Claim("ROSA is as good as full fine-tuning", ROSA, FULL),
    Claim("ROSA is better than (IA)3", ROSA, IA3),
    Claim("RoSA (robust adaptation) is better than LoRA at its budget", ROBUST, LORA),
    Claim("RoSA is better than its sparse part alone", ROBUST, SPARSE),
    Claim("RoSA is as good as full fine-tuning", ROBUST, FULL),
    Claim("ROSA is better than RoSA", ROSA, ROBUST),
)
ON_TASKS = (
    Claim("ROSA is better than LoRA on most GLUE tasks", ROSA, LORA),
    Claim("A new subspace each epoch is better than the first one kept", ROSA, NEVER),
    Claim("The SVD initialisation alone is better than LoRA's", NEVER, LORA),
    *BETWEEN_METHODS,
)
IN_TEXTS = (Claim("ROSA is better than LoRA", ROSA, LORA), *BETWEEN_METHODS)


def tasks_section(comparison: Comparison) -> Section:
    """The claims on GLUE's tasks, with the differences from LoRA as a figure."""
    model = ", ".join(sorted({row.model for row in comparison.rows}))
    return Section(
        "On GLUE's tasks",
        (
            f"{model} on real GLUE files: {protocol(comparison)}. [Scores and commands]"
            f"(../results/tables/{EXPERIMENT}.md), [learning-rate grids](../results/tables/{EXPERIMENT}_tune.md), "
            f"[every difference from LoRA with its p-value](../results/tables/{EXPERIMENT}_differences.md), which the "
            "figure shows at a glance:",
            f"![differences from LoRA](../results/figures/{EXPERIMENT}/minilm-differences.svg)",
            tasks_table(comparison),
        ),
    )


def texts_section(comparison: Comparison) -> Section:
    """The claims in the scores of generated texts, those about rows that were run."""
    model = ", ".join(sorted({row.model for row in comparison.rows}))
    made = [facts for run in comparison.shown if (facts := run["model"].get("pretraining"))]
    sizes = sorted({facts["parameters"] for facts in made})
    on_glue = any("glue_sha256" in facts["text"] for facts in made)
    sources = "the references of the training file" + (" and GLUE's sentences" if on_glue else "")
    name = comparison.experiment
    return Section(
        "On generated texts" + (", with a larger model" if name == WITH_LARGER else ""),
        (
            f"The same claims with {model} ({formatting.count_range(sizes)} parameters), which the project pretrains "
            f"on {sources}: {protocol(comparison)}. [Scores and commands](../results/tables/{name}.md), "
            f"[learning-rate grids](../results/tables/{name}_tune.md), [what each row "
            f"costs](../results/tables/{name}_costs.md).",
            texts_table(comparison),
        ),
    )


def tasks_table(comparison: Comparison) -> Table:
    """One line per claim: the difference on each task, and a verdict."""
    rows = []
    for claim in ON_TASKS:
        found = [difference_on(comparison, claim, task) for task in comparison.tasks]
        rows.append(_line(claim, found))
    names = [formatting.TASK_NAMES.get(task.name, task.name) for task in comparison.tasks]
    return Table(
        "claims", "The claims", ("Claim", *names, VERDICT), tuple(rows), _notes("tasks", len(names), text(AS_GOOD))
    )


def texts_table(comparison: Comparison) -> Table:
    """One line per claim about generated texts: the difference in each of their scores, and a verdict."""
    task = next(task for task in comparison.tasks if task.kind == KIND)
    found = ((claim, rows_of(comparison, claim)) for claim in IN_TEXTS)
    rows = [_line(claim, _in_texts(pair, task)) for claim, pair in found if pair is not None]
    names = [formatting.METRIC_NAMES[metric] for metric in SCORES["e2e"]]
    lines = _notes("scores", len(names), text("The scores are of the same texts, so they are no independent tests."))
    caption = f"The claims, on generated texts ({formatting.TASK_NAMES.get(task.name, task.name)})"
    return Table(f"claims-texts-{comparison.experiment}", caption, ("Claim", *names, VERDICT), tuple(rows), lines)


def _notes(what: str, number: int, last: Line) -> tuple[Line, ...]:
    return (
        text(
            f"A cell: {DIFFERENCE}; in brackets {DETECTABLE}, and n. A star: p < {LEVEL:g} after Holm's correction "
            f"over the {what} of its line. {formatting.MISSING}: not run."
        ),
        text(
            f"Verdict: {SUPPORTED} where most of the {number} {what} have a star in the claim's direction, "
            f"{CONTRADICTED} where most have one in the other, {OPEN} otherwise."
        ),
        last,
    )


def _line(claim: Claim, found: Sequence[Difference | None]) -> tuple[Cell, ...]:
    known = [one for one in found if one is not None]
    stars = {one.name for one, star in zip(known, significant(known), strict=True) if star}
    cells = [Cell(_written(one, one.name in stars) if one else formatting.MISSING) for one in found]
    return Cell(claim.words), *cells, Cell(verdict_of(known, len(found)))


def _written(one: Difference, star: bool) -> str:
    reach = "" if one.paired.interval is None else f"{detectable(one)}, "
    return f"{mean_and_reach(one, star)} ({reach}n={one.paired.n})"


def _in_texts(rows: tuple[Row, Row], task: Task) -> list[Difference | None]:
    """The difference of two rows in each score of the test split's texts."""
    found: list[Difference | None] = []
    for metric in SCORES["e2e"]:
        ours, theirs = (generated_scores(row.results[task.name].selected, metric, "test") for row in rows)
        paired = compare_with(rows[1].label, ours, theirs)
        found.append(Difference(formatting.METRIC_NAMES[metric], metric, False, paired) if paired.n else None)
    return found
