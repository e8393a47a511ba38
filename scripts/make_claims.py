#!/usr/bin/env python
"""Write docs/claims.md, the papers' claims beside what the records say.

python scripts/make_claims.py [--results results] [--out docs/claims.md]
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from rosa.records import find
from rosa.report.claims import page
from rosa.utils import files
from rosa.utils.console import run_command


def main() -> None:
    """Write the page and print its name."""
    options = argparse.ArgumentParser(description="Write the page of the papers' claims from the records.")
    options.add_argument("--results", type=Path, default=Path("results"), help="folder of runs/ and records/")
    options.add_argument("--out", type=Path, default=Path("docs/claims.md"), help="default: docs/claims.md")
    chosen = options.parse_args()
    found, problems = find(chosen.results)
    for problem in problems:
        print(f"left out: {problem}", file=sys.stderr)
    files.write(chosen.out, page(found))
    print(chosen.out)


if __name__ == "__main__":
    sys.exit(run_command(main))
