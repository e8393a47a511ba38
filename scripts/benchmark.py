"""Measure speed and memory of all methods, interleaved.

python scripts/benchmark.py [costs|layer|compile|against|gpu|padding|factorization|solvers|stages|scaling|sparse|gemm|
    decoding|scoring|full_size|reports|all ...] [model=PATH_OR_NAME] [--data-dir DIR] [--e2e-dir DIR] [--device auto]
    [--batch-size N] [--repeats N] [--results results]

``model=`` measures a model of yours alone, with every method and rank of the costs' table: a folder that
``save_pretrained`` wrote, a name under ``conf/model``, or a name on the hub. A causal language model is trained on
texts like E2E's, any other as a classifier on sentences like CoLA's. The tables are ``tables/costs_MODEL.*``, the
figure ``figures/costs_MODEL``. The benchmarks costs, compile, padding, factorization and gemm take it.

``compile`` measures what ``train.compile=true`` gains; ``against`` this code against an earlier commit's; ``gpu`` steps
on CUDA at RoBERTa-base's and GPT-2's shapes.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import from_clone  # noqa: F401  # finds rosa
from benchmarks import NAMES, BenchmarkError, check

from rosa.utils.console import run_command

CONF = Path(__file__).resolve().parent.parent / "conf"


def arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description="Measure speed and memory of all methods.")
    parser.add_argument(
        "words",
        nargs="*",
        metavar="BENCHMARK",
        help=f"{', '.join(NAMES)}, or all (default: costs); and model=PATH_OR_NAME, which measures this model alone: a "
        "folder that save_pretrained wrote, a name under conf/model, or a name on the hub",
    )
    parser.add_argument("--data-dir", type=Path, help="folder that contains CoLA/ (default: generated text like it)")
    parser.add_argument("--e2e-dir", type=Path, help="folder of E2E's CSV files (default: generated text like it)")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--batch-size", type=int, help="examples per step (default: 32; of a language model 8)")
    parser.add_argument("--repeats", type=int, help="rounds of each benchmark (default: depends on the benchmark)")
    parser.add_argument("--results", type=Path, default=Path("results"), help="tables are written to its tables/")
    return parser.parse_intermixed_args()  # which also takes words after options


def split(words: Sequence[str]) -> tuple[list[str], str]:
    """The benchmarks' names, and the model of ``model=``, or an empty string.

    Raises:
        BenchmarkError: another key, no model after ``model=``, or several.
    """
    settings = [word for word in words if "=" in word]
    for word in settings:
        key, _, value = word.partition("=")
        if key != "model" or not value:
            raise BenchmarkError(f"{word}: expected model=PATH_OR_NAME, and options with two dashes")
    if len(settings) > 1:
        raise BenchmarkError(f"{' '.join(settings)}: expected one model")
    return [word for word in words if "=" not in word], "".join(settings).removeprefix("model=")


def main() -> None:
    """Run the benchmarks, print and write their tables."""
    options = arguments()
    names, model = split(options.words)
    check(names, model, options.repeats)  # before PyTorch is imported, and a hub is asked for the model
    from benchmarks.suite import run
    from benchmarks.workload import MODEL, configure

    config = configure(CONF, model or MODEL, options.data_dir, options.device, options.batch_size, options.e2e_dir)
    print(run(config, options.results, names, options.repeats, options.e2e_dir, model))


if __name__ == "__main__":
    sys.exit(run_command(main))
