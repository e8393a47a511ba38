"""Measure what a run's model has forgotten: its loss on a fixed text, before and after training.

Everything is done after training, when times and memory peaks have been taken: the trained model and the pretrained
one, loaded again, read the text once each. So an interruption of the training has no influence on it.
"""

from __future__ import annotations

import math
from itertools import chain

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from rosa.config import Config
from rosa.evaluation import forgetting
from rosa.mini import text as mini_text
from rosa.models.pretrained import length_limit
from rosa.records.schema import Diagnostics
from rosa.run.untrained import MASKED, NEXT, Untrained
from rosa.utils.console import first_line

SENTENCES = 40
"""Of generated text, for a model that was pretrained on such text."""
NOT_ASKED, NO_TEXTS = "train.forgetting=false", "the task has no texts"


def unasked(config: Config) -> str:
    """Why a run does not measure what was forgotten, as far as its settings tell; empty if it is to."""
    if config.task.kind == "vector_regression":
        return NO_TEXTS
    return "" if config.train.forgetting else NOT_ASKED


def measure(
    config: Config, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, untrained: Untrained
) -> Diagnostics:
    """The loss of the pretrained and of the trained model.

    A classifier's backbone is scored under the head that its checkpoint has, as that was pretrained.

    Args:
        config: the run, with the model's folder set.
        model: trained, with its adapters.
        tokenizer: the run's.
        untrained: from :func:`rosa.run.untrained.with_its_head`; it is moved to the model's device, and a
            classifier's backbone put into it.

    Returns:
        ``forgetting``, or ``forgetting_missing`` with the reason.
    """
    if untrained.model is None or untrained.missing:
        return {"forgetting_missing": untrained.missing}
    if untrained.predicts == MASKED and tokenizer.mask_token_id is None:
        return {"forgetting_missing": "the tokenizer has no token that masks"}
    try:
        before, after = _losses(config, model, tokenizer, untrained.model, untrained.predicts)
    except Exception as error:  # such as too little memory for two models: what was trained must not be lost by this
        return {"forgetting_missing": f"it failed: {first_line(type(error).__name__, str(error))}"}
    if not (math.isfinite(before) and math.isfinite(after)):
        return {"forgetting_missing": "the loss on the fixed text is not finite"}
    return {"forgetting": {"loss": untrained.predicts, "before": before, "after": after}}


def _losses(
    config: Config,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    untrained: PreTrainedModel,
    predicts: str,
) -> tuple[float, float]:
    text, longest = paragraphs(config), length_limit(forgetting.LONGEST, model)
    loss = forgetting.next_token_loss if predicts == NEXT else forgetting.masked_loss
    untrained.to(model.device)  # type: ignore[arg-type]
    if config.task.is_labelled:
        before = loss(untrained, tokenizer, text, longest)
        setattr(untrained, untrained.base_model_prefix, model.base_model)
        return before, loss(untrained, tokenizer, text, longest)
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(config.train.precision)
    # The trained model computes in the run's precision, whose rounding is not to count as forgetting.
    with torch.autocast(model.device.type, dtype, enabled=dtype is not None):
        return loss(untrained, tokenizer, text, longest), loss(model, tokenizer, text, longest)


def paragraphs(config: Config) -> tuple[str, ...]:
    """The fixed text: generated, by another seed than in pretraining, for a model that knows only such text."""
    mini = config.model.mini
    if config.model.source != "mini" or mini.text:
        return forgetting.PARAGRAPHS
    make = mini_text.CORPORA[mini.corpus] if mini.architecture == "gpt2" else mini_text.corpus
    return tuple(chain.from_iterable(make(SENTENCES, mini.seed + 1)))
