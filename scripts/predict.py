"""Predict with the model of finished runs: a split, a file of one's own, or the GLUE leaderboard's test sets.

python scripts/predict.py RUN [RUN ...] --split test --out FOLDER [--zip FILE]     # the leaderboard's files, zipped
python scripts/predict.py RUN --split validation --out FILE.csv                    # or FILE.jsonl
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
    what.add_argument("--split", help="test: the leaderboard's test sets; or a split of the run's data")
    what.add_argument("--file", type=Path, help="your own csv, tsv, jsonl or parquet, with the task's columns")
    parser.add_argument("--out", type=Path, required=True, help="--split test: a folder; else FILE.csv or FILE.jsonl")
    parser.add_argument("--zip", type=Path, metavar="FILE", help="with --split test: pack the folder's files")
    parser.add_argument("--weights", choices=RULES, help="which epoch (default: the selected one)")
    parser.add_argument("--data-dir", metavar="DIR", help="of data=local, if moved since the run")
    options = parser.parse_args()
    if options.split == "test":
        return options
    if len(options.runs) > 1 or options.zip:
        parser.error("several runs, and --zip, need --split test")
    if options.out.suffix not in ENDINGS:
        parser.error(f"--out {options.out}: expected a name that ends in {' or '.join(ENDINGS)}")
    return options


def write_leaderboard(run: FinishedRun, folder: Path) -> None:
    """Write a file for each test set of the run's task.

    Raises:
        DataError: a task that is not GLUE's, or a test set that cannot be read.
    """
    from rosa.data import unlabelled
    from rosa.run import predict

    task = run.config.task
    for split in unlabelled.test_splits(task):
        name = predict.LEADERBOARD.get((task.name, split))
        if name is None:
            raise DataError(f"--split test with task={task.name}: the leaderboard is of GLUE's tasks; use --file")
        try:
            texts, _ = predict.read(run, split)
        except DataError as error:
            if split != unlabelled.AX:
                raise
            print(f"left out: {name}: {error}", file=sys.stderr)
            continue
        files.write(folder / f"{name}.tsv", predict.leaderboard(task, predict.predict(run, texts)))
        print(f"{folder / name}.tsv: {len(texts[0]):,} rows")


def main() -> None:
    """Write the predictions, and print the files."""
    options = arguments()
    if options.split == "test" and options.out.is_file():
        raise OutputError(f"{options.out}: is a file; --split test writes into a folder")
    if options.split == "test":
        files.refuse_unwritable(options.out, "--out ")
    else:
        files.refuse_unwritable_file(options.out, "--out ")
    if options.zip:
        files.refuse_unwritable_file(options.zip, "--zip ")
    from rosa.data import unlabelled
    from rosa.run import predict, reload

    silence_transformers()
    for folder in options.runs:
        run = reload.load(folder, options.weights)
        if options.data_dir:
            data = dataclasses.replace(run.config.data, dir=options.data_dir)
            run = dataclasses.replace(run, config=dataclasses.replace(run.config, data=data))
        if options.split == "test":
            write_leaderboard(run, options.out)
            continue
        task = run.config.task
        texts, labels = (
            (unlabelled.read_file(options.file, task.texts), None) if options.file else predict.read(run, options.split)
        )
        found = predict.predict(run, texts, labels)
        files.write(options.out, predict.table(task, found, as_json=options.out.suffix == ".jsonl"))
        print(f"{options.out}: {len(texts[0]):,} rows")
    if options.zip:
        print(f"{options.zip}: {', '.join(predict.pack(options.out, options.zip))}")


if __name__ == "__main__":
    sys.exit(run_command(main))
