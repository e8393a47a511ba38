"""Check that a training is long enough for the settings that count its updates."""

from __future__ import annotations

import math

from rosa.config.checks import require
from rosa.config.data import VECTORS, DataConfig
from rosa.config.method import MethodConfig
from rosa.config.task import TaskConfig
from rosa.config.train import TrainConfig


def most_rows(data: DataConfig, task: TaskConfig) -> int | None:
    """The largest number of training rows that the settings allow; None if only the data tell."""
    # An input of E2E has several references, a row for each.
    counted = data.source in ("mini", *VECTORS) and not (task.kind == "generation" and task.scorer == "e2e")
    bounds = [data.train_size] if counted else []
    return min([*bounds, data.limit] if data.limit else bounds, default=None)


def check_length(train: TrainConfig, method: MethodConfig, rows: int | None) -> None:
    """Refuse settings whose updates a training on so many rows, or fewer, does not have.

    Args:
        train: how long to train, and the warm-up of the learning rate.
        method: what the method does after how many updates.
        rows: training rows; None if not known, so that only ``train.max_steps`` bounds the updates.

    Raises:
        ConfigError: the message names the setting and the training's updates.
    """
    updates = train.max_steps if rows is None else train.updates(rows)
    if not updates:
        return
    if train.warmup >= 1:
        expected = f"fewer updates than the training's {updates}"
        require(train.warmup < updates, "train.warmup", int(train.warmup), expected)
    method.check_length(updates, None if rows is None else train.updates_per_epoch(rows))


def unreached(train: TrainConfig, method: MethodConfig, rows: int) -> list[str]:
    """Warnings of settings that a training on so many rows ends before, and can do without.

    Args:
        train, method, rows: as of :func:`check_length`, which they have passed.
    """
    updates = train.updates(rows)
    found = method.unreached(updates, train.updates_per_epoch(rows))
    if 0 < train.warmup < 1 and math.ceil(train.warmup * updates) >= updates:
        found.append(
            f"train.warmup={train.warmup}: all of the training ({updates} updates) is warm-up, and the learning rate "
            "never reaches train.lr; use train.warmup=0"
        )
    return found
