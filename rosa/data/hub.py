"""Bring a data set from the Hugging Face hub, or from its cache, and say at once when neither can be had."""

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
    "Without a network, take files that you have: data=local data.dir=DIR (the official GLUE folders, E2E's CSV files, "
    "or what `datasets` saved to disk), or data=mini, which is made on the spot"
)


def fetch(path: str, name: str, revision: str) -> tuple[dict[str, datasets.Dataset], str]:
    """The splits of a data set, and the commit that they are of.

    A pinned commit never changes, so a copy of it in the cache is used without asking the hub. Otherwise one short
    connection shows whether the hub can be reached, since its client would retry for up to minutes; if it cannot, the
    latest copy in the cache serves where no commit is asked for.

    Args:
        path: the hub's name of the data set.
        name: its configuration (GLUE's task).
        revision: a commit, a branch or a tag; empty for the newest.

    Raises:
        DataError: it is not in the cache and the hub cannot be reached, or the hub refuses it.
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
        other = f" (the latest copy in the cache is of commit {cached[1]})" if cached is not None else ""
        wanted = f"at revision {revision} " if revision else ""
        raise DataError(f"{path} {name}: {wanted}not in the cache{other}, and {unreachable}. {INSTEAD}")
    try:
        builder = datasets.load_dataset_builder(path, name, revision=revision or None)
        builder.download_and_prepare()
        return builder.as_dataset(), builder.hash
    except Exception as error:  # the hub's client raises its own, the HTTP library's and OS errors
        reason = f"{type(error).__name__}: {error}"
        raise DataError(f"{path} {name}: cannot be loaded from the hub: {reason}. {INSTEAD}") from error


def _from_cache(path: str, name: str) -> tuple[dict[str, datasets.Dataset], str] | None:
    """The latest copy in the local cache and its commit, without a look at the network; None where there is none."""
    import datasets

    with offline(), quiet():
        try:
            builder = datasets.load_dataset_builder(path, name)
            return builder.as_dataset(), builder.hash
        except (OSError, ValueError):  # nothing cached, nothing of this configuration, or a broken file
            return None


@contextmanager
def offline() -> Iterator[None]:
    """Keep ``datasets`` off the network: its only switch that can be set after import is this module attribute."""
    import datasets

    before = datasets.config.HF_HUB_OFFLINE
    datasets.config.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        datasets.config.HF_HUB_OFFLINE = before


@contextmanager
def quiet() -> Iterator[None]:
    """Hold back the warnings of ``datasets``, and its progress bars."""
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
