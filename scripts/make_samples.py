"""Make a page of texts that an experiment's runs generated, beside the references: results/samples/EXPERIMENT.md.

python scripts/make_samples.py EXPERIMENT [--results results] [--rule best|last] [--seed 0] [--number 10] [--out FILE]
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

import from_clone  # noqa: F401  # finds rosa

from rosa import records
from rosa.config import Config
from rosa.data import e2e
from rosa.records import RULES
from rosa.report.cli import add_results, tell_left_out
from rosa.report.samples import Group, page
from rosa.utils import files
from rosa.utils.console import run_command


def arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description="Show the decoded texts of all methods for the same inputs.")
    parser.add_argument("experiment", metavar="EXPERIMENT", help="experiment whose decoded texts are in runs/")
    add_results(parser)
    parser.add_argument("--rule", choices=RULES, help="which epoch's texts (default: as in the tables)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the runs (default: 0)")
    parser.add_argument("--number", type=int, default=10, metavar="N", help="number of inputs (default: 10)")
    parser.add_argument("--out", type=Path, metavar="FILE", help="default: samples/EXPERIMENT.md in the results folder")
    return parser.parse_args()


def read_groups(config: Config, split: str) -> tuple[Sequence[Group], str]:
    """Read the inputs of a run's split again, and the SHA-256 of the split."""
    read = e2e.load(config.task, config.drawn_data, config.seed)
    return read.groups[split], read.facts["splits"][split]["sha256"]


def main() -> None:
    """Write the page, and print its path."""
    options = arguments()
    out = options.out or options.results / "samples" / f"{options.experiment}.md"
    files.refuse_unwritable_file(out, "--out ")
    found, problems = records.find(options.results, options.experiment)
    tell_left_out(problems)
    text = page(
        options.results,
        found,
        options.experiment,
        options.rule,
        options.seed,
        options.number,
        shlex.join(["python", "scripts/make_samples.py", *sys.argv[1:]]),
        read_groups,
    )
    files.write(out, text)
    print(out)


if __name__ == "__main__":
    sys.exit(run_command(main))
