"""Configurations composed from the project's own files, as the commands compose them."""

from __future__ import annotations

from pathlib import Path

from hydra import compose, initialize_config_dir

from rosa.config import Config, from_hydra, register

CONF = Path(__file__).resolve().parent.parent / "conf"


def compose_config(*overrides: str) -> Config:
    """The checked configuration of these Hydra overrides.

    Raises:
        ConfigError: as ``from_hydra``.
    """
    register()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return from_hydra(compose("config", overrides=list(overrides)))
