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
    """Hash, of eight hexadecimal digits, of the settings that can change a result and differ from their defaults."""
    seed: int
    """The seed from which every random draw is derived."""


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
    """How the epoch is selected: ``dev-best``, ``dev-last`` or ``holdout``."""
    seed: int
    """The same as in ``identity``."""
    experiment_name: str
    """As ``identity.experiment``."""
    results_dir: str
    """The results folder, as in the command."""
    cache_dir: str
    """The folder of the models that the project makes itself, and of the tokens of large splits."""
    jobs: int
    """Number of parallel runs in a local sweep, as in the command."""


class Evaluation(TypedDict):
    """The scores after one epoch; besides the keys below, a key for each evaluation split, with its ``Scores``."""

    epoch: float
    """Epochs of training done."""
    step: int
    """Optimizer updates done."""


class Selection(TypedDict):
    """How the run's epoch was chosen."""

    split: str
    """The evaluation split whose score selected the epoch."""
    metric: str
    """The task's headline metric."""
    rule: str
    """The rule as text, for instance ``highest accuracy on validation, first of equals``, or ``last epoch``."""


class Metrics(TypedDict):
    """The scores of a finished run; empty before."""

    best: Evaluation
    """The entry of ``history`` with the best headline on the selection split."""
    last: Evaluation
    """The last entry of ``history``."""
    selection: Selection
    """How ``best`` was selected, and which of the two epochs is the run's result."""


class Loss(TypedDict):
    """One line of the training log."""

    loss: float | None
    """Mean training loss since the previous line."""
    grad_norm: float | None
    """Norm of the latest update's gradient before clipping."""
    learning_rate: float
    """Learning rate of the latest update."""
    epoch: float
    """Epochs of training done."""
    step: int
    """Optimizer updates done."""


class Subspace(TypedDict):
    """The change in one subspace, measured at its end: at a resample, or at the end of training."""

    step: int
    """Optimizer updates done."""
    epoch: float
    """Epochs of training done."""
    subspace_moved: NotRequired[list[float | None]]
    """For each layer in the order of ``adapted``, the Frobenius norm of the change of A B since the subspace began;
    null where it is not finite."""


class Resample(Subspace):
    """One resample of all layers."""

    resample_layers: int
    """Number of layers."""
    resample_seconds: float
    """Duration, measured with a synchronized device."""
    factorization_seconds: NotRequired[list[float]]
    """Duration of each layer's factorization."""
    visited_share: NotRequired[float]
    """Mean over the layers of the share of singular directions drawn so far; a method may draw none."""
    resample_cleared_states: NotRequired[int]
    """In older records only: number of parameters whose optimizer state was cleared."""


class Params(TypedDict):
    """Numbers of parameters."""

    trainable: int
    """Trainable parameters of the adapters (of the whole model with full fine-tuning), without the head."""
    head: int
    """Trainable parameters of the task's head."""
    total: int
    """All parameters of the model without adapters."""


class AdaptedLayer(TypedDict):
    """One adapted layer."""

    name: str
    """Dotted name of the module."""
    kind: str
    """Class of the layer: ``Linear`` or ``Conv1D``."""
    shape: list[int]
    """Shape of the weight, (out, in)."""
    rank: int | None
    """Rank of the adapter; null if the method has no rank."""
    trainable: int
    """Trainable parameters of its adapter."""


