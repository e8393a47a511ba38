"""The plan of a sweep as a table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from planning.speed import TO_LORA, Speed, known, measured, stands_for
from planning.work import Work
from rosa.config import Config
from rosa.config.registry import label
from rosa.config.train import TUNED
from rosa.report.formatting import significant as number
from rosa.report.formatting import sized_label
from rosa.report.tables.table import Cell, Line, Span, Table

PETA, TERA, HOUR = 1e15, 1e12, 3600
GLUE = ("mnli", "sst2", "mrpc", "cola", "qnli", "qqp", "rte", "stsb")
"""The tasks of a row of the paper's table."""
GOAL = 20 * 60
"""Seconds that a row of eight tasks is to take at most on an H200."""


@dataclass(frozen=True)
class Planned:
    """A run and what it does."""

    config: Config
    work: Work

    @property
    def method(self) -> str:
        """The method's label, with its rank and density."""
        return sized_label(vars(self.config.method))


@dataclass(frozen=True)
class Machine:
    """What the hours are for: a measured GPU, or a rate."""

    gpu: str = ""
    rate: float = 0.0
    """Operations a second, if no GPU is named."""

    def speed(self, config: Config) -> Speed:
        """The speed of a run."""
        if self.rate:
            return Speed(self.rate, self.rate)
        return measured(known(self.gpu), config.method.name, config.train.precision)


def seconds(run: Planned, machine: Machine) -> tuple[float, float]:
    """The seconds of a run: at the measured rate, and if no batch is faster than the measured one, block by block."""
    speed, work = machine.speed(run.config), run.work
    factorizations = work.factorization / speed.factorization
    training, evaluation = work.training / speed.rate, work.evaluation / speed.rate
    slow_training = max(training, work.batches * work.layers * speed.block)
    slow_evaluation = max(evaluation, work.evaluation_batches * work.layers * speed.forward)
    return training + evaluation + factorizations, slow_training + slow_evaluation + factorizations


def plan(runs: Sequence[Planned], machine: Machine) -> Table:
    """One row for each model and method, and one of all runs."""
    groups: dict[tuple[str, str], list[Planned]] = {}
    for run in runs:
        groups.setdefault((run.config.model.name, run.method), []).append(run)
    rows = [_row(*names, group, machine) for names, group in groups.items()]
    rows.append(_row("all", "", runs, machine))
    header = ("model", "method", "runs", "steps", "tokens, M", "PFLOP", "factorization, s", "GPU hours")
    name = ", ".join(dict.fromkeys(run.config.experiment_name for run in runs))
    return Table("plan", f"{name}: what its runs take", header, tuple(rows), tuple(_notes(runs, machine, groups)))


def _row(model: str, method: str, runs: Sequence[Planned], machine: Machine) -> tuple[Cell, ...]:
    work = [run.work for run in runs]
    whole = sum(one.operations for one in work)
    texts = (
        model,
        method,
        f"{len(runs):,}",
        f"{sum(one.steps for one in work):,}",
        number(sum(one.tokens for one in work) / 1e6),
        number(whole / PETA),
        number(sum(run.work.factorization / machine.speed(run.config).factorization for run in runs)),
        _span(*_total(runs, machine), HOUR),
    )
    return tuple(map(Cell, texts))


def _total(runs: Iterable[Planned], machine: Machine) -> tuple[float, float]:
    taken = [seconds(run, machine) for run in runs]
    return sum(low for low, _ in taken), sum(high for _, high in taken)


def _span(low: float, high: float, unit: float) -> str:
    return number(low / unit) if high <= low * 1.005 else f"{number(low / unit)} to {number(high / unit)}"


def _notes(
    runs: Sequence[Planned], machine: Machine, groups: Mapping[tuple[str, str], Sequence[Planned]]
) -> Iterable[Line]:
    yield _note(
        "PFLOP: 10^15 floating-point operations of matrix products, counted by PyTorch on the model's shape, padding "
        "to multiples of 8 tokens included: forward, backward, evaluations after each epoch, factorizations. Decoding, "
        "loading and pretraining are not planned."
    )
    if machine.rate:
        yield _note(f"Hours at {number(machine.rate / TERA)} TFLOP/s.")
    else:
        rates = {machine.speed(run.config).rate / TERA for run in runs}
        yield _note(
            f"Hours on one {known(machine.gpu)}, from a measured step of each method (32 x 128 tokens, RoBERTa-base's "
            f"shape, docs/measurements.md: {_span(min(rates), max(rates), 1)} TFLOP/s). Lower figure: at the "
            "measured rate. Upper: no batch shorter than the measured step, or in an evaluation than its forward "
            "pass's share of it, scaled by blocks, since launching kernels may dominate."
        )
        yield from _stand_ins(runs, machine)
    assumed = sorted({run.config.task.name for run in runs if not run.work.measured})
    if assumed:
        yield _note(
            f"Not measured, assumed as the mean of other tasks of two texts: the length of {', '.join(assumed)}."
        )
    whole = sorted({run.config.task.name for run in runs if run.work.all_outputs})
    if whole:
        yield _note(
            f"All outputs over the vocabulary are counted for {', '.join(whole)}: training leaves out those of the "
            "prompts, whose length is not known."
        )
    tuned = sorted({run.config.train.tuning.experiment for run in runs if run.config.train.lr == TUNED})
    if tuned:
        yield _note(f"The learning rates are those that {', '.join(tuned)} selects, which is planned apart.")
    for (model, method), group in groups.items():
        seed = group[0].config.seed
        rates_of = {run.config.train.lr for run in group}
        one = [run for run in group if run.config.seed == seed and run.config.task.name in GLUE]
        if len(rates_of) == 1 and sorted(run.config.task.name for run in one) == sorted(GLUE):
            low, high = _total(one, machine)
            work = [run.work for run in one]
            yield _note(
                f"{model}, {method}: one seed's row of eight tasks, {_span(low, high, 60)} min; {GOAL // 60} min need "
                f"{number(sum(w.operations for w in work) / GOAL / TERA)} TFLOP/s, and steps of "
                f"{number(1000 * GOAL / sum(w.steps for w in work))} ms."
            )


def _stand_ins(runs: Sequence[Planned], machine: Machine) -> Iterable[Line]:
    """Which methods' steps were not measured on the GPU, and what is assumed of them."""
    gpu = known(machine.gpu)
    labels = {
        (run.config.method.name, label(run.config.method.name))
        for run in runs
        if stands_for(gpu, run.config.method.name, run.config.train.precision) != run.config.method.name
    }
    for method, text in sorted(labels):
        factor = f"{TO_LORA[method]} times LoRA's, as on an H100 in fp32" if method in TO_LORA else "LoRA's"
        yield _note(f"Not measured on an {gpu}: a step of {text}; its time is assumed to be {factor}.")


def _note(text: str) -> Line:
    return (Span(text),)
