"""Import large libraries without garbage collection, which takes a sixth of the time of the import."""

from __future__ import annotations

import gc
import importlib
import sys

from rosa.utils.garbage import collection_off


def load(name: str) -> None:
    """Import a module, unless it is imported already, with the garbage collector off.

    The objects of a module live as long as the process, so scanning them again and again finds nothing. All objects
    that exist at the end are excluded from later collections too (``gc.freeze``).
    """
    if name in sys.modules:
        return
    with collection_off():
        importlib.import_module(name)
        gc.freeze()
