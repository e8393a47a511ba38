"""Predict with the model of finished runs: a split, a file of one's own, or the GLUE leaderboard's test sets.

python scripts/predict.py RUN [RUN ...] --split test --out FOLDER [--zip FILE]     # the leaderboard's files, zipped
python scripts/predict.py RUN --split validation --out FILE.csv                    # or FILE.jsonl; also of test
python scripts/predict.py RUN --file TEXTS.csv --out FILE.csv
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import from_clone  # noqa: F401  # finds rosa

from rosa.errors import DataError, OutputError
from rosa.records import RULES
from rosa.utils import files
from rosa.utils.console import run_command, silence_transformers

if TYPE_CHECKING:
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
    options = parser.parse_args()
    options.leaderboard = options.split == "test" and options.out.suffix not in ENDINGS
    if options.leaderboard:
        return options
    if len(options.runs) > 1 or options.zip:
        parser.error("several runs, and --zip, need --split test --out FOLDER")
    if options.out.suffix not in ENDINGS:
        parser.error(f"--out {options.out}: expected a name that ends in {' or '.join(ENDINGS)}")
    return options


def write_leaderboard(run: FinishedRun, folder: Path, written: list[Path]) -> None:
    """Write a file for each test set of the run's task, and add it to ``written``.

    Raises:
        DataError: a task that is not GLUE's, a test set that cannot be read, or a file that was written before.
    """
    from rosa.data import unlabelled
    from rosa.run import predict

    task = run.config.task
    for split in unlabelled.test_splits(task):
        name = predict.LEADERBOARD.get((task.name, split))
        if name is None:
            raise DataError(
                f"--out {folder}: the leaderboard is of GLUE's tasks, and this is task={task.name}; expected a name "
                f"that ends in {' or '.join(ENDINGS)}"
            )
        path = folder / f"{name}.tsv"
        if path in written:
            raise DataError(f"{path}: two of these runs are of task={task.name}; expected one run for each task")
        try:
            texts, _ = predict.read(run, split)
        except DataError as error:
            if split != unlabelled.AX:
                raise
            print(f"left out: {name}: {error}", file=sys.stderr)
            continue
        files.write(path, predict.leaderboard(task, predict.predict(run, texts)))
        written.append(path)
        rows, official = len(texts[0]), predict.OFFICIAL_ROWS[name]
        other = "" if rows == official else f"; not the official test set, which has {official:,}"
        print(f"{path}: {rows:,} rows{other}")


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
    written: list[Path] = []
    for folder in options.runs:
        run = reload.load(folder, options.weights)
        if options.data_dir:
            data = dataclasses.replace(run.config.data, dir=options.data_dir)
            run = dataclasses.replace(run, config=dataclasses.replace(run.config, data=data))
        if options.leaderboard:
            write_leaderboard(run, options.out, written)
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