class Costs(TypedDict):
    """Costs of training, over the whole run, including all resumed parts."""

    steps: int
    """Optimizer updates."""
    examples: int
    """Training examples processed by all processes."""
    tokens: int
    """Tokens processed, padding included; 0 for vectors."""
    seconds_total: float
    """Duration of training, including resamples, evaluations and checkpoints."""
    seconds_without_evaluations: NotRequired[float]
    """The same without evaluations; as ``train_time`` in PEFT's ``method_comparison``."""
    seconds_in_steps: float
    """Duration of all updates."""
    seconds_in_loading: NotRequired[float]
    """The part of it in which the main process waited for batches: reading, padding and copying to the device."""
    seconds_per_step_median: float | None
    """Median over the latest 10,000 updates."""
    seconds_per_step_mean: float | None
    """Mean over all updates."""
    examples_per_second: float | None
    """Examples over the duration of all updates."""
    tokens_per_second: float | None
    """Tokens over the duration of all updates."""
    resamples: int
    """Number of resamples, the first draw excluded."""
    seconds_in_resamples: float
    """Duration of all resamples together."""
    seconds_per_resample_median: float | None
    """Null without resamples."""
    evaluations: int
    """Number of evaluations; each is of one split."""
    seconds_in_evaluations: float
    """Duration of all evaluations together."""
    weights_bytes: int
    """Memory of all parameters and buffers, during an update."""
    gradients_bytes: int
    """Memory of the trainable parameters' gradients."""
    optimizer_state_bytes: int
    """Memory of the optimizer's state, such as Adam's moments."""
    device_bytes: int | None
    """Peak memory that PyTorch allocated on the GPU of the main process; null on a CPU."""
    host_bytes: int | None
    """Peak resident memory of the main process."""
    host_peak_reset: bool
    """False if ``host_bytes`` is the peak since the start of the process, because the system cannot reset it."""
    first_of_process: NotRequired[bool]
    """Whether no earlier run of the process has left memory that ``host_bytes`` counts; tables show it only then."""
    memory_max_bytes: NotRequired[int | None]
    """Largest memory of the main process after an update, above that before the model was loaded: on a GPU what PyTorch
    has reserved, as in PEFT's ``method_comparison``, otherwise resident memory. Null where the system does not say."""
    memory_mean_bytes: NotRequired[int | None]
    """Mean of the same over all updates."""
    memory_p99_bytes: NotRequired[int | None]
    """99th percentile of the same over the latest 10,000 updates."""
    checkpoint_bytes: NotRequired[int]
    """Bytes of the tensors that restore the trained model beside the pretrained one; for ROSA the frozen parts are
    among them, because resampling changes them."""


class LayerChange(TypedDict):
    """The difference of one layer's weight after training to the pretrained weight."""

    name: str
    """Dotted name of the module."""
    full_rank: int
    """min(out, in)."""
    rank: int
    """Number of singular values of the change above the rounding level of the weight."""
    effective_rank: float | None
    """Exponential of the entropy of the normalized singular values; null where it is not finite."""
    norm: float | None
    """Frobenius norm of the change; null where it is not finite."""
    relative_norm: float | None
    """Frobenius norm of the change, divided by that of the pretrained weight."""
    visited: float | None
    """Share of the singular directions drawn at least once; null where the method draws none."""


class SupportLayer(TypedDict):
    """The sparse part of a layer."""

    name: str
    """Dotted name of the layer in the model."""
    entries: int
    """Number of trained entries."""
    density: float
    """``entries`` as a share of all entries of the weight."""


class Support(TypedDict):
    """The positions of the sparse parts, which are in ``support.safetensors`` in the run's folder."""

    sha256: str
    """SHA-256 of the positions, with each layer's name and shape."""
    layers: list[SupportLayer]
    """One entry for each layer with a sparse part."""


class Forgetting(TypedDict):
    """The mean loss, in nats, on a fixed text that the task never shows."""

    loss: str
    """``masked token``, of an encoder, or ``next token``; of a classifier under the head of its checkpoint."""
    before: float
    """Of the pretrained model."""
    after: float
    """Of the last epoch's model."""


class Diagnostics(TypedDict, total=False):
    """What training changed: weights, where the method adds to them, and what the model has forgotten."""

    layers: list[LayerChange]
    """One entry for each layer, in the order of ``adapted``."""
    last_subspace: Subspace
    """The subspace in which training ended."""
    support: Support
    """The support of a method with a sparse part."""
    forgetting: Forgetting
    """The change of the loss on a fixed text."""
    forgetting_missing: str
    """Why it was not measured; a record has one of the two. Records of earlier versions may have neither."""


class Hypotheses(TypedDict):
    """The decoded texts."""

    file: str
    """Name of the file in the run's folder, with one text per line."""
    sha256: str
    """SHA-256 of the file."""


class Scorer(TypedDict):
    """The software that computed the scores of the texts."""

    tokenizer: str
    """The tokenizer used for METEOR, ROUGE-L and CIDEr."""
    versions: dict[str, str]
    """Versions of the packages and of Java."""
    options: dict[str, str]
    """The options of each score, as signatures."""
    missing: dict[str, str]
    """Scores that could not be computed, with the reasons."""


class Perplexities(TypedDict):
    """Perplexities of one split by several definitions; a published one compares with its own definition alone. Null
    where it is too large for a number."""

    split: str
    """The first evaluation split."""
    batch_size: int
    """Examples in each batch of ``mean_of_batches``."""
    reference: float | None
    """From the summed loss of the references' tokens and end tokens."""
    all_tokens: float | None
    """From the summed loss of all tokens, those of the prompts included."""
    mean_of_batches: float | None
    """Mean over batches of ``exp`` of the mean loss of all tokens, as in the released code of ROSA's authors."""


