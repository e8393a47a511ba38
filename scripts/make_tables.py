"""Make the tables of every experiment from the records, one for each of its models: Markdown, CSV and LaTeX.

python scripts/make_tables.py [--results results] [--experiment NAME ...] [--rule best|last] [--out DIR] [--paper CSV]
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path

from rosa.records import RULES, RecordError, find
from rosa.report.comparison import Comparison, ReportError, by_model, compare, tuning_experiments
from rosa.report.published import Published, read_published
from rosa.report.render import latex, markdown
from rosa.report.tables import grid_table, long_csv, results_table, write_text

PAPER_MODEL = "roberta-base"
PAPER_FILE = Path("paper", "glue_roberta_base.csv")
"""Under the results folder."""


def arguments() -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(description="Make the tables of every experiment from the records.")
    parser.add_argument("--results", type=Path, default=Path("results"), help="folder of runs/ and records/")
    parser.add_argument("--experiment", nargs="+", default=[], metavar="NAME", help="default: all that have records")
    parser.add_argument("--rule", choices=RULES, default="best", help="which epoch's scores (default: best)")
    parser.add_argument("--out", type=Path, help="default: the results folder's tables/")
    parser.add_argument("--paper", type=Path, help="published numbers; default: those of roberta-base for its tables")
    return parser.parse_args()


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
    found, problems = find(options.results)
    for problem in problems:
        print(f"left out: {problem}", file=sys.stderr)
    names = options.experiment or sorted({record["identity"]["experiment"] for record in found})
    if not names:
        print(f"no records under {options.results}/runs and {options.results}/records", file=sys.stderr)
        return 1
    out = options.out or options.results / "tables"
    grids = tuning_experiments(found)
    try:
        for name in names:
            tables = []
            models = by_model(found, name)
            for model, runs in models.items():
                comparison = compare(runs, name, options.rule)
                label = name if len(models) == 1 else f"{name}-{model}"
                # One that others take their learning rates from is a grid; one that tunes itself has both tables.
                tunes_itself = name in tuning_experiments(runs)
                if name not in grids or tunes_itself:
                    table = results_table(comparison, published_for(comparison, options.paper, options.results))
                    tables.append(replace(table, name=label))
                if name in grids:
                    tables.append(replace(grid_table(comparison), name=f"{label}-grid" if tunes_itself else label))
            write_text(out / f"{name}.md", "\n".join(map(markdown, tables)))
            write_text(out / f"{name}.tex", "\n".join(map(latex, tables)))
            write_text(out / f"{name}.csv", long_csv(found, name))
            print(*map(markdown, tables), sep="\n")
    except (RecordError, ReportError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
