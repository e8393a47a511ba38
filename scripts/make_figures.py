"""Make the figures of every experiment from the records, one set for each of its models: svg, png and csv.

python scripts/make_figures.py [--results results] [--experiment NAME ...] [--figure ablation|curves|diagnostics ...]
    [--metric headline|loss|NAME ...] [--rule best|last] [--out DIR]
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

from rosa.records import RULES, RecordError, find
from rosa.report.comparison import Comparison, ReportError, by_model, compare
from rosa.report.figures.ablation import ablation
from rosa.report.figures.canvas import Picture
from rosa.report.figures.curves import HEADLINE, curves
from rosa.report.figures.layers import diagnostics

FIGURES = ("ablation", "curves", "diagnostics")


def arguments() -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(description="Make the figures of every experiment from the records.")
    parser.add_argument("--results", type=Path, default=Path("results"), help="folder of runs/ and records/")
    parser.add_argument("--experiment", nargs="+", default=[], metavar="NAME", help="default: all that have records")
    parser.add_argument("--figure", nargs="+", default=FIGURES, choices=FIGURES, help="default: all")
    parser.add_argument(
        "--metric", nargs="+", default=[HEADLINE, "loss"], metavar="NAME", help="of curves; default: headline loss"
    )
    parser.add_argument("--rule", choices=RULES, default="best", help="which epoch's scores (default: best)")
    parser.add_argument("--out", type=Path, help="default: the results folder's figures/")
    return parser.parse_args()


def pictures(comparison: Comparison, options: argparse.Namespace) -> Iterator[tuple[str, list[Picture], list[str]]]:
    """For each kind of figure asked for: its name, its pictures, and what could not be drawn."""
    if "ablation" in options.figure:
        yield "ablation", *ablation(comparison)
    if "curves" in options.figure:
        for metric in options.metric:
            yield f"curves of {metric}", *curves(comparison, metric)
    if "diagnostics" in options.figure:
        yield "diagnostics", *diagnostics(comparison)


def main() -> int:
    """Write the figures and print their files; 1 where there is nothing to show."""
    options = arguments()
    found, problems = find(options.results)
    for problem in problems:
        print(f"left out: {problem}", file=sys.stderr)
    names = options.experiment or sorted({record["identity"]["experiment"] for record in found})
    if not names:
        print(f"no records under {options.results}/runs and {options.results}/records", file=sys.stderr)
        return 1
    out = options.out or options.results / "figures"
    try:
        for name in names:
            for model, runs in by_model(found, name).items():
                for kind, made, left_out in pictures(compare(runs, name, options.rule), options):
                    for line in left_out:
                        print(f"not drawn: {name}, {model}, {kind}: {line}", file=sys.stderr)
                    for picture in made:
                        picture.write(out)
                        print(f"{out / picture.name}.{{svg,png,csv}}")
    except (RecordError, ReportError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
