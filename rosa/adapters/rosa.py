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
directions that gradients can reach change (arXiv 2407.07802, section 3, algorithm 1).
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional

from rosa.adapters.base import AdapterError, LinearLayer, ResampledAdapter, checked_rank, oriented, target_layers
from rosa.adapters.subspace import Split, draw_indices, split
from rosa.config import RosaConfig


class RosaLinear(ResampledAdapter):
    """ROSA on one layer; the base layer's weight holds ``W_f`` while attached.

    Args:
        name: the layer's name in its model, for messages.
        base: the layer to wrap; its weight is replaced by ``W_f`` in place.
        config: the method's options.
        generator: CPU generator of the first draw.

    Raises:
        AdapterError: a rank that the layer cannot have, a weight that is not finite or cannot be factorized.
    """

    def __init__(self, name: str, base: LinearLayer, config: RosaConfig, generator: torch.Generator | None) -> None:
        super().__init__()
        self.base = base
        self._name = name
        self._config = config
        weight = oriented(base, base.weight)
        out_features, in_features = weight.shape
        self.rank = checked_rank(name, base, config.rank)
        # Factors are float32 whatever the backbone's dtype: Adam's small updates vanish in bfloat16.
        A = torch.empty(out_features, self.rank, dtype=torch.float32, device=weight.device)
        B = torch.empty(self.rank, in_features, dtype=torch.float32, device=weight.device)
        self.A = nn.Parameter(A, requires_grad="a" in config.train)
        self.B = nn.Parameter(B, requires_grad="b" in config.train)
        self._split_along_new_directions(weight, generator)

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
        """The factors, and the frozen part, which every resample moves."""
        return ["A", "B", "base.weight"]

    def undecayed(self) -> list[str]:
        """Both factors: they hold pretrained weight, which decay would pull towards zero."""
        return ["A", "B"]

    def delta_weight(self) -> Tensor:
        """``A B`` (out, in) in float32: the one formula of forward, merge and resample."""
        return self.A.detach() @ self.B.detach()

    def merged_weight(self) -> Tensor:
        """``W_f + A B`` (out, in), float32 or the base's dtype if that is wider."""
        return oriented(self.base, self.base.weight.detach()) + self.delta_weight()

    def merge(self) -> LinearLayer:
        """The base layer with ``W_f + A B`` as its weight."""
        return self.fold(self.merged_weight())

    @torch.no_grad()
    def resample(self, generator: torch.Generator | None) -> None:
        """Merge and split along freshly drawn directions, in place.

        Raises:
            AdapterError: the weight is not finite, or cannot be factorized.
        """
        self._split_along_new_directions(self.merged_weight(), generator)

    def resets_optimizer(self) -> bool:
        """As ``method.optimizer_state`` says."""
        return self._config.optimizer_state == "reset"

    @torch.no_grad()
    def _split_along_new_directions(self, weight: Tensor, generator: torch.Generator | None) -> None:
        if not bool(torch.isfinite(weight).all()):
            bad = int((~torch.isfinite(weight)).sum())
            raise AdapterError(
                f"{self._name}: {bad} of {weight.numel()} weights are not finite, so it cannot be factorized; "
                "training diverged before this resample (a lower learning rate, or train.precision=fp32)"
            )
        indices = draw_indices(min(weight.shape), self.A.shape[1], self._config.sampling, generator)
        factors = self._factorize(weight, indices)
        self.A.copy_(factors.A)
        self.B.copy_(factors.B)
        # The residual is taken from the factors as they were rounded, in float64, so that their rounding is no error.
        self.fold(weight.double() - self.A.double() @ self.B.double())

    def _factorize(self, weight: Tensor, indices: Tensor) -> Split:
        try:
            return split(weight, indices)
        except torch.linalg.LinAlgError:
            pass  # The GPU's solver gives up on matrices that LAPACK still handles.
        try:
            return split(weight.cpu(), indices)
        except torch.linalg.LinAlgError as error:
            raise AdapterError(f"{self._name}: the singular vectors cannot be computed: {error}") from error


def build(model: nn.Module, config: RosaConfig, generator: torch.Generator | None) -> Iterator[tuple[str, RosaLinear]]:
    """An adapter for each target layer, one after the other: a layer is split only when its turn comes."""
    for name, base in target_layers(model, config.targets).items():
        yield name, RosaLinear(name, base, config, generator)
