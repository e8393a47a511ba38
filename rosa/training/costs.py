"""What a run costs: peak memory, the memory of its parameters, times and throughput; and on what machine.

Bytes are bytes and seconds are wall-clock seconds; every key that holds either says so in its name.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import torch

WINDOW = 10_000
"""Step times that are kept for the median: the latest ones, so that a checkpoint stays small."""


_host_peak_reset = False
"""Whether the host's peak counts from a reset: a fact about the process, as the peak itself is."""


# --- memory ----------------------------------------------------------------------------------------------------------


def reset_peak_memory(device: torch.device | str) -> None:
    """Start a new peak, so that the next :func:`peak_memory` speaks of what comes after this call.

    On Linux the process's own peak is reset as well (``man 5 proc``, ``clear_refs``: "5"); where the kernel refuses or
    the system is another, it goes on counting from the start of the process, and ``host_peak_reset`` says so.
    """
    global _host_peak_reset
    if torch.device(device).type == "cuda":
        torch.cuda.init()  # a run resets the peak before anything else touches the device, which PyTorch refuses
        torch.cuda.reset_peak_memory_stats(device)
    try:
        Path("/proc/self/clear_refs").write_text("5")
        _host_peak_reset = True
    except OSError:
        _host_peak_reset = False


def peak_memory(device: torch.device | str) -> dict[str, int | bool | None]:
    """Measure the largest memory that this process used since the last :func:`reset_peak_memory`.

    The record of a run of several processes holds that of the first one, on its own GPU.

    Returns:
        ``device_bytes``: the most that PyTorch had allocated on a CUDA device, without its cache and the CUDA context
        (which ``nvidia-smi`` adds); None on the CPU. ``host_bytes``: the process's largest resident memory; None where
        the system does not tell. ``host_peak_reset``: False when ``host_bytes`` counts from the start of the process.
    """
    on_cuda = torch.device(device).type == "cuda"
    return {
        "device_bytes": torch.cuda.max_memory_allocated(device) if on_cuda else None,
        "host_bytes": _host_peak(),
        "host_peak_reset": _host_peak_reset,
    }


def _host_peak() -> int | None:
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    try:
        import resource
    except ImportError:  # Windows
        return None
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def parameter_memory(model: torch.nn.Module, optimizer: torch.optim.Optimizer | None = None) -> dict[str, int]:
    """Count the bytes that the parameters hold at this moment, by what they are for.

    Returns:
        ``weights_bytes`` (parameters and buffers, a shared one counted once), ``gradients_bytes`` (those that exist
        now: call this between the backward pass and ``zero_grad``) and ``optimizer_state_bytes``. Activations are the
        part of :func:`peak_memory` that none of the three explains.
    """
    weights = [*model.parameters(), *model.buffers()]
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    state = [] if optimizer is None else list(_tensors(optimizer.state.values()))
    return {
        "weights_bytes": _bytes(weights),
        "gradients_bytes": _bytes(gradients),
        "optimizer_state_bytes": _bytes(state),
    }