class Generation(TypedDict):
    """The texts of the test split; empty for a task without texts and before decoding."""

    split: str
    """The split whose inputs were decoded."""
    weights: Rule
    """The epoch of the weights: ``best`` or ``last``."""
    epoch: float
    """The number of epochs of training at these weights."""
    prompts: int
    """Number of distinct inputs; each is decoded once."""
    unended: int
    """Number of texts that were cut at the maximal length."""
    empty: int
    """Number of texts without a word."""
    limited: int
    """Number of texts whose length was limited by the model's context instead of the setting."""
    hypotheses: Hypotheses
    """The file of the texts."""
    decoding: Settings
    """``rosa.config.DecodingConfig``, without the batch size."""
    warnings: list[str]
    """Warnings for readers of the texts."""
    scores: Scores
    """By ``task.scorer``: BLEU, NIST, METEOR, ROUGE-L and CIDEr on the official scorer's scale, or shares of right
    answers; null where missing."""
    segments: int
    """Number of meaning representations scored."""
    references: int
    """Number of references of all segments together."""
    scorer: Scorer
    """What computed the scores."""
    perplexities: NotRequired[Perplexities]
    """Perplexities of the weights that decoded."""


class Split(TypedDict):
    """One split of the data."""

    rows: int
    """Rows used."""
    sha256: str
    """SHA-256 of the data of the split: of the bytes of a file, otherwise of the rows in order."""
    malformed: NotRequired[int]
    """Number of rows left out because they do not fit the task's columns."""
    file: NotRequired[str]
    """For local files: the file's name."""
    label_counts: NotRequired[dict[str, int]]
    """For classification: label -> number of rows."""
    label_mean: NotRequired[float]
    """For regression on texts: mean of the labels."""
    label_range: NotRequired[list[float]]
    """For regression on texts: the smallest and the largest label."""
    given: NotRequired[int]
    """For generation: number of distinct inputs."""
    in_train: NotRequired[int]
    """In an evaluation split: rows whose texts a training row has too, up to case and blanks; of a generation task:
    distinct inputs that the training split has too."""
    inside_train: NotRequired[int]
    """In an evaluation split of single texts: rows of five words or more that occur in a training text."""
    tokens: NotRequired[int]
    """Number of tokens of all rows, after cutting."""
    truncated: NotRequired[int]
    """Number of rows longer than ``max_length``, which were cut."""
    scored_tokens: NotRequired[int]
    """For generation: number of tokens that count in the loss."""
    pretrained_mse: NotRequired[float]
    """For regression of vectors: mean squared error of the pretrained network."""


class Limit(TypedDict):
    """The sample of training rows that was kept."""

    rows: int
    """Maximal number of rows kept."""
    of: int
    """Number of rows read."""
    seed: int
    """Seed of the draw."""


class Data(TypedDict):
    """The data that was read."""

    source: str
    """``hub``, ``local``, ``files``, ``mini``, ``teacher`` or ``diabetes``."""
    splits: dict[str, Split]
    """The splits by name."""
    other_rows: NotRequired[dict[str, list[int]]]
    """For local files and the hub: split -> rows read and official rows, where they differ."""
    limit: NotRequired[Limit | None]
    """The sample of training rows; null if all were kept."""
    labels: NotRequired[list[str]]
    """Labels found in the training file, if ``task.labels`` names none (``files``)."""
    seed: NotRequired[int]
    """Seed of generated data, or of the splits of ``diabetes``."""
    format: NotRequired[str]
    """Format of local files: ``tsv``, ``csv`` or ``datasets``."""
    path: NotRequired[str]
    """Name of the data set on the hub."""
    name: NotRequired[str]
    """Name of the data set's configuration on the hub."""
    revision: NotRequired[str]
    """Commit of the data set on the hub."""
    max_length: NotRequired[int]
    """Maximal number of tokens of an input; longer inputs were cut."""
    begins_with: NotRequired[list[str]]
    """For generation: number of tokens that the tokenizer puts before every text."""


