"""Measure one adapted layer alone, forward and backward, beside the same layer under LoRA.

In a whole model's step most of the time goes to what no method changes, so it says little about the adapter. As
training does, a layer computes its output and the gradients of its input and of its factors. In bf16 only where the
device multiplies in bfloat16.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.compiled import precisions
from benchmarks.contenders import LABELS, LORAS, WANTED, own_method, with_peft
from benchmarks.costs import RANKS
from benchmarks.findings import Findings, Measurement, note, row, with_quartiles
from benchmarks.timing import interleave, ratio, spread
from benchmarks.workload import Workload
from rosa.adapters import attach
from rosa.report.tables.table import Table
from rosa.utils.seeding import generator

ROUNDS = 40
WIDTHS = (768, 1024)
"""Of RoBERTa-base and GPT-2 medium."""
TOKENS = 1024
"""In a batch."""
FROZEN = "frozen"
METHODS = (FROZEN, "rosa", *LORAS)
WARM_UP = 3

Case = tuple[int, str, int, str]
"""Width, precision, rank and method."""


class Layer(nn.Module):
    """A square layer under a name that every method adapts.

    Args:
        width: inputs, and outputs.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.attention = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """The layer's output, (tokens, width)."""
        return self.attention(x)


def adapted(method: str, width: int, rank: int, seed: int) -> nn.Module:
    """A layer of random weights under one of ``METHODS``; its weights are the same for all of them."""
    torch.manual_seed(seed)
    plain = Layer(width)
    if method == FROZEN:
        return plain.requires_grad_(False)
    if method in LORAS[1:]:
        wrapped: Any = with_peft(plain, rank, dora=False)
        unwrapped: nn.Module = wrapped.get_base_model()  # PEFT's wrapper of the model takes time of its own
        return unwrapped
    return attach(plain, own_method(method, rank, plain), generator=generator(seed, "adapter"), verbose=False)


def benchmark(workload: Workload, rounds: int, widths: Sequence[int] = WIDTHS) -> Findings:
    """Time a layer of each width at each rank and in each precision, under every method."""
    device, seed = workload.device, workload.config.seed
    actions: dict[Case, Callable[[], None]] = {}
    for width in widths:
        inputs = torch.randn(TOKENS, width, generator=generator(seed, "layer", width)).to(device).requires_grad_()
        for precision in precisions(device):
            for rank in RANKS:
                for method in METHODS:
                    layer = adapted(method, width, rank, seed).to(device)
                    actions[width, precision, rank, method] = functools.partial(_pass, layer, inputs, precision, device)
    for action in actions.values():
        for _ in range(WARM_UP):
            action()
    # By width and precision, so that the layers that are compared run close to one another.
    taken: dict[Case, list[float]] = {}
    for width in widths:
        for precision in precisions(device):
            group = {case: action for case, action in actions.items() if case[:2] == (width, precision)}
            named = {str(case): _once(action) for case, action in group.items()}
            seconds = interleave(named, rounds, device, f"layers of {width}, {precision}")
            taken |= {case: seconds[str(case)] for case in group}
    return findings(taken)


def _once(action: Callable[[], None]) -> Callable[[int], None]:
    return lambda _: action()


def _pass(layer: nn.Module, inputs: Tensor, precision: str, device: str) -> None:
    """A forward and a backward pass, and the clearing of the gradients."""
    with torch.autocast(device, dtype=torch.bfloat16, enabled=precision == "bf16"):
        out = layer(inputs)
    out.backward(torch.ones_like(out))
    inputs.grad = None
    for parameter in layer.parameters():
        parameter.grad = None


def findings(taken: dict[Case, list[float]]) -> Findings:
    """Build the table: a row for each width, precision and rank."""
    rows, lines = [], []
    for width, precision, rank in dict.fromkeys(case[:3] for case in taken):
        times = {method: taken[width, precision, rank, method] for method in METHODS}
        faster = min(LORAS, key=lambda name: spread(times[name]).median)
        relative = ratio(times["rosa"], times[faster])
        shown = [with_quartiles(spread(times[method]), 1000) for method in METHODS]
        rows.append(row(f"{width:,}", precision, str(rank), *shown, with_quartiles(relative), str(WANTED[precision])))
        place = f"{width} {precision} rank {rank}"
        lines += [
            *(Measurement(f"{place} {name}", "forward and backward", "s", spread(times[name])) for name in METHODS),
            Measurement(place, f"ROSA relative to {LABELS[faster]}", "", relative),
        ]
    notes = (
        note(
            f"One square layer, {TOKENS:,} tokens: its output, the gradients of its input and of its factors. "
            "Interleaved; median (quartiles), ms; the ratio is the median of the ratios within a round, to the LoRA "
            "whose median is smaller. The LoRAs are as their libraries compute them; fused as ROSA is, LoRA would do "
            "the same work."
        ),
    )
    header = (
        "width",
        "precision",
        "rank",
        "frozen",
        "ROSA",
        *(LABELS[name] for name in LORAS),
        "ROSA / LoRA",
        "wanted",
    )
    return Findings(Table("layer", "One adapted layer alone", header, tuple(rows), notes), tuple(lines))
