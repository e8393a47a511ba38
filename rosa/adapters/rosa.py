"""ROSA: a linear layer trained in a random subspace of its own singular vectors.

::

            x (…, in)
            |------------------------.
       W_f (out, in), frozen     B (r, in), trained:  V_r^T
            |                        |
            |                    A (out, r), trained:  U_r S_r
            '-----------(+)----------'
                         |
                         y (…, out) = x W_f^T + (x B^T) A^T + b

A resample forms ``W = W_f + A B``, factorizes it again and decomposes it along newly drawn directions: the function
stays the same, the trainable subspace changes (arXiv 2407.07802, section 3, algorithm 1). The drawing shows the paper's
factorization, ``svd_equal``; :mod:`rosa.adapters.factorization` has the others.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from rosa.adapters import factorization
from rosa.adapters.base import LinearLayer, ResampledAdapter, oriented, output_of
from rosa.adapters.fused import FactoredLinear, can_fuse
from rosa.adapters.linalg.precision import Cast, autocasted, exact, has_float64, is_narrow, restored, rounded
from rosa.adapters.linalg.subspace import Factors, layers_at_once
from rosa.adapters.resampling import move
from rosa.adapters.targets import layer_ranks, target_layers
from rosa.config import RosaConfig
from rosa.errors import FactorizationError


class RosaLinear(ResampledAdapter):
    """ROSA on one layer.

    While attached, the base layer's weight holds ``W_f``. In bfloat16 or float16, ``W_f`` would be rounded; the base
    layer then keeps the whole W, and the initial product of the factors is subtracted in the trained branch instead:
    ``y = x W^T + x (A B - A_0 B_0)^T + b``.

    Args:
        name: the layer's name in its model, for messages.
        base: the layer to wrap; unchanged until :meth:`enter`.
        rank: R, 1 to min(out, in).
        config: the method's options.
    """

    rest: Tensor | None
    """int8, in the weight's layout: rounding error of a narrow W (:mod:`rosa.adapters.linalg.precision`); else None."""
    start_a: Tensor | None
    """``A_0`` (out, r), in the narrow dtype; None where W_f is stored."""
    start_b: Tensor | None
    """``B_0`` (r, in), likewise."""

    def __init__(self, name: str, base: LinearLayer, rank: int, config: RosaConfig) -> None:
        super().__init__()
        self.base = base
        self.rank = rank
        self._name = name
        self._config = config
        weight = base.weight
        self._stored = weight.dtype
        out_features, in_features = oriented(base, weight).shape
        # Factors are float32 or wider, whatever the backbone's dtype: Adam's small updates vanish in bfloat16.
        dtype = torch.promote_types(weight.dtype, torch.float32)
        A = torch.zeros(out_features, rank, dtype=dtype, device=weight.device)
        B = torch.zeros(rank, in_features, dtype=dtype, device=weight.device)
        self.A = nn.Parameter(A, requires_grad="a" in config.train)
        self.B = nn.Parameter(B, requires_grad="b" in config.train)
        narrow = is_narrow(weight.dtype)
        subtracts = narrow and factorization.takes_out(config)
        self.register_buffer("rest", torch.zeros_like(weight, dtype=torch.int8) if narrow else None)
        self.register_buffer("start_a", A.to(weight.dtype) if subtracts else None)
        self.register_buffer("start_b", B.to(weight.dtype) if subtracts else None)
        seen = torch.zeros(min(weight.shape), dtype=torch.bool, device=weight.device)
        self.register_buffer("visited", seen if config.has_triplets else None)

    def forward(self, x: Tensor) -> Tensor:
        """``x W_f^T + (x B^T) A^T + b``; (…, in) -> (…, out)."""
        given, x = x, autocasted(x)  # once, and not in each of the products
        A, B = self.A.to(x.dtype), self.B.to(x.dtype)
        if self.start_a is not None and self.start_b is not None:
            A = torch.cat([A, -self.start_a.to(x.dtype)], dim=1)
            B = torch.cat([B, self.start_b.to(x.dtype)])
        if can_fuse(x, self.base, self.A, self.B):
            weight, bias = autocasted(oriented(self.base, self.base.weight)), self.base.bias
            return FactoredLinear.apply(x, weight, bias if bias is None else autocasted(bias), A, B)
        frozen = output_of(self.base, given, x)
        low = functional.linear(x, B)
        # addmm adds the product to the frozen part in one pass over the output.
        out = torch.addmm(frozen.reshape(-1, A.shape[0]), low.reshape(-1, A.shape[1]), A.T)
        return out.view(frozen.shape)

    def factors(self) -> dict[str, nn.Parameter]:
        """``A`` (out, r) and ``B`` (r, in)."""
        return {"A": self.A, "B": self.B}

    def changing(self) -> list[str]:
        """The factors, and what a resample changes besides: the frozen weight, its buffers, and ``visited``."""
        kept = {"rest": self.rest, "start_a": self.start_a, "start_b": self.start_b, "visited": self.visited}
        return ["A", "B", "base.weight", *(name for name, tensor in kept.items() if tensor is not None)]

    def undecayed(self) -> list[str]:
        """Both factors if they hold a part of the pretrained weight, which decay would pull towards zero; else none."""
        return ["A", "B"] if factorization.holds_pretrained_weight(self._config) else []

    def delta_weight(self, cast: Cast = exact) -> Tensor:
        """``A B`` (out, in), minus ``A_0 B_0`` where the base layer keeps the whole W."""
        delta = cast(self.A) @ cast(self.B)
        if self.start_a is None or self.start_b is None:
            return delta
        # Two separate products: their difference is exactly 0 before training.
        return delta - cast(self.start_a) @ cast(self.start_b)

    def effective_weight(self, cast: Cast = exact) -> Tensor:
        """The frozen weight, with its stored rounding error, plus :meth:`delta_weight`; (out, in)."""
        frozen = cast(self.base.weight)
        if self.rest is not None:
            frozen = restored(frozen, cast(self.rest), self._stored)
        return oriented(self.base, frozen) + self.delta_weight(cast)

    def optimizer_state(self) -> str:
        """The value of ``method.optimizer_state``."""
        return self._config.optimizer_state

    def draw(self, generator: torch.Generator | None) -> Tensor:
        """Draw the next subspace; see :func:`rosa.adapters.factorization.draw`."""
        out_features, in_features = oriented(self.base, self.base.weight).shape
        return factorization.draw(self._config, out_features, in_features, self.A.shape[1], generator)

    @staticmethod
    @torch.no_grad()
    def factorize(adapters: Sequence[ResampledAdapter], drawn: Sequence[Tensor]) -> tuple[list[Factors], list[float]]:
        """Factorize the effective weights along the drawn directions, layers of equal shape in one batch.

        Returns:
            The factors in the dtype of A and B, and the seconds for each layer: its batch's time in equal parts.

        Raises:
            FactorizationError: a weight is not finite, or cannot be factorized.
        """
        layers = [adapter for adapter in adapters if isinstance(adapter, RosaLinear)]
        found: dict[int, Factors] = {}
        seconds = [0.0] * len(layers)
        for members in _groups(layers):
            start = time.perf_counter()
            group = [layers[i] for i in members]
            factors = _factors(group, [drawn[i] for i in members])
            for i, (A, B) in zip(members, factors, strict=True):
                found[i] = Factors(A.to(layers[i].A), B.to(layers[i].B))
            if group[0].A.is_cuda:
                torch.cuda.synchronize(group[0].A.device)  # so that this batch's time includes its kernels
            for i in members:
                seconds[i] = (time.perf_counter() - start) / len(members)
        return [found[i] for i in range(len(layers))], seconds

    @torch.no_grad()
    def enter(self, factors: Factors, drawn: Tensor) -> None:
        """Merge the current factors, copy in the new ones and compute the frozen weight for them, in place."""
        weight = self.effective_weight()
        if self.start_a is not None and self.start_b is not None:
            self.start_a.copy_(factors.A)
            self.start_b.copy_(factors.B)
            factors = Factors(self.start_a, self.start_b)  # the rounded values, so that A B - A_0 B_0 starts at 0
        self.A.copy_(factors.A)
        self.B.copy_(factors.B)
        if self.visited is not None:
            self.visited[drawn.to(self.visited.device)] = True
        if self.rest is None and factorization.takes_out(self._config):
            # W_f is computed in float64 from the rounded factors, so their rounding causes no error.
            weight.addmm_(exact(self.A), exact(self.B), alpha=-1)
        self._store(weight)

    def _store(self, weight: Tensor) -> None:
        """Write a frozen weight (out, in) in float64 into the base layer, with its rounding error if that is narrow."""
        if self.rest is None:
            self.fold(weight)
            return
        value, rest = rounded(oriented(self.base, weight), self._stored)
        self.base.weight.copy_(value)
        self.rest.copy_(rest)

    def _finite_weight(self) -> Tensor:
        """The effective weight (out, in) in float64.

        Raises:
            FactorizationError: it is not finite.
        """
        weight = self.effective_weight()
        if not bool(torch.isfinite(weight).all()):
            bad = int((~torch.isfinite(weight)).sum())
            raise FactorizationError(
                f"{self._name}: {bad} of {weight.numel()} weights are not finite, so it cannot be factorized; "
                "training diverged before this resample (a lower learning rate, or train.precision=fp32)"
            )
        return weight


