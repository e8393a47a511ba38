"""A ROSA adapter that can be saved without its frozen weight.

The frozen weight ``W_f`` follows from the pretrained weight and from the factors at the start and the end of each
subspace: a saved adapter holds those, and loading it repeats the moves. A move costs two products of rank r, no
factorization, and gives the same bits as in training where the linear algebra library is the same.
"""

from __future__ import annotations

import torch
from torch import Tensor

from rosa.adapters.base import LinearLayer, oriented
from rosa.adapters.linalg.subspace import Factors
from rosa.adapters.rosa import RosaLinear
from rosa.config import RosaConfig
from rosa.errors import AdapterError
from rosa.peft.layer import SavedAdapter


class RosaWithHistory(RosaLinear, SavedAdapter):
    """ROSA on one layer, with the factors at the start and the end of each of its subspaces.

    With k subspaces the history has 2k - 1 rows of r (out + in) numbers on the CPU: the start of the first, its end,
    the start of the second, and so on. Once the history takes as much memory as the frozen weight, it is discarded, and
    from then on the adapter is saved with its frozen weight.

    Args:
        name, base, rank, config: as :class:`RosaLinear`; ``base`` is the adapter's own copy of the layer.
    """

    history: list[Tensor] | None
    """Rows (r (out + in),); None once it was given up."""

    def __init__(self, name: str, base: LinearLayer, rank: int, config: RosaConfig) -> None:
        super().__init__(name, base, rank, config)
        self.history = []

    def before_move(self) -> None:
        """Add the factors at the end of a subspace to the history."""
        if self.history:
            self._append()

    def after_move(self) -> None:
        """Add the factors at the start of a subspace to the history."""
        self._append()

    def saved(self) -> dict[str, Tensor]:
        """The tensors to save, by name: the factors and the history, or the frozen weight instead of the history."""
        kept: dict[str, Tensor] = {"A": self.A, "B": self.B}
        if self.visited is not None:
            kept["visited"] = self.visited
        if self.history is not None:
            return {**kept, "history": self._rows()}
        kept["frozen"] = oriented(self.base, self.base.weight)
        for name in ("rest", "start_a", "start_b"):
            tensor = getattr(self, name)
            if tensor is not None:
                kept[name] = tensor
        return kept

    def check_saved(self, tensors: dict[str, Tensor], source: str) -> None:
        """Check the tensors of a saved adapter.

        Raises:
            AdapterError: a tensor is missing or has another shape, as one of another rank.
        """
        state = self._restorable()
        needed = {"A", "B", *([] if "history" in tensors else ["frozen"])}
        for name in sorted(needed - tensors.keys()):
            raise AdapterError(f"{source}: {name} is missing")
        for name, tensor in tensors.items():
            here = state.get(name)
            if name != "history" and (here is None or here.shape != tensor.shape):
                expected = "no such tensor" if here is None else f"shape {tuple(here.shape)}"
                raise AdapterError(f"{source}: {name} has shape {tuple(tensor.shape)}, expected {expected}")
        rows, width = tensors.get("history"), self.A.numel() + self.B.numel()
        if rows is not None and (rows.ndim != 2 or rows.shape[1] != width):
            raise AdapterError(f"{source}: history has shape {tuple(rows.shape)}, expected (any number, {width})")

    @torch.no_grad()
    def load_saved(self, original: Tensor, tensors: dict[str, Tensor]) -> None:
        """Restore the adapter: its history is repeated on the pretrained weight, or the frozen weight is taken."""
        if "history" in tensors:
            self._repeat(original, tensors["history"])
        else:
            self.history = None
        state = self._restorable()
        for name, tensor in tensors.items():
            if name != "history":
                here = state[name]
                assert here is not None
                here.copy_(tensor)

    def get_extra_state(self) -> Tensor:
        """The history, for the state dict of a whole model; (0, 0) once it was discarded."""
        return torch.zeros(0, 0) if self.history is None else self._rows()

    def set_extra_state(self, state: Tensor) -> None:
        """Restore the history from :meth:`get_extra_state`."""
        self.history = [row.clone() for row in state.cpu()] if state.shape[1] else None

    def _restorable(self) -> dict[str, Tensor | None]:
        """The tensors that a file may hold beside the history, by name; None: this adapter has none."""
        state: dict[str, Tensor | None] = {"A": self.A, "B": self.B, "frozen": oriented(self.base, self.base.weight)}
        return state | {name: getattr(self, name) for name in ("visited", "rest", "start_a", "start_b")}

    def _append(self) -> None:
        if self.history is None:
            return
        row = torch.cat([self.A.detach().flatten(), self.B.detach().flatten()])
        self.history.append(row.cpu())
        frozen = [self.base.weight, *([] if self.rest is None else [self.rest])]
        if sum(one.nbytes for one in self.history) >= sum(one.nbytes for one in frozen):
            self.history = None

    def _rows(self) -> Tensor:
        """The history (2k - 1, r (out + in)); (0, r (out + in)) before the first subspace."""
        empty = torch.zeros(0, self.A.numel() + self.B.numel(), dtype=self.A.dtype)
        return torch.stack(self.history) if self.history else empty

    def _repeat(self, original: Tensor, rows: Tensor) -> None:
        """Repeat the resamples of a history (2k - 1, r (out + in)), from the pretrained weight on, in place."""
        self.base.weight.copy_(original)
        for tensor in (self.A, self.B, self.rest, self.start_a, self.start_b):
            if tensor is not None:
                tensor.zero_()
        nothing = torch.zeros(0, dtype=torch.int64)
        for i, row in enumerate(rows.to(self.A)):
            factors = Factors(row[: self.A.numel()].view_as(self.A), row[self.A.numel() :].view_as(self.B))
            if i % 2 == 0:
                self.enter(factors, nothing)
            else:
                self.A.copy_(factors.A)
                self.B.copy_(factors.B)
        self.history = [row.clone() for row in rows.cpu()]
