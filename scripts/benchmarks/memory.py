"""Measure the memory of a training step of each method, each in a process of its own."""

from __future__ import annotations

import gc
import multiprocessing
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace

import torch
from tqdm import tqdm

from benchmarks.contenders import Contender
from benchmarks.workload import Batch, Build, Workload, load_model, moved
from rosa.adapters import resample
from rosa.config import Config
from rosa.training import costs

STEPS = 3
"""Number of steps: the first allocates the optimizer's state, so that later ones have the peak of training."""
BATCHES = 50
"""Number of first batches, of which the one with the most tokens is used."""


@dataclass(frozen=True)
class Memory:
    """Memory of one method, in bytes."""

    peak: int | None
    """Memory allocated by PyTorch on a GPU, or the process's resident memory; None if the system does not report it."""
    before: int | None
    """On the CPU, the part of ``peak`` that was used before the model was built: Python and its libraries."""
    reset: bool
    """Whether the peak is that of the steps; False if the system cannot reset the peak of earlier work."""
    weights: int
    gradients: int
    optimizer_state: int
    resample: int | None = None
    """As ``peak``, of a resample of all layers; None for methods without one, and where it was not measured."""


def measure(name: str, rank: int, config: Config, batch: Batch, build: Build = load_model) -> Memory:
    """Measure one contender in this process.

    Args:
        name: a key of ``contenders.LABELS``.
        rank: the rank, for methods that have one.
        config: a resolved configuration.
        batch: the batch of every step, on any device.
        build: makes the plain model.
    """
    device = config.train.device
    costs.reset_peak_memory(device)
    before = costs.peak_memory(device)
    plain = build(config).to(torch.device(device))  # type: ignore[arg-type]  # transformers wraps nn.Module.to
    contender = Contender(name, plain, config, rank)
    batch = moved(batch, device)
    held = of_steps(contender, batch, device, before["host_bytes"])
    return replace(held, resample=of_a_resample(contender, device)) if name == "rosa" else held


def of_a_resample(contender: Contender, device: str) -> int | None:
    """The peak, in bytes, of a resample of all layers of a contender; None if the system does not report it."""
    costs.reset_peak_memory(device)
    resample(contender.model, generator=torch.Generator().manual_seed(0))
    return _peak(costs.peak_memory(device), device)


def _peak(memory: Mapping[str, int | None], device: str) -> int | None:
    return memory["device_bytes"] if device == "cuda" else memory["host_bytes"]


def of_steps(contender: Contender, batch: Batch, device: str, before: int | None = None) -> Memory:
    """Measure the training steps of a contender that has not been trained yet.

    Args:
        contender: on the device.
        batch: the batch of every step, on the device.
        device: ``cpu`` or ``cuda``.
        before: the process's resident memory, in bytes, before the contender was built; ignored on a GPU.
    """
    costs.reset_peak_memory(device)
    for _ in range(STEPS - 1):
        contender.step(batch)
    contender.update(batch)
    parts = costs.parameter_memory(contender.model, contender.optimizer)
    peak = costs.peak_memory(device)
    on_cuda = device == "cuda"
    return Memory(
        peak=_peak(peak, device),
        before=None if on_cuda else before,
        reset=on_cuda or bool(peak["host_peak_reset"]),
        weights=parts["weights_bytes"],
        gradients=parts["gradients_bytes"],
        optimizer_state=parts["optimizer_state_bytes"],
    )


def of_parameters(contender: Contender, batch: Batch) -> Memory:
    """The memory of weights, gradients and optimizer state after one update; the peak is not measured."""
    contender.update(batch)
    parts = costs.parameter_memory(contender.model, contender.optimizer)
    contender.optimizer.zero_grad()
    return Memory(None, None, True, parts["weights_bytes"], parts["gradients_bytes"], parts["optimizer_state_bytes"])


def measure_apart(
    config: Config, cases: Sequence[tuple[str, int]], batch: Batch, build: Build = load_model
) -> dict[tuple[str, int], Memory]:
    """Measure contenders, by name and rank, each in a fresh process.

    Args:
        config: a resolved configuration.
        cases: names and ranks.
        batch: the batch of every step, on any device.
        build: makes the plain model; it must be possible to pickle it.
    """
    batch = moved(batch, "cpu")
    device = config.train.device
    if device == "cuda":  # the processes have the memory that this one does not hold
        gc.collect()  # optimizers hold reference cycles
        torch.cuda.empty_cache()
    # A process may keep the memory that another method freed, which would distort the peak. A fork server imports the
    # slow packages once; CUDA cannot be used in a fork.
    fresh = multiprocessing.get_context("spawn" if device == "cuda" else "forkserver")
    if device != "cuda":
        fresh.set_forkserver_preload(["torch", "transformers", "datasets", "peft", "loralib", "rosa.run"])
    # A process's resident memory does not depend on its neighbours, so two may run at once; a GPU's may.
    workers = 1 if device == "cuda" else 2
    with (
        ProcessPoolExecutor(max_workers=workers, mp_context=fresh, max_tasks_per_child=1) as pool,
        tqdm(total=len(cases), desc="memory", unit="method", dynamic_ncols=True) as bar,
    ):
        asked = {case: pool.submit(measure, *case, config, batch, build) for case in cases}
        try:
            for one in as_completed(asked.values()):
                one.result()  # raises what stopped it
                bar.update()
        except BaseException:
            pool.shutdown(cancel_futures=True)  # else the rest would be measured before the error is told
            raise
    return {case: one.result() for case, one in asked.items()}


def widest(workload: Workload) -> Batch:
    """The batch with the most tokens, among the first ones."""
    batches = [workload.batch(number) for number in range(min(BATCHES, workload.steps_per_epoch))]
    return max(batches, key=lambda batch: batch["input_ids"].numel())
