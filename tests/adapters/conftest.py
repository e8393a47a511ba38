"""Fixtures of the adapters' tests."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest


@pytest.fixture(scope="module")
def frozen_heap() -> Iterator[None]:
    """Exclude imported libraries from the garbage collection at each Trainer's end, which outlasts the training."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()
