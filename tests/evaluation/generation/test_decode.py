"""Decoding against plain decoding of one prompt at a time, and against a beam search written out in Python."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import GPT2LMHeadModel, PreTrainedTokenizerFast

from rosa.config import DecodingConfig
from rosa.errors import DecodingError, JournalError
from rosa.evaluation.generation.decode import batches, decode, one_line
from rosa.evaluation.generation.journal import Journal
from tests import causal

NEW = 12
"""New tokens at most, unless a test needs others."""


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return causal.build_tokenizer()


@pytest.fixture(scope="module")
def trained() -> GPT2LMHeadModel:
    return causal.train(causal.build_model())


@pytest.fixture
def model() -> GPT2LMHeadModel:
    return causal.build_model()


def settings(**changes: object) -> DecodingConfig:
    return DecodingConfig(**{"max_new_tokens": NEW, "batch_size": 8} | changes)  # type: ignore[arg-type]


def tokens(
    model: GPT2LMHeadModel, tokenizer: PreTrainedTokenizerFast, texts: list[str], config: DecodingConfig
) -> list:
    return [one.tokens for one in decode(model, tokenizer, texts, config, progress=False).continuations]


def lean_towards(model: GPT2LMHeadModel, token: int, amount: float) -> None:
    """Add an amount to the logit of a token, whatever comes before it."""
    with torch.no_grad():
        direction = torch.zeros(model.config.n_embd)
        direction[0] = 1
        model.transformer.ln_f.weight[0] = 0
        model.transformer.ln_f.bias.copy_(direction)
        model.transformer.wte.weight[:, 0] = 0
        model.transformer.wte.weight[token, 0] = amount


# --- the same as one by one ------------------------------------------------------------------------------------------


def plainly(model: GPT2LMHeadModel, tokenizer: PreTrainedTokenizerFast, text: str, config: DecodingConfig) -> tuple:
    """One prompt by ``generate``, with nothing to pad."""
    ids = tokenizer(text, return_tensors="pt")["input_ids"]
    sequence = model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        do_sample=False,
        num_beams=config.beams,
        max_new_tokens=config.max_new_tokens,
        no_repeat_ngram_size=config.no_repeat_ngram,
        suppress_tokens=[causal.PAD],
    )[0, ids.shape[1] :].tolist()
    return tuple(sequence[: sequence.index(causal.END)] if causal.END in sequence else sequence)


@pytest.mark.spread
@pytest.mark.parametrize("kind", ["random", "trained"])
@pytest.mark.parametrize("beams", [1, 5, 10])
def test_a_batch_gives_each_prompt_what_it_gets_alone(
    kind: str, beams: int, tokenizer: PreTrainedTokenizerFast, trained: GPT2LMHeadModel
) -> None:
    model = trained if kind == "trained" else causal.build_model(seed=beams)
    texts = causal.prompts(12, seed=beams)
    config = settings(beams=beams, no_repeat_ngram=2)
    alone = [plainly(model, tokenizer, text, config) for text in texts]
    assert tokens(model, tokenizer, texts, config) == alone
    assert tokens(model, tokenizer, texts, dataclasses.replace(config, batch_size=5)) == alone
    # The test covers forbidden n-grams, and hypotheses of different lengths.
    assert tokens(model, tokenizer, texts, settings(beams=beams, no_repeat_ngram=0)) != alone
    if kind == "trained":
        assert len({len(one) for one in alone}) > 2


def beam_search(model: GPT2LMHeadModel, prompt: list[int], config: DecodingConfig) -> list[int]:
    """Beam search as it is defined, hypothesis by hypothesis, with no cache and no batch."""

    def repeats(written: list[int]) -> bool:
        seen = (prompt if config.no_repeat_prompt else []) + written
        size = config.no_repeat_ngram
        last = seen[-size:]
        return 0 < size <= len(seen) and last in [seen[i : i + size] for i in range(len(seen) - size)]

    def candidates(score: float, written: list[int]) -> list[tuple[float, list[int]]]:
        with torch.no_grad():
            logits = model(torch.tensor([prompt + written])).logits[0, -1].double()
        found = [(score + float(p), [*written, t]) for t, p in enumerate(logits.log_softmax(0)) if t != causal.PAD]
        return [(score, text) for score, text in found if not repeats(text)]

    running: list[tuple[float, list[int]]] = [(0.0, [])]
    finished: list[tuple[float, list[int]]] = []
    for length in range(1, config.max_new_tokens + 1):
        best = sorted((c for beam in running for c in candidates(*beam)), reverse=True)[: 2 * config.beams]
        over = [text[-1] == causal.END or length == config.max_new_tokens for _, text in best]
        finished += [
            (score / length**config.length_penalty, text)
            for (score, text), ends in list(zip(best, over, strict=True))[: config.beams]
            if ends
        ]
        finished = sorted(finished, reverse=True)[: config.beams]
        running = [beam for beam, ends in zip(best, over, strict=True) if not ends][: config.beams]
        hopeless = running and running[0][0] / length**config.length_penalty <= finished[-1][0] if finished else False
        if not running or (len(finished) == config.beams and hopeless):
            break
    return finished[0][1]


@pytest.mark.spread
@pytest.mark.parametrize("beams", [2, 4])
@pytest.mark.parametrize(("penalty", "size", "prompt_counts"), [(1.0, 2, True), (0.8, 2, False), (-1.0, 0, True)])
def test_it_is_beam_search(
    beams: int,
    penalty: float,
    size: int,
    prompt_counts: bool,
    tokenizer: PreTrainedTokenizerFast,
    trained: GPT2LMHeadModel,
) -> None:
    texts = causal.prompts(5, seed=3, lengths=(1, 3, 4, 6, 12))
    config = settings(
        beams=beams, length_penalty=penalty, no_repeat_ngram=size, no_repeat_prompt=prompt_counts, max_new_tokens=8
    )
    expected = [beam_search(trained, tokenizer(text)["input_ids"], config) for text in texts]
    found = decode(trained, tokenizer, texts, config, progress=False).continuations
    assert [[*one.tokens, causal.END] if one.ended else [*one.tokens] for one in found] == expected


def test_each_setting_matters(tokenizer: PreTrainedTokenizerFast, trained: GPT2LMHeadModel) -> None:
    texts = causal.prompts(12)
    base = settings(beams=4, no_repeat_ngram=2)
    expected = tokens(trained, tokenizer, texts, base)
    changes: list[dict[str, object]] = [
        {"beams": 1},
        {"length_penalty": -2.0},
        {"no_repeat_ngram": 3},
        {"no_repeat_prompt": False},
        {"max_new_tokens": 3},
    ]
    for change in changes:
        assert tokens(trained, tokenizer, texts, dataclasses.replace(base, **change)) != expected, change  # type: ignore[arg-type]


def test_the_models_own_generation_settings_are_kept_out_and_given_back(
    model: GPT2LMHeadModel, tokenizer: PreTrainedTokenizerFast
) -> None:
    texts = causal.prompts(4)
    expected = tokens(model, tokenizer, texts, settings())
    own = model.generation_config
    own.repetition_penalty, own.min_new_tokens, own.no_repeat_ngram_size, own.do_sample = 9.0, NEW, 1, True
    own.forced_eos_token_id, own.length_penalty, own.num_return_sequences = 7, -9.0, 2
    model.train()
    assert tokens(model, tokenizer, texts, settings()) == expected
    assert model.generation_config is own
    assert model.training


def test_the_padding_token_is_never_written(model: GPT2LMHeadModel, tokenizer: PreTrainedTokenizerFast) -> None:
    lean_towards(model, causal.PAD, 1000.0)
    for beams in (1, 5):
        found = tokens(model, tokenizer, causal.prompts(6), settings(beams=beams))
        assert all(causal.PAD not in one for one in found)
        assert any(found)


# --- room ------------------------------------------------------------------------------------------------------------


def test_a_prompt_near_the_limit_gets_the_room_that_is_left(
    model: GPT2LMHeadModel, tokenizer: PreTrainedTokenizerFast
) -> None:
    lean_towards(model, causal.END, -1000.0)
    lengths = (causal.CONTEXT - 1, causal.CONTEXT - 3, 4, causal.CONTEXT - 3, 2)
    texts = [" ".join(f"w{(7 * i + j * j) % causal.WORDS}" for j in range(n)) for i, n in enumerate(lengths)]
    found = decode(model, tokenizer, texts, settings(beams=3), progress=False)
    assert [len(one.tokens) for one in found.continuations] == [1, 3, NEW, 3, NEW]
    assert found.limited == 3
    alone = [tokens(model, tokenizer, [text], settings(beams=3))[0] for text in texts]
    assert [one.tokens for one in found.continuations] == alone
    assert any("3 of 5 prompts leave less room" in warning for warning in found.warnings())


def test_batches_are_of_similar_lengths_and_of_one_room() -> None:
    lengths = [3, 9, 4, 9, 8, 2]
    assert batches(lengths, [5] * 6, range(6), 4) == [[1, 3, 4, 2], [0, 5]]
    assert batches(lengths, [5, 1, 5, 1, 2, 5], range(6), 4) == [[1, 3], [4], [2, 0, 5]]
    assert batches(lengths, [5] * 6, [5, 2], 4) == [[2, 5]]


def test_a_model_that_never_ends_or_says_nothing_is_reported(
    model: GPT2LMHeadModel, tokenizer: PreTrainedTokenizerFast
) -> None:
    texts = causal.prompts(5)
    lean_towards(model, causal.END, -1000.0)
    endless = decode(model, tokenizer, texts, settings(), progress=False)
    assert (endless.unended, endless.empty) == (5, 0)
    assert any("5 of 5 hypotheses reach the maximum length" in warning for warning in endless.warnings())
    lean_towards(model, causal.END, 1000.0)
    silent = decode(model, tokenizer, texts, settings(), progress=False)
    assert (silent.unended, silent.empty, set(silent.texts)) == (0, 5, {""})
    assert silent.warnings() == ["5 of 5 hypotheses are empty"]


# --- texts -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("  A  pub.\n", "A pub."),
        ("a\r\nb\tc\x0bd\x0ce", "a b c d e"),
        ("a\u2028b\u2029c\x85d\x1ce\x1ff", "a b c d e f"),
        ("a\x00b\x07c\x7fd\x9fe", "a b c d e"),
        ("\u00a320\u201325 caf\u00e9\u00a0bar", "\u00a320\u201325 caf\u00e9 bar"),
        ("\n \u2028", ""),
    ],
)
def test_a_hypothesis_is_one_line(text: str, expected: str) -> None:
    assert one_line(text) == expected
    assert len(one_line(text).splitlines()) <= 1


def test_what_a_model_writes_is_one_line_without_the_prompt_and_special_tokens() -> None:
    words = ["a\n", "\u2028b", "c\x00"]
    tokenizer = causal.build_tokenizer(words)
    model = causal.build_model(vocabulary=len(tokenizer))
    lean_towards(model, causal.END, -1000.0)
    found = decode(model, tokenizer, [words[0], " ".join(words)], settings(beams=2, no_repeat_ngram=0), progress=False)
    for text, one in zip(found.texts, found.continuations, strict=True):
        written = "".join(words[token - 3] for token in one.tokens if token > causal.UNKNOWN)
        assert sorted(text.replace(" ", "")) == sorted("".join(c for c in written if c in "abc"))
        assert text.isprintable()


def test_results_come_in_the_order_of_the_prompts_and_a_prompt_twice_is_decoded_once(
    trained: GPT2LMHeadModel, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    texts = causal.prompts(6)
    journal = Journal(tmp_path / "journal")
    found = decode(trained, tokenizer, [*texts, *reversed(texts)], settings(), journal, progress=False)
    once = tokens(trained, tokenizer, texts, settings())
    assert [one.tokens for one in found.continuations] == [*once, *reversed(once)]
    assert len(set(once)) > 3
    assert len(journal.entries) == len(set(texts))


# --- what is refused -------------------------------------------------------------------------------------------------


def test_prompts_that_cannot_be_decoded(model: GPT2LMHeadModel, tokenizer: PreTrainedTokenizerFast) -> None:
    with pytest.raises(DecodingError, match="no prompts"):
        decode(model, tokenizer, [], settings(), progress=False)
    with pytest.raises(DecodingError, match=r"prompt 2 of 2, '', has no tokens"):
        decode(model, tokenizer, ["w1", ""], settings(), progress=False)
    long = " ".join(["w1"] * causal.CONTEXT)
    with pytest.raises(
        DecodingError,
        match=rf"prompt 3 of 3, 'w1 w1 .*\.\.\.', has {causal.CONTEXT} tokens; .*of {causal.CONTEXT} tokens",
    ):
        decode(model, tokenizer, ["w1", "w2", long], settings(), progress=False)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda tokenizer: setattr(tokenizer, "pad_token", None), "has no padding token"),
        (lambda tokenizer: setattr(tokenizer, "eos_token", None), "has no end token"),
        (lambda tokenizer: setattr(tokenizer, "pad_token", "<end>"), "pads with its end token, '<end>'"),
        (lambda tokenizer: tokenizer.add_tokens(["more"]), "64 tokens, but the model's vocabulary 63"),
    ],
)
def test_tokenizers_that_do_not_serve(
    spoil: Callable[[PreTrainedTokenizerFast], object], message: str, model: GPT2LMHeadModel
) -> None:
    tokenizer = causal.build_tokenizer()
    spoil(tokenizer)
    with pytest.raises(DecodingError, match=message):
        decode(model, tokenizer, ["w1"], settings(), progress=False)


# --- resuming --------------------------------------------------------------------------------------------------------


@pytest.fixture
def decoded_rows(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of prompts in each call of ``generate``."""
    rows: list[int] = []
    generate = GPT2LMHeadModel.generate

    def counting(self: GPT2LMHeadModel, ids: torch.Tensor, **arguments: object) -> torch.Tensor:
        rows.append(len(ids))
        return generate(self, ids, **arguments)

    monkeypatch.setattr(GPT2LMHeadModel, "generate", counting)
    return rows


