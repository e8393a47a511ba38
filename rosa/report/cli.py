"""What the commands that turn records into tables and figures have in common."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rosa.errors import ReportError
from rosa.records import RULES, find
from rosa.report.comparison import Record
from rosa.report.wandb_records import download


def parser(what: str, out: str = "") -> argparse.ArgumentParser:
    """The options of every such command.

    Args:
        what: what it makes (``tables``).
        out: where under the results it goes; a folder of that name if empty.
    """
    made = argparse.ArgumentParser(description=f"Make the {what} of every experiment from the records.")
    made.add_argument("--results", type=Path, default=Path("results"), help="folder of runs/ and records/")
    made.add_argument("--experiment", nargs="+", default=[], metavar="NAME", help="default: all that have records")
    made.add_argument("--rule", choices=RULES, help="which epoch's scores (default: best; last for selection=dev-last)")
    made.add_argument("--from", dest="source", choices=("files", "wandb"), default="files", help="default: files")
    made.add_argument("--project", default="rosa", help="of W&B, with --from wandb (default: rosa)")
    made.add_argument("--entity", default="", help="owner of the project; default: that of the W&B key")
    made.add_argument("--out", type=Path, help=f"default: the results folder's {out or f'{what}/'}")
    return made


@contextmanager
def records_folder(options: argparse.Namespace) -> Iterator[Path]:
    """The folder that holds the records: the results folder, or a temporary one with what W&B has.

    Raises:
        ReportError: W&B cannot be asked, or has no records.
    """
    if options.source == "files":
        yield options.results
        return
    with tempfile.TemporaryDirectory(prefix="rosa-wandb-") as folder:
        for line in download(Path(folder), options.project, options.entity):
            print(f"left out: {line}", file=sys.stderr)
        yield Path(folder)


def each_experiment(results: Path, asked: Sequence[str], make: Callable[[str, Sequence[Record]], None]) -> None:
    """Call ``make`` with each experiment's name and every record, and print which records cannot be read.

    Args:
        results: folder of ``runs/`` and ``records/``.
        asked: names of experiments; none for all that have records.
        make: what is to be done.

    Raises:
        ReportError: there are no records.
    """
    found, problems = find(results)
    for problem in problems:
        print(f"left out: {problem}", file=sys.stderr)
    names = asked or sorted({record["identity"]["experiment"] for record in found})
    if not names:
        raise no_records(results)
    for name in names:
        make(name, found)


def no_records(results: Path) -> ReportError:
    """The error that a results folder holds no record at all."""
    return ReportError(f"no records under {results}/runs and {results}/records")
