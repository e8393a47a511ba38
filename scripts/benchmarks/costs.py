"""Measure each method's costs: a training step and its parts, memory, storage, factorization, latency after merging.

The same model under every method and rank, interleaved step by step on the same batches.

All of it is to take at most 10 minutes on two cores. So at the papers' shapes, where a step takes a second or two,
there are few rounds, and what moves little is measured less often: a resample three times (its quartiles are within 3 %
of the median). Only what decides a claim has a process of its own for its peak memory, or is measured in bf16 too.
"""

from __future__ import annotations

import copy
import functools
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import nn

from benchmarks.compiled import precisions
from benchmarks.contenders import LORAS, PARTS, PEFT, RANK, WANTED, Contender
from benchmarks.findings import Findings, Measurement, note, number, row, with_quartiles
from benchmarks.fitting import free_memory, possible_cases
from benchmarks.measured import Case, Measured, case_label, cases_at
from benchmarks.memory import Memory, measure_apart, of_parameters, widest
from benchmarks.pictures import picture
from benchmarks.shapes import random_model, random_texts
from benchmarks.timing import Spread, interleave, ratio, spread
from benchmarks.workload import Batch, Workload, in_precision, load_model
from rosa.adapters import adapters, resample
from rosa.config import Config
from rosa.report.tables.table import Line, Table
from rosa.utils.formatting import MIB

ROUNDS = 20
RANKS = (2, 8, 32)


@dataclass(frozen=True)
class Shape:
    """A model of :mod:`benchmarks.shapes` that is measured by default."""

    name: str
    rounds: int
    """Steps of each method: few, as one takes a second or two."""
    cases: Sequence[Case]
    peaks: Sequence[Case] = ()
    """The cases whose peak memory is measured, each in a process of its own."""
    precision: str = ""
    """Beside the run's own: only steps and memory, and only where the device multiplies in it; empty for the precision
    of the run, which is bf16 on most GPUs."""


FEW: Sequence[Case] = [("rosa", RANK), ("lora", RANK), (PEFT, RANK)]
SHAPES: Sequence[Shape] = (
    # At the other ranks only what is compared with one another, so that there is time for more rounds.
    Shape(
        "roberta-base",
        7,
        [case for case in cases_at(RANKS) if case[1] in (0, RANK) or case[0] in ("rosa", *LORAS)],
        [("rosa", RANK), ("lora", RANK), (PEFT, RANK), ("full", 0)],
    ),
    # A step in bf16 takes about half as long, and there are few methods, so there is time to tell 0.97 from 1.
    Shape("roberta-base", 15, FEW, precision="bf16"),
    Shape("roberta-base", 15, FEW, precision="fp32"),
    Shape("gpt2", 7, cases_at([RANK])),
    # All methods at once, a model each, would need more memory than many machines have.
    Shape("gpt2-medium", 4, [("rosa", RANK), ("lora", RANK), (PEFT, RANK), ("ia3", 0)]),
)
WARM_UP = 2
"""Untimed first steps of each method, which allocate the optimizer's state."""
RESAMPLES = 3
"""Timed resamples of the shapes."""


def benchmark(workload: Workload, rounds: int) -> Findings:
    """Measure the workload's model at ``RANKS``, and ``SHAPES``; of a user's model, that alone."""
    if workload.asked:
        return findings([measure_workload(workload, rounds)], "costs_{}")
    found = [measure_workload(workload, rounds)]
    found += [measure_shape(shape, workload.config, rounds) for shape in SHAPES if _possible(shape, workload.config)]
    return findings(found)


def _possible(shape: Shape, config: Config) -> bool:
    """Whether a shape has a precision that the device multiplies in, and that is not the run's anyway."""
    train = config.train
    return not shape.precision or (shape.precision != train.precision and shape.precision in precisions(train.device))


def measure_workload(workload: Workload, rounds: int, ranks: Sequence[int] = RANKS) -> Measured:
    """Measure the workload's model; memory in a fresh process for each case, on the batch with the most tokens."""
    batches = [workload.batch(number) for number in range(rounds)]
    cases, said = cases_at(ranks), list[str]()
    config, largest = workload.config, widest(workload)
    plain = load_model(config)
    if workload.asked:
        cases, said = possible_cases(plain, ranks, workload.asked, free_memory(workload.device))
    # Before the other methods' models take this process's share of the memory.
    memory = measure_apart(config, cases, largest)
    found = measure(config.model.name, plain, config, batches, cases, largest)
    return replace(found, memory=memory, steps_per_epoch=workload.steps_per_epoch, said=said)


