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
    server, port = heartbeat.listening()
    second = heartbeat.connected("127.0.0.1", port, 7)
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
    server, port = heartbeat.listening()
    silent = heartbeat.connected("127.0.0.1", port, 7)
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
    server, port = heartbeat.listening()
    second = Heartbeat(died, None, {"process 0": heartbeat.connected("127.0.0.1", port, 1)})
    assert died.told.wait(30)
    assert died.names == ["process 0"]
    second.stop()
    server.close()


def test_one_who_leaves_at_once_is_not_missed() -> None:
    """Before its connection was accepted."""
    died = Died()
    server, port = heartbeat.listening()
    gone = socket.create_connection(("127.0.0.1", port))
    gone.sendall(b"000003" + LEAVING)
    first = Heartbeat(died, server, {})
    assert not died.told.wait(3 * heartbeat.MISSES * 0.02)
    first.stop()
    gone.close()
