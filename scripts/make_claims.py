#!/usr/bin/env python
"""Write docs/claims.md: the papers' claims, each compared with the records and the benchmark.

python scripts/make_claims.py [--results results] [--out docs/claims.md]
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import from_clone  # noqa: F401  # finds rosa

from rosa.records import baselines, find
from rosa.report import benchmarked
from rosa.report.claims.page import page
from rosa.report.cli import add_results, tell_left_out
from rosa.utils import files
from rosa.utils.console import run_command


def main() -> None:
    """Write the page and print its name."""
    options = argparse.ArgumentParser(
        description="Write the page of the papers' claims from the records and the benchmark's table."
    )
    add_results(options)
    options.add_argument("--out", type=Path, default=Path("docs/claims.md"), help="default: docs/claims.md")
    chosen = options.parse_args()
    files.refuse_unwritable_file(chosen.out, "--out ")
    found, problems = find(chosen.results, evidence="alone")
    scored, lost = baselines.find(chosen.results)
    tell_left_out([*problems, *lost])
    measured = benchmarked.read(chosen.results / "tables" / benchmarked.FILE)
    files.write(chosen.out, page(found, measured, scored))
    print(chosen.out)


if __name__ == "__main__":
    sys.exit(run_command(main))
