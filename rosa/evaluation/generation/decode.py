"""Continue prompts with a causal language model: beam search in batches, which changes no hypothesis.

A batch is padded on the left, so that the last token of every prompt stands in the last column, with a mask that hides
the padding and positions that do not count it. Beams of different prompts share nothing but the matrix products, so a
prompt has the same hypothesis in any batch, up to the rounding of those products: two tokens whose probabilities
agree to the last digit of a float32 may change places, and in bfloat16 more of them agree.

Three things of ``transformers`` would make it otherwise, and are kept out here:

* settings that are not given are taken from the model's own ``generation_config``: it is replaced meanwhile;
* a model may write its padding token, of which nothing was learnt: that token is forbidden;
* the room for new tokens is one number a batch: prompts that leave less room than asked for have batches of their own.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import transformers
from torch import Tensor
from tqdm import tqdm
from transformers import (
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    NoRepeatNGramLogitsProcessor,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from rosa.config import NOT_IDENTITY, DecodingConfig, to_dict
from rosa.errors import DecodingError
from rosa.evaluation.generation.journal import Journal
from rosa.utils.tokens import begin_tokens

SHOWN = 60
"""Characters of a prompt that an error quotes."""


@dataclass(frozen=True)
class Continuation:
    """What a model wrote behind a prompt."""

    tokens: tuple[int, ...]
    """Without the end token."""
    ended: bool
    """Whether the model ended it; otherwise the room for new tokens did."""


@dataclass(frozen=True)
class Hypotheses:
    """The continuations of all prompts, in the prompts' order."""

    continuations: tuple[Continuation, ...]
    texts: tuple[str, ...]
    """Each on one line."""
    limited: int
    """Prompts that left less room in the model's context than ``max_new_tokens``."""

    @property
    def unended(self) -> int:
        """Hypotheses that the model never ended."""
        return sum(not continuation.ended for continuation in self.continuations)

    @property
    def empty(self) -> int:
        """Hypotheses without a visible character."""
        return sum(not text for text in self.texts)

    def warnings(self) -> list[str]:
        """What a reader of the scores should know: hypotheses cut off or empty."""
        count, found = len(self.texts), []
        if self.unended:
            found.append(
                f"{self.unended} of {count} hypotheses were never ended by the model, and are cut off: it needs more "
                "training, or more room (decoding.max_new_tokens)"
            )
        if self.empty:
            found.append(f"{self.empty} of {count} hypotheses are empty")
        if self.limited:
            found.append(
                f"{self.limited} of {count} prompts leave less room in the model's context than "
                "decoding.max_new_tokens; their hypotheses end there at the latest"
            )
        return found


def decode(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str],
    config: DecodingConfig,
    journal: Journal | None = None,
    model_key: str = "",
    progress: bool = True,
) -> Hypotheses:
    """Continue each prompt, and cut the prompt off again by the position of its tokens.

    Args:
        model: a causal language model, on its device; with or without adapters.
        tokenizer: with an end token, and a padding token that is another one.
        prompts: without the space that the continuation begins with.
        config: how to decode.
        journal: finished prompts, which are not decoded again; every batch is added to it.
        model_key: names the model's weights in the journal.
        progress: draw a bar on standard error.

    Raises:
        DecodingError: no prompts, an empty one, one that fills the model's context, or a tokenizer whose end and
            padding tokens do not serve.
        JournalError: the journal cannot be written.
    """
    end, padding = _special_tokens(model, tokenizer)
    encoded = _encode(tokenizer, prompts)
    rooms = _rooms(model, prompts, encoded, config.max_new_tokens)
    settings = _settings_key(model_key, config, end)
    keys = [hashlib.sha256(f"{settings} {ids}".encode()).hexdigest() for ids in encoded]
    times = Counter(keys)
    finished = journal.entries if journal is not None else {}
    found = {key: _from_journal(finished[key]) for key in times if key in finished}
    # A prompt that is there twice is decoded once.
    missing = {key: row for row, key in enumerate(keys) if key not in found}
    done = sum(times[key] for key in found)
    bar = tqdm(total=len(keys), initial=done, desc="decode", unit="prompt", dynamic_ncols=True, disable=not progress)
    with bar:
        for rows in batches([len(ids) for ids in encoded], rooms, list(missing.values()), config.batch_size):
            batch = continue_prompts(model, [encoded[row] for row in rows], rooms[rows[0]], config, end, padding)
            new = {keys[row]: continuation for row, continuation in zip(rows, batch, strict=True)}
            if journal is not None:
                journal.add({key: {"tokens": list(one.tokens), "ended": one.ended} for key, one in new.items()})
            found.update(new)
            bar.update(sum(times[key] for key in new))
    continuations = tuple(found[key] for key in keys)
    texts = tuple(one_line(str(tokenizer.decode(list(one.tokens), skip_special_tokens=True))) for one in continuations)
    return Hypotheses(continuations, texts, sum(room < config.max_new_tokens for room in rooms))


