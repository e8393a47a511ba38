"""The project's own small models: pretrained once, on generated text or a text file, and cached."""

from __future__ import annotations

import dataclasses
import warnings
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, PreTrainedModel

from rosa.adapters import attach
from rosa.config import Config, ModelConfig
from rosa.data.paragraphs import read_glue, read_paragraphs
from rosa.mini import text as mini_text
from rosa.mini.pretraining import cache, gpt2, roberta
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
        text, origin = read_paragraphs(Path(shape.text))
        if shape.glue:
            sentences, fact = read_glue(Path(shape.glue))
            text, origin = text + sentences, origin | fact
    else:
        text, origin = mini_text.CORPORA[shape.corpus](shape.sentences, shape.seed), {"generated": shape.corpus}
    return gpt2.cached_gpt2(text, shape, cache_dir, origin, device)


def check_method(config: Config) -> None:
    """Check that the method fits the model before pretraining, by attaching it to an untrained model.

    Only the project's own models are checked. Other models need no pretraining, so the method is attached at once.

    Raises:
        AdapterError: no layer has a name that the method targets, or its rank does not fit a layer.
    """
    if config.model.source != "mini" or config.task.kind == "vector_regression":
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the run prints these warnings again
        attach(_untrained(config), config.method, generator=generator(0, "adapter"), verbose=False)


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
