"""Compute the baselines of recorded runs: a constant answer, linear models of words, retrieval of the nearest text.

They are computed from the data of each run, in seconds, once for all runs on the same rows. Tables show them below the
methods, and mark each score that does not exceed them.

python scripts/make_baselines.py [--results results] [--experiment NAME ...] [--data-dir DIR]
"""

from __future__ import annotations

import argparse
import dataclasses
import shlex
import sys
from pathlib import Path

import from_clone  # noqa: F401  # finds rosa

from rosa import records
from rosa.config import from_dict
from rosa.errors import DataError, ReportError
from rosa.records import Record
from rosa.records import baselines as store
from rosa.report.cli import no_records
from rosa.run import baselines
from rosa.utils.console import run_command


def arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description="Compute the baselines of recorded runs.")
    parser.add_argument("--results", type=Path, default=Path("results"), help="folder of runs/ and records/")
    parser.add_argument("--experiment", nargs="+", default=[], metavar="NAME", help="default: all that have records")
    parser.add_argument(
        "--data-dir", default="", metavar="DIR", help="of data=local, if it is not where the run had it"
    )
    return parser.parse_args()


def wanted(results: Path, experiments: list[str]) -> dict[Path, Record]:
    """One run for each set of rows, by the file of its baselines.

    Raises:
        ReportError: there are no records, or none of an experiment that was asked for.
    """
    found, problems = records.find(results)
    for problem in problems:
        print(f"left out: {problem}", file=sys.stderr)
    names = {run["identity"]["experiment"] for run in found}
    if not names:
        raise no_records(results)
    if missing := sorted(set(experiments) - names):
        raise ReportError(f"experiment {missing[0]!r} has no records; there are: {', '.join(sorted(names))}")
    chosen: dict[Path, Record] = {}
    for run in found:
        writes = run["config"]["task"]["kind"] != "generation" or run["config"]["task"].get("test")
        key = store.key_of_run(run)
        if key is not None and writes and (not experiments or run["identity"]["experiment"] in experiments):
            chosen.setdefault(store.path_of(results, key), run)
    return chosen


def main() -> int:
    """Compute the missing baselines, and print which ones could not be computed."""
    options = arguments()
    command = shlex.join(["python", "scripts/make_baselines.py", *sys.argv[1:]])
    left_out = 0
    for path, run in wanted(options.results, options.experiment).items():
        if path.is_file():
            continue
        config = from_dict(run["config"])
        if options.data_dir:
            config = dataclasses.replace(config, data=dataclasses.replace(config.data, dir=options.data_dir))
        try:
            baselines.make(config, options.results, command, path)
        except DataError as error:
            left_out += 1
            print(f"left out: {records.describe(run)}: {error}", file=sys.stderr)
            continue
        forms = store.read(path)["forms"]
        print(f"{path}: {', '.join(form['name'] for form in forms)}, {sum(form['seconds'] for form in forms):.1f} s")
    return 1 if left_out else 0


if __name__ == "__main__":
    sys.exit(run_command(main))
