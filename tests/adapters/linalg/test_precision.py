"""Sums are computed in float64 under autocast and TF32; one byte per entry stores the rounding error."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from torch import Tensor

from rosa.adapters.linalg import precision
from rosa.adapters.linalg.precision import STEPS, exact, has_float64, is_narrow, readable, restored, rounded

NARROW = [torch.bfloat16, torch.float16]


def numbers(dtype: torch.dtype) -> Tensor:
    """Numbers of every magnitude of the dtype, with zeros, powers of two and subnormal numbers; float64."""
    stream = torch.Generator().manual_seed(0)
    exponents = torch.linspace(-12, 12, 97, dtype=torch.float64)
    spread = torch.randn(40, 97, generator=stream, dtype=torch.float64) * 2.0**exponents
    smallest = torch.finfo(dtype).smallest_normal
    tiny = torch.randn(4, 97, generator=stream, dtype=torch.float64) * smallest / 4
    powers = 2.0 ** torch.arange(-10, 11, dtype=torch.float64).repeat(5)[:97]
    return torch.cat([spread, tiny, powers[None], -powers[None], torch.zeros(1, 97, dtype=torch.float64)])


def neighbour_distance(value: Tensor) -> Tensor:
    """The distance from each number to the next one away from zero, found by incrementing its bits; float64."""
    return ((value.view(torch.int16) + 1).view(value.dtype).double() - value.double()).abs()


@pytest.mark.parametrize("dtype", NARROW, ids=str)
def test_what_rounding_takes_is_kept_to_half_a_step(dtype: torch.dtype) -> None:
    before = numbers(dtype)
    value, rest = rounded(before, dtype)
    assert value.dtype == dtype
    assert rest.dtype == torch.int8
    assert torch.equal(value, before.to(dtype))
    distance = neighbour_distance(value)
    after = restored(value.double(), rest.double(), dtype)
    assert ((after - before).abs() <= distance / STEPS * 0.5001).all()
    # Without it, half a distance is lost.
    assert float(((value.double() - before).abs() / distance).max()) > 0.4


@pytest.mark.parametrize("dtype", NARROW, ids=str)
def test_numbers_of_the_dtype_leave_no_rest_and_come_back_to_the_bit(dtype: torch.dtype) -> None:
    before = numbers(dtype).to(dtype)
    value, rest = rounded(before.double(), dtype)
    assert not rest.any()
    assert torch.equal(restored(value.double(), rest.double(), dtype).to(dtype), before)


def test_what_is_narrow() -> None:
    narrow = [dtype for dtype in (torch.float64, torch.float32, *NARROW, torch.int8) if is_narrow(dtype)]
    assert narrow == NARROW


def test_sums_are_exact_and_reading_keeps_a_wide_dtype() -> None:
    for dtype in (torch.float64, torch.float32, torch.bfloat16):
        assert exact(torch.ones(1, dtype=dtype)).dtype == torch.float64
    assert readable(torch.ones(1, dtype=torch.bfloat16)).dtype == torch.float32
    assert readable(torch.ones(1, dtype=torch.float64)).dtype == torch.float64


def test_a_device_without_float64_sums_on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    assert has_float64("cpu")
    assert not has_float64("no such device")
    monkeypatch.setattr(precision, "has_float64", lambda kind: kind != "mps")
    fetched = torch.ones(2)
    elsewhere: Any = SimpleNamespace(device=SimpleNamespace(type="mps"), cpu=lambda: fetched)
    assert torch.equal(exact(cast(Tensor, elsewhere)), fetched.double())
