"""A whole run: its groups together, what may not go together, its identity, and how Hydra composes it."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from rosa.config.checks import choice, not_negative, require
from rosa.config.data import FILES, DataConfig
from rosa.config.decoding import DecodingConfig
from rosa.config.logger import LoggerConfig
from rosa.config.method import MethodConfig
from rosa.config.model import ModelConfig
from rosa.config.registry import methods
from rosa.config.task import TaskConfig
from rosa.config.train import TrainConfig
from rosa.errors import ConfigError

HOLDOUT = "holdout"
"""Name of the split that ``selection=holdout`` takes from the training split."""
SELECTIONS = ("dev-best", "dev-last", HOLDOUT)


@dataclass
class Config:
    """One run."""

    model: ModelConfig
    task: TaskConfig
    method: MethodConfig
    train: TrainConfig
    data: DataConfig
    logger: LoggerConfig
    decoding: DecodingConfig = field(default_factory=DecodingConfig)
    """Of a task whose outputs are texts."""
    selection: str = "dev-best"
    """What chooses the epoch, and with ``train.lr=tuned`` the learning rate: ``dev-best``, the best epoch's score on
    the first evaluation split, as is the field's custom; ``dev-last``, the last epoch's score on it; ``holdout``, the
    best epoch's score on a part of the training split that is kept aside, so that no evaluation split chooses."""
    seed: int = 0
    experiment_name: str = "default"
    """The first part of a run's identity; files under ``experiments/`` set it."""
    results_dir: str = "results"
    cache_dir: str = ".cache"
    """Where models that the project makes itself are kept."""
    jobs: int = 0
    """Runs at a time in a local sweep; 0 is one a CPU core, or one where the runs use a GPU."""

    def __post_init__(self) -> None:
        require(0 <= self.seed < 2**32, "seed", self.seed, "a whole number in [0, 2^32)")
        require(bool(self.experiment_name), "experiment_name", self.experiment_name, "a name")
        not_negative("jobs", self.jobs)
        choice("selection", self.selection, SELECTIONS)
        require("/" not in self.experiment_name, "experiment_name", self.experiment_name, "a name without '/'")
        check(self)

    @property
    def holdout_share(self) -> float:
        """Share of the training split that is kept aside to select by; 0 where nothing is."""
        return self.data.holdout if self.selection == HOLDOUT else 0.0

    @property
    def evaluated(self) -> tuple[str, ...]:
        """The splits that each epoch is scored on; the first one selects."""
        return (*((HOLDOUT,) if self.holdout_share else ()), *self.task.evaluation)

    @property
    def chosen_epoch(self) -> str:
        """``best`` or ``last``: the epoch whose score chooses a learning rate and whose weights write texts."""
        return "last" if self.selection == "dev-last" else "best"


def check(config: Config) -> None:
    """Refuse settings that are each fine and do not go together.

    Raises:
        ConfigError: with both keys, their values and what would be right.
    """
    if config.model.dtype == "bfloat16" and config.train.precision not in ("bf16", "auto"):
        raise ConfigError(
            f"model.dtype=bfloat16 with train.precision={config.train.precision}: a bfloat16 backbone needs "
            "train.precision=bf16, since the float32 trainable parameters meet it under autocast"
        )
    if config.model.dtype == "bfloat16" and config.method.name == "full":
        raise ConfigError(
            "model.dtype=bfloat16 with method=full: full fine-tuning updates every weight, which needs float32 "
            "weights; use model.dtype=float32 train.precision=bf16"
        )
    vectors = (
        config.task.kind == "vector_regression",
        config.data.source == "teacher",
        config.model.source == "perceptron",
    )
    if any(vectors) and not all(vectors):
        raise ConfigError(
            f"task={config.task.name} with data.source={config.data.source} and model.source={config.model.source}: "
            "a regression of vectors is task=regression with data=teacher and model=linear or model=mlp"
        )
    if config.selection == HOLDOUT and all(vectors):
        raise ConfigError("selection=holdout with task=regression: its vectors are drawn; use dev-best or dev-last")
    if config.selection != HOLDOUT and config.data.holdout != DataConfig.holdout:
        raise ConfigError(f"data.holdout={config.data.holdout} with selection={config.selection}: it needs holdout")
    if HOLDOUT in config.task.evaluation:
        raise ConfigError(f"task.evaluation={config.task.evaluation}: {HOLDOUT} is what selection=holdout makes")
    _check_files(config)
    if config.model.source == "mini" and config.task.kind != "vector_regression":
        wanted = "gpt2" if config.task.kind == "generation" else "roberta"
        if config.model.mini.architecture != wanted:
            raise ConfigError(
                f"model={config.model.name} with task={config.task.name}: a task of {config.task.kind} needs "
                f"model.mini.architecture={wanted}, as model=mini-{wanted} has"
            )
    if config.model.head == "fresh" and not config.task.has_head:
        raise ConfigError(f"model.head=fresh with task={config.task.name}: the task has no head; use saved")
    if config.task.kind != "generation" and config.decoding != DecodingConfig(batch_size=config.decoding.batch_size):
        raise ConfigError(f"decoding with task={config.task.name}: the task writes no texts; leave its keys out")
    if config.train.label_smoothing and config.task.kind != "generation":
        raise ConfigError(
            f"train.label_smoothing={config.train.label_smoothing} with task={config.task.name}: it is for generation; "
            "use 0"
        )
    if config.train.precision == "fp16" and config.train.device == "cpu":
        raise ConfigError("train.precision=fp16 with train.device=cpu: half precision needs a GPU; use fp32 or bf16")


