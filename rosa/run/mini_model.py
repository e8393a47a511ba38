"""The project's own small models: pretrained once, on generated text or a text file, and cached."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from rosa.config import Config, ModelConfig
from rosa.data.paragraphs import read_paragraphs
from rosa.mini import text as mini_text
from rosa.mini.pretraining.gpt2 import cached_gpt2
from rosa.mini.pretraining.roberta import cached_roberta
from rosa.mini.text import restaurants


def located(config: Config) -> ModelConfig:
    """The model's configuration; for one of the project's own models, with its folder, pretrained if it is missing.

    Raises:
        DataError: the text to pretrain on cannot be read or is too short.
    """
    if config.model.source != "mini":
        return config.model
    shape, cache_dir, device = config.model.mini, Path(config.cache_dir), config.train.device
    if shape.architecture == "gpt2":
        if shape.text:
            text, origin = read_paragraphs(Path(shape.text))
        else:
            text, origin = restaurants.corpus(shape.sentences, shape.seed), {"generated": "restaurants"}
        folder = cached_gpt2(text, shape, cache_dir, origin, device)
    else:
        folder = cached_roberta(
            mini_text.corpus(shape.sentences, shape.seed), mini_text.vocabulary(), shape, cache_dir, device
        )
    return dataclasses.replace(config.model, path=str(folder))
