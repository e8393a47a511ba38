"""Detect that another process of a run has died or hangs, and end this process instead of waiting forever.

If a process is killed, the system closes its connections, and the others' collective operations fail at once. If its
machine fails, if it hangs, or on GPUs, they may wait for minutes or forever, and no thread can interrupt them. So the
main process and each of the others send each other a byte every few seconds, from a thread.
"""

from __future__ import annotations

import contextlib
import secrets
import socket
import threading
from collections.abc import Callable
from typing import NamedTuple

INTERVAL_SECONDS = 4.0
"""Seconds between two beats."""
MISSES = 10
"""Number of this process's beats without one from another process after which that process counts as dead. Counted in
beats, not seconds, so that processes that are stopped and continued together do not count as dead."""
BEAT, LEAVING = b".", b"q"
TOKEN_BYTES = 16
GREETING = 2 * TOKEN_BYTES + 6
"""Bytes with which a process introduces itself: the server's token in hexadecimal, and its rank."""


class Server(NamedTuple):
    """Where the main process listens, and the token that the other processes of the run know.

    Anything on the network can connect to a port: a scanner, a monitor, another run with an old port.
    """

    socket: socket.socket
    token: str

    @property
    def invitation(self) -> str:
        """Port and token, as :func:`connected` takes them."""
        return f"{self.socket.getsockname()[1]} {self.token}"


class Heartbeat:
    """A thread that sends beats to other processes and listens for theirs.

    Args:
        dead: called once, in the thread, with the name of the process that has died.
        server: accepts the connections of the others, and drops those of strangers; None in a process that is
            connected to the main one.
        peers: connections by name.
    """

    def __init__(self, dead: Callable[[str], None], server: Server | None, peers: dict[str, socket.socket]) -> None:
        self._dead = dead
        self._server = server
        self._peers = peers
        self._strangers: list[_Stranger] = []
        self._missed = dict.fromkeys(peers, 0)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)
        for connection in [*peers.values(), *([server.socket] if server else [])]:
            connection.setblocking(False)
        self._thread.start()

    def stop(self) -> None:
        """Tell the others that this process no longer takes part, and stop."""
        self._stop.set()
        self._thread.join()
        self._accept()
        for connection in self._peers.values():
            _send(connection, LEAVING)
            # Closed by the end of the process: a connection that is closed with beats unread loses what was sent on it.
            connection.detach()
        for stranger in self._strangers:
            stranger.connection.close()
        if self._server is not None:
            self._server.socket.close()

    def _beat(self) -> None:
        while not self._stop.wait(INTERVAL_SECONDS):
            self._accept()
            for name, connection in list(self._peers.items()):
                _send(connection, BEAT)
                heard = _received(connection)
                if LEAVING in heard:
                    connection.close()
                    del self._peers[name]
                    continue
                self._missed[name] = 0 if heard else self._missed[name] + 1
                if self._missed[name] >= MISSES:
                    self._dead(name)
                    return

    def _accept(self) -> None:
        """Accept the processes that have connected and introduced themselves since the last beat; never waits."""
        if self._server is None:
            return
        with contextlib.suppress(OSError):  # until nobody is left
            while True:
                connection, (host, *_) = self._server.socket.accept()
                connection.setblocking(False)
                self._strangers.append(_Stranger(connection, host))
        waiting = []
        for stranger in self._strangers:
            greeting = stranger.listen()
            if greeting is None:
                waiting.append(stranger)
                continue
            token, rank = greeting[: -len("000000")], greeting[-len("000000") :]
            if secrets.compare_digest(token, self._server.token.encode()) and rank.isdigit():
                name = f"process {int(rank)} on {stranger.host}"
                self._peers[name], self._missed[name] = stranger.connection, 0
            else:
                stranger.connection.close()
        self._strangers = waiting


class _Stranger:
    """A connection that has not introduced itself yet."""

    def __init__(self, connection: socket.socket, host: str) -> None:
        self.connection = connection
        self.host = host
        self._heard = b""
        self._waits = 0

    def listen(self) -> bytes | None:
        """The first ``GREETING`` bytes; None if they may still come; fewer if they will not."""
        self._waits += 1
        try:
            new = self.connection.recv(GREETING - len(self._heard))
        except BlockingIOError:
            return None if self._waits < MISSES else self._heard
        except OSError:
            return self._heard
        self._heard += new
        complete = len(self._heard) == GREETING or not new or self._waits >= MISSES
        return self._heard if complete else None


def listening() -> Server:
    """A server on a free port, with a new token."""
    return Server(socket.create_server(("", 0)), secrets.token_hex(TOKEN_BYTES))


def connected(host: str, invitation: str, rank: int) -> socket.socket:
    """A connection to the main process's server.

    Args:
        host: of the main process.
        invitation: of its server.
        rank: of this process.

    Raises:
        OSError: it cannot be reached.
    """
    port, _, token = invitation.partition(" ")
    connection = socket.create_connection((host, int(port)), timeout=INTERVAL_SECONDS)
    connection.sendall(f"{token}{rank:06d}".encode())
    return connection


def _send(connection: socket.socket, beat: bytes) -> None:
    with contextlib.suppress(OSError):  # the other process then counts a missed beat
        connection.send(beat)


def _received(connection: socket.socket) -> bytes:
    """The bytes that have arrived; empty if the other process is gone."""
    try:
        return connection.recv(4096)
    except OSError:
        return b""
