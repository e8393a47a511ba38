"""Command-line options and loops shared by the commands that turn records into tables and figures."""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rosa.errors import RecordError, ReportError
from rosa.records import RULES, Record, is_committed, locate
from rosa.records.baselines import Found
from rosa.records.baselines import find as find_baselines
from rosa.records.store import EVIDENCE, Located
from rosa.report.comparison import Words
from rosa.report.wandb_records import download
from rosa.utils.files import writing


def parser(what: str, out: str = "") -> argparse.ArgumentParser:
    """Parser of the options that every such command has.

    Args:
        what: the product (``tables``).
        out: default output path under the results folder; empty: ``what/``.
    """
    made = argparse.ArgumentParser(description=f"Make the {what} of every experiment from the records.")
    add_results(made)
    made.add_argument("--experiment", nargs="+", default=[], metavar="NAME", help="default: all with records")
    made.add_argument("--rule", choices=RULES, help="which epoch's scores (default: best; last for selection=dev-last)")
    made.add_argument(
        "--from", dest="source", choices=("files", "wandb"), default="files",
        help="read the records from files or from Weights & Biases (default: files)",
    )  # fmt: skip
    made.add_argument("--project", default="rosa", help="W&B project, with --from wandb (default: rosa)")
    made.add_argument("--entity", default="", help="owner of the W&B project (default: the API key's)")
    add_evidence(made)
    made.add_argument("--out", type=Path, help=f"output path (default: {out or f'{what}/'} in the results folder)")
    return made


def add_results(options: argparse.ArgumentParser) -> None:
    """Add the option that names the results folder."""
    options.add_argument(
        "--results", type=Path, default=Path("results"), help="folder with runs/ and records/ (default: results)"
    )


def add_evidence(options: argparse.ArgumentParser) -> None:
    """Add the option that counts committed records beside a folder's own runs."""
    options.add_argument(
        "--evidence", action="store_true",
        help="show committed records (records/) beside this folder's own runs, and mark them; without it, they are "
        "shown only for experiments of which this folder has run nothing",
    )  # fmt: skip


def words(options: argparse.Namespace) -> Words:
    """The options that the commands printed in tables repeat.

    Args:
        options: of :func:`parser`, and maybe ``paper``.
    """
    default = argparse.ArgumentParser()
    add_results(default)
    results = [] if options.results == default.get_default("results") else ["--results", str(options.results)]
    table = []
    if options.source == "wandb":
        owner = ["--entity", options.entity] if options.entity else []
        table = ["--from", "wandb", "--project", options.project, *owner]
    if getattr(options, "paper", None):
        table += ["--paper", str(options.paper)]
    return Words((*results, *(["--evidence"] if options.evidence else [])), tuple(table))


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


def located(options: argparse.Namespace, folder: Path) -> tuple[Located, list[RecordError]]:
    """The records that a command shows, by file, and the errors of those left out, which are named on stderr.

    Args:
        options: of :func:`parser`.
        folder: of ``runs/`` and ``records/``.

    Raises:
        ReportError: there are no records.
    """
    found, problems = locate(folder, evidence="beside" if options.evidence else "instead")
    tell_left_out(problems)
    if not found:
        raise no_records(folder)
    own = {record["identity"]["experiment"] for record in found.values() if not is_committed(record)}
    beside = sorted(name for name in own if (folder / EVIDENCE / name).is_dir())
    if beside and not options.evidence:
        print(
            f"left out: committed records of {', '.join(beside)}, which this folder has runs of; --evidence shows both",
            file=sys.stderr,
        )
    return found, problems


def each_experiment(options: argparse.Namespace, folder: Path, make: Callable[[str, Sequence[Record]], None]) -> None:
    """Call ``make(experiment, all records)`` for each experiment; see :func:`located`.

    Args:
        options: of :func:`parser`; ``experiment`` has the names asked for, or none for all that have records.
        folder: of ``runs/`` and ``records/``.
        make: called once per experiment.

    Raises:
        ReportError: there are no records.
    """
    found = list(located(options, folder)[0].values())
    for name in options.experiment or sorted({record["identity"]["experiment"] for record in found}):
        make(name, found)


def baselines(results: Path) -> Found:
    """The records of baselines in a results folder; print those that cannot be read to stderr."""
    found, problems = find_baselines(results)
    tell_left_out(problems)
    return found


def remove_leftovers(folder: Path, name: str, made: Iterable[Path]) -> list[Path]:
    """Remove the files of earlier records, which the present ones do not give, and print a line for each to stderr.

    Args:
        folder: of the files.
        name: a regular expression of the names of such files.
        made: the files of the present records.

    Returns:
        The removed files.

    Raises:
        OutputError: one cannot be removed.
    """
    kept = set(made)
    left = [path for path in sorted(folder.glob("*")) if re.fullmatch(name, path.name) and path not in kept]
    for path in left:
        with writing(path):
            path.unlink()
        print(f"removed: {path}, of records that are no longer there", file=sys.stderr)
    return left


def no_records(results: Path) -> ReportError:
    """The error for a results folder without records."""
    return ReportError(f"no records under {results}/runs and {results}/records")
