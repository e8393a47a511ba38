"""Register the configuration types with Hydra, and convert composed configurations to :class:`Config`."""

from __future__ import annotations

import dataclasses
from typing import Any

from rosa.config.data import DataConfig
from rosa.config.decoding import DecodingConfig
from rosa.config.logger import LoggerConfig
from rosa.config.model import ModelConfig
from rosa.config.registry import OWN, methods
from rosa.config.schema import Config
from rosa.config.task import TaskConfig
from rosa.config.train import TrainConfig
from rosa.errors import ConfigError


def register() -> None:
    """Register the types of all groups, and the registered methods' presets, with Hydra; call once before composing."""
    from hydra.core.config_store import ConfigStore
    from omegaconf import DictConfig, OmegaConf

    store = ConfigStore.instance()
    # Hydra copies the whole store for each composition, and for each group that --help lists, although it also copies
    # what it takes out.
    vars(store)["__deepcopy__"] = lambda _: store
    store.store(name="schema", node=Config)
    groups = {"model": ModelConfig, "task": TaskConfig, "train": TrainConfig, "data": DataConfig}
    for group, node in {**groups, "logger": LoggerConfig, "decoding": DecodingConfig}.items():
        store.store(group=group, name="schema", node=node)
    for name, method in methods().items():
        schema = OmegaConf.structured(method.config)
        for key in schema:
            if isinstance(schema._get_node(key), DictConfig):
                OmegaConf.set_struct(schema[key], False)  # users choose the keys of a dictionary
        store.store(group="method", name=f"{name}_schema", node=schema)
        if method not in OWN:  # the presets of the project's methods are the files of conf/method
            choices = {name: schema} | {path.stem: OmegaConf.load(path) for path in method.preset_files()}
            for choice, settings in choices.items():
                store.store(group="method", name=choice, node=settings)


def from_hydra(composed: Any) -> Config:
    """Convert a configuration composed by Hydra to the checked dataclasses.

    Raises:
        ConfigError: an unknown key, a missing value, a value out of range, or conflicting settings.
    """
    from omegaconf import DictConfig, OmegaConf
    from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

    plain = composed
    if isinstance(composed, DictConfig):
        _refuse_added_keys(composed)
        try:
            plain = OmegaConf.to_object(composed)
        except MissingMandatoryValue as error:
            raise ConfigError(f"{error.full_key}: has no value; expected {error.full_key}=...") from error
        except OmegaConfBaseException as error:
            raise ConfigError(str(error)) from error
    if not isinstance(plain, Config):
        raise ConfigError(
            f"the configuration is a {type(plain).__name__}, expected Config; put 'schema' first in the defaults list"
        )
    return plain


def _refuse_added_keys(node: Any, prefix: str = "") -> None:
    """Raise for keys that no dataclass has: Hydra's ``+key=value`` adds them, but nothing reads them."""
    from omegaconf import DictConfig, OmegaConf

    kind = OmegaConf.get_type(node)
    if not dataclasses.is_dataclass(kind):
        return
    known = [f.name for f in dataclasses.fields(kind)]
    for key in node:
        if key not in known:
            raise ConfigError(f"{prefix}{key}: no such key; {prefix[:-1] or 'the top level'} has: {', '.join(known)}")
        child = node._get_node(key)
        if isinstance(child, DictConfig) and not child._is_none() and not child._is_missing():
            _refuse_added_keys(child, f"{prefix}{key}.")
