"""RoSA, robust adaptation (low-rank plus sparse), in PEFT: its tuner layer and its tuner.

Not ROSA, random subspace adaptation, which is in :mod:`rosa.peft.rosa`. The adapters read the pretrained weight of
PEFT's layer and never change it.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from rosa.adapters import support
from rosa.adapters.base import LinearLayer, oriented
from rosa.adapters.linalg.precision import exact
from rosa.adapters.linalg.subspace import resolve_rank
from rosa.adapters.robust import RobustLinear, resolve_count
from rosa.config import RobustConfig as Method
from rosa.errors import AdapterError
from rosa.peft.config import RobustConfig, TunerConfig
from rosa.peft.layer import SavedAdapter, TunerLinear
from rosa.peft.model import Tuner
from rosa.utils.seeding import draw_seed


class RobustBeside(RobustLinear, SavedAdapter):
    """RoSA on one layer, which belongs to PEFT's layer and not to the adapter.

    Args:
        base, rank, count, config, seed: as :class:`RobustLinear`.
    """

    def __init__(self, base: LinearLayer, rank: int | None, count: int, config: Method, seed: int) -> None:
        super().__init__(base, rank, count, config, seed)
        del self.base
        vars(self)["base"] = base  # no submodule: the state of the model would have its tensors under two names

    def saved(self) -> dict[str, Tensor]:
        """The low-rank factors, and the sparse values with their positions."""
        state = self.state_dict()
        return {name: state[name] for name in self.changing()}

    def check_saved(self, tensors: dict[str, Tensor], source: str) -> None:
        """Check the tensors of a saved adapter.

        Raises:
            AdapterError: a tensor is missing or has another shape, or positions are not those of this layer.
        """
        state = self.saved()
        for name, here in state.items():
            if name not in tensors:
                raise AdapterError(f"{source}: {name} is missing")
            if tensors[name].shape != here.shape:
                raise AdapterError(
                    f"{source}: {name} has shape {tuple(tensors[name].shape)}, expected {tuple(here.shape)}"
                )
        for name in tensors:
            if name not in state:
                raise AdapterError(f"{source}: {name} is not expected")
        if "index" in tensors and not bool((tensors["index"] == -1).all()):  # -1: not chosen yet
            problem = support.misfit(tensors["index"], self.shape, self)
            if problem is not None:
                raise AdapterError(f"{source}: index does not fit the layer: {problem}")

    @torch.no_grad()
    def load_saved(self, original: Tensor, tensors: dict[str, Tensor]) -> None:
        """Restore the adapter; the pretrained weight is not needed."""
        for name, here in self.saved().items():
            here.copy_(tensors[name])


class RobustTunerLinear(TunerLinear):
    """One layer with one or more adapters of RoSA."""

    prefix = "robust_"
    adapter_layer_names = ("robust_layer",)

    @classmethod
    def require_fit(cls, config: TunerConfig, name: str, shape: tuple[int, int]) -> None:
        """Check rank and density.

        Raises:
            AdapterError: one does not fit the layer.
        """
        _sizes(config, name, shape)

    def new_adapter(self, config: TunerConfig) -> RobustBeside:
        """An adapter whose change is 0: its B and its sparse values are."""
        method = config.method()
        assert isinstance(method, Method)
        rank, count = _sizes(config, self.name, (self.out_features, self.in_features))
        return RobustBeside(self.base_layer, rank, count, method, draw_seed(None))

    def weight_of(self, adapter_name: str) -> Tensor:
        """``W + S + (alpha / r) B A`` (out, in), float64."""
        adapter = self.adapter(adapter_name)
        assert isinstance(adapter, RobustBeside)
        return exact(oriented(self.base_layer, self.pretrained())) + adapter.delta_weight()


class RobustModel(Tuner):
    """A model with RoSA's adapters; made by ``peft.get_peft_model(model, rosa.peft.RobustConfig(...))``."""

    prefix = RobustTunerLinear.prefix
    tuner_layer_cls = RobustTunerLinear
    title = "RoSA (robust adaptation)"
    why_not_weighted = "a sum of adapters of RoSA has more sparse entries and a higher rank than each of them"
    instead_of_weighted = "Merge the model, or"

    def _begin(self, adapter_name: str) -> None:
        """Read the positions of the sparse parts, if the configuration names a file."""
        config = self.peft_config[adapter_name]
        assert isinstance(config, RobustConfig)
        if not config.support:
            return
        found = {layer.name: layer.adapter(adapter_name) for layer in self.layers_of(adapter_name)}
        members = {name: adapter for name, adapter in found.items() if isinstance(adapter, RobustBeside)}
        try:
            positions = support.read(Path(config.support), members)
        except AdapterError as error:
            raise AdapterError(str(error).replace("method.", "")) from error
        for name, index in positions.items():
            members[name].choose(index)


def _sizes(config: TunerConfig, name: str, shape: tuple[int, int]) -> tuple[int | None, int]:
    """The rank (None without a low-rank part) and the number of sparse entries (0 without any) of a layer.

    Raises:
        AdapterError: one does not fit the layer.
    """
    method = config.method()
    assert isinstance(method, Method)
    assert isinstance(config, RobustConfig)
    rank = resolve_rank(config.rank_of(name), *shape) if method.low_rank else None
    return rank, resolve_count(config.density_of(name), *shape) if method.sparse else 0
