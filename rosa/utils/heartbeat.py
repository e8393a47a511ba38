"""Detect that another process of a run has died or hangs, and end this process instead of waiting forever.

If a process is killed, the system closes its connections, and the others' collective operations fail at once. If its
machine fails, if it hangs, or on GPUs, they may wait for minutes or forever, and no thread can interrupt them. So the
main process and each of the others send each other a byte every few seconds, from a thread.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable

INTERVAL_SECONDS = 4.0
"""Seconds between two beats."""
MISSES = 10
"""Number of this process's beats without one from another process after which that process counts as dead. Counted in
beats, not seconds, so that processes that are stopped and continued together do not count as dead."""
BEAT, LEAVING = b".", b"q"


class Heartbeat:
    """A thread that sends beats to other processes and listens for theirs.

    Args:
        dead: called once, in the thread, with the name of the process that has died.
        server: accepts the connections of the others; None in a process that is connected to the main one.
        peers: connections by name.
    """

    def __init__(
        self, dead: Callable[[str], None], server: socket.socket | None, peers: dict[str, socket.socket]
    ) -> None:
        self._dead = dead
        self._server = server
        self._peers = peers
        self._missed = dict.fromkeys(peers, 0)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)
        for connection in [*peers.values(), *([server] if server else [])]:
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
        if self._server is not None:
            self._server.close()

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
        """Accept the processes that have connected since the last beat."""
        while self._server is not None:
            try:
                connection, (host, *_) = self._server.accept()
            except OSError:
                return
            connection.setblocking(False)
            name = f"process {_name(connection)} on {host}"
            self._peers[name], self._missed[name] = connection, 0


def listening() -> tuple[socket.socket, int]:
    """A server on a free port, and the port."""
    server = socket.create_server(("", 0))
    return server, server.getsockname()[1]


def connected(host: str, port: int, rank: int) -> socket.socket:
    """A connection to the main process's server.

    Raises:
        OSError: it cannot be reached.
    """
    connection = socket.create_connection((host, port), timeout=INTERVAL_SECONDS)
    connection.sendall(f"{rank:06d}".encode())
    return connection


def _name(connection: socket.socket) -> str:
    """The rank with which a process has introduced itself."""
    try:
        connection.settimeout(INTERVAL_SECONDS)
        return str(int(connection.recv(6)))
    except (OSError, ValueError):
        return "?"
    finally:
        connection.setblocking(False)


def _send(connection: socket.socket, beat: bytes) -> None:
    with contextlib.suppress(OSError):  # the other process then counts a missed beat
        connection.send(beat)


def _received(connection: socket.socket) -> bytes:
    """The bytes that have arrived; empty if the other process is gone."""
    try:
        return connection.recv(4096)
    except OSError:
        return b""
