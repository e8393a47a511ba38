"""Count the floating-point operations of a run, with the model on the meta device: no weights are loaded or downloaded.

A product of an (m, k) and a (k, n) matrix counts as 2 m k n operations; everything else (activations, normalization,
the optimizer) as none.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification, PreTrainedConfig
from transformers.pytorch_utils import Conv1D

from planning import PlanError
from planning.architectures import PUBLISHED
from planning.lengths import made, mean_tokens, padded
from rosa.adapters import attach, head_names
from rosa.adapters.base import LinearLayer, weight_shape
from rosa.adapters.ia3 import FUSED, KEYS_VALUES
from rosa.adapters.lora import FUSED_QUERY_KEY_VALUE
from rosa.adapters.robust import layer_counts
from rosa.adapters.targets import layer_ranks, linear_layers, matches
from rosa.config import (
    ATTENTION,
    Config,
    IA3Config,
    LoraConfig,
    MethodConfig,
    ModelConfig,
    RobustConfig,
    RosaConfig,
    check_length,
)
from rosa.config.method import RankedConfig
from rosa.config.schema import HOLDOUT
from rosa.config.task import TRAIN
from rosa.errors import AdapterError
from rosa.mini import text as mini_text
from rosa.mini.pretraining import gpt2, roberta
from rosa.models.pretrained import locate


@dataclass(frozen=True)
class Operations:
    """Floating-point operations of one example, or of one factorization of all layers."""

    forward: float
    step: float
    """Forward and backward pass."""
    factorization: float
    """Merging and factorizing all layers once; 0 for a method without resampling."""
    layers: int
    """The model's blocks."""


@dataclass(frozen=True)
class Work:
    """What one run does."""

    steps: int
    """Optimizer updates."""
    batches: int
    """Batches trained on: several an update with gradient accumulation."""
    tokens: float
    """Tokens trained on, padding included."""
    training: float
    """Operations of all training steps."""
    evaluation: float
    """Operations of all evaluations."""
    evaluation_batches: int
    """Batches of all evaluations."""
    factorization: float
    """Operations of all factorizations."""
    layers: int
    """The model's blocks."""
    measured: bool
    """Whether the task's length was measured, or given, and not assumed."""
    all_outputs: bool = False
    """Whether outputs of a language model were counted that training leaves out, as their number is not known."""

    @property
    def operations(self) -> float:
        """All operations of the run."""
        return self.training + self.evaluation + self.factorization


def of_run(config: Config, tokens: float | None = None, rows: int | None = None) -> Work:
    """Count what a run does.

    Args:
        config: the run; ``train.lr`` may be unresolved.
        tokens: mean tokens of an example; by default the task's.
        rows: rows of the training file; by default the official number.

    Raises:
        ConfigError: the training is over before the method has done what it is asked for.
        PlanError: the number of rows or tokens, or the model's shape, is not known.
    """
    if config.task.kind == "vector_regression":
        raise PlanError(f"task={config.task.name}: only runs on texts are planned")
    train = config.train
    rows = training_rows(config, rows)
    found, measured = (tokens, True) if tokens is not None else mean_tokens(config.task)
    length = padded(found, train.max_length)
    check_length(train, config.method, rows)
    steps, of_epoch = train.updates(rows), train.updates_per_epoch(rows)
    examples = round(rows * steps / of_epoch)
    batches = round(math.ceil(rows / train.batch_size) * steps / of_epoch)
    outputs, all_outputs = made(config, length, tokens is not None)
    one = of_example(keyed(config.model), keyed(config.method), config.task.is_labelled, length, outputs)
    evaluations, scored = math.ceil(steps / of_epoch), evaluation_rows(config, rows)
    resampled = factorizations(config, steps, rows)
    undone = undone_updates(config.method)
    steps, batches = steps + undone, batches + undone * train.accumulation
    examples += undone * train.batch_size * train.accumulation
    return Work(
        steps=steps,
        batches=batches,
        tokens=float(length * examples),
        training=one.step * examples,
        evaluation=one.forward * sum(scored) * evaluations,
        evaluation_batches=evaluations * sum(math.ceil(count / train.evaluation_batch_size) for count in scored),
        factorization=one.factorization * resampled,
        layers=one.layers,
        measured=measured,
        all_outputs=all_outputs,
    )


def training_rows(config: Config, rows: int | None = None) -> int:
    """Rows that are trained on, of so many in the training file; by default of those generated, or the official number.

    Raises:
        DataError: so many rows cannot be generated.
        PlanError: the task has no official number of rows, or the holdout leaves none.
    """
    if rows is None and config.data.source == "mini":
        rows = generated_rows(config, TRAIN)
    elif rows is None:
        rows = config.task.rows.get(TRAIN)
    if rows is None:
        raise PlanError(f"task={config.task.name}: its number of training rows is not known; give it, rows=N")
    if config.data.limit:
        rows = min(rows, config.data.limit)
    left = rows - math.ceil(rows * config.holdout_share)
    if left < 1:
        raise PlanError(f"data.holdout={config.holdout_share} of {rows} training rows: leaves none to train on")
    return left


