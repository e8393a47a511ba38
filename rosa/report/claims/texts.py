"""What training on texts did beside its scores: perplexity by epoch, what was forgotten, the change of the weights."""

from __future__ import annotations

import statistics

from rosa.report import baselines, formatting
from rosa.report.claims.changes import change_of
from rosa.report.claims.section import VERDICT, ClaimsTable, listed
from rosa.report.claims.verdicts import (
    CONTRADICTED,
    DIFFERENCE,
    LORA,
    MARGIN,
    OPEN,
    ROSA,
    SUPPORTED,
    Difference,
    mean_and_reach,
    row_of,
    verdict_of,
)
from rosa.report.comparison import Comparison, Row, Task
from rosa.report.histories import points
from rosa.report.significance import LEVEL, compare_with
from rosa.report.tables.costs import forgotten
from rosa.report.tables.generation import KIND, SCORES, generated_scores
from rosa.report.tables.table import Cell, Table, text

FORGETS = "ROSA forgets no more than LoRA"


def course(comparison: Comparison) -> list[str | Table]:
    """What explains the scores as far as the records go, and what was forgotten; nothing of what was not recorded."""
    task = next(task for task in comparison.tasks if task.kind == KIND)
    lora, rosa = row_of(comparison, LORA), row_of(comparison, ROSA)
    if lora is None or rosa is None:
        return []
    return [*_below_baselines(comparison, task), *_by_epoch(rosa, lora, task), *_forgotten(rosa, lora, task)]


def _below_baselines(comparison: Comparison, task: Task) -> list[str]:
    """In how many scores a row is not above Retrieval, and how many parameters it trains."""
    line = baselines.lines(comparison, task).get(baselines.RETRIEVAL)
    if line is None:
        return []
    told = []
    for row in comparison.rows:
        trial = row.results[task.name].selected
        behind = [
            formatting.METRIC_NAMES[metric]
            for metric in SCORES["e2e"]
            if (own := generated_scores(trial, metric, "test"))
            and (other := line.mean("test", metric)) is not None
            and statistics.fmean(own.values()) <= other
        ]
        if behind:
            told.append(f"{row.label} in {listed(behind)}")
    if not told:
        return []
    return [f"Not above Retrieval, which copies a reference of the most similar training input: {'; '.join(told)}."]


def _by_epoch(rosa: Row, lora: Row, task: Task) -> list[str | Table]:
    """How far ROSA's perplexity on dev is above LoRA's after each epoch, beside what each changed in the weights."""
    own, other = ({point.epoch: point.values for point in points(row, task, task.metric)} for row in (rosa, lora))
    epochs = sorted(own.keys() & other.keys())
    if not epochs:
        return []
    pairs = {
        epoch: Difference("", task.metric, True, compare_with(lora.label, own[epoch], other[epoch])) for epoch in epochs
    }
    written = listed(f"{mean_and_reach(one)} after epoch {epoch:g}" for epoch, one in pairs.items())
    ahead = [f"{epoch:g}" for epoch, one in pairs.items() if one.ahead]
    where = f"ahead after {len(ahead)} of the {len(epochs)} epochs" + (f" ({listed(ahead)})" if ahead else "")
    told = [
        f"**Why, as far as the records go.** ROSA's perplexity on dev less LoRA's (lower is better) is {written}: ROSA "
        f"is {where}."
    ]
    changes = [
        f"{row.label} {found}"
        for row in (lora, rosa)
        if (found := change_of(row.results[task.name].selected.scored.values()))
    ]
    rates = listed(f"{row.label} {formatting.rate(row.results[task.name].selected.lr)}" for row in (lora, rosa))
    counts = listed(
        f"{row.label} {formatting.count(run['params']['trainable'])}"
        for row in (lora, rosa)
        for run in [run for run in row.results[task.name].selected.scored.values() if run["params"]][:1]
    )
    if changes:
        told.append(f"The weights changed by (effective rank, size): {'; '.join(changes)}.")
    told.append(
        f"Learning rates: {rates}. Trained parameters: {counts}; LoRA has separate matrices for each part of GPT-2's "
        "fused attention weight, so that at one rank the two are not at one budget."
    )
    return [" ".join(told)]


def _forgotten(rosa: Row, lora: Row, task: Task) -> list[Table]:
    """The claim that ROSA forgets no more than LoRA, up to a margin; nothing where no run has measured it."""
    own, other = (
        {
            seed: value
            for seed, run in row.results[task.name].selected.scored.items()
            if (value := forgotten(run)) is not None
        }
        for row in (rosa, lora)
    )
    shared = own.keys() & other.keys()
    if not shared:
        return []
    margin = MARGIN * max(0.0, statistics.fmean(other[seed] for seed in shared))
    paired = compare_with(lora.label, own, other, -margin)
    one = Difference("", "loss", True, paired, p=paired.p, tests=1)
    means = [f"{statistics.fmean(found.values()):.3f}" for found in (other, own)]
    cells = (FORGETS, *means, mean_and_reach(one), str(paired.n), verdict_of([one]))
    note = text(
        "Nats by which the loss on a fixed text, which the task never shows, rises in training. Difference: "
        f"{DIFFERENCE.replace(', in points', '')}. No more: up to a margin of {MARGIN:.0%} of LoRA's rise, here "
        f"{margin:.3f}, which was chosen after the runs had been seen. {SUPPORTED.capitalize()} where the difference "
        f"is significantly below the margin (p < {LEVEL:g}), {CONTRADICTED} where it is significantly above, {OPEN} "
        "otherwise."
    )
    header = ("Claim", "LoRA", "ROSA", "Difference", "n", VERDICT)
    line = tuple(map(Cell, cells))
    return [ClaimsTable("claims-forgetting", "What was forgotten", header, (line,), (note,), found=((one,),))]
