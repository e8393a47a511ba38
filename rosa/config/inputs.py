"""What a run starts from: model, task and data."""

from __future__ import annotations

from dataclasses import dataclass, field

from rosa.config.checks import choice, not_negative, positive, require


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
    architecture: str = "roberta"
    """``roberta``, for the GLUE tasks, or ``gpt2``, for E2E."""
    vocabulary: int = 2000
    """Tokens at most, the 256 bytes and the two special ones among them (gpt2; roberta knows the grammar's words)."""
    context: int = 256
    """Tokens of an input at most (gpt2)."""
    text: str = ""
    """A file to pretrain on in place of generated text (gpt2): the references of an E2E CSV, or a line a paragraph."""

    def __post_init__(self) -> None:
        numbers = ("layers", "hidden", "heads", "intermediate", "sentences", "steps", "batch_size", "lr", "context")
        for key in numbers:
            positive(f"model.mini.{key}", getattr(self, key))
        require(self.hidden % self.heads == 0, "model.mini.hidden", self.hidden, f"a multiple of heads={self.heads}")
        choice("model.mini.architecture", self.architecture, ("roberta", "gpt2"))
        require(self.vocabulary >= 258, "model.mini.vocabulary", self.vocabulary, "at least 258: each byte is a token")
        if self.architecture == "roberta":
            require(not self.text, "model.mini.text", self.text, "a text of one's own for architecture=gpt2 alone")


@dataclass
class PerceptronConfig:
    """Shape of the linear map or multilayer perceptron of a regression (used by ``source: perceptron``)."""

    widths: list[int] = field(default_factory=list)
    """Of the input, of each hidden layer, and of the output: two widths are a linear map."""
    seed: int = 0
    """Of the weights before fine-tuning: the same for every run seed, as a pretrained model's are."""

    def __post_init__(self) -> None:
        for width in self.widths:
            positive("model.perceptron.widths", width)


@dataclass
class ModelConfig:
    """Which backbone, and where its weights come from."""

    name: str = ""
    source: str = "hub"
    """``hub``, ``folder`` (as ``save_pretrained`` writes), ``package`` (an installed package's folder), ``mini`` or
    ``perceptron`` (drawn on the spot)."""
    path: str = ""
    """Hub name, folder, or ``package/folder``; empty for ``mini`` and ``perceptron``."""
    revision: str = ""
    """Commit of the hub's repository; empty elsewhere."""
    dtype: str = "float32"
    """Of the frozen weights: ``float32`` or ``bfloat16``; trainable parameters are float32 always."""
    mini: MiniModelConfig = field(default_factory=MiniModelConfig)
    perceptron: PerceptronConfig = field(default_factory=PerceptronConfig)

    def __post_init__(self) -> None:
        choice("model.source", self.source, ("hub", "folder", "package", "mini", "perceptron"))
        choice("model.dtype", self.dtype, ("float32", "bfloat16"))
        if self.source == "perceptron":
            widths = self.perceptron.widths
            require(len(widths) >= 2, "model.perceptron.widths", widths, "at least two: of the input and of the output")
            choice("model.dtype", self.dtype, ("float32",))
        elif self.source != "mini":
            require(bool(self.path), "model.path", self.path, f"a path for model.source={self.source}")
        require(bool(self.name), "model.name", self.name, "a short name, used in tables and folders")


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
    """The one or two text columns of the hub's data set (generation: the given and the wanted one); none for
    vectors."""
    labels: list[str] = field(default_factory=list)
    """Label names in the order of their numbers (classification)."""
    label_range: list[float] = field(default_factory=list)
    """Smallest and largest label (regression)."""
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
            require(len(self.labels) >= 2, "task.labels", self.labels, "at least two label names")
        elif self.kind == "regression":
            ordered = len(self.label_range) == 2 and self.label_range[0] < self.label_range[1]
            require(ordered, "task.label_range", self.label_range, "[smallest, largest]")

    @property
    def has_head(self) -> bool:
        """Whether the model gets a head for this task on top of its pretrained backbone."""
        return self.is_labelled

    @property
    def is_labelled(self) -> bool:
        """Whether its texts come with a class or a number each."""
        return self.kind in ("classification", "regression")


@dataclass
class TeacherConfig:
    """How the model that labels a regression's data differs from the one that learns (used by ``source: teacher``)."""

    rank: int = 24
    """Rank of the difference in each layer's weight."""

    def __post_init__(self) -> None:
        positive("data.teacher.rank", self.rank)


@dataclass
class DataConfig:
    """Where the examples come from, and how many of them."""

    source: str = "mini"
    """``hub``, ``local`` (``data.dir``), or made on the spot: ``mini`` (texts) or ``teacher`` (vectors)."""
    dir: str = ""
    """The folder that holds the tasks' folders (``local``)."""
    limit: int = 0
    """At most this many training rows, sampled with the run's seed; 0 takes all."""
    holdout: float = 0.1
    """Share of the training rows, of those that ``limit`` leaves, that ``selection=holdout`` keeps aside, drawn with
    the run's seed."""
    path: str = ""
    """Hub name of the data set."""
    name: str = ""
    """The hub's name of the task within the data set."""
    revision: str = ""
    """Commit of the hub's data set."""
    skip_malformed: bool = False
    """Leave out malformed rows of local files, and count them in the record, where the default stops with an error."""
    train_size: int = 1000
    """Training rows, where they are made on the spot."""
    evaluation_size: int = 500
    """Rows of each evaluation split, where they are made on the spot."""
    seed: int = 0
    """Seed of what is made on the spot: the same data for every run seed, as with a real data set."""
    teacher: TeacherConfig = field(default_factory=TeacherConfig)

    def __post_init__(self) -> None:
        choice("data.source", self.source, ("hub", "local", "mini", "teacher"))
        not_negative("data.limit", self.limit)
        require(0 < self.holdout < 1, "data.holdout", self.holdout, "a share in (0, 1)")
        positive("data.train_size", self.train_size)
        positive("data.evaluation_size", self.evaluation_size)
        if self.source == "teacher":
            require(
                not self.limit, "data.limit", self.limit, "0 for data.source=teacher: data.train_size sets the rows"
            )
        if self.source == "local":
            require(bool(self.dir), "data.dir", self.dir, "the folder of the data: data=local data.dir=DIR")
        if self.source == "hub":
            require(bool(self.path), "data.path", self.path, "the hub's name of the data set")