def measure_shape(shape: Shape, config: Config, rounds: int) -> Measured:
    """Measure a model of a published shape with random weights, in at most so many rounds."""
    own = bool(shape.precision)
    config = in_precision(config, shape.precision) if own else config
    build = functools.partial(random_model, shape.name)
    device = config.train.device
    texts = [random_texts(shape.name, seed, device) for seed in range(min(rounds, shape.rounds))]
    peaks = measure_apart(config, shape.peaks, texts[0], build) if shape.peaks else {}
    name = f"{shape.name}, {shape.precision}" if own else shape.name
    plain = build(config).to(torch.device(device))  # type: ignore[arg-type]  # transformers wraps nn.Module.to
    found = measure(name, plain, config, texts, shape.cases, resamples=RESAMPLES, only_steps=own)
    return replace(found, memory={**found.memory, **peaks})


def contend(case: Case, plain: nn.Module, config: Config) -> Contender:
    """A contender made from a copy of a model."""
    return Contender(case[0], copy.deepcopy(plain), config, case[1] or RANK)


def measure(
    name: str,
    plain: nn.Module,
    config: Config,
    batches: Sequence[Batch],
    cases: Sequence[Case],
    largest: Batch | None = None,
    resamples: int | None = None,
    only_steps: bool = False,
) -> Measured:
    """Measure every case on the same batches, in this process.

    Args:
        name: the model's name, for the tables.
        plain: the model, on the device; not changed.
        config: the resolved configuration of a run.
        batches: one batch for each round, on the device.
        cases: the cases; they must include ``lora`` and ``peft`` at each rank.
        largest: the batch of which the bytes kept for the backward pass are counted; by default the first.
        resamples: the most resamples to time; by default one for each batch.
        only_steps: leave out resamples and merged models, which autocast does not concern.
    """
    device = config.train.device
    contenders = {case: contend(case, plain, config) for case in cases}
    held = {case: of_parameters(contender, batches[0]) for case, contender in contenders.items()}
    saved = {case: contender.saved_bytes(largest or batches[0]) for case, contender in contenders.items()}
    parts = time_parts(contenders, batches, device, WARM_UP - 1)  # the first step was taken above
    checkpoint = {case: contender.checkpoint_bytes() for case, contender in contenders.items()}
    stream = torch.Generator().manual_seed(config.seed)
    rosas = {rank: contender.model for (method, rank), contender in contenders.items() if method == "rosa"}
    actions = {str(rank): functools.partial(_move, model, stream) for rank, model in rosas.items()}
    moves = {} if only_steps else interleave(actions, min(resamples or len(batches), len(batches)), device, "resamples")
    at_rank = {case: contender for case, contender in contenders.items() if case[1] in (0, RANK)}
    return Measured(
        model=name,
        batch_tokens=[batch["input_ids"].numel() for batch in batches],
        parts=parts,
        trainable={case: contender.trainable_parameters for case, contender in contenders.items()},
        memory=held,
        saved=saved,
        checkpoint=checkpoint,
        moves={int(rank): taken for rank, taken in moves.items()},
        layers=len(list(adapters(next(iter(rosas.values()))))) if rosas else 0,
        merged={} if only_steps else _merged_latency(plain, at_rank, batches, device),
        device=device,
        precision=config.train.precision,
    )


def _move(model: nn.Module, stream: torch.Generator, _: int) -> None:
    resample(model, generator=stream)


def time_parts(
    contenders: Mapping[Case, Contender], batches: Sequence[Batch], device: str, warm_up: int = WARM_UP
) -> dict[Case, list[dict[str, float]]]:
    """Time the parts of each contender's step on each batch, in seconds, after so many untimed steps."""
    taken: dict[Case, list[dict[str, float]]] = {case: [] for case in contenders}

    def step(case: Case, position: int) -> None:
        taken[case].append(contenders[case].step_in_parts(batches[position]))

    _interleaved(contenders, batches, device, step, warm_up)
    return taken


def interleaved(contenders: Mapping[Case, Contender], batches: Sequence[Batch], device: str) -> dict[Case, list[float]]:
    """Time each contender's whole step on each batch, in seconds, after warm-up; no synchronization within a step."""
    return _interleaved(contenders, batches, device, lambda case, position: contenders[case].step(batches[position]))


