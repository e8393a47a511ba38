"""Register a method with the installed PEFT, without changing PEFT's files.

PEFT finds a method by an entry of its enumeration ``PeftType`` and by tables from that entry to the method's classes.
``peft.utils.register_peft_method`` fills the tables, but the entry must exist already.
"""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

from rosa.errors import DependencyError

if TYPE_CHECKING:
    from peft import PeftType

OLDEST = "0.21.0"
"""The first version of PEFT in which tuners define how their state is saved and loaded."""


def require_peft() -> None:
    """Check that a PEFT is installed, and that it is new enough.

    Raises:
        DependencyError: it is not.
    """
    install = f"pip install 'peft>={OLDEST}' (or this package with [peft])"
    try:
        found = version("peft")
    except PackageNotFoundError as error:
        raise DependencyError(f"rosa.peft needs the package peft, which is not installed: {install}") from error
    try:
        from peft.tuners.tuners_utils import BaseTuner
        from peft.utils import register_peft_method  # noqa: F401
    except ImportError as error:
        raise DependencyError(f"rosa.peft needs peft {OLDEST} or later; {found} is too old: {install}") from error
    needed = ("_get_adapter_state_dict", "_remap_adapter_state_dict_for_load", "supports_lora_conversion")
    missing = [name for name in needed if not hasattr(BaseTuner, name)]
    if missing:
        raise DependencyError(
            f"rosa.peft needs peft {OLDEST} or later; the tuners of {found} lack {', '.join(missing)}: {install}"
        )


def register(name: str, config: type, model: type, prefix: str) -> None:
    """Register a method with PEFT; again for the same classes, as after a reload, it replaces them.

    Args:
        name: lower case; ``PeftType`` gets the entry of its upper case.
        config: a subclass of ``peft.PeftConfig``.
        model: a subclass of PEFT's ``BaseTuner``.
        prefix: the prefix of the method's tensor names.

    Raises:
        DependencyError: PEFT has another method of this name.
    """
    from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING, PEFT_TYPE_TO_PREFIX_MAPPING, PEFT_TYPE_TO_TUNER_MAPPING
    from peft.utils import register_peft_method

    kind = add_peft_type(name.upper())
    present = PEFT_TYPE_TO_CONFIG_MAPPING.get(kind)
    if present is not None:
        theirs, ours = (f"{one.__module__}.{one.__qualname__}" for one in (present, config))
        if theirs != ours:
            raise DependencyError(f"peft {version('peft')} has a method {name!r} already ({theirs}); use that one")
        tables: tuple[dict, ...] = (
            *(PEFT_TYPE_TO_CONFIG_MAPPING, PEFT_TYPE_TO_PREFIX_MAPPING, PEFT_TYPE_TO_TUNER_MAPPING),
        )
        for table in tables:
            del table[kind]
    register_peft_method(name=name, config_cls=config, model_cls=model, prefix=prefix)


def add_peft_type(name: str) -> PeftType:
    """Add an entry to ``PeftType`` if it is missing, and return it.

    Python enumerations cannot be extended after their definition. Their entries are in three tables, for look-ups by
    name, by value and for iteration; this function adds the entry to all three.
    """
    from peft import PeftType

    if name not in PeftType.__members__:
        member = str.__new__(PeftType, name)
        member._name_ = member._value_ = name
        member.__objclass__ = PeftType  # type: ignore[attr-defined]
        PeftType._member_names_.append(name)
        PeftType._member_map_[name] = member
        PeftType._value2member_map_[name] = member
        type.__setattr__(PeftType, name, member)
    return PeftType[name]
