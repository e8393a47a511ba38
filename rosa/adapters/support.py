"""The support of a model's adapters, which is the positions of their sparse parts: choose, write and read it."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from rosa.adapters.base import SupportedAdapter
from rosa.adapters.modules import adapters, attachment_of, unwrapped
from rosa.errors import AdapterError, WriteError
from rosa.utils import files

FILE = "support.safetensors"
"""A support in a run's folder: each layer's sorted flat positions, and their matrix's shape in the metadata."""


def supported(model: nn.Module) -> dict[str, SupportedAdapter]:
    """The adapters of a model that have a sparse part, by name; empty for other methods."""
    found = adapters(unwrapped(model))
    return {name: a for name, a in found if isinstance(a, SupportedAdapter) and a.index is not None}


def by_layer(model: nn.Module) -> dict[str, SupportedAdapter]:
    """As :func:`supported`, by the names that the layers had when they were adapted, whatever wraps the model now."""
    found, present = supported(model), attachment_of(model, supported)
    if present is None or len(present.layers) != len(found):
        return found
    return dict(zip((layer.name for layer in present.layers), found.values(), strict=True))


def chosen(model: nn.Module) -> bool:
    """Whether the support of a model has been chosen; synchronizes with the device."""
    return all(a.index is not None and bool(a.index[0] >= 0) for a in supported(model).values())


def largest(scores: Tensor, count: int) -> Tensor:
    """The sorted flat positions (count,) of the largest scores; of equal ones at the threshold, the first."""
    flat = scores.flatten()
    threshold = flat.topk(count).values[-1]
    above = (flat > threshold).nonzero().flatten()
    equal = (flat == threshold).nonzero().flatten()[: count - len(above)]
    return torch.cat([above, equal]).sort().values


def choose(model: nn.Module, scores: Mapping[str, Tensor]) -> None:
    """Set the support of every sparse part to its layer's largest scores (out, in), in place."""
    for name, adapter in supported(model).items():
        assert adapter.index is not None
        adapter.choose(largest(scores[name], len(adapter.index)))


def content_hash(model: nn.Module) -> str:
    """SHA-256 over the positions of every sparse part, with its layer's name and shape."""
    digest = hashlib.sha256()
    for name, adapter in sorted(by_layer(model).items()):
        assert adapter.index is not None
        digest.update(f"{name} {adapter.shape}\n".encode())
        digest.update(adapter.index.detach().cpu().long().numpy().tobytes())
    return digest.hexdigest()


def describe(model: nn.Module) -> dict[str, Any]:
    """The hash of a support, and each layer's entries and density, for the record."""
    layers = []
    for name, adapter in by_layer(model).items():
        assert adapter.index is not None
        entries = len(adapter.index)
        layers.append({"name": name, "entries": entries, "density": entries / (adapter.shape[0] * adapter.shape[1])})
    return {"sha256": content_hash(model), "layers": layers}


def write(model: nn.Module, path: Path) -> None:
    """Write the support of a model to a file, atomically.

    Raises:
        WriteError: it cannot be written.
    """
    tensors, shapes = {}, {}
    for name, adapter in by_layer(model).items():
        assert adapter.index is not None
        tensors[name] = adapter.index.detach().cpu()
        shapes[name] = adapter.shape
    with files.writing(path, WriteError):
        files.replace(path, save(tensors, metadata={"shapes": json.dumps(shapes)}))


def read(path: Path, layers: Mapping[str, SupportedAdapter]) -> dict[str, Tensor]:
    """The positions in a file from :func:`write`, for these layers.

    Raises:
        AdapterError: it cannot be read, or is of other layers, shapes or densities.
    """
    where = f"method.support={path}"
    found, shapes = _read(path, where)
    for name, adapter in layers.items():
        if name not in found:
            raise AdapterError(f"{where} is of another model or other targets: it has no layer {name}")
        problem = misfit(found[name], tuple(shapes[name]), adapter)
        if problem:
            raise AdapterError(f"{where} does not fit {name}: {problem}")
    for name in found:
        if name not in layers:
            raise AdapterError(f"{where} is of another model or other targets: {name} is not adapted here")
    return found


def check_file(path: Path) -> None:
    """Refuse a file that is no support; whether it fits a model is known only by :func:`read`.

    Raises:
        AdapterError: it cannot be read, or holds something else.
    """
    _read(path, f"method.support={path}")


class Overlap(NamedTuple):
    """What two supports have in common in a layer."""

    share: float
    """Of the positions: 1 for equal supports."""
    chance: float
    """The share that is expected of positions drawn at random, which is the density."""


def overlap(one: Path, other: Path) -> dict[str, Overlap]:
    """The share of the positions that two supports have in common, by layer.

    Raises:
        AdapterError: a file cannot be read, or they are of different layers, shapes or densities.
    """
    (ours, shapes), (theirs, others) = _read(one, str(one)), _read(other, str(other))
    same = shapes == others and all(len(ours[name]) == len(theirs[name]) for name in ours)
    if not same:
        raise AdapterError(
            f"{one} and {other} are of different models, targets or densities: expected two seeds of one run"
        )
    shares = {name: float(torch.isin(index, theirs[name]).double().mean()) for name, index in ours.items()}
    return {name: Overlap(shares[name], len(index) / math.prod(shapes[name])) for name, index in ours.items()}


def _read(path: Path, where: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    try:
        with safe_open(path, framework="pt") as file:
            shapes = json.loads((file.metadata() or {}).get("shapes", "null"))
            found = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - safe_open is no dict
    except (OSError, SafetensorError, ValueError) as error:
        raise AdapterError(f"{where}: expected {FILE} of a run of method=robust: {error}") from error
    named = isinstance(shapes, dict) and bool(found) and shapes.keys() == found.keys()
    if not named or not all(_is_shape(shape) for shape in shapes.values()):
        raise AdapterError(f"{where}: expected {FILE} of a run of method=robust; it names no layers and shapes")
    for name, index in found.items():
        problem = _disorder(index, shapes[name][0] * shapes[name][1])
        if problem:
            raise AdapterError(f"{where}: expected {FILE} of a run of method=robust; {name}: {problem}")
    return {name: index.long() for name, index in found.items()}, shapes


def _is_shape(shape: object) -> bool:
    """Whether a value read from JSON is the shape (out, in) of a weight."""
    return isinstance(shape, list) and len(shape) == 2 and all(type(side) is int and side > 0 for side in shape)


def _disorder(index: Tensor, size: int) -> str | None:
    """Why ``index`` is not a valid list of positions in a weight of ``size`` entries; None if it is."""
    whole = index.dim() == 1 and index.numel() > 0 and not torch.is_floating_point(index) and not index.is_complex()
    if whole and index.dtype != torch.bool:
        places = index.long()  # PyTorch does not compare unsigned integers
        if bool((places[1:] > places[:-1]).all()) and int(places[0]) >= 0 and int(places[-1]) < size:
            return None
    return f"its positions are not sorted whole numbers below {size}"


def misfit(index: Tensor, shape: tuple[int, ...], adapter: SupportedAdapter) -> str | None:
    """Why an adapter cannot take these positions, chosen in a weight of this shape; None if it can."""
    assert adapter.index is not None
    size = adapter.shape[0] * adapter.shape[1]
    if shape != adapter.shape:
        return f"it is of a weight of {shape}, this one has {adapter.shape}"
    if index.shape != adapter.index.shape:
        count = index.numel()
        return f"it has {count} entries (density {count / size:.4g}), method.density asks for {adapter.index.numel()}"
    return _disorder(index, size)
