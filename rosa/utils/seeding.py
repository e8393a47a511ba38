"""Separate random streams for separate purposes.

A run has one seed. Data order, head initialisation, adapter initialisation and subspace draws each get a stream of
their own, derived from the seed and the purpose's name, so that two methods under one seed see the same batches and the
same head whatever else they draw. A stream does not depend on earlier draws, so a resumed run derives it again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rosa.errors import AdapterError

if TYPE_CHECKING:
    import torch


def derive(seed: int, purpose: str, index: int = 0) -> int:
    """A 63-bit seed for one purpose of a run (and, where it recurs, for its ``index``-th time)."""
    digest = hashlib.sha256(f"{seed}/{purpose}/{index}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def generator(seed: int, purpose: str, index: int = 0) -> torch.Generator:
    """A CPU generator for one purpose of a run."""
    import torch

    return torch.Generator("cpu").manual_seed(derive(seed, purpose, index))


def draw_seed(stream: torch.Generator | None) -> int:
    """The seed of one adapter's initial factors; None: from PyTorch's global generator."""
    import torch

    return int(torch.randint(2**62, (1,), generator=stream, device="cpu"))


def require_cpu(stream: torch.Generator | None) -> None:
    """Check that a generator is on the CPU: draws must not depend on the model's device.

    Raises:
        AdapterError: names the generator's device, or what is given instead of one.
    """
    if stream is None:
        return
    import torch

    if not isinstance(stream, torch.Generator):
        raise AdapterError(f"generator={stream!r}: expected a torch.Generator('cpu'), or None for the global one")
    if stream.device.type != "cpu":
        raise AdapterError(f"generator is on {stream.device}: expected a CPU generator, torch.Generator('cpu')")


@contextmanager
def global_stream(seed: int) -> Iterator[None]:
    """Seed PyTorch's global CPU generator for a block of code that draws from it, and restore its state afterwards."""
    import torch

    with torch.random.fork_rng(devices=[]):  # only the CPU's generator: models are built there
        torch.default_generator.manual_seed(seed)
        yield
