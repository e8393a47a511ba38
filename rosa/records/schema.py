"""The keys of a run's record, ``record.json``.

A record is written when a run starts (``status`` is ``running``), after each evaluation, and when the run ends. It is
replaced as a whole, so a killed process leaves the old record or the new one. Tables, figures and the report read
records alone. A number that is not finite is stored as null. Times are wall-clock seconds, memory is in bytes; a score
that is a share is a fraction of 1. A key marked as not required is missing in records written before it existed.
"""
# No `from __future__ import annotations` here: a TypedDict could then not tell which keys are NotRequired.

from typing import Any, Literal, NotRequired, TypeAlias, TypedDict

Status: TypeAlias = Literal["running", "done", "failed"]
Rule: TypeAlias = Literal["best", "last"]


class Identity(TypedDict):
    """The identity of a run, which names its folder."""

    experiment: str
    """``experiment_name`` of the configuration."""
    model: str
    task: str
    method: str
    hash: str
    """Eight hexadecimal digits, of the settings that can change a result and differ from their defaults."""
    seed: int


class Selection(TypedDict):
    """How the run's epoch was chosen."""

    split: str
    """The evaluation split whose score chose."""
    metric: str
    """The task's headline metric."""
    rule: str
    """In words: ``highest accuracy on validation, first of equals``, or ``last epoch``."""


class Metrics(TypedDict, total=False):
    """The scores of a finished run; empty before. ``best`` and ``last`` are entries of ``history``."""

    best: dict[str, Any]
    """The epoch with the best headline on the selection split."""
    last: dict[str, Any]
    """The last epoch."""
    selection: Selection


class Params(TypedDict, total=False):
    """Numbers of parameters."""

    trainable: int
    """Of the adapters (of the whole model with full fine-tuning), without the head."""
    head: int
    """Trainable parameters of the task's head."""
    total: int
    """Of the model without adapters."""


class AdaptedLayer(TypedDict):
    """One adapted layer."""

    name: str
    """Dotted name of the module."""
    kind: str
    """Class of the layer: ``Linear`` or ``Conv1D``."""
    shape: list[int]
    """Of the weight: (out, in)."""
    rank: int | None
    """Null where the method has no rank."""
    trainable: int
    """Trainable parameters of its adapter."""


class Costs(TypedDict, total=False):
    """What training cost, over the whole run, resumes included."""

    steps: int
    """Optimizer updates."""
    examples: int
    """Training examples processed, of all processes."""
    tokens: int
    """Tokens processed, padding included; 0 for vectors."""
    seconds_total: float
    """Training with resamples, evaluations and checkpoints."""
    seconds_in_steps: float
    seconds_per_step_median: float | None
    """Over the latest 10,000 updates."""
    seconds_per_step_mean: float | None
    examples_per_second: float | None
    """Within updates alone."""
    tokens_per_second: float | None
    resamples: int
    seconds_in_resamples: float
    seconds_per_resample_median: float | None
    evaluations: int
    """Evaluations of one split each."""
    seconds_in_evaluations: float
    weights_bytes: int
    """Of all parameters, during an update."""
    gradients_bytes: int
    optimizer_state_bytes: int
    device_bytes: int | None
    """Peak memory that PyTorch allocated on the GPU of the main process; null on a CPU."""
    host_bytes: int | None
    """Peak resident memory of the main process."""
    host_peak_reset: bool
    """False where ``host_bytes`` counts from the start of the process, because the system cannot reset it."""


class LayerChange(TypedDict):
    """How training changed the weight of one layer, against the pretrained one."""

    name: str
    full_rank: int
    """min(out, in)."""
    rank: int
    """Singular values of the change above the rounding of its weight."""
    effective_rank: float
    """Exponential of the entropy of the normalized singular values."""
    norm: float
    """Frobenius norm of the change."""
    relative_norm: float
    """The same, divided by the pretrained weight's norm."""
    visited: float | None
    """Share of the singular directions drawn at least once; null where the method draws none."""


class Diagnostics(TypedDict, total=False):
    """What training changed; empty for a method that adds nothing to weights."""

    layers: list[LayerChange]
    last_subspace: dict[str, Any]
    """As an entry of ``resamples``, of the subspace in which training ended."""


class Hypotheses(TypedDict):
    """The decoded texts."""

    file: str
    """In the run's folder, one text a line."""
    sha256: str


class Scorer(TypedDict):
    """What computed the scores of the texts."""

    tokenizer: str
    versions: dict[str, str]
    options: dict[str, str]
    missing: dict[str, str]
    """Scores that could not be computed, and why."""


class Generation(TypedDict, total=False):
    """The texts of the test split; empty for a task without texts and before decoding."""

    split: str
    weights: Rule
    """The epoch whose weights decoded."""
    epoch: float
    prompts: int
    unended: int
    """Texts cut at the largest number of tokens."""
    empty: int
    limited: int
    """Texts whose length limit was the model's context instead of the setting."""
    hypotheses: Hypotheses
    decoding: dict[str, Any]
    """The settings."""
    warnings: list[str]
    scores: dict[str, float | None]
    """BLEU, NIST, METEOR, ROUGE-L and CIDEr on the official scorer's scale; null where missing."""
    segments: int
    """Meaning representations scored."""
    references: int
    """References of all segments together."""
    scorer: Scorer


