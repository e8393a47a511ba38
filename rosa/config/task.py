"""What a run starts from: model, task and data."""

from __future__ import annotations

from dataclasses import dataclass, field

from rosa.config.checks import choice, require


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
class HubTaskConfig:
    """Where the hub has a task's data (used by ``data=hub``)."""

    path: str = "nyu-mll/glue"
    revision: str = "bcdcba79d07bc864c1c254ccfcedcce55bcc9a8c"
    """A commit, so that the data cannot change."""
    name: str = ""
    """The data set's configuration; empty for the task's name."""


TRAIN = "train"
"""Name of the training split."""
LOSS_ON = ("reference", "all")
KINDS = ("classification", "regression", "vector_regression", "generation")


@dataclass
class TaskConfig:
    """A task: its texts or vectors, labels, splits and metrics."""

    name: str = ""
    kind: str = "classification"
    """``classification`` or ``regression`` of texts, to a class or a number; ``vector_regression``: vectors to vectors,
    by a model without a head; ``generation``: a text from a text, by a causal language model."""
    texts: list[str] = field(default_factory=list)
    """The one or two text columns of the hub's data set, or of one's own files (generation: the given and the wanted
    one); none for vectors."""
    label: str = "label"
    """The label's column there."""
    labels: list[str] = field(default_factory=list)
    """Label names in the order of their numbers (classification). Where ``data=files`` and none are named, those of the
    training file, sorted."""
    label_range: list[float] = field(default_factory=list)
    """Smallest and largest label (regression); with ``data=files`` it may be left out, and any number is a label."""
    metrics: list[str] = field(default_factory=list)
    """Every official metric, recorded all."""
    headline: str = ""
    """The one metric that tables show and selection uses."""
    lower_is_better: bool = False
    """The headline is an error: the lowest is the best."""
    evaluation: list[str] = field(default_factory=lambda: ["validation"])
    """Evaluation splits as the hub names them; the first one is used for selection."""
    test: str = ""
    """The split that the selected weights are tried on, once, when training is over (generation); never used for
    selection. Empty where nothing is to be decoded: a run that only chooses a learning rate."""
    prompt: str = ""
    """What the model is given, with ``{given}`` for the given text (generation)."""
    loss_on: str = "reference"
    """The tokens whose loss is trained on: those of the ``reference``, or ``all`` (generation)."""
    local: LocalTaskConfig = field(default_factory=LocalTaskConfig)
    hub: HubTaskConfig = field(default_factory=HubTaskConfig)

    def __post_init__(self) -> None:
        choice("task.kind", self.kind, KINDS)
        choice("task.loss_on", self.loss_on, LOSS_ON)
        require(bool(self.name), "task.name", self.name, "a name")
        if self.kind == "vector_regression":
            require(not self.texts, "task.texts", self.texts, "none for task.kind=vector_regression")
        else:
            require(len(self.texts) in (1, 2), "task.texts", self.texts, "one or two column names")
        require(self.headline in self.metrics, "task.headline", self.headline, f"one of task.metrics={self.metrics}")
        require(bool(self.evaluation), "task.evaluation", self.evaluation, "at least one split")
        if self.kind == "generation":
            require(len(self.texts) == 2, "task.texts", self.texts, "the given and the wanted text's column")
            require(self.prompt.count("{given}") == 1, "task.prompt", self.prompt, "a text with one {given} in it")
            require(self.test not in self.evaluation, "task.test", self.test, "a split of its own, or none")
        elif self.kind == "classification":
            several = len(self.labels) != 1 and len(set(self.labels)) == len(self.labels)
            require(several, "task.labels", self.labels, "at least two different label names")
            binary = len(self.labels) <= 2 or "f1" not in self.metrics
            require(binary, "task.metrics", self.metrics, f"no f1 with {len(self.labels)} labels: it is of two classes")
        elif self.kind == "regression":
            ordered = len(self.label_range) == 2 and self.label_range[0] < self.label_range[1]
            require(ordered or not self.label_range, "task.label_range", self.label_range, "[smallest, largest]")

    @property
    def has_head(self) -> bool:
        """Whether the model gets a head for this task on top of its pretrained backbone."""
        return self.is_labelled

    @property
    def splits(self) -> tuple[str, ...]:
        """Every split: that of training, those of evaluation, and the test split where there is one."""
        return (TRAIN, *self.evaluation, *((self.test,) if self.test else ()))

    @property
    def is_labelled(self) -> bool:
        """Whether its texts come with a class or a number each."""
        return self.kind in ("classification", "regression")
