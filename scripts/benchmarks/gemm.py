"""Measure which share of the machine's rate of matrix products a training step reaches, per method and precision.

Three times are interleaved: a training step; its own matrix products alone, of the same shapes and layouts, one after
the other; and one large square product, whose rate is the machine's. Always on the CPU; in bf16 only where the CPU
multiplies in bfloat16, because a CPU that emulates it takes minutes a step.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatch
from typing import Any

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from benchmarks.contenders import LABELS, RANK, Contender
from benchmarks.findings import Findings, Measurement, note, number, row, with_quartiles
from benchmarks.shapes import random_model, random_texts
from benchmarks.timing import Spread, interleave, ratio, seconds, spread
from benchmarks.workload import Batch, Build, Workload, in_precision, load_model, moved, sizes
from rosa.config import Config
from rosa.report.tables.table import Table

ROUNDS = 5
GIGA = 1e9
SHAPE = "roberta-base"
EXAMPLES, TOKENS = 4, 128
"""Of a batch of ``SHAPE``."""
METHODS = ("full", "lora", "rosa", "robust", "ia3")
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}
SQUARE = 2048
"""Rows and columns of the product that gives the machine's rate."""
PRODUCTS = ("mm", "addmm", "addmm_", "bmm", "baddbmm")
PARTS: dict[str, tuple[str, ...]] = {
    "products": PRODUCTS,
    "attention": ("*scaled_dot_product*", "*softmax*"),
    "dropout": ("*dropout*", "bernoulli*"),
    "optimizer": ("*fused_adamw*", "_foreach*", "linalg_vector_norm"),
    "casts, copies": ("*copy*", "clone", "contiguous", "cat", "to"),
    "normalization": ("*_norm", "*_norm_*"),
    "element-wise": ("gelu*", "native_*", "add*", "sub*", "mul*", "div*", "sum*", "tanh*", "where", "masked_fill*"),
    "sparse part": ("*sampled_addmm", "index_add*", "searchsorted", "*sparse*"),
    "embeddings": ("embedding*", "index*", "gather*", "scatter*"),
    "new memory": ("empty*", "new_*", "zero*", "fill*", "resize*", "ones*", "full*"),
    "views": (
        "*view*", "t", "transpose*", "expand*", "as_strided*", "*reshape*", "slice*", "select*", "detach*", "*squeeze",
        "permute", "alias", "numpy_T",
    ),
    "others": ("*",),
}  # fmt: skip
"""The parts of a step's operators, by patterns of their names: the first that fits."""
FUSED_ATTENTION = "_scaled_dot_product_*attention*"
"""Kernels that compute attention's products themselves."""
OUTSIDE = "outside operators"
LARGEST = 3
"""Operators that are named of those in no part."""

Case = tuple[str, str]
"""A method, and a precision."""


@dataclasses.dataclass(frozen=True)
class Product:
    """One shape of matrix product in a step."""

    function: Any
    """The operator."""
    operands: tuple[tuple[tuple[int, ...], tuple[int, ...], torch.dtype], ...]
    """Shape, strides and dtype of each."""

    def ready(self) -> Callable[[], object]:
        """The product of random matrices with these shapes and layouts."""
        matrices = []
        for shape, strides, dtype in self.operands:
            size = 1 + sum((count - 1) * stride for count, stride in zip(shape, strides, strict=True))
            matrices.append(torch.randn(size).to(dtype).as_strided(shape, strides))
        return functools.partial(self.function, *matrices)


class Recorder(TorchDispatchMode):
    """Counts the products of dense matrices of what runs within it, and their floating-point operations."""

    def __init__(self) -> None:
        super().__init__()
        self.products: Counter[Product] = Counter()
        self.operations = 0
        self.batched = 0
        """Operations of the products of stacks, which are attention's."""
        self.hides = False
        """Whether a fused kernel of attention ran, whose products are not seen."""

    def __torch_dispatch__(self, function: Any, types: Any, arguments: Any = (), named: Any = None) -> Any:
        result = function(*arguments, **(named or {}))
        packet = function.overloadpacket
        self.hides |= fnmatch(packet.__name__, FUSED_ATTENTION)
        if packet.__name__ in PRODUCTS and all(one.layout == torch.strided for one in arguments):
            # Those that write into a given tensor count, and are repeated, as those that make their result.
            product = getattr(torch.ops.aten, packet.__name__.removesuffix("_"))
            operands = tuple((tuple(one.shape), one.stride(), one.dtype) for one in arguments)
            self.products[Product(product, operands)] += 1
            operations = flop_registry[product](*arguments, out_val=result)
            self.operations += operations
            self.batched += operations if operands[-1][0][2:] else 0
        return result


