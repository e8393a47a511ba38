"""Check at once whether the Hugging Face hub is reachable; its client would retry for minutes."""

from __future__ import annotations

import socket
import urllib.request
from urllib.parse import urlsplit

CONNECT_SECONDS = 5.0
"""How long a hub that does not answer is waited for, before anything is asked of it."""

_PORTS = {"http": 80, "https": 443}


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
