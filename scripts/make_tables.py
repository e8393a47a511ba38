"""Make the tables of every experiment from the records, one for each of its models: Markdown, CSV and LaTeX.

Costs and differences from LoRA are separate files: EXPERIMENT_costs and, with several seeds, EXPERIMENT_differences.
Those that earlier records gave and the present ones do not are removed.

python scripts/make_tables.py [--results results] [--experiment NAME ...] [--rule best|last] [--evidence] [--out DIR]
    [--paper CSV] [--from wandb --project P [--entity E]]
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path

import from_clone  # noqa: F401  # finds rosa

from rosa.records import Record
from rosa.report.cli import baselines, each_experiment, parser, records_folder, remove_leftovers, words
from rosa.report.published import Published, read_all_published, read_published
from rosa.report.study import Study
from rosa.report.tables.experiment import costs, differences, tables
from rosa.report.tables.latex import latex
from rosa.report.tables.markdown import markdown
from rosa.report.tables.scores_csv import long_csv
from rosa.utils import files
from rosa.utils.console import run_command
from rosa.utils.garbage import collection_off


def arguments() -> argparse.Namespace:
    """Parse the command line."""
    options = parser("tables")
    options.add_argument("--paper", type=Path, help="published numbers; default: every file in the results' paper/")
    return options.parse_args()


def published(given: Path | None, results: Path) -> list[Published]:
    """The published numbers of the given file, or of all files."""
    return read_published(given) if given is not None else read_all_published(results / "paper")


@collection_off()
def main() -> None:
    """Write the tables and print them; nothing that is made of records has cycles."""
    options = arguments()
    out = options.out or options.results / "tables"
    files.refuse_unwritable(out, "--out ")
    known = baselines(options.results)

    beside = published(options.paper, options.results)

    def make(name: str, found: Sequence[Record]) -> None:
        study = Study(found, name, options.rule, known, words(options))
        made = tables(study, beside)
        written = []
        parts = (("", made, long_csv(study)), ("_differences", differences(study), ""), ("_costs", *costs(study)))
        for part, shown, rows in parts:
            texts = {"md": "\n".join(map(markdown, shown)), "tex": "\n".join(map(latex, shown)), "csv": rows}
            for ending in [ending for ending, text in texts.items() if shown and text]:
                written.append(out / f"{name}{part}.{ending}")
                files.write(written[-1], texts[ending])
            # The part's name may be that of another experiment, whose tables these are.
            if part and name + part not in {run["identity"]["experiment"] for run in found}:
                remove_leftovers(out, rf"{re.escape(name + part)}\.(md|tex|csv)", written)
        print(*map(markdown, made), sep="\n")

    with records_folder(options) as folder:
        each_experiment(options, folder, make)


if __name__ == "__main__":
    sys.exit(run_command(main))
