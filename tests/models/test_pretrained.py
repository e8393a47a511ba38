"""Language models and their tokenizers: the padding token, the end token, GPT-2's own vocabulary."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, GPT2TokenizerFast

from rosa import models
from rosa.adapters.targets import drawn_names
from rosa.config import ModelConfig, TaskConfig
from tests.composing import compose_config
from tests.conftest import REAL_DATA

VOCABULARY = REAL_DATA / "gpt2-tokenizer"


@pytest.fixture(scope="module")
def task() -> TaskConfig:
    return compose_config("task=e2e", "model=mini-gpt2").task


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as the hub's gpt2 is: GPT-2's own vocabulary, tied embeddings, no padding token; random weights."""
    if not VOCABULARY.is_dir():
        pytest.skip("GPT-2's vocabulary is not beside the project")
    folder = tmp_path_factory.mktemp("gpt2")
    torch.manual_seed(0)
    shape = GPT2Config(n_positions=64, n_embd=32, n_layer=2, n_head=2, initializer_range=0.3)
    GPT2LMHeadModel(shape).save_pretrained(folder)
    GPT2TokenizerFast.from_pretrained(VOCABULARY).save_pretrained(folder)
    return folder


def load(folder: Path, task: TaskConfig):
    return models.load(ModelConfig(name="gpt2", source="folder", path=str(folder)), task, seed=0)


def test_gpt2_gets_a_padding_token_that_is_not_its_end(gpt2, task):
    model, tokenizer, facts = load(gpt2, task)
    assert tokenizer.eos_token_id == 50256
    assert tokenizer.pad_token_id == 50257
    assert facts["padding_added"] is True
    assert model.config.pad_token_id == model.generation_config.pad_token_id == 50257
    assert model.lm_head.weight.data_ptr() == model.transformer.wte.weight.data_ptr(), "tied embeddings stay tied"
    text = "name[The Vaults], priceRange[more than £30]"
    assert tokenizer(text)["input_ids"] == GPT2TokenizerFast.from_pretrained(VOCABULARY)(text)["input_ids"]


def test_the_padding_token_changes_a_loss_by_no_more_than_its_bound(gpt2, task):
    """Jensen: the mean logit's probability is at most one over the vocabulary's size, wherever the model stands."""
    before = GPT2LMHeadModel.from_pretrained(gpt2).eval()
    after, _, _ = load(gpt2, task)
    ids = torch.randint(50257, (4, 40), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        old, new = before(ids).logits.double(), after(ids).logits.double()
    assert new.shape[-1] == old.shape[-1] + 1
    assert torch.allclose(new[..., :-1], old, atol=1e-4)
    share = new.softmax(-1)[..., -1]
    assert share.max() <= 1 / 50257 * 1.001
    assert share.max() > 0
    assert (new.logsumexp(-1) - old.logsumexp(-1)).max() <= math.log1p(1 / 50257) + 1e-4


def test_a_padding_token_of_its_own_is_left_alone(gpt2, task, tmp_path):
    model, tokenizer, _ = load(gpt2, task)
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    again, _, facts = load(tmp_path, task)
    assert facts["padding_added"] is False
    assert torch.equal(again.lm_head.weight, model.lm_head.weight)


def test_a_checkpoint_without_its_tokenizer_is_refused(gpt2, task, tmp_path):
    GPT2LMHeadModel.from_pretrained(gpt2).save_pretrained(tmp_path)
    with pytest.raises(models.ModelError, match="no tokenizer; save it"):
        load(tmp_path, task)


def test_an_encoder_is_no_causal_model(tiny_model, task, monkeypatch):
    """RoBERTa's masked language model would load as a causal one without a warning."""
    tiny = ModelConfig(name="tiny", source="folder", path=str(tiny_model))
    with pytest.raises(models.ModelError, match=r"model=tiny with task=\w+: the model is an encoder \(roberta\)"):
        models.load(tiny, task, seed=0)
    monkeypatch.setattr(models.pretrained, "MODEL_FOR_MASKED_LM_MAPPING", {})  # as of an architecture of one's own
    with pytest.raises(models.ModelError, match=r"tiny.*RobertaForCausalLM is not a causal"):
        models.load(tiny, task, seed=0)


class OneMore:
    """As much of a tokenizer as the padding token needs: its number, one beyond the model's vocabulary."""

    pad_token_id = 40

    def add_special_tokens(self, added: dict[str, str]) -> None:
        assert added == {"pad_token": models.pretrained.PADDING}

    def __len__(self) -> int:
        return self.pad_token_id + 1


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("lacking", [(), ("lm_head.weight",)])
def test_a_padding_token_makes_no_head_of_an_output_layer(tied, lacking, tmp_path):
    """A larger output layer with the loaded weights is as pretrained as before; one that was missing still is not."""
    torch.manual_seed(0)
    shape = GPT2Config(vocab_size=40, n_positions=16, n_embd=8, n_layer=1, n_head=2, tie_word_embeddings=tied)
    made = GPT2LMHeadModel(shape)
    state = {name: tensor for name, tensor in made.state_dict().items() if name not in lacking}
    made.save_pretrained(tmp_path, state_dict=state)
    model = GPT2LMHeadModel.from_pretrained(tmp_path)
    before = drawn_names(model)
    assert before == ([] if tied else list(lacking))
    models.pretrained.add_padding(model, OneMore())
    assert len(model.lm_head.weight) == 41
    assert drawn_names(model) == before
