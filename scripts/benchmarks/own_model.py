"""The model that a user asks for by ``model=PATH_OR_NAME``: where it is, of which kind, whether it can be adapted."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from torch import nn
from transformers import AutoConfig, PreTrainedConfig
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_MASKED_LM_MAPPING_NAMES,
)

from benchmarks import BenchmarkError
from rosa.adapters.targets import target_layers
from rosa.config import ATTENTION, ConfigError, ModelConfig
from rosa.errors import AdapterError, ModelError
from rosa.models.pretrained import WITHOUT_NETWORK, locate

CLASSIFIER = "ForSequenceClassification"


def named(model: str, known: Sequence[str]) -> ModelConfig:
    """The configuration of a model that has no name under ``conf/model``: a folder, or a name on the hub.

    Args:
        model: what the user wrote after ``model=``.
        known: the names under ``conf/model``.

    Raises:
        BenchmarkError: neither a folder nor a name that the hub could have.
    """
    place, expected = Path(model).expanduser(), f"one of {', '.join(known)}, a folder that save_pretrained wrote"
    if place.is_dir():
        return ModelConfig(file_name(place.resolve().name), "folder", str(place))
    if place.exists():
        raise BenchmarkError(f"model={model}: a file; expected {expected}, or a name on the hub")
    try:
        return ModelConfig(file_name(model.rpartition("/")[2]), "hub", model)
    except ConfigError as error:
        raise BenchmarkError(f"model={model}: no such folder; expected {expected}, or a name on the hub") from error


def file_name(name: str) -> str:
    """A model's name as a part of files' names."""
    return re.sub(r"[^\w.-]+", "-", name).strip("-.") or "model"


def is_language_model(model: ModelConfig, asked: str) -> bool:
    """Whether a model is to be measured as a causal language model, on texts; otherwise as a classifier.

    Its configuration says of which class the saved model was. Of a backbone without a head, the architecture decides:
    encoders have a head for masked tokens, decoders none.

    Args:
        model: its configuration.
        asked: what the user wrote after ``model=``, for the message.

    Raises:
        BenchmarkError: its configuration cannot be read, or is not of a model of texts.
    """
    if model.source == "perceptron":
        raise BenchmarkError(f"model={asked}: a network for vectors; the benchmarks measure models of texts")
    if model.source == "mini":
        return model.mini.architecture == "gpt2"
    try:
        place, options = locate(model)
        shape = AutoConfig.from_pretrained(place, **options)
    except (ModelError, OSError, ValueError, KeyError) as error:
        reason = str(error).removesuffix(WITHOUT_NETWORK).removeprefix(f"model.path={model.path}: ")
        at = "; there is no such folder here" if model.source == "hub" else ""
        raise BenchmarkError(f"model={asked}: {reason}{at}") from error
    return _is_causal(shape)


def _is_causal(shape: PreTrainedConfig) -> bool:
    classes = shape.architectures or [""]
    if classes[0].endswith(CLASSIFIER) or classes[0] in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values():
        return not classes[0].endswith(CLASSIFIER)
    kind = shape.model_type
    return kind in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES and kind not in MODEL_FOR_MASKED_LM_MAPPING_NAMES


def check_targets(plain: nn.Module, asked: str) -> None:
    """Check that a model has layers that the methods adapt by default.

    Raises:
        BenchmarkError: it has none; the message has those that it has.
    """
    try:
        target_layers(plain, ATTENTION)
    except AdapterError as error:
        raise BenchmarkError(f"model={asked}: cannot be adapted as the project does by default: {error}") from error
