"""Heartbeats of processes that leave, hang or are killed, simulated by two ends of a connection in one process."""

from __future__ import annotations

import socket
import threading

import pytest

from rosa.utils import heartbeat
from rosa.utils.heartbeat import BEAT, LEAVING, Heartbeat


class Died:
    """The deaths that were reported."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.told = threading.Event()

    def __call__(self, name: str) -> None:
        self.names.append(name)
        self.told.set()


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heartbeat, "INTERVAL_SECONDS", 0.02)


def pair(died: Died, other: Died) -> tuple[Heartbeat, Heartbeat]:
    server = heartbeat.listening()
    second = heartbeat.connected("127.0.0.1", server.invitation, 7)
    return Heartbeat(died, server, {}), Heartbeat(other, None, {"process 0": second})


def test_processes_that_beat_are_alive_and_may_leave() -> None:
    died, other = Died(), Died()
    first, second = pair(died, other)
    assert not died.told.wait(3 * heartbeat.MISSES * 0.02)
    second.stop()
    assert not died.told.wait(3 * heartbeat.MISSES * 0.02), "it has said that it leaves"
    first.stop()
    assert died.names == other.names == []


@pytest.mark.parametrize("closed", [False, True])
def test_a_process_that_says_no_more_is_dead(closed: bool) -> None:
    """A process that hangs with its connection open, or was killed."""
    died = Died()
    server = heartbeat.listening()
    silent = heartbeat.connected("127.0.0.1", server.invitation, 7)
    first = Heartbeat(died, server, {})
    silent.send(BEAT)
    if closed:
        silent.close()
    assert died.told.wait(30)
    assert died.names == ["process 7 on 127.0.0.1"]
    first.stop()
    silent.close()


def test_the_first_process_is_listened_for_too() -> None:
    died = Died()
    server = heartbeat.listening()
    second = Heartbeat(died, None, {"process 0": heartbeat.connected("127.0.0.1", server.invitation, 1)})
    assert died.told.wait(30)
    assert died.names == ["process 0"]
    second.stop()
    server.socket.close()


def test_one_who_leaves_at_once_is_not_missed() -> None:
    """Before its connection was accepted."""
    died = Died()
    server = heartbeat.listening()
    gone = heartbeat.connected("127.0.0.1", server.invitation, 3)
    gone.sendall(LEAVING)
    first = Heartbeat(died, server, {})
    assert not died.told.wait(3 * heartbeat.MISSES * 0.02)
    first.stop()
    gone.close()


def stranger(server: heartbeat.Server, says: bytes | None) -> socket.socket:
    """A connection of something else: what it sends, or None if it connects and closes, as a scanner of ports does."""
    port, _, token = server.invitation.partition(" ")
    connection = socket.create_connection(("127.0.0.1", int(port)))
    if says is None:
        connection.close()
    else:
        connection.sendall(says.replace(b"TOKEN", token.encode()))
    return connection


OTHERS = [
    None,
    b"",
    b"GET / HTTP/1.1\r\nHost: here\r\n\r\n" * 2,
    b"000007",
    b"0" * 32 + b"000007",
    b"TOKEN",
    b"TOKENabcdef",
]


@pytest.mark.parametrize("says", OTHERS)
def test_a_stranger_is_no_process_that_can_die(says: bytes | None) -> None:
    died = Died()
    server = heartbeat.listening()
    first = Heartbeat(died, server, {})
    met = stranger(server, says)
    assert not died.told.wait(4 * heartbeat.MISSES * 0.02)
    met.close()
    assert not died.told.wait(2 * heartbeat.MISSES * 0.02)
    first.stop()
    assert died.names == []


def test_silent_strangers_delay_no_beat_and_no_process() -> None:
    """A process that comes after them is listened for, and hears beats, while they say nothing."""
    died, other = Died(), Died()
    server = heartbeat.listening()
    silent = [stranger(server, b"") for _ in range(3)]
    first = Heartbeat(died, server, {})
    second = Heartbeat(other, None, {"process 0": heartbeat.connected("127.0.0.1", server.invitation, 7)})
    assert not other.told.wait(3 * heartbeat.MISSES * 0.02)
    assert list(first._peers) == ["process 7 on 127.0.0.1"]
    second.stop()
    first.stop()
    for connection in silent:
        connection.close()
    assert died.names == other.names == []


def test_a_greeting_may_come_in_pieces() -> None:
    died = Died()
    server = heartbeat.listening()
    first = Heartbeat(died, server, {})
    slow = stranger(server, server.token[:9].encode())
    assert not died.told.wait(2 * 0.02)
    slow.sendall(server.token[9:].encode() + b"000007")
    assert died.told.wait(30)
    assert died.names == ["process 7 on 127.0.0.1"]
    first.stop()
    slow.close()
