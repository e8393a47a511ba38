"""Measure the ways to compute a layer with a sparse trainable part, and RoSA's step beside LoRA's at one budget."""

from __future__ import annotations

import copy
import functools
import unittest.mock
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks.contenders import RANK, Contender
from benchmarks.findings import Findings, Measurement, note, number, row, with_quartiles
from benchmarks.tensors import peak_bytes
from benchmarks.timing import Spread, interleave, ratio, spread
from benchmarks.workload import Workload, load_model
from rosa.adapters import sparse
from rosa.adapters.sparse import Support
from rosa.config import LoraConfig, MethodConfig, RobustConfig
from rosa.report.tables.table import Table
from rosa.utils.formatting import MIB
from rosa.utils.seeding import generator

ROUNDS = 7
STEPS_A_ROUND = 4
"""Of LoRA and of RoSA: a step of a small model varies more than a product."""
WIDTHS = (768, 4096)
ROWS = 512
"""Tokens in a batch."""
DENSITY = 0.006
"""Share of a weight's entries in S."""
METHODS: dict[str, MethodConfig] = {
    "lora": LoraConfig(rank=RANK, alpha=2 * RANK),
    "robust": RobustConfig(rank=RANK - 1, density=DENSITY, alpha=2 * (RANK - 1)),
}
"""The two whose steps are compared. In a layer of 384 x 384, RoSA has 6,260 parameters where LoRA has 6,144."""


@dataclass(frozen=True)
class Problem:
    """A layer, its input and its output's gradient."""

    weight: Tensor
    values: Tensor
    support: Support
    x: Tensor
    grad: Tensor

    @classmethod
    def of(cls, width: int, seed: int) -> Problem:
        """A random square layer of this width."""
        stream = generator(seed, "sparse", width)
        x, grad = (torch.randn(ROWS, width, generator=stream) for _ in range(2))
        weight = torch.randn(width, width, generator=stream) / width**0.5
        places = torch.randperm(width * width, generator=stream)[: int(DENSITY * width * width)].sort().values
        index = places.to(sparse.index_dtype((width, width)))
        return cls(weight, torch.randn(len(index), generator=stream), Support(index, (width, width)), x, grad)


Result = tuple[Tensor, Tensor, Tensor]
"""The output, the gradient of the input, and that of the values."""


def rebuilt_sampled(p: Problem) -> Result:
    """W + S is rebuilt in both passes; the gradient is sampled at S's entries. What the adapter does."""
    y = p.x @ sparse.rebuilt(p.weight, p.values, p.support).T
    return y, p.grad @ sparse.rebuilt(p.weight, p.values, p.support), sparse.sampled(p.grad, p.x, p.support)


def rebuilt_dense(p: Problem) -> Result:
    """W + S is rebuilt in both passes; the whole gradient is computed, and S's entries gathered."""
    y = p.x @ sparse.rebuilt(p.weight, p.values, p.support).T
    whole = p.grad.T @ p.x
    grad_x = p.grad @ sparse.rebuilt(p.weight, p.values, p.support)
    return y, grad_x, whole.flatten()[p.support.index.long()]


def separate_sparse(p: Problem) -> Result:
    """The products with S are separate, by torch.sparse; what the adapter does in bfloat16 and float16."""
    y = p.x @ p.weight.T + sparse.times(p.values, p.support, p.x.T).T
    grad_x = p.grad @ p.weight + sparse.transposed_times(p.values, p.support, p.grad.T).T
    return y, grad_x, sparse.sampled(p.grad, p.x, p.support)


def index_operations(p: Problem) -> Result:
    """The products with S are separate, by index_add; what the adapter does where torch.sparse has no kernels."""
    with unittest.mock.patch.object(sparse, "_has_kernels", return_value=False):
        return separate_sparse(p)


WAYS: dict[str, Callable[[Problem], Result]] = {
    "rebuilt, sampled gradient": rebuilt_sampled,
    "rebuilt, dense gradient": rebuilt_dense,
    "torch.sparse": separate_sparse,
    "index_add": index_operations,
}


def frozen(p: Problem) -> tuple[Tensor, Tensor]:
    """The layer without S: its output and the gradient of its input."""
    return p.x @ p.weight.T, p.grad @ p.weight


