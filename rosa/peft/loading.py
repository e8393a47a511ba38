"""Refuse transformers' own ``load_adapter``, which would leave our adapters without their trained weights.

``PreTrainedModel.load_adapter`` copies the tensors of a file into parameters of the same names, without PEFT's part
that restores an adapter from what was saved. It is what ``AutoModel.from_pretrained`` calls on an adapter's folder.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from torch import nn
from transformers.integrations.peft import PeftAdapterMixin

from rosa.errors import AdapterError

MARK = "rosa_load_adapter"
"""The attribute that marks our ``load_adapter``, and a model while it runs."""


def watch_load_adapter() -> None:
    """Mark a model during ``PreTrainedModel.load_adapter``; does so once."""
    original: Callable[..., Any] = PeftAdapterMixin.load_adapter
    if hasattr(original, MARK):
        return

    @functools.wraps(original)
    def load_adapter(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        vars(self)[MARK] = True
        try:
            return original(self, *args, **kwargs)
        finally:
            vars(self).pop(MARK, None)

    setattr(load_adapter, MARK, True)
    PeftAdapterMixin.load_adapter = load_adapter  # type: ignore[assignment,method-assign]


def refuse_load_adapter(model: nn.Module, title: str) -> None:
    """Check that it is not transformers that loads an adapter.

    Args:
        model: the model that gets the adapter.
        title: the method's name.

    Raises:
        AdapterError: it is.
    """
    if MARK in vars(model):
        raise AdapterError(
            f"{type(model).__name__}.load_adapter, which from_pretrained calls on an adapter's folder, cannot restore "
            f"an adapter of {title}: use peft.PeftModel.from_pretrained(model, folder) on the pretrained model"
        )
