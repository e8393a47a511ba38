"""The layer with a sparse part: products against dense ones, gradients, and tensors kept for the backward pass."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from rosa.adapters import sparse
from rosa.adapters.sparse import SparseLinear, SparsePart, Support
from tests.adapters.tiny import inputs, relative_difference

OUT, IN, COUNT = 7, 10, 12
DEVICES = {"kernels": True, "index operations": False}
"""Whether the device has PyTorch's sparse products."""


@pytest.fixture(params=DEVICES)
def products(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sparse, "_has_kernels", lambda device: DEVICES[request.param])
    monkeypatch.setattr(sparse, "CHUNK", 16)  # several chunks


def support(dtype: torch.dtype = torch.int32, shape: tuple[int, int] = (OUT, IN), count: int = COUNT) -> Support:
    places = torch.randperm(shape[0] * shape[1], generator=torch.Generator().manual_seed(3))
    return Support(places[:count].sort().values.to(dtype), shape)


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64], ids=str)
@pytest.mark.usefixtures("products")
def test_products_are_those_of_the_dense_matrix(dtype: torch.dtype) -> None:
    where, values = support(dtype), inputs(COUNT).double()
    S = torch.zeros(OUT, IN, dtype=torch.float64)
    for place, value in zip(where.index.tolist(), values.tolist(), strict=True):
        S[place // IN, place % IN] = value
    x, y = inputs(IN, 5).double(), inputs(OUT, 5, seed=2).double()
    assert torch.equal(sparse.dense(values, where), S)
    torch.testing.assert_close(sparse.times(values, where, x), S @ x)
    torch.testing.assert_close(sparse.transposed_times(values, where, y), S.T @ y)
    everywhere = y @ x.T  # left and right have their rows first
    torch.testing.assert_close(sparse.sampled(y.T, x.T, where), everywhere.flatten()[where.index.long()])


@pytest.mark.parametrize("there", [False, True])
def test_pytorchs_sparse_products_are_used_where_there_are_any(there: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """On the CPU they are MKL's; a device that PyTorch does not know has none, whatever the CPU has."""
    monkeypatch.setattr(torch.backends.mkl, "is_available", lambda: there)
    made: list[str] = []
    monkeypatch.setattr(sparse, "_csr", lambda values, support: made.append("CSR") or sparse.dense(values, support))
    where, values, x = support(), inputs(COUNT), inputs(IN, 5)
    torch.testing.assert_close(sparse.times(values, where, x), sparse.dense(values, where) @ x)
    assert bool(made) == there
    made.clear()
    index = torch.empty(COUNT, dtype=torch.int32, device="meta")
    assert sparse.times(values.to("meta"), Support(index, (OUT, IN)), x.to("meta")).shape == (OUT, 5)
    assert not made


@pytest.mark.parametrize("transposed", [False, True])
def test_the_sum_keeps_the_layout_of_the_weight(transposed: bool) -> None:
    where, values = support(), inputs(COUNT)
    weight = inputs(IN, OUT).T if transposed else inputs(OUT, IN)
    before = weight.clone()
    total = sparse.rebuilt(weight, values, where)
    assert torch.equal(total, weight + sparse.dense(values, where))
    assert total.stride() == weight.stride()
    assert torch.equal(weight, before)


def test_flat_positions_are_int32_where_they_fit() -> None:
    assert sparse.index_dtype((2**16, 2**15 - 1)) == torch.int32
    assert sparse.index_dtype((2**16, 2**15)) == torch.int64


def layer(x: Tensor, values: Tensor, bias: Tensor, weight: Tensor, where: Support | None) -> Tensor:
    return SparseLinear.apply(x, values, bias, SparsePart(where, lambda: weight, None))


def oracle(x: Tensor, values: Tensor, bias: Tensor, weight: Tensor, where: Support) -> Tensor:
    """Plain autograd through the dense W + S."""
    S = torch.zeros(weight.numel(), dtype=values.dtype).scatter(0, where.index.long(), values).view(weight.shape)
    return functional.linear(x, (weight + S).to(x.dtype), bias.to(x.dtype))


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.usefixtures("products")
def test_gradients_are_right_to_second_differences(transposed: bool) -> None:
    weight = (inputs(IN, OUT).T if transposed else inputs(OUT, IN)).double()
    given = [tensor.double().requires_grad_() for tensor in (inputs(2, 3, IN), inputs(COUNT), inputs(OUT, seed=5))]
    where = support()
    assert torch.autograd.gradcheck(lambda *tensors: layer(*tensors, weight, where), given)
    assert torch.autograd.gradcheck(lambda *tensors: layer(*tensors, weight, None), given)


@pytest.mark.parametrize(
    ("dtype", "close"), [(torch.float64, 1e-13), (torch.float32, 1e-5), (torch.bfloat16, 3e-2), (torch.float16, 4e-3)]
)
@pytest.mark.usefixtures("products")
def test_output_and_gradients_are_those_of_the_dense_layer(dtype: torch.dtype, close: float) -> None:
    found = []
    for compute in (layer, oracle):
        wide = torch.promote_types(dtype, torch.float32)
        x, weight = inputs(4, 6, IN).to(dtype).requires_grad_(), inputs(OUT, IN).to(dtype)
        values, bias = inputs(COUNT).to(wide).requires_grad_(), inputs(OUT, seed=5).to(dtype).requires_grad_()
        y = compute(x, values, bias, weight, support())
        y.square().sum().backward()
        found.append((y.detach(), x.grad, values.grad, bias.grad))
    for ours, theirs in zip(*found, strict=True):
        assert ours.dtype == theirs.dtype
        assert relative_difference(ours, theirs) <= close


def test_small_values_are_not_lost_in_a_narrow_weight() -> None:
    """Each is less than a hundredth of bfloat16's spacing at the weight beside it, which the inputs cancel."""
    weight = torch.ones(OUT, IN, dtype=torch.bfloat16)
    values = torch.full((COUNT,), 2.0**-14)
    where = support()
    x = (torch.eye(IN) - torch.eye(IN).roll(1, dims=1)).bfloat16()
    expected = (sparse.dense(values, where) @ x.float().T).T
    assert expected.any()
    assert torch.equal(layer(x, values, torch.zeros(OUT), weight, where).float(), expected)


def test_the_gradient_that_is_collected_is_that_of_the_whole_weight() -> None:
    x, values = inputs(4, 6, IN).requires_grad_(), inputs(COUNT).requires_grad_()
    taken: list[Tensor] = []
    for where in (support(), None):
        whole = inputs(OUT, IN) + (0 if where is None else sparse.dense(values.detach(), where))
        whole.requires_grad_()
        part = SparsePart(where, lambda: inputs(OUT, IN), taken.append)
        SparseLinear.apply(x, values, None, part).square().sum().backward()
        functional.linear(x.detach(), whole).square().sum().backward()
        torch.testing.assert_close(taken.pop(), whole.grad)
        assert taken == []


def test_nothing_of_the_weights_size_is_kept_between_forward_and_backward() -> None:
    shape = (64, 48)
    weight, where = inputs(*shape), support(shape=shape, count=20)
    values = inputs(20).requires_grad_()
    kept: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor) or tensor, lambda tensor: tensor):
        layer(inputs(3, 48), values, torch.zeros(64), weight, where)
    assert sorted(tensor.numel() for tensor in kept) == [20, 20, 3 * 48]
