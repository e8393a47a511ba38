"""The Hugging Face hub: whether it is reachable (its client would retry for minutes), and the reasons of its errors."""

from __future__ import annotations

import re
import socket
import urllib.request
from urllib.parse import urlsplit

CONNECT_SECONDS = 5.0
"""Time limit of the connection that tests whether the hub is reachable."""

_PORTS = {"http": 80, "https": 443}
_COMMIT = re.compile(r"[0-9a-f]{40}")
_LONGEST = 300


def is_commit(revision: str) -> bool:
    """Whether a revision is a full commit hash, whose content cannot change, unlike that of a branch or tag."""
    return _COMMIT.fullmatch(revision) is not None


def why_unreachable() -> str | None:
    """The reason why the hub cannot be reached; None if it (or the proxy before it) accepts a connection."""
    from huggingface_hub import constants

    if constants.is_offline_mode():
        return "HF_HUB_OFFLINE forbids asking the hub"
    endpoint = urlsplit(constants.ENDPOINT)
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


def why_refused(error: BaseException) -> str:
    """The hub's answer in one line, taken from an error of its client or from an error that this one caused."""
    from huggingface_hub import errors

    found: BaseException | None = error
    while found is not None and not isinstance(found, errors.HfHubHTTPError):
        found = found.__cause__ or found.__context__
    if isinstance(found, errors.GatedRepoError):
        return "it is gated: accept its terms on the hub, then log in (hf auth login, or the variable HF_TOKEN)"
    if isinstance(found, errors.RepositoryNotFoundError):
        return "the hub has no such repository, or it is private and you are not logged in (hf auth login)"
    if isinstance(found, errors.RevisionNotFoundError):
        return "the hub has no such revision of it"
    if isinstance(found, errors.HfHubHTTPError) and found.response.status_code == 429:
        return "the hub refuses further requests for now (429, too many requests): wait, or log in (hf auth login)"
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:_LONGEST]}{' ...' if len(text) > _LONGEST else ''}"
