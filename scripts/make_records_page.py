#!/usr/bin/env python
"""Write docs/records.md, the keys of a run's record, from the types in rosa/records/schema.py.

python scripts/make_records_page.py [--out docs/records.md]
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import from_clone  # noqa: F401  # finds rosa

from rosa.records.schema_page import page
from rosa.utils import files
from rosa.utils.console import run_command


def main() -> None:
    """Write the page and print its name."""
    options = argparse.ArgumentParser(description="Write the page of the keys of a run's record.")
    options.add_argument("--out", type=Path, default=Path("docs/records.md"), help="default: docs/records.md")
    chosen = options.parse_args()
    files.refuse_unwritable_file(chosen.out, "--out ")
    files.write(chosen.out, page())
    print(chosen.out)


if __name__ == "__main__":
    sys.exit(run_command(main))
