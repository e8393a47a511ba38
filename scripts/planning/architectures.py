"""Configurations of published models, by name on the hub, so that what needs only a shape needs no network."""

from __future__ import annotations

from typing import Any

from transformers import GPT2Config, LlamaConfig, PreTrainedConfig, RobertaConfig

ROBERTA: dict[str, Any] = {"max_position_embeddings": 514, "type_vocab_size": 1}
LARGE: dict[str, Any] = {
    "hidden_size": 1024,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "intermediate_size": 4096,
}
PUBLISHED: dict[str, PreTrainedConfig] = {
    "FacebookAI/roberta-base": RobertaConfig(**ROBERTA),
    "FacebookAI/roberta-large": RobertaConfig(**ROBERTA, **LARGE),
    "openai-community/gpt2": GPT2Config(),
    "openai-community/gpt2-medium": GPT2Config(n_embd=1024, n_layer=24, n_head=16),
    "openai-community/gpt2-large": GPT2Config(n_embd=1280, n_layer=36, n_head=20),
    "meta-llama/Llama-2-7b-hf": LlamaConfig(),
}
"""The classes' defaults are GPT-2 small's and LLaMA2-7B's. Copy before changing one."""
