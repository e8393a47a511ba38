"""Constants of token labels, shared by the code that makes and that reads them."""

from __future__ import annotations

IGNORED = -100
"""The label of a token whose loss does not count, as PyTorch's cross entropy has it."""
