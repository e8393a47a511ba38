"""The costs table of an experiment: time, memory and parameters of each row, and their ratios to LoRA's."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rosa.records import Record
from rosa.report import formatting
from rosa.report.comparison import Comparison, Row
from rosa.report.significance import by_size, lora_of
from rosa.report.tables.provenance import provenance
from rosa.report.tables.results import trainable
from rosa.report.tables.scores_csv import spaced, write
from rosa.report.tables.table import Cell, Line, Table, loud, text
from rosa.utils.formatting import MIB


@dataclass(frozen=True)
class Quantity:
    """One measured cost of a run."""

    key: str
    name: str
    """Column header and axis label, with the unit."""
    unit: float
    """Divisor of the recorded value."""
    of: Callable[[Record], float | None]
    of_machine: bool = True
    """Whether the machine determines it: then values of two machines have neither a mean nor a ratio."""
    has_ratio: bool = True
    """Whether it is positive, so that two rows have a ratio."""


def state_bytes(run: Record) -> float | None:
    """Bytes of weights, gradients and optimizer state: the memory that depends on the method."""
    costs = run["costs"]
    if not {"weights_bytes", "gradients_bytes", "optimizer_state_bytes"} <= costs.keys():
        return None
    return costs["weights_bytes"] + costs["gradients_bytes"] + costs["optimizer_state_bytes"]


def own_memory(run: Record, key: str) -> float | None:
    """A measure of the memory of a run on a device, or of the first run of its process.

    Of a later run on a CPU it counts what the earlier ones left, or leaves out what it uses of that again.
    """
    found = run["costs"]
    alone = found.get("device_bytes") is not None or found.get("first_of_process")
    value: Any = found.get(key) if alone else None
    return value


def peak_bytes(run: Record) -> float | None:
    """Peak memory in bytes: of the GPU, or of the process if there is no GPU and this run is its first."""
    device = run["costs"].get("device_bytes")
    return own_memory(run, "host_bytes") if device is None else device


def loading_share(run: Record) -> float | None:
    """The share of the updates' time that was spent waiting for batches."""
    loading, whole = run["costs"].get("seconds_in_loading"), run["costs"].get("seconds_in_steps")
    return loading / whole if loading is not None and whole else None


def forgotten(run: Record) -> float | None:
    """The loss in nats of the trained model on the fixed text, less that of the pretrained one."""
    found = run.get("diagnostics", {}).get("forgetting")
    return found["after"] - found["before"] if found else None


def why_not_known(run: Record) -> str:
    """Why a record does not say what was forgotten; empty if it does."""
    found, config = run.get("diagnostics", {}), run["config"]
    if "forgetting" in found:
        return ""
    if "forgetting_missing" in found:
        return found["forgetting_missing"]
    if config["task"].get("kind") == "vector_regression":
        return "the task has no texts"
    # Of a record that does not say: it is of an earlier version.
    told = {None: "recorded before it was measured", False: "train.forgetting=false"}
    return told.get(config["train"].get("forgetting"), "the checkpoint has no masked-token head")


def trainable_parameters(run: Record) -> float | None:
    """Parameters of adapter and head."""
    params = run["params"]
    return params["trainable"] + params["head"] if {"trainable", "head"} <= params.keys() else None


STEP = Quantity("seconds_per_step", "Step (ms)", 1e-3, lambda run: run["costs"].get("seconds_per_step_median"))
RESAMPLE = Quantity(
    "seconds_per_resample", "Resample (ms)", 1e-3, lambda run: run["costs"].get("seconds_per_resample_median")
)
THROUGHPUT = Quantity("examples_per_second", "Examples/s", 1, lambda run: run["costs"].get("examples_per_second"))
LOADING = Quantity("loading_share", "Loading (% of steps)", 1e-2, loading_share)
STATE = Quantity("state_bytes", "Training state (MiB)", MIB, state_bytes, of_machine=False)
PEAK = Quantity("peak_bytes", "Peak memory (MiB)", MIB, peak_bytes)
ABOVE = Quantity(
    "memory_max_bytes", "Memory above baseline (MiB)", MIB, lambda run: own_memory(run, "memory_max_bytes")
)
CHECKPOINT = Quantity(
    "checkpoint_bytes",
    "Checkpoint (MiB)",
    MIB,
    lambda run: run["costs"].get("checkpoint_bytes"),
    of_machine=False,
)
MEMORY_MEAN = Quantity("memory_mean_bytes", "Mean (MiB)", MIB, lambda run: own_memory(run, "memory_mean_bytes"))
MEMORY_P99 = Quantity("memory_p99_bytes", "99 % (MiB)", MIB, lambda run: own_memory(run, "memory_p99_bytes"))
TRAINING = Quantity(
    "seconds_without_evaluations", "Training (s)", 1, lambda run: run["costs"].get("seconds_without_evaluations")
)
TRAINABLE = Quantity("trainable_parameters", "Trainable parameters", 1, trainable_parameters, of_machine=False)
FORGOTTEN = Quantity("forgotten", "Forgotten (nats)", 1, forgotten, of_machine=False, has_ratio=False)
QUANTITIES = (STEP, RESAMPLE, THROUGHPUT, LOADING, STATE, PEAK, ABOVE, CHECKPOINT, FORGOTTEN)
"""The columns of the table, before the trainable parameters."""
FURTHER = (MEMORY_MEAN, MEMORY_P99, TRAINING)
"""PEFT's other measures, which are in the CSV file alone: a table of them all could not be read."""
CSV_COLUMNS = (
    *("experiment", "model", "task", "row", "quantity", "n", "seeds", "values", "mean"),
    *("lora_row", "pairs", "ratio_to_lora"),
)

