"""The typed configuration of a run, and every check that needs no data and no model.

Each group of ``conf/`` has a dataclass here. Hydra composes YAML files into these types, so a misspelt key or a value
of the wrong type is refused while composing; ranges are checked in ``__post_init__`` and conflicts between groups in
:func:`check`. The method classes are also the Python API (``rosa.attach(model, rosa.RosaConfig(rank=8))``).

Nothing here imports torch: a wrong configuration is refused in well under a second.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from dataclasses import dataclass, field
from typing import Any, ClassVar

TUNED = "tuned"
"""``train.lr=tuned``: the learning rate that won the tuning experiment (see ``TuningConfig``)."""


class ConfigError(ValueError):
    """A configuration value that cannot be used; the message names the key, the value and what would be right."""


def _require(condition: bool, key: str, value: object, expected: str) -> None:
    if not condition:
        raise ConfigError(f"{key}={value!r}: expected {expected}")


def _choice(key: str, value: str, options: tuple[str, ...]) -> None:
    _require(value in options, key, value, "one of " + ", ".join(options))


def _positive(key: str, value: float) -> None:
    _require(math.isfinite(value) and value > 0, key, value, "a number above 0")


def _not_negative(key: str, value: float) -> None:
    _require(math.isfinite(value) and value >= 0, key, value, "a number of at least 0")


def _rank(value: object) -> None:
    expected = "a whole number of at least 1, or a share of min(out, in) between 0 and 1"
    _require(isinstance(value, (int, float)) and not isinstance(value, bool), "method.rank", value, expected)
    whole = isinstance(value, int) and value >= 1
    share = isinstance(value, float) and 0 < value < 1
    _require(whole or share, "method.rank", value, expected)


# --- methods ---------------------------------------------------------------------------------------------------------

ATTENTION = ("*attention*", "*attn*")
"""Default targets: every linear layer inside a module whose name says attention, in any Hugging Face architecture."""


@dataclass
class MethodConfig:
    """What every method has: a name, and what becomes of the task's head."""

    name: str = ""
    head: str = "train"
    """``train`` (the field's standard) or ``freeze`` (what the authors' released code does)."""

    NAME: ClassVar[str] = ""

    def __post_init__(self) -> None:
        self.name = self.name or self.NAME
        _require(self.name == self.NAME, "method.name", self.name, f"{self.NAME!r} for {type(self).__name__}")
        _choice("method.head", self.head, ("train", "freeze"))


@dataclass
class TargetedConfig(MethodConfig):
    """A method that adapts the layers whose names match a pattern."""

    targets: list[str] = field(default_factory=lambda: list(ATTENTION))
    """Shell patterns (``*``, ``?``), matched without case against a module's dotted name or any dotted suffix of it."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _require(bool(self.targets) and all(self.targets), "method.targets", self.targets, "at least one pattern")


@dataclass
class RosaConfig(TargetedConfig):
    """ROSA: train a random subspace of the singular vectors of each weight, and draw a new one every so often.

    Source: arXiv 2407.07802, section 3 and algorithm 1.
    """

    rank: Any = 8
    """Trainable singular triplets R of each weight: an int, or a float in (0, 1), a share of min(out, in)."""
    every: int = 2
    """Units between two resamples; 0 never resamples (an SVD initialisation only)."""
    unit: str = "epoch"
    """What ``every`` counts: ``epoch`` or ``step`` (optimizer updates)."""
    sampling: str = "random"
    """``random`` subset without replacement, ``top``, ``bottom``, or ``window``: a random contiguous block."""
    train: str = "ab"
    """Which factors get gradients: ``ab``, ``a`` or ``b``."""
    optimizer_state: str = "reset"
    """What a resample does to the optimizer's state of A and B: ``reset`` or ``keep``."""

    NAME: ClassVar[str] = "rosa"

    def __post_init__(self) -> None:
        super().__post_init__()
        _rank(self.rank)
        _require(self.every >= 0, "method.every", self.every, "a whole number of at least 0")
        _choice("method.unit", self.unit, ("epoch", "step"))
        _choice("method.sampling", self.sampling, ("random", "top", "bottom", "window"))
        _choice("method.train", self.train, ("ab", "a", "b"))
        _choice("method.optimizer_state", self.optimizer_state, ("reset", "keep"))


@dataclass
class LoraConfig(TargetedConfig):
    """LoRA (arXiv 2106.09685) through ``loralib``: W stays, B A x alpha/r is added."""

    rank: Any = 8
    alpha: float = 16.0
    """The update is scaled by alpha / rank."""
    dropout: float = 0.0
    """Dropout on the adapter's input, in [0, 1)."""

    NAME: ClassVar[str] = "lora"

    def __post_init__(self) -> None:
        super().__post_init__()
        _rank(self.rank)
        _positive("method.alpha", self.alpha)
        _require(0 <= self.dropout < 1, "method.dropout", self.dropout, "a number in [0, 1)")