def generated_rows(config: Config, split: str) -> int:
    """Rows of a generated split; more than its size where inputs have several references, as E2E's have."""
    data = config.drawn_data
    size = data.train_size if split == TRAIN else data.evaluation_size
    return _generated(config.task.name, split, size, data.seed)


@functools.cache
def _generated(task: str, split: str, size: int, seed: int) -> int:
    return len(mini_text.examples(task, split, size, seed))


def evaluation_rows(config: Config, trained: int) -> list[int]:
    """Rows of each split scored after each epoch, beside so many to train on; a split of unknown size has none."""
    held_out = round(trained * config.holdout_share / (1 - config.holdout_share))
    of_split = functools.partial(generated_rows, config) if config.data.source == "mini" else config.task.rows.get
    return [held_out if split == HOLDOUT else of_split(split) or 0 for split in config.evaluated]


def undone_updates(method: MethodConfig) -> int:
    """Updates that are made to choose the support of RoSA's sparse part, and then made again."""
    if not isinstance(method, RobustConfig) or not method.chooses:
        return 0
    return 0 if method.schedule == "warmup" and not method.restart else method.updates_to_choose


def factorizations(config: Config, steps: int, rows: int) -> int:
    """Factorizations of all layers in so many updates on so many rows: the first, and one at each resample."""
    method = config.method
    if not isinstance(method, RosaConfig):
        return 0
    if not method.every:
        return 1
    unit = config.train.updates_per_epoch(rows) if method.unit == "epoch" else 1
    return 1 + max(0, math.ceil(steps / (unit * method.every)) - 1)


@dataclass(frozen=True)
class Settings:
    """A group of a configuration as a key of a cache."""

    key: str
    group: Any = dataclasses.field(compare=False)


def keyed(group: Any) -> Settings:
    """A group of a configuration, hashable."""
    return Settings(repr(group), group)


@functools.cache
def of_example(model: Settings, method: Settings, head: bool, length: int, outputs: int = 0) -> Operations:
    """Count the operations of one example of ``length`` tokens in training.

    Args:
        model: a ``ModelConfig``.
        method: a ``MethodConfig``.
        head: whether the task has one (of two outputs); otherwise the model is a language model.
        length: tokens.
        outputs: last tokens for which a language model makes its outputs; 0: all.

    Raises:
        PlanError: as for :func:`of_run`.
    """
    chosen: MethodConfig = method.group
    if isinstance(chosen, IA3Config):
        names = tuple(scaled(skeleton(model.group, head), chosen))
        if not names:
            raise PlanError(f"method=ia3: no key and value layers are known in model={model.group.name}")
        forward, step = _frozen(model, names, chosen.head != "freeze", head, length, outputs)
        return Operations(forward, step, 0.0, _blocks(model, head))
    if not isinstance(chosen, RankedConfig):
        forward, step = _attached(model, method, head, length, outputs)
        return Operations(forward, step, 0.0, _blocks(model, head))
    forward, step = _frozen(model, tuple(chosen.targets), chosen.head != "freeze", head, length, outputs)
    factors, sparse, once = added(skeleton(model.group, head), chosen)
    # Factors are multiplied once forward, and twice backward: for the gradient of their input, and for their own. A
    # sparse part is added to the weight, and needs a product only for its own gradient.
    step += (6 * factors + 2 * sparse) * length
    return Operations(forward + 2 * factors * length, step, once, _blocks(model, head))


@functools.cache
def _blocks(model: Settings, head: bool) -> int:
    return int(skeleton(model.group, head).config.num_hidden_layers)


@functools.cache
def _attached(model: Settings, method: Settings, head: bool, length: int, outputs: int) -> tuple[float, float]:
    """Operations of a model with a method that adds no products, such as full fine-tuning."""
    plain = skeleton(model.group, head)
    try:
        adapted = attach(plain, method.group, generator=torch.Generator(), verbose=False)
    except AdapterError as error:
        raise PlanError(f"method={method.group.name}: its operations cannot be counted: {error}") from error
    return passes(adapted, head, length, outputs)


