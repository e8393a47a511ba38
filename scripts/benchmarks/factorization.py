"""Time a resample, against a plain singular value decomposition and as a share of an epoch."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from benchmarks.contenders import RANK, Contender
from benchmarks.findings import Findings, Measurement, note, number, row, with_quartiles
from benchmarks.timing import Action, interleave, ratio, spread
from benchmarks.workload import Workload, load_model
from rosa.adapters import adapters, resample
from rosa.adapters.linalg.subspace import draw_indices
from rosa.adapters.resampling import move
from rosa.adapters.rosa import RosaLinear
from rosa.report.tables.table import Table

ROUNDS = 7
STEPS = 5
"""Training steps timed in each round, to estimate the time of an epoch."""
ALL, STEP = "all layers", "training step"


class PlainFactors(NamedTuple):
    """``weight = frozen + A @ B``, in the weight's own dtype."""

    A: Tensor
    B: Tensor
    frozen: Tensor


def factorize_by_svd(weight: Tensor, rank: int, generator: torch.Generator | None = None) -> PlainFactors:
    """Factorize by a full SVD: r singular triplets give A and B, the others W_f."""
    U, S, Vh = torch.linalg.svd(weight, full_matrices=False)
    chosen = draw_indices(len(S), rank, "random", generator).to(weight.device)
    others = torch.ones(len(S), dtype=torch.bool, device=weight.device)
    others[chosen] = False
    return PlainFactors(U[:, chosen] * S[chosen], Vh[chosen], (U[:, others] * S[others]) @ Vh[others])


def benchmark(workload: Workload, rounds: int) -> Findings:
    """Time a resample of one layer of each shape, and of all layers, with both methods."""
    contender = Contender("rosa", load_model(workload.config), workload.config)
    shapes: dict[tuple[int, int], list[RosaLinear]] = {}
    for _, adapter in adapters(contender.model):
        if isinstance(adapter, RosaLinear):
            shapes.setdefault((adapter.A.shape[0], adapter.B.shape[1]), []).append(adapter)
    generator = torch.Generator().manual_seed(workload.config.seed)
    batches = [workload.batch(number) for number in range(rounds * STEPS)]

    def ours(layer: RosaLinear) -> Action:
        return lambda _: move([layer], [layer.draw(generator)])

    def plain(layer: RosaLinear) -> Action:
        return lambda _: factorize_by_svd(layer.effective_weight().detach().float(), layer.A.shape[1], generator)

    actions: dict[str, Action] = {
        ALL: lambda _: resample(contender.model, generator=generator),
        STEP: lambda position: contender.step(batches[position]),
    }
    for shape, layers in shapes.items():
        actions[_named(shape, "resample")] = ours(layers[0])
        actions[_named(shape, "svd")] = plain(layers[0])
    for action in actions.values():
        action(0)  # the first call initializes the solver
    seconds = interleave(actions, rounds, workload.device, "factorization", {STEP: STEPS})
    return findings(seconds, {shape: len(layers) for shape, layers in shapes.items()}, workload.steps_per_epoch)


def findings(
    seconds: Mapping[str, Sequence[float]], layers: Mapping[tuple[int, int], int], steps_per_epoch: int
) -> Findings:
    """Build the table.

    Args:
        seconds: of each call, under ``ALL``, ``STEP`` and, for each shape, both methods of factorization.
        layers: the number of layers of each shape (out, in).
        steps_per_epoch: training steps in an epoch.
    """
    rows, lines = [], []
    whole_svd = [0.0] * len(seconds[ALL])
    for shape, count in layers.items():
        label = f"{shape[0]} x {shape[1]}"
        ours, plain = seconds[_named(shape, "resample")], seconds[_named(shape, "svd")]
        whole_svd = [total + count * one for total, one in zip(whole_svd, plain, strict=True)]
        rows.append(_row(label, count, ours, plain))
        lines += _lines(label, ours, plain)
    rows.append(_row(ALL, sum(layers.values()), seconds[ALL], whole_svd))
    lines += _lines(ALL, seconds[ALL], whole_svd)
    epoch = steps_per_epoch * statistics.median(seconds[STEP])
    share = statistics.median(seconds[ALL]) / epoch
    lines += [
        Measurement(STEP, "step", "s", spread(seconds[STEP])),
        Measurement(STEP, "epoch", "s", epoch),
        Measurement(ALL, "share of an epoch", "", share),
    ]
    notes = (
        note(
            f"A resample of all layers takes {number(100 * share)} % of an epoch's time ({steps_per_epoch} steps, "
            f"{number(epoch)} s by their median)."
        ),
        note(
            "A resample merges, draws, factorizes and computes W_f. The other way is torch.linalg.svd and W_f rebuilt "
            "from the other triplets, in float32; for all layers, one layer of each shape stands for all of that shape."
        ),
        note(
            f"Rank {RANK}. Interleaved; median (quartiles) of {len(seconds[ALL])}; a ratio is the median of the ratios "
            "within a round."
        ),
    )
    header = ("weight, out x in", "layers", "resample, ms", "SVD, ms", "SVD / resample")
    caption = "A move to a new subspace"
    return Findings(Table("benchmark_factorization", caption, header, tuple(rows), notes), tuple(lines))


def _named(shape: tuple[int, int], way: str) -> str:
    return f"{way} {shape[0]} x {shape[1]}"


def _row(label: str, count: int, ours: Sequence[float], plain: Sequence[float]) -> tuple:
    faster = with_quartiles(ratio(plain, ours))
    return row(label, str(count), with_quartiles(spread(ours), 1000), with_quartiles(spread(plain), 1000), faster)


def _lines(case: str, ours: Sequence[float], plain: Sequence[float]) -> list[Measurement]:
    return [
        Measurement(case, "resample", "s", spread(ours)),
        Measurement(case, "svd", "s", spread(plain)),
        Measurement(case, "svd relative to resample", "", ratio(plain, ours)),
    ]
