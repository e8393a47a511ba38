"""Worker processes that are killed, raise or are replaced: the results of their task and of the others."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from rosa.sweep.workers import STOP, TASKS_EACH, Death, Workers

ROOT = Path(__file__).resolve().parents[2]
SECONDS = 60
"""The longest that a test waits for something that takes a fraction of a second."""


def act(task: str) -> tuple[str, int, str]:
    """Do a task: return its name, or ``die`` by a signal, or ``exit`` with a status."""
    what, _, argument = task.partition(" ")
    if what == "die":
        os.kill(os.getpid(), int(argument))
        time.sleep(SECONDS)
    if what == "exit":
        os._exit(int(argument))
    if what == "raise":
        raise MemoryError(argument)
    if what == "sleep":
        time.sleep(float(argument))
    if what == "listen":
        return f"heard {' and '.join(heard())}", os.getpid(), ""
    return task, os.getpid(), os.environ.get("PLACE", "")


def heard() -> list[str]:
    """The first two signals to stop; as in a run, a second one of a kind ends the process."""
    numbers: list[int] = []

    def hear(number: int, _: object) -> None:
        numbers.append(number)
        signal.signal(number, signal.SIG_DFL)

    for number in (signal.SIGTERM, STOP):
        signal.signal(number, hear)
    print("listening", flush=True)
    wait_until(lambda: len(numbers) == 2)
    return [signal.Signals(number).name for number in numbers]


def workers(places: int) -> Workers[str, tuple[str, int, str]]:
    return Workers(act, [{"PLACE": str(place)} for place in range(places)], "forkserver")


def all_answers(pool: Workers[str, tuple[str, int, str]], tasks: list[str]) -> Iterator[tuple[str, object]]:
    waiting = list(tasks)
    deadline = time.monotonic() + SECONDS
    while waiting or pool.busy:
        while waiting and pool.free:
            pool.start(waiting.pop(0))
        yield from pool.finished(1.0)
        assert time.monotonic() < deadline


def test_a_killed_process_is_one_answer_and_the_others_go_on() -> None:
    tasks = ["a", "b", f"die {signal.SIGKILL}", "c", f"die {signal.SIGSEGV}", "exit 3", "raise x", "d", "e"]
    with workers(2) as pool:
        answers = dict(all_answers(pool, tasks))
    assert sorted(answers) == sorted(tasks)
    assert {task for task, answer in answers.items() if not isinstance(answer, Death)} == {"a", "b", "c", "d", "e"}
    assert str(answers["die 9"]) == "SIGKILL: killed by the system, probably out of memory (or by somebody)"
    assert str(answers["die 11"]).startswith("SIGSEGV: ")
    assert "exit status 3" in str(answers["exit 3"])
    assert answers["raise x"] == Death(1), "what a task raises ends its process and no other"


def test_a_process_does_many_tasks_and_is_then_replaced() -> None:
    with workers(1) as pool:
        pids = [answer[1] for _, answer in all_answers(pool, [str(i) for i in range(TASKS_EACH + 2)])]
    assert len(set(pids[:TASKS_EACH])) == 1
    assert len(set(pids)) == 2
    assert pids[-1] != pids[0]


def test_tasks_at_one_time_have_places_of_their_own() -> None:
    with workers(3) as pool:
        for _ in range(3):
            pool.start("sleep 0.3")
        assert (pool.busy, pool.free) == (3, 0)
        with pytest.raises(AssertionError, match="all 3 processes have a task"):
            pool.start("a")
        answers = list(all_answers(pool, []))
    assert sorted(answer[2] for _, answer in answers) == ["0", "1", "2"]


def test_a_process_that_was_killed_while_idle_is_no_answer() -> None:
    with workers(1) as pool:
        ((_, first),) = all_answers(pool, ["a"])
        os.kill(first[1], signal.SIGKILL)
        wait_until(lambda: not psutil.pid_exists(first[1]) or psutil.Process(first[1]).status() == "zombie")
        ((task, second),) = all_answers(pool, ["b"])
    assert (task, second[0]) == ("b", "b")
    assert second[1] != first[1]


def test_asking_to_stop_ends_tasks_and_leaves_none_behind() -> None:
    with workers(2) as pool:
        pool.start(f"sleep {SECONDS}")
        assert pool.finished(0.2) == []
        pool.ask_to_stop()
        answers = dict(all_answers(pool, []))
    assert list(answers.values()) == [Death(-STOP)]


GROUP = """
import signal
from tests.sweep.test_workers import workers
asked = []
signal.signal(signal.SIGTERM, lambda *_: asked.append("once"))
with workers(2) as pool:
    pool.start("listen")
    answers = {}
    while pool.busy:
        answers |= pool.finished(0.05)
        if asked == ["once"]:
            asked.append("heard")
            pool.ask_to_stop()
            pool.start("a")
print(answers)
"""


def test_sigterm_to_the_whole_group_ends_neither_the_server_nor_a_task_that_stops_by_itself() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", GROUP], cwd=ROOT, stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as script:
        assert script.stdout is not None
        assert script.stdout.readline() == "listening\n"
        os.killpg(script.pid, signal.SIGTERM)  # as ``timeout`` and batch systems do
        said = script.stdout.read()
    assert script.returncode == 0, said
    assert "'listen': ('heard SIGTERM and SIGUSR1', " in said
    assert "'a': ('a', " in said


ORPHANS = """
import sys, time
from tests.sweep.test_workers import workers
with workers(2) as pool:
    pool.start("sleep 0.5"); pool.start("sleep 0.5")
    print("started", flush=True)
    time.sleep(60)
"""


def test_processes_end_after_their_task_when_the_one_that_gives_tasks_is_killed() -> None:
    script = subprocess.Popen([sys.executable, "-c", ORPHANS], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert script.stdout is not None
    assert script.stdout.readline() == "started\n"
    children = psutil.Process(script.pid).children(recursive=True)
    assert len(children) >= 3, "two processes and the server that forks them"
    script.kill()
    script.wait()
    _, alive = psutil.wait_procs(children, timeout=SECONDS)
    assert alive == []


def wait_until(holds) -> None:
    deadline = time.monotonic() + SECONDS
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)
