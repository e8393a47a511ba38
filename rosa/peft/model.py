"""PEFT's tuner for ROSA: puts the adapters into a model, saves and loads them."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

from peft import PeftConfig
from peft.tuners.tuners_utils import BaseTuner, _maybe_include_all_linear_layers
from peft.utils.other import ModulesToSaveWrapper
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from transformers.pytorch_utils import Conv1D

from rosa.adapters.base import LinearLayer
from rosa.adapters.linalg.subspace import resolve_rank
from rosa.adapters.modules import ATTRIBUTE, AdaptedLayer, Attachment, attachment
from rosa.adapters.resampling import move
from rosa.adapters.targets import layer_problem, linear_layers, matches, tied
from rosa.config import ATTENTION
from rosa.errors import AdapterError
from rosa.peft.config import RosaConfig
from rosa.peft.layer import RosaTunerLinear

PREFIX = "rosa_"
"""The prefix of the method's tensors in a saved adapter."""

REMOVAL = "model.merge_and_unload() or model.unload()"
"""The call that removes the adapters from a PEFT model."""


class RosaModel(BaseTuner):
    """A model with ROSA's adapters; made by ``peft.get_peft_model(model, rosa.peft.RosaConfig(...))``."""

    prefix = PREFIX
    tuner_layer_cls = RosaTunerLinear

    def _pre_injection_hook(self, model: nn.Module, config: PeftConfig, adapter_name: str) -> None:
        present = attachment(model)
        if present is not None and present.removal != REMOVAL:
            raise AdapterError(
                f"{type(model).__name__} has {present.method} attached already; call {present.removal} first"
            )

    def inject_adapter(
        self,
        model: nn.Module,
        adapter_name: str,
        autocast_adapter_dtype: bool = True,
        low_cpu_mem_usage: bool = False,
        state_dict: dict[str, Tensor] | None = None,
    ) -> None:
        """Add an adapter to every target layer, and draw their first subspaces.

        An adapter made for inference, or on the meta device, is about to be loaded: no subspace is drawn, and
        it computes the same as the pretrained layer.

        Raises:
            AdapterError: no layer is a target, or one cannot be adapted or has a smaller side than the rank; the model
                is then unchanged.
        """
        config = self._config(adapter_name)
        self._prepare_adapter_config(config, self.get_model_config(model))
        _maybe_include_all_linear_layers(config, model)
        if state_dict is None:
            self._refuse_targets(model, config)
        super().inject_adapter(model, adapter_name, autocast_adapter_dtype, low_cpu_mem_usage, state_dict)
        added = [one.adapter(adapter_name) for one in _layers(model).values() if adapter_name in one.rosa_layer]
        if not config.inference_mode and not any(adapter.A.is_meta for adapter in added):
            move(added, [adapter.draw(None) for adapter in added])
        self._describe()

    def _prepare_adapter_config(self, peft_config: Any, model_config: dict) -> Any:
        """If the configuration names no targets, use those of ``rosa.attach``."""
        if peft_config.target_modules is None:
            names = [name for name in _choices(self.model) if any(matches(name, pattern) for pattern in ATTENTION)]
            if not names:
                raise AdapterError(
                    f"target_modules=None: no linear layer of {type(self.model).__name__} lies in a module whose name "
                    f"says attention; it has: {_listed(self.model)}"
                )
            peft_config.target_modules = set(names)
        return peft_config

    def _refuse_targets(self, model: nn.Module, config: RosaConfig) -> None:
        """Check every module that the configuration targets, before any of them is replaced."""
        inside = tuple(f"{name}." for name in _layers(model))
        found = [
            (name, module)
            for name, module in model.named_modules()
            if name and not name.startswith(inside) and self._check_target_module_exists(config, name)
        ]
        if not found:
            raise AdapterError(
                f"target_modules={_shown(config.target_modules)} matches none of the modules of "
                f"{type(model).__name__}, or only those that exclude_modules or modules_to_save name, or that "
                f"layers_to_transform leaves out; it has: {_listed(model)}"
            )
        ties = tied(model)
        ties |= {original: name for name, original in ties.items()}
        for name, module in found:
            _refuse(name, module, config)
            weight = f"{name}.base_layer.weight" if isinstance(module, RosaTunerLinear) else f"{name}.weight"
            if weight in ties:
                raise AdapterError(
                    f"{weight} is tied to {ties[weight]}, so adapting one would adapt the other: leave {name} out of "
                    "target_modules, or load the model with tie_word_embeddings=False"
                )

    def _create_and_replace(
        self,
        peft_config: Any,
        adapter_name: str,
        target: nn.Module,
        target_name: str,
        parent: nn.Module,
        current_key: str,
        parameter_name: str | None = None,
    ) -> None:
        base, rank = _refuse(current_key, target, peft_config)
        if isinstance(target, RosaTunerLinear):
            target.update_layer(adapter_name, rank, peft_config.method())
            return
        layer = RosaTunerLinear(base, current_key)
        layer.set_adapter(self.active_adapters)
        layer.update_layer(adapter_name, rank, peft_config.method())
        self._replace_module(parent, target_name, layer, target)

    def _replace_module(self, parent: nn.Module, child_name: str, new_module: nn.Module, child: nn.Module) -> None:
        new_module.train(child.training)
        setattr(parent, child_name, new_module)

    def _unload_and_optionally_merge(self, *args: Any, **kwargs: Any) -> Any:
        vars(self.model).pop(ATTRIBUTE, None)
        return super()._unload_and_optionally_merge(*args, **kwargs)

    def unload(self) -> nn.Module:
        """The pretrained model, without the trained copies of ``modules_to_save``, which PEFT leaves in the model."""
        wrappers = [(name, one) for name, one in self.model.named_modules() if isinstance(one, ModulesToSaveWrapper)]
        for name, wrapper in wrappers:
            self.model.set_submodule(name, wrapper.original_module)
        return super().unload()

    def _cast_adapter_dtype(self, adapter_name: str, autocast_adapter_dtype: bool = True) -> None:
        """Do nothing: the factors are float32 or wider from the start."""

    def set_adapter(self, adapter_name: str | list[str], inference_mode: bool = False) -> None:
        """Use this adapter, or several adapters together."""
        super().set_adapter(adapter_name, inference_mode)
        self._describe()

    def delete_adapter(self, adapter_name: str) -> None:
        """Remove an adapter."""
        super().delete_adapter(adapter_name)
        self._describe()

    def add_weighted_adapter(self, *args: Any, **kwargs: Any) -> None:
        """Not supported: a weighted sum of adapters in different subspaces is in none of them.

        Raises:
            AdapterError: always.
        """
        raise AdapterError(
            "add_weighted_adapter: adapters of ROSA live in different subspaces and cannot be combined into one. Save "
            "each with save_pretrained(folder, as_lora=True) and combine the LoRA adapters, or use several at once "
            "with model.base_model.set_adapter([...]), which adds their changes"
        )

    def _enable_peft_forward_hooks(self, *args: Any, **kwargs: Any) -> AbstractContextManager[None]:
        if kwargs.get("adapter_names") is not None:
            raise AdapterError(
                "adapter_names: ROSA cannot use different adapters for the rows of a batch; call set_adapter between "
                "batches, or save each adapter with as_lora=True"
            )
        return nullcontext()

    def _config(self, adapter_name: str) -> RosaConfig:
        config = self.peft_config[adapter_name]
        assert isinstance(config, RosaConfig)
        return config

    def _describe(self) -> None:
        """Store the active adapter's layers and options on the model, for ``ResampleCallback``."""
        active = [name for name in self.active_adapters if name in self.peft_config]
        if not active:
            vars(self.model).pop(ATTRIBUTE, None)
            return
        config = self._config(active[0])
        layers = [
            AdaptedLayer(
                name,
                type(layer.base_layer).__name__,
                (layer.out_features, layer.in_features),
                layer.adapter(active[0]).rank,
                sum(p.numel() for p in layer.adapter(active[0]).factors().values() if p.requires_grad),
            )
            for name, layer in _layers(self.model).items()
            if active[0] in layer.rosa_layer
        ]
        head = [name for name, p in self.model.named_parameters() if p.requires_grad and ".modules_to_save." in name]
        parameters = dict(self.model.named_parameters())
        done = Attachment(
            "rosa",
            config.method(),
            tuple(layers),
            tuple(head),
            sum(layer.trainable for layer in layers),
            sum(parameters[name].numel() for name in head),
            sum(parameter.numel() for name, parameter in parameters.items() if f".{PREFIX}layer." not in name),
            removal=REMOVAL,
        )
        setattr(self.model, ATTRIBUTE, done)

    @classmethod
    def _get_adapter_state_dict(
        cls,
        model: nn.Module,
        config: PeftConfig,
        adapter_name: str,
        state_dict: dict[str, Tensor],
        unwanted_adapter_names: list[str],  # noqa: ARG003 - PEFT passes it
    ) -> dict[str, Tensor]:
        """The tensors of a saved adapter, for all layers; see :meth:`rosa.peft.history.RosaWithHistory.saved`."""
        found = {}
        for name, layer in _layers(model).items():
            if adapter_name in layer.rosa_layer:
                for key, tensor in layer.adapter(adapter_name).saved().items():
                    given = state_dict.get(f"{name}.rosa_layer.{adapter_name}.{key}", tensor)
                    given = given.detach()
                    whole = given.full_tensor() if isinstance(given, DTensor) else given
                    found[f"{name}.{PREFIX}{key}.{adapter_name}"] = whole
        biases = cls._get_learnable_bias_state_dict(model, state_dict, config)
        found |= {name: bias for name, bias in biases.items() if f".{PREFIX}layer." not in name}
        return found

    @classmethod
    def _remap_adapter_state_dict_for_load(
        cls, model: nn.Module, config: Any, adapter_name: str, state_dict: dict[str, Tensor]
    ) -> dict[str, Tensor]:
        """Restore every layer from a saved adapter, and return the state that PEFT then loads."""
        rest = dict(state_dict)
        for name, layer in _layers(model).items():
            if adapter_name not in layer.rosa_layer:
                continue
            saved: dict[str, Tensor] = {}
            for stem in (name, f"base_model.model.{name}"):
                keys = [key for key in rest if key.startswith(f"{stem}.{PREFIX}")]
                saved |= {key.removeprefix(f"{stem}.{PREFIX}"): rest.pop(key) for key in keys}
            if not saved:
                continue
            adapter = layer.adapter(adapter_name)
            if adapter.A.is_meta:
                trains = adapter.A.requires_grad or adapter.B.requires_grad
                layer.update_layer(adapter_name, adapter.A.shape[1], config.method())
                layer.set_requires_grad(adapter_name, trains)
                adapter = layer.adapter(adapter_name)
            adapter.load_saved(layer.pretrained(), saved, f"{layer.name}, adapter {adapter_name!r}")
            state = adapter.state_dict()
            rest |= {f"{name}.rosa_layer.{adapter_name}.{key}": tensor for key, tensor in state.items()}
        return rest


