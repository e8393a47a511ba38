"""The small GPT-2 that the project makes: tokenizer, contexts, copying heads, training and cache."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections import Counter
from pathlib import Path
from random import Random

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from rosa.config import Config, MiniModelConfig
from rosa.errors import ConfigError, DataError, ModelError
from rosa.mini import text as mini_text
from rosa.mini.pretraining import gpt2, roberta
from rosa.mini.pretraining.gpt2 import (
    build_model,
    cache_key,
    cached_gpt2,
    held_out_loss,
    next_token_loss,
    pretrain_gpt2,
    shifted_positions,
)
from rosa.mini.pretraining.gpt2_text import END, PAD, build_tokenizer, contexts, encode, names, renamed
from rosa.run.mini_model import located
from rosa.utils.names import PRETRAINING
from tests.composing import compose_config
from tests.data.test_paragraphs import glue

TINY = MiniModelConfig(
    architecture="gpt2", layers=2, hidden=32, heads=2, intermediate=64, steps=4, batch_size=4, lr=1e-3,
    vocabulary=300, context=64,
)  # fmt: skip
TEXT = [
    ["Fenford is a tavern near Old Bridge.", "Near Old Bridge there is a tavern, Fenford.", "A tavern is Fenford."],
    ["The Rondo serves soup and bread.", "Soup and bread are served by The Rondo."],
    ["There is soup in the park by the harbour, under the trees."],
] * 4
ANY_TEXT = (
    "£12-18 at Café Zoë",
    "🍜 naïve\u2028日本語",
    "  two  spaces , and\ttabs\r\n",
    "\x00\x7f",
    "<s> [x] ' don't",
    "",
)


# --- tokenizer -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("gpt2") / "model"
    pretrain_gpt2(TEXT, TINY, folder, {"file": "some.txt"})
    return folder


@pytest.mark.parametrize("text", ANY_TEXT)
def test_any_text_is_encoded_and_given_back(saved: Path, text: str) -> None:
    tokenizer = AutoTokenizer.from_pretrained(saved)
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_padding_is_not_the_end_and_both_are_one_token(saved: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(saved)
    assert (tokenizer.eos_token_id, tokenizer.bos_token_id, tokenizer.pad_token_id) == (END, END, PAD)
    assert tokenizer("a<|endoftext|><|pad|>")["input_ids"][1:] == [END, PAD]
    assert tokenizer(["a b c", "a"], padding=True)["input_ids"][1][-1] == PAD
    assert len(tokenizer) <= TINY.vocabulary
    assert tokenizer.model_max_length == TINY.context
    config = AutoModelForCausalLM.from_pretrained(saved).config
    assert (config.eos_token_id, config.pad_token_id) == (END, PAD)


def test_the_tokenizer_learns_the_words_of_its_text_in_the_same_way_each_time() -> None:
    first, second = (build_tokenizer(TEXT, 400, 64) for _ in range(2))
    assert first.backend_tokenizer.to_str() == second.backend_tokenizer.to_str()
    assert first.tokenize("Fenford is near The Rondo.") == ["Fenford", "Ġis", "Ġnear", "ĠThe", "ĠRondo", "."]


# --- contexts --------------------------------------------------------------------------------------------------------


def test_contexts_hold_each_text_once_beside_others_of_its_paragraph() -> None:
    paragraphs = [[f"text {p}.{n}" for n in range(7)] for p in range(20)] + [["alone"]]
    seen: Counter[str] = Counter()
    for context in contexts(paragraphs, 0.0, Random(0)):
        lines = context.split("\n")
        seen.update(lines)
        assert len(lines) <= 3
        assert len({line.split(".")[0] for line in lines}) == 1
    assert seen == Counter(text for texts in paragraphs for text in texts)


def test_names_are_words_that_are_mostly_capitalised() -> None:
    assert names(TEXT) == ["Bridge", "Fenford", "Old", "Rondo"]


def test_names_that_texts_share_get_one_new_name_and_everything_else_stays() -> None:
    changed = set()
    for seed in range(20):
        first, second = renamed(["Fenford, near Old Bridge.", "Old Fenford is The Rondo."], names(TEXT), Random(seed))
        match = re.fullmatch(r"(\w+), near (\w+) Bridge\.", first)
        assert match
        assert second == f"{match[2]} {match[1]} is The Rondo."
        changed.add(match[1])
    assert len(changed) > 10
    half = list(contexts([["Fenford a.", "Fenford b."]] * 400, 0.5, Random(0)))
    kept = sum("Fenford a" in text for text in half) / len(half)
    assert kept == pytest.approx(0.5, abs=0.1)


def test_inputs_end_with_the_end_token() -> None:
    tokenizer = build_tokenizer(TEXT, 300, 64)
    rows = encode(["Fenford.", "The Rondo"], tokenizer)
    assert [row.count(END) for row in rows] == [1, 1]
    assert [tokenizer.decode(row) for row in rows] == ["Fenford.<|endoftext|>", "The Rondo<|endoftext|>"]


def test_positions_count_on_from_anywhere_in_the_context() -> None:
    positions = shifted_positions(torch.zeros(4000, 5, dtype=torch.long), 8, torch.Generator().manual_seed(0))
    assert torch.equal(positions - positions[:, :1], torch.arange(5).expand(4000, 5))
    assert Counter(positions[:, 0].tolist()).keys() == {0, 1, 2, 3}


# --- model -----------------------------------------------------------------------------------------------------------


def random_lines(vocabulary: int, length: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    lines = torch.stack([torch.randperm(vocabulary - 2, generator=generator)[:length] + 2 for _ in range(16)])
    return torch.cat((lines, lines), dim=1)


@pytest.mark.parametrize("context", [256, 64])
def test_before_training_what_followed_last_time_follows_again(context: int) -> None:
    """Random tokens, repeated once: only copying can predict the repetition."""
    mini_gpt2 = MiniModelConfig(architecture="gpt2", layers=2, context=context)
    twice = random_lines(500, 20)
    with torch.no_grad():
        logits = build_model(mini_gpt2, 500).eval()(input_ids=twice, position_ids=torch.arange(40) + 11).logits
    guessed = (logits[:, 20:-1].argmax(-1) == twice[:, 21:]).float().mean()
    assert float(guessed) > 0.5
    one_layer = build_model(dataclasses.replace(mini_gpt2, layers=1), 500).eval()
    with torch.no_grad():
        logits = one_layer(input_ids=twice).logits
    assert float((logits[:, 20:-1].argmax(-1) == twice[:, 21:]).float().mean()) < 0.05


def test_the_loss_is_that_of_transformers_and_padding_has_none() -> None:
    model = build_model(TINY, 50).eval()
    rows = [torch.randint(2, 50, (n,), generator=torch.Generator().manual_seed(n)) for n in (5, 9)]
    batch = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=PAD)
    positions = torch.arange(9).expand(2, 9)
    with torch.no_grad():
        loss, count = next_token_loss(model, batch, positions)
        alone = [model(input_ids=row[None], labels=row[None]).loss.item() * (len(row) - 1) for row in rows]
    assert count == 4 + 8
    assert loss.item() == pytest.approx(sum(alone), rel=1e-5)
    assert held_out_loss(model, [row.tolist() for row in rows]) == pytest.approx(sum(alone) / 12, rel=1e-5)


def test_embeddings_are_one_matrix_before_and_after_saving(saved: Path) -> None:
    for model in (build_model(TINY, 50), AutoModelForCausalLM.from_pretrained(saved)):
        assert model.lm_head.weight is model.transformer.wte.weight
    facts = json.loads((saved / PRETRAINING).read_text())
    model = AutoModelForCausalLM.from_pretrained(saved)
    assert facts["parameters"] == sum(p.numel() for p in model.parameters())
    assert facts["vocabulary"] == model.config.vocab_size == len(AutoTokenizer.from_pretrained(saved))
    assert facts["text"] == {"file": "some.txt", "paragraphs": 12, "texts": 24}


# --- training --------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_training_learns_the_text_and_says_how_well(tmp_path: Path) -> None:
    """Cyclic texts: each letter follows from the one before it, so the perplexity approaches 1."""
    circle = " ".join("abcdefgh" * 3)
    text = [[circle[2 * start : 2 * start + 23]] for start in range(8)] * 6
    config = dataclasses.replace(TINY, steps=120, batch_size=16, lr=5e-3)
    facts = pretrain_gpt2(text, config, tmp_path / "model", {})
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "model").eval()
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model")
    continued = model.generate(**tokenizer("c d e", return_tensors="pt"), max_new_tokens=4, do_sample=False)
    assert tokenizer.decode(continued[0]).startswith("c d e f g h a")
    assert 1 < facts["held_out_perplexity"] < 1.6
    assert facts["loss"] < math.log(1.6)
    assert facts["cut"] == 0
    # The model knows the end of a text and nothing of padding.
    assert (facts["steps"], facts["tokens"] > 120 * 8 * 8) == (120, True)


def test_what_is_longer_than_the_context_is_cut_and_counted(tmp_path: Path) -> None:
    facts = pretrain_gpt2([["word " * 300], ["short"], ["text"]], TINY, tmp_path / "model", {})
    assert facts["cut"] == 1


def weights(folder: Path) -> bytes:
    return (folder / "model.safetensors").read_bytes()


def test_the_same_arguments_give_the_same_weights_and_leave_the_global_generator_alone(
    saved: Path, tmp_path: Path
) -> None:
    torch.manual_seed(11)
    before = torch.get_rng_state()
    pretrain_gpt2(TEXT, TINY, tmp_path / "second", {})
    assert torch.equal(before, torch.get_rng_state())
    assert weights(saved) == weights(tmp_path / "second")
    assert (saved / "tokenizer.json").read_bytes() == (tmp_path / "second" / "tokenizer.json").read_bytes()
    pretrain_gpt2(TEXT, dataclasses.replace(TINY, seed=1), tmp_path / "third", {})
    assert weights(saved) != weights(tmp_path / "third")


def test_nothing_is_overwritten_and_too_little_text_is_refused(saved: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="model is there already"):
        pretrain_gpt2(TEXT, TINY, saved, {})
    with pytest.raises(ValueError, match="1 paragraphs: expected at least two, one of them for validation"):
        pretrain_gpt2(TEXT[:1], TINY, tmp_path / "model", {})
    assert list(tmp_path.iterdir()) == []


# --- cache -----------------------------------------------------------------------------------------------------------


def test_the_key_names_text_shape_training_and_version(monkeypatch: pytest.MonkeyPatch) -> None:
    keys = {cache_key(TEXT, TINY), cache_key(TEXT[:-1], TINY), cache_key([[*TEXT[0], *TEXT[1]], *TEXT[2:]], TINY)}
    numbers = [name for name, value in vars(TINY).items() if isinstance(value, (int, float)) and name != "sentences"]
    for name in numbers:
        keys.add(cache_key(TEXT, dataclasses.replace(TINY, **{name: getattr(TINY, name) * 2 or 1})))
    assert len(keys) == 3 + len(numbers)
    # Settings that only determine the text are covered by the text's hash.
    assert cache_key(TEXT, dataclasses.replace(TINY, text="elsewhere.txt", sentences=7)) == cache_key(TEXT, TINY)
    assert cache_key(TEXT, dataclasses.replace(TINY, corpus="answers")) == cache_key(TEXT, TINY)
    monkeypatch.setattr(gpt2, "VERSION", gpt2.VERSION + 1)
    assert cache_key(TEXT, TINY) not in keys


def test_a_second_call_finds_the_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = cached_gpt2(TEXT, TINY, tmp_path, {})
    assert re.fullmatch(r"mini-gpt2-[0-9a-f]{16}", folder.name)
    monkeypatch.setattr(gpt2, "pretrain_gpt2", None)
    assert cached_gpt2(TEXT, TINY, tmp_path, {}) == folder


# --- configuration ---------------------------------------------------------------------------------------------------


def composed(*overrides: str) -> Config:
    return compose_config("logger=none", "train.device=cpu", *overrides)


def test_the_recipe_and_the_text_of_the_roberta_change_on_purpose_only() -> None:
    """Its key in the cache, whatever is added to the settings of the other model."""
    config = composed("model=mini-roberta").model.mini
    text = mini_text.corpus(config.sentences, config.seed)
    assert roberta.cache_key(text, mini_text.vocabulary(), config) == "f7ce56bcea0d80e4"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"architecture": "bert"}, "model.mini.architecture='bert': expected one of roberta, gpt2"),
        ({"vocabulary": 257}, "model.mini.vocabulary=257: expected at least 258"),
        ({"context": 0}, "model.mini.context=0: expected a whole number above 0"),
        ({"corpus": "poems"}, "model.mini.corpus='poems': expected one of restaurants, answers"),
        (
            {"corpus": "answers"},
            "model.mini.corpus='answers': expected restaurants, the default, with model.mini.architecture=roberta",
        ),
        (
            {"architecture": "gpt2", "corpus": "answers", "text": "some.txt"},
            "model.mini.corpus='answers': expected restaurants, the default, with model.mini.text",
        ),
        ({"text": "some.txt"}, "model.mini.text='some.txt': expected no file with model.mini.architecture=roberta"),
        ({"architecture": "gpt2", "glue": "G"}, "model.mini.glue='G': expected none without model.mini.text"),
    ],
)
def test_bad_settings_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        MiniModelConfig(**settings)


SMALL = [
    "task=e2e", "model=mini-gpt2", "model.mini.steps=2", "model.mini.hidden=32", "model.mini.heads=2",
    "model.mini.vocabulary=300", "model.mini.intermediate=64", "model.mini.sentences=20", "model.mini.batch_size=4",
]  # fmt: skip


def test_a_run_gets_the_model_of_its_text_wherever_the_file_lies(tmp_path: Path) -> None:
    def facts(*overrides: str) -> tuple[str, dict[str, object]]:
        folder = Path(located(composed(*SMALL, f"cache_dir={tmp_path / 'cache'}", *overrides)).path)
        return folder.name, json.loads((folder / PRETRAINING).read_text())

    other, its_facts = facts("model.mini.corpus=answers")
    assert its_facts["text"]["generated"] == "answers"
    generated, its_facts = facts()
    assert its_facts["text"]["generated"] == "restaurants"
    assert generated != other
    name_of = {}
    for place in ("here", "there"):
        (tmp_path / place).mkdir()
        path = tmp_path / place / "own.csv"
        path.write_text("mr,ref\nname[A],A is nice.\nname[B],B is not.\nname[A],Nice is A.\n")
        name_of[place], its_facts = facts(f"model.mini.text={path}")
        assert its_facts["text"]["file"] == "own.csv"
        assert re.fullmatch(r"[0-9a-f]{64}", its_facts["text"]["sha256"])
        assert (its_facts["text"]["paragraphs"], its_facts["text"]["texts"]) == (2, 3)
    assert name_of["here"] == name_of["there"] != generated
    more, its_facts = facts(f"model.mini.text={path}", f"model.mini.glue={glue(tmp_path / 'glue')}")
    assert more not in name_of.values()
    assert (its_facts["text"]["paragraphs"], its_facts["text"]["texts"]) == (2 + 7, 3 + 7)
    with pytest.raises(DataError, match="nowhere.csv: no such file"):
        facts(f"model.mini.text={tmp_path / 'nowhere.csv'}")
