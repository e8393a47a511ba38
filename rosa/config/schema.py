"""Configuration of a whole run: all groups, and the checks across them."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from rosa.config.checks import choice, is_name, not_negative, require
from rosa.config.data import DIABETES_WIDTHS, FILES, VECTORS, DataConfig
from rosa.config.decoding import DecodingConfig
from rosa.config.length import check_length, most_rows
from rosa.config.logger import LoggerConfig
from rosa.config.method import MethodConfig
from rosa.config.model import ModelConfig
from rosa.config.registry import methods
from rosa.config.task import TaskConfig
from rosa.config.train import TrainConfig
from rosa.errors import ConfigError, RosaError

HOLDOUT = "holdout"
"""Name of the split that ``selection=holdout`` splits off the training split."""
SELECTIONS = ("dev-best", "dev-last", HOLDOUT)


@dataclass
class Config:
    """Configuration of one run.

    Raises:
        ConfigError: a value out of range, or conflicting settings.
    """

    model: ModelConfig
    task: TaskConfig
    method: MethodConfig
    train: TrainConfig
    data: DataConfig
    logger: LoggerConfig
    decoding: DecodingConfig = field(default_factory=DecodingConfig)
    """Used by text generation only."""
    selection: str = "dev-best"
    """Score that selects the epoch, and with ``train.lr=tuned`` the learning rate. ``dev-best``: the best epoch's score
    on the first evaluation split (common practice); ``dev-last``: the last epoch's score on it; ``holdout``: the best
    epoch's score on a held-out part of the training split, so that no evaluation split is used for selection."""
    seed: int = 0
    experiment_name: str = "default"
    """First part of a run's identity; set by the files under ``experiments/``."""
    results_dir: str = "results"
    cache_dir: str = ".cache"
    """Folder of the models that the project pretrains itself, and of the tokens of large splits."""
    jobs: int = 0
    """Simultaneous runs of a local sweep; 0 is one per CPU core, or one if the runs use a GPU."""

    def __post_init__(self) -> None:
        require(0 <= self.seed < 2**32, "seed", self.seed, "a whole number in [0, 2^32)")
        what = "a name without '/' and control characters"
        require(is_name(self.experiment_name), "experiment_name", self.experiment_name, what)
        not_negative("jobs", self.jobs)
        choice("selection", self.selection, SELECTIONS)
        check(self)

    @property
    def holdout_share(self) -> float:
        """Share of the training split that is held out for selection; 0 for none."""
        return self.data.holdout if self.selection == HOLDOUT else 0.0

    @property
    def drawn_data(self) -> DataConfig:
        """The data group, with the seed that this run's generated text is drawn with."""
        if not self.data.per_seed:
            return self.data
        return dataclasses.replace(self.data, seed=self.data.seed + self.seed, per_seed=False)

    @property
    def evaluated(self) -> tuple[str, ...]:
        """Splits that are scored after each epoch; the first one is used for selection."""
        return (*((HOLDOUT,) if self.holdout_share else ()), *self.task.evaluation)

    @property
    def chosen_epoch(self) -> Literal["best", "last"]:
        """``best`` or ``last``: the epoch whose score selects the learning rate and whose weights are decoded."""
        return "last" if self.selection == "dev-last" else "best"


