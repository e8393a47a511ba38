"""Check what runs ask for, before anything slow, and prepare the models that they share."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from rosa import models
from rosa.adapters import support
from rosa.config import Config, RobustConfig
from rosa.data import hub, sources
from rosa.errors import ConfigError
from rosa.run import build, mini_model
from rosa.run.device import resolve_device
from rosa.utils import distributed
from rosa.utils.console import silence_transformers


def check_requests(configs: Iterable[Config]) -> None:
    """Refuse an invalid run before anything is downloaded, pretrained or written.

    Raises:
        ConfigError: an unknown metric.
        DataError: the data source does not have the task, or the text to pretrain a model on cannot be read.
        ModelError: the model's folder or package is missing, or it is an encoder, and the task generates text.
        AdapterError: the method does not fit the model, if its layers are known here, or its file is no support.
    """
    methods = {}
    for config in configs:
        build.scorer(config.task)
        sources.check(config.task, config.data)
        if config.model.source in ("folder", "package"):
            models.locate(config.model)
        if isinstance(config.method, RobustConfig) and config.method.support:
            support.check_file(Path(config.method.support))
        methods[repr((config.model, config.task.kind, config.method))] = config
    mini_model.check_texts(config.model for config in methods.values())
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
