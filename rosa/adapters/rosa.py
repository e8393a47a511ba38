"""ROSA: a linear layer whose trainable part is a random subspace of its own singular vectors.

::

            x (…, in)
            |------------------------.
       W_f (out, in), frozen     B (r, in), trained:  V_r^T
            |                        |
            |                    A (out, r), trained:  U_r S_r
            '-----------(+)----------'
                         |
                         y (…, out) = x W_f^T + (x B^T) A^T + b

At a resample ``W = W_f + A B`` is formed, factorized anew and split along other directions: the function stays, the
directions that gradients can reach change (arXiv 2407.07802, section 3, algorithm 1). The drawing shows the paper's
factorization, ``svd_equal``; :mod:`rosa.adapters.factorization` has the others.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from rosa.adapters import factorization
from rosa.adapters.base import LinearLayer, ResampledAdapter, oriented
from rosa.adapters.linalg.subspace import Split, layers_at_once
from rosa.adapters.targets import layer_ranks, target_layers
from rosa.config import RosaConfig
from rosa.errors import FactorizationError


class RosaLinear(ResampledAdapter):
    """ROSA on one layer; the base layer's weight holds ``W_f`` while attached.

    Args:
        name: the layer's name in its model, for messages.
        base: the layer to wrap; its weight is replaced by ``W_f`` in place.
        rank: R, 1 to min(out, in).
        config: the method's options.
        generator: CPU generator of the first draw.

    Raises:
        FactorizationError: a weight that is not finite or cannot be factorized.
    """

    def __init__(
        self, name: str, base: LinearLayer, rank: int, config: RosaConfig, generator: torch.Generator | None
    ) -> None:
        super().__init__()
        self.base = base
        self.rank = rank
        self._name = name
        self._config = config
        weight = oriented(base, base.weight)
        out_features, in_features = weight.shape
        # Factors are float32 whatever the backbone's dtype: Adam's small updates vanish in bfloat16.
        A = torch.empty(out_features, rank, dtype=torch.float32, device=weight.device)
        B = torch.empty(rank, in_features, dtype=torch.float32, device=weight.device)
        self.A = nn.Parameter(A, requires_grad="a" in config.train)
        self.B = nn.Parameter(B, requires_grad="b" in config.train)
        seen = torch.zeros(min(weight.shape), dtype=torch.bool, device=weight.device)
        self.register_buffer("visited", seen if config.has_triplets else None)
        self._move([self], [weight], [self.draw(generator)])

    def forward(self, x: Tensor) -> Tensor:
        """``x W_f^T + (x B^T) A^T + b``; (…, in) -> (…, out)."""
        frozen = self.base(x)
        low = functional.linear(x, self.B.to(x.dtype))
        A = self.A.to(x.dtype)
        # addmm adds the product to the frozen part in one pass over the output.
        out = torch.addmm(frozen.reshape(-1, A.shape[0]), low.reshape(-1, A.shape[1]), A.T)
        return out.view(frozen.shape)

    def factors(self) -> dict[str, nn.Parameter]:
        """``A`` (out, r) and ``B`` (r, in)."""
        return {"A": self.A, "B": self.B}

    def changing(self) -> list[str]:
        """The factors, the frozen part, which every resample moves, and which directions were visited."""
        return ["A", "B", "base.weight", *(["visited"] if self.visited is not None else [])]

    def undecayed(self) -> list[str]:
        """Both factors, where they hold pretrained weight, which decay would pull towards zero."""
        return ["A", "B"] if factorization.holds_pretrained_weight(self._config) else []

    def delta_weight(self) -> Tensor:
        """``A B`` (out, in) in float32: the one formula of forward, merge and resample."""
        return self.A.detach() @ self.B.detach()

    def optimizer_state(self) -> str:
        """As ``method.optimizer_state`` says."""
        return self._config.optimizer_state

    def draw(self, generator: torch.Generator | None) -> Tensor:
        """Choose the next subspace; see :func:`rosa.adapters.factorization.draw`."""
        out_features, in_features = oriented(self.base, self.base.weight).shape
        return factorization.draw(self._config, out_features, in_features, self.A.shape[1], generator)

    @staticmethod
    def move(adapters: Sequence[ResampledAdapter], drawn: Sequence[Tensor]) -> list[float]:
        """Merge and split along the drawn directions, in place: layers of one shape together.

        Returns:
            Seconds for each; those of a group in equal parts.

        Raises:
            FactorizationError: a weight is not finite, or cannot be factorized.
        """
        layers = [adapter for adapter in adapters if isinstance(adapter, RosaLinear)]
        seconds = [0.0] * len(layers)
        for members in _groups(layers):
            start = time.perf_counter()
            group = [layers[i] for i in members]
            RosaLinear._move(group, [layer.merged_weight() for layer in group], [drawn[i] for i in members])
            if group[0].A.is_cuda:
                torch.cuda.synchronize(group[0].A.device)  # so that the time is this group's own
            for i in members:
                seconds[i] = (time.perf_counter() - start) / len(members)
        return seconds

    @staticmethod
    @torch.no_grad()
    def _move(layers: Sequence[RosaLinear], weights: Sequence[Tensor], drawn: Sequence[Tensor]) -> None:
        """Split weights of one shape; ``W_f``, A and B of each layer are written at the end, so an error moves none."""
        for layer, weight in zip(layers, weights, strict=True):
            layer._check_finite(weight)
        for layer, weight, chosen, factors in zip(
            layers, weights, drawn, _factors(layers, weights, drawn), strict=True
        ):
            layer.A.copy_(factors.A)
            layer.B.copy_(factors.B)
            if layer.visited is not None:
                layer.visited[chosen.to(layer.visited.device)] = True
            if factorization.takes_out(layer._config):
                # The residual is taken from the factors as they were rounded, in float64: their rounding is no error.
                layer.fold(weight.double() - layer.A.double() @ layer.B.double())
            else:
                layer.fold(weight)

    def _check_finite(self, weight: Tensor) -> None:
        if not bool(torch.isfinite(weight).all()):
            bad = int((~torch.isfinite(weight)).sum())
            raise FactorizationError(
                f"{self._name}: {bad} of {weight.numel()} weights are not finite, so it cannot be factorized; "
                "training diverged before this resample (a lower learning rate, or train.precision=fp32)"
            )


def _groups(layers: Sequence[RosaLinear]) -> list[list[int]]:
    """Positions of the layers to be factorized together: of one shape, as many as memory is meant to hold."""
    groups: dict[tuple[object, ...], list[list[int]]] = {}
    for i, layer in enumerate(layers):
        weight = oriented(layer.base, layer.base.weight)
        out_features, in_features = weight.shape
        most = layers_at_once(out_features, in_features, weight.device)
        batches = groups.setdefault((weight.shape, layer.rank, weight.device), [])
        if not batches or len(batches[-1]) == most:
            batches.append([])
        batches[-1].append(i)
    return [batch for batches in groups.values() for batch in batches]


def _factors(layers: Sequence[RosaLinear], weights: Sequence[Tensor], drawn: Sequence[Tensor]) -> list[Split]:
    """The factors of weights of one shape, together, or where that fails one by one on the CPU."""
    config = layers[0]._config
    try:
        A, B = factorization.factorize(config, torch.stack(list(weights)), torch.stack(list(drawn)))
        return [Split(*pair) for pair in zip(A, B, strict=True)]
    except torch.linalg.LinAlgError:
        pass  # The GPU's solver gives up on matrices that LAPACK still handles.
    found = []
    for layer, weight, chosen in zip(layers, weights, drawn, strict=True):
        try:
            A, B = factorization.factorize(config, weight.cpu()[None], chosen[None])
        except torch.linalg.LinAlgError as error:
            raise FactorizationError(f"{layer._name}: the singular vectors cannot be computed: {error}") from error
        found.append(Split(A[0], B[0]))
    return found


def build(model: nn.Module, config: RosaConfig, generator: torch.Generator | None) -> Iterator[tuple[str, RosaLinear]]:
    """An adapter for each target layer, one after the other: a layer is split only when its turn comes."""
    layers = target_layers(model, config.targets)
    for name, rank in layer_ranks(layers, config).items():
        yield name, RosaLinear(name, layers[name], rank, config, generator)
