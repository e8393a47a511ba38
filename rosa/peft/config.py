"""The configurations of ROSA and RoSA in PEFT: PEFT's options under PEFT's names, ours under our names."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar

from peft import PeftConfig, PeftType
from peft.utils.other import get_pattern_key

import rosa.config
from rosa.config import RankedConfig
from rosa.config.checks import of_kind, patterns, plain, require
from rosa.errors import ConfigError

PEFT_NAMES = {"rank": "r", "alpha": "lora_alpha", "dropout": "lora_dropout"}
"""Our name of an option -> PEFT's name for it, where they differ."""

OF_ATTACH = ("name", "head", "targets", "rank_pattern", "density_pattern")
"""Options of ``rosa.attach`` only; PEFT has its own options that name modules."""


@dataclass
class TunerConfig(PeftConfig):
    """The options of both methods. A subclass's options without a description are described in its ``METHOD``.

    Raises:
        ConfigError: a value cannot be used (a ``ValueError``).
    """

    METHOD: ClassVar[type[RankedConfig]]
    """The configuration that ``rosa.attach`` takes for the same method."""

    r: Any = 8
    """Rank of each adapted weight: an int, or a float in (0, 1), a share of min(out, in)."""
    target_modules: Any = None
    """As in PEFT: a list of names or ends of names, a regular expression, or ``all-linear``. None: every linear layer
    inside a module whose name says attention."""
    exclude_modules: Any = None
    """Names, ends of names or a regular expression of modules that are not adapted."""
    layers_to_transform: Any = None
    """Index or indices of the layers to adapt, from 0; not with a regular expression as ``target_modules``."""
    layers_pattern: Any = None
    """Name of the module list that ``layers_to_transform`` counts in."""
    rank_pattern: dict[str, Any] = field(default_factory=dict)
    """Other ranks, by regular expression of a module's name or of its end."""
    bias: str = "none"
    """Which biases are trained: ``none``, ``all``, or ``rosa_only`` or ``robust_only`` (those of adapted layers)."""
    modules_to_save: list[str] | None = None
    """Other modules that are trained and saved, such as a classifier's head."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for one in fields(self):
            setattr(self, one.name, _plain(getattr(self, one.name)))
        self.peft_type = PeftType[self.METHOD.NAME.upper()]
        self._check_names()
        if isinstance(self.target_modules, str):
            for name in ("layers_to_transform", "layers_pattern"):
                if getattr(self, name) is not None:
                    raise ConfigError(
                        f"{name}={getattr(self, name)!r}: expected None, since target_modules={self.target_modules!r} "
                        "is a string; a regular expression can name the layers itself"
                    )
        if self.layers_pattern and self.layers_to_transform is None:
            raise ConfigError(f"layers_pattern={self.layers_pattern!r}: expected layers_to_transform beside it")
        biases = ("none", "all", f"{self.METHOD.NAME}_only")
        if self.bias not in biases:
            raise ConfigError(f"bias={self.bias!r}: expected one of {', '.join(biases)}")
        self.method()
        self._check_patterns("rank_pattern")
        for pattern, rank in self.rank_pattern.items():
            self._method("rank", rank, f"rank_pattern[{pattern!r}]")

    @classmethod
    def option_names(cls) -> dict[str, str]:
        """The options that this configuration shares with ``METHOD``: PEFT's name by the name there."""
        return {one.name: PEFT_NAMES.get(one.name, one.name) for one in fields(cls.METHOD) if one.name not in OF_ATTACH}

    def method(self) -> RankedConfig:
        """The same options as ``rosa.attach`` takes them, without those of ``OF_ATTACH``."""
        return self._method("rank", self.r, "r")

    def patterns(self) -> dict[str, dict[str, Any]]:
        """The options that hold other values by pattern of layer names, by option."""
        return {"rank_pattern": self.rank_pattern}

    def rank_of(self, module: str) -> Any:
        """The requested rank of a module of this name: that of the first matching ``rank_pattern``, or ``r``."""
        return self.rank_pattern.get(get_pattern_key(list(self.rank_pattern), module), self.r)

    def _check_names(self) -> None:
        """Check the options that name modules or layers: PEFT takes any value, and a string as a list of letters.

        Raises:
            ConfigError: a value has another type, or is not a regular expression.
        """
        for name in ("target_modules", "exclude_modules"):
            value = getattr(self, name)
            if isinstance(value, str):
                _check_expression(f"{name}={value!r}", value)
            else:
                require(value is None or _are_names(value), name, value, "a list of names, or one regular expression")
                setattr(self, name, None if value is None else set(value))
        saved = self.modules_to_save
        require(saved is None or _are_names(saved), "modules_to_save", saved, "None or a list of names")
        self.modules_to_save = None if saved is None else list(saved)
        chosen = self.layers_to_transform
        several = chosen if isinstance(chosen, (list, tuple)) else [] if chosen is None else [chosen]
        whole = all(of_kind(one, "int") and one >= 0 for one in several)
        require(whole, "layers_to_transform", chosen, "the index of a layer, counted from 0, or a list of them")
        pattern = self.layers_pattern
        named = pattern is None or isinstance(pattern, str) or _are_names(pattern)
        require(named, "layers_pattern", pattern, "the name of a module list, or a list of them")
        for one in [pattern] if isinstance(pattern, str) else pattern or ():
            _check_expression(f"layers_pattern: {one!r}", one)

    def _check_patterns(self, name: str) -> None:
        """Check that an option is a dictionary whose keys are regular expressions.

        Raises:
            ConfigError: it is not.
        """
        patterns(name, getattr(self, name))
        for pattern in getattr(self, name):
            _check_expression(f"{name}: {pattern!r}", pattern)

    def _method(self, option: str, value: Any, name: str) -> RankedConfig:
        """Build ``METHOD`` with another value of one option, which messages call ``name``.

        Raises:
            ConfigError: a value cannot be used; the message has PEFT's names.
        """
        names = self.option_names()
        values = {ours: getattr(self, theirs) for ours, theirs in names.items()}
        try:
            return self.METHOD(**{**values, option: value})
        except ConfigError as error:
            message = str(error)
            for ours, theirs in {**names, option: name}.items():
                message = message.replace(f"method.{ours}=", f"{theirs}=")
            raise ConfigError(message.replace("method.", "")) from error