@dataclasses.dataclass(frozen=True)
class Reached:
    """The measurements of one method in one precision."""

    step: Spread
    """Seconds."""
    operations: int
    """Of the step's matrix products."""
    attention: int
    """Of them, attention's."""
    hides: bool
    """Whether attention's products are in a fused kernel, and not counted."""
    bound: Spread
    """The operations relative to full fine-tuning's."""
    to_full: Spread
    """The step's time relative to full fine-tuning's."""
    products: Spread
    """The time of the products alone, relative to the step's."""
    machine: Spread
    """The step's operations a second, relative to the machine's rate."""
    relative: Spread
    """The step's time relative to fp32."""
    parts: Mapping[str, float]
    """Share of a profiled step, by the keys of ``PARTS`` and ``OUTSIDE``."""
    others: Mapping[str, float]
    """Of the part ``others`` the largest shares, by operator."""


@dataclasses.dataclass(frozen=True)
class Model:
    """The measurements of one model."""

    name: str
    tokens: Sequence[int]
    """Of the batches."""
    rates: Mapping[str, Spread]
    """The machine's operations a second, by precision."""
    reached: Mapping[Case, Reached]


def benchmark(workload: Workload, rounds: int) -> Findings:
    """Measure ``SHAPE`` with random weights, and the workload's model; of a user's model, that alone."""
    config = dataclasses.replace(workload.config, train=dataclasses.replace(workload.config.train, device="cpu"))
    batches = [moved(workload.batch(number), "cpu") for number in range(rounds)]
    own = measure(config.model.name, load_model, config, batches)
    if workload.asked:
        return findings([own])
    texts = [random_texts(SHAPE, seed, "cpu", EXAMPLES, TOKENS) for seed in range(rounds)]
    return findings([measure(SHAPE, functools.partial(random_model, SHAPE), config, texts), own])


def measure(name: str, build: Build, config: Config, batches: Sequence[Batch]) -> Model:
    """Measure every method in both precisions on the same batches.

    Args:
        name: the model's name, for the tables.
        build: makes the plain model, on the CPU, of a configuration: its attention may depend on the precision.
        config: the resolved configuration of a run.
        batches: one for each round.
    """
    actions: dict[str, Callable[[int], object]] = {}
    counted: dict[Case, list[Recorder]] = {}
    parts: dict[Case, tuple[dict[str, float], dict[str, float]]] = {}
    for precision, dtype in precisions().items():
        square = torch.randn(SQUARE, SQUARE).to(dtype)
        actions[precision] = functools.partial(_square, square)
        settings = in_precision(config, precision)
        plain = build(settings)
        for method in METHODS:
            case = (method, precision)
            contender = Contender(method, copy.deepcopy(plain), settings, RANK)
            contender.step(batches[0])  # makes the optimizer's state
            by_size = {sizes(batch): batch for batch in batches}
            found = {size: _recorded(contender, batch) for size, batch in by_size.items()}
            recorded = [found[sizes(batch)] for batch in batches]
            counted[case] = recorded
            parts[case] = profiled(contender, batches[0])
            actions[f"{method} {precision}"] = functools.partial(_step, contender, batches)
            actions[f"{method} {precision} products"] = Replay([one.products for one in recorded])
    for action in actions.values():
        action(0)
    taken = interleave(actions, len(batches), "cpu", f"products of {name}")
    rates = {precision: [2 * SQUARE**3 / one for one in taken[precision]] for precision in precisions()}
    reached = {}
    for method, precision in counted:
        steps = taken[f"{method} {precision}"]
        recorded = counted[method, precision]
        operations = [one.operations for one in recorded]
        speed = [count / one for count, one in zip(operations, steps, strict=True)]
        reached[method, precision] = Reached(
            spread(steps),
            round(spread(operations).median),
            round(spread([one.batched for one in recorded]).median),
            any(one.hides for one in recorded),
            ratio(operations, [one.operations for one in counted["full", precision]]),
            ratio(steps, taken[f"full {precision}"]),
            ratio(taken[f"{method} {precision} products"], steps),
            ratio(speed, rates[precision]),
            ratio(steps, taken[f"{method} fp32"]),
            *parts[method, precision],
        )
    tokens = [batch["input_ids"].numel() for batch in batches]
    return Model(name, tokens, {precision: spread(rate) for precision, rate in rates.items()}, reached)


