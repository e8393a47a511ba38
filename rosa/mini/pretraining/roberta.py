"""Pretrain the small RoBERTa of the mini scale, a word tokenizer and a masked-language model, on given text.

It replaces a downloaded backbone where no hub is reachable. The text is passed in as paragraphs; this module does not
depend on its source.
"""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional

from rosa.config import MiniModelConfig
from rosa.errors import DataError
from rosa.mini.pretraining import cache
from rosa.mini.pretraining.associations import associated, associations
from rosa.mini.pretraining.loop import batches, build_optimizer, build_schedule, last_tenth, one_thread, update
from rosa.mini.pretraining.roberta_text import (
    END,
    MAX_LENGTH,
    PAD,
    START,
    Substitutes,
    build_tokenizer,
    disturb,
    inputs,
    mask_tokens,
    masking_rates,
    texts_of_pairs,
    token_types,
)
from rosa.utils.names import IGNORED
from rosa.utils.seeding import global_stream

if TYPE_CHECKING:
    from transformers import RobertaConfig, RobertaForMaskedLM

JUDGED_SHARE = 0.5
"""Share of the inputs on which the model detects changed words instead of predicting masked ones."""
JUDGE_WEIGHT = 5.0
"""Weight of the detection loss relative to the loss on masked words; both are means over tokens."""
EMBEDDING_SCALE = 5.0
"""Standard deviation of the embeddings at the start, as a multiple of that of the other weights."""
VERSION = 3
"""Part of the cache's key: raise it when a change here gives other weights."""
NOT_READ = ("architecture", "vocabulary", "context", "corpus", "text", "glue")
"""Settings of GPT-2, which do not affect a RoBERTa and are not part of its key."""


def architecture(mini: MiniModelConfig, vocabulary_size: int) -> RobertaConfig:
    """transformers' configuration of a RoBERTa of the configured shape."""
    from transformers import RobertaConfig

    return RobertaConfig(
        vocab_size=vocabulary_size,
        hidden_size=mini.hidden,
        num_hidden_layers=mini.layers,
        num_attention_heads=mini.heads,
        intermediate_size=mini.intermediate,
        # RoBERTa numbers positions from the padding token's id plus one.
        max_position_embeddings=MAX_LENGTH + PAD + 1,
        type_vocab_size=2,
        bos_token_id=START,
        pad_token_id=PAD,
        eos_token_id=END,
        # A model this small and trained for so few steps does not overfit; dropout would only slow it down.
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        classifier_dropout=0.1,
    )


def build_model(mini: MiniModelConfig, vocabulary_size: int) -> RobertaForMaskedLM:
    """A RoBERTa of the configured shape with random weights drawn from ``mini.seed``; the global RNG is not used."""
    from transformers import RobertaForMaskedLM

    with global_stream(mini.seed):
        model = RobertaForMaskedLM(architecture(mini, vocabulary_size))
        with torch.no_grad():
            compare_texts(model)
        return model


def compare_texts(model: RobertaForMaskedLM) -> None:
    """Initialize half of the first layer's heads to compare texts: a word attends to itself in the other one.

    A word that occurs there is cancelled, one that does not remains. The product of query and key weights starts near
    the identity, that of value and output weights near its negative: pretrained vision transformers have such weights,
    and small ones gain by starting with them (mimetic initialization, Trockman and Kolter, arXiv 2305.09828, abstract).
    Here the heads attend across the two texts; from random weights, learning that would take more steps than this
    model is trained for.
    """
    embeddings = model.roberta.embeddings
    layer: Any = model.roberta.encoder.layer[0].attention  # untyped in transformers
    width, half = model.config.hidden_size, model.config.hidden_size // 2
    # With small embeddings, a few updates would erase the initialization.
    embeddings.word_embeddings.weight.mul_(EMBEDDING_SCALE)
    text = torch.randn(width)
    # Token types: the scale of word embeddings, opposite in the two texts; positions are smaller.
    spread = model.config.initializer_range * EMBEDDING_SCALE
    embeddings.token_type_embeddings.weight.copy_(torch.stack((text, -text)) * spread)
    embeddings.position_embeddings.weight.mul_(0.5 * EMBEDDING_SCALE)
    direction = text / text.norm()
    seeking = torch.randn(half, width) * (2 / width) ** 0.5
    layer.self.query.weight[:half] = seeking
    # The reflection maps one text to the other, so a word attends to the other text and not to itself.
    layer.self.key.weight[:half] = seeking - 2 * torch.outer(seeking @ direction, direction)
    told = torch.linalg.qr(torch.randn(width, half)).Q
    layer.self.value.weight[:half] = told.T
    layer.output.dense.weight[:, :half] = -told


