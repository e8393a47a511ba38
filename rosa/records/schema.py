"""The keys of a run's record, ``record.json``: their types, and a comment on each.

A record is written when a run starts (``status`` is ``running``), after each evaluation, and when the run ends. It is
replaced as a whole, so a killed process leaves the old record or the new one. Tables, figures and the report read
records alone. A number that is not finite is stored as null. Durations are wall-clock seconds; a score that is a share
is a fraction of 1.

A part of the record that is not known yet, or that does not apply to the run, is an empty object or list. An optional
key is missing where it does not apply, and in records that are older than the key.
"""
# No `from __future__ import annotations` here: a TypedDict could then not tell which keys are NotRequired.

from types import UnionType
from typing import (
    Any,
    Literal,
    NotRequired,
    TypeAlias,
    TypedDict,
    Union,
    get_args,
    get_origin,
    get_type_hints,
    is_typeddict,
)

Status: TypeAlias = Literal["running", "done", "failed"]
Rule: TypeAlias = Literal["best", "last"]
Settings: TypeAlias = dict[str, Any]
"""One group of the configuration, by the keys of its dataclass in ``rosa.config``. Not a ``TypedDict``: each method
and each version has keys of its own, and :func:`rosa.records.settings` compares them as data."""
Scores: TypeAlias = dict[str, float | None]
"""Metric -> value, null where it is not finite or not computed; ``loss`` is among them."""


class Identity(TypedDict):
    """The identity of a run, which names its folder."""

    experiment: str
    """``experiment_name`` of the configuration."""
    model: str
    """``model.name``."""
    task: str
    """``task.name``."""
    method: str
    """``method.name``."""
    hash: str
    """Eight hexadecimal digits, of the settings that can change a result and differ from their defaults."""
    seed: int
    """Of every random draw."""


class Configuration(TypedDict):
    """The configuration of a run with every value resolved."""

    model: Settings
    """``rosa.config.ModelConfig``."""
    task: Settings
    """``rosa.config.TaskConfig``."""
    method: Settings
    """The configuration of the method, such as ``rosa.config.RosaConfig``."""
    train: Settings
    """``rosa.config.TrainConfig``; ``lr`` is the number used."""
    data: Settings
    """``rosa.config.DataConfig``."""
    logger: Settings
    """``rosa.config.LoggerConfig``."""
    decoding: NotRequired[Settings]
    """``rosa.config.DecodingConfig``."""
    selection: NotRequired[str]
    """What chose the epoch: ``dev-best``, ``dev-last`` or ``holdout``."""
    seed: int
    """As in ``identity``."""
    experiment_name: str
    """As ``identity.experiment``."""
    results_dir: str
    """The results folder, as given."""
    cache_dir: str
    """Where models that the project makes itself are kept."""
    jobs: int
    """Runs at a time in a local sweep, as given."""


class Evaluation(TypedDict):
    """The scores after one epoch; besides the keys below, a key for each evaluation split, with its ``Scores``."""

    epoch: float
    """Epochs of training done."""
    step: int
    """Optimizer updates done."""


class Selection(TypedDict):
    """How the run's epoch was chosen."""

    split: str
    """The evaluation split whose score chose."""
    metric: str
    """The task's headline metric."""
    rule: str
    """In words, for instance ``highest accuracy on validation, first of equals``, or ``last epoch``."""


class Metrics(TypedDict):
    """The scores of a finished run; empty before."""

    best: Evaluation
    """The entry of ``history`` with the best headline on the selection split."""
    last: Evaluation
    """The last entry of ``history``."""
    selection: Selection
    """What ``best`` was selected by, and which of the two the run shows."""


class Loss(TypedDict):
    """One line of the training log."""

    loss: float | None
    """Mean since the line before."""
    grad_norm: float | None
    """Norm of the gradient before clipping, of the latest update."""
    learning_rate: float
    """Of the latest update."""
    epoch: float
    """Epochs of training done."""
    step: int
    """Optimizer updates done."""


class Subspace(TypedDict):
    """The end of a subspace: by a resample, or with training."""

    step: int
    """Optimizer updates done."""
    epoch: float
    """Epochs of training done."""
    subspace_moved: NotRequired[list[float]]
    """For each layer in the order of ``adapted``, the Frobenius norm of the change of A B since the subspace began."""