def precisions() -> dict[str, torch.dtype]:
    """The precisions in which this CPU multiplies, by name."""
    if any(has for name, has in torch.cpu.get_capabilities().items() if "bf16" in name):
        return PRECISIONS
    return {name: dtype for name, dtype in PRECISIONS.items() if name != "bf16"}


def _square(matrix: Tensor, _: int) -> None:
    matrix @ matrix


def _step(contender: Contender, batches: Sequence[Batch], position: int) -> None:
    contender.step(batches[position % len(batches)])


def _recorded(contender: Contender, batch: Batch) -> Recorder:
    with Recorder() as recorder:
        contender.step(batch)
    return recorder


class Replay:
    """The products of a step alone: as many of each shape as the step has.

    Args:
        steps: the products of each step.
    """

    def __init__(self, steps: Sequence[Mapping[Product, int]]) -> None:
        ready = {product: product.ready() for products in steps for product in products}
        self._steps = [[(ready[product], count) for product, count in products.items()] for products in steps]

    def __call__(self, position: int) -> None:
        """Compute the products of one step."""
        for product, count in self._steps[position % len(self._steps)]:
            for _ in range(count):
                product()


def profiled(contender: Contender, batch: Batch) -> tuple[dict[str, float], dict[str, float]]:
    """The share of each part in a step under PyTorch's profiler, which lengthens what is outside operators.

    Returns:
        The shares by the keys of ``PARTS`` and ``OUTSIDE``, and of the part ``others`` the ``LARGEST`` by operator.
    """
    with profile(activities=[ProfilerActivity.CPU]) as found:
        whole = seconds(lambda: contender.step(batch), "cpu")
    shares, others = dict.fromkeys(PARTS, 0.0), {}
    for event in found.key_averages():
        name = event.key.removeprefix("aten::")
        if event.key.startswith("aten::"):
            part, share = part_of(name), event.self_cpu_time_total / 1e6 / whole
            shares[part] += share
            if part == "others":
                others[name] = share
    largest = sorted(others, key=lambda name: -others[name])[:LARGEST]
    return {**shares, OUTSIDE: max(1 - sum(shares.values()), 0.0)}, {name: others[name] for name in largest}


def part_of(name: str) -> str:
    """The part of an operator, by its name in ``aten``."""
    return next(part for part, fits in PARTS.items() if any(fnmatch(name, one) for one in fits))


# --- tables ----------------------------------------------------------------------------------------------------------


def findings(models: Sequence[Model]) -> Findings:
    """Build the tables of each model: the shares of the rate, and where a step's time goes."""
    tables = [table for model in models for table in (_shares(model), _parts(model))]
    lines = [line for model in models for line in _lines(model)]
    return Findings(tables[0], tuple(lines), tuple(tables[1:]))


def _label(case: Case) -> str:
    return f"{LABELS[case[0]]}, {case[1]}"


def _percent(value: Spread) -> str:
    return with_quartiles(value, 100)