@one_thread()
def pretrain_roberta(
    paragraphs: Sequence[Sequence[str]],
    vocabulary: Sequence[str],
    mini: MiniModelConfig,
    folder: Path,
    device: str = "cpu",
) -> dict[str, float]:
    """Train a RoBERTa by masked language modelling, and save it with its tokenizer as a folder.

    Beside masked words, the model learns to detect words that were exchanged or replaced: from masked words alone, a
    model this small is slow to learn who did what, and whether a second text agrees. The detection layer is discarded.

    The folder appears whole or not at all. It is what ``AutoModel*.from_pretrained`` and
    ``AutoTokenizer.from_pretrained`` read. The same arguments give the same weights on the same machine.

    Args:
        paragraphs: each a list of sentences; some inputs hold several of them.
        vocabulary: words, in lower case, that become tokens.
        mini: shape and training of the model.
        folder: where to save; must not exist.
        device: device to train on.

    Returns:
        The facts that are also saved beside the model: ``parameters``, ``steps``, ``loss`` (mean masked-token cross
        entropy, in nats, of the last tenth of the steps), ``right`` (accuracy of the detection, over the same steps)
        and ``seconds``.

    Raises:
        DataError: no paragraphs, or a vocabulary that :func:`build_tokenizer` refuses.
        ModelError: the folder exists already.
    """
    from tqdm.auto import tqdm

    if not paragraphs:
        raise DataError("paragraphs: expected at least one")
    cache.refuse_existing(folder)
    begun = time.perf_counter()
    tokenizer = build_tokenizer(vocabulary)
    model = build_model(mini, len(tokenizer)).train()
    # Zero-initialized, so the global generator is not used.
    judge = torch.nn.utils.skip_init(torch.nn.Linear, mini.hidden, 1)
    torch.nn.init.zeros_(judge.weight)
    torch.nn.init.zeros_(judge.bias)
    generator = torch.Generator().manual_seed(mini.seed)
    encoded = inputs(paragraphs, tokenizer, generator)
    rates = masking_rates(encoded, len(tokenizer))
    substitutes = Substitutes(encoded, len(tokenizer))
    counts = torch.bincount(torch.tensor([number for row in encoded for number in row]), minlength=len(tokenizer))
    with torch.no_grad():
        weight = model.roberta.embeddings.word_embeddings.weight
        weight.copy_(associated(weight, associations(texts_of_pairs(encoded), len(weight))))
        # Start from the known frequencies of the masked words, which saves some hundred steps.
        model.lm_head.bias.copy_((counts * rates + 1).log())
    trained = torch.nn.ModuleList([model, judge]).to(device)  # from the same weights on any device
    stream = batches(encoded, mini.batch_size, PAD, generator)
    optimizer = build_optimizer(trained, mini.lr)
    schedule = build_schedule(optimizer, mini.steps)
    losses: list[float] = []
    right, judged_inputs = [], []
    for _ in (bar := tqdm(range(mini.steps), desc="pretraining the mini RoBERTa", unit="step")):
        batch = next(stream)
        is_judged = torch.rand(len(batch), generator=generator) < JUDGED_SHARE
        disturbed, wrong = disturb(batch, rates, substitutes, generator)
        # The first token's output judges the whole input.
        wrong[:, 0] = wrong.any(1)
        hidden, labels = mask_tokens(batch, rates, generator)
        labels = torch.where(is_judged[:, None], IGNORED, labels)
        shown = torch.where(is_judged[:, None], disturbed, hidden)
        chosen = labels != IGNORED
        states = model.roberta(
            shown.to(device),
            attention_mask=(batch != PAD).long().to(device),
            token_type_ids=token_types(batch).to(device),
        ).last_hidden_state
        predicted = model.lm_head(states[chosen.to(device)])
        # A tiny batch can have no token to predict, and its mean would be NaN.
        word_loss = functional.cross_entropy(predicted, labels[chosen].to(device), reduction="sum")
        word_loss = word_loss / max(1, int(chosen.sum()))
        judged_tokens = is_judged[:, None] & (batch != PAD)
        judged = judge(states[judged_tokens.to(device)]).squeeze(1)
        judge_loss = functional.binary_cross_entropy_with_logits(
            judged, wrong[judged_tokens].float().to(device), reduction="sum"
        )
        loss = word_loss + JUDGE_WEIGHT * judge_loss / max(1, int(judged_tokens.sum()))
        update(loss, trained, optimizer, schedule)
        losses.append(word_loss.item())
        of_whole = batch[judged_tokens] == START
        right.append(int(((judged > 0).cpu() == wrong[judged_tokens])[of_whole].sum()))
        judged_inputs.append(int(is_judged.sum()))
        bar.set_postfix(loss=f"{losses[-1]:.3f}", refresh=False)
    facts = {
        "parameters": sum(p.numel() for p in model.parameters()),
        "steps": mini.steps,
        "loss": statistics.fmean(last_tenth(losses, mini.steps)),
        "right": sum(last_tenth(right, mini.steps)) / max(1, sum(last_tenth(judged_inputs, mini.steps))),
        "seconds": time.perf_counter() - begun,
    }
    cache.save_whole(model, tokenizer, facts, folder)
    return facts


def cache_key(paragraphs: Sequence[Sequence[str]], vocabulary: Sequence[str], mini: MiniModelConfig) -> str:
    """The cache key, sixteen hexadecimal digits: a hash of shape, training, text, vocabulary and version."""
    read = {name: value for name, value in dataclasses.asdict(mini).items() if name not in NOT_READ}
    return cache.key([VERSION, read, list(vocabulary), [list(p) for p in paragraphs]])


def cached_roberta(
    paragraphs: Sequence[Sequence[str]],
    vocabulary: Sequence[str],
    mini: MiniModelConfig,
    cache_dir: Path,
    device: str = "cpu",
) -> Path:
    """The folder of a pretrained RoBERTa; trained on the first call, cached afterwards.

    Raises:
        DataError: as :func:`pretrain_roberta`.
    """
    folder = cache_dir / f"mini-roberta-{cache_key(paragraphs, vocabulary, mini)}"
    return cache.cached(folder, lambda new: pretrain_roberta(paragraphs, vocabulary, mini, new, device))