def _layers(model: nn.Module) -> dict[str, RosaTunerLinear]:
    """The adapted layers by name."""
    return {name: module for name, module in model.named_modules() if isinstance(module, RosaTunerLinear)}


def _choices(model: nn.Module) -> list[str]:
    """Names of the layers that can be adapted, adapted ones among them."""
    names = [name for name in linear_layers(model) if f".{PREFIX}layer." not in name]
    return [name.removesuffix(".base_layer") for name in names]


def _listed(model: nn.Module) -> str:
    names = {".".join("*" if part.isdigit() else part for part in name.split(".")) for name in _choices(model)}
    return ", ".join(sorted(names)) or "none that can be adapted"


def _shown(targets: Any) -> str:
    return repr(targets) if isinstance(targets, str) else str(sorted(targets))


def _refuse(name: str, target: nn.Module, config: RosaConfig) -> tuple[LinearLayer, int]:
    """Check a target, adapted already or not, and give back the pretrained layer and its rank."""
    module = target.base_layer if isinstance(target, RosaTunerLinear) else target
    if not isinstance(module, LinearLayer):
        raise AdapterError(
            f"{name} is a {type(module).__name__}, which is not supported: ROSA adapts torch.nn.Linear and "
            "transformers' Conv1D. Leave it out of target_modules, or name it in exclude_modules"
        )
    problem = layer_problem(module)
    if problem is not None:
        raise AdapterError(f"{name} ({type(module).__name__}) {problem}, or leave the layer out of target_modules")
    out_features, in_features = module.weight.T.shape if isinstance(module, Conv1D) else module.weight.shape
    try:
        return module, resolve_rank(config.rank_of(name), out_features, in_features)
    except AdapterError as error:
        raise AdapterError(f"{name} ({out_features} x {in_features}): {error}") from error
