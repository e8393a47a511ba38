"""Configuration of the ``decoding`` group: how a causal language model continues a prompt."""

from __future__ import annotations

import math
from dataclasses import dataclass

from rosa.config.checks import not_negative, require, whole_positive


@dataclass
class DecodingConfig:
    """Beam search, or greedy decoding with one beam. The defaults are those of ROSA's released code."""

    beams: int = 5
    """Number of beams; 1 is greedy decoding."""
    length_penalty: float = 1.0
    """Exponent of the length by which a finished beam's log probability is divided: above 0 favours long texts."""
    no_repeat_ngram: int = 4
    """No n-gram of this many tokens may occur twice; 0 allows all."""
    no_repeat_prompt: bool = True
    """Whether n-grams of the prompt count as occurrences, as in ``transformers``; LoRA's released code only counts the
    hypothesis. It matters when the prompt contains names of ``no_repeat_ngram`` tokens or more."""
    max_new_tokens: int = 128
    """Maximum number of tokens of a hypothesis, including the end token."""
    batch_size: int = 32
    """Prompts decoded at a time; does not change any hypothesis."""

    def __post_init__(self) -> None:
        for key in ("beams", "max_new_tokens", "batch_size"):
            whole_positive(f"decoding.{key}", getattr(self, key))
        not_negative("decoding.no_repeat_ngram", self.no_repeat_ngram)
        finite = math.isfinite(self.length_penalty)
        require(finite, "decoding.length_penalty", self.length_penalty, "a finite number")
        if self.beams == 1:
            expected = "1.0 with decoding.beams=1, since greedy decoding compares no beams"
            require(self.length_penalty == 1.0, "decoding.length_penalty", self.length_penalty, expected)
