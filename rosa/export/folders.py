"""Atomic export folders: complete, or absent."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from rosa.errors import ExportError

MARKS = ("adapter_config.json", "config.json", "sparse.safetensors")
"""A folder with one of these files is an export, which ``overwrite`` may replace."""
CARD = "README.md"


@contextmanager
def new_folder(folder: Path, overwrite: bool) -> Iterator[Path]:
    """Yield an empty temporary folder that is renamed to ``folder`` on success and deleted on failure.

    Args:
        folder: the final path.
        overwrite: replace an earlier export at that path.

    Raises:
        ExportError: the path is taken (with ``overwrite``: by something other than an export), or cannot be written, or
            the current folder is at it or below it.
    """
    _refuse_taken(folder, overwrite)
    unfinished = folder.with_name(f".{folder.name}.{os.getpid()}.unfinished")
    earlier = folder.with_name(f".{folder.name}.{os.getpid()}.earlier")
    try:
        unfinished.mkdir(parents=True)
        yield unfinished
        if folder.exists():
            folder.replace(earlier)
        unfinished.replace(folder)
    except (OSError, SafetensorError) as error:  # safetensors has an error of its own for a full disk
        if earlier.exists():
            earlier.replace(folder)
        raise ExportError(f"{folder}: cannot be written: {error}") from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
        shutil.rmtree(earlier, ignore_errors=True)


def size_of(folder: Path, pattern: str) -> int:
    """Total size in bytes of the files in a folder whose names match a glob pattern."""
    return sum(path.stat().st_size for path in folder.glob(pattern))


def _refuse_taken(folder: Path, overwrite: bool) -> None:
    if Path.cwd().is_relative_to(folder.resolve()):
        raise ExportError(f"{folder}: the current folder would be replaced; name a new folder inside or beside it")
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    if not any((folder / mark).is_file() for mark in MARKS):
        raise ExportError(f"{folder}: already exists, and is not an export; choose another folder")
    if not overwrite:
        raise ExportError(f"{folder}: already contains an export; choose another folder, or overwrite it (--overwrite)")
