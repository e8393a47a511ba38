"""RoSA, robust adaptation: a low-rank and a sparse update of each weight, trained together (arXiv 2401.04679).

Not to be confused with ROSA, random subspace adaptation (:mod:`rosa.adapters.rosa`), an unrelated method.

::

            x (…, in)
            |-------------------------------.
       W + S (out, in)                dropout(x) (…, in)
       W frozen; S has k trained            |
       entries at fixed places        lora_A (r, in)
            |                         lora_B (out, r), times alpha / r
            '--------------(+)--------------'
                            |
                            y (…, out) = x (W + S)^T + b + (alpha / r) dropout(x) A^T B^T

A is Kaiming-uniform, B = 0 and S = 0 at the start, so that the function is unchanged. The positions of S's entries are
chosen during training from the gradient of the whole weight (:mod:`rosa.adapters.support`); before that, S is left out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from rosa.adapters import support
from rosa.adapters.base import (
    AddingAdapter,
    LinearLayer,
    SupportedAdapter,
    dense_weight,
    is_bare,
    is_stock,
    is_transformed,
    output_of,
    weight_shape,
)
from rosa.adapters.linalg.precision import Cast, autocasted, exact, readable, without_autocast
from rosa.adapters.opaque import numbered, sparse_linear
from rosa.adapters.quantized import quant_state
from rosa.adapters.sparse import SparseLinear, SparsePart, Support, dense, index_dtype
from rosa.adapters.targets import by_pattern, layer_ranks, linear_layers, matches, target_layers
from rosa.config import RobustConfig
from rosa.errors import AdapterError
from rosa.utils.seeding import draw_seed, global_stream


class RobustLinear(SupportedAdapter, AddingAdapter):
    """RoSA on one layer.

    Args:
        base: the layer to wrap.
        rank: of the low-rank part; None for a sparse part alone.
        count: k, the number of entries of the sparse part; 0 for a low-rank part alone.
        config: the method's options.
        seed: of A.
    """

    def __init__(self, base: LinearLayer, rank: int | None, count: int, config: RobustConfig, seed: int) -> None:
        super().__init__()
        self.base = base
        self.rank = rank
        self._config = config
        self._collect: Callable[[Tensor], None] | None = None
        self._checked: tuple[Tensor, int, bool] | None = None
        weight = base.weight
        self.shape = weight_shape(base)
        dtype = torch.promote_types(weight.dtype, torch.float32)
        if rank is not None:
            A = torch.empty(rank, self.shape[1], dtype=dtype, device="cpu")
            with global_stream(seed):
                nn.init.kaiming_uniform_(A, a=math.sqrt(5))
            self.lora_A = nn.Parameter(A.to(weight.device))
            self.lora_B = nn.Parameter(torch.zeros(self.shape[0], rank, dtype=dtype, device=weight.device))
        if count:
            self.values = nn.Parameter(torch.zeros(count, dtype=dtype, device=weight.device))
        unknown = torch.full((count,), -1, dtype=index_dtype(self.shape), device=weight.device)
        self.register_buffer("index", unknown if count else None)
        self._remember(False)
        self._number = numbered(self)

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._number = numbered(self)  # a copy is another layer

    @property
    def support(self) -> Support | None:
        """The positions of S; None before they are chosen, and without a sparse part."""
        if self.index is None:
            return None
        if not self._remembers():
            self._remember(bool(self.index[0] >= 0))  # synchronizes with the device, once after loading a checkpoint
        assert self._checked is not None
        return Support(self.index, self.shape) if self._checked[2] else None

    @torch.no_grad()
    def choose(self, index: Tensor) -> None:
        """Set the support, in place: sorted flat positions (k,). ``values`` become 0."""
        assert self.index is not None
        assert index.shape == self.index.shape, "a support of another density"
        self.index.copy_(index)
        self.values.zero_()
        self._remember(True)

    def collect(self, take: Callable[[Tensor], None] | None) -> None:
        """Pass the gradient (out, in) of the weight to ``take`` in every backward pass from now on; None stops this."""
        self._collect = take

    def part(self) -> SparsePart:
        """The current inputs of the sparse product other than x, ``values`` and b."""
        return SparsePart(self.support, self._weight, self._collect)

    def forward(self, x: Tensor) -> Tensor:
        """``x (W + S)^T + b + (alpha / r) dropout(x) A^T B^T``; (…, in) -> (…, out)."""
        given, x = x, autocasted(x)
        if self.index is None or not x.is_floating_point():  # whole numbers are refused as the plain layer does
            out = output_of(self.base, given, x)
        elif torch.compiler.is_compiling():  # which compiles no hooks either
            out = sparse_linear(x, self.values, self.base.bias, self._number, self.shape[0])
        elif is_transformed():
            out = output_of(self.base, given, x) + self._product(x)
        elif self._is_called():
            alone = SparsePart(self.support, self._nothing, self._collect)
            out = output_of(self.base, given, x) + SparseLinear.apply(x, self.values, None, alone)
        else:
            out = SparseLinear.apply(x, self.values, self.base.bias, self.part())
        if self.rank is None:
            return out
        dropped = functional.dropout(x, self._config.dropout, self.training)
        low = functional.linear(dropped, self.lora_A.to(x.dtype))
        B = self.lora_B.to(x.dtype)
        scaled = torch.addmm(out.reshape(-1, self.shape[0]), low.reshape(-1, self.rank), B.T, alpha=self.scaling)
        return scaled.view(out.shape)

    def factors(self) -> dict[str, nn.Parameter]:
        """``lora_A`` (r, in) and ``lora_B`` (out, r), whose product is B A, and ``values`` (k,)."""
        return dict(self.named_parameters(recurse=False))

    def changing(self) -> list[str]:
        """The factors, and the positions of the sparse values."""
        return [*self.factors(), *(["index"] if self.index is not None else [])]

    def rate_ratios(self) -> dict[str, float]:
        """The ratio of the sparse values' learning rate to the run's."""
        return {"values": self._config.lr_sparse} if self.index is not None else {}

    def delta_weight(self, cast: Cast = exact) -> Tensor:
        """``S + (alpha / r) B A`` (out, in)."""
        parts = []
        if self.rank is not None:
            parts.append(self.scaling * (cast(self.lora_B) @ cast(self.lora_A)))
        if self.index is not None:
            values = cast(self.values)
            support = self.support
            # Without a support the values have no effect; DistributedDataParallel requires a gradient, which is 0.
            parts.append((0 * values).sum() if support is None else dense(values, support))
        return sum(parts[1:], parts[0]).expand(self.shape)

    def effective_weight(self, cast: Cast = exact) -> Tensor:
        """The base layer's weight plus :meth:`delta_weight`; while :meth:`collect` is on, its gradient is collected."""
        weight = super().effective_weight(cast)
        if self._collect is not None and weight.requires_grad:
            weight.register_hook(self._collect)
        return weight

    @property
    def scaling(self) -> float:
        """``alpha / r``; 0 without a low-rank part (TorchScript reads every property)."""
        return self._config.alpha / self.rank if self.rank else 0.0

    def _apply(self, *arguments: Any, **options: Any) -> RobustLinear:
        known = self._checked if self._remembers() else None
        super()._apply(*arguments, **options)  # may replace the index by a copy on another device
        if known is not None:
            self._remember(known[2])
        return self

    def _remembers(self) -> bool:
        """Whether :meth:`_remember` was called for the index as it is now."""
        known = self._checked
        if known is None or known[0] is not self.index or known[0].is_inference():
            return False
        return known[1] == known[0]._version

    def _remember(self, chosen: bool) -> None:
        """Cache whether the support is chosen, for the current tensor."""
        if self.index is None:
            self._checked = None
        else:
            # A tensor made under torch.inference_mode has no version counter, so its values are checked every time.
            version = 0 if self.index.is_inference() else self.index._version
            self._checked = (self.index, version, chosen)

    def _is_called(self) -> bool:
        """Whether calling the base layer does more than multiply by its frozen weight, which is then not read here."""
        return not (is_bare(self.base) and (is_stock(self.base) or quant_state(self.base) is not None))

    def _product(self, x: Tensor) -> Tensor:
        """``x S^T`` by PyTorch's own operations, which have rules for every way to differentiate; S is kept whole."""
        support = self.support
        if support is None:
            return x.new_zeros(self.shape[0])
        with without_autocast(x.device.type):
            return functional.linear(readable(x), dense(readable(self.values), support)).to(x.dtype)

    def _weight(self) -> Tensor:
        return dense_weight(self.base).detach()

    def _nothing(self) -> Tensor:
        return self.values.new_zeros(()).expand(self.shape)


