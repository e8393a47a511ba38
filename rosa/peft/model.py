"""Base class of the tuners of both methods: adds adapters to a model, saves and loads them."""

from __future__ import annotations

import warnings
from abc import abstractmethod
from contextlib import AbstractContextManager, nullcontext
from typing import Any, ClassVar

from peft import PeftConfig
from peft.tuners.tuners_utils import BaseTuner, _maybe_include_all_linear_layers
from peft.utils.other import ModulesToSaveWrapper
from torch import Tensor, nn

from rosa.adapters.base import LinearLayer, weight_shape, whole
from rosa.adapters.checkpointing import end_support, support_checkpointing
from rosa.adapters.linalg.precision import is_narrow
from rosa.adapters.modules import ATTRIBUTE, AdaptedLayer, Attachment, attachment, refuse_flat_shards
from rosa.adapters.targets import layer_problem, linear_layers, matches, tied
from rosa.config import ATTENTION
from rosa.errors import AdapterError
from rosa.peft.config import TunerConfig
from rosa.peft.layer import TunerLinear
from rosa.peft.loading import refuse_load_adapter
from rosa.peft.names import in_layers, listed, refuse_unmatched

REMOVAL = "model.merge_and_unload() or model.unload()"
"""The call that removes the adapters from a PEFT model."""


