"""Make the report from the records: one HTML file with every experiment's tables, figures and runs.

python scripts/make_report.py [--results results] [--experiment NAME ...] [--rule best|last] [--evidence]
    [--out FILE] [--from wandb --project P [--entity E]]
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

import from_clone  # noqa: F401  # finds rosa

from rosa.report.cli import baselines, located, parser, records_folder, words
from rosa.report.html.contents import contents
from rosa.report.html.render import html
from rosa.report.published import read_all_published
from rosa.utils import files
from rosa.utils.console import run_command
from rosa.utils.garbage import collection_off


def arguments() -> argparse.Namespace:
    """Parse the command line."""
    options = parser("report", "report.html")
    return options.parse_args()


@collection_off()
def main() -> None:
    """Write the report, and print its file; nothing that is made of records has cycles."""
    options = arguments()
    out = options.out or options.results / "report.html"
    files.refuse_unwritable_file(out, "--out ")
    with records_folder(options) as folder:
        found, problems = located(options, folder)
    page = contents(
        {relative(path, out.parent): record for path, record in found.items()},
        problems,
        options.experiment,
        options.rule,
        read_all_published(options.results / "paper"),
        linked=folder == options.results,
        baselines=baselines(options.results),
        words=words(options),
    )
    text = html(page)
    files.write(out, text)
    experiments, runs = len(page.sections), sum(section.runs for section in page.sections)
    plural = "" if experiments == 1 else "s"
    print(f"{out}: {experiments} experiment{plural}, {runs} runs, {len(text.encode()) / 1e6:.1f} MB")


def relative(path: Path, folder: Path) -> Path:
    """The relative path from a folder to a file, with ``..`` where needed."""
    return Path(os.path.relpath(path, folder))


if __name__ == "__main__":
    sys.exit(run_command(main))
