"""BLEU of a corpus with several references a segment, through sacrebleu."""

from __future__ import annotations

from collections.abc import Sequence


def score(hypotheses: Sequence[str], references: Sequence[Sequence[str]]) -> tuple[float, str]:
    """BLEU of lower-cased 13a tokens, as mteval-v13a computes it, and sacrebleu's signature of how.

    mteval lower-cases A to Z alone, sacrebleu every letter: they part where a capital É meets an é.

    Args:
        hypotheses: one a segment.
        references: at least one a segment, in any number.

    Returns:
        A value from 0 to 1, and the signature.
    """
    from sacrebleu.metrics import BLEU

    metric = BLEU(lowercase=True, tokenize="13a")
    most = max(map(len, references))
    streams = [[group[i] if i < len(group) else None for group in references] for i in range(most)]
    found = metric.corpus_score(hypotheses, streams)  # type: ignore[arg-type]  # None: no such reference
    return found.score / 100, str(metric.get_signature())
