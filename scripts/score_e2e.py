"""Score a system's output as the E2E NLG Challenge's official scorer does: BLEU, NIST, METEOR, ROUGE-L and CIDEr.

python scripts/score_e2e.py REFERENCES HYPOTHESES [--json OUT] [--no-meteor] [--format text]

REFERENCES is a CSV file of the challenge (testset_w_refs.csv), or text with a blank line between the references of
different inputs.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from pathlib import Path

import from_clone  # noqa: F401  # finds rosa

from rosa.data import e2e
from rosa.evaluation import nlg
from rosa.utils import files
from rosa.utils.console import run_command
from rosa.utils.formatting import aligned


def arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description="Score a system's output as the E2E NLG Challenge's scorer does.")
    parser.add_argument(
        "references",
        type=Path,
        metavar="REFERENCES",
        help="a .csv file with the columns mr and ref, as the challenge's; or a text file: one reference per line, "
        "with a blank line between the references of different inputs",
    )
    parser.add_argument(
        "hypotheses", type=Path, metavar="HYPOTHESES", help="text file: one output per line, in the order of the inputs"
    )
    parser.add_argument("--json", type=Path, metavar="OUT", help="also write scores, versions and options to this file")
    parser.add_argument("--no-meteor", action="store_true", help="leave out METEOR, which takes longest")
    parser.add_argument(
        "--format",
        choices=("auto", "text"),
        default="auto",
        help="text: what looks like CSV, or is named so, is text",
    )
    return parser.parse_args()


def table(scores: nlg.Scores) -> str:
    """Format the scores, the reason for each missing one, and the programs that computed them."""
    rows = [
        (name, "–" if value is None else f"{value:.4f}", scores.missing.get(key, ""))
        for (key, value), name in zip(scores.values().items(), nlg.METRICS.values(), strict=True)
    ]
    versions = ", ".join(f"{name} {version}" for name, version in scores.versions.items())
    facts = [
        ("segments", f"{scores.segments:,}"),
        ("references", f"{scores.references:,}"),
        ("tokens", "sacrebleu's 13a (BLEU, NIST)"),
        ("", f"{scores.tokenizer} (METEOR, ROUGE-L, CIDEr)"),
        ("versions", versions),
    ]
    return "\n".join([*aligned(rows), "", *aligned(facts)])


def read(references: Path, hypotheses: Path, as_text: bool) -> nlg.Corpus:
    """The two files; references in CSV are those of each meaning representation, in the order of first appearance.

    Raises:
        ScoringError, DataError: a file cannot be read, or the numbers of groups and hypotheses differ.
    """
    if as_text or references.suffix.lower() != ".csv":
        return nlg.read(references, hypotheses, as_text)
    groups = [(group.mr, group.references) for group in e2e.read_file(references)]
    return nlg.read_hypotheses(hypotheses, groups, references)


def main() -> None:
    """Score the hypotheses, and print the scores."""
    options = arguments()
    logging.basicConfig(format="%(message)s")
    if options.json is not None:
        files.refuse_unwritable_file(options.json, "--json ")
    corpus = read(options.references, options.hypotheses, as_text=options.format == "text")
    scores = nlg.score(corpus.hypotheses, corpus.references, with_meteor=not options.no_meteor)
    print(table(scores))
    if options.json is not None:
        files.write(options.json, json.dumps(scores.as_dict(), indent=1, ensure_ascii=False, allow_nan=False) + "\n")


if __name__ == "__main__":
    sys.exit(run_command(main))
