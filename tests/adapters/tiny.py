"""Tiny models with random weights, batches for them, and the layers that adapter tests wrap."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    RobertaConfig,
    RobertaForSequenceClassification,
    T5Config,
    T5ForConditionalGeneration,
)
from transformers.pytorch_utils import Conv1D

from rosa.adapters import adapters, attach, resample
from rosa.adapters.base import SupportedAdapter
from rosa.adapters.rosa import RosaLinear
from rosa.config import FullConfig, IA3Config, LoraConfig, MethodConfig, RobustConfig, RosaConfig
from rosa.utils.seeding import generator

VOCABULARY = 40
HIDDEN = 32
ENCODER: dict[str, Any] = {
    "vocab_size": VOCABULARY, "hidden_size": HIDDEN, "num_hidden_layers": 2, "num_attention_heads": 4,
    "intermediate_size": 48, "max_position_embeddings": 40, "num_labels": 3, "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
}  # fmt: skip


TOWER: dict[str, Any] = {
    "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
}  # fmt: skip
"""The encoder of a text, or (``IMAGE``) of a picture of 8 x 8 pixels, in a model of both."""
IMAGE = {**TOWER, "image_size": 8, "patch_size": 4}
WHISPER: dict[str, Any] = {
    "d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2, "vocab_size": 60,
    "decoder_attention_heads": 2, "encoder_ffn_dim": 16, "decoder_ffn_dim": 16, "num_mel_bins": 8,
    "max_source_positions": 10,
}  # fmt: skip


def _roberta() -> PreTrainedModel:
    return RobertaForSequenceClassification(RobertaConfig(pad_token_id=1, **ENCODER))


def _bert() -> PreTrainedModel:
    return BertForSequenceClassification(BertConfig(**ENCODER))


def _gpt2() -> PreTrainedModel:
    shape: dict[str, Any] = {"n_embd": HIDDEN, "n_layer": 2, "n_head": 4, "n_inner": 48, "n_positions": 40}
    dropout: dict[str, Any] = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
    return GPT2LMHeadModel(GPT2Config(vocab_size=VOCABULARY, bos_token_id=0, eos_token_id=0, **shape, **dropout))


def _llama() -> PreTrainedModel:
    """Two key-value heads for four query heads: its attention's layers are not square."""
    shape: dict[str, Any] = {
        "hidden_size": HIDDEN,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
    }
    return LlamaForCausalLM(LlamaConfig(vocab_size=VOCABULARY, num_key_value_heads=2, **shape))


def _t5() -> PreTrainedModel:
    shape: dict[str, Any] = {"d_model": HIDDEN, "d_kv": 6, "d_ff": 48, "num_layers": 2, "num_heads": 4}
    return T5ForConditionalGeneration(
        T5Config(vocab_size=VOCABULARY, dropout_rate=0.0, decoder_start_token_id=0, **shape)
    )


BUILDERS: dict[str, Callable[[], PreTrainedModel]] = {
    "roberta": _roberta,
    "bert": _bert,
    "gpt2": _gpt2,
    "llama": _llama,
    "t5": _t5,
}


@functools.cache
def _original(name: str) -> PreTrainedModel:
    torch.manual_seed(0)
    model = BUILDERS[name]()
    with torch.no_grad():
        for parameter in model.parameters():
            # Transformers starts biases at 0 and weights near 0, where many errors would not be noticed.
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model.eval()


def build(name: str) -> PreTrainedModel:
    """A fresh copy of the same tiny model every time, in evaluation mode."""
    return copy.deepcopy(_original(name))


def batch(name: str, seed: int = 0) -> dict[str, Tensor]:
    """Four sequences of seven tokens, and labels."""
    stream = torch.Generator().manual_seed(seed)
    tokens = torch.randint(3, VOCABULARY, (4, 7), generator=stream)
    labels = torch.randint(3, (4,), generator=stream) if name in ("roberta", "bert") else tokens
    return {"input_ids": tokens, "attention_mask": torch.ones_like(tokens), "labels": labels}


