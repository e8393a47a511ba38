"""Rewarming: after a resample, the learning rate of the factors rises linearly, whatever the optimizer's schedule."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rosa.adapters.resampling import resampled


class Rewarming:
    """Applies a share of an update to the factors A and B.

    The updates of SGD and of Adam with decoupled weight decay are proportional to the learning rate, so a share of one
    equals a smaller rate, whatever parameter groups and schedule the optimizer has.
    """

    def __init__(self) -> None:
        self._before: list[tuple[nn.Parameter, Tensor]] = []
        self._share = 1.0

    def before_update(self, model: nn.Module, since: int, steps: int) -> None:
        """Note the factors, of whose next update a share ``(since + 1) / (steps + 1)`` is applied.

        Args:
            model: with ROSA attached.
            since: updates since the resample.
            steps: updates over which the rate rises.
        """
        self._share = (since + 1) / (steps + 1)
        factors = [factor for adapter in resampled(model).values() for factor in adapter.factors().values()]
        self._before = [(factor, factor.detach().clone()) for factor in factors if factor.requires_grad]

    def after_update(self) -> None:
        """Undo the rest of the update; nothing if :meth:`before_update` was not called for it."""
        if self._before:
            with torch.no_grad():
                for factor, before in self._before:
                    factor.copy_(before.lerp(factor, self._share))
            self._before = []
