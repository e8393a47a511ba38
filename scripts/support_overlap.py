"""Print the overlap of the positions of RoSA's sparse parts between two runs, such as two seeds.

python scripts/support_overlap.py RUN OTHER_RUN      folders of runs of method=robust
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import from_clone  # noqa: F401  # finds rosa

from rosa.utils.console import run_command


def main() -> None:
    """Print the overlap by layer, and its mean, beside those of random positions."""
    parser = argparse.ArgumentParser(description="Print the overlap of the positions of RoSA's sparse parts.")
    parser.add_argument("runs", type=Path, nargs=2, metavar="RUN", help="folder of a run of method=robust")
    options = parser.parse_args()
    from rosa.adapters import support
    from rosa.utils.formatting import aligned

    layers = support.overlap(*(run / support.FILE for run in options.runs))
    mean = support.Overlap(*(sum(parts) / len(layers) for parts in zip(*layers.values(), strict=True)))
    rows = [(name, *(f"{100 * part:.1f} %" for part in one)) for name, one in (layers | {"mean": mean}).items()]
    print("\n".join(aligned([("layer", "in common", "by chance"), *rows])))


if __name__ == "__main__":
    sys.exit(run_command(main))
