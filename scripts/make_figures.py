"""Make the figures of every experiment from the records, one set for each of its models: svg and csv.

Those of the asked kinds that earlier records gave and the present ones do not are removed.

python scripts/make_figures.py [--results results] [--experiment NAME ...] [--rule best|last] [--evidence] [--out DIR]
    [--figure differences|ablation|curves|diagnostics|quality|rank_frequency|costs ...]
    [--metric headline|loss|NAME ...] [--format svg|png|pdf ...] [--from wandb --project P [--entity E]]
"""

from __future__ import annotations

import argparse
import gc
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import from_clone  # noqa: F401  # finds rosa
from tqdm import tqdm

from rosa.records import Rule
from rosa.records.store import Evidence, locate
from rosa.report.cli import located, parser, records_folder, remove_leftovers
from rosa.report.comparison import Comparison
from rosa.report.figures.ablation import ablation
from rosa.report.figures.costs import costs
from rosa.report.figures.curves import HEADLINE, curves
from rosa.report.figures.diagnostics import diagnostics
from rosa.report.figures.forest import forest
from rosa.report.figures.rank_frequency import heat_maps
from rosa.report.figures.style import METADATA, Picture
from rosa.report.figures.tradeoff import tradeoffs
from rosa.report.study import Study
from rosa.utils.console import run_command
from rosa.utils.files import refuse_unwritable
from rosa.utils.garbage import collection_off

DRAWN: dict[str, Callable[[Comparison], tuple[list[Picture], list[str]]]] = {
    "differences": forest,
    "ablation": ablation,
    "diagnostics": diagnostics,
    "quality": tradeoffs,
    "rank_frequency": heat_maps,
    "costs": costs,
}
FIGURES = ("differences", "ablation", "curves", "quality", "rank_frequency", "costs", "diagnostics")
ENDINGS = {"rank_frequency": r"rank-frequency(-\d+)?", "diagnostics": "diagnostics-.+"}
"""What follows the model in the names of a kind of figures, where it is not the kind; a regular expression."""
USUAL = FIGURES[:-1]
"""All but the diagnostics by layer, of which there is a large picture for each task."""


def arguments() -> argparse.Namespace:
    """Parse the command line."""
    options = parser("figures")
    options.add_argument("--figure", nargs="+", default=USUAL, choices=FIGURES, help="(default: all but diagnostics)")
    options.add_argument(
        "--metric", nargs="+", default=[HEADLINE, "loss"], metavar="NAME",
        help="metrics of the curves (default: headline loss)",
    )  # fmt: skip
    options.add_argument(
        "--format", nargs="+", default=["svg"], choices=METADATA, help="of the drawings (default: svg)"
    )
    return options.parse_args()


def pictures(comparison: Comparison, kind: str, metrics: Sequence[str]) -> Iterator[tuple[list[Picture], list[str]]]:
    """The pictures of one kind, and messages about those that could not be drawn."""
    if kind == "curves":
        yield from (curves(comparison, metric) for metric in metrics)
    else:
        yield DRAWN[kind](comparison)


STUDIES: dict[str, Study] = {}
"""The experiments that this process has read; a forked one has those of its parent, and need not read them again."""


def studied(folder: Path, experiment: str, rule: Rule | None, evidence: Evidence) -> Study:
    """An experiment; each process reads it at most once."""
    if experiment not in STUDIES:
        STUDIES[experiment] = Study(list(locate(folder, experiment, evidence)[0].values()), experiment, rule)
    return STUDIES[experiment]


@collection_off()  # until the job's end: a figure has cycles, so its memory is freed after it
def draw(job: tuple[Any, ...]) -> tuple[list[str], list[str]]:
    """Write the pictures of one kind of one experiment; their files, and what is not drawn."""
    folder, experiment, rule, evidence, kind, metrics, out, formats = job
    files, left_out, written = [], [], []
    for model, comparison in studied(folder, experiment, rule, evidence).models.items():
        for made, why in pictures(comparison, kind, metrics):
            left_out += [f"not drawn: {experiment}, {model}, {kind}: {line}" for line in why]
            for picture in made:
                written += picture.write(out, formats)
                files.append(f"{out / picture.name}.{{{','.join(('csv', *formats))}}}")
    stems = {re.escape(path.stem) for path in written}
    kept = f"(?!({'|'.join(stems)})\\.)" if stems else ""  # with the formats that were not asked for now
    remove_leftovers(out / experiment, rf"{kept}.+-({endings(kind, metrics)})\.(csv|{'|'.join(METADATA)})", ())
    return files, left_out


def endings(kind: str, metrics: Sequence[str]) -> str:
    """A regular expression of what follows the model in the names of the figures of a kind."""
    if kind == "curves":
        return "|".join("curves" if metric == HEADLINE else re.escape(f"curves-{metric}") for metric in metrics)
    return ENDINGS.get(kind, kind)


def main() -> None:
    """Write the figures and print their files."""
    options = arguments()
    out = options.out or options.results / "figures"
    refuse_unwritable(out, "--out ")
    with records_folder(options) as folder:
        found = list(located(options, folder)[0].values())
        gc.freeze()  # no search for garbage looks at the records again
        names = options.experiment or sorted({record["identity"]["experiment"] for record in found})
        STUDIES.clear()
        for name in names:
            STUDIES[name] = Study(found, name, options.rule)  # refuses an experiment without records
            _ = STUDIES[name].models  # compared before the processes start, and not by each of them
        evidence: Evidence = "beside" if options.evidence else "instead"
        jobs = [
            (folder, name, options.rule, evidence, kind, metrics, out, options.format)
            for name in names
            for kind in options.figure
            for metrics in ([[metric] for metric in options.metric] if kind == "curves" else [options.metric])
        ]
        with ProcessPoolExecutor(min(len(jobs), os.cpu_count() or 1)) as pool:
            for files, left_out in tqdm(pool.map(draw, jobs), total=len(jobs), unit="figures", disable=None):
                for line in left_out:
                    tqdm.write(line, sys.stderr)
                for line in files:
                    tqdm.write(line, sys.stdout)


if __name__ == "__main__":
    sys.exit(run_command(main))
