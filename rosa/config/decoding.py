"""How a causal language model continues a prompt."""

from __future__ import annotations

import math
from dataclasses import dataclass

from rosa.config.checks import not_negative, positive, require


@dataclass
class DecodingConfig:
    """Beam search, or greedy decoding with one beam. The defaults are those of ROSA's released code."""

    beams: int = 5
    """Hypotheses kept at each token; 1 is greedy decoding."""
    length_penalty: float = 1.0
    """A finished beam's log probability is divided by its number of tokens to this power: above 0 favours long ones."""
    no_repeat_ngram: int = 4
    """No sequence of this many tokens occurs twice; 0 forbids nothing."""
    no_repeat_prompt: bool = True
    """Whether a sequence that the prompt holds counts as having occurred, as it does in ``transformers``. LoRA's code
    looks at the hypothesis alone. It matters where names of the prompt are of as many tokens as are forbidden."""
    max_new_tokens: int = 128
    """Tokens of a hypothesis at most, its end among them."""
    batch_size: int = 32
    """Prompts decoded together. It changes no hypothesis."""

    def __post_init__(self) -> None:
        for key in ("beams", "max_new_tokens", "batch_size"):
            positive(f"decoding.{key}", getattr(self, key))
        not_negative("decoding.no_repeat_ngram", self.no_repeat_ngram)
        finite = math.isfinite(self.length_penalty)
        require(finite, "decoding.length_penalty", self.length_penalty, "a finite number")
        if self.beams == 1:
            expected = "1.0 with decoding.beams=1, which compares nothing"
            require(self.length_penalty == 1.0, "decoding.length_penalty", self.length_penalty, expected)