def _check_files(config: Config) -> None:
    """Refuse a task that needs a file that is not named, or the other way round."""
    task, data = config.task, config.data
    if data.source != "files":
        unnamed = {"classification": ("labels", task.labels), "regression": ("label_range", task.label_range)}
        key, value = unnamed.get(task.kind, ("", True))
        if not value:
            raise ConfigError(
                f"task.{key}={value} with data.source={data.source}: only data=files takes what the training file has; "
                + ("name the labels" if key == "labels" else "give [smallest, largest]")
            )
        return
    for split in task.splits:
        if split in data.files:
            continue
        if split not in FILES:
            raise ConfigError(
                f"task={task.name} has the split {split!r}: data=files has data.validation and data.test alone; set "
                "task.evaluation=[validation]"
            )
        without = "; task.test='' decodes no test split" if split == task.test else ""
        raise ConfigError(
            f"data.{split}='': expected a csv, tsv, jsonl or parquet file, as in data=files data.train=a.csv "
            f"data.validation=b.csv{without}"
        )
    for split, file in data.files.items():
        if split not in task.splits:
            raise ConfigError(
                f"data.{split}={file}: task={task.name} has the splits {', '.join(task.splits)}; "
                f"task.evaluation=[validation,{split}] scores it after each epoch and never selects by it"
            )


NOT_IDENTITY = {
    "": ("seed", "experiment_name", "results_dir", "cache_dir", "jobs", "logger"),
    "train": ("tuning", "device", "threads", "log_steps", "save_steps", "keep", "force", "fail_fast"),
    "decoding": ("batch_size",),
}
"""Keys that change nothing about a run's result (or are a part of its folder's name already)."""


def to_dict(config: Any) -> dict[str, Any]:
    """A configuration as plain dictionaries, lists and numbers."""
    return dataclasses.asdict(config)


def from_dict(settings: Mapping[str, Any]) -> Config:
    """A configuration as :func:`to_dict` gave it; a key that it does not have, as it is older, has its default.

    Raises:
        ConfigError: a key that this version does not know, or a value that it refuses.
    """
    name = settings["method"]["name"]
    if name not in methods():
        raise ConfigError(
            f"method.name={name!r}: expected one of {', '.join(methods())}; a method of another package is known only "
            "where that package is installed"
        )
    method = _typed(methods()[name].config, settings["method"], "method.")
    return _typed(Config, dict(settings) | {"method": method}, "")


def _typed(kind: type[Any], values: Mapping[str, Any], place: str) -> Any:
    hints = typing.get_type_hints(kind)
    known = {field.name for field in dataclasses.fields(kind)}
    given = dict(values)
    for name, value in values.items():
        if name not in known:
            raise ConfigError(f"{place}{name}: this version of the project has no such key")
        if dataclasses.is_dataclass(hints[name]) and isinstance(value, Mapping):
            given[name] = _typed(hints[name], value, f"{place}{name}.")
    return kind(**given)


def identity_hash(config: Config) -> str:
    """Eight hexadecimal digits that name the settings of a run.

    Only values that differ from a dataclass's own default count, so that an option added later, whose default is the
    old behaviour, leaves every earlier run its name.
    """
    kept = _different_from_default(config)
    text = json.dumps(kept, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def _different_from_default(node: Any, group: str = "") -> dict[str, Any]:
    kept: dict[str, Any] = {}
    for f in dataclasses.fields(node):
        if f.name in NOT_IDENTITY.get(group, ()):
            continue
        value = getattr(node, f.name)
        if dataclasses.is_dataclass(value):
            inner = _different_from_default(value, f.name)
            if inner:
                kept[f.name] = inner
            continue
        if f.default is not dataclasses.MISSING:
            default = f.default
        elif f.default_factory is not dataclasses.MISSING:
            default = f.default_factory()
        else:
            default = dataclasses.MISSING
        if value != default:
            kept[f.name] = value
    return kept
