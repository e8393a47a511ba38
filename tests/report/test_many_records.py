"""The records that the benchmark of the reports makes up are such as runs write, and its tables hold them all."""

from __future__ import annotations

import csv
import io

from benchmarks.reports import COUNT, EXPERIMENT, made_up

from rosa import records
from rosa.report.tables import experiment
from rosa.report.tables.scores_csv import long_csv


def test_made_up_records_are_valid_and_all_in_the_tables(tmp_path):
    made = list(made_up(280))
    for number, record in enumerate(made[::28]):
        records.write(tmp_path / "records" / str(number), record)
    found, problems = records.find(tmp_path)
    assert (len(found), problems) == (10, [])
    assert len({tuple(record["identity"].values()) for record in made_up(COUNT)}) == COUNT
    lines = csv.DictReader(io.StringIO(long_csv(made, EXPERIMENT)))
    assert sum(int(line["n"]) for line in lines if line["rule"] == "best") == 280
    names = [table.name for table in experiment.tables(made, EXPERIMENT)]
    assert names == ["sweep", *(f"sweep-rank-frequency-{number}" for number in (1, 2, 3, 4))]
