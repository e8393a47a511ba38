"""Export RoSA's change of a model as values and positions: small, exact, and loadable without this package."""

from __future__ import annotations

from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from rosa.adapters.modules import adapters, attachment, unwrapped
from rosa.adapters.robust import RobustLinear
from rosa.config import MethodConfig, RobustConfig
from rosa.errors import ExportError
from rosa.export.difference import refuse_not_finite
from rosa.export.folders import CARD, new_folder, size_of

WEIGHTS = "sparse.safetensors"
"""Tensors of the parameter NAME, in its own layout: ``NAME/positions`` and ``NAME/values`` are added at flat positions,
``NAME/left @ NAME/right`` is added as a whole, ``NAME/whole`` takes the parameter's place."""


def to_sparse(model: nn.Module, folder: str | Path, *, overwrite: bool = False, origin: str = "") -> int:
    """Write what training changed: sparse parts as values and positions, low-rank parts as factors, the head whole.

    Args:
        model: with RoSA (``RobustConfig``) attached, its sparse parts chosen.
        folder: the target; it appears only when complete.
        overwrite: replace an earlier export in that folder.
        origin: where the weights come from, for the folder's README.

    Returns:
        Size of the file in bytes.

    Raises:
        ExportError: the model has no sparse part or none was chosen, a value is not finite, or the folder cannot be
            used.
    """
    model = unwrapped(model)
    refuse_not_finite(model)
    tensors: dict[str, Tensor] = {}
    own: set[str] = set()
    plain: dict[str, str] = {}
    for name, adapter in adapters(model):
        if not isinstance(adapter, RobustLinear) or adapter.support is None:
            break
        tensors |= {f"{name}.weight/{part}": tensor for part, tensor in _change(adapter).items()}
        own |= {f"{name}.{factor}" for factor in adapter.factors()}
        plain |= {f"{name}.base.{part}": f"{name}.{part}" for part, _ in adapter.base.named_parameters()}
    else:
        if tensors:
            for name, parameter in model.named_parameters():
                if parameter.requires_grad and name not in own:
                    tensors[f"{plain.get(name, name)}/whole"] = parameter.detach()
            return _write(model, tensors, Path(folder), overwrite, origin)
    present = attachment(model)
    method = "no method" if present is None else f"method={present.method}"
    raise ExportError(
        f"{type(model).__name__} has {method} attached, without a chosen sparse part: expected method=robust with a "
        "support; the merged model can always be exported"
    )


def refuse_sparse_part(method: MethodConfig) -> None:
    """Refuse a method whose change no PEFT LoRA adapter can hold.

    Raises:
        ExportError: the method has a sparse part; says what works.
    """
    if isinstance(method, RobustConfig) and method.sparse:
        raise ExportError(
            f"method={method.name} with method.schedule={method.schedule}: its sparse part has full rank, which a PEFT "
            "LoRA adapter cannot hold; --format sparse writes values and positions, --format merged a plain checkpoint"
        )


def _change(adapter: RobustLinear) -> dict[str, Tensor]:
    """The tensors that a loader adds to the weight, in the weight's own layout."""
    support = adapter.support
    assert support is not None
    transposed = isinstance(adapter.base, Conv1D)
    positions, values = support.index.long(), adapter.values.detach()
    if transposed:
        positions, order = (support.columns.long() * support.shape[0] + support.rows.long()).sort()
        values = values[order]
    found = {"positions": positions.to(support.index.dtype), "values": values}
    if adapter.rank is not None:
        left, right = adapter.scaling * adapter.lora_B.detach(), adapter.lora_A.detach()
        found |= {"left": right.T, "right": left.T} if transposed else {"left": left, "right": right}
    return found


def _write(model: nn.Module, tensors: dict[str, Tensor], folder: Path, overwrite: bool, origin: str) -> int:
    with new_folder(folder, overwrite) as unfinished:
        save_file({name: tensor.cpu().contiguous() for name, tensor in tensors.items()}, unfinished / WEIGHTS)
        (unfinished / CARD).write_text(
            f"# {folder.name}\n\nWhat RoSA (robust adaptation) changed in a {type(model).__name__}. {origin}\n\n"
            f"In `{WEIGHTS}`, of each parameter NAME and in its own layout: add `NAME/values` at the flat\n"
            "`NAME/positions`, and `NAME/left @ NAME/right`; put `NAME/whole` in the parameter's place.\n",
            encoding="utf-8",
        )
        return size_of(unfinished, WEIGHTS)
