"""The manifest of a checkpoint: the size and SHA-256 of each of its files, written last.

A checkpoint is complete if its manifest exists and every file has the size and hash in it. After a kill, or on a full
or failing disk, a file may be missing, truncated or corrupted.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from pathlib import Path
from typing import Any

from rosa.utils import files

MANIFEST = "manifest.json"
"""The manifest's file in a checkpoint's folder: ``{"files": {name: {"bytes": int, "sha256": str}}}``."""


def seal(folder: Path) -> None:
    """Write the manifest of a checkpoint after all of its files have reached the disk.

    Raises:
        OSError: a file cannot be read, or the manifest cannot be written.
    """
    entries = {}
    for path in _files(folder):
        _to_disk(path)
        entries[path.name] = _entry(path)
    files.replace(folder / MANIFEST, json.dumps({"files": entries}, indent=1, sort_keys=True))
    _to_disk(folder)


def problem(folder: Path) -> str | None:
    """A description of what is wrong with a checkpoint's files; None if the checkpoint is complete.

    Raises:
        OSError: a file is there but cannot be read now (no permission, a failing disk or network, too many open files),
            so it is unknown whether the checkpoint is complete.
    """
    path = folder / MANIFEST
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            return f"{MANIFEST} is not a file"
    except files.MISPLACED:
        return f"there is no {MANIFEST}: it was not written to the end"
    try:
        expected = _entries(path)
        found = {path.name for path in _files(folder)}
        for name in sorted(expected.keys() | found):
            if name not in found:
                return f"{name} is missing"
            if name not in expected:
                return f"{name} is not in {MANIFEST}"
            size = (folder / name).stat().st_size
            if size != expected[name]["bytes"]:
                return f"{name} has {size} bytes, expected {expected[name]['bytes']}"
            if _entry(folder / name) != expected[name]:
                return f"{name} has another SHA-256 than in {MANIFEST}"
    except (*files.MISPLACED, ValueError, RecursionError) as error:
        return f"{MANIFEST} or a file of its list cannot be read: {error}"
    return None


def _entries(path: Path) -> dict[str, dict[str, Any]]:
    """The entries of a manifest.

    Raises:
        OSError, ValueError: it cannot be read, or is no manifest.
    """
    text = path.read_text(encoding="utf-8")
    manifest = json.loads(text)
    entries = manifest.get("files") if isinstance(manifest, dict) else None
    if not isinstance(entries, dict) or not all(
        isinstance(entry, dict) and entry.keys() == {"bytes", "sha256"} for entry in entries.values()
    ):
        raise json.JSONDecodeError(f"{MANIFEST} has no list of files", text[:80], 0)
    return entries


def _files(folder: Path) -> list[Path]:
    """All files in a checkpoint's folder except its manifest and temporary files."""
    return sorted(path for path in folder.iterdir() if path.name != MANIFEST and not path.name.startswith("."))


def _entry(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        return {"bytes": path.stat().st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}


def _to_disk(path: Path) -> None:
    """Flush a file, or a folder's list of files, from the system's cache to the disk (fsync)."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
