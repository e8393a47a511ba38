"""Make the figures of every experiment from the records, one set for each of its models: svg, png and csv.

python scripts/make_figures.py [--results results] [--experiment NAME ...] [--rule best|last] [--evidence] [--out DIR]
    [--figure differences|ablation|curves|diagnostics|quality|rank_frequency|costs ...]
    [--metric headline|loss|NAME ...] [--from wandb --project P [--entity E]]
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence

from rosa.records import Record
from rosa.report.cli import each_experiment, parser, records_folder
from rosa.report.comparison import Comparison
from rosa.report.figures.ablation import ablation
from rosa.report.figures.costs import costs
from rosa.report.figures.curves import HEADLINE, curves
from rosa.report.figures.diagnostics import diagnostics
from rosa.report.figures.forest import forest
from rosa.report.figures.rank_frequency import heat_maps
from rosa.report.figures.style import Picture
from rosa.report.figures.tradeoff import tradeoffs
from rosa.report.study import Study
from rosa.utils.console import run_command

FIGURES = ("differences", "ablation", "curves", "diagnostics", "quality", "rank_frequency", "costs")


def arguments() -> argparse.Namespace:
    """Parse the command line."""
    options = parser("figures")
    options.add_argument("--figure", nargs="+", default=FIGURES, choices=FIGURES, help="which figures (default: all)")
    options.add_argument(
        "--metric", nargs="+", default=[HEADLINE, "loss"], metavar="NAME",
        help="metrics of the curves (default: headline loss)",
    )  # fmt: skip
    return options.parse_args()


def pictures(comparison: Comparison, options: argparse.Namespace) -> Iterator[tuple[str, list[Picture], list[str]]]:
    """For each kind of figure asked for: its name, its pictures, and messages about those that could not be drawn."""
    if "differences" in options.figure:
        yield "differences", *forest(comparison)
    if "ablation" in options.figure:
        yield "ablation", *ablation(comparison)
    if "curves" in options.figure:
        for metric in options.metric:
            yield f"curves of {metric}", *curves(comparison, metric)
    if "diagnostics" in options.figure:
        yield "diagnostics", *diagnostics(comparison)
    if "quality" in options.figure:
        yield "quality", *tradeoffs(comparison)
    if "rank_frequency" in options.figure:
        yield "rank_frequency", *heat_maps(comparison)
    if "costs" in options.figure:
        yield "costs", *costs(comparison)


def main() -> None:
    """Write the figures and print their files."""
    options = arguments()
    out = options.out or options.results / "figures"

    def make(name: str, found: Sequence[Record]) -> None:
        for model, comparison in Study(found, name, options.rule).models.items():
            for kind, made, left_out in pictures(comparison, options):
                for line in left_out:
                    print(f"not drawn: {name}, {model}, {kind}: {line}", file=sys.stderr)
                for picture in made:
                    picture.write(out)
                    print(f"{out / picture.name}.{{svg,png,csv}}")

    with records_folder(options) as folder:
        each_experiment(options, folder, make)


if __name__ == "__main__":
    sys.exit(run_command(main))