def _groups(layers: Sequence[RosaLinear]) -> list[list[int]]:
    """Indices of the layers by batch: factorized alike, of equal shape, rank and device; at most ``layers_at_once``."""
    groups: dict[tuple[object, ...], list[list[int]]] = {}
    for i, layer in enumerate(layers):
        weight = oriented(layer.base, layer.base.weight)
        out_features, in_features = weight.shape
        device = weight.device if has_float64(weight.device.type) else torch.device("cpu")
        most = layers_at_once(out_features, in_features, device)
        way = (layer._config.factorization, layer._config.solver, layer._config.split)
        batches = groups.setdefault((weight.shape, layer.rank, weight.device, way), [])
        if not batches or len(batches[-1]) == most:
            batches.append([])
        batches[-1].append(i)
    return [batch for batches in groups.values() for batch in batches]


def _factors(layers: Sequence[RosaLinear], drawn: Sequence[Tensor]) -> list[Factors]:
    """Merge and factorize layers of equal shape in one batch; if that fails, one by one on the CPU.

    The merged weights of a batch are freed before the next batch is merged.

    Raises:
        FactorizationError: a weight is not finite, or a decomposition does not converge on the CPU either.
    """
    config = layers[0]._config
    try:
        weights = torch.stack([layer._finite_weight() for layer in layers])
        A, B = factorization.factorize(config, weights, torch.stack(list(drawn)))
        return [Factors(*pair) for pair in zip(A, B, strict=True)]
    except (torch.linalg.LinAlgError, torch.OutOfMemoryError):
        # The GPU's solver fails on some matrices that LAPACK handles; and beside the state of a training there may be
        # no memory for a batch.
        weights = None
    found = []
    for layer, chosen in zip(layers, drawn, strict=True):
        try:
            A, B = factorization.factorize(config, layer._finite_weight().cpu()[None], chosen[None])
        except torch.linalg.LinAlgError as error:
            raise FactorizationError(f"{layer._name}: the singular vectors cannot be computed: {error}") from error
        found.append(Factors(A[0], B[0]))
    return found


def build(model: nn.Module, config: RosaConfig, generator: torch.Generator | None) -> Iterator[tuple[str, RosaLinear]]:
    """Yield an adapter for each target layer, in its first subspace; weights change only after all are factorized."""
    layers = target_layers(model, config.targets)
    ranks = layer_ranks(layers, config)
    found = {name: RosaLinear(name, layers[name], rank, config) for name, rank in ranks.items()}
    move(list(found.values()), [adapter.draw(generator) for adapter in found.values()])
    yield from found.items()
