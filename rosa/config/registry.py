"""Registry of methods: the project's own and those of other packages.

A :class:`Method` is all that the rest of the project knows about a method. The project's methods are listed in
:data:`OWN`. Another package registers a method by an entry point in the group ``rosa.methods`` that names its
``Method``; a script calls :func:`register_method`.
"""

from __future__ import annotations

import functools
import pkgutil
import re
import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, is_dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from rosa.config.checks import choice, require
from rosa.config.method import FullConfig, IA3Config, LoraConfig, MethodConfig, RobustConfig, RosaConfig
from rosa.errors import ConfigError, RosaError

GROUP = "rosa.methods"
"""Entry-point group; each entry point names a :class:`Method`."""

Builder = Callable[[Any, Any, Any], Iterable[tuple[str, Any]]]
"""``build(model, config, generator)`` yields (dotted layer name, adapter that replaces the layer). An adapter is a
``rosa.adapters.Adapter``; ``generator`` is a CPU ``torch.Generator``, or None for PyTorch's global one."""

MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "*")
"""Names of the matplotlib markers that remain distinguishable at the size used in figures."""


@dataclass(frozen=True)
class Look:
    """Colour and marker of a method in every figure."""

    color: str
    """``#rrggbb``."""
    marker: str
    """One of :data:`MARKERS`."""


OTHER_LOOKS = tuple(
    Look(color, marker) for color in ("#e69f00", "#cc79a7", "#000000") for marker in ("P", "X", "<", ">")
)
"""Looks of methods that define none; no method in :data:`OWN` has these colours or markers."""


@dataclass(frozen=True)
class Method:
    """A method: its options, the function that builds its adapters, and its label and look.

    Raises:
        ConfigError: a field that cannot be used.
    """

    config: type[MethodConfig]
    """Dataclass of its options; ``NAME`` is the method's name."""
    build: Builder | str | None
    """Function that builds the adapters, or its import path ``package.module:function``. A path is imported when a
    model is adapted, so that configurations and tables do not load PyTorch. None for a method without adapters."""
    label: str
    """Name in tables and figures."""
    look: Look | None = None
    """None chooses one of :data:`OTHER_LOOKS` by the method's name."""
    presets: Path | None = None
    """Folder of YAML files, each a choice of ``method=`` like the files of ``conf/method``. The method's name is always
    a choice, with the defaults of ``config``."""

    def __post_init__(self) -> None:
        where = f"Method({getattr(self.config, '__name__', self.config)!s})"
        fits = isinstance(self.config, type) and issubclass(self.config, MethodConfig)
        require(fits, f"{where}.config", self.config, "a dataclass derived from rosa.config.MethodConfig")
        own = is_dataclass(self.config) and "__dataclass_fields__" in vars(self.config)
        require(own, f"{where}.config", self.config, "a class decorated with @dataclass")
        named = "NAME" in vars(self.config) and re.fullmatch("[a-z][a-z0-9_]*", self.config.NAME)
        require(bool(named), f"{where}.config.NAME", self.config.NAME, "a name of a-z, 0-9 and _, set in this class")
        require(bool(self.label.strip()), f"{where}.label", self.label, "a name for tables and figures")
        if self.look is not None:
            color = self.look.color
            require(bool(re.fullmatch("#[0-9a-fA-F]{6}", color)), f"{where}.look.color", color, "a colour #rrggbb")
            choice(f"{where}.look.marker", self.look.marker, MARKERS)
        if self.presets is not None:
            require(self.presets.is_dir(), f"{where}.presets", str(self.presets), "a folder of YAML files")

    @property
    def name(self) -> str:
        """Name in ``method=`` and in records."""
        return self.config.NAME

    def preset_files(self) -> list[Path]:
        """The YAML files of :attr:`presets`."""
        return sorted(self.presets.glob("*.yaml")) if self.presets else []