@dataclass
class IA3Config(MethodConfig):
    """(IA)3 (arXiv 2205.05638): learned vectors, starting at 1, that scale activations and never weights."""

    variant: str = "paper"
    """``paper``: keys, values and the feed-forward's inner activations; ``attention_inputs``: the inputs of every
    attention linear, as the ROSA authors' released code does."""

    NAME: ClassVar[str] = "ia3"

    def __post_init__(self) -> None:
        super().__post_init__()
        _choice("method.variant", self.variant, ("paper", "attention_inputs"))


@dataclass
class FullConfig(MethodConfig):
    """Full fine-tuning: every parameter trains."""

    NAME: ClassVar[str] = "full"

    def __post_init__(self) -> None:
        super().__post_init__()
        _require(self.head == "train", "method.head", self.head, "'train': full fine-tuning trains everything")


METHODS: dict[str, type[MethodConfig]] = {c.NAME: c for c in (RosaConfig, LoraConfig, IA3Config, FullConfig)}


# --- model, task, data -----------------------------------------------------------------------------------------------


@dataclass
class MiniModelConfig:
    """Shape and pretraining of the small model that the project makes itself (used by ``source: mini``)."""

    layers: int = 4
    hidden: int = 128
    heads: int = 4
    intermediate: int = 512
    sentences: int = 20000
    """Sentences of generated text to pretrain on."""
    steps: int = 1500
    batch_size: int = 64
    lr: float = 1e-3
    seed: int = 0

    def __post_init__(self) -> None:
        for key in ("layers", "hidden", "heads", "intermediate", "sentences", "steps", "batch_size", "lr"):
            _positive(f"model.mini.{key}", getattr(self, key))
        _require(self.hidden % self.heads == 0, "model.mini.hidden", self.hidden, f"a multiple of heads={self.heads}")


@dataclass
class ModelConfig:
    """Which backbone, and where its weights come from."""

    name: str = ""
    source: str = "hub"
    """``hub``, ``folder`` (as ``save_pretrained`` writes), ``package`` (an installed package's folder) or ``mini``."""
    path: str = ""
    """Hub name, folder, or ``package/folder``; empty for ``mini``."""
    revision: str = ""
    """Commit of the hub's repository; empty elsewhere."""
    dtype: str = "float32"
    """Of the frozen weights: ``float32`` or ``bfloat16``; trainable parameters are float32 always."""
    mini: MiniModelConfig = field(default_factory=MiniModelConfig)

    def __post_init__(self) -> None:
        _choice("model.source", self.source, ("hub", "folder", "package", "mini"))
        _choice("model.dtype", self.dtype, ("float32", "bfloat16"))
        if self.source != "mini":
            _require(bool(self.path), "model.path", self.path, f"a path for model.source={self.source}")
        _require(bool(self.name), "model.name", self.name, "a short name, used in tables and folders")


@dataclass
class LocalTaskConfig:
    """Where the official GLUE download keeps a task, relative to ``data.dir``."""

    folder: str = ""
    train: str = "train.tsv"
    evaluation: dict[str, str] = field(default_factory=dict)
    """Evaluation split name -> file."""
    columns: list[str] = field(default_factory=list)
    """The names of a file's columns where it has no header line; empty where it has one."""
    texts: list[str] = field(default_factory=list)
    """The columns that hold the one or two texts."""
    label: str = "label"


@dataclass
class TaskConfig:
    """A task: its texts, labels, splits and metrics."""

    name: str = ""
    kind: str = "classification"
    """``classification`` or ``regression``."""
    texts: list[str] = field(default_factory=list)
    """The one or two text columns of the hub's data set."""
    labels: list[str] = field(default_factory=list)
    """Label names in the order of their numbers (classification)."""
    label_range: list[float] = field(default_factory=list)
    """Smallest and largest label (regression)."""
    metrics: list[str] = field(default_factory=list)
    """Every official metric, recorded all."""
    headline: str = ""
    """The one metric that tables show and selection uses."""
    evaluation: list[str] = field(default_factory=lambda: ["validation"])
    """Evaluation splits as the hub names them; the first one is used for selection."""
    local: LocalTaskConfig = field(default_factory=LocalTaskConfig)

    def __post_init__(self) -> None:
        _choice("task.kind", self.kind, ("classification", "regression"))
        _require(bool(self.name), "task.name", self.name, "a name")
        _require(len(self.texts) in (1, 2), "task.texts", self.texts, "one or two column names")
        _require(self.headline in self.metrics, "task.headline", self.headline, f"one of task.metrics={self.metrics}")
        _require(bool(self.evaluation), "task.evaluation", self.evaluation, "at least one split")
        if self.kind == "classification":
            _require(len(self.labels) >= 2, "task.labels", self.labels, "at least two label names")
        else:
            ordered = len(self.label_range) == 2 and self.label_range[0] < self.label_range[1]
            _require(ordered, "task.label_range", self.label_range, "[smallest, largest]")


