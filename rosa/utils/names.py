"""What the labels of tokens have in common, wherever they are made or read."""

from __future__ import annotations

IGNORED = -100
"""The label of a token whose loss does not count, as PyTorch's cross entropy has it."""
