"""Time the commands that make tables, figures and the report of large sweeps, from their start to their last file."""

from __future__ import annotations

import itertools
import json
import random
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import cast

from tqdm import tqdm

from benchmarks import BenchmarkError
from benchmarks.findings import Findings, Measurement, note, number, row, with_quartiles
from benchmarks.timing import seconds, spread
from benchmarks.workload import Workload
from rosa import records
from rosa.config import (
    Config,
    DataConfig,
    LoggerConfig,
    LoraConfig,
    MethodConfig,
    ModelConfig,
    RosaConfig,
    TaskConfig,
    TrainConfig,
)
from rosa.records.schema import Costs, Evaluation, Record
from rosa.report.tables.table import Table

ROUNDS = 3
COUNTS = (2000, 20_000)
LARGE = 20_000
"""From this number of records on one round is enough: it takes minutes, and its noise is small in comparison."""
PAGES = {"tables": "make_tables", "figures": "make_figures", "report": "make_report"}
"""What is made, and the script that makes it."""
BOTH = "tables and figures"
WANTED = {2000: {BOTH: 3, "report": 6}, 20_000: {BOTH: 30, "report": 60}}
"""Number of records -> the most seconds that are wanted."""
SCRIPTS = Path(__file__).resolve().parent.parent
RATES = (1e-4, 2e-4, 5e-4, 1e-3)
SEEDS = 10
LAYERS = 48
"""Number of adapted layers of RoBERTa-base; a record has an entry for each."""
EPOCHS = 10
CELLS = 256
"""Methods, tasks and learning rates of a sweep."""
EXPERIMENT = "sweep"
"""Experiments are called ``sweep1``, ``sweep2`` and so on; the records of one are at most those of all its cells."""


def made_up(count: int) -> Iterator[Record]:
    """Generate finished runs' records of real size: sweeps of ranks, periods, tasks, learning rates and seeds."""
    methods: list[MethodConfig] = [RosaConfig(rank=r, every=e) for r in (1, 2, 4, 8) for e in (0, 1, 2)]
    methods += [LoraConfig(rank=r) for r in (1, 2, 4, 8)]
    tasks = ("cola", "mrpc", "rte", "stsb")
    chance = random.Random(0)
    # Seeds are the outermost loop of a sweep, so that fewer records mean fewer seeds and not fewer table rows.
    cells = list(itertools.product(range(SEEDS), RATES, tasks, methods))
    for position in range(count):
        sweep, cell = divmod(position, len(cells))
        seed, lr, task, method = cells[cell]
        yield _record(f"{EXPERIMENT}{sweep + 1}", task, method, lr, seed, chance)


def _record(experiment: str, task: str, method: MethodConfig, lr: float, seed: int, chance: random.Random) -> Record:
    config = Config(
        model=ModelConfig(name="mini-roberta", source="mini"),
        task=TaskConfig(task, texts=["a"], labels=["no", "yes"], metrics=["accuracy"], headline="accuracy"),
        method=method,
        train=TrainConfig(lr=lr),
        data=DataConfig(),
        logger=LoggerConfig(),
        seed=seed,
        experiment_name=experiment,
    )
    record = records.new(config, f"python scripts/train.py task={task} seed={seed}")
    record["history"] = [_evaluation(epoch, chance) for epoch in range(1, EPOCHS + 1)]
    record["metrics"] = {
        "best": max(record["history"], key=lambda entry: records.by_split(entry)["validation"]["accuracy"] or 0.0),
        "last": record["history"][-1],
        "selection": {"split": "validation", "metric": "accuracy", "rule": "highest"},
    }
    record["params"] = {"trainable": 147456, "head": 592130, "total": 125_000_000}
    record["adapted"] = [
        {"name": f"encoder.layer.{i}.query", "kind": "Linear", "shape": [768, 768], "rank": 8, "trainable": 12288}
        for i in range(LAYERS)
    ]
    seconds_per_step = 0.1 + chance.random() / 100
    measured = {"seconds_per_step_median": seconds_per_step, "host_bytes": 2**30}
    record["costs"] = cast(Costs, dict.fromkeys(Costs.__required_keys__, 0) | {"host_peak_reset": True} | measured)
    record["environment"] = {
        "commit": "0" * 40,
        "dirty": False,
        "python": "3.11",
        "packages": {"torch": "2.8"},
        "system": "Linux",
        "cpu": "made up",
        "cpu_count": 2,
        "threads": 2,
        "device": "cpu",
        "cuda": None,
    }
    record["data"] = {
        "source": "mini",
        "splits": {split: {"rows": 100, "sha256": split} for split in ("train", "validation")},
    }
    return record | {"status": "done", "finished": records.now()}


