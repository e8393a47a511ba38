"""Time the factorization of the paper's two base models, against singular value decompositions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from benchmarks.contenders import RANK
from benchmarks.factorization import PlainFactors, factorize_by_svd
from benchmarks.findings import Findings, Measurement, note, row, with_quartiles
from benchmarks.timing import Action, interleave, ratio, spread
from benchmarks.workload import Workload
from rosa.adapters.linalg.subspace import draw_indices, exactness, factorize_along, layers_at_once
from rosa.report.tables.table import Table

ROUNDS = 7

Shape = tuple[int, int]

MODELS: dict[str, dict[Shape, int]] = {
    "RoBERTa-base": {(768, 768): 48},
    "GPT-2 small": {(2304, 768): 12, (768, 768): 12},
}
"""Number of layers that ROSA adapts, by model and shape (out, in)."""
WAYS = {"ours": "ours", "svd32": "SVD, float32", "svd64": "SVD, float64"}
"""The methods of factorizing, with their names in tables."""


class Case(NamedTuple):
    """Layers of one model and their times on one number of threads."""

    label: str
    layers: int
    threads: int | None
    """Of the CPU; None on a GPU."""
    seconds: Mapping[str, Sequence[float]]
    """Seconds for all of these layers, by method: one value for each round."""


def random_weight(shape: Shape, generator: torch.Generator) -> Tensor:
    """A random float32 weight with about the spectrum width of a trained one: normal, columns scaled from 1 to 1/10."""
    return torch.randn(shape, generator=generator) * torch.logspace(0, -1, shape[1])


def factorize_by_ours(weights: Tensor, indices: Tensor) -> PlainFactors:
    """Factorize a stack of weights by :func:`factorize_along`; the factors and W_f are float64."""
    A, B = factorize_along(weights, indices)
    return PlainFactors(A, B, torch.baddbmm(weights.double(), A, B, alpha=-1))


def benchmark(
    workload: Workload, rounds: int, models: Mapping[str, Mapping[Shape, int]] = MODELS, rank: int = RANK
) -> Findings:
    """Time every shape with each method, on the CPU on one thread and on PyTorch's number of threads.

    The workload gives the device and the seed; the weights are random, with the shapes of ``models``.
    """
    device = torch.device(workload.device)
    shapes = list(dict.fromkeys(shape for layers in models.values() for shape in layers))
    cases, errors = [], dict.fromkeys(WAYS, 0.0)
    each = sorted({1, torch.get_num_threads()}) if device.type == "cpu" else [None]
    for threads in each:
        with limited_to(threads):
            title = f"solvers{_on(threads)}"
            seconds = _time(shapes, device, workload.config.seed, rounds, rank, errors, title)
        cases += [Case(_named(shape), 1, threads, seconds[shape]) for shape in shapes]
        cases += [
            Case(model, sum(layers.values()), threads, {way: _sum(layers, seconds, way) for way in WAYS})
            for model, layers in models.items()
        ]
    return findings(cases, errors, rank)


def findings(cases: Sequence[Case], errors: Mapping[str, float], rank: int) -> Findings:
    """Build the table.

    Args:
        cases: the timed cases.
        errors: for each method, the largest relative difference between a weight and ``W_f + A B``.
        rank: r.
    """
    rows, lines = [], []
    for case in cases:
        faster = {way: ratio(case.seconds[way], case.seconds["ours"]) for way in ("svd32", "svd64")}
        rows.append(
            row(
                case.label,
                str(case.layers),
                "–" if case.threads is None else str(case.threads),
                *(with_quartiles(spread(case.seconds[way]), 1000) for way in WAYS),
                *(with_quartiles(one) for one in faster.values()),
            )
        )
        name = f"{case.label}{_on(case.threads)}"
        lines += [Measurement(name, WAYS[way], "s", spread(case.seconds[way])) for way in WAYS]
        lines += [Measurement(name, f"{WAYS[way]} relative to ours", "", one) for way, one in faster.items()]
    lines += [Measurement(WAYS[way], "relative difference", "", error) for way, error in errors.items()]
    notes = (
        note(
            "Ours: A, B and W_f in float64 by rosa.adapters.linalg.subspace.factorize_along. SVD: torch.linalg.svd in "
            "the weight's own float32, or in float64, and W_f rebuilt from the other triplets."
        ),
        note(
            "Random weights, normal with columns scaled from 1 down to 1/10; other ones each round. A model's time is "
            "that of a layer of each shape times their number."
        ),
        note(
            f"Largest |W_f + A B - W| / |W|: {', '.join(f'{WAYS[way]} {error:.1e}' for way, error in errors.items())}."
        ),
        note(
            f"Rank {rank}. Interleaved; median (quartiles) of {len(cases[0].seconds['ours'])}; a ratio is the median "
            "of the ratios within a round."
        ),
    )
    header = ("layers", "count", "threads", *(f"{label}, ms" for label in WAYS.values()), "float32 / ours")
    caption = "Factorizing the attention layers of the paper's models"
    return Findings(Table("benchmark_solvers", caption, (*header, "float64 / ours"), tuple(rows), notes), tuple(lines))


def _on(threads: int | None) -> str:
    return "" if threads is None else f", {threads} threads"


@contextmanager
def limited_to(threads: int | None) -> Iterator[None]:
    """Run a block with this number of PyTorch threads, or as many as there are, then restore the previous number."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _time(
    shapes: Sequence[Shape],
    device: torch.device,
    seed: int,
    rounds: int,
    rank: int,
    errors: dict[str, float],
    title: str,
) -> dict[Shape, dict[str, list[float]]]:
    """Seconds for a layer of each shape with each method, by round; updates the largest ``errors`` in place."""
    generator = torch.Generator().manual_seed(seed)
    # One extra call, which initializes the solvers and is not counted.
    weights = {
        shape: [
            torch.stack([random_weight(shape, generator) for _ in range(layers_at_once(*shape, device))]).to(device)
            for _ in range(rounds + 1)
        ]
        for shape in shapes
    }
    indices = {
        shape: torch.stack([draw_indices(min(shape), rank, "random", generator) for _ in stacks[0]])
        for shape, stacks in weights.items()
    }

    def factorize(shape: Shape, way: str, position: int) -> PlainFactors:
        stack = weights[shape][position]
        if way == "ours":
            return factorize_by_ours(stack, indices[shape])
        return factorize_by_svd(stack[0] if way == "svd32" else stack[0].double(), rank, generator)

    actions: dict[str, Action] = {
        f"{_named(shape)} {way}": partial(factorize, shape, way) for shape in shapes for way in WAYS
    }
    for shape in shapes:
        for way in WAYS:
            done = factorize(shape, way, rounds)
            stack = weights[shape][rounds]
            weight = stack if way == "ours" else stack[0]
            errors[way] = max(errors[way], exactness(weight, done.frozen, done.A, done.B))
    seconds = interleave(actions, rounds, device.type, title)
    return {
        shape: {
            # The stack holds many layers on a GPU, and one layer per thread on the CPU.
            way: [one / (len(indices[shape]) if way == "ours" else 1) for one in seconds[f"{_named(shape)} {way}"]]
            for way in WAYS
        }
        for shape in shapes
    }


def _sum(layers: Mapping[Shape, int], seconds: Mapping[Shape, Mapping[str, Sequence[float]]], way: str) -> list[float]:
    """Seconds for all of a model's layers, round by round."""
    rounds = zip(*(seconds[shape][way] for shape in layers), strict=True)
    return [sum(count * one for count, one in zip(layers.values(), taken, strict=True)) for taken in rounds]


def _named(shape: Shape) -> str:
    return f"{shape[0]} x {shape[1]}"
