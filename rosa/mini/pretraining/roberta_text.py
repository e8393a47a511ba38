"""Input of the small RoBERTa: its word tokenizer, and inputs with words masked, exchanged or replaced."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import torch

from rosa.errors import DataError
from rosa.utils.names import IGNORED

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

SPECIAL_TOKENS = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")
"""In RoBERTa's order; a token's position is its id."""
START, PAD, END, UNKNOWN, MASK = range(len(SPECIAL_TOKENS))
MAX_LENGTH = 64
"""Maximum number of tokens of an input."""

MASKED_SHARE = 0.3
"""Share of tokens to predict; of these 80 % are masked, 10 % replaced and 10 % kept (BERT, arXiv 1810.04805, section
3.1)."""
HIGHEST_RATE = 0.35
"""Maximum masking probability of a word."""
DISTURBED_SHARE = 0.6
"""Share of the judged inputs in which words are changed."""
EXCHANGED_SHARE = 0.3
"""Share of the changed inputs in which two words are exchanged; in the others, words are replaced by substitutes."""
PAIR_SHARE = 0.8
"""Probability that a paragraph becomes a pair of texts; otherwise its sentences become single inputs."""


def build_tokenizer(vocabulary: Sequence[str]) -> PreTrainedTokenizerFast:
    """A tokenizer of whole words in lower case, with RoBERTa's special tokens and pair format.

    One text becomes ``<s> A </s>``, two become ``<s> A </s></s> B </s>``, and the token types tell them apart.
    Words that are not in the vocabulary become ``<unk>``.

    Raises:
        DataError: the vocabulary has a duplicate word or a special token.
    """
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    tokens = [*SPECIAL_TOKENS, *vocabulary]
    numbers = {token: number for number, token in enumerate(tokens)}
    if len(numbers) < len(tokens):
        twice = sorted({token for token in tokens if tokens.count(token) > 1})
        raise DataError(f"vocabulary: expected every word once and no special token, found again: {', '.join(twice)}")
    start, _, end, unknown, mask = SPECIAL_TOKENS
    tokenizer = Tokenizer(models.WordLevel(numbers, unk_token=unknown))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{start} $A {end}",
        pair=f"{start} $A {end} {end} $B:1 {end}:1",
        special_tokens=[(start, START), (end, END)],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=start,
        cls_token=start,
        pad_token=SPECIAL_TOKENS[PAD],
        eos_token=end,
        sep_token=end,
        unk_token=unknown,
        mask_token=mask,
        model_max_length=MAX_LENGTH,
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    )


def token_types(batch: torch.Tensor) -> torch.Tensor:
    """The type of each token of a batch (rows, length), as the tokenizer gives it: 1 in the second text, or 0."""
    ends = (batch == END).cumsum(1)
    # Two end tokens separate the texts, and belong to the first one.
    return ((ends - (batch == END).long() >= 2) & (batch != PAD)).long()


def inputs(
    paragraphs: Sequence[Sequence[str]], tokenizer: PreTrainedTokenizerFast, generator: torch.Generator
) -> list[list[int]]:
    """Token ids of each paragraph, as a pair of texts (with probability ``PAIR_SHARE``) or as single sentences."""
    alone: list[str] = []
    pairs: list[tuple[str, str]] = []
    for sentences in paragraphs:
        if len(sentences) > 1 and torch.rand((), generator=generator) < PAIR_SHARE:
            cut = int(torch.randint(1, len(sentences), (), generator=generator))
            pairs.append((" ".join(sentences[:cut]), " ".join(sentences[cut:])))
        else:
            alone += sentences
    encoded: list[list[int]] = []
    for texts in (alone, pairs):
        if texts:
            encoded += tokenizer(texts, truncation=True, max_length=MAX_LENGTH)["input_ids"]
    return encoded


def texts_of_pairs(encoded: Sequence[list[int]]) -> Iterator[tuple[list[int], list[int]]]:
    """The words of the two texts of each input that has two."""
    for row in encoded:
        if row.count(END) > 2:
            end = row.index(END)
            yield row[1:end], row[end + 2 : -1]


def masking_rates(encoded: Sequence[list[int]], vocabulary_size: int) -> torch.Tensor:
    """The masking probability of each token (vocabulary_size,); ``MASKED_SHARE`` of all text is masked.

    Rates fall with the square root of a word's frequency. With uniform rates, half of the masked tokens would be
    determiners and full stops, and a model this small would spend its training on these.
    """
    counts = torch.bincount(torch.cat([torch.tensor(row) for row in encoded]), minlength=vocabulary_size).double()
    counts[: len(SPECIAL_TOKENS)] = 0
    rates = torch.where(counts > 0, counts.clamp(min=1).rsqrt(), 0.0)
    rates *= MASKED_SHARE * counts.sum() / (rates * counts).sum()
    return rates.clamp(max=HIGHEST_RATE).float()


def mask_tokens(
    batch: torch.Tensor, rates: torch.Tensor, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Inputs with some tokens masked, and the labels: the masked tokens' ids, ``IGNORED`` elsewhere."""
    chosen = torch.rand(batch.shape, generator=generator) < rates[batch]
    labels = torch.where(chosen, batch, IGNORED)
    fate = torch.rand(batch.shape, generator=generator)
    random_words = torch.randint(len(SPECIAL_TOKENS), len(rates), batch.shape, generator=generator)
    hidden = torch.where(chosen & (fate < 0.8), MASK, batch)
    hidden = torch.where(chosen & (fate >= 0.9), random_words, hidden)
    return hidden, labels


