"""A ROSA adapter that can be saved without its frozen weight.

The frozen weight ``W_f`` follows from the pretrained weight and from the factors at the start and the end of each
subspace: a saved adapter holds those, and loading it repeats the moves. A move costs two products of rank r, no
factorization, and gives the same bits as in training where the linear algebra library is the same.
"""

from __future__ import annotations

import torch
from torch import Tensor

from rosa.adapters.base import LinearLayer, oriented
from rosa.adapters.linalg.precision import exact, restored
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
        shapes = self._shapes()
        needed = {"A", "B", *([] if "history" in tensors else ["frozen"])}
        if tensors.keys() & {"start_a", "start_b"}:
            needed |= {"start_a", "start_b"}
        for name in sorted(needed - tensors.keys()):
            raise AdapterError(f"{source}: {name} is missing")
        for name, tensor in tensors.items():
            if name != "history" and shapes.get(name) != tensor.shape:
                expected = f"shape {tuple(shapes[name])}" if name in shapes else "no such tensor"
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
            self._take_frozen(tensors)
        self.A.copy_(tensors["A"])
        self.B.copy_(tensors["B"])
        if self.visited is not None and "visited" in tensors:
            self.visited.copy_(tensors["visited"])

    def get_extra_state(self) -> Tensor:
        """The history, for the state dict of a whole model; (0, 0) once it was discarded."""
        return torch.zeros(0, 0) if self.history is None else self._rows()

    def set_extra_state(self, state: Tensor) -> None:
        """Restore the history from :meth:`get_extra_state`."""
        self.history = [row.clone() for row in state.cpu()] if state.shape[1] else None

    def _shapes(self) -> dict[str, torch.Size]:
        """The shapes of the tensors that a file may have beside the history, by name."""
        weight = self.base.weight
        shapes = {"A": self.A.shape, "B": self.B.shape, "start_a": self.A.shape, "start_b": self.B.shape}
        shapes |= {"frozen": oriented(self.base, weight).shape, "rest": weight.shape}
        return shapes if self.visited is None else {**shapes, "visited": self.visited.shape}

    def _take_frozen(self, tensors: dict[str, Tensor]) -> None:
        """Take the frozen weight of a file, bit for bit if this adapter stores one alike; else it is rounded anew."""
        stored = {"rest": self.rest, "start_a": self.start_a, "start_b": self.start_b}
        for here in stored.values():
            if here is not None:
                here.zero_()
        frozen, kept = tensors["frozen"], {name: tensors[name] for name in stored if name in tensors}
        if frozen.dtype == self._stored and all(stored[name] is not None for name in kept):
            self.fold(frozen)
            for name, tensor in kept.items():
                getattr(self, name).copy_(tensor)
            return
        weight = exact(frozen)
        if "rest" in kept:
            weight = restored(weight, oriented(self.base, exact(kept["rest"])), frozen.dtype)
        if "start_a" in kept:
            weight = weight - exact(kept["start_a"]) @ exact(kept["start_b"])
        self._store(weight)

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
                if not (torch.equal(self.A, factors.A) and torch.equal(self.B, factors.B)):
                    # Trained in a wider dtype: what the start loses by rounding, the frozen weight is to lose as well.
                    lost = exact(factors.A) @ exact(factors.B) - exact(self.A) @ exact(self.B)
                    self._store(self.effective_weight() - lost)
            else:
                self.A.copy_(factors.A)
                self.B.copy_(factors.B)
        self.history = [row.clone() for row in rows.cpu()]
