"""The configuration of the ``logger`` group, and its checks."""

from __future__ import annotations

from dataclasses import dataclass

from rosa.config.checks import choice


@dataclass
class LoggerConfig:
    """Weights & Biases; the records under ``results_dir`` are written whatever is set here."""

    enabled: bool = True
    project: str = "rosa"
    entity: str = ""
    mode: str = "offline"
    """``offline``, ``online`` or ``disabled``; the environment's ``WANDB_MODE`` goes first."""

    def __post_init__(self) -> None:
        choice("logger.mode", self.mode, ("offline", "online", "disabled"))
