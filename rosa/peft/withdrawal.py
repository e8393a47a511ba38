"""Remove a new adapter from a model again if PEFT cannot load its file.

PEFT adds the adapter first and reads the file afterwards; if that fails, it leaves an adapter without its tensors.
"""

from __future__ import annotations

import functools
from typing import Any

from peft import PeftModel
from torch import nn

from rosa.peft.model import Tuner

MARK = "rosa_withdraws"
"""The attribute that marks our ``load_adapter``."""
LOADING = "rosa_loading"
"""The attribute of a model during ``PeftModel.from_pretrained``: the ids of its parameters that trained before."""


def teach_load_adapter() -> None:
    """Let ``PeftModel.from_pretrained`` and ``load_adapter`` leave the model as it was if they fail; does so once."""
    load, make = PeftModel.load_adapter, PeftModel.from_pretrained.__func__  # type: ignore[attr-defined]
    if hasattr(load, MARK):
        return

    @functools.wraps(load)
    def load_adapter(self: PeftModel, model_id: Any, adapter_name: str, *args: Any, **kwargs: Any) -> Any:
        model = self.get_base_model()
        trained = vars(model).get(LOADING)
        new = trained is not None or adapter_name not in self.peft_config
        trained = _trained(model) if trained is None else trained
        try:
            return load(self, model_id, adapter_name, *args, **kwargs)
        except Exception:
            if new and adapter_name in self.peft_config and isinstance(self.base_model, Tuner):
                self.base_model.withdraw(adapter_name, trained)
            raise

    @functools.wraps(make)
    def from_pretrained(cls: type[PeftModel], model: nn.Module, *args: Any, **kwargs: Any) -> PeftModel:
        vars(model)[LOADING] = _trained(model)
        try:
            return make(cls, model, *args, **kwargs)
        finally:
            vars(model).pop(LOADING, None)

    setattr(load_adapter, MARK, True)
    PeftModel.load_adapter = load_adapter  # type: ignore[method-assign]
    PeftModel.from_pretrained = classmethod(from_pretrained)  # type: ignore[assignment]


def _trained(model: nn.Module) -> set[int]:
    return {id(parameter) for parameter in model.parameters() if parameter.requires_grad}