@dataclass
class RosaConfig(TunerConfig):
    """ROSA, random subspace adaptation, for ``peft.get_peft_model``. RoSA, robust adaptation, is ``RobustConfig``.

    Options without a description here are those of :class:`rosa.config.RosaConfig`.

    Raises:
        ConfigError: a value cannot be used (a ``ValueError``).
    """

    METHOD: ClassVar[type[RankedConfig]] = rosa.config.RosaConfig

    every: int = 2
    unit: str = "epoch"
    sampling: str = "random"
    factorization: str = "svd_equal"
    split: str = "one_sided"
    solver: str = "auto"
    train: str = "ab"
    optimizer_state: str = "reset"
    rewarm_steps: int = 0


@dataclass
class RobustConfig(TunerConfig):
    """RoSA, robust adaptation (low-rank plus sparse), for ``peft.get_peft_model``; not ROSA, which is ``RosaConfig``.

    Options without a description here are those of :class:`rosa.config.RobustConfig`.

    Raises:
        ConfigError: a value cannot be used (a ``ValueError``).
    """

    METHOD: ClassVar[type[RankedConfig]] = rosa.config.RobustConfig

    lora_alpha: float = 16.0
    """The low-rank update is scaled by lora_alpha / r; the sparse one is not scaled."""
    lora_dropout: float = 0.0
    """Dropout on the low-rank part's input, in [0, 1)."""
    density: float = 0.006
    density_pattern: dict[str, float] = field(default_factory=dict)
    """Other densities, by regular expression of a module's name or of its end."""
    lr_sparse: float = 2 / 7
    schedule: str = "joint"
    warmup_steps: int = 64
    restart: bool = False
    score: str = "gradient_squared"
    collect_steps: int = 1
    support: str = ""
    """A file with the positions of the sparse parts (``support.safetensors``), read where an adapter is added. It is
    not saved with the adapter, which contains its positions."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_patterns("density_pattern")
        for pattern, density in self.density_pattern.items():
            self._method("density", density, f"density_pattern[{pattern!r}]")

    def patterns(self) -> dict[str, dict[str, Any]]:
        """The options that hold other values by pattern of layer names, by option."""
        return {**super().patterns(), "density_pattern": self.density_pattern}

    def density_of(self, module: str) -> float:
        """The density for a module of this name: that of the first matching ``density_pattern``, or ``density``."""
        return self.density_pattern.get(get_pattern_key(list(self.density_pattern), module), self.density)

    def to_dict(self) -> dict[str, Any]:
        """The options as saved, without ``support``, a file of this machine."""
        return {**super().to_dict(), "support": ""}


def _plain(value: Any) -> Any:
    """Numbers of other libraries, also in a list or dictionary, as Python's own, which can be saved as JSON."""
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    return type(value)(map(_plain, value)) if isinstance(value, (list, tuple)) else plain(value)


def _are_names(value: object) -> bool:
    return isinstance(value, (list, tuple, set, frozenset)) and all(isinstance(name, str) and name for name in value)


def _check_expression(place: str, pattern: str) -> None:
    try:
        re.compile(pattern)
    except re.error as error:
        raise ConfigError(f"{place} is not a regular expression: {error}") from error
