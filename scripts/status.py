#!/usr/bin/env python
"""The state of a results folder's runs, by experiment, from their records; with --experiment, also missing runs.

python scripts/status.py [--results results]
python scripts/status.py --experiment rank_frequency [OVERRIDES, as for scripts/train.py]
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import from_clone  # noqa: F401  # finds rosa
from tqdm import tqdm

from rosa.config import register
from rosa.config.explain import explained
from rosa.errors import ReportError
from rosa.records import locate
from rosa.report.cli import add_results, tell_left_out
from rosa.sweep.grid import expand
from rosa.sweep.jobs import command, request
from rosa.sweep.status import Run, asked_for, elsewhere, run_of, table, to_do
from rosa.utils.console import run_command

CONF = Path(__file__).resolve().parent.parent / "conf"


def arguments() -> argparse.Namespace:
    """Parse the command line."""
    options = argparse.ArgumentParser(description="List which runs are done, failed, running, stopped and missing.")
    add_results(options)
    options.add_argument("--experiment", metavar="NAME", help="also list the missing runs of this file of experiments/")
    options.add_argument("overrides", nargs="*", help="with --experiment: the overrides given to scripts/train.py")
    found = options.parse_args()
    if found.overrides and not found.experiment:
        options.error(f"{found.overrides[0]}: overrides need --experiment NAME")
    return found


def main() -> None:
    """Print the table, and the runs that remain."""
    options = arguments()
    runs: dict[str, list[Run]] = {}
    sweep, others = "", []
    if options.experiment:
        register()
        overrides = [f"experiment={options.experiment}", *options.overrides, f"results_dir={options.results}"]
        with explained(CONF, overrides):
            asked = request(overrides)
            bar = tqdm(expand(CONF, asked), desc="composing", unit="run", leave=False, disable=None)
            jobs = [job for job, _ in bar]
        sweep = command(["-m", *overrides])
        runs[options.experiment] = list(asked_for(jobs, options.results))
        others = elsewhere(jobs, runs[options.experiment], options.results)
    else:
        found, problems = locate(options.results, evidence="none")
        tell_left_out(problems)
        for path, record in found.items():
            runs.setdefault(record["identity"]["experiment"], []).append(run_of(path, record))
    if not runs:
        raise ReportError(
            f"no runs under {options.results}/runs; make tables shows the committed records, if there are any"
        )
    print("\n".join([*table(runs), *to_do([run for group in runs.values() for run in group], sweep), *others]))


if __name__ == "__main__":
    sys.exit(run_command(main))
