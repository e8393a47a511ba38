"""The file of a checkpoint that holds the factors at the start of the current subspace.

Only the logged norms need it: how far the factors moved within a subspace that the checkpoint interrupts.
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from rosa.adapters.diagnostics import LayerFactors, factors_of
from rosa.errors import CheckpointError, WriteError
from rosa.utils import files

FILE = "subspace.safetensors"


def write(factors: LayerFactors, path: Path) -> None:
    """Write the factors, layer by layer.

    Raises:
        WriteError: the file cannot be written.
    """
    named = {f"{layer}.{key}": one for layer, pair in factors.items() for key, one in zip("AB", pair, strict=True)}
    with files.writing(path, WriteError):
        save_file(named, path)


def read(path: Path, model: nn.Module | None) -> LayerFactors:
    """Read what :func:`write` wrote.

    Args:
        path: the file.
        model: the factors must be those of its layers; None for no check.

    Raises:
        CheckpointError: the file cannot be read, or is of other layers or another rank.
    """
    with files.reading(path):
        tensors = load_file(path)
        layers = dict.fromkeys(key.rpartition(".")[0] for key in tensors)
        found = {layer: (tensors[f"{layer}.A"], tensors[f"{layer}.B"]) for layer in layers}
        if model is not None and _shapes(found) != _shapes(factors_of(model)):
            raise CheckpointError(
                f"{path}: not a checkpoint of this run: its factors are of other layers or another rank. Remove it, or "
                "start over with train.force=true"
            )
    return found


def _shapes(factors: LayerFactors) -> dict[str, list[torch.Size]]:
    return {layer: [one.shape for one in pair] for layer, pair in factors.items()}
