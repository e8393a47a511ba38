"""Measure speed and memory of all methods, interleaved.

python scripts/benchmark.py [costs|layer|compile|gpu|padding|factorization|solvers|stages|scaling|sparse|gemm|
    decoding|scoring|full_size|reports|all ...] [--model minilm] [--data-dir DIR] [--e2e-dir DIR] [--device auto]
    [--batch-size 32] [--repeats N] [--results results]

``compile`` measures what ``train.compile=true`` gains; ``gpu`` the same on CUDA at RoBERTa-base's and GPT-2's shapes.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import from_clone  # noqa: F401  # finds rosa
from benchmarks import NAMES

from rosa.utils.console import run_command

CONF = Path(__file__).resolve().parent.parent / "conf"


def arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description="Measure speed and memory of all methods.")
    parser.add_argument("names", nargs="*", metavar="BENCHMARK", help=f"{', '.join(NAMES)}, or all (default: costs)")
    parser.add_argument("--model", default="minilm", help="a name under conf/model, or the folder of a saved model")
    parser.add_argument("--data-dir", type=Path, help="folder that contains CoLA/ (default: generated text like it)")
    parser.add_argument("--e2e-dir", type=Path, help="folder of E2E's CSV files (default: generated text like it)")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--batch-size", type=int, default=32, help="examples per step (default: 32)")
    parser.add_argument("--repeats", type=int, help="rounds of each benchmark (default: depends on the benchmark)")
    parser.add_argument("--results", type=Path, default=Path("results"), help="tables are written to its tables/")
    return parser.parse_args()


def main() -> None:
    """Run the benchmarks, print and write their tables."""
    options = arguments()
    from benchmarks.suite import run
    from benchmarks.workload import configure

    config = configure(CONF, options.model, options.data_dir, options.device, options.batch_size)
    print(run(config, options.results, options.names, options.repeats, options.e2e_dir))


if __name__ == "__main__":
    sys.exit(run_command(main))