class Data(TypedDict, total=False):
    """The data that was read."""

    source: str
    """``hub``, ``local``, ``files``, ``mini`` or ``teacher``."""
    labels: list[str]
    """Found in the training file, where ``task.labels`` names none (``files``)."""
    splits: dict[str, dict[str, Any]]
    """By name: ``rows``, ``sha256``, and what the source adds (see ``rosa.data.TaskData.facts``)."""
    limit: dict[str, int] | None
    """``rows`` kept of the ``of`` training rows read, drawn with ``seed``; null if all were kept."""
    seed: int
    """Of generated data."""
    format: str
    """Of local files: ``tsv``, ``csv`` or ``datasets``."""
    path: str
    """Of a data set on the hub."""
    name: str
    revision: str
    """The commit on the hub."""
    max_length: int
    """Tokens of an input at most; longer ones were cut."""


class Model(TypedDict, total=False):
    """The pretrained model."""

    name: str
    source: str
    """``hub``, ``folder``, ``package``, ``mini`` or ``perceptron``."""
    path: str
    revision: str
    """The commit on the hub."""
    attention: str
    """The implementation of attention: ``sdpa``, ``eager``."""
    drawn: list[str]
    """Parameters that were not in the files and were drawn, such as the head's."""
    sha256: dict[str, str]
    """Of each file of weights; empty for a hub model, which ``revision`` pins."""
    pretraining: dict[str, Any]
    """Of a model that the project pretrained: its text, steps and final losses."""
    padding_added: bool
    """True if the language model got a padding token."""


class Environment(TypedDict, total=False):
    """Software and hardware, with nothing that names the user or the machine."""

    python: str
    packages: dict[str, str | None]
    """Versions by distribution; null where it is not installed."""
    system: str
    cpu: str | None
    cpu_count: int | None
    threads: int
    """CPU threads of PyTorch."""
    device: str
    """The GPU's name, or ``cpu``."""
    cuda: str | None
    commit: str | None
    """Of the checkout; null without git."""
    dirty: bool | None
    """True if code or configuration differed from the commit."""
    processes: int
    """That trained together."""


class TuningCell(TypedDict):
    """One learning rate of the grid."""

    lr: float
    score: float | None
    status: str
    """``done``, ``failed`` or ``diverged``."""


class Tuning(TypedDict):
    """How ``train.lr=tuned`` was resolved."""

    experiment: str
    """Whose runs chose."""
    task: str
    seed: int
    split: NotRequired[str]
    metric: str
    rule: str
    """``best`` or ``last``: the epoch whose score chose."""
    grid: list[TuningCell]
    chosen: float


class Tracking(TypedDict):
    """The mirror in Weights & Biases."""

    id: str | None
    mode: str
    """``online``, ``offline`` or ``disabled``."""


class Failure(TypedDict):
    """Why a run failed."""

    type: str
    """Class of the error; ``KilledProcess`` where the process was killed."""
    message: str
    traceback: str


class Record(TypedDict):
    """The whole record."""

    schema: int
    """Version of this layout."""
    status: Status
    """A run that was interrupted stays ``running`` and resumes when it is asked for again."""
    identity: Identity
    command: str
    """The shell command that repeats the run."""
    config: dict[str, Any]
    """The resolved configuration, as nested dictionaries."""
    metrics: Metrics
    warnings: list[str]
    """What makes the scores doubtful, in words."""
    history: list[dict[str, Any]]
    """One entry an evaluated epoch: ``epoch``, ``step``, and for each evaluation split a dictionary of its metrics and
    ``loss``."""
    training: list[dict[str, Any]]
    """One entry a log line: ``step``, ``epoch``, ``loss`` (mean since the last entry), ``grad_norm``,
    ``learning_rate``."""
    resamples: list[dict[str, Any]]
    """One entry a resample: ``step``, ``epoch``, ``resample_layers`` (number of layers), ``resample_seconds``,
    ``factorization_seconds`` (a list, by layer), ``subspace_moved`` (a list: the Frobenius norm of each layer's change
    of A B since the resample before), ``visited_share`` (mean share of singular directions drawn so far)."""
    params: Params
    adapted: list[AdaptedLayer]
    costs: Costs
    environment: Environment
    diagnostics: NotRequired[Diagnostics]
    generation: NotRequired[Generation]
    data: Data
    model: Model
    tuning: Tuning | None
    """Null unless ``train.lr=tuned``."""
    wandb: Tracking | None
    started: str
    """UTC, ISO 8601."""
    finished: str | None
    error: Failure | None
    """Null unless ``status`` is ``failed``."""