def _shares(model: Model) -> Table:
    rows = []
    for case, one in model.reached.items():
        rows.append(
            row(
                _label(case),
                number(one.operations / GIGA),
                with_quartiles(one.step, 1000),
                number(one.operations / one.step.median / GIGA),
                _percent(one.machine),
                _percent(one.products),
                "1" if case[0] == "full" else f"{one.bound.median:.3f}",
                "1" if case[0] == "full" else with_quartiles(one.to_full),
                "1" if case[1] == "fp32" else with_quartiles(one.relative),
            )
        )
    rates = "; ".join(f"{name} {with_quartiles(rate, 1 / GIGA)} GFLOP/s" for name, rate in model.rates.items())
    count = len(model.tokens)
    tokens = " to ".join(f"{size:,}" for size in sorted({min(model.tokens), max(model.tokens)}))
    notes = (
        note(
            f"The machine's rate, a product of two matrices of {SQUARE:,} x {SQUARE:,}: {rates}. Products alone: the "
            "step's own matrix products, of the same shapes, as a share of the step; what a step would reach at most "
            f"if it did nothing else. Without RoSA's sparse products; {_of_attention(model)}"
        ),
        note(
            "GFLOP, x full: the bound of a method, if a step took the time of its products at full fine-tuning's rate. "
            "A frozen layer needs no product for its weight's gradient, so two instead of three. Step, x full: what it "
            "takes; where that is the larger, the method's own work costs more than its products."
        ),
        note(
            f"Rank {RANK}; {count} steps a method, interleaved with the products, on the same batches of {tokens} "
            "tokens. Medians (quartiles); shares and ratios are medians of those within a round. "
            + (
                "bf16: by autocast."
                if "bf16" in model.rates
                else "Not in bf16: this CPU does not multiply in bfloat16 (avx512_bf16, amx_bf16)."
            )
        ),
    )
    header = (
        "method",
        "GFLOP",
        "step, ms",
        "GFLOP/s",
        "% of the machine's rate",
        "products alone, %",
        "GFLOP, x full",
        "step, x full",
        "x fp32",
    )
    caption = f"{model.name}: the rate of matrix products that a step reaches"
    return Table(f"gemm_{model.name}", caption, header, tuple(rows), notes)


def _of_attention(model: Model) -> str:
    """Which of attention's products are among those that were counted."""
    if all(one.hides for one in model.reached.values()):
        return "nor attention's, which are in a fused kernel (the part attention below)."
    shown = ", ".join(
        f"{number(one.attention / GIGA)} ({_label(case)})" for case, one in model.reached.items() if case[0] == "full"
    )
    hidden = sorted({case[1] for case, one in model.reached.items() if one.hides})
    rest = f", but in {' and '.join(hidden)} in a fused kernel, and not counted" if hidden else ""
    return f"attention's, which are plain products, are counted: GFLOP {shown}{rest}."


def _parts(model: Model) -> Table:
    names = (*PARTS, OUTSIDE)
    rows = [
        row(_label(case), *(number(100 * one.parts[name]) for name in names)) for case, one in model.reached.items()
    ]
    notes = (
        note(
            "One step of each method under PyTorch's profiler, % of its time by operator; the optimizer includes "
            "clipping, attention its softmax and kernels, without its plain products. "
            f"{OUTSIDE.capitalize()}: Python, autograd, and what the profiler itself takes. {_named_others(model)}"
        ),
    )
    caption = f"{model.name}: where the time of a step goes"
    return Table(f"gemm_parts_{model.name}", caption, ("method", *names), tuple(rows), notes)


def _named_others(model: Model) -> str:
    """The largest operators among the others, of all cases."""
    largest: dict[str, float] = {}
    for one in model.reached.values():
        for name, share in one.others.items():
            largest[name] = max(share, largest.get(name, 0.0))
    names = sorted(largest, key=lambda name: -largest[name])[:LARGEST]
    return "Others, at most: " + ", ".join(f"{name} {number(100 * largest[name])}" for name in names) + "."


def _lines(model: Model) -> list[Measurement]:
    lines = [
        Measurement(f"{model.name}: {name}", "the machine's rate", "FLOP/s", rate) for name, rate in model.rates.items()
    ]
    for case, one in model.reached.items():
        label = f"{model.name}: {_label(case)}"
        lines += [
            Measurement(label, "step", "s", one.step),
            Measurement(label, "products", "FLOP", one.operations),
            Measurement(label, "attention's products", "FLOP", one.attention),
            Measurement(label, "products relative to full fine-tuning's", "", one.bound),
            Measurement(label, "step relative to full fine-tuning's", "", one.to_full),
            Measurement(label, "share of the machine's rate", "", one.machine),
            Measurement(label, "products alone relative to the step", "", one.products),
            Measurement(label, "step relative to fp32", "", one.relative),
            *(Measurement(label, f"share of {name}", "", share) for name, share in one.parts.items()),
        ]
    return lines
