"""Shared parts of pretraining: batches, optimizer, schedule, and training on one thread."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import nn

T = TypeVar("T")

WARMUP_SHARE = 0.1
WEIGHT_DECAY = 0.01
MAX_GRAD_NORM = 1.0
SORTED_BATCHES = 32
"""Number of batches whose inputs are sorted by length together, to reduce padding."""


@contextmanager
def one_thread() -> Iterator[None]:
    """Run a block on one PyTorch thread, on any machine.

    Small matrices gain nothing from threads, and one summation order gives the same weights for any number of cores.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def batches(
    encoded: Sequence[list[int]], size: int, padding: int, generator: torch.Generator
) -> Iterator[torch.Tensor]:
    """Endless batches (size, longest of the batch) in random order, each of inputs of similar length.

    Every input occurs once before any is repeated; ``padding`` is the token that fills shorter inputs.
    """
    while True:
        order = torch.randperm(len(encoded), generator=generator).tolist()
        for start in range(0, len(order), size * SORTED_BATCHES):
            chunk = sorted(order[start : start + size * SORTED_BATCHES], key=lambda i: len(encoded[i]))
            groups = [chunk[i : i + size] for i in range(0, len(chunk), size)]
            for i in torch.randperm(len(groups), generator=generator).tolist():
                rows = [torch.tensor(encoded[j]) for j in groups[i]]
                yield torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=padding)


def build_optimizer(trained: nn.Module, lr: float) -> torch.optim.AdamW:
    """AdamW over all of a module's parameters; no weight decay on norms and biases, as in BERT."""
    weights = [p for p in trained.parameters() if p.dim() > 1]
    others = [p for p in trained.parameters() if p.dim() <= 1]
    return torch.optim.AdamW(
        [{"params": weights, "weight_decay": WEIGHT_DECAY}, {"params": others, "weight_decay": 0.0}],
        lr=lr,
        betas=(0.9, 0.98),
        fused=True,
    )


def build_schedule(optimizer: torch.optim.Optimizer, steps: int) -> torch.optim.lr_scheduler.LambdaLR:
    """The schedule of :func:`learning_rate_share`."""
    return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: learning_rate_share(step, steps))


def update(
    loss: torch.Tensor,
    trained: nn.Module,
    optimizer: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LambdaLR,
) -> None:
    """Update a module's parameters by the gradient of a loss, clipped to norm 1, and clear the gradients."""
    loss.backward()
    torch.nn.utils.clip_grad_norm_(trained.parameters(), MAX_GRAD_NORM)
    optimizer.step()
    schedule.step()
    optimizer.zero_grad()


def last_tenth(values: Sequence[T], steps: int) -> Sequence[T]:
    """The values of the last tenth of the steps, at least one; ``values`` has one value for each step."""
    return values[-max(1, steps // 10) :]


def learning_rate_share(step: int, steps: int) -> float:
    """The share of the peak learning rate at a step: linear warm-up, then cosine decay to 0."""
    warmup = max(1, round(WARMUP_SHARE * steps))
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))
