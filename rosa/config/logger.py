"""Configuration of the ``logger`` group."""

from __future__ import annotations

from dataclasses import dataclass

from rosa.config.checks import choice


@dataclass
class LoggerConfig:
    """Weights & Biases; the records under ``results_dir`` are always written."""

    enabled: bool = True
    project: str = "rosa"
    entity: str = ""
    """User or team; empty for the account's default."""
    mode: str = "offline"
    """``offline``, ``online`` or ``disabled``; the environment variable ``WANDB_MODE`` takes precedence."""

    def __post_init__(self) -> None:
        choice("logger.mode", self.mode, ("offline", "online", "disabled"))
