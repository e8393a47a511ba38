"""The small RoBERTa that the project makes: tokenizer, masking, training and cache."""

from __future__ import annotations

import json
import math
from collections import Counter
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from rosa.config import MiniModelConfig
from rosa.errors import ModelError, OutputError
from rosa.mini import text as mini_text
from rosa.mini.pretraining import roberta, roberta_text
from rosa.mini.pretraining.loop import batches
from rosa.mini.pretraining.roberta import build_model, cache_key, cached_roberta, pretrain_roberta
from rosa.mini.pretraining.roberta_text import (
    END,
    MASK,
    PAD,
    START,
    build_tokenizer,
    inputs,
    mask_tokens,
    masking_rates,
)
from rosa.utils.names import IGNORED, PRETRAINING

TINY = MiniModelConfig(layers=1, hidden=32, heads=2, intermediate=64, sentences=40, steps=3, batch_size=4, lr=1e-3)
WORDS = ["a", "b", "c", "d", "."]
TEXT = [["a b.", "b a."], ["c d."], ["d c b a."]] * 5


# --- tokenizer -------------------------------------------------------------------------------------------------------


def test_the_tokenizer_writes_roberta_pairs_and_gives_the_words_back(tmp_path: Path) -> None:
    build_tokenizer(mini_text.vocabulary()).save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "roberta"}))
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    first, second = "The doctor praised the cook.", "Who slept?"
    encoded = tokenizer(first, second)
    assert tokenizer.convert_ids_to_tokens(encoded["input_ids"]) == (
        ["<s>", "the", "doctor", "praised", "the", "cook", ".", "</s>", "</s>", "who", "slept", "?", "</s>"]
    )
    assert set(encoded) == {"input_ids", "token_type_ids", "attention_mask"}
    assert encoded["token_type_ids"] == [0] * 9 + [1] * 4
    assert tokenizer.decode(tokenizer(first)["input_ids"], skip_special_tokens=True).split() == (
        ["the", "doctor", "praised", "the", "cook", "."]
    )
    assert (tokenizer.bos_token_id, tokenizer.pad_token_id, tokenizer.eos_token_id) == (START, PAD, END)
    assert (tokenizer.unk_token_id, tokenizer.mask_token_id) == (3, MASK)
    assert tokenizer.convert_ids_to_tokens(tokenizer("the zebra <mask>")["input_ids"])[2:4] == ["<unk>", "<mask>"]


@pytest.mark.parametrize("vocabulary", [["a", "b", "a"], ["a", "<pad>"]])
def test_a_word_twice_is_refused(vocabulary: list[str]) -> None:
    with pytest.raises(ValueError, match=r"found again: (a|<pad>)"):
        build_tokenizer(vocabulary)


# --- inputs and masking ----------------------------------------------------------------------------------------------


def test_inputs_are_whole_paragraphs_cut_in_two_or_single_sentences() -> None:
    tokenizer = build_tokenizer(WORDS)
    possible = {"a b . | b a .", "a b .", "b a .", "c d .", "d c b a ."}
    encoded = inputs(TEXT * 10, tokenizer, torch.Generator().manual_seed(0))
    seen = Counter()
    for row in encoded:
        text = tokenizer.decode(row).replace("</s> </s>", "|").replace("</s></s>", "|")
        seen[" ".join(text.replace("<s>", "").replace("</s>", "").replace(".", " .").split())] += 1
    assert set(seen) == possible


def test_batches_hold_every_input_once_an_epoch() -> None:
    encoded = [[START, *([5] * n), END] for n in range(1, 40)]
    stream = batches(encoded, 8, PAD, torch.Generator().manual_seed(0))
    for _ in range(2):
        epoch = [next(stream) for _ in range(5)]
        lengths = sorted(int((row != PAD).sum()) for batch in epoch for row in batch)
        assert lengths == [len(row) for row in encoded]
        for batch in epoch:
            # Neighbours in length: no row is padded by more than a batch's spread of lengths.
            assert int((batch == PAD).sum(1).max()) <= 8


