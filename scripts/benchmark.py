"""Measure speed and memory, the methods side by side.

python scripts/benchmark.py [costs|padding|factorization|solvers|stages|scaling|decoding|scoring|full_size|reports ...]
    [all] [--model minilm] [--data-dir DIR] [--e2e-dir DIR] [--device auto] [--batch-size 32] [--repeats N]
    [--results results]
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from benchmarks import NAMES

from rosa.utils.console import run_command

CONF = Path(__file__).resolve().parent.parent / "conf"


def arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description="Measure speed and memory, the methods side by side.")
    parser.add_argument("names", nargs="*", metavar="BENCHMARK", help=f"{', '.join(NAMES)}, or all; default: costs")
    parser.add_argument("--model", default="minilm", help="a name under conf/model, or a saved model's folder")
    parser.add_argument("--data-dir", type=Path, help="the folder that holds CoLA; default: generated text like it")
    parser.add_argument("--e2e-dir", type=Path, help="the folder of E2E's CSV files; default: generated text like it")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--batch-size", type=int, default=32, help="examples a step (default: 32)")
    parser.add_argument("--repeats", type=int, help="rounds of each benchmark; default: each its own")
    parser.add_argument("--results", type=Path, default=Path("results"), help="the tables go to its tables/")
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
