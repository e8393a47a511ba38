"""Journal of a long computation: its finished parts, one JSON line each, from which it resumes."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rosa.errors import JournalError


class Journal:
    """Entries by key, appended to a file.

    A process killed while writing leaves a last line without a newline; that line is removed, and its entry computed
    again.

    Args:
        path: the file; created by the first :meth:`add`.

    Raises:
        JournalError: the file cannot be read, or a complete line is not a journal entry.
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
            except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
                raise JournalError(f"{path}:{number}: not a journal entry; remove the file to start over") from error

    def add(self, entries: Mapping[str, Mapping[str, Any]]) -> None:
        """Append entries, and flush them to disk before returning.

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
        """Delete the file, once its entries are in the output file."""
        self.path.unlink(missing_ok=True)