class Pretraining(TypedDict):
    """How the project pretrained a model of its own."""

    parameters: int
    """Number of parameters."""
    steps: int
    """Optimizer updates."""
    loss: float | None
    """Mean loss over the last tenth of the updates; null where it is not finite."""
    seconds: float
    """Duration."""
    right: NotRequired[float]
    """For RoBERTa: fraction of masked tokens predicted correctly in the last tenth of the updates."""
    vocabulary: NotRequired[int]
    """For GPT-2: number of tokens in the vocabulary."""
    tokens: NotRequired[int]
    """For GPT-2: number of tokens trained on."""
    cut: NotRequired[int]
    """For GPT-2: number of texts longer than the context, which were cut."""
    held_out_perplexity: NotRequired[float]
    """For GPT-2: perplexity on held-out text."""
    text: NotRequired[dict[str, str | int]]
    """For GPT-2: the origin of the text (``file`` and its ``sha256``, ``glue_sha256``, or ``generated``), and its
    numbers of ``paragraphs`` and ``texts``."""


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
    """SHA-256 of each file of weights; empty for a hub model, which ``revision`` identifies."""
    attention: NotRequired[str]
    """The implementation of attention: ``sdpa``, ``eager``."""
    drawn: NotRequired[list[str]]
    """Names of the parameters that were not in the files and were initialized randomly, such as the head's."""
    pretraining: NotRequired[Pretraining]
    """For a model that the project pretrained: how."""
    padding_added: NotRequired[bool]
    """For a language model: whether a padding token was added."""


class Checkout(TypedDict):
    """The version of the project's code; null if it is not in a git checkout."""

    commit: str | None
    """Commit of the checkout."""
    dirty: bool | None
    """True if code or configuration differed from the commit."""


class Environment(Checkout):
    """Software and hardware, with nothing that names the user or the machine."""

    python: str
    """Version of Python."""
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
    """Number of processes that trained together."""


class TuningCell(TypedDict):
    """One learning rate of the grid."""

    lr: float
    """The learning rate."""
    score: float | None
    """The headline score at this learning rate; null if there is none."""
    status: str
    """``done``, ``failed`` or ``diverged``."""


class Tuning(TypedDict):
    """How ``train.lr=tuned`` was resolved."""

    experiment: str
    """The tuning experiment."""
    task: str
    """The task of the tuning runs."""
    seed: int
    """The seed of the tuning runs."""
    split: NotRequired[str]
    """The split whose scores were compared."""
    metric: str
    """The headline metric."""
    rule: str
    """``best`` or ``last``: the epoch whose scores were compared."""
    grid: list[TuningCell]
    """All learning rates of the grid."""
    chosen: float
    """The learning rate of the best score."""
    committed: NotRequired[bool]
    """Whether these runs are records that come with the project, and none of this folder's own."""


class Tracking(TypedDict):
    """The run's copy in Weights & Biases."""

    id: str | None
    """Id of the W&B run; null without one."""
    mode: str
    """``online``, ``offline`` or ``disabled``."""


class Failure(TypedDict):
    """The reason why a run failed."""

    type: str
    """Class of the error; ``KilledProcess`` where the process was killed."""
    message: str
    """Message of the error."""
    traceback: str
    """Python's traceback; empty for a killed process."""


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
    """Reasons why the scores may be misleading, as text, such as a session of the run in another environment."""
    history: list[Evaluation]
    """One entry for each evaluated epoch."""
    training: list[Loss]
    """One entry for each line of the training log."""
    resamples: list[Resample]
    """One entry for each resample; the first draw is not one."""
    params: Params
    """Numbers of parameters."""
    adapted: list[AdaptedLayer]
    """One entry for each adapted layer, in the order of the model's modules."""
    costs: Costs
    """Time, throughput and memory."""
    environment: Environment
    """Software and hardware of the session that ended the training; ``warnings`` tell of others."""
    diagnostics: NotRequired[Diagnostics]
    """How training changed the weights."""
    generation: NotRequired[Generation]
    """The texts of the test split, and their scores."""
    data: Data
    """The data that was read."""
    model: Model
    """The pretrained model."""
    tuning: Tuning | None
    """How the learning rate was tuned; null unless ``train.lr=tuned``."""
    wandb: Tracking | None
    """The run's copy in Weights & Biases; null before the run has started."""
    started: str
    """UTC, ISO 8601; of a run that was resumed, the first session's."""
    finished: str | None
    """UTC, ISO 8601; null while the run is not finished."""
    error: Failure | None
    """The error; null unless ``status`` is ``failed``."""


# --- what follows from the types -------------------------------------------------------------------------------------


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
MAY_BE_EMPTY = frozenset(key for key, kind in TYPES.items() if kind == (dict,)) - {"identity", "config"}
"""Keys of a record whose value is an empty object while it is not known, or where it does not apply."""
STATUSES: tuple[str, ...] = get_args(Status)
RULES: tuple[Rule, ...] = get_args(Rule)
"""Which epoch's scores: the one with the best headline on the selection split, or the last one."""


# --- places whose keys are data --------------------------------------------------------------------------------------


def by_split(evaluation: Evaluation) -> dict[str, Scores]:
    """The scores of an evaluation by split: the keys that are not declared."""
    return {key: value for key, value in evaluation.items() if isinstance(value, dict)}
