"""Configuration of the ``task`` group."""

from __future__ import annotations

from dataclasses import dataclass, field

from rosa.config.checks import choice, require, texts


@dataclass
class LocalTaskConfig:
    """A task's files in the official download (``data=local``)."""

    folder: str = ""
    """Relative to ``data.dir``."""
    train: str = "train.tsv"
    evaluation: dict[str, str] = field(default_factory=dict)
    """Evaluation split -> file."""
    columns: list[str] = field(default_factory=list)
    """Column names of files without a header line; empty if they have one."""
    texts: list[str] = field(default_factory=list)
    """The one or two text columns."""
    label: str = "label"
    """The label column."""

    def __post_init__(self) -> None:
        texts("task.local.columns", self.columns)
        texts("task.local.texts", self.texts)


@dataclass
class HubTaskConfig:
    """A task's dataset on the hub (``data=hub``)."""

    path: str = "nyu-mll/glue"
    revision: str = "bcdcba79d07bc864c1c254ccfcedcce55bcc9a8c"
    """Commit, so that the data cannot change."""
    name: str = ""
    """The dataset's configuration; empty for the task's name."""
    carve: dict[str, int] = field(default_factory=dict)
    """Splits that the dataset lacks, and how many of the last training rows each takes, one after the other."""


TRAIN = "train"
"""Name of the training split."""
LOSS_ON = ("reference", "all")
SCORERS = ("e2e", "number", "slots", "sql")
KINDS = ("classification", "regression", "vector_regression", "generation")


@dataclass
class TaskConfig:
    """A task: its texts or vectors, labels, splits and metrics."""

    name: str = ""
    """Name in tables and folders."""
    kind: str = "classification"
    """``classification`` or ``regression`` of texts, to a class or a number; ``vector_regression``, vectors to vectors,
    by a model without a head; ``generation``, text to text, by a causal language model."""
    texts: list[str] = field(default_factory=list)
    """The one or two text columns of the hub's dataset or the user's files (generation: input and target, or two inputs
    and the target); none for vectors."""
    label: str = "label"
    """The label column of the same data."""
    labels: list[str] = field(default_factory=list)
    """Label names in the order of their numbers (classification). With ``data=files`` it may be empty: then the labels
    are those of the training file, sorted."""
    label_range: list[float] = field(default_factory=list)
    """Smallest and largest label (regression). With ``data=files`` it may be empty: then any number up to 1e18 is."""
    metrics: list[str] = field(default_factory=list)
    """All official metrics; each is recorded."""
    headline: str = ""
    """The metric that is shown in tables and used for selection."""
    lower_is_better: bool = False
    """Whether lower values of the headline are better."""
    evaluation: list[str] = field(default_factory=lambda: ["validation"])
    """Evaluation splits, by their names on the hub; the first one is used for selection."""
    rows: dict[str, int] = field(default_factory=dict)
    """Official number of rows of each split; a run on local or hub data with other numbers warns."""
    test: str = ""
    """Split that is decoded once with the selected weights after training, and never used for selection (generation).
    Empty decodes nothing, as in runs that only select a learning rate."""
    prompt: str = ""
    """Prompt template, with ``{given}`` for the input text (generation)."""
    joiner: str = " | "
    """Between two input texts (generation)."""
    scorer: str = "e2e"
    """What scores the texts of ``test`` (generation): ``e2e``, the E2E challenge's; ``number``, exact match of the
    number behind ``####``; ``slots``, exact match and slot F1 of a meaning representation; ``sql``, exact match and
    execution of a query, whose first input text holds the CREATE statements."""
    loss_on: str = "reference"
    """Tokens that count in the training loss: ``reference``, or ``all`` (generation)."""
    local: LocalTaskConfig = field(default_factory=LocalTaskConfig)
    hub: HubTaskConfig = field(default_factory=HubTaskConfig)

    def __post_init__(self) -> None:
        choice("task.kind", self.kind, KINDS)
        choice("task.loss_on", self.loss_on, LOSS_ON)
        choice("task.scorer", self.scorer, SCORERS)
        require(bool(self.name), "task.name", self.name, "a name")
        for key in ("texts", "labels", "metrics", "evaluation"):
            texts(f"task.{key}", getattr(self, key))
        if self.kind == "vector_regression":
            require(not self.texts, "task.texts", self.texts, "no columns with task.kind=vector_regression")
        else:
            most = 3 if self.kind == "generation" else 2
            require(1 <= len(self.texts) <= most, "task.texts", self.texts, "one or two column names")
        require(self.headline in self.metrics, "task.headline", self.headline, f"one of task.metrics={self.metrics}")
        require(bool(self.evaluation), "task.evaluation", self.evaluation, "at least one split")
        if self.kind == "generation":
            require(len(self.texts) >= 2, "task.texts", self.texts, "two columns, input and target, or three")
            require(self.prompt.count("{given}") == 1, "task.prompt", self.prompt, "a text that contains {given} once")
            other = "a split that is not in task.evaluation, or ''"
            require(self.test not in self.evaluation, "task.test", self.test, other)
        elif self.kind == "classification":
            several = len(self.labels) != 1 and len(set(self.labels)) == len(self.labels)
            require(several, "task.labels", self.labels, "at least two different label names")
            binary = len(self.labels) <= 2 or "f1" not in self.metrics
            f1 = f"no f1 with {len(self.labels)} labels, since it is defined for two classes"
            require(binary, "task.metrics", self.metrics, f1)
        elif self.kind == "regression":
            ordered = len(self.label_range) == 2 and self.label_range[0] < self.label_range[1]
            require(ordered or not self.label_range, "task.label_range", self.label_range, "[smallest, largest]")

    @property
    def splits(self) -> tuple[str, ...]:
        """All splits: training, evaluation, and the test split if there is one."""
        return (TRAIN, *self.evaluation, *((self.test,) if self.test else ()))

    @property
    def is_labelled(self) -> bool:
        """Whether each example has a label, a class or a number, beside its texts, and the model a head for it."""
        return self.kind in ("classification", "regression")
