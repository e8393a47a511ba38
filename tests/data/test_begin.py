"""Training and decoding begin a text with the tokens that its tokenizer puts before every text."""

from __future__ import annotations

import datasets
import pytest
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast

from rosa.config import TaskConfig
from rosa.data.e2e import GenerationData
from rosa.data.tokenization import tokenize_pairs
from rosa.evaluation.generation import decode
from rosa.utils.names import IGNORED
from tests import causal

UNKNOWN, END = causal.UNKNOWN, causal.END


@pytest.fixture(params=[[], [UNKNOWN]], ids=["as GPT-2", "as Llama"])
def begin(request: pytest.FixtureRequest) -> list[int]:
    """The tokens that the tokenizer puts before a text."""
    return request.param


@pytest.fixture
def tokenizer(begin: list[int]) -> PreTrainedTokenizerFast:
    made = causal.build_tokenizer()
    made.bos_token = "<unk>"
    if begin:
        made.backend_tokenizer.post_processor = TemplateProcessing(
            single="<unk> $A", special_tokens=[("<unk>", UNKNOWN)]
        )
    return made


def test_training_and_decoding_begin_alike(tokenizer: PreTrainedTokenizerFast, begin: list[int]) -> None:
    task = TaskConfig(
        name="e2e", kind="generation", texts=["mr", "ref"], metrics=["perplexity"], headline="perplexity",
        lower_is_better=True, prompt="{given}",
    )  # fmt: skip
    rows = datasets.Dataset.from_dict({"mr": ["w0 w1"], "ref": ["w2"]})
    facts = {"splits": {"train": {}, "validation": {}}}
    data = tokenize_pairs(GenerationData(rows, {"validation": rows}, {}, facts), task, tokenizer, 64)
    prompt = [*begin, 3, 4]
    assert data.train["input_ids"][0] == [*prompt, 5, END]
    assert data.train["labels"][0] == [IGNORED] * len(prompt) + [5, END]
    assert data.facts["begins_with"] == ["<unk>"][: len(begin)]
    assert decode._encode(tokenizer, ["w0 w1"]) == [prompt]