class Resample(Subspace):
    """One resample of all layers."""

    resample_layers: int
    """Number of layers."""
    resample_seconds: float
    """Duration, with the device synchronized."""
    factorization_seconds: NotRequired[list[float]]
    """Duration of each layer's factorization."""
    visited_share: NotRequired[float]
    """Mean over the layers of the share of singular directions drawn so far; a method may draw none."""
    resample_cleared_states: NotRequired[int]
    """Of older records: number of parameters whose optimizer state was cleared."""


class Params(TypedDict):
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


class Costs(TypedDict):
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
    """Within updates."""
    seconds_per_step_median: float | None
    """Over the latest 10,000 updates."""
    seconds_per_step_mean: float | None
    """Over all updates."""
    examples_per_second: float | None
    """Within updates alone."""
    tokens_per_second: float | None
    """Within updates alone."""
    resamples: int
    """Number of resamples, the first draw excluded."""
    seconds_in_resamples: float
    """Of all resamples together."""
    seconds_per_resample_median: float | None
    """Null without resamples."""
    evaluations: int
    """Evaluations of one split each."""
    seconds_in_evaluations: float
    """Of all evaluations together."""
    weights_bytes: int
    """Of all parameters and buffers, during an update."""
    gradients_bytes: int
    """Of the trainable parameters' gradients."""
    optimizer_state_bytes: int
    """Such as Adam's moments."""
    device_bytes: int | None
    """Peak memory that PyTorch allocated on the GPU of the main process; null on a CPU."""
    host_bytes: int | None
    """Peak resident memory of the main process."""
    host_peak_reset: bool
    """False where ``host_bytes`` counts from the start of the process, because the system cannot reset it."""


class LayerChange(TypedDict):
    """How training changed the weight of one layer, against the pretrained one."""

    name: str
    """Dotted name of the module."""
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


class SupportLayer(TypedDict):
    """The sparse part of a layer."""

    name: str
    """Dotted name of the layer in the model."""
    entries: int
    """Trained entries."""
    density: float
    """``entries`` as a share of the weight's."""


class Support(TypedDict):
    """Where the sparse parts stand, which the run's folder holds in ``support.safetensors``."""

    sha256: str
    """Over the positions, with each layer's name and shape."""
    layers: list[SupportLayer]
    """One entry a layer with a sparse part."""


class Diagnostics(TypedDict, total=False):
    """What training changed; empty for a method that adds nothing to weights."""

    layers: list[LayerChange]
    """One entry a layer, in the order of ``adapted``."""
    last_subspace: Subspace
    """The subspace in which training ended."""
    support: Support
    """Of a method with a sparse part."""


class Hypotheses(TypedDict):
    """The decoded texts."""

    file: str
    """In the run's folder, one text a line."""
    sha256: str
    """Of the file."""


class Scorer(TypedDict):
    """What computed the scores of the texts."""

    tokenizer: str
    """What split the texts into tokens for METEOR, ROUGE-L and CIDEr."""
    versions: dict[str, str]
    """Of the packages and of Java."""
    options: dict[str, str]
    """The options of each score, as signatures."""
    missing: dict[str, str]
    """Scores that could not be computed, and why."""


class Generation(TypedDict):
    """The texts of the test split; empty for a task without texts and before decoding."""

    split: str
    """Whose inputs were decoded."""
    weights: Rule
    """The epoch whose weights decoded."""
    epoch: float
    """Its number of epochs."""
    prompts: int
    """Distinct inputs, each decoded once."""
    unended: int
    """Texts cut at the largest number of tokens."""
    empty: int
    """Texts without a word."""
    limited: int
    """Texts whose length limit was the model's context instead of the setting."""
    hypotheses: Hypotheses
    """The file of the texts."""
    decoding: Settings
    """``rosa.config.DecodingConfig``, without the batch size."""
    warnings: list[str]
    """What a reader of the texts should know."""
    scores: Scores
    """By ``task.scorer``: BLEU, NIST, METEOR, ROUGE-L and CIDEr on the official scorer's scale, or shares of right
    answers; null where missing."""
    segments: int
    """Meaning representations scored."""
    references: int
    """References of all segments together."""
    scorer: Scorer
    """What computed the scores."""


