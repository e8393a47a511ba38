"""Measure the cost of padding: batches of similar lengths, padded to their longest, against padding to the limit."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

from benchmarks.contenders import RANK, Contender
from benchmarks.findings import Findings, Measurement, note, number, row, with_quartiles
from benchmarks.timing import interleave, spread
from benchmarks.workload import Workload, load_model
from rosa.report.tables.table import Table

ROUNDS = 3
DYNAMIC_STEPS = 20
"""Number of steps with dynamic padding for each padded step, which takes much longer."""


def benchmark(workload: Workload, rounds: int) -> Findings:
    """Time training steps of ROSA with both kinds of batches."""
    seconds = time_steps(workload, rounds)
    dynamic = [int(workload.batch(i)["input_ids"].shape[1]) for i in range(len(seconds["dynamic"]))]
    return findings(seconds, dynamic, workload.limit, workload.config.train.batch_size)


def time_steps(workload: Workload, rounds: int) -> dict[str, list[float]]:
    """Time each step in seconds: ``dynamic`` and ``padded``.

    Padded steps have no warm-up on a CPU, where each takes most of a minute and the first one's allocations are a small
    part of that.
    """
    contender = Contender("rosa", load_model(workload.config), workload.config)
    dynamic = [workload.batch(number) for number in range(rounds * DYNAMIC_STEPS)]
    padded = [workload.padded_batch(number) for number in range(rounds)]
    contender.step(dynamic[0])
    if workload.device == "cuda":
        contender.step(padded[0])
    actions = {
        "dynamic": lambda position: contender.step(dynamic[position]),
        "padded": lambda position: contender.step(padded[position]),
    }
    return interleave(actions, rounds, workload.device, "padding", {"dynamic": DYNAMIC_STEPS})


def findings(seconds: Mapping[str, Sequence[float]], dynamic: Sequence[int], limit: int, batch_size: int) -> Findings:
    """Build the table.

    Args:
        seconds: times of the steps, by kind; ``DYNAMIC_STEPS`` dynamic steps for each padded one.
        dynamic: tokens of an example, with padding, in each dynamic step.
        limit: tokens of an example, with padding, in a padded step.
        batch_size: examples in a step.
    """
    rows, lines = [], []
    for case, label, width in (
        ("dynamic", "grouped by length, padded to the longest of the batch", statistics.median(dynamic)),
        ("padded", f"every example padded to {limit}", limit),
    ):
        step = spread(seconds[case])
        speed = batch_size / step.median
        rows.append(row(label, number(width), str(step.count), with_quartiles(step, 1000), number(speed)))
        lines += [
            Measurement(case, "step", "s", step),
            Measurement(case, "examples per second", "1/s", speed),
            Measurement(case, "tokens an example", "", width),
        ]
    # Compare within a round, when the machine was in the same state.
    gains = [
        padded / statistics.median(seconds["dynamic"][i * DYNAMIC_STEPS : (i + 1) * DYNAMIC_STEPS])
        for i, padded in enumerate(seconds["padded"])
    ]
    by_medians = statistics.median(seconds["padded"]) / statistics.median(seconds["dynamic"])
    by_means = statistics.mean(seconds["padded"]) / statistics.mean(seconds["dynamic"])
    lines += [
        Measurement("padded", "step relative to dynamic, medians", "", by_medians),
        Measurement("padded", "step relative to dynamic, means", "", by_means),
        Measurement("padded", "step relative to dynamic, a round", "", spread(gains)),
    ]
    notes = (
        note(
            f"{number(by_medians)} times as many steps a second, from the medians; from the means, in which long "
            f"batches weigh as they do in an epoch, {number(by_means)} times (at least 100 is wanted on two cores "
            "with minilm and batches of 32)."
        ),
        note(
            f"Round by round, each of a padded step and {DYNAMIC_STEPS} others: {with_quartiles(spread(gains))} times."
        ),
        note(f"ROSA at rank {RANK}, batches of {batch_size}; tokens and times are medians (quartiles)."),
    )
    header = ("batches", "tokens an example", "steps timed", "step, ms", "examples/s")
    return Findings(Table("benchmark_padding", "Padding", header, tuple(rows), notes), tuple(lines))
