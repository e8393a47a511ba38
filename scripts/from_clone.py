"""Imported by every script: it, and each Python process that it starts, finds the package ``rosa`` in this clone.

So the scripts work whether or not the clone is installed (``pip install -e .``), with the requirements alone.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def find_package() -> None:
    """Put the clone first in this process's path after the scripts, and in ``PYTHONPATH``, which keeps its value."""
    root = str(ROOT)
    if root not in sys.path:
        sys.path.insert(1, root)
    others = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
    if root not in others:
        os.environ["PYTHONPATH"] = os.pathsep.join([root, *others])


find_package()
