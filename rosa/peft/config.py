"""The configuration of ROSA in PEFT: PEFT's options under PEFT's names, ROSA's own under their names."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

from peft import PeftConfig, PeftType
from peft.utils.other import get_pattern_key

import rosa.config
from rosa.errors import ConfigError

OURS = (*("every", "unit", "sampling", "factorization", "split", "solver", "train", "optimizer_state", "rewarm_steps"),)
"""Options that PEFT's configuration and :class:`rosa.config.RosaConfig` have under one name."""

BIASES = ("none", "all", "rosa_only")


@dataclass
class RosaConfig(PeftConfig):
    """ROSA for ``peft.get_peft_model``.

    Options without a description here are those of :class:`rosa.config.RosaConfig`.

    Raises:
        ConfigError: a value cannot be used (a ``ValueError``).
    """

    r: Any = 8
    """Rank of each adapted weight: an int, or a float in (0, 1), a share of min(out, in)."""
    target_modules: Any = None
    """As in PEFT: a list of names or ends of names, a regular expression, or ``all-linear``. None: every linear layer
    inside a module whose name says attention."""
    exclude_modules: Any = None
    """Names, ends of names or a regular expression of modules that are not adapted."""
    layers_to_transform: Any = None
    """Index or indices of the layers to adapt; only with a list of ``target_modules``."""
    layers_pattern: Any = None
    """Name of the module list that ``layers_to_transform`` counts in."""
    rank_pattern: dict[str, Any] = field(default_factory=dict)
    """Other ranks, by regular expression of a module's name or of its end."""
    bias: str = "none"
    """Which biases are trained: ``none``, ``all``, or ``rosa_only`` (those of adapted layers)."""
    modules_to_save: list[str] | None = None
    """Other modules that are trained and saved, such as a classifier's head."""
    every: int = 2
    unit: str = "epoch"
    sampling: str = "random"
    factorization: str = "svd_equal"
    split: str = "one_sided"
    solver: str = "auto"
    train: str = "ab"
    optimizer_state: str = "reset"
    rewarm_steps: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        self.peft_type = PeftType["ROSA"]
        for name in ("target_modules", "exclude_modules"):
            value = getattr(self, name)
            setattr(self, name, set(value) if isinstance(value, (list, tuple)) else value)
        if isinstance(self.target_modules, str):
            for name in ("layers_to_transform", "layers_pattern"):
                if getattr(self, name) is not None:
                    raise ConfigError(
                        f"{name}={getattr(self, name)!r}: expected None, since target_modules={self.target_modules!r} "
                        "is a string; a regular expression can name the layers itself"
                    )
        if self.layers_pattern and self.layers_to_transform is None:
            raise ConfigError(f"layers_pattern={self.layers_pattern!r}: expected layers_to_transform beside it")
        if self.bias not in BIASES:
            raise ConfigError(f"bias={self.bias!r}: expected one of {', '.join(BIASES)}")
        for pattern, rank in {"": self.r, **self.rank_pattern}.items():
            self._method(rank, f"rank_pattern[{pattern!r}]" if pattern else "r")

    def method(self) -> rosa.config.RosaConfig:
        """The same options as ``rosa.attach`` takes them, without ``targets`` and ``head``."""
        return self._method(self.r, "r")

    def rank_of(self, module: str) -> Any:
        """The requested rank of a module of this name: that of the first matching ``rank_pattern``, or ``r``."""
        return self.rank_pattern.get(get_pattern_key(list(self.rank_pattern), module), self.r)

    def _method(self, rank: Any, name: str) -> rosa.config.RosaConfig:
        """Build the method's configuration; ``name`` is what a message calls the rank.

        Raises:
            ConfigError: a value cannot be used; the message has PEFT's names.
        """
        try:
            return rosa.config.RosaConfig(rank=rank, **{option: getattr(self, option) for option in OURS})
        except ConfigError as error:
            raise ConfigError(str(error).replace("method.rank=", f"{name}=").replace("method.", "")) from error


def option_names() -> set[str]:
    """Names of every option of :class:`RosaConfig`."""
    return {one.name for one in fields(RosaConfig)}
