"""Continue prompts with a causal language model: batched greedy decoding or beam search.

A hypothesis does not depend on the batch that its prompt is in. Batches are padded on the left, with an attention mask
and positions that exclude the padding, so different prompts only share the matrix products. Their rounding may differ:
two tokens whose probabilities are equal up to float32 rounding may swap, and in bfloat16 this is more frequent.

Three defaults of ``transformers`` are overridden, since they would change hypotheses:

* Settings that are not given come from the model's ``generation_config``; it is replaced while decoding.
* A model may generate its padding token, which was never trained; that token is suppressed.
* All prompts of a batch have the same maximum number of new tokens; prompts whose context leaves less room than
  ``max_new_tokens`` go to separate batches.
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
from rosa.utils.modes import evaluating
from rosa.utils.tokens import begin_tokens

SHOWN = 60
"""Maximum number of characters of a prompt quoted in an error."""


@dataclass(frozen=True)
class Continuation:
    """The tokens that a model generated after a prompt."""

    tokens: tuple[int, ...]
    """Without the end token."""
    ended: bool
    """Whether the model generated the end token; otherwise the maximum length was reached."""


@dataclass(frozen=True)
class Hypotheses:
    """The continuations of all prompts, in the prompts' order."""

    continuations: tuple[Continuation, ...]
    texts: tuple[str, ...]
    """Without line ends."""
    limited: int
    """Number of prompts that leave less room in the model's context than ``max_new_tokens``."""

    @property
    def unended(self) -> int:
        """Number of hypotheses without an end token."""
        return sum(not continuation.ended for continuation in self.continuations)

    @property
    def empty(self) -> int:
        """Number of hypotheses without a visible character."""
        return sum(not text for text in self.texts)

    def warnings(self) -> list[str]:
        """Warnings about truncated or empty hypotheses."""
        count, found = len(self.texts), []
        if self.unended:
            found.append(
                f"{self.unended} of {count} hypotheses reach the maximum length without an end token, and are cut off; "
                "train longer, or raise decoding.max_new_tokens"
            )
        if count > 1 and len(set(self.texts)) == 1 and self.texts[0]:
            found.append(f"all {count} hypotheses are the same text: the model tells no two prompts apart")
        if self.empty:
            found.append(f"{self.empty} of {count} hypotheses are empty")
        if self.limited:
            found.append(
                f"{self.limited} of {count} prompts leave less room in the model's context than "
                "decoding.max_new_tokens; the context limits their hypotheses"
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
    """Continue each prompt; the texts exclude the prompt, which is removed by the number of its tokens.

    Args:
        model: a causal language model, on its device; with or without adapters.
        tokenizer: has an end token, and a different padding token.
        prompts: without the space that begins the continuation.
        config: how to decode.
        journal: continuations of an interrupted call, which are not decoded again; each finished batch is added.
        model_key: identifies the model's weights in the journal.
        progress: show a progress bar on standard error.

    Raises:
        DecodingError: there are no prompts, a prompt is empty or fills the model's context, or the tokenizer's end or
            padding token cannot be used.
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
    # Equal prompts are decoded once.
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
    """Replace line ends, control characters and runs of white space by single spaces, and strip the text."""
    return " ".join(re.sub(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]", " ", text).split())


def batches(lengths: Sequence[int], rooms: Sequence[int], rows: Sequence[int], size: int) -> list[list[int]]:
    """Batch prompts of similar length, the longest first, so that a lack of memory shows at once.

    Args:
        lengths: number of tokens of each prompt.
        rooms: maximum number of new tokens of each prompt; equal within a batch.
        rows: indices of the prompts to batch.
        size: maximum size of a batch.
    """
    found: list[list[int]] = []
    for row in sorted(rows, key=lambda row: (-lengths[row], row)):
        if not found or len(found[-1]) == size or rooms[found[-1][0]] != rooms[row]:
            found.append([])
        found[-1].append(row)
    return found


# --- the request -----------------------------------------------------------------------------------------------------


def _special_tokens(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> tuple[int, int]:
    """The ids of the end token and the padding token."""
    end, padding, name = tokenizer.eos_token_id, tokenizer.pad_token_id, repr(tokenizer.name_or_path)
    if end is None:
        raise DecodingError(f"the tokenizer {name} has no end token (eos_token), which decoding needs")
    if padding is None:
        raise DecodingError(f"the tokenizer {name} has no padding token (pad_token), which batches need")
    if padding == end:
        raise DecodingError(
            f"the tokenizer {name} pads with its end token, {tokenizer.eos_token!r}, so its model may not have learnt "
            "to end a text; set a different pad_token before training"
        )
    rows = model.config.vocab_size
    if max(end, padding, len(tokenizer) - 1) >= rows:
        raise DecodingError(
            f"the tokenizer {name} has {len(tokenizer)} tokens, but the model's vocabulary {rows}; use the model's own "
            "tokenizer"
        )
    return end, padding


def _encode(tokenizer: PreTrainedTokenizerBase, prompts: Sequence[str]) -> list[list[int]]:
    if not prompts:
        raise DecodingError("no prompts to decode; expected at least one")
    encoded = tokenizer(list(prompts), add_special_tokens=False, verbose=False)["input_ids"]
    for number, ids in enumerate(encoded):
        if not ids:
            raise DecodingError(
                f"prompt {number + 1} of {len(prompts)}, {prompts[number]!r}, has no tokens; expected text"
            )
    begin = begin_tokens(tokenizer)
    return [[*begin, *ids] for ids in encoded]


def _rooms(model: PreTrainedModel, prompts: Sequence[str], encoded: Sequence[Sequence[int]], most: int) -> list[int]:
    """The maximum number of new tokens of each prompt."""
    context = getattr(model.config, "max_position_embeddings", None)
    if context is None:
        return [most] * len(encoded)
    for number, ids in enumerate(encoded):
        if len(ids) >= context:
            quoted = prompts[number] if len(prompts[number]) <= SHOWN else prompts[number][: SHOWN - 3] + "..."
            raise DecodingError(
                f"prompt {number + 1} of {len(prompts)}, {quoted!r}, has {len(ids)} tokens; expected fewer than the "
                f"model's context of {context} tokens, to leave room for the hypothesis"
            )
    return [min(most, context - len(ids)) for ids in encoded]


def _settings_key(model_key: str, config: DecodingConfig, end: int) -> str:
    """Text that identifies everything that a continuation depends on besides the prompt."""
    settings = {name: value for name, value in to_dict(config).items() if name not in NOT_IDENTITY["decoding"]}
    return json.dumps([model_key, settings, end, torch.__version__, transformers.__version__], sort_keys=True)


# --- one batch -------------------------------------------------------------------------------------------------------


class NoRepeat(LogitsProcessor):
    """Forbids tokens that would repeat an n-gram.

    Args:
        size: n, in tokens.
        start: the first column whose n-grams count.
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
        encoded: token ids of each prompt.
        room: maximum number of new tokens.
        config: beams, length penalty and n-grams not to repeat.
        end: id of the end token.
        padding: id of the padding token, which is never generated.
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
        # Hypotheses contain no padding token, so n-grams of the padding before a prompt forbid nothing.
        processors.append(NoRepeat(config.no_repeat_ngram, 0 if config.no_repeat_prompt else width))
    settings = _generation_config(config, room, end, padding)
    with _own_settings(model, settings), torch.inference_mode():
        sequences = model.generate(  # type: ignore[operator]  # mypy mistakes the mixin for a submodule
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
    """Replace the model's ``generation_config`` and put the model in evaluation mode; restore both at the end."""
    saved = model.generation_config
    model.generation_config = settings
    try:
        with evaluating(model):
            yield
    finally:
        model.generation_config = saved


def _cut(tokens: list[int], end: int) -> Continuation:
    """The tokens before the first end token; those after it pad the batch."""
    ended = end in tokens
    return Continuation(tuple(tokens[: tokens.index(end)] if ended else tokens), ended)
