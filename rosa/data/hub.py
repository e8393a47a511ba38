"""Load a dataset from the Hugging Face hub or its local cache, and fail at once if neither has it."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rosa.errors import DataError
from rosa.utils.hub import why_unreachable

if TYPE_CHECKING:
    import datasets

log = logging.getLogger(__name__)

INSTEAD = (
    "Without a network, use local files: data=local data.dir=DIR (the official GLUE folders, E2E's CSV files, or "
    "datasets written by `save_to_disk`), or generated data: data=mini"
)


def fetch(path: str, name: str, revision: str) -> tuple[dict[str, datasets.Dataset], str]:
    """Load all splits of a dataset, and return them with their commit.

    A cached copy of the requested commit is used without asking the hub. Otherwise a short connection attempt tests
    whether the hub is reachable, since the hub's client would retry for minutes. If it is not, the latest cached copy
    is used, provided that no revision was requested.

    Args:
        path: the dataset's name on the hub.
        name: its configuration (for GLUE, the task).
        revision: a commit, branch or tag; empty for the newest.

    Raises:
        DataError: it is not in the cache and the hub is unreachable, or the hub refuses the request.
    """
    import datasets

    cached = _from_cache(path, name)
    if cached is not None and cached[1] == revision:
        return cached

    unreachable = why_unreachable()
    if unreachable:
        if cached is not None and not revision:
            log.warning("%s %s: %s; using commit %s from the cache", path, name, unreachable, cached[1])
            return cached
        other = f" (the cache has commit {cached[1]})" if cached is not None else ""
        wanted = f"at revision {revision} " if revision else ""
        raise DataError(f"{path} {name}: {wanted}not in the cache{other}, and {unreachable}. {INSTEAD}")
    try:
        builder = datasets.load_dataset_builder(path, name, revision=revision or None)
        builder.download_and_prepare()
        return builder.as_dataset(), builder.hash
    except Exception as error:  # the hub's client raises its own types, the HTTP library's and OSError
        reason = f"{type(error).__name__}: {error}"
        raise DataError(f"{path} {name}: cannot be loaded from the hub: {reason}. {INSTEAD}") from error


def _from_cache(path: str, name: str) -> tuple[dict[str, datasets.Dataset], str] | None:
    """The latest cached copy and its commit, without network access; None if there is none."""
    import datasets

    with offline(), quiet():
        try:
            builder = datasets.load_dataset_builder(path, name)
            return builder.as_dataset(), builder.hash
        except (OSError, ValueError):  # not cached, another configuration cached, or a broken file
            return None


@contextmanager
def offline() -> Iterator[None]:
    """Disable network access of ``datasets``; after import, only this module attribute can do so."""
    import datasets

    before = datasets.config.HF_HUB_OFFLINE
    datasets.config.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        datasets.config.HF_HUB_OFFLINE = before


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