class Tuner(BaseTuner):
    """A model with adapters of one method."""

    tuner_layer_cls: type[TunerLinear]
    title: ClassVar[str]
    """The method's name in messages."""
    why_not_weighted: ClassVar[str]
    """Why a weighted sum of adapters is not an adapter of this method; for a message."""
    instead_of_weighted: ClassVar[str]
    """The alternative in that message, followed by "use several at once"."""

    @abstractmethod
    def _begin(self, adapter_name: str) -> None:
        """Initialize a new adapter in all layers, such that the model's function is unchanged.

        Except under ``factorization=svd_add``, which adds the drawn triplets to the weights.
        """

    def layers_of(self, adapter_name: str) -> list[TunerLinear]:
        """The layers that have this adapter."""
        return [layer for layer in tuner_layers(self.model).values() if adapter_name in layer.adapters]

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
        """Add an adapter to every target layer, and bring it to its start.

        An adapter made for inference, or on the meta device, is about to be loaded: it is not brought to its start.

        Raises:
            AdapterError: no layer is a target, one cannot be adapted or does not fit the options, or the model is under
                FSDP1 or ZeRO-3, or transformers' ``load_adapter`` calls; the model is then unchanged.
        """
        refuse_load_adapter(model, self.title)
        refuse_flat_shards(model)
        config = self._config(adapter_name)
        self._prepare_adapter_config(config, self.get_model_config(model))
        _maybe_include_all_linear_layers(config, model)
        if state_dict is None:
            self._refuse_targets(model, config)
        trained = {id(parameter) for parameter in model.parameters() if parameter.requires_grad}
        try:
            super().inject_adapter(model, adapter_name, autocast_adapter_dtype, low_cpu_mem_usage, state_dict)
            if not config.inference_mode and not any(one.is_meta(adapter_name) for one in self.layers_of(adapter_name)):
                self._begin(adapter_name)
        except Exception:
            self.withdraw(adapter_name, trained)
            raise
        support_checkpointing(model)
        self._describe()

    def withdraw(self, adapter_name: str, trained: set[int]) -> None:
        """Remove an adapter that could not be added or loaded whole: the model is as it was before.

        Args:
            adapter_name: the adapter.
            trained: the ids of the parameters that required gradients.
        """
        model = self.model
        if len(self.peft_config) > 1:
            self.delete_adapter(adapter_name)
            for name, module in list(model.named_modules()):
                if isinstance(module, TunerLinear) and not module.adapters:
                    model.set_submodule(name, module.base_layer)
                elif isinstance(module, ModulesToSaveWrapper) and not module.modules_to_save:
                    model.set_submodule(name, module.original_module)
        else:
            self.unload()
            vars(model).pop("peft_config", None)
        for parameter in model.parameters():
            parameter.requires_grad_(id(parameter) in trained)

    def _prepare_adapter_config(self, peft_config: Any, model_config: dict) -> Any:
        """If the configuration names no targets, use those of ``rosa.attach``."""
        if peft_config.target_modules is None:
            names = [name for name in _choices(self.model) if any(matches(name, pattern) for pattern in ATTENTION)]
            if not names:
                raise AdapterError(
                    f"target_modules=None: no linear layer of {type(self.model).__name__} lies in a module whose name "
                    f"says attention; it has: {listed(_choices(self.model))}"
                )
            peft_config.target_modules = self._in_chosen_layers(names, peft_config)
        return peft_config

    def _in_chosen_layers(self, names: list[str], config: TunerConfig) -> set[str]:
        """Those of the default targets that ``layers_to_transform`` leaves, which PEFT applies to ends of names alone.

        Raises:
            AdapterError: it leaves none.
        """
        if config.layers_to_transform is None:
            return set(names)
        ends = {name.rpartition(".")[2] for name in names}
        kept = set(in_layers(names, ends, config, config.layers_to_transform))
        if not kept:
            pattern = f" with layers_pattern={config.layers_pattern!r}" if config.layers_pattern else ""
            raise AdapterError(
                f"layers_to_transform={config.layers_to_transform}{pattern} leaves none of the linear layers inside "
                f"attention modules of {type(self.model).__name__}; it has: {', '.join(names)}"
            )
        return kept

    def _refuse_targets(self, model: nn.Module, config: TunerConfig) -> None:
        """Check every module that the configuration targets, before any of them is replaced."""
        inside = tuple(f"{name}." for name in tuner_layers(model))
        found = [
            (name, module)
            for name, module in model.named_modules()
            if name and not name.startswith(inside) and self._check_target_module_exists(config, name)
        ]
        if not config.inference_mode:  # else it is to be loaded: its tensors must match, and names served in training
            names = [name for name, _ in model.named_modules(remove_duplicate=False) if name]
            outside = [name for name in names if not name.startswith(inside)]
            refuse_unmatched(model, config, outside, [name for name, _ in found], _choices(model))
        if not found:
            raise AdapterError(
                f"target_modules={_shown(config.target_modules)} matches none of the modules of "
                f"{type(model).__name__}, or only those that exclude_modules or modules_to_save name, or that "
                f"layers_to_transform leaves out; it has: {listed(_choices(model))}"
            )
        ties = tied(model)
        ties |= {original: name for name, original in ties.items()}
        for name, module in found:
            self._refuse(name, module, config)
            weight = f"{name}.base_layer.weight" if isinstance(module, TunerLinear) else f"{name}.weight"
            if weight in ties:
                raise AdapterError(
                    f"{weight} is tied to {ties[weight]}, so adapting one would adapt the other: leave {name} out of "
                    "target_modules, or load the model with tie_word_embeddings=False"
                )

    def _refuse(self, name: str, target: nn.Module, config: TunerConfig) -> LinearLayer:
        """Check a target, which may have adapters already, and return its pretrained layer."""
        module = target.base_layer if isinstance(target, TunerLinear) else target
        if not isinstance(module, LinearLayer):
            raise AdapterError(
                f"{name} is a {type(module).__name__}, which is not supported: {self.title} adapts torch.nn.Linear and "
                "transformers' Conv1D. Leave it out of target_modules, or name it in exclude_modules"
            )
        problem = layer_problem(module)
        if problem is not None:
            raise AdapterError(f"{name} ({type(module).__name__}) {problem}, or leave the layer out of target_modules")
        out_features, in_features = weight_shape(module)
        try:
            self.tuner_layer_cls.require_fit(config, name, (out_features, in_features))
        except AdapterError as error:
            raise AdapterError(f"{name} ({out_features} x {in_features}): {error}") from error
        return module

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
        base = self._refuse(current_key, target, peft_config)
        if isinstance(target, TunerLinear):
            target.update_layer(adapter_name, peft_config)
            return
        layer = self.tuner_layer_cls(base, current_key)
        layer.set_adapter(self.active_adapters)
        layer.update_layer(adapter_name, peft_config)
        self._replace_module(parent, target_name, layer, target)

    def _replace_module(self, parent: nn.Module, child_name: str, new_module: nn.Module, child: nn.Module) -> None:
        new_module.train(child.training)
        setattr(parent, child_name, new_module)

    def _unload_and_optionally_merge(self, *args: Any, **kwargs: Any) -> Any:
        vars(self.model).pop(ATTRIBUTE, None)
        end_support(self.model)
        return super()._unload_and_optionally_merge(*args, **kwargs)

    def unload(self) -> nn.Module:
        """The pretrained model, also while adapters are merged.

        The trained copies of ``modules_to_save``, which PEFT leaves in the model, go, too.
        """
        self.unmerge_adapter()
        wrappers = [(name, one) for name, one in self.model.named_modules() if isinstance(one, ModulesToSaveWrapper)]
        for name, wrapper in wrappers:
            self.model.set_submodule(name, wrapper.original_module)
        return super().unload()

    def _cast_adapter_dtype(self, adapter_name: str, autocast_adapter_dtype: bool = True) -> None:
        """Warn if another dtype is asked for: the factors are float32 or wider from the start, and stay so."""
        dtypes = [layer.base_layer.weight.dtype for layer in self.layers_of(adapter_name)]
        narrow = [str(dtype).removeprefix("torch.") for dtype in dtypes if is_narrow(dtype)]
        if narrow and not autocast_adapter_dtype:
            warnings.warn(
                f"autocast_adapter_dtype=False has no effect: beside weights in {narrow[0]}, in which updates would be "
                f"lost, the factors of {self.title} are float32",
                stacklevel=1,  # PEFT calls this from several lines, and would be warned from each
            )

    def set_adapter(self, adapter_name: str | list[str], inference_mode: bool = False) -> None:
        """Use this adapter, or several adapters together."""
        super().set_adapter(adapter_name, inference_mode)
        self._describe()

    def delete_adapter(self, adapter_name: str) -> None:
        """Remove an adapter."""
        super().delete_adapter(adapter_name)
        self._describe()

    def add_weighted_adapter(self, *args: Any, **kwargs: Any) -> None:
        """Not supported: a weighted sum of adapters is not an adapter of the method.

        Raises:
            AdapterError: always.
        """
        raise AdapterError(
            f"add_weighted_adapter: {self.why_not_weighted}. {self.instead_of_weighted} use several at once with "
            "model.base_model.set_adapter([...]), which adds their changes"
        )

    def _enable_peft_forward_hooks(self, *args: Any, **kwargs: Any) -> AbstractContextManager[None]:
        if kwargs.get("adapter_names") is not None:
            raise AdapterError(
                f"adapter_names: {self.title} cannot use different adapters for the rows of a batch; call set_adapter "
                "between batches"
            )
        return nullcontext()

    def _config(self, adapter_name: str) -> TunerConfig:
        config = self.peft_config[adapter_name]
        assert isinstance(config, TunerConfig)
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
            for name, layer in tuner_layers(self.model).items()
            if active[0] in layer.adapters
        ]
        head = [name for name, p in self.model.named_parameters() if p.requires_grad and ".modules_to_save." in name]
        parameters = dict(self.model.named_parameters())
        done = Attachment(
            config.METHOD.NAME,
            config.method(),
            tuple(layers),
            tuple(head),
            sum(layer.trainable for layer in layers),
            sum(parameters[name].numel() for name in head),
            sum(parameter.numel() for name, parameter in parameters.items() if f".{self.prefix}layer." not in name),
            removal=REMOVAL,
            prefix="",
            beside=tuple(self._config(name).method() for name in active[1:]),
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
        """The tensors of a saved adapter, for all layers; see :meth:`rosa.peft.layer.SavedAdapter.saved`."""
        found = {}
        for name, layer in tuner_layers(model).items():
            if adapter_name in layer.adapters:
                for key, tensor in layer.adapter(adapter_name).saved().items():
                    given = state_dict.get(f"{name}.{layer.prefix}layer.{adapter_name}.{key}", tensor)
                    found[f"{name}.{layer.prefix}{key}.{adapter_name}"] = whole(given.detach())
        biases = cls._get_learnable_bias_state_dict(model, state_dict, config)
        found |= {name: bias for name, bias in biases.items() if f".{cls.prefix}layer." not in name}
        return found

    @classmethod
    def _remap_adapter_state_dict_for_load(
        cls, model: nn.Module, config: Any, adapter_name: str, state_dict: dict[str, Tensor]
    ) -> dict[str, Tensor]:
        """Restore every layer from a saved adapter, and return the state that PEFT then loads.

        Raises:
            AdapterError: the tensors of a layer do not fit it, or it is not adapted; no layer is changed then.
        """
        rest = dict(state_dict)
        found: dict[str, tuple[TunerLinear, dict[str, Tensor]]] = {}
        for name, layer in tuner_layers(model).items():
            if adapter_name not in layer.adapters:
                continue
            saved: dict[str, Tensor] = {}
            for stem in (name, f"base_model.model.{name}"):
                keys = [key for key in rest if key.startswith(f"{stem}.{layer.prefix}")]
                saved |= {key.removeprefix(f"{stem}.{layer.prefix}"): rest.pop(key) for key in keys}
            if saved:
                layer.adapter(adapter_name).check_saved(saved, f"{layer.name}, adapter {adapter_name!r}")
                found[name] = layer, saved
        for key in rest:
            place, _, tensor = key.rpartition(".")
            if tensor.startswith(cls.prefix):
                raise AdapterError(
                    f"{place}, adapter {adapter_name!r}: the file has tensors of a layer that is not adapted: it was "
                    "saved from another model or with other target_modules"
                )
        for name, (layer, saved) in found.items():
            if layer.is_meta(adapter_name):
                factors = layer.adapter(adapter_name).factors()
                trains = any(factor.requires_grad for factor in factors.values())
                layer.update_layer(adapter_name, config)
                layer.set_requires_grad(adapter_name, trains)
            adapter = layer.adapter(adapter_name)
            adapter.load_saved(layer.pretrained(), saved)
            state = adapter.state_dict()
            rest |= {f"{name}.{layer.prefix}layer.{adapter_name}.{key}": tensor for key, tensor in state.items()}
        return rest


def tuner_layers(model: nn.Module) -> dict[str, TunerLinear]:
    """The adapted layers by name."""
    return {name: module for name, module in model.named_modules() if isinstance(module, TunerLinear)}


def _choices(model: nn.Module) -> list[str]:
    """Names of the layers that can be adapted, adapted ones among them."""
    inside = tuple(f"{name}.{layer.prefix}layer." for name, layer in tuner_layers(model).items())
    names = [name for name in linear_layers(model) if not name.startswith(inside)]
    return [name.removesuffix(".base_layer") for name in names]


def _shown(targets: Any) -> str:
    return repr(targets) if isinstance(targets, str) else str(sorted(targets))
