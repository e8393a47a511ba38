"""Fixtures of the adapters' tests."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest


@pytest.fixture(scope="module")
def frozen_heap() -> Iterator[None]:
    """Each Trainer ends in a full garbage collection, which takes longer than its training; spare it the libraries."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()
