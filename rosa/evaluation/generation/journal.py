"""What a long computation has finished so far, one JSON line each, so that it goes on where it was stopped."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rosa.errors import JournalError


class Journal:
    """Entries by key, in a file that only grows.

    A process that is killed while it writes leaves a last line without its newline; that line is cut off, and its work
    done again.

    Args:
        path: the file; it need not be there.

    Raises:
        JournalError: the file cannot be read, or a whole line in it is none of a journal's.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.entries: dict[str, dict[str, Any]] = {}
        try:
            written = path.read_bytes() if path.exists() else b""
            whole = written[: written.rfind(b"\n") + 1]
            if len(whole) < len(written):
                os.truncate(path, len(whole))
        except OSError as error:
            raise JournalError(f"{path}: cannot be read: {error}") from error
        for number, line in enumerate(whole.splitlines(), start=1):
            try:
                entry = json.loads(line)
                self.entries[entry.pop("key")] = entry
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise JournalError(f"{path}:{number}: no line of a journal; remove the file to start over") from error

    def add(self, entries: Mapping[str, Mapping[str, Any]]) -> None:
        """Write entries down; they survive whatever comes after this call.

        Raises:
            JournalError: the file cannot be written.
        """
        lines = [json.dumps({"key": key, **entry}) + "\n" for key, entry in entries.items()]
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("ab") as file:
                file.write("".join(lines).encode("ascii"))
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise JournalError(f"{self.path}: cannot be written: {error}") from error
        self.entries.update({key: dict(entry) for key, entry in entries.items()})

    def remove(self) -> None:
        """Delete the file: what it held has found its place."""
        self.path.unlink(missing_ok=True)
