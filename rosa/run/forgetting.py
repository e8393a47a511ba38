"""Measure what a run's model has forgotten: its loss on a fixed text, before and after training."""

from __future__ import annotations

from itertools import chain
from typing import Any

import torch
from transformers import AutoModelForMaskedLM, PreTrainedTokenizerBase

from rosa.config import Config
from rosa.evaluation import forgetting
from rosa.mini import text as mini_text
from rosa.models.pretrained import length_limit, locate
from rosa.records.schema import Forgetting
from rosa.run import build

SENTENCES = 40
"""Of generated text, for a model that was pretrained on such text."""


def measure(config: Config, model: Any, tokenizer: PreTrainedTokenizerBase) -> Forgetting | None:
    """The loss of the pretrained and of the trained model.

    A classifier's encoder is scored under the masked-token head that its checkpoint has, as it was pretrained.

    Args:
        config: the run, with the model's folder set.
        model: trained, with its adapters.
        tokenizer: the run's.

    Returns:
        None if the checkpoint has no head that predicts masked tokens.
    """
    text, longest = paragraphs(config), length_limit(forgetting.LONGEST, model)
    if not config.task.has_head:
        untrained = build.pretrained(config).to(model.device)
        dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(config.train.precision)
        # The trained model computes in the run's precision, whose rounding is not to count as forgetting.
        with torch.autocast(model.device.type, dtype, enabled=dtype is not None):
            before = forgetting.next_token_loss(untrained, tokenizer, text, longest)
            after = forgetting.next_token_loss(model, tokenizer, text, longest)
        return {"loss": "next token", "before": before, "after": after}
    whole = _with_masked_head(config)
    if whole is None or tokenizer.mask_token_id is None:
        return None
    whole.to(model.device)
    before = forgetting.masked_loss(whole, tokenizer, text, longest)
    setattr(whole, whole.base_model_prefix, model.base_model)
    return {"loss": "masked token", "before": before, "after": forgetting.masked_loss(whole, tokenizer, text, longest)}


def paragraphs(config: Config) -> tuple[str, ...]:
    """The fixed text: generated, by another seed than in pretraining, for a model that knows only such text."""
    mini = config.model.mini
    if config.model.source != "mini" or mini.text:
        return forgetting.PARAGRAPHS
    make = mini_text.CORPORA[mini.corpus] if mini.architecture == "gpt2" else mini_text.corpus
    return tuple(chain.from_iterable(make(SENTENCES, mini.seed + 1)))


def _with_masked_head(config: Config) -> Any:
    """The pretrained model with the head of its checkpoint; None if it has none."""
    place, options = locate(config.model)
    dtype = getattr(torch, config.model.dtype)
    try:
        found, info = AutoModelForMaskedLM.from_pretrained(place, output_loading_info=True, dtype=dtype, **options)
    except ValueError:  # no such class for this architecture
        return None
    return None if info["missing_keys"] else found
