"""Find the records under a results folder: those of its own runs, and those that were committed as evidence."""

from __future__ import annotations

import glob
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, TypeAlias, cast

from rosa.errors import RecordError
from rosa.records.record import RECORD, order_key, read
from rosa.records.schema import Record
from rosa.utils.garbage import collection_off

RUNS, EVIDENCE = "runs", "records"
"""Folders of the results folder: of its own runs, and of the records that are committed with the project."""

Evidence: TypeAlias = Literal["instead", "beside", "alone", "none"]
"""When committed records count. ``instead``: those of an experiment of which this folder has run nothing; ``beside``:
those of runs that it has not done itself, whatever became of its own; ``alone``: they and nothing else; ``none``."""

Located: TypeAlias = dict[Path, Record]
"""Record's file -> record, sorted by identity."""


class _Committed(dict[str, Any]):
    """A record that was read from the folder of committed evidence."""


def is_committed(record: Record) -> bool:
    """Whether a record was read from the committed evidence: it is not a run of this folder."""
    return isinstance(record, _Committed)


def find(
    results_dir: Path, experiment: str | None = None, evidence: Evidence = "instead"
) -> tuple[list[Record], list[RecordError]]:
    """Every record of an experiment, or of all, sorted by identity, and the errors; see :func:`locate`."""
    located, problems = locate(results_dir, experiment, evidence)
    return list(located.values()), problems


def locate(
    results_dir: Path, experiment: str | None = None, evidence: Evidence = "instead"
) -> tuple[Located, list[RecordError]]:
    """Every record under ``results_dir/runs`` and ``results_dir/records`` by its file, sorted by identity.

    A corrupt record, or a second copy of a run in one folder, is left out.

    Args:
        results_dir: the folder of ``runs`` and ``records``.
        experiment: the only one to read; None: all.
        evidence: when committed records count.

    Returns:
        The records, and the errors of those left out.
    """
    problems: list[RecordError] = []
    own = {} if evidence == "alone" else _read_all(_runs(results_dir, experiment), experiment, problems)
    committed = {} if evidence == "none" else _read_all(_evidence(results_dir, experiment), experiment, problems)
    return chosen(own, committed, evidence), problems


def chosen(own: Mapping[Path, Record], committed: Mapping[Path, Record], evidence: Evidence) -> Located:
    """The records that count, sorted by identity."""
    ran = {order_key(record) if evidence == "beside" else _experiment(record) for record in own.values()}
    kept = dict(own)
    for path, record in committed.items():
        if (order_key(record) if evidence == "beside" else _experiment(record)) not in ran:
            kept[path] = cast(Record, _Committed(record))
    return dict(sorted(kept.items(), key=lambda item: order_key(item[1])))


def _experiment(record: Record) -> str:
    return record["identity"]["experiment"]


def _runs(results_dir: Path, experiment: str | None) -> Iterator[Path]:
    return Path(results_dir, RUNS).glob(f"{glob.escape(experiment) if experiment else '*'}/*/*/*/*/{RECORD}")


def _evidence(results_dir: Path, experiment: str | None) -> Iterator[Path]:
    """Paths of committed records, in any layout of folders."""
    folder = Path(results_dir, EVIDENCE)
    own = folder / experiment if experiment else folder
    return (own if own.is_dir() else folder).rglob("*.json")


def _read_all(paths: Iterator[Path], experiment: str | None, problems: list[RecordError]) -> Located:
    with collection_off():  # records have no cycles
        return _read_each(paths, experiment, problems)


def _read_each(paths: Iterator[Path], experiment: str | None, problems: list[RecordError]) -> Located:
    found: dict[tuple[Any, ...], Path] = {}
    located: Located = {}
    for path in sorted(paths):
        try:
            record = read(path)
            key = order_key(record)
            if key in found:
                raise RecordError(f"{path}: the same run as {found[key]}")
        except RecordError as error:
            error.path = path
            problems.append(error)
            continue
        if experiment in (None, _experiment(record)):
            found[key] = path
            located[path] = record
    return located
