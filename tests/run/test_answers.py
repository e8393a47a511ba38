"""Runs of tasks with right-or-wrong answers, on decoder models of several architectures."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from rosa import models, records
from rosa.config import DecodingConfig
from rosa.data import e2e
from rosa.errors import ConfigError, DataError
from rosa.evaluation.generation.decode import decode
from rosa.mini import text
from rosa.mini.pretraining.gpt2_text import build_tokenizer
from rosa.run import run
from tests.conftest import Composer
from tests.run.test_resume import folder_of

CONTEXT = 256
SHAPE: dict[str, Any] = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
SHAPE["max_position_embeddings"] = CONTEXT
MODELS: dict[str, Callable[[dict[str, Any]], PreTrainedModel]] = {
    # Two key-value heads for four query heads; an output layer of its own.
    "llama": lambda ids: LlamaForCausalLM(
        LlamaConfig(num_key_value_heads=2, tie_word_embeddings=False, **SHAPE, **ids)
    ),
    # Biases on query, key and value; an output layer that is the embedding.
    "qwen2": lambda ids: Qwen2ForCausalLM(Qwen2Config(num_key_value_heads=2, tie_word_embeddings=True, **SHAPE, **ids)),
    # Query, key and value in one layer; a parallel feed-forward.
    "gpt_neox": lambda ids: GPTNeoXForCausalLM(GPTNeoXConfig(**SHAPE, **ids)),
}


@pytest.fixture(scope="module")
def decoders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders of tiny random models with a tokenizer that knows the miniature tasks' texts."""
    rows = [row for task in ("gsm8k", "viggo", "sql") for row in text.examples(task, "train", 60, 0)]
    tokenizer = build_tokenizer([list(row.values()) for row in rows], 500, CONTEXT)
    ids = {"vocab_size": len(tokenizer), "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 1}
    found = {}
    for name, make in MODELS.items():
        torch.manual_seed(0)
        folder = tmp_path_factory.mktemp(name)
        make(ids).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        found[name] = folder
    return found


SMALL = (
    *("data=mini", "data.train_size=48", "data.evaluation_size=6", "train.epochs=1", "train.batch_size=8"),
    *("decoding.max_new_tokens=8", "train.lr=1e-2", "train.keep=last"),
)
SCORES = {"gsm8k": {"exact_match"}, "viggo": {"exact_match", "slot_f1"}, "sql": {"exact_match", "execution"}}


@pytest.mark.parametrize(("name", "task"), [("llama", "gsm8k"), ("qwen2", "viggo"), ("gpt_neox", "sql")])
def test_decoder_models_train_and_are_scored(
    name: str, task: str, decoders: dict[str, Path], composed: Composer
) -> None:
    robust = ("method=robust", "method.rank=2", "method.density=0.05", "method.targets=['*']")
    config = composed(f"task={task}", *SMALL, *robust, f"model.path={decoders[name]}")
    record = run(config, "command", progress=False).record
    assert records.read(folder_of(config) / records.RECORD)["status"] == "done"
    kept = record["generation"]
    assert set(kept["scores"]) == SCORES[task]
    assert all(value is None or 0 <= value <= 1 for value in kept["scores"].values())
    assert kept["segments"] == kept["prompts"] == 6
    layers = {"llama": 14, "qwen2": 14, "gpt_neox": 8}[name]
    assert len(record["adapted"]) == len(record["diagnostics"]["support"]["layers"]) == layers
    assert record["training"] == [] or all(entry["loss"] > 0 for entry in record["training"])


@pytest.mark.parametrize("name", MODELS)
def test_prompts_of_a_batch_are_continued_as_each_alone(
    name: str, decoders: dict[str, Path], composed: Composer
) -> None:
    """Left-padded prompts have the positions that they have alone."""
    config = composed("task=viggo", *SMALL, f"model.path={decoders[name]}")
    model, tokenizer, _ = models.load(config.model, config.task, 0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    groups = e2e.load(config.task, config.data, 0).groups["test"]
    prompts = [e2e.prompt(config.task, group.mr) for group in groups]
    assert len({len(tokenizer(prompt)["input_ids"]) for prompt in prompts}) > 2
    greedy = DecodingConfig(beams=1, no_repeat_ngram=0, no_repeat_prompt=False, max_new_tokens=8)
    together = decode(model, tokenizer, prompts, greedy, progress=False).continuations
    for prompt, found in zip(prompts, together, strict=True):
        (alone,) = decode(model, tokenizer, [prompt], greedy, progress=False).continuations
        assert found.tokens == alone.tokens


def test_files_of_ones_own_with_three_columns(decoders: dict[str, Path], composed: Composer, tmp_path: Path) -> None:
    files = {}
    for split in ("train", "validation", "test"):
        files[split] = tmp_path / f"{split}.jsonl"
        rows = text.examples("sql", split, 8, 0)
        files[split].write_text("".join(json.dumps(row) + "\n" for row in rows))
    named = [f"data.{split}={path}" for split, path in files.items()]
    config = composed("task=sql", *SMALL[4:], "data=files", *named, "train.epochs=1", f"model.path={decoders['llama']}")
    groups = e2e.load(config.task, config.data, 0).groups["test"]
    row = text.examples("sql", "test", 1, 0)[0]
    assert groups[0].mr == f"{row['context']} | {row['question']}"
    assert groups[0].references == (row["answer"],)


def test_a_solution_without_a_number_names_file_and_line(
    decoders: dict[str, Path], composed: Composer, tmp_path: Path
) -> None:
    files = {}
    for split in ("train", "validation", "test"):
        files[split] = tmp_path / f"{split}.jsonl"
        rows = text.examples("gsm8k", split, 8, 0)
        if split == "validation":
            rows[2]["answer"] = "It is 7."
        files[split].write_text("".join(json.dumps(row) + "\n" for row in rows))
    named = [f"data.{split}={path}" for split, path in files.items()]
    config = composed("task=gsm8k", *SMALL[4:], "data=files", *named, f"model.path={decoders['llama']}")
    with pytest.raises(DataError, match=r"validation\.jsonl:3: answer has no number behind ####: 'It is 7\.'"):
        e2e.load(config.task, config.data, 0)


def test_three_columns_are_for_texts_from_texts(composed: Composer) -> None:
    with pytest.raises(ConfigError, match=r"task\.texts=.*: expected one or two column names"):
        composed("task=mnli", "task.texts=[a,b,c]")
    with pytest.raises(ConfigError, match=r"task\.scorer='bleu': expected one of e2e, number, slots, sql"):
        composed("task=e2e", "task.scorer=bleu")
