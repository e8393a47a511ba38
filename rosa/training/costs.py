"""Measure a run's costs: peak memory, memory of its parameters, times and throughput.

Keys end in or contain the unit, ``bytes`` or ``seconds`` (wall-clock time).
"""

from __future__ import annotations

import gc
import math
import os
import statistics
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import torch

from rosa.adapters.state import changing_state

WINDOW = 10_000
"""Number of latest step times and memory samples kept for median and percentile; limited to keep checkpoints small."""


_host_peak_reset = False
"""Whether the host's peak was reset; global because the peak belongs to the process."""
_baseline: int | None = None
"""Memory in use when the peaks were reset."""
_resets = 0
"""How often they were: each run does it once."""


# --- memory ----------------------------------------------------------------------------------------------------------


def reset_peak_memory(device: torch.device | str) -> None:
    """Collect garbage, and reset the peaks of device and host memory that :func:`peak_memory` returns.

    A sweep does several runs in one process. A model and its Trainer refer to each other, so those of the previous run
    stay in memory until the garbage collector runs; without it, their memory would count as this run's.

    The host's peak can be reset only on Linux (``man 5 proc``, ``clear_refs``: "5"), if the kernel permits. Otherwise
    it is measured from the start of the process, and ``host_peak_reset`` is False.
    """
    global _host_peak_reset, _baseline, _resets
    _resets += 1
    gc.collect()
    if torch.device(device).type == "cuda":
        torch.cuda.init()  # PyTorch refuses to reset the peak of a device that is not initialized
        torch.cuda.empty_cache()  # memory_in_use counts what PyTorch has reserved
        torch.cuda.reset_peak_memory_stats(device)
    try:
        Path("/proc/self/clear_refs").write_text("5")
        _host_peak_reset = True
    except OSError:
        _host_peak_reset = False
    _baseline = memory_in_use(device)


def memory_in_use(device: torch.device | str) -> int | None:
    """Bytes that this process holds now: on a CUDA device what PyTorch has reserved, otherwise its resident memory.

    Does not synchronize. None if the system does not report it.
    """
    if torch.device(device).type == "cuda":
        return torch.cuda.memory_reserved(device)
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except (OSError, ValueError, IndexError):
        return None
    return pages * os.sysconf("SC_PAGE_SIZE")


def memory_above_baseline(device: torch.device | str) -> int | None:
    """:func:`memory_in_use` less that at the last :func:`reset_peak_memory`; None if either is not known."""
    now = memory_in_use(device)
    return None if now is None or _baseline is None else now - _baseline


