"""Pretrain the small GPT-2 of the mini scale, a causal language model, on given text, and cache it."""

from __future__ import annotations

import dataclasses
import math
import statistics
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

import torch

from rosa.config import MiniModelConfig
from rosa.errors import DataError
from rosa.mini.pretraining import cache
from rosa.mini.pretraining.gpt2_text import END, PAD, RENAMED_SHARE, build_tokenizer, contexts, encode
from rosa.mini.pretraining.induction import induce
from rosa.mini.pretraining.loop import batches, build_optimizer, build_schedule, last_tenth, one_thread, update
from rosa.utils.names import IGNORED
from rosa.utils.seeding import global_stream

if TYPE_CHECKING:
    from transformers import GPT2Config, GPT2LMHeadModel

HELD_OUT_SHARE = 0.02
"""Share of the paragraphs that are held out for evaluation."""
OF_TEXT = ("text", "glue", "corpus", "sentences")
"""Settings that determine the text only, which is in the cache's key itself."""
JUDGED_BATCH = 32
"""Held-out contexts per batch."""
VERSION = 1
"""Part of the cache's key: raise it when a change here, or in what this uses, gives other weights."""


def architecture(mini: MiniModelConfig, vocabulary_size: int) -> GPT2Config:
    """transformers' configuration of a GPT-2 of the configured shape."""
    from transformers import GPT2Config

    return GPT2Config(
        vocab_size=vocabulary_size,
        n_positions=mini.context,
        n_embd=mini.hidden,
        n_layer=mini.layers,
        n_head=mini.heads,
        n_inner=mini.intermediate,
        bos_token_id=END,
        eos_token_id=END,
        pad_token_id=PAD,
        # A model this small and trained for so few steps does not overfit; dropout would only slow it down.
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
    )


def build_model(mini: MiniModelConfig, vocabulary_size: int) -> GPT2LMHeadModel:
    """A GPT-2 of the configured shape with weights drawn from ``mini.seed``; the global RNG is not used.

    Input and output embeddings are tied; :func:`rosa.mini.pretraining.induction.induce` initializes some heads.
    """
    from transformers import GPT2LMHeadModel

    with global_stream(mini.seed):
        model = GPT2LMHeadModel(architecture(mini, vocabulary_size))
        with torch.no_grad():
            induce(model)
        return model


def shifted_positions(batch: torch.Tensor, context: int, generator: torch.Generator) -> torch.Tensor:
    """Positions (rows, length) that count up from a random offset in each row.

    Pretraining texts are short, so later positions would never be trained; the offset covers the whole context
    (SHAPE, arXiv 2109.05644, abstract).
    """
    rows, length = batch.shape
    shift = torch.randint(context - length + 1, (rows, 1), generator=generator)
    return shift + torch.arange(length)


def next_token_loss(model: GPT2LMHeadModel, batch: torch.Tensor, positions: torch.Tensor) -> tuple[torch.Tensor, int]:
    """The summed cross entropy, in nats, over a batch (rows, length) but its first tokens, and the number of tokens."""
    device = model.device
    # Padding is on the right, where causal attention does not reach it.
    logits = model(input_ids=batch.to(device), position_ids=positions.to(device)).logits[:, :-1]
    labels = torch.where(batch == PAD, IGNORED, batch)[:, 1:]
    loss = torch.nn.functional.cross_entropy(
        logits.flatten(0, 1), labels.flatten().to(device), ignore_index=IGNORED, reduction="sum"
    )
    return loss, int((labels != IGNORED).sum())


def held_out_loss(model: GPT2LMHeadModel, encoded: Sequence[list[int]]) -> float:
    """Mean cross entropy per token, in nats, of held-out texts."""
    total, tokens = 0.0, 0
    ordered = sorted(encoded, key=len)
    with torch.no_grad():
        for start in range(0, len(ordered), JUDGED_BATCH):
            rows = [torch.tensor(row) for row in ordered[start : start + JUDGED_BATCH]]
            batch = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=PAD)
            loss, count = next_token_loss(model, batch, torch.arange(batch.shape[1]).expand_as(batch))
            total, tokens = total + loss.item(), tokens + count
    return total / max(1, tokens)


def check_paragraphs(paragraphs: Sequence[Sequence[str]]) -> None:
    """Refuse text of which nothing could be held out.

    Raises:
        DataError: fewer than two paragraphs.
    """
    if len(paragraphs) < 2:
        raise DataError(f"{len(paragraphs)} paragraphs: expected at least two, one of them for validation")


