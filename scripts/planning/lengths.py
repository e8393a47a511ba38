"""The number of tokens of an example of each task."""

from __future__ import annotations

import math

from planning import PlanError
from rosa.config import Config, TaskConfig

MEASURED = {
    "cola": 11.4,
    "mrpc": 53.3,
    "rte": 71.5,
    "stsb": 29.1,
    "wnli": 37.7,
    "sst2": 14.4,
    "e2e": 60.5,
}
"""Mean tokens of a row of the official training file, special tokens included, with the vocabulary of GPT-2 and
RoBERTa."""
LEFT_OUT = {"e2e": 30.3}
"""Mean tokens of an example, at the start of a batch of 10, for which a language model makes no outputs: up to the
token before the first that counts in some example. Of all 42,061 training pairs, grouped by length as in training; in
batches of 8 and 32 it is 30.7 and 28.6."""
PAIRS = ("mrpc", "rte", "stsb", "wnli")
"""The measured tasks of two texts."""
MULTIPLE = 8
"""On a GPU, batches are padded to a multiple of this."""


def mean_tokens(task: TaskConfig) -> tuple[float, bool]:
    """Mean tokens of an example, and whether that was measured.

    A classification task of two texts that was not measured is assumed to have the mean of those that were.

    Raises:
        PlanError: nothing is known of the task.
    """
    if task.name in MEASURED:
        return MEASURED[task.name], True
    if task.is_labelled and len(task.texts) == 2:
        return sum(MEASURED[name] for name in PAIRS) / len(PAIRS), False
    raise PlanError(f"task={task.name}: its examples' length is not known; give their mean number of tokens, tokens=N")


def padded(tokens: float, limit: int) -> int:
    """Tokens of an example in a batch: batches hold examples of similar length, and are padded to a multiple of 8."""
    return min(limit, MULTIPLE * math.ceil(tokens / MULTIPLE))


def made(config: Config, length: int, is_given: bool) -> tuple[int, bool]:
    """Tokens of an example for which a language model makes its outputs, and whether that may be too many.

    Training and evaluation leave out the outputs before the first token that counts in some example of a batch
    (``rosa.data.collator``); where the prompts' length is not known, all are counted.

    Args:
        config: the run.
        length: tokens of an example in a batch.
        is_given: whether the user has told the length.
    """
    leaves_out = config.task.kind == "generation" and config.task.loss_on == "reference" and not config.train.compile
    if not leaves_out:
        return length, False
    if is_given or config.data.source == "mini" or config.task.name not in LEFT_OUT:
        return length, True
    return length - round(LEFT_OUT[config.task.name]), False
