"""Scores of every entry of the adapted weights, from the gradients of some updates.

An adapter passes on the gradient of its whole weight in each backward pass; it is added to the update's sum and freed.
When an update's gradients are complete, they are summed over its batches and averaged over the processes, as those of
parameters are, and only then scored: the scores depend on neither the accumulation nor the number of processes.

Memory: one float32 tensor of the size of each adapted weight, and one gradient in flight; with more than one update to
collect, a second such tensor a weight for the scores so far.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping

import torch
from torch import Tensor, distributed

from rosa.adapters.base import SupportedAdapter
from rosa.errors import AdapterError
from rosa.utils.distributed import grouped


class Collector:
    """Collects gradients from :meth:`start` to :meth:`stop`, and scores each update's at its end.

    Args:
        adapters: with a sparse part, by name; the same in every process.
        score: ``gradient_squared`` or ``gradient_magnitude``.
    """

    def __init__(self, adapters: Mapping[str, SupportedAdapter], score: str) -> None:
        self.adapters = dict(adapters)
        self.score = score
        self.scores: dict[str, Tensor] = {}
        """Sums over the updates so far (out, in), float32, by layer."""
        self.updates = 0
        self._gradients: dict[str, Tensor] = {}

    def start(self) -> None:
        """Start to collect the gradients of every backward pass."""
        for name, adapter in self.adapters.items():
            adapter.collect(functools.partial(self._add, name))

    def stop(self) -> None:
        """Stop collecting, and free the collected gradients and scores."""
        for adapter in self.adapters.values():
            adapter.collect(None)
        self.scores, self._gradients, self.updates = {}, {}, 0

    @torch.no_grad()
    def end_update(self) -> None:
        """Score the gradients since the last update.

        If one is not finite, as after an overflow in float16, whose loss scale then changes, all updates so far are
        dropped and the count starts again.

        Raises:
            AdapterError: a layer had no gradient.
        """
        finite: list[Tensor] = []
        for name in self.adapters:
            if name not in self._gradients:
                raise AdapterError(f"{name}: no gradient reached its weight, so its sparse part cannot be placed")
            gradient = _averaged(self._gradients.pop(name))
            finite.append(torch.isfinite(gradient).all())
            score = gradient.square_() if self.score == "gradient_squared" else gradient.abs_()
            self.scores[name] = score.add_(self.scores[name]) if name in self.scores else score
        self.updates += 1
        if not torch.stack([flag.to(finite[0].device) for flag in finite]).all():  # waits for the device once
            self.scores, self.updates = {}, 0

    def load(self, scores: Mapping[str, Tensor], updates: int) -> None:
        """Continue from the scores of an interrupted collection."""
        devices = {name: next(iter(adapter.factors().values())).device for name, adapter in self.adapters.items()}
        self.scores = {name: scores[name].to(device) for name, device in devices.items()}
        self.updates = updates

    def _add(self, name: str, gradient: Tensor) -> None:
        gradient = gradient.detach().float()
        if name in self._gradients:
            self._gradients[name] += gradient
        else:
            self._gradients[name] = gradient.clone()  # a hook must not change or keep what it was given


def _averaged(gradient: Tensor) -> Tensor:
    """The mean over processes, in place."""
    if grouped():
        distributed.all_reduce(gradient)
        gradient /= distributed.get_world_size()
    return gradient
