#!/usr/bin/env python
"""Estimate what a run or a sweep takes: runs, operations and GPU hours, without data, weights or a GPU.

python scripts/plan.py experiment=glue_paper [gpu=H200 | rate=TFLOPS] [tokens=N] [rows=N] [OVERRIDES, as for
    scripts/train.py]

gpu: a measured GPU (default: H200). rate: 10^12 operations a second that yours reaches. tokens, rows: mean tokens of an
example, and rows of the training file, where the task's are not known.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import from_clone  # noqa: F401  # finds rosa
from planning import PlanError
from tqdm import tqdm

from rosa.config import register
from rosa.config.explain import explained
from rosa.report.tables.markdown import markdown
from rosa.sweep.grid import expand
from rosa.sweep.jobs import request
from rosa.utils.console import run_command

CONF = Path(__file__).resolve().parent.parent / "conf"
OWN = {"gpu": "NAME", "rate": "TFLOPS", "tokens": "N", "rows": "N"}
"""This script's own keys, with what each expects."""


READ = ("-m", "--multirun", "-cd", "--config-dir")
"""Options of scripts/train.py that this script takes, too."""


def own_keys(words: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """This script's own keys with their values, and the remaining overrides.

    Raises:
        PlanError: one of its own keys has no value, or two.
    """
    own: dict[str, str] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if key not in OWN:
            continue
        if not equals or not value or key in own:
            raise PlanError(f"{word}: expected {key}={OWN[key]}, once")
        own[key] = value
    return own, [word for word in words if word.partition("=")[0] not in OWN]


def positive(own: Mapping[str, str], key: str, whole: bool = False) -> float | None:
    """The number that a key has; None without the key.

    Raises:
        PlanError: it is no number above 0, or not whole as it is to be.
    """
    if key not in own:
        return None
    try:
        value = float(own[key])
    except ValueError:
        value = 0.0
    if not 0 < value < math.inf or (whole and value % 1):
        expected = "a whole number of at least 1" if whole else "a number above 0"
        raise PlanError(f"{key}={own[key]}: expected {expected}")
    return value


def main() -> None:
    """Print the table."""
    own, overrides = own_keys(sys.argv[1:])
    if not overrides or {"-h", "--help"} & set(overrides):
        print(__doc__)
        return
    if "gpu" in own and "rate" in own:
        raise PlanError(f"gpu={own['gpu']} rate={own['rate']}: expected one of the two")
    rate, tokens, rows = positive(own, "rate"), positive(own, "tokens"), positive(own, "rows", whole=True)
    known_rows = None if rows is None else int(rows)
    from planning.speed import known
    from planning.table import TERA, Machine, Planned, plan
    from planning.work import of_run

    machine = Machine(rate=rate * TERA) if rate else Machine(known(own.get("gpu", "H200")))
    register()
    asked = request(overrides)
    if unread := [word for word in asked.options if word.startswith("-") and word not in READ]:
        raise PlanError(f"{unread[0]}: expected overrides as scripts/train.py takes them, such as experiment=NAME")
    with explained(CONF, overrides):
        bar = tqdm(expand(CONF, asked), desc="composing", unit="run", leave=False, disable=None)
        jobs = [job.config for job, _ in bar]
    counted = [
        Planned(config, of_run(config, tokens, known_rows))
        for config in tqdm(jobs, desc="counting", leave=False, disable=None)
    ]
    print(markdown(plan(counted, machine)))


if __name__ == "__main__":
    sys.exit(run_command(main))