def _interleaved(
    contenders: Mapping[Case, Contender],
    batches: Sequence[Batch],
    device: str,
    step: Callable[[Case, int], None],
    warm_up: int = WARM_UP,
) -> dict[Case, list[float]]:
    for contender in contenders.values():
        for _ in range(warm_up):
            contender.step(batches[0])
    actions = {case_label(case): functools.partial(step, case) for case in contenders}
    taken = interleave(actions, len(batches), device, "training steps")
    return {case: taken[case_label(case)] for case in contenders}


def _merged_latency(
    plain: nn.Module, contenders: Mapping[Case, Contender], batches: Sequence[Batch], device: str
) -> dict[Case, Spread]:
    """Latency of a forward pass without gradients after ``merge``, relative to the model before any method."""
    models = {case_label(case): contender.merged().eval() for case, contender in contenders.items()}
    base = "base"
    models[base] = copy.deepcopy(plain).eval()

    def forward(label: str, position: int) -> None:
        with torch.no_grad():
            models[label](**batches[position])

    for label in models:
        forward(label, 0)
    actions = {label: functools.partial(forward, label) for label in models}
    taken = interleave(actions, len(batches), device, "merged models")
    return {case: ratio(taken[case_label(case)], taken[base]) for case in contenders}


# --- tables ----------------------------------------------------------------------------------------------------------


def findings(found: Sequence[Measured], figures: str = "costs/{}") -> Findings:
    """Build the tables of time, of memory, and of what ROSA adds, and the measurements behind them.

    Args:
        found: the models.
        figures: the names of their figures, with ``{}`` for that of a model.
    """
    each = [table for measured in found for table in (_times(measured), _memory(measured))]
    tables = (*each, _moves(found), _merged(found))
    lines = tuple(line for measured in found for line in _lines(measured))
    return Findings(
        tables[0], lines, tables[1:], tuple(picture(measured, figures.format(measured.slug)) for measured in found)
    )


def _times(measured: Measured) -> Table:
    rows = []
    for case in measured.parts:
        reference, relative = measured.relative(case)
        parts = [spread([taken[part] for taken in measured.parts[case]]) for part in PARTS]
        step = measured.step(case)
        speed = statistics.median(tokens / seconds for tokens, seconds in zip(measured.batch_tokens, step, strict=True))
        rows.append(
            row(
                case_label(case),
                f"{measured.trainable[case]:,}",
                *(number(1000 * part.median) for part in parts),
                with_quartiles(spread(step), 1000),
                "1" if case == reference else with_quartiles(relative),
                f"{speed:,.0f}",
            )
        )
    notes: list[Line] = []
    for rank in [rank for name, rank in measured.parts if name == "rosa"]:
        reference, relative = measured.relative(("rosa", rank))
        notes.append(
            note(
                f"Rank {rank}: ROSA's step takes {with_quartiles(relative)} times as long as that of "
                f"{case_label(reference)}, the faster of the two LoRAs (in {measured.precision} at most "
                f"{WANTED[measured.precision]} is wanted)."
            )
        )
    count = len(next(iter(measured.parts.values())))
    tokens = " to ".join(f"{size:,}" for size in sorted({min(measured.batch_tokens), max(measured.batch_tokens)}))
    notes.append(
        note(
            f"{count} steps a method in {measured.precision}, interleaved, on the same batches of {tokens} tokens, "
            "with padding. Medians (quartiles); a ratio is the median of the ratios of steps on the same batch, to the "
            f"faster LoRA of the same rank, of rank {RANK} for methods without one. Clipping and clearing the "
            "gradients belong to the optimizer's part (fused AdamW). Trainable parameters include the head. RoSA's "
            "rank is that of the LoRA with as many parameters: half of them are low-rank, the others sparse entries, "
            "chosen at random."
        )
    )
    if measured.device == "cuda":
        notes.append(
            note(
                "On a GPU, whose clock this is: each part begins when the one before it is done, and the step is their "
                "sum. In training the host runs ahead, so whole steps may take less."
            )
        )
    notes += map(note, measured.said)
    header = ("method", "trainable", "forward, ms", "backward", "optimizer", "step", "x faster LoRA", "tokens/s")
    caption = f"{measured.model}: a training step"
    return Table(
        "costs" if measured.steps_per_epoch else f"costs_{measured.slug}", caption, header, tuple(rows), tuple(notes)
    )


