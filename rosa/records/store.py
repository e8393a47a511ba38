"""Find the records under a results folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rosa.errors import RecordError
from rosa.records.record import RECORD, order_key, read
from rosa.records.schema import Record


def find(results_dir: Path, experiment: str | None = None) -> tuple[list[Record], list[RecordError]]:
    """Every record of an experiment, or of all, sorted by identity, and the errors; see :func:`locate`."""
    located, problems = locate(results_dir)
    return [r for r in located.values() if experiment in (None, r["identity"]["experiment"])], problems


def locate(results_dir: Path) -> tuple[dict[Path, Record], list[RecordError]]:
    """Every record under ``results_dir/runs`` and ``results_dir/records`` by its file, sorted by identity.

    Where both hold the same run, the one in ``runs`` is used if it is done or the other is not. A corrupt record, or a
    second copy of a run in one tree, is left out.

    Returns:
        The records, and the errors of those left out.
    """
    problems: list[RecordError] = []
    runs = _read_all(Path(results_dir, "runs").glob(f"*/*/*/*/*/{RECORD}"), problems)
    kept = _read_all(Path(results_dir, "records").rglob("*.json"), problems)
    for key, (path, record) in runs.items():
        if record["status"] == "done" or key not in kept or kept[key][1]["status"] != "done":
            kept[key] = (path, record)
    return dict(kept[key] for key in sorted(kept)), problems


def _read_all(paths: Iterator[Path], problems: list[RecordError]) -> dict[tuple[Any, ...], tuple[Path, Record]]:
    found: dict[tuple[Any, ...], tuple[Path, Record]] = {}
    for path in sorted(paths):
        try:
            record = read(path)
            key = order_key(record)
            if key in found:
                raise RecordError(f"{path}: the same run as {found[key][0]}; left out")
        except RecordError as error:
            error.path = path
            problems.append(error)
            continue
        found[key] = (path, record)
    return found
