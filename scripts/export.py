"""Export the model of a finished run: as a plain checkpoint, a PEFT LoRA adapter, or RoSA's sparse change.

python scripts/export.py results/runs/EXPERIMENT/MODEL/TASK/METHOD-HASH/seedN --format merged|peft|sparse --out FOLDER
    [--weights best|last] [--tolerance T] [--overwrite] [--check]
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import from_clone  # noqa: F401  # finds rosa

from rosa.records import RULES
from rosa.utils.console import run_command, silence_transformers
from rosa.utils.files import refuse_unwritable


def arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description="Export the model of a finished run.")
    parser.add_argument("run", type=Path, metavar="RUN", help="folder of the run, with record.json")
    parser.add_argument(
        "--format",
        choices=("merged", "peft", "sparse"),
        required=True,
        help="merged: a plain checkpoint; peft: the low-rank difference to the pretrained weights, and the head; "
        "sparse: what RoSA changed, as values and positions, factors, and the head",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="a new folder")
    parser.add_argument("--weights", choices=RULES, help="which epoch (default: the selected one)")
    parser.add_argument(
        "--tolerance", type=float, help="peft: relative error allowed in each layer's change (default: 1e-5)"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an earlier export in FOLDER")
    parser.add_argument(
        "--check", action="store_true", help="load the export again and score it on the run's evaluation splits"
    )
    options = parser.parse_args()
    if options.format != "peft" and options.tolerance is not None:
        parser.error(f"--tolerance needs --format peft; --format {options.format} is exact")
    if options.format == "sparse" and options.check:
        parser.error("--check needs --format merged or peft; docs/robust.md has the loader of --format sparse")
    return options


def main() -> None:
    """Write the export's folder, and print its contents."""
    options = arguments()
    refuse_unwritable(options.out, "--out ")
    from rosa import export as exports
    from rosa.export import check
    from rosa.run import reload

    silence_transformers()
    run = reload.load(options.run, options.weights, attached=options.format == "sparse")
    common = {"overwrite": options.overwrite, "origin": run.origin()}
    if options.format == "merged":
        size = exports.to_merged(run.plain, options.out, tokenizer=run.tokenizer, **common)
        print(f"checkpoint: {size:,} bytes")
    elif options.format == "sparse":
        assert run.attached is not None
        print(f"change: {exports.to_sparse(run.attached, options.out, **common):,} bytes")
    else:
        exports.refuse_sparse_part(run.config.method)
        tolerance = exports.TOLERANCE if options.tolerance is None else options.tolerance
        print(exports.to_peft(run.base, run.plain, options.out, tolerance=tolerance, **common).table())
    if options.check:
        print(check.check(run, options.format, options.out).table())
    print(f"done: {options.out}")


if __name__ == "__main__":
    sys.exit(run_command(main))
