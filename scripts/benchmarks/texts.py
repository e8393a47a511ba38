"""Inputs and reference outputs of the text-to-text tasks: E2E, and those of RoSA's paper."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from hydra import compose, initialize_config_dir

from benchmarks.workload import Workload
from rosa.config import DataConfig, TaskConfig, from_hydra, register
from rosa.data import e2e

CONF = Path(__file__).resolve().parents[2] / "conf"
TASKS = {"e2e": "E2E", "viggo": "ViGGO", "sql": "SQL", "gsm8k": "GSM8K"}
"""The tasks under conf/task, with their names in tables."""
SIZES = {"e2e": 630, "viggo": 1083, "sql": 1000, "gsm8k": 1319}
"""Inputs of the official test splits; as many are generated."""


@dataclass(frozen=True)
class Texts:
    """The texts of a task."""

    task: TaskConfig
    pairs: list[tuple[str, str]]
    """A training text: prompt and target."""
    groups: tuple[e2e.Group, ...]
    """The test split: an input and its reference outputs."""
    real: bool
    """Whether the texts are the official ones."""

    @property
    def label(self) -> str:
        """The task's name in tables."""
        return TASKS[self.task.name]

    @property
    def prompts(self) -> list[str]:
        """The prompts of the test split."""
        return [e2e.prompt(self.task, group.mr) for group in self.groups]


def of_task(name: str, workload: Workload, size: int) -> Texts:
    """E2E's official files where the workload has them; otherwise texts that the project generates.

    Args:
        name: a key of ``TASKS``.
        workload: gives the seed and the folder of E2E's files.
        size: the number of training pairs; generated ones of E2E are several times as many.

    Raises:
        DataError: a file is missing or malformed.
    """
    real = name == "e2e" and workload.e2e_dir is not None
    data = (
        DataConfig(source="local", dir=str(workload.e2e_dir), limit=size)
        if real
        else DataConfig(source="mini", train_size=size, evaluation_size=SIZES[name])
    )
    register()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        task = from_hydra(compose("config", overrides=[f"task={name}", "data=mini", "model=mini-gpt2"])).task
    loaded = e2e.load(task, data, workload.config.seed)
    pairs = [(e2e.prompt(task, pair["mr"]), f" {pair['ref']}") for pair in loaded.train]
    return Texts(task, pairs, loaded.groups[task.test], real)
