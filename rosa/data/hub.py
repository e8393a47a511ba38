"""Bring a data set from the Hugging Face hub, or from its cache, and say at once when neither can be had."""

from __future__ import annotations

import logging
import socket
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from rosa.data.base import DataError

if TYPE_CHECKING:
    import datasets

log = logging.getLogger(__name__)

CONNECT_SECONDS = 5.0
"""How long a hub that does not answer is waited for, before anything is asked of it."""

_PORTS = {"http": 80, "https": 443}

INSTEAD = (
    "Without a network, take files that you have: data=local data.dir=DIR (the official GLUE folders, or what "
    "`datasets` saved to disk), or data=mini, which is made on the spot"
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

    unreachable = _why_unreachable()
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

    with _offline(), _quiet():
        try:
            builder = datasets.load_dataset_builder(path, name)
            return builder.as_dataset(), builder.hash
        except (OSError, ValueError):  # nothing cached, nothing of this configuration, or a broken file
            return None


def _why_unreachable() -> str | None:
    """Why the hub cannot be reached, in words; None when it accepts a connection."""
    import datasets

    if datasets.config.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE (or HF_DATASETS_OFFLINE) forbids asking the hub"
    endpoint = urlsplit(datasets.config.HF_ENDPOINT)
    proxies = urllib.request.getproxies()
    proxy = proxies.get(endpoint.scheme) or proxies.get("all")
    if proxy and not urllib.request.proxy_bypass(endpoint.hostname or ""):
        target = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
    else:
        target = endpoint
    try:
        address = (target.hostname or "", target.port or _PORTS.get(target.scheme, 443))
        socket.create_connection(address, timeout=CONNECT_SECONDS).close()
    except (OSError, ValueError) as error:
        return f"{target.hostname} cannot be reached ({error})"
    return None


@contextmanager
def _offline() -> Iterator[None]:
    """Keep ``datasets`` off the network: its only switch that can be set after import is this module attribute."""
    import datasets

    before = datasets.config.HF_HUB_OFFLINE
    datasets.config.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        datasets.config.HF_HUB_OFFLINE = before


@contextmanager
def _quiet() -> Iterator[None]:
    """Hold back the warnings of a cache look-up that is not a failure."""
    import datasets

    before = datasets.logging.get_verbosity()
    datasets.logging.set_verbosity_error()
    try:
        yield
    finally:
        datasets.logging.set_verbosity(before)
