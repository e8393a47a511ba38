"""Decode E2E's meaning representations, one hypothesis a line, the format of scripts/score_e2e.py.

python scripts/decode_e2e.py results/runs/EXPERIMENT/MODEL/e2e/METHOD-HASH/seedN [--weights best|last]
python scripts/decode_e2e.py CHECKPOINT --data-dir DIR
    [--split test] [--preset reference|lora|greedy] [--beams N ...] [--limit N] [--out FILE] [--overwrite]
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import from_clone  # noqa: F401  # finds rosa

from rosa.records import RULES
from rosa.utils.console import run_command, silence_transformers
from rosa.utils.files import refuse_unwritable_file

CONF = Path(__file__).resolve().parent.parent / "conf"
SETTINGS = {
    "beams": (int, "hypotheses kept at each token"),
    "length_penalty": (float, "exponent of a hypothesis's length; above 0 favours long ones"),
    "no_repeat_ngram": (int, "no n-gram of this many tokens occurs twice; 0 allows all"),
    "max_new_tokens": (int, "maximum number of tokens of a hypothesis"),
    "batch_size": (int, "prompts decoded at a time; does not change any hypothesis"),
}


def arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description="Decode E2E's meaning representations; an interrupted command resumes when it is repeated."
    )
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="folder of a finished run or a saved model")
    parser.add_argument("--weights", choices=RULES, help="which epoch of the run (default: the selected one)")
    parser.add_argument(
        "--data-dir", type=Path, metavar="DIR", help="folder of E2E's CSV files (default: the run's data)"
    )
    parser.add_argument("--split", choices=("validation", "test"), default="test", help="(default: test)")
    presets = sorted(path.stem for path in (CONF / "decoding").glob("*.yaml"))
    parser.add_argument("--preset", choices=presets, help="default: the run's settings; for a saved model, reference")
    for name, (kind, what) in SETTINGS.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=kind, metavar="X", help=what)
    parser.add_argument("--limit", type=int, default=0, metavar="N", help="only the first N meaning representations")
    parser.add_argument("--out", type=Path, metavar="FILE", help="output file (default: SPLIT.WEIGHTS.txt in FOLDER)")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--overwrite", action="store_true", help="replace a file with other content")
    return parser.parse_args()


def main() -> None:
    """Write the file of hypotheses, and print a summary."""
    options = arguments()
    if options.out:
        refuse_unwritable_file(options.out, "--out ")
    from rosa.run import decode

    silence_transformers()
    source = decode.find(options.folder, CONF, options.weights, options.data_dir)
    settings = decode.preset(CONF, options.preset) if options.preset else source.decoding
    settings = decode.changed(settings, {name: getattr(options, name) for name in SETTINGS})
    written = decode.decode_split(
        source, options.split, settings, options.limit, options.out, options.device, options.overwrite
    )
    for warning in written.facts["warnings"]:
        print(f"warning: {warning}")
    print(f"{len(written.texts)} hypotheses of split {options.split}; settings and hashes: {written.path}.json")
    print("already finished" if written.skipped else "done", end=f": {written.path}\n")


if __name__ == "__main__":
    sys.exit(run_command(main))
