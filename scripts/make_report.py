"""Make the report from the records: one HTML file with every experiment's tables, figures and runs.

python scripts/make_report.py [--results results] [--experiment NAME ...] [--rule best|last] [--panels N] [--out FILE]
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from rosa import files
from rosa.records import RecordError, locate
from rosa.report.command import parser
from rosa.report.comparison import ReportError
from rosa.report.page.contents import contents
from rosa.report.page.drawings import PANELS, Drawings
from rosa.report.page.html import html
from rosa.report.published import read_published

PAPER_MODEL = "roberta-base"
PAPER_FILE = Path("paper", "glue_roberta_base.csv")


def arguments() -> argparse.Namespace:
    """What the command line says."""
    options = parser("report", "report.html")
    options.add_argument(
        "--panels", type=int, default=PANELS, metavar="N",
        help=f"draw at most so many panels of figures; 0: none (default: {PANELS})",
    )  # fmt: skip
    chosen = options.parse_args()
    if chosen.panels < 0:
        options.error(f"--panels {chosen.panels}: expected 0 or more")
    return chosen


def main() -> int:
    """Write the report and print its file; 1 where there is nothing to show."""
    options = arguments()
    out = options.out or options.results / "report.html"
    located, problems = locate(options.results)
    for problem in problems:
        print(f"left out: {problem}", file=sys.stderr)
    if not located:
        print(f"no records under {options.results}/runs and {options.results}/records", file=sys.stderr)
        return 1
    try:
        paper = options.results / PAPER_FILE
        page = contents(
            {relative(path, out.parent): record for path, record in located.items()},
            problems,
            options.experiment,
            options.rule,
            {PAPER_MODEL: read_published(paper)} if paper.is_file() else {},
            Drawings(options.panels),
        )
        text = html(page)
        files.replace(out, text)
    except (RecordError, ReportError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"error: {out}: cannot write: {error}", file=sys.stderr)
        return 1
    experiments, runs = len(page.sections), sum(section.runs for section in page.sections)
    plural = "" if experiments == 1 else "s"
    print(f"{out}: {experiments} experiment{plural}, {runs} runs, {len(text.encode()) / 1e6:.1f} MB")
    return 0


def relative(path: Path, folder: Path) -> Path:
    """The way from a folder to a file, up and down again where need be."""
    return Path(os.path.relpath(path, folder))


if __name__ == "__main__":
    sys.exit(main())