@dataclass
class DataConfig:
    """Where the examples come from, and how many of them."""

    source: str = "mini"
    """``hub``, ``local`` (``data.dir``) or ``mini`` (made on the spot)."""
    dir: str = ""
    """The folder that holds the tasks' folders (``local``)."""
    limit: int = 0
    """At most this many training rows, sampled with the run's seed; 0 takes all."""
    path: str = ""
    """Hub name of the data set."""
    revision: str = ""
    """Commit of the hub's data set."""
    skip_malformed: bool = False
    """Leave out malformed rows of local files, and count them in the record, where the default stops with an error."""
    train_size: int = 1000
    """Training rows of a mini task."""
    evaluation_size: int = 500
    """Evaluation rows of a mini task."""
    seed: int = 0
    """Seed of the mini tasks' text: the same data for every run seed, as with a real data set."""

    def __post_init__(self) -> None:
        _choice("data.source", self.source, ("hub", "local", "mini"))
        _not_negative("data.limit", self.limit)
        _positive("data.train_size", self.train_size)
        _positive("data.evaluation_size", self.evaluation_size)
        if self.source == "local":
            _require(bool(self.dir), "data.dir", self.dir, "the folder of the data: data=local data.dir=DIR")
        if self.source == "hub":
            _require(bool(self.path), "data.path", self.path, "the hub's name of the data set")


# --- training --------------------------------------------------------------------------------------------------------


@dataclass
class TuningConfig:
    """Where ``train.lr=tuned`` looks: the finished runs of another experiment, on one task and one seed."""

    experiment: str = ""
    task: str = "cola"
    seed: int = 0


@dataclass
class TrainConfig:
    """Optimisation, precision and checkpoints. Defaults are the protocol's (README, Protocol)."""

    epochs: int = 10
    max_steps: int = 0
    """Stop after this many optimizer updates; 0 runs all epochs."""
    lr: Any = 1e-3
    """Peak learning rate, or ``tuned``. (Any: OmegaConf cannot merge a Union; checked below.)"""
    tuning: TuningConfig = field(default_factory=TuningConfig)
    batch_size: int = 32
    """Examples a device and step."""
    accumulation: int = 1
    """Gradient accumulation: batches an optimizer update."""
    evaluation_batch_size: int = 64
    weight_decay: float = 0.1
    beta1: float = 0.9
    beta2: float = 0.98
    epsilon: float = 1e-6
    warmup: float = 0.06
    """Share of all updates in which the learning rate rises from 0."""
    schedule: str = "linear"
    """``linear`` (to 0), ``cosine`` (to 0) or ``constant``, each after the warm-up."""
    max_grad_norm: float = 1.0
    """Gradients are clipped to this norm; 0 does not clip."""
    max_length: int = 512
    """Tokens of an example at most; batches are padded to their own longest example only."""
    group_by_length: bool = True
    """Batch examples of similar length together."""
    precision: str = "auto"
    """``fp32``, ``bf16`` or ``fp16`` (both as autocast); ``auto`` is bf16 on a GPU that has it and fp32 elsewhere."""
    device: str = "auto"
    """``auto``, ``cpu`` or ``cuda``."""
    threads: int = 0
    """CPU threads of a run; 0 leaves PyTorch's own choice."""
    log_steps: int = 50
    """Updates between two log lines of loss and learning rate."""
    save_steps: int = 0
    """Updates between two checkpoints within an epoch; each epoch's end is always one."""
    keep: str = "both"
    """Which weights stay after the run: ``best`` (by the headline), ``last``, ``both`` or ``none``."""
    force: bool = False
    """Start over although a finished or interrupted run is there."""

    def __post_init__(self) -> None:
        for key in ("epochs", "batch_size", "accumulation", "evaluation_batch_size", "epsilon", "max_length"):
            _positive(f"train.{key}", getattr(self, key))
        for key in ("max_steps", "weight_decay", "max_grad_norm", "threads", "save_steps"):
            _not_negative(f"train.{key}", getattr(self, key))
        _positive("train.log_steps", self.log_steps)
        if self.lr == TUNED:
            _require(bool(self.tuning.experiment), "train.tuning.experiment", "", "the name of the tuning experiment")
        else:
            number = isinstance(self.lr, (int, float)) and not isinstance(self.lr, bool)
            _require(
                number and math.isfinite(self.lr) and self.lr > 0,
                "train.lr",
                self.lr,
                f"a number above 0, or {TUNED!r}",
            )
        for key in ("beta1", "beta2", "warmup"):
            _require(0 <= getattr(self, key) < 1, f"train.{key}", getattr(self, key), "a number in [0, 1)")
        _choice("train.schedule", self.schedule, ("linear", "cosine", "constant"))
        _choice("train.precision", self.precision, ("auto", "fp32", "bf16", "fp16"))
        _choice("train.device", self.device, ("auto", "cpu", "cuda"))
        _choice("train.keep", self.keep, ("both", "best", "last", "none"))


