"""Predict with the model of finished runs: a split, a file of one's own, or the GLUE leaderboard's test sets.

python scripts/predict.py RUN [RUN ...] --split test --out FOLDER [--zip FILE]     # the leaderboard's files, zipped
python scripts/predict.py RUN --split validation --out FILE.csv                    # or FILE.jsonl; also of test
python scripts/predict.py RUN --file TEXTS.csv --out FILE.csv

A file that exists is replaced with --overwrite only.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import from_clone  # noqa: F401  # finds rosa

from rosa.errors import DataError, OutputError
from rosa.records import RULES
from rosa.utils import files
from rosa.utils.console import run_command, silence_transformers

if TYPE_CHECKING:
    from rosa.config import TaskConfig
    from rosa.run.reload import FinishedRun

ENDINGS = (".csv", ".jsonl")


def arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description="Predict with the models of finished runs.")
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="folder of a run, with record.json")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--split", help="a split of the run's data, or a test set without labels")
    what.add_argument("--file", type=Path, help="your own csv, tsv, jsonl or parquet, with the task's columns")
    parser.add_argument(
        "--out", type=Path, required=True, help="FILE.csv or FILE.jsonl; a folder for the leaderboard's files"
    )
    parser.add_argument("--zip", type=Path, metavar="FILE", help="pack the leaderboard's files of these runs")
    parser.add_argument("--weights", choices=RULES, help="which epoch (default: the selected one)")
    parser.add_argument("--data-dir", metavar="DIR", help="of data=local, if moved since the run")
    parser.add_argument("--overwrite", action="store_true", help="replace files that exist")
    options = parser.parse_args()
    options.leaderboard = options.split == "test" and options.out.suffix not in ENDINGS
    if options.leaderboard:
        return options
    if len(options.runs) > 1 or options.zip:
        parser.error("several runs, and --zip, need --split test --out FOLDER")
    if options.out.suffix not in ENDINGS:
        parser.error(f"--out {options.out}: expected a name that ends in {' or '.join(ENDINGS)}")
    return options


def leaderboard_files(tasks: Sequence[TaskConfig], folder: Path) -> dict[Path, tuple[str, str]]:
    """The file of each test set of the runs' tasks -> its task and split.

    Raises:
        DataError: a task that is not GLUE's, or two runs of one task.
    """
    from rosa.data import unlabelled
    from rosa.run import predict

    found: dict[Path, tuple[str, str]] = {}
    for task in tasks:
        for split in unlabelled.test_splits(task):
            name = predict.LEADERBOARD.get((task.name, split))
            if name is None:
                raise DataError(
                    f"--out {folder}: the leaderboard is of GLUE's tasks, and this is task={task.name}; expected a "
                    f"name that ends in {' or '.join(ENDINGS)}"
                )
            path = folder / f"{name}.tsv"
            if path in found:
                raise DataError(f"{path}: two of these runs are of task={task.name}; expected one run for each task")
            found[path] = (task.name, split)
    return found


def refuse_taken(paths: Iterable[Path]) -> None:
    """Refuse to replace files.

    Raises:
        OutputError: one exists.
    """
    for path in paths:
        if path.exists():
            raise OutputError(f"{path}: exists; choose another place, or overwrite it (--overwrite)")


def write_leaderboard(run: FinishedRun, files_of: Mapping[Path, tuple[str, str]]) -> list[Path]:
    """Write the file of each test set of the run's task, and return them; AX may be missing.

    Raises:
        DataError: a test set that cannot be read.
    """
    from rosa.data import unlabelled
    from rosa.run import predict

    task, written = run.config.task, []
    for path, (name, split) in files_of.items():
        if name != task.name:
            continue
        try:
            texts, _ = predict.read(run, split)
        except DataError as error:
            if split != unlabelled.AX:
                raise
            print(f"left out: {path.stem}: {error}", file=sys.stderr)
            continue
        files.write(path, predict.leaderboard(task, predict.predict(run, texts)))
        written.append(path)
        rows, official = len(texts[0]), predict.OFFICIAL_ROWS[path.stem]
        other = "" if rows == official else f"; not the official test set, which has {official:,}"
        print(f"{path}: {rows:,} rows{other}")
    return written


def main() -> None:
    """Write the predictions, and print the files."""
    options = arguments()
    if options.leaderboard and options.out.is_file():
        raise OutputError(f"{options.out}: is a file; expected a folder, or a name that ends in {' or '.join(ENDINGS)}")
    if options.leaderboard:
        files.refuse_unwritable(options.out, "--out ")
    else:
        files.refuse_unwritable_file(options.out, "--out ")
    if options.zip:
        files.refuse_unwritable_file(options.zip, "--zip ")
    from rosa.data import unlabelled
    from rosa.run import predict, reload

    silence_transformers()
    configs = {folder: reload.read(folder)[1] for folder in options.runs}
    for folder, config in configs.items():
        if options.data_dir and config.data.source != "local":
            raise DataError(
                f"--data-dir {options.data_dir}: {folder} is a run of data={config.data.source}; expected a run of "
                "data=local"
            )
    tasks = [configs[folder].task for folder in options.runs]
    submitted = leaderboard_files(tasks, options.out) if options.leaderboard else {}
    if not options.overwrite:
        refuse_taken([*(submitted or [options.out]), *([options.zip] if options.zip else [])])
    written: list[Path] = []
    for folder in options.runs:
        run = reload.load(folder, options.weights)
        if options.data_dir:
            data = dataclasses.replace(run.config.data, dir=options.data_dir)
            run = dataclasses.replace(run, config=dataclasses.replace(run.config, data=data))
        if options.leaderboard:
            written += write_leaderboard(run, submitted)
            continue
        task = run.config.task
        texts, labels = (
            (unlabelled.read_file(options.file, task.texts), None) if options.file else predict.read(run, options.split)
        )
        found = predict.predict(run, texts, labels)
        files.write(options.out, predict.table(task, found, as_json=options.out.suffix == ".jsonl"))
        print(f"{options.out}: {len(texts[0]):,} rows")
    if options.zip:
        predict.pack(written, options.zip)
        print(f"{options.zip}: {', '.join(sorted(path.name for path in written))}")


if __name__ == "__main__":
    sys.exit(run_command(main))
