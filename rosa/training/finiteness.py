"""Check loss, gradients and weights for values that are not finite, and report where the first one occurred."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from rosa.utils import distributed
from rosa.utils.modes import evaluating

NEVER = torch.iinfo(torch.int64).max
LOSS, GRADIENT, WEIGHT = "loss", "gradient of", "weight"


class FinitenessWatch:
    """Records the first update at which the loss, each gradient and each trained weight was not finite.

    The update numbers stay on the device until :meth:`first` reads them, so recording does not synchronize a GPU.

    Args:
        model: with its trained parameters marked.
        device: of the parameters.
    """

    def __init__(self, model: nn.Module, device: torch.device) -> None:
        trained = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
        self._names = [name for name, _ in trained]
        self._parameters = [parameter for _, parameter in trained]
        self._loss = torch.full((1,), NEVER, device=device)
        self._gradients = torch.full((len(trained),), NEVER, device=device)
        self._weights = torch.full((len(trained),), NEVER, device=device)

    def loss(self, loss: Tensor, step: int) -> None:
        """Check a loss of update ``step``, counted from 0."""
        self._loss = _noted(self._loss, torch.isfinite(loss.detach()).reshape(1), step)

    def gradients(self, step: int) -> None:
        """Check the current gradients; call this before clipping, which spreads a NaN to all of them."""
        if self._parameters:
            none = torch.zeros((), device=self._gradients.device)
            gradients = [none if parameter.grad is None else parameter.grad for parameter in self._parameters]
            self._gradients = _noted(self._gradients, _finite(gradients), step)

    def weights(self, step: int) -> None:
        """Check the trained weights after update ``step``."""
        if self._parameters:
            self._weights = _noted(self._weights, _finite([p.detach() for p in self._parameters]), step)

    def first(self, everywhere: bool = True) -> tuple[int, str] | None:
        """The first update with a value that is not finite, counted from 0, and the value's name; None without one.

        Args:
            everywhere: check all processes, which must then call this at the same point.
        """
        notes = torch.cat([self._loss, self._gradients, self._weights])
        notes = (distributed.smallest(notes) if everywhere else notes).cpu()
        step = int(notes.min())
        if step == NEVER:
            return None
        place = int((notes == step).nonzero()[0]) - 1
        if place < 0:
            return step, f"the {LOSS}"
        kind = GRADIENT if place < len(self._names) else WEIGHT
        return step, f"the {kind} {self._names[place % len(self._names)]}"


def _finite(tensors: list[Tensor]) -> Tensor:
    """Whether all numbers of each tensor are finite; (tensors,), boolean."""
    # The largest absolute value, whose sum of squares cannot overflow; NaN where there is one.
    largest = torch._foreach_norm(tensors, ord=math.inf)
    return torch.isfinite(torch.stack([value.float() for value in largest]))


def _noted(notes: Tensor, finite: Tensor, step: int) -> Tensor:
    now = torch.full((), step, device=notes.device)  # torch.tensor would wait for the device
    return torch.minimum(notes, torch.where(finite, NEVER, now))


def describe_norms(model: nn.Module, most: int = 3) -> str:
    """Norms of ``most`` trainable parameters: non-finite weights first, then non-finite, then large gradients."""
    rows = []
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            gradient = float(parameter.grad.norm()) if parameter.grad is not None else 0.0
            rows.append((name, float(parameter.detach().norm()), gradient))
    # Weights first, because one non-finite weight makes every gradient non-finite.
    rows.sort(key=lambda row: (math.isfinite(row[1]), math.isfinite(row[2]), -row[2]))
    return "; ".join(
        f"{name}: weight norm {weight:.3g}, gradient norm {gradient:.3g}" for name, weight, gradient in rows[:most]
    )


@torch.no_grad()
def first_bad_layer(model: nn.Module, inputs: Mapping[str, Any]) -> str | None:
    """The first layer whose output is not finite for these inputs, in the order of their calls; None if there is none.

    Runs the model once more, in evaluation mode, so a problem that only dropout caused is not found.
    """
    found: list[str] = []

    def look(name: str, output: Any) -> None:
        if isinstance(output, Tensor) and output.is_floating_point() and not bool(output.isfinite().all()):
            found.append(name or type(model).__name__)

    # A module comes after those in it.
    hooks = [
        module.register_forward_hook(lambda _, __, output, name=name: look(name, output))
        for name, module in model.named_modules()
    ]
    try:
        with evaluating(model):
            model(**inputs)
    finally:
        for hook in hooks:
            hook.remove()
    return found[0] if found else None
