"""Command-line options and loops shared by the commands that turn records into tables and figures."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rosa.errors import ReportError
from rosa.records import RULES, Record, find
from rosa.report.wandb_records import download


def parser(what: str, out: str = "") -> argparse.ArgumentParser:
    """Parser of the options that every such command has.

    Args:
        what: the product (``tables``).
        out: default output path under the results folder; empty: ``what/``.
    """
    made = argparse.ArgumentParser(description=f"Make the {what} of every experiment from the records.")
    add_results(made)
    made.add_argument("--experiment", nargs="+", default=[], metavar="NAME", help="default: all that have records")
    made.add_argument("--rule", choices=RULES, help="which epoch's scores (default: best; last for selection=dev-last)")
    made.add_argument("--from", dest="source", choices=("files", "wandb"), default="files", help="default: files")
    made.add_argument("--project", default="rosa", help="of W&B, with --from wandb (default: rosa)")
    made.add_argument("--entity", default="", help="owner of the project; default: that of the W&B key")
    made.add_argument("--out", type=Path, help=f"default: the results folder's {out or f'{what}/'}")
    return made


def add_results(options: argparse.ArgumentParser) -> None:
    """Add the option that names the results folder."""
    options.add_argument("--results", type=Path, default=Path("results"), help="folder of runs/ and records/")


def tell_left_out(problems: Iterable[object]) -> None:
    """Print why records or runs were left out, a line each, to standard error."""
    for problem in problems:
        print(f"left out: {problem}", file=sys.stderr)


@contextmanager
def records_folder(options: argparse.Namespace) -> Iterator[Path]:
    """Yield the folder of the records: the results folder, or a temporary one with the records downloaded from W&B.

    Raises:
        ReportError: W&B cannot be reached, or has no records.
    """
    if options.source == "files":
        yield options.results
        return
    with tempfile.TemporaryDirectory(prefix="rosa-wandb-") as folder:
        tell_left_out(download(Path(folder), options.project, options.entity))
        yield Path(folder)


def each_experiment(results: Path, asked: Sequence[str], make: Callable[[str, Sequence[Record]], None]) -> None:
    """Call ``make(experiment, all records)`` for each experiment; print records that cannot be read to stderr.

    Args:
        results: folder of ``runs/`` and ``records/``.
        asked: names of experiments; empty: all that have records.
        make: called once per experiment.

    Raises:
        ReportError: there are no records.
    """
    found, problems = find(results)
    tell_left_out(problems)
    names = asked or sorted({record["identity"]["experiment"] for record in found})
    if not names:
        raise no_records(results)
    for name in names:
        make(name, found)


def no_records(results: Path) -> ReportError:
    """The error for a results folder without records."""
    return ReportError(f"no records under {results}/runs and {results}/records")
