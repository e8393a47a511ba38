"""Formats of names and numbers, shared by all tables and figures."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from rosa.config import registry
from rosa.utils.formatting import DECIMALS

if TYPE_CHECKING:
    from rosa.report.comparison import Task

TASKS = ("mnli", "sst2", "mrpc", "cola", "qnli", "qqp", "rte", "stsb", "wnli")
"""GLUE's tasks in the order of its papers' tables."""
TASK_NAMES = dict(zip(TASKS, ("MNLI", "SST-2", "MRPC", "CoLA", "QNLI", "QQP", "RTE", "STS-B", "WNLI"), strict=True)) | {
    "e2e": "E2E NLG",
    "gsm8k": "GSM8K",
    "viggo": "ViGGO",
    "sql": "SQL",
}
METRIC_NAMES = {
    "accuracy": "accuracy",
    "f1": "F1",
    "matthews_correlation": "Matthews correlation",
    "pearson": "Pearson correlation",
    "spearmanr": "Spearman correlation",
    "r2": "R² (share of variance explained)",
    "mse": "mean squared error",
    "perplexity": "perplexity",
    "mean_of_batches": "perplexity by ROSA's code",
    "bits_per_token": "bits per token",
    "bleu": "BLEU",
    "nist": "NIST",
    "meteor": "METEOR",
    "rouge_l": "ROUGE-L",
    "cider": "CIDEr",
    "exact_match": "exact match",
    "slot_f1": "slot F1",
    "execution": "execution",
}
MISSING = "—"
OPTIONS_IN_NAME = ("name", "rank", "every", "unit", "density", "schedule")
"""Options that every method label spells out."""
SCHEDULES = {"warmup": "after a warm-up", "sparse_only": "sparse part alone", "low_rank_only": "low-rank part alone"}
"""Schedules of RoSA in a label; ``joint`` is its usual one."""
SPEAKING_OPTIONS = ("factorization", "sampling", "split")
"""Options whose values are clear without their key."""


def task_name(task: str) -> str:
    """A task's name as in tables."""
    return TASK_NAMES.get(task, task)


def task_order(tasks: Iterable[str]) -> list[str]:
    """Tasks in GLUE's order, then all others by name."""
    return sorted(tasks, key=lambda task: (TASKS.index(task) if task in TASKS else len(TASKS), task))


def scale(metric: str) -> int:
    """Factor between the recorded and the shown score: 100, or 1 for errors and scores above one."""
    return 1 if metric in DECIMALS else 100


def scaled_name(metric: str) -> str:
    """A metric's name with its scale: ``BLEU ×100``, ``perplexity``."""
    name = METRIC_NAMES.get(metric, metric)
    return name if scale(metric) == 1 else f"{name} ×{scale(metric)}"


def score_label(task: Task) -> str:
    """Axis label of a task's headline metric, with ``(lower is better)`` if it is."""
    return scaled_name(task.metric) + (" (lower is better)" if task.lower_is_better else "")


def score(value: float, metric: str) -> str:
    """A score as it is shown: accuracy 0.71239 is ``71.2``, perplexity 1.704 is ``1.70``."""
    decimals = DECIMALS.get(metric, 1)
    written = f"{scale(metric) * value:.{decimals}f}"
    return written.removeprefix("-") if float(written) == 0 else written


def signed_score(value: float, metric: str) -> str:
    """A difference of two scores, with its sign: ``+1.2``, ``-0.3``, ``0.0``."""
    written = score(value, metric)
    return f"+{written}" if value > 0 and float(written) else written


def mean_and_deviation(mean: float, deviation: float | None, metric: str) -> str:
    """``71.2 ± 0.4``; without a deviation (one seed) ``71.2``."""
    return score(mean, metric) if deviation is None else f"{score(mean, metric)} ± {score(deviation, metric)}"


def p_value(value: float | None) -> str:
    """``0.012``, ``<0.001``; a dash where there is no test."""
    if value is None:
        return MISSING
    return "<0.001" if value < 0.001 else f"{value:.3f}"


def significant(value: float) -> str:
    """A measurement with three significant digits, or all digits of its integer part: ``0.0432``, ``12,346``."""
    if value == 0:
        return "0"
    exponent = int(f"{value:.2e}".partition("e")[2])  # of the rounded value: 0.9996 is 1.00
    return f"{value:,.{max(0, 2 - exponent)}f}"


def rate(lr: float) -> str:
    """A learning rate in its shortest exact form: 0.0005 -> ``5e-4``."""
    digits = format(Decimal(repr(lr)).normalize(), "e")
    return digits.replace("e+0", "") if digits.endswith("e+0") else digits


def count(parameters: float) -> str:
    """A number of parameters: ``812``, ``8.2K``, ``0.15M``, ``124.65M``."""
    if parameters >= 100_000:
        return f"{parameters / 1e6:.2f}M"
    return f"{parameters / 1e3:.1f}K" if parameters >= 1000 else f"{parameters:.0f}"


def count_range(parameters: Iterable[int]) -> str:
    """One count, or the smallest and the largest where they differ as written: ``0.59M`` or ``0.59M–0.60M``."""
    ordered = sorted(set(parameters))
    written = list(dict.fromkeys((count(ordered[0]), count(ordered[-1]))))
    return "–".join(written)


def setting(key: str, value: Any) -> str:
    """``key=value`` in a label; a list's items are joined by ``+``."""
    written = "+".join(map(str, value)) if isinstance(value, (list, tuple)) else value
    return f"{key}={written}"


def period(every: int, unit: str) -> str:
    """A resampling period: ``never``, ``every 1 epoch``, ``every 50 steps``."""
    if not every:
        return "never"
    return f"every {every} {unit}" + ("" if every == 1 else "s")


def option(key: str, value: Any) -> str:
    """A method's option in a label: the value alone where it is clear (``top``), otherwise ``alpha=32.0``."""
    return str(value) if key in SPEAKING_OPTIONS else setting(key, value)


def sized_label(method: Mapping[str, Any]) -> str:
    """A method with its rank and density: ``ROSA r=8``, ``RoSA (robust) r=4 d=2.08%``, ``RoSA (robust) d=0.6%``."""
    name, schedule = registry.label(method["name"]), method.get("schedule")
    if "rank" in method and schedule != "sparse_only":
        name += f" r={method['rank']}"
    if "density" in method and schedule != "low_rank_only":
        name += f" d={100 * method['density']:.3g}%"
    return name


def method_label(method: Mapping[str, Any], shown: Sequence[str]) -> str:
    """A method with its rank and resampling, then the options named in ``shown``: ``ROSA r=8, every 2 epochs, top``.

    RoSA's density is in percent, and its schedule says which of its parts there are: ``RoSA (robust) r=4 d=2.08%``.
    """
    parts, schedule = [sized_label(method)], method.get("schedule")
    if schedule in SCHEDULES:
        parts.append(SCHEDULES[schedule])
    if "every" in method and "unit" in method:
        parts.append(period(method["every"], method["unit"]) if method["every"] else "never resampled")
    return ", ".join(parts + [option(key, method[key]) for key in shown if key not in OPTIONS_IN_NAME])
