"""The methods there are: the project's own, and those that other packages register.

A method has one :class:`Method`: all that the other packages know of it. Those of the project are listed here. Another
package adds its own by an entry point of the group ``rosa.methods`` that names its ``Method``; a script does so by a
call of :func:`register_method`.
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
from rosa.errors import ConfigError

GROUP = "rosa.methods"
"""The entry-point group; each entry point names a :class:`Method`."""

Builder = Callable[[Any, Any, Any], Iterable[tuple[str, Any]]]
"""``build(model, config, generator)``: yields each layer's dotted name and the adapter (``rosa.adapters.Adapter``) to
put there. ``generator`` is a CPU ``torch.Generator``, or None for PyTorch's global one."""

MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "*")
"""matplotlib's names of the markers that can be told apart at the size of a figure's lines."""


@dataclass(frozen=True)
class Look:
    """How a method is drawn, in every figure."""

    color: str
    """``#rrggbb``."""
    marker: str
    """One of :data:`MARKERS`."""


OTHER_LOOKS = tuple(
    Look(color, marker) for color in ("#e69f00", "#cc79a7", "#000000") for marker in ("P", "X", "<", ">")
)
"""Looks of methods that choose none: colours and markers that no method below has."""


@dataclass(frozen=True)
class Method:
    """A method: its options, what attaches it, and how tables and figures show it."""

    config: type[MethodConfig]
    """A dataclass; its ``NAME`` is the method's name."""
    build: Builder | str | None
    """The function that makes the adapters, or where to import it from (``package.module:function``) once a model needs
    it, so that configurations and tables load no PyTorch. None for a method without adapters."""
    label: str
    """Its name in tables and figures."""
    look: Look | None = None
    """None takes one of :data:`OTHER_LOOKS`, always the same for the same name."""
    presets: Path | None = None
    """A folder of YAML files, each a choice of ``method=`` (as those of ``conf/method``); the method's name alone is a
    choice without one, with the defaults of ``config``."""

    def __post_init__(self) -> None:
        where = f"Method({getattr(self.config, '__name__', self.config)!s})"
        fits = isinstance(self.config, type) and issubclass(self.config, MethodConfig)
        require(fits, f"{where}.config", self.config, "a dataclass derived from rosa.config.MethodConfig")
        own = is_dataclass(self.config) and "__dataclass_fields__" in vars(self.config)
        require(own, f"{where}.config", self.config, "a class decorated with @dataclass")
        named = "NAME" in vars(self.config) and re.fullmatch("[a-z][a-z0-9_]*", self.config.NAME)
        require(bool(named), f"{where}.config.NAME", self.config.NAME, "a name of its own, of a-z, 0-9 and _")
        require(bool(self.label.strip()), f"{where}.label", self.label, "a name to show")
        if self.look is not None:
            color = self.look.color
            require(bool(re.fullmatch("#[0-9a-fA-F]{6}", color)), f"{where}.look.color", color, "#rrggbb")
            choice(f"{where}.look.marker", self.look.marker, MARKERS)
        if self.presets is not None:
            require(self.presets.is_dir(), f"{where}.presets", str(self.presets), "a folder of YAML files")

    @property
    def name(self) -> str:
        """What ``method=`` and the records call it."""
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
"""The project's methods in the order of a table's rows: the reference first, ROSA last. The colours are those of Okabe
and Ito, which every kind of colour vision tells apart."""

_registered: dict[str, Method] = {}


def methods() -> dict[str, Method]:
    """Every method by name, in the order of a table's rows: the project's own, then others by name.

    Raises:
        ConfigError: an entry point that cannot be loaded, or that names no :class:`Method`.
    """
    others = {**_installed(), **_registered}
    return {method.name: method for method in OWN} | {name: others[name] for name in sorted(others)}


def register_method(method: Method) -> None:
    """Make a method known to this process; an installed package's entry point makes it known to every process.

    Raises:
        ConfigError: another method has the name.
    """
    _refuse_taken(method, methods())
    _registered[method.name] = method


def label(name: str) -> str:
    """A method's name in tables and figures; ``name`` itself where its package is not installed."""
    found = methods().get(name)
    return found.label if found else name


def look(name: str) -> Look:
    """How a method is drawn; the same in every process, whatever other methods are installed."""
    found = methods().get(name)
    return (found.look if found else None) or OTHER_LOOKS[zlib.crc32(name.encode()) % len(OTHER_LOOKS)]


def order(name: str) -> tuple[int, str]:
    """Sort key of a method's rows: as in :data:`OWN`, other methods behind them by name."""
    own = [method.name for method in OWN]
    return (own.index(name) if name in own else len(own), name)


def builder(config: MethodConfig) -> Builder | None:
    """The function that makes the adapters of a configured method; None for a method without adapters.

    Raises:
        ConfigError: the configuration is no method's; or the function cannot be imported.
    """
    found = methods().get(getattr(config, "name", ""))
    if found is None or found.config is not type(config):
        known = ", ".join(method.config.__name__ for method in methods().values())
        raise ConfigError(
            f"{type(config).__name__} is no method's configuration: expected one of {known}, or one that "
            "rosa.register_method has made known"
        )
    if not isinstance(found.build, str):
        return found.build
    try:
        return pkgutil.resolve_name(found.build)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(
            f"method {found.name!r}: build={found.build!r} cannot be imported ({error}); "
            "expected 'package.module:function'"
        ) from error


@functools.cache
def _installed() -> dict[str, Method]:
    """The methods of the installed packages' entry points, by name."""
    found: dict[str, Method] = {}
    for point in entry_points(group=GROUP):
        where = f"entry point {point.name} = {point.value!r} of {point.dist.name if point.dist else 'a package'}"
        try:
            method = point.load()
        except Exception as error:  # whatever the package's import raises
            raise ConfigError(
                f"{where} cannot be loaded: {type(error).__name__}: {error}; mend the package or uninstall it"
            ) from error
        require(isinstance(method, Method), where, method, "a rosa.Method")
        _refuse_taken(method, {**{own.name: own for own in OWN}, **found})
        found[method.name] = method
    return found


def _refuse_taken(method: Method, known: Mapping[str, Method]) -> None:
    """Refuse a second method of one name. A class that was defined again, as a notebook's cell does, is no second."""
    there = known.get(method.name, method).config
    if (there.__module__, there.__qualname__) != (method.config.__module__, method.config.__qualname__):
        raise ConfigError(
            f"method {method.name!r}: {there.__module__}.{there.__qualname__} has this name; give "
            f"{method.config.__module__}.{method.config.__qualname__} another NAME"
        )