class Split(TypedDict):
    """One split of the data."""

    rows: int
    """Rows used."""
    sha256: str
    """Of everything read for the split: of a file's bytes, elsewhere of the rows in order."""
    malformed: NotRequired[int]
    """Rows left out as they do not fit the task's columns."""
    file: NotRequired[str]
    """Of local files: its name."""
    label_counts: NotRequired[dict[str, int]]
    """Of a classification: label -> rows."""
    label_mean: NotRequired[float]
    """Of a regression on texts."""
    label_range: NotRequired[list[float]]
    """Of a regression on texts: the smallest and the largest label."""
    given: NotRequired[int]
    """Of a generation task: distinct inputs."""
    in_train: NotRequired[int]
    """Of an evaluation split: rows whose texts a training row has too, up to case and blanks; of a generation task:
    distinct inputs that the training split has too."""
    inside_train: NotRequired[int]
    """Of an evaluation split of single texts: rows of five words or more that stand in a training text."""
    tokens: NotRequired[int]
    """Tokens of all rows, after cutting."""
    truncated: NotRequired[int]
    """Rows longer than ``max_length``, which were cut."""
    scored_tokens: NotRequired[int]
    """Of a generation task: tokens that count in the loss."""
    pretrained_mse: NotRequired[float]
    """Of a regression of vectors: mean squared error of the pretrained network."""


class Limit(TypedDict):
    """How many training rows were kept."""

    rows: int
    """Kept at most."""
    of: int
    """Rows read."""
    seed: int
    """Of the draw."""


class Data(TypedDict):
    """The data that was read."""

    source: str
    """``hub``, ``local``, ``files``, ``mini`` or ``teacher``."""
    splits: dict[str, Split]
    """By name."""
    other_rows: NotRequired[dict[str, list[int]]]
    """Of local files and the hub: split -> rows read and official rows, where they differ."""
    limit: NotRequired[Limit | None]
    """Null if all training rows were kept."""
    labels: NotRequired[list[str]]
    """Found in the training file, where ``task.labels`` names none (``files``)."""
    seed: NotRequired[int]
    """Of generated data."""
    format: NotRequired[str]
    """Of local files: ``tsv``, ``csv`` or ``datasets``."""
    path: NotRequired[str]
    """Of a data set on the hub."""
    name: NotRequired[str]
    """Of the configuration of a data set on the hub."""
    revision: NotRequired[str]
    """The commit on the hub."""
    max_length: NotRequired[int]
    """Tokens of an input at most; longer ones were cut."""
    begins_with: NotRequired[list[str]]
    """Of a generation task: tokens that the tokenizer puts before every text."""


class Pretraining(TypedDict):
    """How the project pretrained a model of its own."""

    parameters: int
    """Number of parameters."""
    steps: int
    """Optimizer updates."""
    loss: float
    """Mean over the last tenth of the updates."""
    seconds: float
    """Duration."""
    right: NotRequired[float]
    """Of a RoBERTa: share of masked tokens predicted right in the last tenth of the updates."""
    vocabulary: NotRequired[int]
    """Of a GPT-2: tokens of its vocabulary."""
    tokens: NotRequired[int]
    """Of a GPT-2: tokens trained on."""
    cut: NotRequired[int]
    """Of a GPT-2: texts longer than the context, which were cut."""
    held_out_perplexity: NotRequired[float]
    """Of a GPT-2: on text kept aside."""
    text: NotRequired[dict[str, str | int]]
    """Of a GPT-2: where the text is from (``file`` and its ``sha256``, or ``generated``), and its numbers of
    ``paragraphs`` and ``texts``."""


class Model(TypedDict):
    """The pretrained model."""

    name: str
    """``model.name``."""
    source: str
    """``hub``, ``folder``, ``package``, ``mini`` or ``perceptron``."""
    path: str
    """Hub name, folder or package."""
    revision: str
    """The commit on the hub; empty elsewhere."""
    sha256: dict[str, str]
    """Of each file of weights; empty for a hub model, which ``revision`` pins."""
    attention: NotRequired[str]
    """The implementation of attention: ``sdpa``, ``eager``."""
    drawn: NotRequired[list[str]]
    """Parameters that were not in the files and were drawn, such as the head's."""
    pretraining: NotRequired[Pretraining]
    """Of a model that the project pretrained."""
    padding_added: NotRequired[bool]
    """Of a language model: whether it got a padding token."""


class Checkout(TypedDict):
    """The version of the project's code; null where it lies in no git checkout."""

    commit: str | None
    """Of the checkout."""
    dirty: bool | None
    """True if code or configuration differed from the commit."""


class Environment(Checkout):
    """Software and hardware, with nothing that names the user or the machine."""

    python: str
    """Version."""
    packages: dict[str, str | None]
    """Versions by distribution; null where it is not installed."""
    system: str
    """Operating system and processor architecture."""
    cpu: str | None
    """The processor's model."""
    cpu_count: int | None
    """Logical processors of the machine."""
    threads: int
    """CPU threads of PyTorch."""
    device: str
    """The GPU's name, or ``cpu``."""
    cuda: str | None
    """CUDA's version; null on a CPU."""
    processes: NotRequired[int]
    """That trained together."""