def _from_journal(entry: Mapping[str, Any]) -> Continuation:
    return Continuation(tuple(entry["tokens"]), entry["ended"])


def one_line(text: str) -> str:
    """A text without line ends and control characters, U+0085, U+2028 and U+2029 among them; white space is a space."""
    return " ".join(re.sub(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]", " ", text).split())


def batches(lengths: Sequence[int], rooms: Sequence[int], rows: Sequence[int], size: int) -> list[list[int]]:
    """Put rows of similar length together, the longest first: what does not fit in memory fails at once.

    Args:
        lengths: tokens of each prompt.
        rooms: new tokens that each may get; a batch has one room.
        rows: which prompts.
        size: rows of a batch at most.
    """
    found: list[list[int]] = []
    for row in sorted(rows, key=lambda row: (-lengths[row], row)):
        if not found or len(found[-1]) == size or rooms[found[-1][0]] != rooms[row]:
            found.append([])
        found[-1].append(row)
    return found


# --- what is asked for -----------------------------------------------------------------------------------------------


def _special_tokens(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> tuple[int, int]:
    """The end and the padding token's ids."""
    end, padding, name = tokenizer.eos_token_id, tokenizer.pad_token_id, repr(tokenizer.name_or_path)
    if end is None:
        raise DecodingError(f"the tokenizer {name} has no end token, so that nothing would ever end")
    if padding is None:
        raise DecodingError(f"the tokenizer {name} has no padding token, which batches need")
    if padding == end:
        raise DecodingError(
            f"the tokenizer {name} pads with its end token, {tokenizer.eos_token!r}: a model trained "
            "so may never have learnt to stop; give the tokenizer a padding token of its own before training"
        )
    rows = model.config.vocab_size
    if max(end, padding, len(tokenizer) - 1) >= rows:
        raise DecodingError(
            f"the tokenizer {name} has {len(tokenizer)} tokens and the model's vocabulary {rows}: "
            "they do not belong together"
        )
    return end, padding


def _encode(tokenizer: PreTrainedTokenizerBase, prompts: Sequence[str]) -> list[list[int]]:
    if not prompts:
        raise DecodingError("no prompts: there is nothing to decode")
    encoded = tokenizer(list(prompts), add_special_tokens=False, verbose=False)["input_ids"]
    for number, ids in enumerate(encoded):
        if not ids:
            raise DecodingError(f"prompt {number + 1} of {len(prompts)}, {prompts[number]!r}, has no tokens")
    begin = begin_tokens(tokenizer)
    return [[*begin, *ids] for ids in encoded]


def _rooms(model: PreTrainedModel, prompts: Sequence[str], encoded: Sequence[Sequence[int]], most: int) -> list[int]:
    """New tokens that each prompt may get."""
    context = getattr(model.config, "max_position_embeddings", None)
    if context is None:
        return [most] * len(encoded)
    for number, ids in enumerate(encoded):
        if len(ids) >= context:
            quoted = prompts[number] if len(prompts[number]) <= SHOWN else prompts[number][: SHOWN - 3] + "..."
            raise DecodingError(
                f"prompt {number + 1} of {len(prompts)}, {quoted!r}, has {len(ids)} tokens; the model's context holds "
                f"{context}, one of them at least for the hypothesis"
            )
    return [min(most, context - len(ids)) for ids in encoded]


def _settings_key(model_key: str, config: DecodingConfig, end: int) -> str:
    """All that a continuation depends on besides the prompt."""
    settings = {name: value for name, value in to_dict(config).items() if name not in NOT_IDENTITY["decoding"]}
    return json.dumps([model_key, settings, end, torch.__version__, transformers.__version__], sort_keys=True)


# --- one batch -------------------------------------------------------------------------------------------------------


class NoRepeat(LogitsProcessor):
    """Forbid the tokens that would repeat a sequence.

    Args:
        size: tokens of a sequence.
        start: the column from which on sequences count.
    """

    def __init__(self, size: int, start: int) -> None:
        self.start = start
        self._whole = NoRepeatNGramLogitsProcessor(size)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Mask ``scores`` (beams, vocabulary), given ``input_ids`` (beams, tokens so far)."""
        return self._whole(input_ids[:, self.start :], scores)


def continue_prompts(
    model: PreTrainedModel, encoded: Sequence[Sequence[int]], room: int, config: DecodingConfig, end: int, padding: int
) -> list[Continuation]:
    """Continue the prompts of one batch.

    Args:
        model: a causal language model.
        encoded: the tokens of each prompt.
        room: new tokens at most.
        config: beams, length penalty and what may not be repeated.
        end: the end token.
        padding: another token, which is never written.
    """
    width = max(map(len, encoded))
    ids = torch.full((len(encoded), width), padding)  # (prompts, width)
    mask = torch.zeros_like(ids)
    for row, prompt in enumerate(encoded):
        ids[row, width - len(prompt) :] = torch.tensor(prompt)
        mask[row, width - len(prompt) :] = 1
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    processors = LogitsProcessorList()
    if config.no_repeat_ngram:
        # No token of a hypothesis is the padding token, so the padding before a prompt forbids nothing.
        processors.append(NoRepeat(config.no_repeat_ngram, 0 if config.no_repeat_prompt else width))
    settings = _generation_config(config, room, end, padding)
    with _own_settings(model, settings), torch.inference_mode():
        sequences = model.generate(  # type: ignore[operator]  # a mixin that mypy takes for a submodule
            ids.to(model.device),
            generation_config=settings,
            attention_mask=mask.to(model.device),
            position_ids=positions.to(model.device),
            logits_processor=processors,
        )
    return [_cut(new, end) for new in sequences[:, width:].tolist()]


def _generation_config(config: DecodingConfig, room: int, end: int, padding: int) -> GenerationConfig:
    settings = GenerationConfig(
        do_sample=False,
        num_beams=config.beams,
        max_new_tokens=room,
        eos_token_id=end,
        pad_token_id=padding,
        suppress_tokens=[padding],
        use_cache=True,
    )
    if config.beams > 1:
        settings.length_penalty = config.length_penalty
        settings.early_stopping = False
    return settings


@contextmanager
def _own_settings(model: PreTrainedModel, settings: GenerationConfig) -> Iterator[None]:
    """Let ``generate`` see these settings alone, with the model in evaluation mode."""
    saved, training = model.generation_config, model.training
    model.generation_config = settings
    model.eval()
    try:
        yield
    finally:
        model.generation_config = saved
        model.train(training)


def _cut(tokens: list[int], end: int) -> Continuation:
    """The tokens before the end; what stands behind it fills the batch up."""
    ended = end in tokens
    return Continuation(tuple(tokens[: tokens.index(end)] if ended else tokens), ended)
