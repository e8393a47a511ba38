"""Time the tables and the report of a large sweep, from records on disk to text."""

from __future__ import annotations

import itertools
import json
import random
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import cast

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
from rosa.records.schema import Costs, Environment, Evaluation, Record
from rosa.report.html.contents import contents
from rosa.report.html.render import html
from rosa.report.study import Study
from rosa.report.tables import experiment
from rosa.report.tables.latex import latex
from rosa.report.tables.markdown import markdown
from rosa.report.tables.scores_csv import long_csv
from rosa.report.tables.table import Table

ROUNDS = 3
COUNT = 2000
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
    record["costs"] = cast(Costs, {"seconds_per_step_median": seconds_per_step, "host_bytes": 2**30})
    record["environment"] = cast(Environment, {"commit": "0" * 40, "dirty": False})
    record["data"] = {
        "source": "mini",
        "splits": {split: {"rows": 100, "sha256": split} for split in ("train", "validation")},
    }
    return record | {"status": "done", "finished": records.now()}


def _evaluation(epoch: int, chance: random.Random) -> Evaluation:
    scores = {"accuracy": chance.random(), "loss": 0.5}
    return cast(Evaluation, {"epoch": float(epoch), "step": 100 * epoch, "validation": scores})


def make_tables(results: Path) -> int:
    """Make every table and CSV file of the records under ``results``, as text.

    Returns:
        The number of characters.
    """
    found, _ = records.find(results)
    length = 0
    for name in sorted({record["identity"]["experiment"] for record in found}):
        study = Study(found, name)
        costs, numbers = experiment.costs(study)
        made = [*experiment.tables(study), *experiment.differences(study), *costs]
        length += sum(map(len, [*map(markdown, made), *map(latex, made), numbers, long_csv(study)]))
    return length


def make_page(results: Path) -> int:
    """Make the report of the records under ``results``, as text.

    Returns:
        The number of bytes.
    """
    return len(html(contents(*records.locate(results))).encode())


def benchmark(_: Workload, rounds: int, count: int = COUNT) -> Findings:
    """Time reading the records and making all tables, CSV files and the report, ``rounds`` times; needs no model."""
    sizes: list[int] = []
    with tempfile.TemporaryDirectory(prefix="rosa-records-") as folder:
        for i, record in enumerate(made_up(count)):
            place = Path(folder, "records", str(i))
            place.mkdir(parents=True)
            (place / records.RECORD).write_text(json.dumps(record), encoding="utf-8")
        read = spread([seconds(lambda: records.find(Path(folder)), "cpu") for _ in range(rounds)])
        whole = spread([seconds(lambda: make_tables(Path(folder)), "cpu") for _ in range(rounds)])
        page = spread([seconds(lambda: sizes.append(make_page(Path(folder))), "cpu") for _ in range(rounds)])
    case = f"{count} records"
    rows = (
        row("reading the records", with_quartiles(read)),
        row("reading them and making every table", with_quartiles(whole)),
        row("reading them and making the report", with_quartiles(page)),
    )
    notes = (
        note(
            f"{case} of sweeps on four tasks, at most {SEEDS * CELLS} each: seconds, the median of {rounds} rounds. "
            f"The report has {number(sizes[0] / 1e6)} MB."
        ),
    )
    table = Table("benchmark_reports", f"Tables and report from {case}", ("", "seconds"), rows, notes)
    measured = (
        Measurement(case, "read", "s", read),
        Measurement(case, "tables", "s", whole),
        Measurement(case, "report", "s", page),
        Measurement(case, "size of the report", "bytes", float(sizes[0])),
    )
    return Findings(table, measured)