def build(
    model: nn.Module, config: RobustConfig, generator: torch.Generator | None
) -> Iterator[tuple[str, RobustLinear]]:
    """Yield an adapter for each target layer, with its support set if ``config.support`` names a file.

    Raises:
        AdapterError: a layer cannot have the rank or density, or the file of the support is of another model.
    """
    layers = target_layers(model, config.targets, quantized=True)
    ranks = layer_ranks(layers, config) if config.low_rank else {}
    counts = layer_counts(layers, config)
    found = {}
    for name, layer in layers.items():
        found[name] = RobustLinear(layer, ranks.get(name), counts[name], config, draw_seed(generator))
    if config.support:
        for name, index in support.read(Path(config.support), found).items():
            found[name].choose(index)
    yield from found.items()


def trainable_parameters(model: nn.Module, config: RobustConfig) -> int:
    """The number of parameters that attaching would train outside the head; the model may lie on the meta device.

    Raises:
        AdapterError: as for :func:`build`.
    """
    layers = {n: m for n, m in linear_layers(model).items() if any(matches(n, pattern) for pattern in config.targets)}
    ranks = layer_ranks(layers, config) if config.low_rank else dict.fromkeys(layers, 0)
    counts = layer_counts(layers, config)
    return sum(counts[name] + ranks[name] * sum(weight_shape(layer)) for name, layer in layers.items())


def layer_counts(layers: Mapping[str, LinearLayer], config: RobustConfig) -> dict[str, int]:
    """k of each layer, by name: the last matching ``density_pattern``, or else ``density``, times out times in.

    Raises:
        AdapterError: it is below 1, or a pattern matches no layer.
    """
    if not config.sparse:
        return dict.fromkeys(layers, 0)
    counts = {}
    for name, (key, density) in by_pattern(layers, "density", config.density, config.density_pattern).items():
        out_features, in_features = weight_shape(layers[name])
        try:
            counts[name] = resolve_count(density, out_features, in_features)
        except AdapterError as error:
            raise AdapterError(f"{name} ({out_features} x {in_features}): {key}: {error}") from error
    return counts


def resolve_count(density: float, out_features: int, in_features: int) -> int:
    """The number of entries k that a sparse part of this density has in an (out, in) weight.

    Raises:
        AdapterError: it is below 1.
    """
    count = int(density * out_features * in_features)
    if count < 1:
        least = 1 / (out_features * in_features)
        raise AdapterError(f"density {density} leaves no entry to train; expected at least {least:.2g}")
    return count
