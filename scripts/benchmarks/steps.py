"""Measure time and memory of training steps of every method on the same batches."""

from __future__ import annotations

import copy
import functools
import statistics
from collections.abc import Mapping, Sequence

from benchmarks.contenders import LABELS, LORAS, RANK, Contender
from benchmarks.findings import Findings, Measurement, note, number, row, with_quartiles
from benchmarks.memory import Memory, measure_apart
from benchmarks.timing import interleave, ratio, spread
from benchmarks.workload import Batch, Workload, load_model
from rosa.report.tables.table import Line, Table

ROUNDS = 40
WARM_UP = 2
"""Steps of each method before the first that counts: they allocate the optimizer's state."""
MIB = 2**20


def benchmark(workload: Workload, rounds: int) -> Findings:
    """Time a training step of each method, and measure its memory."""
    seconds, trainable = time_steps(workload, rounds)
    return findings(seconds, trainable, measure_apart(workload))


def time_steps(workload: Workload, rounds: int) -> tuple[dict[str, list[float]], dict[str, int]]:
    """Time a step of each method in each round, in seconds; also return the trainable parameters, by method.

    In a round every method takes a step on the same batch; each round has a different batch.
    """
    plain = load_model(workload.config)
    contenders = {name: Contender(name, copy.deepcopy(plain), workload.config) for name in LABELS}
    batches = [workload.batch(number) for number in range(rounds)]
    seconds = interleaved(contenders, batches, workload.device)
    return seconds, {name: contender.trainable_parameters for name, contender in contenders.items()}


def interleaved(contenders: Mapping[str, Contender], batches: Sequence[Batch], device: str) -> dict[str, list[float]]:
    """Time each contender's step on each batch, in seconds, after its warm-up."""
    for contender in contenders.values():
        for _ in range(WARM_UP):
            contender.step(batches[0])

    def step(name: str, position: int) -> None:
        contenders[name].step(batches[position])

    actions = {name: functools.partial(step, name) for name in contenders}
    return interleave(actions, len(batches), device, "training steps")


def findings(
    seconds: Mapping[str, list[float]], trainable: Mapping[str, int], memory: Mapping[str, Memory]
) -> Findings:
    """Build the table: times, ratios to the faster of the two LoRAs, memory."""
    reference = min(LORAS, key=lambda name: statistics.median(seconds[name]))
    rows, lines = [], []
    for name, label in LABELS.items():
        step, relative, held = spread(seconds[name]), ratio(seconds[name], seconds[reference]), memory[name]
        parts = (held.peak, held.weights, held.gradients, held.optimizer_state)
        mebibytes = ["unknown" if part is None else number(part / MIB) for part in parts]
        shown_ratio = "1" if name == reference else with_quartiles(relative)
        rows.append(row(label, f"{trainable[name]:,}", with_quartiles(step, 1000), shown_ratio, *mebibytes))
        lines += [
            Measurement(name, "trainable parameters", "", trainable[name]),
            Measurement(name, "step", "s", step),
            Measurement(name, f"step relative to {reference}", "", relative),
        ]
        kinds = ("peak memory", "weights", "gradients", "optimizer state")
        lines += [
            Measurement(name, kind, "byte", part) for kind, part in zip(kinds, parts, strict=True) if part is not None
        ]
        if held.before is not None:
            lines.append(Measurement(name, "memory before the model", "byte", held.before))
    count = len(seconds[reference])
    relative = ratio(seconds["rosa"], seconds[reference])
    notes = [
        note(
            f"ROSA's step takes {with_quartiles(relative)} times as long as that of {LABELS[reference]}, the faster of "
            "the two LoRAs (at most 1.00 is wanted)."
        ),
        note(
            f"A step is forward, backward, clipping, fused AdamW and clearing of the gradients. {count} steps a method,"
            " interleaved; median (quartiles); a ratio is the median of the ratios of steps on the same batch."
        ),
        note("Trainable parameters include the head. Memory in MiB; weights include frozen ones."),
        *_memory_notes(memory),
    ]
    header = ("method", "trainable", "step, ms", "x faster LoRA", "peak", "weights", "gradients", "optimizer")
    caption = f"A training step of each method at rank {RANK}"
    return Findings(Table("benchmark_steps", caption, header, tuple(rows), tuple(notes)), tuple(lines))


def _memory_notes(memory: Mapping[str, Memory]) -> list[Line]:
    before = [held.before for held in memory.values() if held.before is not None]
    notes = []
    if before:
        notes.append(
            note(
                "The peak is the resident memory of a process that does nothing else; Python and its libraries had "
                f"{number(statistics.median(before) / MIB)} MiB of it before the model was loaded."
            )
        )
    if not all(held.reset for held in memory.values()):
        notes.append(note("This system cannot reset a process's peak: it may be that of loading the model."))
    return notes
