"""What apart from the method differs between the runs of two rows, which a paired difference then shows too."""

from __future__ import annotations

from collections.abc import Iterable

from rosa.records import Record
from rosa.report.comparison import Row, Task

MACHINE = "Runs on different kinds of machine (device or processor)."
TORCH = "Runs with different versions of PyTorch."
WEIGHTS = "Runs from different pretrained weights."
ATTENTION = "Runs with different kernels of attention, which round differently."


def apart(row: Row, other: Row, task: Task) -> list[str]:
    """A note for each thing in which a pair of runs of two rows differs: of the runs with one seed on a task."""
    own, theirs = (one.results[task.name].selected.scored for one in (row, other))
    pairs = [(own[seed], theirs[seed]) for seed in own.keys() & theirs.keys()]
    return [note for note, of in NOTED.items() if any(_differ(map(of, pair)) for pair in pairs)]


def _machine(run: Record) -> object:
    # Beside a GPU the processor does little.
    found = run["environment"]
    device = found.get("device")
    return found.get("cpu") if device in (None, "cpu") else device


def _torch(run: Record) -> object:
    # What the build is for, after the +, goes with the device.
    version = run["environment"].get("packages", {}).get("torch")
    return version and version.partition("+")[0]


def _weights(run: Record) -> object:
    return run["model"].get("sha256")


def _attention(run: Record) -> object:
    return run["model"].get("attention")


NOTED = {MACHINE: _machine, TORCH: _torch, WEIGHTS: _weights, ATTENTION: _attention}


def _differ(values: Iterable[object]) -> bool:
    """Whether two values differ; not where a record lacks one."""
    one, other = values
    return one != other and None not in (one, other)
