"""Make the tables of every experiment from the records, one for each of its models: Markdown, CSV and LaTeX.

python scripts/make_tables.py [--results results] [--experiment NAME ...] [--rule best|last] [--out DIR] [--paper CSV]
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from rosa.report.command import each_experiment, parser
from rosa.report.comparison import Comparison, Record, by_model, compare, tuning_experiments
from rosa.report.published import Published, read_published
from rosa.report.render import Table, latex, markdown
from rosa.report.tables import grid_table, long_csv, results_table, write_text

PAPER_MODEL = "roberta-base"
PAPER_FILE = Path("paper", "glue_roberta_base.csv")
"""Under the results folder."""


def arguments() -> argparse.Namespace:
    """What the command line says."""
    options = parser("tables")
    options.add_argument("--paper", type=Path, help="published numbers; default: those of roberta-base for its tables")
    return options.parse_args()


def published_for(comparison: Comparison, given: Path | None, results: Path) -> list[Published]:
    """The published numbers to set beside a table: those asked for, or those of the same model on the real data."""
    if given is not None:
        return read_published(given)
    same_model = {row.model for row in comparison.rows} == {PAPER_MODEL}
    real = all(run["config"]["data"]["source"] != "mini" for run in comparison.runs)
    path = results / PAPER_FILE
    return read_published(path) if same_model and real and path.is_file() else []


def main() -> int:
    """Write the tables and print them; 1 where there is nothing to show."""
    options = arguments()
    out = options.out or options.results / "tables"

    def make(name: str, found: Sequence[Record]) -> None:
        tables: list[Table] = []
        is_grid = name in tuning_experiments(found)
        models = by_model(found, name)
        for model, runs in models.items():
            comparison = compare(runs, name, options.rule)
            label = name if len(models) == 1 else f"{name}-{model}"
            # One that others take their learning rates from is a grid; one that tunes itself has both tables.
            tunes_itself = name in tuning_experiments(runs)
            if not is_grid or tunes_itself:
                table = results_table(comparison, published_for(comparison, options.paper, options.results))
                tables.append(replace(table, name=label))
            if is_grid:
                tables.append(replace(grid_table(comparison), name=f"{label}-grid" if tunes_itself else label))
        write_text(out / f"{name}.md", "\n".join(map(markdown, tables)))
        write_text(out / f"{name}.tex", "\n".join(map(latex, tables)))
        write_text(out / f"{name}.csv", long_csv(found, name))
        print(*map(markdown, tables), sep="\n")

    return each_experiment(options.results, options.experiment, make)


if __name__ == "__main__":
    sys.exit(main())