Key = tuple[str, int, str]
"""Task, seed and machine of a run; no machine for a quantity that does not depend on it."""
Measured = Mapping[Key, float]
"""The values of a quantity, as recorded."""


def measured(row: Row, quantity: Quantity) -> dict[Key, float]:
    """The values of the runs that a row shows and that have measured it."""
    found = {}
    for task, result in row.results.items():
        for seed, run in sorted(result.selected.scored.items()):
            value = quantity.of(run)
            if value is not None:
                found[task, seed, machine(run) if quantity.of_machine else ""] = float(value)
    return found


def machine(run: Record) -> str:
    """The device, processor and number of threads of a run."""
    found = run["environment"]
    threads = found.get("threads")
    counted = f", {threads} thread{'' if threads == 1 else 's'}" if threads else ""
    device = found.get("device") or "device not recorded"
    return f"{device} ({found.get('cpu') or 'CPU not recorded'}{counted})"


def of_several_machines(rows: Iterable[Row], quantity: Quantity) -> bool:
    """Whether the rows' values of a quantity are of several machines, so that they do not compare."""
    return len({name for row in rows for _, _, name in measured(row, quantity)}) > 1


def mean(values: Measured) -> float | None:
    """The mean of values; None without any, or of several machines."""
    return statistics.fmean(values.values()) if len({name for _, _, name in values}) == 1 else None


def ratio(own: Measured, other: Measured) -> float | None:
    """Geometric mean of own / other over the tasks and seeds that both have on one machine; None without any."""
    logs = [math.log(own[key] / other[key]) for key in own.keys() & other.keys() if own[key] > 0 and other[key] > 0]
    return math.exp(statistics.fmean(sorted(logs))) if logs else None


def on_device(rows: Iterable[Row]) -> bool:
    """Whether every run that the rows show and that measured its memory did so on a device, such as a GPU.

    A process's peak counts libraries and whatever else it holds, so that methods can hardly be told apart by it.
    """
    shown = [run for row in rows for result in row.results.values() for run in result.selected.scored.values()]
    found = [run["costs"].get("device_bytes") is not None for run in shown if peak_bytes(run) is not None]
    return bool(found) and all(found)


def memory_of(rows: Sequence[Row]) -> Quantity:
    """The memory that tells methods apart: a device's peak, otherwise that of the process above its baseline."""
    return PEAK if on_device(rows) else ABOVE


def costs_table(comparison: Comparison) -> Table | None:
    """Rows are methods and settings; each number is the mean over tasks and seeds, with its ratio to LoRA's.

    Where batch sizes differ from task to task, each task has rows of its own. None if no finished run has measured
    anything.
    """
    quantities = [q for q in QUANTITIES if any(measured(row, q) for row in comparison.rows)]
    if not quantities:
        return None
    apart = len({run["config"]["train"].get("batch_size") for run in comparison.shown}) > 1
    rows = []
    for row in comparison.rows:
        lora = lora_of(row, comparison.rows)
        for task in [task.name for task in comparison.tasks if task.name in row.results] if apart else [None]:
            name = f"{row.label}, {formatting.task_name(task)}" if task else row.label
            cells = [Cell(name), *(Cell(_text(row, lora, quantity, task)) for quantity in quantities)]
            rows.append((*cells, Cell(trainable(row, task))))
    model = ", ".join(sorted({row.model for row in comparison.rows}))
    tasks = ", ".join(formatting.task_name(task.name) for task in comparison.tasks)
    caption = f"{comparison.experiment}: what training {model} on {tasks} costs"
    header = ("Method", *(quantity.name for quantity in quantities), "Trainable")
    return Table(f"{comparison.experiment}-costs", caption, header, tuple(rows), tuple(_notes(comparison, apart)))


