"""Separate random streams for separate purposes.

A run has one seed. Data order, head initialisation, adapter initialisation and subspace draws each get a stream of
their own, derived from the seed and the purpose's name, so that two methods under one seed see the same batches and the
same head whatever else they draw. A stream depends on nothing that came before it: to resume is to derive it again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch


def derive(seed: int, purpose: str, index: int = 0) -> int:
    """A 63-bit seed for one purpose of a run (and, where it recurs, for its ``index``-th time)."""
    digest = hashlib.sha256(f"{seed}/{purpose}/{index}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def generator(seed: int, purpose: str, index: int = 0) -> torch.Generator:
    """A CPU generator for one purpose of a run."""
    return torch.Generator().manual_seed(derive(seed, purpose, index))


@contextmanager
def global_stream(seed: int) -> Iterator[None]:
    """Run a block that can only draw from PyTorch's global CPU generator on a stream of its own, and restore it."""
    with torch.random.fork_rng(devices=[]):  # the CPU's generator alone: models are made there
        torch.default_generator.manual_seed(seed)
        yield