def test_masking_follows_the_rates_and_berts_shares() -> None:
    generator = torch.Generator().manual_seed(0)
    rates = torch.tensor([0.0] * 5 + [0.1, 0.5] + [0.0] * 13)
    batch = torch.tensor([START, *([5, 6] * 20), END, PAD]).repeat(2000, 1)
    hidden, labels = mask_tokens(batch, rates, generator)
    chosen = labels != IGNORED
    assert torch.equal(labels[chosen], batch[chosen])
    assert torch.equal(hidden[~chosen], batch[~chosen])
    assert not chosen[batch < 5].any()
    for word, rate in ((5, 0.1), (6, 0.5)):
        n = int((batch == word).sum())
        assert abs(float(chosen[batch == word].sum()) - n * rate) < 5 * math.sqrt(n * rate)
    fates = hidden[chosen]
    assert float((fates == MASK).float().mean()) == pytest.approx(0.8, abs=0.02)
    # Of the tenth that is replaced, one in fifteen meets its own number again.
    assert float((fates == labels[chosen]).float().mean()) == pytest.approx(0.1 + 0.1 / 15, abs=0.02)
    assert int(fates[fates != MASK].min()) >= 5


def test_rare_words_are_hidden_more_often_and_special_tokens_never(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(roberta_text, "HIGHEST_RATE", 1.0)
    encoded = [[START, *([5] * 16), 6, 7, 7, 7, 7, END, PAD]] * 10
    rates = masking_rates(encoded, 9)
    assert rates[:5].tolist() == [0.0] * 5
    assert rates[8] == 0
    # Square roots of 1:4:16.
    assert float(rates[7] / rates[5]) == pytest.approx(2.0)
    assert float(rates[5] * 16 + rates[6] + rates[7] * 4) <= roberta_text.MASKED_SHARE * 21 + 1e-6
    monkeypatch.setattr(roberta_text, "HIGHEST_RATE", 0.2)
    assert float(masking_rates(encoded, 9).max()) == pytest.approx(0.2)


def test_token_types_are_those_of_the_tokenizer() -> None:
    encoded = build_tokenizer(WORDS)(["a b.", "c."], ["c.", "d c b a."], padding=True, return_tensors="pt")
    assert torch.equal(roberta_text.token_types(encoded["input_ids"]), encoded["token_type_ids"])
    alone = build_tokenizer(WORDS)(["a b.", "c."], padding=True, return_tensors="pt")["input_ids"]
    assert not roberta_text.token_types(alone).any()


def test_substitutes_are_drawn_as_the_text_has_them_between_the_same_neighbours() -> None:
    encoded = [[START, 5, 6, 7, END]] * 3 + [[START, 5, 8, 7, END], [START, 5, 9, 8, END]]
    drawn = roberta_text.Substitutes(encoded, 10).draw(
        torch.full((4000,), 5), torch.full((4000,), 7), torch.Generator().manual_seed(0)
    )
    counts = Counter(drawn.tolist())
    assert set(counts) == {6, 8}
    assert counts[6] / 4000 == pytest.approx(0.75, abs=0.04)


def test_disturbed_pairs_have_two_words_exchanged_or_some_replaced() -> None:
    rates = torch.tensor([0.0] * 5 + [0.2, 0.2, 0.0, 0.0])
    pair = [START, 7, END, END, 5, 7, 6, END, PAD]
    batch = torch.tensor([pair, [START, 7, END, END, 7, END, PAD, PAD, PAD]]).repeat(500, 1)
    # Word 8 stands where word 5 does.
    substitutes = roberta_text.Substitutes([*batch.tolist(), *[[*pair[:4], 8, *pair[5:]]] * 500], 9)
    disturbed, wrong = roberta_text.disturb(batch, rates, substitutes, torch.Generator().manual_seed(0))
    assert torch.equal(wrong, disturbed != batch)
    changed = disturbed[wrong.any(1)].unique(dim=0).tolist()
    # Words 5 and 6 can change places; word 7 is never drawn.
    assert changed == [[*pair[:4], 6, 7, 5, *pair[7:]], [*pair[:4], 8, 7, 6, *pair[7:]]]
    assert 0.25 < float(wrong[::2].any(1).float().mean()) < roberta_text.DISTURBED_SHARE
    assert not wrong[1::2].any()


def test_in_a_single_text_words_only_change_places() -> None:
    rates = torch.tensor([0.0] * 5 + [0.2, 0.2, 0.0, 0.0])
    batch = torch.tensor([[START, 5, 7, 6, END, PAD]]).repeat(500, 1)
    substitutes = roberta_text.Substitutes([*batch.tolist(), *[[START, 8, 7, 6, END, PAD]] * 500], 9)
    disturbed, wrong = roberta_text.disturb(batch, rates, substitutes, torch.Generator().manual_seed(0))
    assert disturbed[wrong.any(1)].unique(dim=0).tolist() == [[START, 6, 7, 5, END, PAD]]
    assert abs(float(wrong.any(1).float().mean()) - roberta_text.DISTURBED_SHARE) < 0.1


def test_the_words_of_pairs_are_those_between_their_marks() -> None:
    rows = [[START, 5, 6, END, END, 7, END], [START, 5, END]]
    assert list(roberta_text.texts_of_pairs(rows)) == [([5, 6], [7])]
    tokenizer = build_tokenizer(WORDS)
    encoded = tokenizer("a b.", "c.")["input_ids"]
    assert [tokenizer.convert_ids_to_tokens(text) for text in next(roberta_text.texts_of_pairs([encoded]))] == [
        ["a", "b", "."],
        ["c", "."],
    ]


def test_only_the_second_text_of_a_pair_is_disturbed() -> None:
    rates = torch.tensor([0.0] * 5 + [0.2, 0.2])
    batch = torch.tensor([[START, 5, 6, END, END, 6, 5, END, PAD]]).repeat(200, 1)
    substitutes = roberta_text.Substitutes(batch.tolist(), 7)
    _, wrong = roberta_text.disturb(batch, rates, substitutes, torch.Generator().manual_seed(0))
    assert wrong.any(0).tolist() == [False] * 5 + [True] * 2 + [False] * 2


def test_before_training_a_word_looks_for_itself_in_the_other_text() -> None:
    vocabulary = [f"w{n}" for n in range(60)]
    tokenizer = build_tokenizer(vocabulary)
    model = build_model(MiniModelConfig(layers=1, hidden=128), len(tokenizer)).eval()
    model.set_attn_implementation("eager")
    first, second = " ".join(vocabulary[:8]), " ".join(reversed(vocabulary[:8]))
    encoded = tokenizer(first, second, return_tensors="pt")
    with torch.no_grad():
        attention = model.roberta(**encoded, output_attentions=True).attentions[0][0, :2].mean(0)
    words = encoded["input_ids"][0]
    found = [words[attention[place].argmax()] == words[place] for place in range(1, 9)]
    across = [int(attention[place].argmax()) > 9 for place in range(1, 9)]
    # By chance one word in twenty would be found.
    assert sum(found) >= 7
    assert all(across)


# --- training --------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_training_learns_more_than_word_frequencies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cyclic texts: a masked word follows from its neighbours; a guess without them is right once in eight."""
    monkeypatch.setattr(roberta, "JUDGED_SHARE", 0.0)
    words = list("abcdefgh")
    circle = words * 3
    paragraphs = [[" ".join(circle[i : i + 12])] for i in range(8)] * 4
    config = MiniModelConfig(layers=1, hidden=48, heads=2, intermediate=96, steps=250, batch_size=32, lr=5e-3)
    facts = pretrain_roberta(paragraphs, words, config, tmp_path / "model")
    assert facts["loss"] < 0.5 * math.log(8)
    assert json.loads((tmp_path / "model" / PRETRAINING).read_text()) == facts


def test_the_saved_folder_loads_as_a_classifier_with_the_trained_body(tmp_path: Path) -> None:
    facts = pretrain_roberta(TEXT, WORDS, TINY, tmp_path / "model")
    classifier = AutoModelForSequenceClassification.from_pretrained(tmp_path / "model", num_labels=3)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model")
    untrained = build_model(TINY, len(tokenizer))
    trained = classifier.roberta.state_dict()
    assert facts["parameters"] == sum(p.numel() for p in untrained.parameters())
    moved = [name for name, tensor in untrained.roberta.state_dict().items() if not torch.equal(tensor, trained[name])]
    assert "encoder.layer.0.attention.self.query.weight" in moved
    batch = tokenizer([("a b.", "c."), ("d.", "a b c d.")], padding=True, return_tensors="pt")
    logits = classifier.eval()(**batch).logits
    alone = classifier(**tokenizer("a b.", "c.", return_tensors="pt")).logits
    assert logits.shape == (2, 3)
    assert torch.allclose(logits[:1], alone, atol=1e-5)
    longest = tokenizer(["a " * 500], truncation=True, return_tensors="pt")
    assert classifier(**longest).logits.isfinite().all()


def weights(folder: Path) -> bytes:
    return (folder / "model.safetensors").read_bytes()


def test_the_same_arguments_give_the_same_weights_and_leave_the_global_generator_alone(tmp_path: Path) -> None:
    pretrain_roberta(TEXT, WORDS, TINY, tmp_path / "first")
    torch.manual_seed(11)
    before = torch.get_rng_state()
    pretrain_roberta(TEXT, WORDS, TINY, tmp_path / "second")
    assert torch.equal(before, torch.get_rng_state())
    assert weights(tmp_path / "first") == weights(tmp_path / "second")
    other = MiniModelConfig(**{**vars(TINY), "seed": 1})
    pretrain_roberta(TEXT, WORDS, other, tmp_path / "third")
    assert weights(tmp_path / "first") != weights(tmp_path / "third")


def test_nothing_is_overwritten_and_nothing_is_trained_on_no_text(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    with pytest.raises(ModelError, match="model is there already"):
        pretrain_roberta(TEXT, WORDS, TINY, tmp_path / "model")
    with pytest.raises(ValueError, match="expected at least one"):
        pretrain_roberta([], WORDS, TINY, tmp_path / "other")


def test_a_failed_save_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full_disk(*args: object, **kwargs: object) -> str:
        raise OSError("no space left on device")

    monkeypatch.setattr(json, "dumps", full_disk)
    with pytest.raises(OutputError, match="cannot be written: no space left"):
        pretrain_roberta(TEXT, WORDS, TINY, tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


# --- cache -----------------------------------------------------------------------------------------------------------


def test_the_key_names_text_words_shape_training_and_version(monkeypatch: pytest.MonkeyPatch) -> None:
    keys = {
        cache_key(TEXT, WORDS, TINY),
        cache_key(TEXT[:-1], WORDS, TINY),
        cache_key([["a b.", "b a.", "c d."], *TEXT[2:]], WORDS, TINY),
        cache_key(TEXT, WORDS[:-1], TINY),
    }
    read = {key: value for key, value in vars(TINY).items() if key not in roberta.NOT_READ}
    for key, value in read.items():
        keys.add(cache_key(TEXT, WORDS, MiniModelConfig(**{**vars(TINY), key: value * 2 or 1})))
    assert len(keys) == 4 + len(read)
    monkeypatch.setattr(roberta, "VERSION", roberta.VERSION + 1)
    assert cache_key(TEXT, WORDS, TINY) not in keys
    assert cache_key(tuple(map(tuple, TEXT)), tuple(WORDS), TINY) == cache_key(TEXT, WORDS, TINY)


def test_a_second_call_finds_the_model_and_a_broken_folder_is_replaced(tmp_path: Path) -> None:
    folder = cached_roberta(TEXT, WORDS, TINY, tmp_path)
    first = weights(folder)
    stamp = (folder / PRETRAINING).stat().st_mtime_ns
    assert cached_roberta(TEXT, WORDS, TINY, tmp_path) == folder
    assert (folder / PRETRAINING).stat().st_mtime_ns == stamp
    for lost in ("model.safetensors", PRETRAINING, "tokenizer.json"):
        (folder / lost).unlink()
        (folder / "config.json").write_text("{")
        assert cached_roberta(TEXT, WORDS, TINY, tmp_path) == folder
        assert weights(folder) == first