def test_what_a_journal_holds_is_not_decoded_again(
    model: GPT2LMHeadModel, tokenizer: PreTrainedTokenizerFast, tmp_path: Path, decoded_rows: list[int]
) -> None:
    texts, path = causal.prompts(8), tmp_path / "new" / "journal"
    half = decode(model, tokenizer, texts[:4], settings(), Journal(path), "key", progress=False)
    decoded_rows.clear()
    # The batch size does not matter.
    whole = decode(model, tokenizer, texts, settings(batch_size=3), Journal(path), "key", progress=False)
    assert sum(decoded_rows) == 4
    assert whole.continuations[:4] == half.continuations
    assert whole == decode(model, tokenizer, texts, settings(), progress=False)
    decoded_rows.clear()
    decode(model, tokenizer, texts, settings(), Journal(path), "other weights", progress=False)
    decode(model, tokenizer, texts, settings(beams=4), Journal(path), "key", progress=False)
    assert sum(decoded_rows) == 16


def test_a_torn_last_line_is_done_again(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    Journal(path).add({"a": {"tokens": [1, 2], "ended": True}, "b": {"tokens": [], "ended": False}})
    whole = path.read_bytes()
    for cut in range(len(whole.splitlines(keepends=True)[0]), len(whole)):
        path.write_bytes(whole[:cut])
        journal = Journal(path)
        assert list(journal.entries) == ["a"]
        journal.add({"c": {"tokens": [3], "ended": True}})
        assert list(Journal(path).entries) == ["a", "c"]


def test_a_file_that_is_no_journal_is_named(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    for line in ("The Eagle is a pub.", "[1]", "{}", "3"):
        path.write_text(f'{{"key": "a", "tokens": [], "ended": true}}\n{line}\n')
        with pytest.raises(JournalError, match=rf"{path}:2: not a journal entry"):
            Journal(path)
    with pytest.raises(JournalError, match="cannot be read"):
        Journal(tmp_path)


def test_each_batch_is_in_the_journal_at_once(
    model: GPT2LMHeadModel, tokenizer: PreTrainedTokenizerFast, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "journal"
    generate, calls = GPT2LMHeadModel.generate, []

    def stops(self: GPT2LMHeadModel, ids: torch.Tensor, **arguments: object) -> torch.Tensor:
        calls.append(len(ids))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return generate(self, ids, **arguments)

    monkeypatch.setattr(GPT2LMHeadModel, "generate", stops)
    own = model.generation_config
    with pytest.raises(KeyboardInterrupt):
        decode(model, tokenizer, causal.prompts(8), settings(batch_size=2), Journal(path), progress=False)
    assert len(Journal(path).entries) == 4
    assert model.generation_config is own