def _evaluation(epoch: int, chance: random.Random) -> Evaluation:
    scores = {"accuracy": chance.random(), "loss": 0.5}
    return cast(Evaluation, {"epoch": float(epoch), "step": 100 * epoch, "validation": scores})


def write(results: Path, count: int) -> None:
    """Write made-up records to a results folder, where runs would have written them."""
    for record in made_up(count):
        folder = records.run_folder(results, record["identity"])
        folder.mkdir(parents=True)
        (folder / records.RECORD).write_text(json.dumps(record), encoding="utf-8")


def make(page: str, results: Path) -> None:
    """Run the command that makes one of ``PAGES``, in a process of its own as a user does.

    Raises:
        BenchmarkError: it fails.
    """
    command = [sys.executable, str(SCRIPTS / f"{PAGES[page]}.py"), "--results", str(results)]
    done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise BenchmarkError(f"{' '.join(command)} failed: {done.stderr.strip()[-500:]}")


def benchmark(_: Workload, rounds: int, counts: Sequence[int] = COUNTS) -> Findings:
    """Time each command on results folders with these numbers of records; needs no model."""
    taken: dict[int, dict[str, list[float]]] = {}
    sizes: dict[int, tuple[int, int]] = {}
    with tempfile.TemporaryDirectory(prefix="rosa-records-") as folder:
        for count in counts:
            results = Path(folder, str(count))
            write(results, count)
            taken[count] = {page: [] for page in PAGES}
            for _ in tqdm(range(rounds if count < LARGE else 1), desc=f"{count:,} records", dynamic_ncols=True):
                for page, times in taken[count].items():
                    times.append(seconds(lambda page=page, results=results: make(page, results), "cpu"))  # type: ignore[misc]
            drawn = len(list((results / "figures").rglob("*.svg")))
            sizes[count] = drawn, (results / "report.html").stat().st_size
    return findings(taken, sizes)


def findings(taken: Mapping[int, Mapping[str, Sequence[float]]], sizes: Mapping[int, tuple[int, int]]) -> Findings:
    """Build the table.

    Args:
        taken: number of records -> page -> the seconds of each round.
        sizes: number of records -> the number of figures, and the report's bytes.
    """
    rows, lines = [], []
    for count, pages in taken.items():
        both = [sum(pair) for pair in zip(pages["tables"], pages["figures"], strict=True)]
        for page, times in {"tables": pages["tables"], "figures": pages["figures"], BOTH: both,
                            "report": pages["report"]}.items():  # fmt: skip
            most = WANTED.get(count, {}).get(page)
            whole = spread(times)
            rows.append(row(f"{count:,}", page, with_quartiles(whole), str(most) if most else "", str(whole.count)))
            lines.append(Measurement(f"{count} records", page, "s", whole))
        figures, size = sizes[count]
        lines.append(Measurement(f"{count} records", "number of figures", "", figures))
        lines.append(Measurement(f"{count} records", "size of the report", "byte", size))
    contents = "; ".join(
        f"of {count:,} records {figures} figures and {number(size / 1e6)} MB of report"
        for count, (figures, size) in sizes.items()
    )
    notes = (
        note(
            f"Records of sweeps over {CELLS} cells, {SEEDS} seeds, on four tasks, at most {SEEDS * CELLS:,} an "
            f"experiment: {contents}."
        ),
        note(
            f"Seconds of {', '.join(f'scripts/{script}.py' for script in PAGES.values())}, from the start of the "
            "process to its end; median (quartiles) of the rounds."
        ),
    )
    header = ("records", "pages", "seconds", "wanted, at most", "rounds")
    caption = "Tables, figures and the report of many records"
    return Findings(Table("benchmark_reports", caption, header, tuple(rows), notes), tuple(lines))