def _text(row: Row, lora: Row | None, quantity: Quantity, task: str | None) -> str:
    values = _of_task(measured(row, quantity), task)
    average = mean(values)
    shown = formatting.MISSING if average is None else formatting.significant(average / quantity.unit)
    to_lora = ratio(values, measured(lora, quantity)) if lora is not None and quantity.has_ratio else None
    return shown if to_lora is None else f"{shown} ({formatting.significant(to_lora)}×)"


def _notes(comparison: Comparison, apart: bool) -> Iterator[Line]:
    machines = sorted({machine(run) for run in comparison.shown})
    if len(machines) > 1:
        yield loud(
            "Runs of several machines:",
            "; ".join(machines) + ". Their times and peaks do not compare: a row with runs of several has no mean of "
            "them, ratios are of runs on one machine, and the numbers of two rows may be of two machines.",
        )
    else:
        yield text(f"Machine: {machines[0]}.")
    over = "seeds" if apart else "tasks and seeds"
    yield text(
        f"Mean over the {over} that the experiment's table shows; in brackets the ratio to LoRA (of the same rank or "
        f"the nearest size, where there are several), the geometric mean over the {over} that both have on one "
        "machine. "
        f"{'Tasks stand apart, since their batch sizes differ. ' if apart else ''}Step: the median "
        "of a run's optimizer updates; resample: the median of a run's resamples, all layers. Times are those of the "
        "runs themselves, whatever else the machine did meanwhile: `make benchmark` measures methods side by side."
        f"{by_size(comparison.rows)}"
    )
    on_gpu = {run["costs"].get("device_bytes") is not None for run in comparison.shown if run["costs"]}
    peak = {
        True: "the GPU's",
        False: "the process's, libraries included, of runs that were the first of theirs (others find what those left)",
    }
    yield text(_on_forgetting(comparison))
    if any(measured(row, ABOVE) for row in comparison.rows):
        yield text(
            "Memory above baseline: the most that the device, without one the process, held at the end of an update, "
            "less what it held before the run (PEFT's measure; its mean, its 99th percentile, and the seconds of "
            "training without evaluations are in the CSV file)."
        )
    if any(measured(row, CHECKPOINT) for row in comparison.rows):
        yield text("Checkpoint: the tensors that restore the trained model beside the pretrained one.")
    yield text(
        "Training state: weights, gradients and optimizer state during an update. "
        f"Peak memory: {' or '.join(peak[gpu] for gpu in sorted(on_gpu))}. "
        f"{formatting.MISSING}: none, not measured, or of several machines."
    )
    yield from provenance(comparison)


def _on_forgetting(comparison: Comparison) -> str:
    """What the column of forgetting shows, and why it has nothing for some runs."""
    reasons = Counter(filter(None, map(why_not_known, comparison.shown)))
    listed = "; ".join(
        f"{reason} ({count} {'run' if count == 1 else 'runs'})" for reason, count in reasons.most_common()
    )
    if reasons.total() == len(comparison.shown):
        return f"What was forgotten is not known: {listed}."
    return (
        "Forgotten: the loss on a fixed text that the task never shows, after training less before: of the next "
        "token, for an encoder of masked ones." + (f" Not known: {listed}." if listed else "")
    )


def costs_csv(comparisons: Iterable[Comparison]) -> str:
    """Every number of the costs tables by task, as recorded: seconds, bytes, counts, nats."""
    return write(CSV_COLUMNS, (line for one in comparisons for line in _lines(one)))


def _lines(comparison: Comparison) -> Iterator[dict[str, Any]]:
    for row in comparison.rows:
        lora = lora_of(row, comparison.rows)
        for quantity in (*QUANTITIES, *FURTHER, TRAINABLE):
            own = measured(row, quantity)
            other = measured(lora, quantity) if lora is not None else {}
            for task in comparison.tasks:
                values = _of_task(own, task.name)
                if not values:
                    continue
                rival = _of_task(other, task.name)
                yield {
                    "experiment": comparison.experiment,
                    "model": row.model,
                    "task": task.name,
                    "row": row.label,
                    "quantity": quantity.key,
                    "n": len(values),
                    "seeds": spaced(seed for _, seed, _ in values),
                    "values": spaced(values.values()),
                    "mean": mean(values),
                    "lora_row": lora.label if lora is not None and rival else "",
                    "pairs": len(values.keys() & rival.keys()),
                    "ratio_to_lora": ratio(values, rival) if quantity.has_ratio else None,
                }


def _of_task(values: Measured, task: str | None) -> dict[Key, float]:
    return {key: value for key, value in values.items() if task in (None, key[0])}
