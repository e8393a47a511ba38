"""ROSA: fine-tune in random subspaces of the weights (arXiv 2407.07802), beside LoRA, (IA)3 and full fine-tuning.

The packages, in the order in which data flows through them::

    config -> data, models, adapters -> training -> evaluation -> records -> run -> sweep, report, export

``peft`` offers ROSA through PEFT; ``mini`` generates texts and small models for work offline; ``utils`` and ``errors``
serve all. The names below are loaded on first use, so that reading a configuration or a record does not import torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rosa import export, peft
    from rosa.adapters import AdapterError, attach, merge, resample
    from rosa.adapters.callback import ResampleCallback
    from rosa.adapters.support_callback import SupportCallback
    from rosa.config import FullConfig, IA3Config, LoraConfig, Method, RobustConfig, RosaConfig, register_method

__all__ = [
    "AdapterError",
    "FullConfig",
    "IA3Config",
    "LoraConfig",
    "Method",
    "ResampleCallback",
    "RobustConfig",
    "RosaConfig",
    "SupportCallback",
    "attach",
    "export",
    "merge",
    "peft",
    "register_method",
    "resample",
]

_HOME = {
    "AdapterError": "rosa.adapters",
    "attach": "rosa.adapters",
    "merge": "rosa.adapters",
    "resample": "rosa.adapters",
    "FullConfig": "rosa.config",
    "IA3Config": "rosa.config",
    "LoraConfig": "rosa.config",
    "Method": "rosa.config",
    "RobustConfig": "rosa.config",
    "RosaConfig": "rosa.config",
    "register_method": "rosa.config",
    "ResampleCallback": "rosa.adapters.callback",
    "SupportCallback": "rosa.adapters.support_callback",
}


_MODULES = ("export", "peft")
"""Submodules that are reached through the package, as in ``rosa.export.to_peft``."""


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return _version()
    if name in _MODULES:
        return importlib.import_module(f"rosa.{name}")
    if name not in _HOME:
        raise AttributeError(f"module 'rosa' has no attribute {name!r}; it has {', '.join(__all__)}")
    return getattr(importlib.import_module(_HOME[name]), name)


def _version() -> str:
    """The version of the installed distribution; ``0+unknown`` in a source tree that was never installed."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("rosa-finetune")
    except PackageNotFoundError:
        return "0+unknown"