def check(config: Config) -> None:
    """Check settings against each other.

    Raises:
        ConfigError: two settings conflict; the message names both keys, their values and what would be right.
    """
    if config.model.dtype == "bfloat16" and config.train.precision not in ("bf16", "auto"):
        raise ConfigError(
            f"model.dtype=bfloat16 with train.precision={config.train.precision}: a bfloat16 model with float32 "
            "trainable parameters needs autocast; use train.precision=bf16"
        )
    if config.model.dtype == "bfloat16" and config.method.name == "full":
        raise ConfigError(
            "model.dtype=bfloat16 with method=full: full fine-tuning updates every weight, which needs float32 "
            "weights; use model.dtype=float32 train.precision=bf16"
        )
    vectors = (
        config.task.kind == "vector_regression",
        config.data.source in VECTORS,
        config.model.source == "perceptron",
    )
    if any(vectors) and not all(vectors):
        raise ConfigError(
            f"task={config.task.name} with data.source={config.data.source} and model.source={config.model.source}: "
            "vector regression needs task=regression, data=teacher or data=diabetes, and model=linear or model=mlp "
            "together"
        )
    widths = tuple(config.model.perceptron.widths)
    if config.data.source == "diabetes" and (widths[0], widths[-1]) != DIABETES_WIDTHS:
        raise ConfigError(
            f"model.perceptron.widths={list(widths)} with data=diabetes: expected {DIABETES_WIDTHS[0]} first, its ten "
            f"measurements and a constant, and {DIABETES_WIDTHS[1]} last"
        )
    if config.selection == HOLDOUT and all(vectors):
        raise ConfigError("selection=holdout with task=regression: expected dev-best or dev-last for vectors")
    if config.selection != HOLDOUT and config.data.holdout != DataConfig.holdout:
        raise ConfigError(
            f"data.holdout={config.data.holdout} with selection={config.selection}: it has no effect; use "
            "selection=holdout, or leave data.holdout out"
        )
    if HOLDOUT in config.task.evaluation:
        raise ConfigError(
            f"task.evaluation={config.task.evaluation}: the name {HOLDOUT!r} is reserved for selection=holdout; use "
            "another split"
        )
    _check_files(config)
    if config.model.source == "mini" and config.task.kind != "vector_regression":
        wanted = "gpt2" if config.task.kind == "generation" else "roberta"
        if config.model.mini.architecture != wanted:
            raise ConfigError(
                f"model={config.model.name} with task={config.task.name}: task.kind={config.task.kind} needs "
                f"model.mini.architecture={wanted}; use model=mini-{wanted}"
            )
    if config.model.head == "fresh" and not config.task.is_labelled:
        raise ConfigError(f"model.head=fresh with task={config.task.name}: the task has no head; use saved")
    if config.task.kind != "generation" and config.decoding != DecodingConfig(batch_size=config.decoding.batch_size):
        raise ConfigError(
            f"decoding with task={config.task.name}: the task generates no text; leave the decoding keys out"
        )
    if config.train.label_smoothing and config.task.kind != "generation":
        raise ConfigError(
            f"train.label_smoothing={config.train.label_smoothing} with task={config.task.name}: only text generation "
            "supports it; use 0"
        )
    if config.train.precision == "fp16" and config.train.device == "cpu":
        raise ConfigError("train.precision=fp16 with train.device=cpu: fp16 needs a GPU; use fp32 or bf16")
    check_length(config.train, config.method, most_rows(config.data, config.task))


def _check_files(config: Config) -> None:
    """Check that ``data=files`` names a file for each of the task's splits and no other."""
    task, data = config.task, config.data
    if data.source != "files":
        unnamed = {"classification": ("labels", task.labels), "regression": ("label_range", task.label_range)}
        key, value = unnamed.get(task.kind, ("", True))
        if not value:
            raise ConfigError(
                f"task.{key}={value} with data.source={data.source}: only data=files finds it in the training file; "
                + ("set task.labels to the label names" if key == "labels" else "set it to [smallest, largest]")
            )
        return
    for split in task.splits:
        if split in data.files:
            continue
        if split not in FILES:
            raise ConfigError(
                f"task={task.name} has the split {split!r}: data=files only has data.validation and data.test; set "
                "task.evaluation=[validation]"
            )
        without = "; or set task.test='' to have no test split" if split == task.test else ""
        raise ConfigError(
            f"data.{split}='': expected a csv, tsv, jsonl or parquet file, as in data=files data.train=a.csv "
            f"data.validation=b.csv{without}"
        )
    for split, file in data.files.items():
        if split not in task.splits:
            raise ConfigError(
                f"data.{split}={file}: task={task.name} only has the splits {', '.join(task.splits)}; set "
                f"task.evaluation=[validation,{split}] to score it after each epoch without selecting by it"
            )


def to_dict(config: Any) -> dict[str, Any]:
    """Convert a configuration to plain dictionaries, lists and numbers."""
    return dataclasses.asdict(config)


def from_dict(settings: Mapping[str, Any]) -> Config:
    """Convert the output of :func:`to_dict` back; keys missing from an older version's output get their defaults.

    Raises:
        ConfigError: a key that this version does not know, or an invalid value.
    """
    try:
        return _from_dict(settings)
    except (TypeError, KeyError, AttributeError, ValueError, OverflowError, RecursionError) as error:
        if isinstance(error, RosaError):
            raise
        raise ConfigError(f"not a configuration as a record holds it: {type(error).__name__}: {error}") from error


def _from_dict(settings: Mapping[str, Any]) -> Config:
    name = settings["method"]["name"]
    if name not in methods():
        raise ConfigError(
            f"method.name={name!r}: expected one of {', '.join(methods())}; for a method of another package, install "
            "that package"
        )
    method = _typed(methods()[name].config, settings["method"], "method.")
    return _typed(Config, dict(settings) | {"method": method}, "")


def _typed(kind: type[Any], values: Mapping[str, Any], place: str) -> Any:
    hints = typing.get_type_hints(kind)
    known = {field.name for field in dataclasses.fields(kind)}
    given = dict(values)
    for name, value in values.items():
        if name not in known:
            raise ConfigError(f"{place}{name}: this version of rosa has no such key")
        if dataclasses.is_dataclass(hints[name]) and isinstance(value, Mapping):
            given[name] = _typed(hints[name], value, f"{place}{name}.")
    return kind(**given)
