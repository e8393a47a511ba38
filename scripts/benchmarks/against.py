"""Measure this code against an earlier commit's, interleaved: what a command, the library and a resample take.

The earlier code is checked out into a temporary folder. All is measured in processes of their own, which use the same
packages, so it must run with those that are installed.
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path

from tqdm import tqdm

from benchmarks import BenchmarkError
from benchmarks.findings import Findings, Measurement, note, row, with_quartiles
from benchmarks.gemm import precisions
from benchmarks.timing import ratio, spread
from benchmarks.workload import Workload
from rosa.report.tables.table import Table

ROUNDS = 5
COMMIT = "d20e1ff"
"""The first working commit of the present layout, before the work on speed."""
ROOT = Path(__file__).resolve().parents[2]
LIBRARY = Path(__file__).with_name("library.py")
UPDATES = 10
HELP = "train.py --help"
RUN = f"{UPDATES} updates of the mini RoBERTa, from the command to the record"
PRETRAINING = "the same with its pretraining, the first time"
RUN_ARGUMENTS = (
    "experiment=glue_mini_tune",
    "task=cola",
    "method=rosa_each_epoch",
    "train.lr=2e-3",
    "seed=0",
    f"train.max_steps={UPDATES}",
)

Measured = dict[str, list[float]]
"""Seconds of each round, by quantity."""


def obstacle(_: str) -> str:
    """Why the earlier commit cannot be had here, or an empty string."""
    try:
        known = not _git("cat-file", "-e", f"{COMMIT}^{{commit}}").returncode
    except OSError as error:
        return f"against: git cannot be run ({error.strerror}); expected it, and a clone with its whole history"
    if known:
        return ""
    return f"against: no commit {COMMIT} in {ROOT}; expected a clone with its whole history (git fetch --unshallow)"


def check_out(commit: str, folder: Path) -> None:
    """Write the files of a commit into a folder; the clone itself stays as it is."""
    with tarfile.open(fileobj=io.BytesIO(_git("archive", "--format=tar", commit).stdout)) as files:
        files.extractall(folder, filter="data")


def _git(*arguments: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, check=False)


def once(tree: Path, work: Path) -> dict[str, float]:
    """Each quantity of one version, measured once.

    Args:
        tree: the version's code.
        work: a folder for its cache and its runs.

    Raises:
        BenchmarkError: a command fails.
    """
    work.mkdir(exist_ok=True)
    cache, results = work / "cache", tempfile.mkdtemp(dir=work)
    run = PRETRAINING if not cache.is_dir() else RUN
    help_seconds, _ = _run(tree, "scripts/train.py", "--help")
    run_seconds, _ = _run(tree, "scripts/train.py", *RUN_ARGUMENTS, f"cache_dir={cache}", f"results_dir={results}")
    _, printed = _run(tree, "-P", str(LIBRARY), *precisions())  # -P: the benchmarks' modules are not those of the tree
    return {HELP: help_seconds, run: run_seconds} | json.loads(printed.splitlines()[-1])


def _run(tree: Path, *arguments: str) -> tuple[float, str]:
    """Run Python on a version's code: the seconds that it takes, and what it prints."""
    path = {**os.environ, "PYTHONPATH": str(tree)}
    start = time.perf_counter()
    command = [sys.executable, *arguments]
    done = subprocess.run(command, cwd=tree, env=path, capture_output=True, text=True, check=False)
    taken = time.perf_counter() - start
    if done.returncode:
        raise BenchmarkError(f"against: python {' '.join(arguments)} in {tree} failed:\n{done.stderr[-2000:]}")
    return taken, done.stdout


def benchmark(_: Workload, rounds: int) -> Findings:
    """Measure both versions ``rounds`` times, in turn; needs no model of its own."""
    before: Measured = {}
    now: Measured = {}
    with tempfile.TemporaryDirectory(prefix="rosa-against-") as name:
        folder = Path(name)
        check_out(COMMIT, folder / "code")
        versions = ((before, folder / "code", folder / "before"), (now, ROOT, folder / "now"))
        with tqdm(total=2 * (rounds + 1), desc="against", unit="version", dynamic_ncols=True) as bar:
            for number in range(rounds + 1):  # the first round pretrains the mini model
                for taken, code, work in versions if number % 2 else versions[::-1]:
                    for quantity, seconds in once(code, work).items():
                        taken.setdefault(quantity, []).append(seconds)
                    bar.update()
    return findings(before, now)


def findings(before: Measured, now: Measured) -> Findings:
    """Build the table: a row for each quantity, in the order of measurement, the slow first one last."""
    names = sorted(now, key=lambda name: name == PRETRAINING)
    rows, lines = [], []
    for name in names:
        relative = ratio(now[name], before[name])
        shown = (with_quartiles(spread(before[name])), with_quartiles(spread(now[name])), with_quartiles(relative))
        rows.append(row(name, *shown))
        lines += [
            Measurement(name, "before", "s", spread(before[name])),
            Measurement(name, "now", "s", spread(now[name])),
            Measurement(name, "now relative to before", "", relative),
        ]
    notes = (
        note(
            f"Before: commit {COMMIT}, with the packages that are installed now. Seconds, median (quartiles) of "
            "processes that ran in turn; the ratio is the median of the ratios within a round. A layer and a step are "
            "ROSA's at rank 8."
        ),
    )
    header = ("", "before", "now", "ratio")
    return Findings(Table("against", "This code against an earlier commit's", header, tuple(rows), notes), tuple(lines))
