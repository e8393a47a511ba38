"""Resolve the open settings of a configuration (device, precision, tuned learning rate), and prepare shared models."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from pathlib import Path

import torch

from rosa import models
from rosa.config import TUNED, Config
from rosa.data import hub, sources
from rosa.errors import ConfigError
from rosa.records import selection
from rosa.records.schema import Tuning
from rosa.run import build, mini_model
from rosa.utils import distributed
from rosa.utils.console import silence_transformers


def check_requests(configs: Iterable[Config]) -> None:
    """Refuse an invalid run before anything is downloaded, pretrained or written.

    Raises:
        ConfigError: an unknown metric.
        DataError: the data source does not have the task.
        AdapterError: the method does not fit a model that the project would pretrain.
    """
    methods = {}
    for config in configs:
        build.scorer(config.task)
        sources.check(config.task, config.data)
        methods[repr((config.model, config.method))] = config
    for config in methods.values():
        mini_model.check_method(config)


def check_shares(config: Config) -> None:
    """Refuse a batch size that is not divisible among the processes.

    Raises:
        ConfigError: the message names the nearest valid sizes.
    """
    size, count = config.train.batch_size, distributed.count()
    if size % count:
        below, above = size // count * count, -(-size // count) * count
        nearest = f"{below} or {above}" if below else str(above)
        raise ConfigError(
            f"train.batch_size={size} with {count} processes: expected a multiple of {count}, such as {nearest}, since "
            "the processes share a batch equally"
        )


def prepare(configs: Iterable[Config]) -> None:
    """Check the runs of a sweep on this machine, then pretrain the mini models that they share.

    Raises:
        ConfigError, DataError, AdapterError, ModelError: a run is invalid; nothing has been pretrained.
    """
    silence_transformers()
    resolved = [resolve_device(config) for config in configs]
    check_requests(resolved)
    reach(resolved)
    for config in {repr(config.model): config for config in resolved}.values():
        mini_model.located(config)


def reach(configs: Iterable[Config]) -> None:
    """Refuse a model or data set that is neither on this machine nor downloadable; each is checked once.

    Raises:
        ModelError, DataError: the message names it.
    """
    models_seen, tasks_seen = set(), set()
    for config in configs:
        model = repr(config.model)
        if model not in models_seen:
            models_seen.add(model)
            if config.model.source not in ("mini", "perceptron"):
                models.locate(config.model)
        if config.data.source == "hub" and config.task.name not in tasks_seen:
            tasks_seen.add(config.task.name)
            if hub.why_out_of_reach():
                build.read(config)


def resolve_device(config: Config) -> Config:
    """Replace ``train.device=auto`` and ``train.precision=auto`` by their values on this machine."""
    device = device_for(config.train.device)
    precision = precision_for(config.train.precision, device)
    return dataclasses.replace(config, train=dataclasses.replace(config.train, device=device, precision=precision))


def resolve(config: Config, grids: selection.Grids | None = None) -> tuple[Config, Tuning | None]:
    """Replace ``train.lr=tuned``, ``train.device=auto`` and ``train.precision=auto`` by their values here.

    Args:
        config: the run.
        grids: looks learning rates up; None: one for this run alone.

    Returns:
        The configuration that defines the run's identity, and how the learning rate was chosen.

    Raises:
        ConfigError: there is no such device.
        RecordError: the tuning runs are missing or unfinished.
    """
    config = resolve_device(config)
    if config.train.lr != TUNED:
        return config, None
    lr, tuning = (grids or selection.Grids(Path(config.results_dir))).tuned_lr(config)
    return dataclasses.replace(config, train=dataclasses.replace(config.train, lr=lr)), tuning


def precision_for(requested: str, device: str) -> str:
    """Resolve ``train.precision=auto`` for a device: ``bf16`` on GPUs that support it natively, else ``fp32``."""
    if requested != "auto":
        return requested
    return "bf16" if device == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"


def device_for(requested: str) -> str:
    """``cuda`` if there is a GPU and the CPU is not requested, else ``cpu``.

    Raises:
        ConfigError: ``train.device=cuda`` without a GPU.
    """
    available = torch.cuda.is_available()
    if requested == "cuda" and not available:
        raise ConfigError("train.device=cuda, but PyTorch sees no CUDA device; use train.device=cpu")
    return "cuda" if available and requested != "cpu" else "cpu"
