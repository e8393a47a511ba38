"""Explain out-of-memory errors: the settings that the memory depends on, and the override to try."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager

from rosa.config import Config
from rosa.errors import OutOfMemoryError
from rosa.utils import distributed
from rosa.utils.allocation import is_out_of_memory
from rosa.utils.console import first_line

WORK = {"training_step": "training", "evaluation_loop": "evaluation", "continue_prompts": "decoding"}
"""What a run was doing, by a function in the traceback."""


@contextmanager
def explained(config: Config) -> Iterator[None]:
    """Turn a failed allocation into an error that says what was asked for and which override to try.

    Raises:
        OutOfMemoryError: memory was not enough, of the GPU or of the machine.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        doing = next((WORK[name] for name in _functions(error) if name in WORK), "set-up")
        raise OutOfMemoryError(
            f"out of memory in {doing}: {asked(config, doing)} ({first_line(type(error).__name__, str(error))}). "
            f"{advice(config, doing)}"
        ) from error


def asked(config: Config, doing: str) -> str:
    """The settings that the memory of this work depends on, as overrides."""
    train = config.train
    keys = {
        "evaluation": f"train.evaluation_batch_size={train.evaluation_batch_size}",
        "decoding": f"decoding.batch_size={config.decoding.batch_size} decoding.beams={config.decoding.beams}",
    }
    batch = f"train.batch_size={train.batch_size} train.accumulation={train.accumulation}"
    shared = f"train.max_length={train.max_length} train.precision={train.precision}"
    return f"model={config.model.name} method={config.method.name} {keys.get(doing, batch)} {shared}"


def advice(config: Config, doing: str) -> str:
    """The override to try, in a sentence."""
    train = config.train
    if doing == "decoding" and config.decoding.batch_size > 1:
        return f"Try decoding.batch_size={config.decoding.batch_size // 2}: it changes no hypothesis"
    if doing == "evaluation" and train.evaluation_batch_size > 1:
        return f"Try train.evaluation_batch_size={train.evaluation_batch_size // 2}: it changes no score"
    if doing == "training":
        parts = parts_of(train.batch_size, distributed.count())
        if parts is not None:
            batch, accumulation = train.batch_size // parts, train.accumulation * parts
            return f"Try train.batch_size={batch} train.accumulation={accumulation}: updates of as many examples"
    return (
        "Try a smaller train.max_length, method=rosa or method=lora instead of method=full, model.dtype=bfloat16, or a "
        "smaller model"
    )


def parts_of(batch: int, processes: int) -> int | None:
    """The smallest number of equal parts of a batch that the processes can share; None if it has no parts."""
    return next((n for n in range(2, batch + 1) if batch % n == 0 and batch // n % processes == 0), None)


def _functions(error: BaseException) -> list[str]:
    """The names of the functions in an error's traceback, the innermost first."""
    return [frame.f_code.co_name for frame, _ in traceback.walk_tb(error.__traceback__)][::-1]
