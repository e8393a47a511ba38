#!/usr/bin/env python
"""The state of every experiment, from the records; with --experiment, also which of its runs are missing.

python scripts/status.py [--results results]
python scripts/status.py --experiment rank_frequency [OVERRIDES, as for scripts/train.py]
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException
from tqdm import tqdm

from rosa.config import register
from rosa.config.explain import explain
from rosa.errors import ConfigError
from rosa.records import find
from rosa.sweep.jobs import command, expand
from rosa.sweep.status import Run, asked_for, run_of, table, to_do

CONF = Path(__file__).resolve().parent.parent / "conf"


def arguments() -> argparse.Namespace:
    """What the command line says."""
    options = argparse.ArgumentParser(description="Say which runs are done, failed, running, stopped and missing.")
    options.add_argument("--results", type=Path, default=Path("results"), help="folder of runs/ and records/")
    options.add_argument("--experiment", metavar="NAME", help="a file of experiments/, whose every run is asked for")
    options.add_argument("overrides", nargs="*", help="with --experiment: what scripts/train.py was or will be told")
    found = options.parse_args()
    if found.overrides and not found.experiment:
        options.error(f"{found.overrides[0]}: overrides go with --experiment")
    return found


def main() -> int:
    """Print the table and what is left to do; 1 where there is nothing to show, 2 where the sweep cannot be."""
    options = arguments()
    runs: dict[str, list[Run]] = {}
    sweep = ""
    if options.experiment:
        register()
        overrides = [f"experiment={options.experiment}", *options.overrides, f"results_dir={options.results}"]
        try:
            jobs = list(tqdm(expand(CONF, overrides), desc="composing", unit="run", leave=False, disable=None))
        except (ConfigError, HydraException, OmegaConfBaseException) as error:
            print(f"error: {explain(error, CONF, overrides)}", file=sys.stderr)
            return 2
        sweep = command(["-m", *overrides])
        runs[options.experiment] = list(asked_for(jobs, options.results))
    else:
        found, problems = find(options.results)
        for problem in problems:
            print(f"corrupt: {problem}", file=sys.stderr)
        for record in found:
            runs.setdefault(record["identity"]["experiment"], []).append(run_of(options.results, record))
    if not runs:
        print(f"no records under {options.results}/runs and {options.results}/records", file=sys.stderr)
        return 1
    print("\n".join([*table(runs), *to_do([run for group in runs.values() for run in group], sweep)]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
