"""Decode a split with the model of a finished run or of any checkpoint."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from rosa import models
from rosa.config import DataConfig, DecodingConfig, ModelConfig, TaskConfig, register
from rosa.data import e2e
from rosa.errors import DecodingError
from rosa.evaluation.generation.hypotheses import Written, write
from rosa.records import RECORD, Rule
from rosa.run import reload
from rosa.run.device import device_for

TASK = "e2e"
PRESET = "reference"
"""Default decoding settings of a checkpoint; a run's default is its own settings."""


@dataclass(frozen=True)
class Source:
    """A model, and the task and data to decode."""

    folder: Path
    model: PreTrainedModel
    """The plain model (no adapters), in evaluation mode, on the CPU."""
    tokenizer: PreTrainedTokenizerBase
    task: TaskConfig
    data: DataConfig
    seed: int
    decoding: DecodingConfig
    origin: dict[str, Any]
    """The origin of the model, for the file of facts beside the hypotheses."""

    def file(self, split: str, limit: int) -> Path:
        """The default file of the hypotheses, for example ``test.best.txt`` in the folder."""
        parts = [split, self.origin.get("weights"), f"first{limit}" if limit else None, "txt"]
        return self.folder / ".".join(part for part in parts if part)


def find(folder: Path, conf: Path, weights: Rule | None = None, data_dir: Path | None = None) -> Source:
    """Load the model of a finished run, or a checkpoint that ``save_pretrained`` wrote.

    Args:
        folder: the folder of the run or checkpoint.
        conf: the folder of the configuration groups.
        weights: for a run, ``best`` or ``last`` epoch; by default the one that its ``selection`` chose.
        data_dir: the folder of the E2E challenge's CSV files; by default a run's own data.

    Raises:
        DecodingError: neither kind of folder, a run of a task without texts, or options that do not fit the folder.
        ExportError, RecordError, ConfigError, ModelError, AdapterError: a run or checkpoint that cannot be rebuilt.
    """
    if (folder / RECORD).is_file():
        return _from_run(folder, weights, data_dir)
    if not (folder / "config.json").is_file():
        raise DecodingError(
            f"{folder}: expected the folder of a run, with {RECORD}, or of a saved model, with config.json"
        )
    if weights is not None:
        raise DecodingError(f"--weights {weights}: {folder} is a saved model, not a run; leave --weights out")
    if data_dir is None:
        raise DecodingError(f"{folder}: a saved model needs --data-dir DIR, the folder of E2E's CSV files")
    return _from_checkpoint(folder, conf, data_dir)


def preset(conf: Path, name: str) -> DecodingConfig:
    """The settings of a file under ``conf/decoding``."""
    return _composed(conf, "decoding", name)


def decode_split(
    source: Source,
    split: str,
    settings: DecodingConfig,
    limit: int = 0,
    out: Path | None = None,
    device: str = "auto",
    overwrite: bool = False,
    progress: bool = True,
) -> Written:
    """Decode the meaning representations of a split into a file.

    Args:
        source: model, task and data.
        split: ``validation`` or ``test``.
        settings: how to decode.
        limit: decode only the first ``limit`` inputs of the split; 0 for all.
        out: the file; by default in the source's folder.
        device: ``auto``, ``cpu`` or ``cuda``.
        overwrite: replace a file with other content.
        progress: show a progress bar on standard error.

    Raises:
        DecodingError: no such split, or as :func:`rosa.evaluation.generation.hypotheses.write`.
        DataError: the data cannot be loaded.
        JournalError: as :func:`rosa.evaluation.generation.hypotheses.write`.
    """
    groups = e2e.load(source.task, source.data, source.seed).groups
    if split not in groups:
        raise DecodingError(f"--split {split}: expected one of {', '.join(groups)}, the splits of {source.task.name}")
    if limit < 0:
        raise DecodingError(f"--limit {limit}: expected at least 1, or 0 for the whole split")
    chosen = groups[split][:limit] if limit else groups[split]
    prompts = [e2e.prompt(source.task, group.mr) for group in chosen]
    model = source.model.to(torch.device(device_for(device)))  # type: ignore[arg-type]  # transformers wraps nn.Module.to
    origin = {"task": source.task.name, "split": split, **source.origin}
    path = out or source.file(split, limit)
    return write(model, source.tokenizer, prompts, settings, path, origin, overwrite, progress)


def changed(settings: DecodingConfig, changes: Mapping[str, Any]) -> DecodingConfig:
    """Settings with some values replaced; None keeps a value.

    Raises:
        ConfigError: a value that cannot be used.
    """
    return dataclasses.replace(settings, **{name: value for name, value in changes.items() if value is not None})


def _from_run(folder: Path, weights: Rule | None, data_dir: Path | None) -> Source:
    run = reload.load(folder, weights)
    config = run.config
    if config.task.kind != "generation":
        raise DecodingError(
            f"{folder}: a run of task={config.task.name}, which generates no text; expected a run of task={TASK}"
        )
    data = config.data if data_dir is None else DataConfig(source="local", dir=str(data_dir))
    origin = {
        "run": run.record["identity"],
        "weights": run.weights,
        "epoch": run.record["metrics"][run.weights]["epoch"],
        "model": run.record["model"],
    }
    return Source(folder, run.plain, run.tokenizer, config.task, data, config.seed, config.decoding, origin)


def _from_checkpoint(folder: Path, conf: Path, data_dir: Path) -> Source:
    task = _composed(conf, "task", TASK)
    described = ModelConfig(name=folder.resolve().name, source="folder", path=str(folder))
    model, tokenizer, facts = models.load(described, task, seed=0)
    data = DataConfig(source="local", dir=str(data_dir))
    return Source(folder, model, tokenizer, task, data, 0, preset(conf, PRESET), {"model": facts})


def _composed(conf: Path, group: str, name: str) -> Any:
    """Load one file of a configuration group as its dataclass."""
    from hydra import compose, initialize_config_dir
    from omegaconf import OmegaConf

    register()
    with initialize_config_dir(str(conf.resolve()), version_base="1.3"):
        return OmegaConf.to_object(compose(f"{group}/{name}")[group])
