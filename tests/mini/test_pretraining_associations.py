"""Counting which words stand for each other, against texts whose synonyms are known."""

from __future__ import annotations

from random import Random

import pytest
import torch

from rosa.mini import text as mini_text
from rosa.mini.pretraining.associations import SHARE, associated, associations
from rosa.mini.pretraining.roberta_text import build_tokenizer
from rosa.mini.text import lexicon


def told_twice(rng: Random, rows: int) -> list[tuple[list[int], list[int]]]:
    """Texts of four of ten meanings; meaning m is word m or, as often, word 10 + m."""
    pairs = []
    for _ in range(rows):
        meanings = rng.sample(range(10), 4)
        first, second = ([meaning + 10 * rng.randrange(2) for meaning in meanings] for _ in range(2))
        pairs.append((first, second))
    return pairs


def test_a_word_goes_with_its_synonym_and_with_no_other() -> None:
    found = associations(told_twice(Random(0), 2000), 21)
    for word in range(20):
        assert int(found[word].argmax()) == (word + 10) % 20
    assert torch.allclose(found[:20].norm(dim=1), torch.ones(20))
    assert not found[20].any()  # a word that no text has
    assert not found.diagonal().any()


def test_words_that_both_texts_have_and_single_coincidences_say_nothing() -> None:
    assert not associations([([1, 2], [2, 1])] * 50, 3).any()
    assert not associations([([0], [1])], 3).any()
    assert not associations([], 3).any()


def test_vectors_keep_their_length_and_move_towards_their_associates() -> None:
    generator = torch.Generator().manual_seed(0)
    vectors = torch.randn(3, 64, generator=generator)
    found = torch.tensor([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    moved = associated(vectors, found)
    assert torch.allclose(moved.norm(dim=1), vectors.norm(dim=1))
    assert torch.allclose(moved[2], vectors[2])
    expected = vectors[0] + SHARE * vectors[1]
    assert torch.allclose(moved[0] / moved[0].norm(), expected / expected.norm())
    assert torch.nn.functional.cosine_similarity(moved[0], moved[1], dim=0) > 0.7


@pytest.mark.slow
def test_the_synonyms_of_the_grammar_and_its_praise_are_found_in_its_text() -> None:
    tokenizer = build_tokenizer(mini_text.vocabulary())
    pairs = [tokenizer(list(texts), add_special_tokens=False)["input_ids"] for texts in mini_text.corpus(6000, seed=1)]
    found = associations([(pair[0], pair[1]) for pair in pairs if len(pair) == 2], len(tokenizer))
    nouns = [noun.names for noun in lexicon.NOUNS if len(noun.names) == 2]
    numbers = torch.tensor([tokenizer.convert_tokens_to_ids(list(names)) for names in nouns])
    among = found[numbers.flatten()][:, numbers.flatten()]
    synonym = torch.arange(2 * len(nouns)).view(-1, 2).flip(1).flatten()
    assert float((among.argmax(1) == synonym).float().mean()) > 0.9
    praise, reproach = (tokenizer.convert_tokens_to_ids(list(w)) for w in (lexicon.PRAISE, lexicon.REPROACH))
    alike = found[praise][:, praise].sum() + found[reproach][:, reproach].sum()
    unlike = 2 * found[praise][:, reproach].sum()
    assert float(alike) > 8 * float(unlike)
