"""Score generated text as the E2E NLG Challenge's official scorer does: BLEU, NIST, METEOR, ROUGE-L and CIDEr."""

from __future__ import annotations

from rosa.errors import ScoringError
from rosa.evaluation.nlg.files import Corpus, read, read_hypotheses
from rosa.evaluation.nlg.scores import METRICS, Scores, score

__all__ = ["METRICS", "Corpus", "Scores", "ScoringError", "read", "read_hypotheses", "score"]