def _done(way: Callable[[Problem], object], problem: Problem, _: int) -> None:
    way(problem)


def benchmark(workload: Workload, rounds: int, widths: Sequence[int] = WIDTHS) -> Findings:
    """Time the ways on layers of several widths, and the steps of LoRA and RoSA on the workload's model and batches."""
    seed = workload.config.seed
    problems = {width: Problem.of(width, seed) for width in widths}
    actions: dict[str, Callable[[int], object]] = {}
    for width, problem in problems.items():
        for name, way in {"frozen": frozen, **WAYS}.items():
            actions[f"{width} {name}"] = functools.partial(_done, way, problem)
    for action in actions.values():
        action(0)
    seconds = interleave(actions, rounds, "cpu", "ways to multiply")
    peaks = {
        f"{width} {name}": peak_bytes(functools.partial(way, problem))
        for width, problem in problems.items()
        for name, way in WAYS.items()
    }
    return findings(seconds, peaks, widths, steps(workload, rounds * STEPS_A_ROUND))


@dataclass(frozen=True)
class Steps:
    """Training steps of RoSA beside LoRA's."""

    seconds: Spread
    ratio: Spread
    """To LoRA's on the same batch."""
    trainable: Mapping[str, int]
    """Parameters, by contender."""


def steps(workload: Workload, rounds: int) -> Steps:
    """Time steps on the workload's model and batches."""
    plain = load_model(workload.config)
    contenders = {
        name: Contender(name, copy.deepcopy(plain), workload.config, method=method) for name, method in METHODS.items()
    }
    batches = [workload.batch(number) for number in range(rounds)]
    for contender in contenders.values():
        for _ in range(2):
            contender.step(batches[0])

    def step(name: str, position: int) -> None:
        contenders[name].step(batches[position])

    actions = {name: functools.partial(step, name) for name in contenders}
    seconds = interleave(actions, rounds, workload.device, "steps of LoRA and RoSA")
    return Steps(
        spread(seconds["robust"]),
        ratio(seconds["robust"], seconds["lora"]),
        {name: contender.trainable_parameters for name, contender in contenders.items()},
    )


def findings(
    seconds: Mapping[str, Sequence[float]], peaks: Mapping[str, int], widths: Sequence[int], step: Steps
) -> Findings:
    """Build the table."""
    rows, lines = [], []
    for width in widths:
        base = seconds[f"{width} frozen"]
        rows.append(row(f"{width:,}", "frozen, no S", with_quartiles(spread(base), 1000), "1", "–"))
        for name in WAYS:
            case = f"{width} {name}"
            times, relative = spread(seconds[case]), ratio(seconds[case], base)
            shown = number(peaks[case] / MIB)
            rows.append(row(f"{width:,}", name, with_quartiles(times, 1000), with_quartiles(relative), shown))
            lines += [
                Measurement(case, "forward and backward", "s", times),
                Measurement(case, "relative to the frozen layer", "", relative),
                Measurement(case, "peak of its tensors", "byte", peaks[case]),
            ]
    lines += [
        Measurement("RoSA", "step", "s", step.seconds),
        Measurement("RoSA", "step relative to LoRA", "", step.ratio),
        *(Measurement(name, "trainable parameters", "", count) for name, count in step.trainable.items()),
    ]
    notes = (
        note(
            f"A square layer in float32, on the CPU, {ROWS} tokens, a density of {DENSITY}: output, gradients of the "
            "input and of the values. Interleaved; median (quartiles); a ratio is the median of the ratios within a "
            "round. Memory: the most that the tensors of the computation have at once, results included, without what "
            "kernels use inside."
        ),
        note(
            "A training step of RoSA on the workload's model and device, given below, takes "
            f"{with_quartiles(step.ratio)} times as long as one of LoRA at rank {RANK} (at most 1.25 is wanted), with "
            f"{step.trainable['robust']:,} trainable parameters where LoRA has {step.trainable['lora']:,}, the head "
            "among them."
        ),
    )
    header = ("width", "way", "forward and backward, ms", "x frozen", "memory, MiB")
    return Findings(Table("sparse", "A layer with a sparse trainable part", header, tuple(rows), notes), tuple(lines))