class TuningCell(TypedDict):
    """One learning rate of the grid."""

    lr: float
    """The learning rate."""
    score: float | None
    """Its run's headline; null where it has none."""
    status: str
    """``done``, ``failed`` or ``diverged``."""


class Tuning(TypedDict):
    """How ``train.lr=tuned`` was resolved."""

    experiment: str
    """Whose runs chose."""
    task: str
    """That these runs trained on."""
    seed: int
    """Of these runs."""
    split: NotRequired[str]
    """Whose scores chose."""
    metric: str
    """The headline metric."""
    rule: str
    """``best`` or ``last``: the epoch whose score chose."""
    grid: list[TuningCell]
    """Every learning rate."""
    chosen: float
    """The learning rate of the best score."""
    committed: NotRequired[bool]
    """Whether these runs are records that come with the project, and none of this folder's own."""


class Tracking(TypedDict):
    """The mirror in Weights & Biases."""

    id: str | None
    """Of its run there; null without one."""
    mode: str
    """``online``, ``offline`` or ``disabled``."""


class Failure(TypedDict):
    """Why a run failed."""

    type: str
    """Class of the error; ``KilledProcess`` where the process was killed."""
    message: str
    """Of the error."""
    traceback: str
    """As Python prints it; empty for a killed process."""


class Record(TypedDict):
    """The whole record."""

    schema: int
    """Version of this layout."""
    status: Status
    """A run that was interrupted stays ``running`` and resumes when it is asked for again."""
    identity: Identity
    """Names the run and its folder."""
    command: str
    """The shell command that repeats the run."""
    config: Configuration
    """The configuration, resolved."""
    metrics: Metrics
    """The scores of the best and of the last epoch."""
    warnings: list[str]
    """What makes the scores doubtful, in words."""
    history: list[Evaluation]
    """One entry an evaluated epoch."""
    training: list[Loss]
    """One entry a line of the training log."""
    resamples: list[Resample]
    """One entry a resample, the first draw excluded."""
    params: Params
    """Numbers of parameters."""
    adapted: list[AdaptedLayer]
    """One entry an adapted layer, in the order of the model's modules."""
    costs: Costs
    """Time, throughput and memory."""
    environment: Environment
    """Software and hardware."""
    diagnostics: NotRequired[Diagnostics]
    """How training changed the weights."""
    generation: NotRequired[Generation]
    """The texts of the test split, and their scores."""
    data: Data
    """The data that was read."""
    model: Model
    """The pretrained model."""
    tuning: Tuning | None
    """Null unless ``train.lr=tuned``."""
    wandb: Tracking | None
    """The mirror in Weights & Biases; null before the run has started."""
    started: str
    """UTC, ISO 8601."""
    finished: str | None
    """UTC, ISO 8601; null while the run is not."""
    error: Failure | None
    """Null unless ``status`` is ``failed``."""


# --- the checks that follow from the types ---------------------------------------------------------------------------


def kinds(hint: Any) -> tuple[type, ...]:
    """The Python types that JSON gives a value of an annotation: ``(dict, NoneType)`` for ``Tuning | None``."""
    origin = get_origin(hint)
    if origin in (Union, UnionType):
        return tuple(kind for part in get_args(hint) for kind in kinds(part))
    if origin is Literal:
        return (str,)
    kind = origin or hint
    return (dict,) if is_typeddict(kind) else (kind,)


TYPES: dict[str, tuple[type, ...]] = {key: kinds(hint) for key, hint in get_type_hints(Record).items()}
"""Key of a record -> the types that its value may have."""
IDENTITY: dict[str, type] = get_type_hints(Identity)
"""Key of an identity -> the type of its value."""
GROUPS = tuple(
    key
    for key, hint in get_type_hints(Configuration).items()
    if kinds(hint) == (dict,) and key in Configuration.__required_keys__
)
"""Keys of a configuration that hold a group of settings and that every record has."""
STATUSES: tuple[str, ...] = get_args(Status)
RULES: tuple[Rule, ...] = get_args(Rule)
"""Which epoch's scores: the one with the best headline on the selection split, or the last one."""


# --- places whose keys are data --------------------------------------------------------------------------------------


def by_split(evaluation: Evaluation) -> dict[str, Scores]:
    """The scores of an evaluation by split: the keys that are not declared."""
    return {key: value for key, value in evaluation.items() if isinstance(value, dict)}