@dataclass
class LoggerConfig:
    """Weights & Biases; the records under ``results_dir`` are written whatever is set here."""

    enabled: bool = True
    project: str = "rosa"
    entity: str = ""
    mode: str = "offline"
    """``offline``, ``online`` or ``disabled``; the environment's ``WANDB_MODE`` goes first."""

    def __post_init__(self) -> None:
        _choice("logger.mode", self.mode, ("offline", "online", "disabled"))


@dataclass
class Config:
    """One run."""

    model: ModelConfig
    task: TaskConfig
    method: MethodConfig
    train: TrainConfig
    data: DataConfig
    logger: LoggerConfig
    seed: int = 0
    experiment_name: str = "default"
    """The first part of a run's identity; files under ``experiments/`` set it."""
    results_dir: str = "results"
    cache_dir: str = ".cache"
    """Where models that the project makes itself are kept."""
    jobs: int = 0
    """Runs at a time in a local sweep; 0 is one a CPU core, or one where the runs use a GPU."""

    def __post_init__(self) -> None:
        _require(0 <= self.seed < 2**32, "seed", self.seed, "a whole number in [0, 2^32)")
        _require(bool(self.experiment_name), "experiment_name", self.experiment_name, "a name")
        _not_negative("jobs", self.jobs)
        _require("/" not in self.experiment_name, "experiment_name", self.experiment_name, "a name without '/'")
        check(self)


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
    if config.train.precision == "fp16" and config.train.device == "cpu":
        raise ConfigError("train.precision=fp16 with train.device=cpu: half precision needs a GPU; use fp32 or bf16")


# --- identity --------------------------------------------------------------------------------------------------------

NOT_IDENTITY = {
    "": ("seed", "experiment_name", "results_dir", "cache_dir", "jobs", "logger"),
    "train": ("tuning", "device", "threads", "log_steps", "save_steps", "keep", "force"),
}
"""Keys that change nothing about a run's result (or are a part of its folder's name already)."""


def to_dict(config: Any) -> dict[str, Any]:
    """A configuration as plain dictionaries, lists and numbers."""
    return dataclasses.asdict(config)


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


# --- Hydra -----------------------------------------------------------------------------------------------------------


def register() -> None:
    """Tell Hydra the types of every group; called once by an entry point, before composing."""
    from hydra.core.config_store import ConfigStore

    store = ConfigStore.instance()
    store.store(name="schema", node=Config)
    groups = {"model": ModelConfig, "task": TaskConfig, "train": TrainConfig, "data": DataConfig}
    for group, node in {**groups, "logger": LoggerConfig}.items():
        store.store(group=group, name="schema", node=node)
    for name, node in METHODS.items():
        store.store(group="method", name=f"{name}_schema", node=node)


def from_hydra(composed: Any) -> Config:
    """Turn what Hydra composed into the checked dataclasses.

    Raises:
        ConfigError: a value out of range, a missing value, or two settings that do not go together.
    """
    from omegaconf import DictConfig, OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    plain = composed
    if isinstance(composed, DictConfig):
        _refuse_added_keys(composed)
        try:
            plain = OmegaConf.to_object(composed)
        except OmegaConfBaseException as error:
            raise ConfigError(str(error)) from error
    if not isinstance(plain, Config):
        raise ConfigError(f"composed to {type(plain).__name__}, expected Config: is 'schema' in the defaults list?")
    return plain


def _refuse_added_keys(node: Any, prefix: str = "") -> None:
    """Hydra's ``+key=value`` adds keys that no dataclass has, and that nothing would read."""
    from omegaconf import DictConfig, OmegaConf

    kind = OmegaConf.get_type(node)
    if not dataclasses.is_dataclass(kind):
        return
    known = [f.name for f in dataclasses.fields(kind)]
    for key in node:
        if key not in known:
            raise ConfigError(f"{prefix}{key}: no such key; {prefix or 'the top level'} has: {', '.join(known)}")
        child = node._get_node(key)
        if isinstance(child, DictConfig) and not child._is_none() and not child._is_missing():
            _refuse_added_keys(child, f"{prefix}{key}.")
