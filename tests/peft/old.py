"""What PEFT before 0.21.2 cannot do with the installed Transformers."""

from __future__ import annotations

import inspect

import peft
import pytest
from transformers import GenerationMixin

REMOVED = "_prepare_encoder_decoder_kwargs_for_generation"
"""A method that Transformers 5 has no longer, and that PEFT's class for encoder-decoder models called until 0.21.1."""


def skip_encoder_decoders() -> None:
    """Skip the test if the installed PEFT cannot load any adapter, ours or LoRA, for an encoder-decoder model."""
    if REMOVED in inspect.getsource(peft.PeftModelForSeq2SeqLM) and not hasattr(GenerationMixin, REMOVED):
        pytest.skip(f"PEFT {peft.__version__} cannot wrap an encoder-decoder model of this Transformers")
