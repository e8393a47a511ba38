"""Load a dataset from the Hugging Face hub or its local cache, and fail at once if neither has it."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from rosa.errors import DataError
from rosa.utils.hub import is_commit, why_refused, why_unreachable

if TYPE_CHECKING:
    import datasets

log = logging.getLogger(__name__)

INSTEAD = (
    "Without a network, use local files: data=local data.dir=DIR (the official GLUE folders, E2E's CSV files, or "
    "datasets written by `save_to_disk`), or generated data: data=mini"
)

CONVERTED = "refs/convert/parquet"
"""The hub's own branch of a dataset, which holds its rows as Parquet files."""


def fetch(path: str, name: str, revision: str) -> tuple[dict[str, datasets.Dataset], str]:
    """Load all splits of a dataset, and return them with their commit.

    A cached copy of a pinned commit is used without asking the hub. Otherwise a short connection attempt tests whether
    the hub is reachable, since the hub's client would retry for minutes. If it is not, the latest cached copy is used,
    provided that no revision was requested. A copy of another commit than a pinned one is refused: `datasets` silently
    takes its newest copy, of any commit, if the hub refuses a request.

    Args:
        path: the dataset's name on the hub.
        name: its configuration (for GLUE, the task).
        revision: a commit, branch or tag; empty for the newest, of ``CONVERTED`` if the dataset is a loading script.

    Raises:
        DataError: it is not in the cache and the hub is unreachable, or the hub refuses the request or returns another
            commit.
    """
    copies = _copies(path, name)
    if revision in copies:
        return _read_copy(path, name, copies[revision]), revision

    unreachable = why_out_of_reach()
    if unreachable:
        latest = next(reversed(copies), None)
        if latest is not None and not revision:
            log.warning("%s %s: %s; using commit %s from the cache", path, name, unreachable, latest)
            return _read_copy(path, name, copies[latest]), latest
        other = f" (the latest commit there is {latest})" if latest is not None else ""
        wanted = f"at revision {revision} " if revision else ""
        raise DataError(f"{path} {name}: {wanted}not in the cache{other}, and {unreachable}. {INSTEAD}")
    return _download(path, name, revision)


def why_out_of_reach() -> str | None:
    """Why the hub cannot be asked for data; None if it can. Two environment variables may forbid it."""
    import datasets

    # `datasets` sets this from HF_DATASETS_OFFLINE if it is set, else from HF_HUB_OFFLINE.
    if datasets.config.HF_HUB_OFFLINE:
        return "HF_DATASETS_OFFLINE or HF_HUB_OFFLINE forbids asking the hub"
    return why_unreachable()


def _download(path: str, name: str, revision: str) -> tuple[dict[str, datasets.Dataset], str]:
    """Load the splits from the hub, and return them with their commit.

    Raises:
        DataError: the hub refuses, the download breaks off, or the commit is another one than requested.
    """
    import datasets
    import huggingface_hub

    wanted = f"{path} {name}" + (f" at revision {revision}" if revision else "")
    try:
        # If the hub refuses, `datasets` takes a copy from its cache and hides the reason; the hub's client states it.
        about = huggingface_hub.HfApi().dataset_info(path, revision=revision or None)
        script = f"{path.split('/')[-1]}.py"
        if not revision and any(file.rfilename == script for file in about.siblings or []):
            # `datasets` runs loading scripts no longer; the hub has run this one.
            about = huggingface_hub.HfApi().dataset_info(path, revision=CONVERTED)
        commit = about.sha
        builder = datasets.load_dataset_builder(path, name, revision=commit)
        found = builder.hash
        if found == commit and (not is_commit(revision) or commit == revision):
            builder.download_and_prepare()
            return builder.as_dataset(), found
    except Exception as error:  # the hub's client raises its own, the HTTP library's and OS errors
        raise DataError(f"{wanted}: cannot be loaded from the hub: {why_refused(error)}. {INSTEAD}") from error
    raise DataError(
        f"{wanted}: the hub returned commit {commit}, and `datasets` loads commit {found}. Another commit than the "
        "requested one is refused, since its rows may differ. Try again later, or use files that you have: "
        "data=local data.dir=DIR"
    )


def _copies(path: str, name: str) -> dict[str, Path]:
    """The folders of a dataset's prepared copies in the local cache, by commit, the latest last."""
    import datasets
    from datasets.naming import camelcase_to_snakecase

    *owner, last = path.split("/")
    root = Path(datasets.config.HF_DATASETS_CACHE).expanduser() / "___".join([*owner, camelcase_to_snakecase(last)])
    # The layout is CONFIGURATION/VERSION/COMMIT; `datasets` renames a folder to this only when it is complete.
    found = [one.parent for one in (root / name).glob("*/*/dataset_info.json") if is_commit(one.parent.name)]
    return {folder.name: folder for folder in sorted(found, key=lambda folder: folder.stat().st_mtime)}


def _read_copy(path: str, name: str, folder: Path) -> dict[str, datasets.Dataset]:
    """Read the splits of a prepared copy.

    Raises:
        DataError: it is damaged.
    """
    from datasets.packaged_modules.cache.cache import Cache

    version, commit = folder.parts[-2:]
    try:
        with quiet():
            prepared = Cache(
                repo_id=path, dataset_name=path.split("/")[-1], config_name=name, version=version, hash=commit
            )
            return prepared.as_dataset()
    except Exception as error:  # `datasets` and Arrow raise nearly any type
        raise DataError(
            f"{path} {name}: the copy in the cache is damaged; remove the folder {folder}, so that it is downloaded "
            "again"
        ) from error


@contextmanager
def quiet() -> Iterator[None]:
    """Hide the warnings and progress bars of ``datasets``."""
    import datasets

    before, bars = datasets.logging.get_verbosity(), not datasets.are_progress_bars_disabled()
    datasets.logging.set_verbosity_error()
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        datasets.logging.set_verbosity(before)
        if bars:
            datasets.enable_progress_bars()