def logits(model: nn.Module, name: str) -> Tensor:
    """The model's logits for its batch, without gradients."""
    with torch.no_grad():
        return model(**batch(name)).logits


def relative_difference(actual: Tensor, expected: Tensor) -> float:
    """Largest difference over the largest expected value, in float64."""
    actual, expected = actual.double(), expected.double()
    return float((actual - expected).abs().max() / expected.abs().max())


METHODS: dict[str, Callable[[], MethodConfig]] = {
    "rosa": lambda: RosaConfig(rank=4),
    "lora": lambda: LoraConfig(rank=4),
    "ia3": IA3Config,
    "ia3-inputs": lambda: IA3Config(variant="attention_inputs"),
    "robust": lambda: RobustConfig(rank=4, density=0.05),
    "full": FullConfig,
}


def attached(name: str, config: MethodConfig, seed: int = 0) -> PreTrainedModel:
    """A fresh tiny model with a method attached."""
    model = build(name)
    attach(model, config, generator=generator(seed, "adapter"), verbose=False)
    give_support(model, seed)
    return model


def give_support(model: nn.Module, seed: int = 0) -> None:
    """Choose a random support for every sparse part, as training would."""
    stream = generator(seed, "support")
    for _, adapter in adapters(model):
        if isinstance(adapter, SupportedAdapter) and adapter.index is not None:
            places = torch.randperm(adapter.shape[0] * adapter.shape[1], generator=stream)
            adapter.choose(places[: len(adapter.index)].sort().values)


def perturb(model: nn.Module, size: float = 0.05, seed: int = 0) -> None:
    """Move every trainable parameter by noise, as training would."""
    stream = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                noise = torch.randn(parameter.shape, generator=stream)
                parameter.add_(size * noise.to(parameter.device, parameter.dtype))


def train_steps(model: nn.Module, name: str, steps: int = 3, lr: float = 1e-2, **options: Any) -> torch.optim.AdamW:
    """A few AdamW updates of the trainable parameters, each on another batch; returns the optimizer."""
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trainable, lr=lr, weight_decay=0.01, **options)
    for step in range(steps):
        optimizer.zero_grad()
        model(**batch(name, seed=100 + step)).loss.backward()
        optimizer.step()
    return optimizer


class OneLayer(nn.Module):
    """A single layer, under the name ``attention.layer``."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.attention = nn.Module()
        self.attention.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        return self.attention.layer(x)


def with_rosa(layer: nn.Module, seed: int = 0, **options: Any) -> tuple[OneLayer, RosaLinear]:
    """A model of this one layer with ROSA, and its adapter."""
    model = OneLayer(layer)
    attach(model, RosaConfig(**options), generator=generator(seed, "adapter"), verbose=False)
    adapter = model.attention.layer
    assert isinstance(adapter, RosaLinear)
    return model, adapter


@torch.no_grad()
def assert_function_stays(model: OneLayer, adapter: RosaLinear, x: Tensor, expected: Tensor) -> None:
    """Assert that the outputs are the plain layer's, and that three resamples after training do not change them."""
    assert relative_difference(model(x), expected) <= 1e-5
    for step in range(3):
        # Changes the factors since the last resample, as training does.
        adapter.A += 0.1 * inputs(*adapter.A.shape, seed=step)
        adapter.B += 0.1 * inputs(*adapter.B.shape, seed=step + 10)
        trained = model(x)
        assert relative_difference(trained, expected) > 1e-3
        resample(model, generator=generator(0, "resample", step))
        assert relative_difference(model(x), trained) <= 1e-5


def make_layer(kind: str, out_features: int, in_features: int, bias: bool = True, seed: int = 0) -> nn.Module:
    """``linear`` or ``conv1d`` with normal weights and bias."""
    stream = torch.Generator().manual_seed(seed)
    if kind == "conv1d":
        layer: nn.Module = Conv1D(out_features, in_features)  # its bias cannot be left out
    else:
        layer = nn.Linear(in_features, out_features, bias=bias)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=stream))
    return layer


def inputs(*shape: int, seed: int = 1) -> Tensor:
    """Normal float32 inputs."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))