@one_thread()
def pretrain_gpt2(
    paragraphs: Sequence[Sequence[str]],
    mini: MiniModelConfig,
    folder: Path,
    origin: Mapping[str, Any],
    device: str = "cpu",
) -> dict[str, Any]:
    """Train a GPT-2 to predict the next token, and save it with its tokenizer as a folder.

    The folder appears whole or not at all. It is what ``AutoModelForCausalLM.from_pretrained`` and
    ``AutoTokenizer.from_pretrained`` read. The same arguments give the same weights on the same machine.

    Args:
        paragraphs: each a list of texts about one thing; some share a context in training.
        mini: shape and training of the model.
        folder: where to save; must not exist.
        origin: source of the text, for the facts.
        device: device to train on.

    Returns:
        The facts that are also saved beside the model: ``parameters``, ``vocabulary`` (tokens), ``steps``, ``tokens``
        (predicted in training), ``loss`` (mean cross entropy in nats of the last tenth of the steps),
        ``held_out_perplexity`` (per token, over held-out paragraphs), ``cut`` (number of inputs longer than the
        context), ``seconds``, and ``text`` (``origin``, and the numbers of paragraphs and texts).

    Raises:
        DataError: fewer than two paragraphs.
        ModelError: the folder exists already.
    """
    from tqdm.auto import tqdm

    check_paragraphs(paragraphs)
    cache.refuse_existing(folder)
    begun = time.perf_counter()
    rng = Random(mini.seed)
    generator = torch.Generator().manual_seed(mini.seed)
    shuffled = rng.sample(list(paragraphs), len(paragraphs))
    apart = max(1, round(HELD_OUT_SHARE * len(shuffled)))
    held_out, trained_on = shuffled[:apart], shuffled[apart:]
    tokenizer = build_tokenizer(trained_on, mini.vocabulary, mini.context)
    model = build_model(mini, len(tokenizer)).train().to(torch.device(device))
    encoded = encode(contexts(trained_on, RENAMED_SHARE, rng), tokenizer)
    stream = batches([row[: mini.context] for row in encoded], mini.batch_size, PAD, generator)
    optimizer = build_optimizer(model, mini.lr)
    schedule = build_schedule(optimizer, mini.steps)
    losses: list[float] = []
    tokens = 0
    for _ in (bar := tqdm(range(mini.steps), desc="pretraining the mini GPT-2", unit="step")):
        batch = next(stream)
        loss, count = next_token_loss(model, batch, shifted_positions(batch, mini.context, generator))
        loss = loss / max(1, count)
        update(loss, model, optimizer, schedule)
        losses.append(loss.item())
        tokens += count
        bar.set_postfix(loss=f"{losses[-1]:.3f}", refresh=False)
    judged = encode(contexts(held_out, 0.0, rng), tokenizer)
    perplexity = math.exp(held_out_loss(model.eval(), [row[: mini.context] for row in judged]))
    facts = {
        "parameters": sum(p.numel() for p in model.parameters()),
        "vocabulary": len(tokenizer),
        "steps": mini.steps,
        "tokens": tokens,
        "loss": statistics.fmean(last_tenth(losses, mini.steps)),
        "held_out_perplexity": perplexity,
        "cut": sum(len(row) > mini.context for row in (*encoded, *judged)),
        "seconds": time.perf_counter() - begun,
        "text": {**origin, "paragraphs": len(paragraphs), "texts": sum(len(texts) for texts in paragraphs)},
    }
    cache.save_whole(model, tokenizer, facts, folder)
    return facts


def cache_key(paragraphs: Sequence[Sequence[str]], mini: MiniModelConfig) -> str:
    """The cache key, sixteen hexadecimal digits: a hash of shape, training, text (not its path) and version."""
    shape = {name: value for name, value in dataclasses.asdict(mini).items() if name not in OF_TEXT}
    return cache.key([VERSION, shape, [list(texts) for texts in paragraphs]])


def cached_gpt2(
    paragraphs: Sequence[Sequence[str]],
    mini: MiniModelConfig,
    cache_dir: Path,
    origin: Mapping[str, Any],
    device: str = "cpu",
) -> Path:
    """The folder of a pretrained GPT-2; trained on the first call, cached afterwards.

    Raises:
        DataError: as :func:`pretrain_gpt2`.
    """
    folder = cache_dir / f"mini-gpt2-{cache_key(paragraphs, mini)}"
    return cache.cached(folder, lambda new: pretrain_gpt2(paragraphs, mini, new, origin, device))
