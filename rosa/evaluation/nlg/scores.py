"""The five scores of the E2E NLG Challenge, as its official scorer computes them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from typing import Any

from rosa.errors import ScoringError
from rosa.evaluation.nlg import bleu, coco, java, meteor, nist, tokens

METRICS = {"bleu": "BLEU", "nist": "NIST", "meteor": "METEOR", "rouge_l": "ROUGE-L", "cider": "CIDEr"}
"""Each score's key in a record, and its name."""


@dataclass(frozen=True)
class Scores:
    """Scores of a system's output, and how they were computed.

    All are on the official scorer's scale: BLEU, METEOR and ROUGE-L from 0 to 1, NIST and CIDEr from 0 to about 10.
    """

    bleu: float
    nist: float
    meteor: float | None
    """None if it cannot be computed."""
    rouge_l: float
    cider: float
    segments: int
    references: int
    """Number over all segments."""
    tokenizer: str
    """Tokenizer of METEOR, ROUGE-L and CIDEr."""
    versions: dict[str, str]
    """Program or package -> version."""
    options: dict[str, str]
    """Score -> its options."""
    missing: dict[str, str]
    """Score without a value -> reason."""

    def values(self) -> dict[str, float | None]:
        """The five scores, by the keys of ``METRICS``."""
        return {name: getattr(self, name) for name in METRICS}

    def scorer(self) -> dict[str, Any]:
        """How they were computed, as plain values for a record."""
        return {
            "tokenizer": self.tokenizer,
            "versions": dict(self.versions),
            "options": dict(self.options),
            "missing": dict(self.missing),
        }

    def as_dict(self) -> dict[str, Any]:
        """All fields as plain values."""
        return {
            "scores": self.values(),
            "segments": self.segments,
            "references": self.references,
            "scorer": self.scorer(),
        }


def score(hypotheses: Sequence[str], references: Sequence[Sequence[str]], *, with_meteor: bool = True) -> Scores:
    """Score a system's output against several references each.

    METEOR and the exact tokenizer of ROUGE-L and CIDEr need Java. Without it METEOR has no value, and the other two
    use the tokens of :mod:`rosa.evaluation.nlg.treebank`.

    Args:
        hypotheses: one per segment; a text may be empty.
        references: one or more per segment, none of them empty.
        with_meteor: compute METEOR, which takes longer than the others together.

    Raises:
        ScoringError: no hypotheses, unequal numbers of segments, or a segment without references or with an empty
            one; names the segment, counted from 0.
    """
    _check(hypotheses, references)
    tokenized = tokens.tokenize(references, hypotheses)
    meteor_value, problem = None, tokenized.problem
    if not with_meteor:
        problem = "not requested"
    elif problem is None:
        try:
            meteor_value = meteor.score(tokenized.hypotheses, tokenized.references)
        except java.JavaError as error:
            problem = str(error)
    return Scores(
        bleu=bleu.score(hypotheses, references),
        nist=nist.score(hypotheses, references),
        meteor=meteor_value,
        rouge_l=coco.rouge_l(tokenized.hypotheses, tokenized.references),
        cider=coco.cider(tokenized.hypotheses, tokenized.references),
        segments=len(hypotheses),
        references=sum(map(len, references)),
        tokenizer=tokenized.tokenizer,
        versions={name: metadata.version(name) for name in ("sacrebleu", "pycocoevalcap")}
        | ({"java": tokenized.java} if tokenized.java else {}),
        options={
            "bleu": f"orders:1-{bleu.ORDER}|case:lc (A-Z)|tok:13a|smooth:mteval|length:closest reference",
            "nist": f"orders:1-{nist.ORDER}|case:lc (A-Z)|tok:13a|length:mean reference",
            "meteor": "version:1.5|l:en|norm",
            "rouge_l": f"beta:{coco.ROUGE_BETA}",
            "cider": f"orders:1-{coco.CIDER_ORDER}|sigma:{coco.CIDER_SIGMA}|idf:these references",
        },
        missing={} if problem is None else {"meteor": problem},
    )


def _check(hypotheses: Sequence[str], references: Sequence[Sequence[str]]) -> None:
    if isinstance(hypotheses, str):
        raise ScoringError("hypotheses are one text; expected a sequence of texts")
    if len(hypotheses) != len(references):
        raise ScoringError(
            f"{len(hypotheses)} hypotheses, but references of {len(references)} segments; expected the same number"
        )
    if not hypotheses:
        raise ScoringError("no hypotheses to score; expected at least one")
    for i, group in enumerate(references):
        if isinstance(group, str):
            raise ScoringError(f"references[{i}] is one text; expected a sequence of texts")
        if not group:
            raise ScoringError(f"references[{i}] is empty; expected at least one reference per segment")
        for j, text in enumerate(group):
            if not text.strip():
                raise ScoringError(f"references[{i}][{j}] is empty; leave empty references out")
