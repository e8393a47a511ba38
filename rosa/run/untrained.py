"""A run's model as it was before training, loaded once for everything that compares the trained model with it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_MASKED_LM_MAPPING,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    PreTrainedModel,
)

from rosa.adapters import diagnostics
from rosa.config import Config
from rosa.errors import ModelError
from rosa.models.pretrained import locate
from rosa.run import build
from rosa.utils.console import first_line
from rosa.utils.seeding import global_stream

MASKED, NEXT = "masked token", "next token"
"""What a head predicts."""


@dataclass(frozen=True)
class Untrained:
    """A pretrained model on the CPU, with the head that it was pretrained with where its checkpoint has that."""

    model: PreTrainedModel | None
    """None if no model with such a head can be loaded."""
    predicts: str
    """``masked token`` or ``next token``; empty without a head."""
    missing: str
    """Why there is no head; empty if there is one."""


def with_its_head(config: Config, model: PreTrainedModel) -> Untrained:
    """The pretrained model of a run, with the head of its checkpoint: that of a language model.

    Args:
        config: the run, with the model's folder set.
        model: the run's own: a language model, or a classifier on the backbone of one.
    """
    try:
        return _found(config, model)
    except (ModelError, OSError, ValueError, KeyError, ImportError, RuntimeError) as error:
        return Untrained(None, "", f"the checkpoint cannot be loaded: {first_line(type(error).__name__, str(error))}")


def _found(config: Config, model: PreTrainedModel) -> Untrained:
    if not config.task.is_labelled:
        return Untrained(build.pretrained(config), NEXT, "")  # type: ignore[arg-type]  # the task has texts
    architecture = model.config
    # In an encoder-decoder of either class, the decoder sees the very text that it is to predict.
    masked, causal = (
        type(architecture) in classes and not architecture.is_encoder_decoder
        for classes in (MODEL_FOR_MASKED_LM_MAPPING, MODEL_FOR_CAUSAL_LM_MAPPING)
    )
    if not masked and not causal:
        return Untrained(None, "", f"{type(architecture).__name__} has no head that predicts masked or next tokens")
    kind: Any = AutoModelForMaskedLM if masked else AutoModelForCausalLM
    predicts = MASKED if masked else NEXT
    found, left_out = _load(config, kind)
    if left_out:
        backbone = any(name.startswith(f"{found.base_model_prefix}.") for name in left_out)
        return Untrained(None if backbone else found, "", f"the checkpoint has no {predicts.replace(' ', '-')} head")
    if type(found.base_model) is not type(model.base_model):
        return Untrained(found, "", f"{type(found).__name__} has another backbone than {type(model).__name__}")
    return Untrained(found, predicts, "")


def comparable(config: Config, model: nn.Module, untrained: Untrained | None) -> nn.Module:
    """A pretrained model that has every adapted layer of the run's model: the one at hand, or one loaded for this."""
    if untrained is not None and untrained.model is not None:
        names = {name for name, _ in untrained.model.named_modules()}
        if names >= set(diagnostics.compared(model)):
            return untrained.model
    return build.pretrained(config)


def _load(config: Config, kind: Any) -> tuple[PreTrainedModel, set[str]]:
    """A model of an ``Auto`` class in evaluation mode, and the names of its weights that the checkpoint lacks."""
    chosen = build.chosen(config)
    place, options = locate(chosen)
    if chosen.attention != "auto":
        options = {**options, "attn_implementation": chosen.attention}
    with global_stream(0):  # what is missing is drawn, and must not change later draws
        found, info = kind.from_pretrained(
            place, output_loading_info=True, dtype=getattr(torch, chosen.dtype), **options
        )
    return found.eval(), set(info["missing_keys"])
