"""Download the records that runs uploaded to Weights & Biases, as files in the layout of a results folder."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from rosa.errors import ReportError
from rosa.records import RECORD
from rosa.records.store import RUNS


def download(folder: Path, project: str, entity: str = "", api: Any = None) -> list[str]:
    """Fetch the record of every run of a W&B project into ``folder/runs``.

    All experiments, since a table also depends on which other experiments took their learning rate from it.

    Args:
        folder: an empty folder.
        project: the W&B project.
        entity: the user or team that owns it; empty: the default of the API key.
        api: a ``wandb.Api``; None: one for the key that ``wandb login`` stored.

    Returns:
        Runs left out because they have no record: still running, killed, or not runs of this software.

    Raises:
        ReportError: W&B cannot be reached (no key, no network, no such project), or no run has a record.
    """
    path = f"{entity}/{project}" if entity else project
    try:
        left_out = list(_fetch((api or _api()).runs(path), folder))
    except ReportError:
        raise
    # W&B's errors have no common base class.
    except Exception as error:
        raise ReportError(f"W&B project {path}: {type(error).__name__}: {error}") from error
    if not any(folder.rglob(RECORD)):
        raise ReportError(f"W&B project {path}: none of its {len(left_out)} runs has a {RECORD}")
    return left_out


def _api() -> Any:
    try:
        import wandb
    except ImportError as error:
        raise ReportError(f"--from wandb: the package wandb is not installed ({error})") from error
    return wandb.Api()


def _fetch(runs: Iterable[Any], folder: Path) -> Iterator[str]:
    for run in runs:
        found = list(run.files(names=[RECORD]))
        if not found:
            yield f"W&B run {run.id} ({run.name}, {run.state}): it has no {RECORD}"
            continue
        place = folder.joinpath(RUNS, *["wandb"] * 4, run.id)  # at the depth of runs
        place.mkdir(parents=True)
        found[0].download(root=str(place), replace=True)
