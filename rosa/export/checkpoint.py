"""Export to a plain checkpoint, which loads without this package."""

from __future__ import annotations

from pathlib import Path

from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from rosa.adapters.modules import unwrapped
from rosa.errors import ExportError
from rosa.export.difference import refuse_attached, refuse_not_finite
from rosa.export.folders import CARD, new_folder, size_of

WEIGHTS = "*.safetensors"


def to_merged(
    plain: nn.Module,
    folder: str | Path,
    *,
    tokenizer: PreTrainedTokenizerBase | None = None,
    overwrite: bool = False,
    origin: str = "",
) -> int:
    """Write a merged model as ``from_pretrained`` reads it: weights (safetensors), configuration, tokenizer.

    Args:
        plain: the transformers model after ``rosa.merge``; it may lie in a wrapper, such as that of ``torch.compile``.
        folder: the target; it appears only when complete.
        tokenizer: saved beside the model.
        overwrite: replace an earlier export in that folder.
        origin: where the weights come from, for the folder's README.

    Returns:
        Size of the weights in bytes.

    Raises:
        ExportError: no transformers model, an adapter is attached, a weight is not finite, or the folder cannot be
            used.
    """
    plain = unwrapped(plain)
    if not isinstance(plain, PreTrainedModel):
        raise ExportError(f"plain: {type(plain).__name__}: expected a transformers model (PreTrainedModel)")
    refuse_attached(plain, "plain")
    refuse_not_finite(plain)
    with new_folder(Path(folder), overwrite) as unfinished:
        plain.save_pretrained(unfinished)
        if tokenizer is not None:
            tokenizer.save_pretrained(unfinished)
        (unfinished / CARD).write_text(_card(plain, Path(folder), origin), encoding="utf-8")
        return size_of(unfinished, WEIGHTS)


def _card(plain: PreTrainedModel, folder: Path, origin: str) -> str:
    kind = type(plain).__name__
    return (
        "---\nlibrary_name: transformers\n---\n\n"
        f"# {folder.name}\n\n"
        f"A {kind}, fine-tuned from `{plain.name_or_path}`; the whole of its weights. {origin}\n\n"
        "```python\n"
        f"from transformers import {kind}\n\n"
        f'model = {kind}.from_pretrained("{folder.name}")\n'
        "```\n"
    )
