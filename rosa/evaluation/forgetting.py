"""The loss of a language model on a fixed text that no task shows: how much of pretraining a model has kept.

Encoders predict masked tokens, causal language models the next token. The loss is the mean over tokens, in nats.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from rosa.evaluation.perplexity import token_losses
from rosa.utils.modes import evaluating
from rosa.utils.names import IGNORED

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

PARAGRAPHS = (
    "The ferry leaves the island twice a day in winter and four times in summer. In a storm it stays in the harbour, "
    "and the school on the other side begins an hour later.",
    "Bread dough rises because yeast turns sugar into gas. A cold kitchen slows this down, so bakers who start in the"
    " evening often leave the bowl on the table and shape the loaves before breakfast.",
    "She sold the bicycle to a neighbour, who painted it green and rode it to the market every Saturday with two "
    "baskets of onions.",
    "A river carries more sand when the snow in the mountains melts. Where the water slows down, the sand sinks, and "
    "after some years there is a bank on which willows grow.",
    "The council met on Tuesday to decide about the old cinema. Some members wanted a library, others a hall for "
    "concerts; in the end they asked the owner to repair the roof first.",
    "Most clocks of that time lost a few minutes a week. The watchmaker went from house to house, set them by his "
    "own, and drank a cup of tea in each kitchen.",
    "If two trains leave at the same time and one of them is faster, the distance between them grows by the same "
    "amount every hour.",
    "He learned to play the violin when he was six, gave it up at sixteen, and found it again in a box in the attic "
    "on the day he retired.",
)
"""Text for models that were pretrained on English; written for this purpose."""
LONGEST = 128
"""Tokens of a paragraph, where the model's positions do not allow fewer."""
STEP, FIRST = 6, 2
"""Every sixth token of a paragraph is masked, from the third on; special tokens are not."""


def masked_loss(
    model: nn.Module, tokenizer: PreTrainedTokenizerBase, paragraphs: Sequence[str], longest: int = LONGEST
) -> float:
    """Mean loss of the masked tokens of all paragraphs; the same ones are masked each time.

    Args:
        model: with a head that predicts masked tokens.
        tokenizer: has a masking token.
        paragraphs: the text.
        longest: tokens of a paragraph; longer ones are cut.
    """
    batch = _batch(model, tokenizer, paragraphs, longest)
    ids, special = batch["input_ids"], batch.pop("special_tokens_mask").bool()
    places = torch.arange(ids.shape[1], device=ids.device)
    chosen = ((places % STEP) == FIRST) & ~special
    batch["input_ids"] = ids.masked_fill(chosen, tokenizer.mask_token_id)
    logits = _logits(model, batch)
    return float(functional.cross_entropy(logits[chosen].double(), ids[chosen]))


def next_token_loss(
    model: nn.Module, tokenizer: PreTrainedTokenizerBase, paragraphs: Sequence[str], longest: int = LONGEST
) -> float:
    """Mean loss of every token of the paragraphs but the first of each."""
    batch = _batch(model, tokenizer, paragraphs, longest)
    batch.pop("special_tokens_mask")
    labels = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, IGNORED)
    summed, counted = token_losses(_logits(model, batch), labels).sum(0).tolist()
    return summed / counted


def _batch(
    model: nn.Module, tokenizer: PreTrainedTokenizerBase, paragraphs: Sequence[str], longest: int
) -> dict[str, Tensor]:
    device = next(model.parameters()).device
    encoded: Any = tokenizer(
        list(paragraphs),
        truncation=True,
        max_length=longest,
        padding=True,
        padding_side="right",
        return_special_tokens_mask=True,
        return_tensors="pt",
    )
    wanted = ("input_ids", "attention_mask", "token_type_ids", "special_tokens_mask")
    return {name: encoded[name].to(device) for name in wanted if name in encoded}


def _logits(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    """What the model computes in evaluation mode, without gradients."""
    with evaluating(model), torch.no_grad():
        # Not model(...), which would compile a compiled model once more, for this one text.
        logits: Tensor = model.forward(**batch).logits
    return logits
