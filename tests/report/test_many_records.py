"""The records that the benchmark of the reports makes up are such as runs write, and its tables hold them all."""

from __future__ import annotations

import csv
import io

from benchmarks.reports import CELLS, EXPERIMENT, SEEDS, made_up

from rosa import records
from rosa.report.study import Study
from rosa.report.tables import experiment
from rosa.report.tables.scores_csv import long_csv


def test_made_up_records_are_valid_and_all_in_the_tables(tmp_path):
    made = list(made_up(280))
    assert len({tuple(r["identity"].values()) for r in made if r["identity"]["seed"] == 0}) == CELLS
    for number, record in enumerate(made[::28]):
        records.write(tmp_path / "records" / str(number), record)
    found, problems = records.find(tmp_path)
    assert (len(found), problems) == (10, [])
    more = SEEDS * CELLS + 1
    assert len({tuple(record["identity"].values()) for record in made_up(more)}) == more
    study = Study(made, f"{EXPERIMENT}1")
    lines = csv.DictReader(io.StringIO(long_csv(study)))
    assert sum(int(line["n"]) for line in lines if line["rule"] == "best") == 280
    names = [table.name for table in experiment.tables(study)]
    assert names == ["sweep1", *(f"sweep1-rank-frequency-{number}" for number in (1, 2, 3, 4))]