def _bytes(tensors: Iterable[torch.Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def _tensors(values: Iterable[Any]) -> Iterator[torch.Tensor]:
    """Every tensor in nested dictionaries, lists and tuples."""
    for value in values:
        if isinstance(value, torch.Tensor):
            yield value
        elif isinstance(value, dict):
            yield from _tensors(value.values())
        elif isinstance(value, (list, tuple)):
            yield from _tensors(value)


# --- time ------------------------------------------------------------------------------------------------------------


class CostMeter:
    """Times the optimizer updates of a run, and keeps apart what is not one.

    A step's time runs from the end of the step before it to its own end. On a GPU the host runs ahead of the device,
    so that the time between a step's begin and its end is that of *launching* the work; waiting for the device in each
    step would measure it exactly and slow down what it measures. Between two ends the host can gain nothing in steady
    state, since it is held back wherever training reads a number from the device, so the mean and the median over many
    steps are right although a single one may not be. Reading the batch is a part of it, as it is of training.

    Where something else came in between (a resample, an evaluation, anything announced by :meth:`pause`), the step's
    time runs from its own begin.

    Args:
        clock: gives the time in seconds; another one than the default is for tests.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._started: float | None = None
        self._step_from: float | None = None
        self._window: deque[float] = deque(maxlen=WINDOW)
        self._seconds = 0.0
        self._seconds_in_steps = 0.0
        self._steps = 0
        self._examples = 0
        self._tokens = 0
        self._resamples: list[float] = []
        self._evaluations: list[float] = []

    def start(self) -> None:
        """Training begins, or goes on after :meth:`load`."""
        self._started = self._clock()
        self._step_from = None

    def step_begin(self) -> None:
        """An optimizer update begins; with gradient accumulation, its first batch."""
        if self._step_from is None:
            self._step_from = self._clock()

    def step_end(self, examples: int, tokens: int) -> None:
        """An optimizer update has ended.

        Args:
            examples: in all batches of the update.
            tokens: likewise, padding included: what the device computes on.
        """
        assert self._step_from is not None, "step_end() without step_begin(): there is no time to measure from"
        now = self._clock()
        self._window.append(now - self._step_from)
        self._seconds_in_steps += now - self._step_from
        self._step_from = now
        self._steps += 1
        self._examples += examples
        self._tokens += tokens

    def pause(self) -> None:
        """Something else than training comes next (saving a checkpoint, say): it is not a part of the next step."""
        self._step_from = None

    def resample(self, seconds: float) -> None:
        """A resample of all layers took this long; on a GPU, the device is waited for before and after."""
        self._resamples.append(seconds)
        self.pause()

    def evaluation(self, seconds: float) -> None:
        """An evaluation took this long."""
        self._evaluations.append(seconds)
        self.pause()

    def state(self) -> dict[str, Any]:
        """All that :meth:`load` needs to go on in another process; JSON can hold it."""
        return {
            "window": list(self._window),
            "seconds": self._elapsed(),
            "seconds_in_steps": self._seconds_in_steps,
            "steps": self._steps,
            "examples": self._examples,
            "tokens": self._tokens,
            "resamples": list(self._resamples),
            "evaluations": list(self._evaluations),
        }

    def load(self, state: dict[str, Any]) -> None:
        """Take over the measurements of an interrupted run, from :meth:`state` at its checkpoint.

        What ran between that checkpoint and the interruption is lost, and is done and measured again.
        """
        self._window = deque(state["window"], maxlen=WINDOW)
        self._seconds = state["seconds"]
        self._seconds_in_steps = state["seconds_in_steps"]
        self._steps = state["steps"]
        self._examples = state["examples"]
        self._tokens = state["tokens"]
        self._resamples = list(state["resamples"])
        self._evaluations = list(state["evaluations"])
        self._started = None
        self._step_from = None

    def summary(self) -> dict[str, float | int | None]:
        """The measurements for the record; None where there is nothing to measure.

        ``seconds_per_step_median`` is over the latest ``WINDOW`` steps, everything else over the whole run;
        ``seconds_total`` includes resamples, evaluations and checkpoints.
        """
        steps, seconds = self._steps, self._seconds_in_steps
        return {
            "steps": steps,
            "examples": self._examples,
            "tokens": self._tokens,
            "seconds_total": self._elapsed(),
            "seconds_in_steps": seconds,
            "seconds_per_step_median": statistics.median(self._window) if self._window else None,
            "seconds_per_step_mean": seconds / steps if steps else None,
            "examples_per_second": self._examples / seconds if seconds > 0 else None,
            "tokens_per_second": self._tokens / seconds if seconds > 0 else None,
            "resamples": len(self._resamples),
            "seconds_in_resamples": sum(self._resamples),
            "seconds_per_resample_median": statistics.median(self._resamples) if self._resamples else None,
            "evaluations": len(self._evaluations),
            "seconds_in_evaluations": sum(self._evaluations),
        }

    def _elapsed(self) -> float:
        return self._seconds + (self._clock() - self._started if self._started is not None else 0.0)


# --- environment -----------------------------------------------------------------------------------------------------