OWN = (
    Method(FullConfig, None, "Full", Look("#777777", "o")),
    Method(LoraConfig, "rosa.adapters.lora:build", "LoRA", Look("#0072b2", "s")),
    Method(IA3Config, "rosa.adapters.ia3:build", "(IA)3", Look("#56b4e9", "D")),
    Method(RobustConfig, "rosa.adapters.robust:build", "RoSA (robust)", Look("#009e73", "v")),
    Method(RosaConfig, "rosa.adapters.rosa:build", "ROSA", Look("#d55e00", "^")),
)
"""The project's methods in the order of table rows: the reference first, ROSA last. The colours are from Okabe and
Ito's palette for colour-blind readers."""

_registered: dict[str, Method] = {}


def methods() -> dict[str, Method]:
    """Name -> method, in the order of table rows: the project's methods, then the others sorted by name.

    Raises:
        ConfigError: an entry point cannot be loaded, or does not name a :class:`Method`.
    """
    others = {**_installed(), **_registered}
    return {method.name: method for method in OWN} | {name: others[name] for name in sorted(others)}


def register_method(method: Method) -> None:
    """Register a method in this process; an installed package's entry point registers it in every process.

    Raises:
        ConfigError: another method has this name.
    """
    _refuse_taken(method, methods())
    _registered[method.name] = method


def label(name: str) -> str:
    """A method's label in tables and figures; ``name`` itself if the method is not registered."""
    found = methods().get(name)
    return found.label if found else name


def look(name: str) -> Look:
    """A method's look; does not depend on which other methods are registered."""
    found = methods().get(name)
    return (found.look if found else None) or OTHER_LOOKS[zlib.crc32(name.encode()) % len(OTHER_LOOKS)]


def order(name: str) -> tuple[int, str]:
    """Sort key of a method in tables and figures: the order of :data:`OWN`, then other methods by name."""
    own = [method.name for method in OWN]
    return (own.index(name) if name in own else len(own), name)


def builder(config: MethodConfig) -> Builder | None:
    """The function that builds a configured method's adapters; None for a method without adapters.

    Raises:
        ConfigError: the configuration does not belong to a registered method, or the function cannot be imported,
            as when a package that it needs is missing.
    """
    found = methods().get(getattr(config, "name", ""))
    if found is None or found.config is not type(config):
        known = ", ".join(method.config.__name__ for method in methods().values())
        raise ConfigError(
            f"{type(config).__name__} is not the configuration of a registered method: expected one of {known}; "
            "register other methods by rosa.register_method"
        )
    if not isinstance(found.build, str):
        return found.build
    try:
        return pkgutil.resolve_name(found.build)
    except RosaError as error:  # such as a missing package
        raise ConfigError(f"method {found.name!r}: {error}") from error
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(
            f"method {found.name!r}: build={found.build!r} cannot be imported ({error}); "
            "expected 'package.module:function'"
        ) from error


@functools.cache
def _installed() -> dict[str, Method]:
    """Name -> method, from the entry points of installed packages."""
    found: dict[str, Method] = {}
    for point in entry_points(group=GROUP):
        where = f"entry point {point.name} = {point.value!r} of {point.dist.name if point.dist else 'a package'}"
        try:
            method = point.load()
        except Exception as error:  # whatever the package's import raises
            raise ConfigError(
                f"{where} cannot be loaded: {type(error).__name__}: {error}; fix or uninstall the package"
            ) from error
        require(isinstance(method, Method), where, method, "a rosa.Method")
        _refuse_taken(method, {**{own.name: own for own in OWN}, **found})
        found[method.name] = method
    return found


def _refuse_taken(method: Method, known: Mapping[str, Method]) -> None:
    """Raise if another method has the name; a redefined class, as in a rerun notebook cell, may replace the old one."""
    there = known.get(method.name, method).config
    if (there.__module__, there.__qualname__) != (method.config.__module__, method.config.__qualname__):
        raise ConfigError(
            f"method {method.name!r}: {there.__module__}.{there.__qualname__} already has this name; choose another "
            f"NAME for {method.config.__module__}.{method.config.__qualname__}"
        )
