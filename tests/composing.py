"""Configurations composed from the project's own files, as the commands compose them."""

from __future__ import annotations

import functools
from pathlib import Path

from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from rosa.config import Config, Method, methods, register
from rosa.sweep.grid import Composer

CONF = Path(__file__).resolve().parent.parent / "conf"


def compose_config(*overrides: str) -> Config:
    """The checked configuration of these Hydra overrides.

    Hydra takes a while, so files that are chosen alike are composed once, as in a sweep.

    Raises:
        ConfigError: as ``from_hydra``.
    """
    return _composer(tuple(methods().values()))(overrides)[0]


@functools.cache
def _composer(registered: tuple[Method, ...]) -> Composer:
    """The project's files, and those of these methods."""
    register()
    return Composer(_composed)


def _composed(overrides: list[str]) -> DictConfig:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("config", overrides=overrides, return_hydra_config=True)
