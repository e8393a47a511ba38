"""Input of the small GPT-2: its byte-level tokenizer, and contexts in which a name has to be copied."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from random import Random
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

END_TOKEN, PAD_TOKEN = "<|endoftext|>", "<|pad|>"
END, PAD = 0, 1
TEXTS_IN_CONTEXT = (2, 3)
"""Minimum and maximum number of texts of one paragraph in a context; fewer if the paragraph has fewer."""
RENAMED_SHARE = 0.5
"""Share of training contexts in which names that several texts share are replaced by invented ones."""


def build_tokenizer(paragraphs: Sequence[Sequence[str]], vocabulary: int, context: int) -> PreTrainedTokenizerFast:
    """GPT-2's byte-level BPE, trained on these texts; encodes any text without loss.

    The padding token differs from the end token, so a model can learn to stop.

    Args:
        paragraphs: the texts.
        vocabulary: maximum number of tokens: the 256 bytes, the two special tokens, and merges.
        context: maximum tokens of an input.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[END_TOKEN, PAD_TOKEN],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator((text for texts in paragraphs for text in texts), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=END_TOKEN,
        eos_token=END_TOKEN,
        pad_token=PAD_TOKEN,
        model_max_length=context,
        model_input_names=["input_ids", "attention_mask"],
        # GPT-2's tokenizers keep spaces before punctuation.
        clean_up_tokenization_spaces=False,
    )


def words(text: str) -> list[str]:
    """The words of a text, without spaces and punctuation."""
    return re.findall(r"\w+", text)


def names(paragraphs: Sequence[Sequence[str]]) -> list[str]:
    """The words that begin with a capital letter more often than not, in alphabetical order."""
    counts = Counter(word for texts in paragraphs for text in texts for word in words(text))
    return sorted(
        word for word, count in counts.items() if word[0].isupper() and len(word) > 1 and count > counts[word.lower()]
    )


def renamed(texts: Sequence[str], known: Sequence[str], rng: Random) -> list[str]:
    """Replace each name that two of the texts share by an invented word, the same in all texts.

    The invented word joins the beginning of one known name and the end of another. Texts with few names, as in E2E,
    teach a model to recall them; new names each time teach it to copy them from the context.
    """
    occurrences = Counter(word for text in texts for word in set(words(text)))
    shared = sorted(word for word in set(known).intersection(occurrences) if occurrences[word] > 1)
    invented = {word: _invented(known, rng) for word in shared}
    return [re.sub(r"\w+", lambda match: invented.get(match[0], match[0]), text) for text in texts]


def _invented(known: Sequence[str], rng: Random) -> str:
    first, second = rng.choice(known), rng.choice(known)
    return first[: rng.randint(1, len(first))] + second[rng.randint(1, len(second)) :]


def contexts(paragraphs: Sequence[Sequence[str]], renamed_share: float, rng: Random) -> Iterator[str]:
    """Yield contexts: each text once, with others of its paragraph, one per line; some are :func:`renamed`."""
    known = names(paragraphs)
    for paragraph in paragraphs:
        texts = rng.sample(paragraph, len(paragraph))
        while texts:
            count = rng.randint(*TEXTS_IN_CONTEXT)
            together, texts = texts[:count], texts[count:]
            if known and rng.random() < renamed_share:
                together = renamed(together, known, rng)
            yield "\n".join(together)


def encode(texts: Iterable[str], tokenizer: PreTrainedTokenizerFast) -> list[list[int]]:
    """The token ids of each text, followed by the end token."""
    return [[*row, END] for row in tokenizer(list(texts))["input_ids"]]
