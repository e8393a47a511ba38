"""Configurations composed from the project's own files, as the commands compose them."""

from __future__ import annotations

import dataclasses
import functools
import re
from pathlib import Path

from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from rosa.config import Config, from_hydra, register

CONF = Path(__file__).resolve().parent.parent / "conf"


def compose_config(*overrides: str) -> Config:
    """The checked configuration of these Hydra overrides.

    Hydra takes a while, so one set of overrides is composed once, whatever folders its results and caches lie in.

    Raises:
        ConfigError: as ``from_hydra``.
    """
    register()
    matches = {override: re.fullmatch(r"(results_dir|cache_dir)=([\w/.-]+)", override) for override in overrides}
    folders = {match[1]: match[2] for match in matches.values() if match}
    config = from_hydra(_composed(*(override for override in overrides if not matches[override])))
    return dataclasses.replace(config, **folders)


@functools.cache
def _composed(*overrides: str) -> DictConfig:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("config", overrides=list(overrides))