def peak_memory(device: torch.device | str) -> dict[str, int | bool | None]:
    """The peak memory of this process since the last :func:`reset_peak_memory`.

    The record of a run of several processes holds the values of the main process and its GPU.

    Returns:
        ``device_bytes``: peak memory allocated by PyTorch on a CUDA device, without its cache and the CUDA context
        (which ``nvidia-smi`` includes); None on the CPU. ``host_bytes``: peak resident memory of the process; None if
        the system does not report it. ``host_peak_reset``: False if ``host_bytes`` is that since the process's start.
        ``first_of_process``: whether no earlier run of the process has left memory that counts or is used again.
    """
    on_cuda = torch.device(device).type == "cuda"
    return {
        "device_bytes": torch.cuda.max_memory_allocated(device) if on_cuda else None,
        "host_bytes": _host_peak(),
        "host_peak_reset": _host_peak_reset,
        "first_of_process": _resets == 1,
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
    """The bytes that weights, gradients and optimizer state occupy now.

    Returns:
        ``weights_bytes`` (parameters and buffers, shared ones counted once), ``gradients_bytes`` (those that exist now:
        call this between the backward pass and ``zero_grad``) and ``optimizer_state_bytes``. The rest of
        :func:`peak_memory` is activations.
    """
    weights = [*model.parameters(), *model.buffers()]
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    state = [] if optimizer is None else list(_tensors(optimizer.state.values()))
    return {
        "weights_bytes": _bytes(weights),
        "gradients_bytes": _bytes(gradients),
        "optimizer_state_bytes": _bytes(state),
    }


def checkpoint_bytes(model: torch.nn.Module) -> int:
    """Bytes of the tensors that restore the trained model, given the pretrained one.

    For ROSA they include the frozen parts, because resampling changes them.
    """
    return _bytes(changing_state(model).values())


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
    """Measures the times of optimizer updates (steps), separately from resamples and evaluations.

    A step's time is measured from the end of the previous step, reading of the batch included. On a GPU the host runs
    ahead of the device, so the time from a step's begin to its end is only that of *launching* its work, and
    synchronizing in every step would slow training down. From end to end, the host cannot gain on the device in steady
    state, because it waits wherever training reads a number from the device: mean and median over many steps are right,
    although the time of a single step may not be.

    After a resample, an evaluation or a :meth:`pause`, the step's time is measured from its own begin.

    Args:
        clock: returns the time in seconds; replaced in tests.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._started: float | None = None
        self._step_from: float | None = None
        self._window: deque[float] = deque(maxlen=WINDOW)
        self._seconds = 0.0
        self._seconds_in_steps = 0.0
        self._seconds_in_loading = 0.0
        self._steps = 0
        self._examples = 0
        self._tokens = 0
        self._resamples: list[float] = []
        self._evaluations: list[float] = []
        self._samples: deque[int] = deque(maxlen=WINDOW)
        self._sampled = 0
        self._sum_of_samples = 0
        self._most = 0

    def start(self) -> None:
        """Start the clock at the begin of training, or after :meth:`load`."""
        self._started = self._clock()
        self._step_from = None

    def step_begin(self) -> None:
        """Mark the begin of an optimizer update: of its first batch under gradient accumulation."""
        if self._step_from is None:
            self._step_from = self._clock()

    def step_end(self, examples: int, tokens: int) -> None:
        """Mark the end of an optimizer update.

        Args:
            examples: number of examples in all batches of the update.
            tokens: number of tokens in all batches of the update, padding included.
        """
        assert self._step_from is not None, "step_end() without step_begin(): there is no time to measure from"
        now = self._clock()
        self._window.append(now - self._step_from)
        self._seconds_in_steps += now - self._step_from
        self._step_from = now
        self._steps += 1
        self._examples += examples
        self._tokens += tokens

    def loading(self, seconds: float) -> None:
        """Add the time that training waited for an update's batches, if that is a part of the update's time."""
        if self._step_from is not None:
            self._seconds_in_loading += seconds

    def pause(self) -> None:
        """Exclude the time until the next :meth:`step_begin` from the steps' times (as when a checkpoint is saved)."""
        self._step_from = None

    def resample(self, seconds: float) -> None:
        """Add the duration of a resample of all layers, measured with a synchronized device."""
        self._resamples.append(seconds)
        self.pause()

    def evaluation(self, seconds: float) -> None:
        """Add the duration of an evaluation."""
        self._evaluations.append(seconds)
        self.pause()

    def memory(self, above: int) -> None:
        """Add a sample of the memory above the baseline, in bytes."""
        self._samples.append(above)
        self._most = max(self._most, above) if self._sampled else above
        self._sampled += 1
        self._sum_of_samples += above

    def state(self) -> dict[str, Any]:
        """The measurements as JSON-serializable values, for :meth:`load`."""
        return {
            "window": list(self._window),
            "seconds": self._elapsed(),
            "seconds_in_steps": self._seconds_in_steps,
            "seconds_in_loading": self._seconds_in_loading,
            "steps": self._steps,
            "examples": self._examples,
            "tokens": self._tokens,
            "resamples": list(self._resamples),
            "evaluations": list(self._evaluations),
            "memory": [list(self._samples), self._sampled, self._sum_of_samples, self._most],
        }

    def load(self, state: dict[str, Any]) -> None:
        """Continue the measurements of an interrupted run, from its :meth:`state` at the last checkpoint.

        Steps between that checkpoint and the interruption are repeated, and measured only in the repetition.
        """
        self._window = deque(state["window"], maxlen=WINDOW)
        self._seconds = state["seconds"]
        self._seconds_in_steps = state["seconds_in_steps"]
        self._steps = state["steps"]
        self._examples = state["examples"]
        self._tokens = state["tokens"]
        self._resamples = list(state["resamples"])
        self._evaluations = list(state["evaluations"])
        # A checkpoint of an earlier version has neither.
        self._seconds_in_loading = state.get("seconds_in_loading", 0.0)
        samples, self._sampled, self._sum_of_samples, self._most = state.get("memory", ([], 0, 0, 0))
        self._samples = deque(samples, maxlen=WINDOW)
        self._started = None
        self._step_from = None

    def summary(self) -> dict[str, float | int | None]:
        """The measurements for the record; medians, means and rates are None without steps or resamples.

        ``seconds_per_step_median`` and ``memory_p99_bytes`` are over the latest ``WINDOW`` steps, everything else over
        the whole run; ``seconds_total`` includes resamples, evaluations and checkpoints.
        """
        steps, seconds = self._steps, self._seconds_in_steps
        total, evaluating = self._elapsed(), sum(self._evaluations)
        return {
            "steps": steps,
            "examples": self._examples,
            "tokens": self._tokens,
            "seconds_total": total,
            "seconds_without_evaluations": total - evaluating,
            "seconds_in_steps": seconds,
            "seconds_in_loading": self._seconds_in_loading,
            "seconds_per_step_median": statistics.median(self._window) if self._window else None,
            "seconds_per_step_mean": seconds / steps if steps else None,
            "examples_per_second": self._examples / seconds if seconds > 0 else None,
            "tokens_per_second": self._tokens / seconds if seconds > 0 else None,
            "resamples": len(self._resamples),
            "seconds_in_resamples": sum(self._resamples),
            "seconds_per_resample_median": statistics.median(self._resamples) if self._resamples else None,
            "evaluations": len(self._evaluations),
            "seconds_in_evaluations": evaluating,
            "memory_max_bytes": self._most if self._sampled else None,
            "memory_mean_bytes": round(self._sum_of_samples / self._sampled) if self._sampled else None,
            "memory_p99_bytes": _percentile(self._samples, 0.99) if self._samples else None,
        }

    def _elapsed(self) -> float:
        return self._seconds + (self._clock() - self._started if self._started is not None else 0.0)


def _percentile(values: Iterable[int], share: float) -> int:
    """The smallest value that at least this share of the values does not exceed."""
    ordered = sorted(values)
    return ordered[math.ceil(share * len(ordered)) - 1]