class Substitutes:
    """The substitutes of a word: words that occur in the text between the same two neighbours.

    They make plausible corruptions for replaced token detection, as ELECTRA's generator network does (arXiv 2003.10555,
    abstract), and cost no second network.
    """

    def __init__(self, encoded: Sequence[list[int]], vocabulary_size: int) -> None:
        self._size = vocabulary_size
        text = torch.tensor([number for row in encoded for number in row])
        # Only special tokens stand at the boundary of two inputs, and these are neither looked up nor drawn.
        words = text[1:-1] >= len(SPECIAL_TOKENS)
        around = self._key(text[:-2], text[2:])[words]
        order = around.argsort(stable=True)
        self._around, self._words = around[order], text[1:-1][words][order]

    def _key(self, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        return left * self._size + right

    def draw(self, left: torch.Tensor, right: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Draw a word (n,) for each pair of neighbours (n,), by its frequency there in the text."""
        key = self._key(left, right)
        first, behind = torch.searchsorted(self._around, key), torch.searchsorted(self._around, key, right=True)
        return self._words[first + (torch.rand(len(key), generator=generator) * (behind - first)).long()]


def disturb(
    batch: torch.Tensor, rates: torch.Tensor, substitutes: Substitutes, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Inputs of which some are disturbed, and a mask (rows, length) of the changed words.

    Either two words are exchanged, or in a pair one to all words are replaced by substitutes: the model learns to see
    large differences first. Exchanged words are drawn by their masking rates, so mostly content words. In a pair the
    second text is disturbed, so the first one shows what it should say.
    """
    ends = (batch == END).cumsum(1)
    weights = rates[batch] * ((ends == 2) | (ends.amax(1, keepdim=True) < 2))
    places = torch.multinomial(weights + torch.finfo(rates.dtype).tiny, 2, generator=generator)
    exchanged = torch.where(
        (weights.gather(1, places) > 0).all(1, keepdim=True),
        batch.scatter(1, places, batch.gather(1, places).flip(1)),
        batch,
    )
    share = torch.rand((len(batch), 1), generator=generator)
    row, place = ((torch.rand(batch.shape, generator=generator) < share) & (weights > 0)).nonzero(as_tuple=True)
    replaced = batch.clone()
    replaced[row, place] = substitutes.draw(batch[row, place - 1], batch[row, place + 1], generator)
    fate = torch.rand((len(batch), 1), generator=generator)
    disturbed = torch.where(fate < DISTURBED_SHARE, replaced, batch)
    # What replaces a word fits there, so without a first text nobody could tell.
    alone = ends.amax(1, keepdim=True) < 2
    disturbed = torch.where(fate < DISTURBED_SHARE * torch.where(alone, 1.0, EXCHANGED_SHARE), exchanged, disturbed)
    return disturbed, disturbed != batch
