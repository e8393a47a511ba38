"""Load modules with many objects in them in less time."""

from __future__ import annotations

import gc
import importlib
import sys

from rosa.utils.garbage import unsearched


def load(name: str) -> None:
    """Import a module, unless it is imported already, without Python's search for cyclic garbage.

    Modules are no garbage, but are searched again and again the more of them there are: for a sixth of the time that
    PyTorch and transformers take. What exists at the end is excluded from all later searches, too (``gc.freeze``).
    """
    if name in sys.modules:
        return
    with unsearched():
        importlib.import_module(name)
        gc.freeze()
