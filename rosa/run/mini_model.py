"""The project's own small models: pretrained once, on generated text or a text file, and cached."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, PreTrainedModel

from rosa import models
from rosa.adapters import attach
from rosa.adapters.targets import refuse_unfit
from rosa.config import Config, MiniModelConfig, ModelConfig
from rosa.data.paragraphs import read_glue, read_paragraphs
from rosa.errors import DataError
from rosa.mini import text as mini_text
from rosa.mini.pretraining import cache, gpt2, roberta
from rosa.models import perceptron
from rosa.utils.seeding import generator, global_stream


def located(config: Config) -> ModelConfig:
    """The model's configuration; one of the project's own models is pretrained if missing, and its folder is set.

    Raises:
        DataError: the text to pretrain on cannot be read or is too short.
    """
    if config.model.source != "mini":
        return config.model
    shape, cache_dir = config.model.mini, Path(config.cache_dir)
    if shape.architecture == "gpt2" and shape.text:
        folder = _made(config)
    else:
        recipe = [dataclasses.asdict(shape), mini_text.code(), roberta.VERSION, gpt2.VERSION]
        folder = cache.noted(recipe, cache_dir, lambda: _made(config))
    return dataclasses.replace(config.model, path=str(folder))


def _made(config: Config) -> Path:
    """The folder of the model, found by a hash of the pretraining text; pretrained if missing."""
    shape, cache_dir, device = config.model.mini, Path(config.cache_dir), config.train.device
    if shape.architecture != "gpt2":
        text = mini_text.corpus(shape.sentences, shape.seed)
        return roberta.cached_roberta(text, mini_text.vocabulary(), shape, cache_dir, device)
    if shape.text:
        text, origin = read_text(shape)
    else:
        text, origin = mini_text.CORPORA[shape.corpus](shape.sentences, shape.seed), {"generated": shape.corpus}
    return gpt2.cached_gpt2(text, shape, cache_dir, origin, device)


def read_text(shape: MiniModelConfig) -> tuple[tuple[tuple[str, ...], ...], dict[str, Any]]:
    """The paragraphs of the user's files to pretrain on, and facts for the record.

    Raises:
        DataError: a file cannot be read, or there is too little text; the message names the setting.
    """
    setting = f"model.mini.text={shape.text}"
    try:
        text, origin = read_paragraphs(Path(shape.text))
        if shape.glue:
            setting = f"model.mini.glue={shape.glue}"
            sentences, fact = read_glue(Path(shape.glue))
            text, origin = text + sentences, origin | fact
        gpt2.check_paragraphs(text)
    except DataError as error:
        raise DataError(f"{setting}: {error}") from error
    return text, origin


def check_texts(models: Iterable[ModelConfig]) -> None:
    """Read each text of the user's that a model is to be pretrained on once, to refuse what cannot be read.

    Raises:
        DataError: as for :func:`read_text`.
    """
    own = {(one.mini.text, one.mini.glue): one.mini for one in models if one.source == "mini" and one.mini.text}
    for shape in own.values():
        read_text(shape)


def check_method(config: Config) -> None:
    """Check that the method fits the model before data are read and weights loaded or pretrained.

    It is attached to an untrained model, if the project makes the model. Of others, which may be large, names and
    shapes of layers are checked, where the model's configuration is on this machine.

    Raises:
        AdapterError: no layer has a name that the method targets, or its rank does not fit a layer.
        ModelError: the model is missing, or an encoder, and the task generates text.
    """
    if config.model.source != "mini":
        layers = _layers(config)
        if layers is not None:
            refuse_unfit(layers, config.method)
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the run prints these warnings again
        attach(_untrained(config), config.method, generator=generator(0, "adapter"), verbose=False)


def _layers(config: Config) -> nn.Module | None:
    """The layers, without values, of a model that the project does not pretrain on text; None if not known here."""
    if config.model.source == "perceptron":
        with torch.device("meta"):
            return perceptron.Perceptron(config.model.perceptron.widths, generator(0, "layers"))
    return models.skeleton(config.model, config.task)


def _untrained(config: Config) -> PreTrainedModel:
    """A model of the architecture that :func:`located` makes, with random weights and the task's head."""
    mini = config.model.mini
    with global_stream(0):
        if mini.architecture == "gpt2":
            model = AutoModelForCausalLM.from_config(gpt2.architecture(mini, mini.vocabulary))
        else:
            # The size of the vocabulary changes no layer that a method can target.
            shape = roberta.architecture(mini, len(mini_text.vocabulary()))
            model = AutoModelForSequenceClassification.from_config(shape)
    return model.to(getattr(torch, config.model.dtype))
