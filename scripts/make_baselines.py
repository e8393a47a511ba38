"""Compute the baselines of recorded runs: a constant answer, linear models of words, retrieval of the nearest text.

They are computed from the data of each run, in seconds, once for all runs on the same rows. Tables show them below the
methods, and mark each score that does not exceed them.

python scripts/make_baselines.py [--results results] [--evidence] [--experiment NAME ...] [--data-dir DIR]
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

import from_clone  # noqa: F401  # finds rosa

from rosa import records
from rosa.config import Config, from_dict
from rosa.errors import ConfigError, OutputError, RosaError
from rosa.records import Record
from rosa.records import baselines as store
from rosa.records.store import Evidence
from rosa.report.cli import add_evidence, add_results, no_records, tell_left_out
from rosa.report.grouping import no_experiment
from rosa.run import baselines
from rosa.utils.console import run_command


def arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description="Compute the baselines of recorded runs.")
    add_results(parser)
    add_evidence(parser)
    parser.add_argument("--experiment", nargs="+", default=[], metavar="NAME", help="default: all that have records")
    parser.add_argument(
        "--data-dir", default="", metavar="DIR", help="of data=local, if it is not where the run had it"
    )
    return parser.parse_args()


def wanted(results: Path, experiments: list[str], evidence: Evidence = "instead") -> dict[Path, list[Record]]:
    """The runs on each set of rows, by the file of its baselines.

    Args:
        results: folder of the records.
        experiments: those to look at; empty: all.
        evidence: when committed records count.

    Raises:
        ReportError: there are no records, or none of an experiment that was asked for.
    """
    found, problems = records.find(results, evidence=evidence)
    tell_left_out(problems)
    names = {run["identity"]["experiment"] for run in found}
    if not names:
        raise no_records(results)
    if missing := sorted(set(experiments) - names):
        raise no_experiment(missing[0], names)
    chosen: dict[Path, list[Record]] = {}
    for run in found:
        writes = run["config"]["task"]["kind"] != "generation" or run["config"]["task"].get("test")
        key = store.key_of_run(run)
        if key is not None and writes and (not experiments or run["identity"]["experiment"] in experiments):
            chosen.setdefault(store.path_of(results, key), []).append(run)
    return chosen


def readable(runs: Sequence[Record]) -> Config:
    """The configuration of the first run that this version of rosa can read; their rows are the same.

    Raises:
        ConfigError: there is none; what the first one has that is not known here.
    """
    for run in runs:
        with contextlib.suppress(ConfigError):
            return from_dict(run["config"])
    return from_dict(runs[0]["config"])


def main() -> int:
    """Compute the missing baselines, and print which ones could not be computed."""
    options = arguments()
    command = shlex.join(["python", "scripts/make_baselines.py", *sys.argv[1:]])
    left_out = 0
    evidence: Evidence = "beside" if options.evidence else "instead"
    for path, runs in wanted(options.results, options.experiment, evidence).items():
        if path.is_file():
            continue
        try:
            config = readable(runs)
            if options.data_dir:
                config = dataclasses.replace(config, data=dataclasses.replace(config.data, dir=options.data_dir))
            baselines.make(config, options.results, command, path)
        except OutputError:  # of the results folder, so of all the others as well
            raise
        except RosaError as error:
            left_out += 1
            tell_left_out([f"{records.describe(runs[0])}: {error}"])
            continue
        forms = store.read(path)["forms"]
        print(f"{path}: {', '.join(form['name'] for form in forms)}, {sum(form['seconds'] for form in forms):.1f} s")
    return 1 if left_out else 0


if __name__ == "__main__":
    sys.exit(run_command(main))
