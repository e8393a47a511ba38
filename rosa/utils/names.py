"""Names and values that several packages share."""

from __future__ import annotations

from typing import Final

IGNORED = -100
"""The label of a token that is excluded from the loss: ``ignore_index`` of PyTorch's cross entropy."""

PRETRAINING = "pretraining.json"
"""File beside the weights of a model that the project pretrained, with the settings of the pretraining."""

EVENT: Final = "resample_layers"
"""The key that marks a resample in a Trainer's log history."""
MOVED: Final = "subspace_moved"
"""The key in a Trainer's log history of each layer's ``||A B - A_0 B_0||`` (Frobenius) since the last resample: one
number per layer, in the order of the model's modules."""


def starred(name: str) -> str:
    """A module's dotted name with ``*`` for each number: one for the same layer of all blocks of a model."""
    return ".".join("*" if part.isdigit() else part for part in name.split("."))
