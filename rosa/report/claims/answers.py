"""One sentence for each question of the paper's reviewers, made from the numbers of the tables that answer it."""

from __future__ import annotations

import math
from collections.abc import Sequence

from rosa.report import formatting
from rosa.report.benchmarked import FULL, LORA, ROSA, Line, ratios, values
from rosa.report.claims import verdicts
from rosa.report.claims.convergence import converged
from rosa.report.claims.convergence import fluctuation as over_seeds
from rosa.report.claims.costs import to_faster_lora, to_full
from rosa.report.comparison import Comparison


def convergence(comparison: Comparison) -> str:
    """On how many tasks ROSA, LoRA and full fine-tuning come to the target of the convergence table."""
    counts = []
    for name, wanted in (("ROSA", verdicts.ROSA), ("LoRA", verdicts.LORA), ("full fine-tuning", verdicts.FULL)):
        row = verdicts.row_of(comparison, wanted)
        epochs = [converged(comparison, row, task) for task in comparison.tasks] if row else []
        known = [epoch for epoch in epochs if epoch is not None]
        if known:
            counts.append(f"{name} on {sum(map(math.isfinite, known))} of {len(known)} tasks")
    if not counts:
        return ""
    return f"Counted here is who comes near full fine-tuning's last score at all: {', '.join(counts)}."


def fluctuation(comparison: Comparison) -> str:
    """On how many tasks ROSA's deviation is smaller than LoRA's, and than full fine-tuning's."""
    own = _deviations(comparison, verdicts.ROSA)
    counts = []
    for name, wanted in (("LoRA's", verdicts.LORA), ("full fine-tuning's", verdicts.FULL)):
        other = _deviations(comparison, wanted)
        pairs = [(own[task], other[task]) for task in own if task in other]
        if pairs:
            counts.append(f"smaller than {name} on {sum(a < b for a, b in pairs)} of {len(pairs)} tasks")
    return f"ROSA's deviation is {' and '.join(counts)}." if counts else ""


def storage(lines: Sequence[Line]) -> str:
    """A checkpoint relative to full fine-tuning's and LoRA's, and what a step takes."""
    own = values(lines, ROSA, "checkpoint")
    to_full_size, to_lora_size = (list(ratios(own, values(lines, one, "checkpoint")).values()) for one in (FULL, LORA))
    full, lora = (list(of(lines).values()) for of in (to_full, to_faster_lora))
    if not (to_full_size and to_lora_size and full and lora):
        return ""
    return (
        f"ROSA's checkpoint, the tensors that restore the trained model beside the pretrained one, has "
        f"{_range(to_full_size)} times the bytes of full fine-tuning's, and {_range(to_lora_size)} times those of "
        f"LoRA's. Its step takes {_range(full)} of full fine-tuning's time, and {_range(lora)} of the "
        "faster LoRA's, where less than 1 is a gain."
    )


def _deviations(comparison: Comparison, wanted: verdicts.Settings) -> dict[str, float]:
    """Task -> the deviation of a row's scores; without tasks that have none, and empty without the row."""
    row = verdicts.row_of(comparison, wanted)
    found = {task.name: over_seeds(comparison, row, task) for task in comparison.tasks if row}
    return {task: one.deviation for task, one in found.items() if one and one.deviation is not None}


def _range(found: Sequence[float]) -> str:
    low, high = formatting.significant(min(found)), formatting.significant(max(found))
    return low if low == high else f"{low} to {high}"