def _memory(measured: Measured) -> Table:
    rows = []
    for case, held in measured.memory.items():
        parts = (held.peak, held.weights, held.gradients, held.optimizer_state, measured.saved[case], held.resample)
        shown = ["–" if part is None else number(part / MIB) for part in parts]
        rows.append(row(case_label(case), *shown, number(measured.checkpoint[case] / MIB)))
    notes: list[Line] = [
        note(
            "MiB, on the batch with the most tokens. Weights include frozen ones; saved: what the forward pass keeps "
            "for the backward pass beside the parameters. Checkpoint: the tensors that restore the trained model "
            "beside the pretrained one; ROSA's frozen parts are among them, because resampling changes them. –: not "
            "measured; the peaks need a process for each method."
        ),
        *_memory_notes(measured.memory, measured.device),
    ]
    header = ("method", "peak", "weights", "gradients", "optimizer", "saved", "peak of a resample", "checkpoint")
    name = "costs_memory" if measured.steps_per_epoch else f"costs_memory_{measured.slug}"
    return Table(name, f"{measured.model}: memory and storage", header, tuple(rows), tuple(notes))


def _memory_notes(memory: Mapping[Case, Memory], device: str) -> list[Line]:
    before = [held.before for held in memory.values() if held.before is not None]
    notes = []
    if device == "cuda" and any(held.peak is not None for held in memory.values()):
        notes.append(note("The peak is what PyTorch allocated on the GPU, where one method was measured at a time."))
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


def _moves(found: Sequence[Measured]) -> Table:
    rows = []
    for measured in found:
        for rank, seconds in measured.moves.items():
            taken = spread(seconds)
            share = "–"
            if measured.steps_per_epoch:
                epoch = measured.steps_per_epoch * statistics.median(measured.step(("rosa", rank)))
                share = f"{number(100 * taken.median / epoch)} % of {number(epoch)} s"
            rows.append(
                row(
                    f"{measured.model}, r={rank}",
                    str(measured.layers),
                    with_quartiles(taken, 1000),
                    number(1000 * taken.median / measured.layers),
                    share,
                )
            )
    header = ("model", "layers", "resample, ms", "a layer, ms", "share of an epoch")
    notes = (note("All adapted layers merged, drawn and factorized anew; medians (quartiles)."),)
    return Table("costs_resample", "What resampling adds", header, tuple(rows), notes)


def _merged(found: Sequence[Measured]) -> Table:
    rows = [
        row(measured.model, case_label(case), with_quartiles(latency))
        for measured in found
        for case, latency in measured.merged.items()
    ]
    notes = (
        note(
            "A forward pass without gradients after merge, relative to the model before any method on the same batch: "
            "median (quartiles) of the ratios. The merged models have the base's modules, so any difference is noise."
        ),
    )
    return Table("costs_merged", "Latency once merged", ("model", "method", "x base"), tuple(rows), notes)


def _lines(measured: Measured) -> list[Measurement]:
    lines = []
    for case, rounds in measured.parts.items():
        label = f"{measured.model}: {case_label(case)}"
        reference, relative = measured.relative(case)
        lines.append(Measurement(label, "trainable parameters", "", measured.trainable[case]))
        lines += [Measurement(label, part, "s", spread([taken[part] for taken in rounds])) for part in PARTS]
        lines.append(Measurement(label, "step", "s", spread(measured.step(case))))
        lines.append(Measurement(label, f"step relative to {case_label(reference)}", "", relative))
        held = measured.memory[case]
        amounts = {
            "peak memory": held.peak,
            "memory before the model": held.before,
            "weights": held.weights,
            "gradients": held.gradients,
            "optimizer state": held.optimizer_state,
            "saved for the backward pass": measured.saved[case],
            "peak memory of a resample": held.resample,
            "checkpoint": measured.checkpoint[case],
        }
        lines += [Measurement(label, kind, "byte", amount) for kind, amount in amounts.items() if amount is not None]
        if case in measured.merged:
            lines.append(Measurement(label, "latency once merged, relative to the base", "", measured.merged[case]))
    for rank, seconds in measured.moves.items():
        lines.append(Measurement(f"{measured.model}: {case_label(('rosa', rank))}", "resample", "s", spread(seconds)))
    return lines