@functools.cache
def _frozen(
    model: Settings, targets: tuple[str, ...], train_head: bool, head: bool, length: int, outputs: int
) -> tuple[float, float]:
    """Operations of a frozen model through which gradients flow from the first adapted layer on, without adapters'."""
    plain = skeleton(model.group, head)
    own = set(head_names(plain))
    for name, parameter in plain.named_parameters():
        parameter.requires_grad_(train_head and name in own)
    nothing = nn.Parameter(torch.zeros((), device="meta"))
    for layer in targeted(plain, targets).values():
        layer.register_forward_hook(functools.partial(_with_gradient, nothing))
    return passes(plain, head, length, outputs)


def _with_gradient(nothing: Tensor, _layer: nn.Module, _inputs: Any, out: Tensor) -> Tensor:
    return out + nothing


def scaled(model: nn.Module, method: IA3Config) -> list[str]:
    """The layers of attention that (IA)3 scales, from the first of which gradients flow; not those of feed-forwards."""
    if method.variant == "attention_inputs":
        return list(targeted(model, ATTENTION))
    return [name for name in linear_layers(model) if KEYS_VALUES.search(name) or FUSED.search(name)]


def targeted(model: nn.Module, targets: Iterable[str]) -> dict[str, LinearLayer]:
    """The layers that a method adapts, by name; those of a model on the meta device too."""
    return {name: one for name, one in linear_layers(model).items() if any(matches(name, text) for text in targets)}


def passes(model: nn.Module, head: bool, length: int, outputs: int = 0) -> tuple[float, float]:
    """Operations of a forward pass, and of forward and backward, of one example, by PyTorch's counter."""
    model.train()
    ids = torch.zeros(1, length, dtype=torch.long, device="meta")
    kept = {"labels": ids[:, 0]} if head else {"labels": ids[:, -outputs:], "logits_to_keep": outputs}
    with FlopCounterMode(display=False) as counter:
        loss = model(input_ids=ids, **kept).loss
        forward = counter.get_total_flops()
        loss.backward()
    return float(forward), float(counter.get_total_flops())


def added(model: nn.Module, method: RankedConfig) -> tuple[int, int, float]:
    """The multiplications a token of all low-rank factors, those of all sparse parts, and a factorization's operations.

    These are the parameters of each; but loralib multiplies with the update B A of GPT-2's fused layer, as a matrix of
    the weight's size.
    """
    layers = targeted(model, method.targets)
    ranks = layer_ranks(layers, method)
    sparse = 0
    if isinstance(method, RobustConfig):
        ranks = ranks if method.low_rank else dict.fromkeys(layers, 0)
        sparse = sum(layer_counts(layers, method).values())
    shapes = {name: weight_shape(layer) for name, layer in layers.items()}
    factors = sum(
        math.prod(shape)
        if isinstance(method, LoraConfig) and is_fused(name, layers[name])
        else ranks[name] * sum(shape)
        for name, shape in shapes.items()
    )
    once = sum(factorization(method, shape, ranks[name]) for name, shape in shapes.items())
    return factors, sparse, once


def is_fused(name: str, layer: LinearLayer) -> bool:
    """Whether a layer is GPT-2's query, key and value in one."""
    out, into = weight_shape(layer)
    return isinstance(layer, Conv1D) and matches(name, FUSED_QUERY_KEY_VALUE) and out == 3 * into


def factorization(method: MethodConfig, shape: tuple[int, int], rank: int) -> float:
    """Operations of merging and factorizing an (out, in) weight.

    Merging and W V are 2 m n r each. Singular triplets also need the Gram matrix, 2 m n^2, and its reduction to
    tridiagonal form, 4/3 n^3 (Golub and Van Loan, Matrix Computations, section 8.3), for m x n with n at most m.
    """
    if not isinstance(method, RosaConfig) or method.factorization == "random_add":
        return 0.0
    n, m = sorted(shape)
    products = 4 * m * n * rank
    return products + (2 * m * n**2 + 4 / 3 * n**3 if method.has_triplets else 0.0)


def skeleton(model: ModelConfig, head: bool) -> Any:
    """A model on the meta device, without values: a classifier of two classes, or a language model.

    Raises:
        ModelError: its shape is not on this machine.
    """
    shape: PreTrainedConfig
    if model.source == "mini":
        kind = {"roberta": roberta, "gpt2": gpt2}[model.mini.architecture]
        shape = kind.architecture(model.mini, model.mini.vocabulary)
    elif model.source == "hub" and model.path in PUBLISHED:
        shape = PUBLISHED[model.path]
    else:
        place, options = locate(model)
        shape = AutoConfig.from_pretrained(place, **options)
    shape = copy.deepcopy(shape)
    if not head:
        shape.pad_token_id = None  # transformers would look for it among ids, which have no values here
    auto: Any = AutoModelForSequenceClassification if head else AutoModelForCausalLM
    with torch.device("meta"):
        return auto.from_config(shape)
