"""Exact match and slot F1 of meaning representations such as ``inform(name[Dota 2], genres[MOBA])`` (ViGGO)."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

_SLOT = re.compile(r"\b(\w+)\s*\[((?:[^\[\]]|\[[^\[\]]*\])*)\]")  # a value may have brackets, too


def parse(representation: str) -> Counter[tuple[str, str]]:
    """The slots of a meaning representation with their values, counted; case and white space are ignored."""
    found = _SLOT.findall(representation)
    return Counter((slot.lower(), " ".join(value.lower().split())) for slot, value in found)


def score(
    _given: Sequence[str], answers: Sequence[str], references: Sequence[Sequence[str]]
) -> tuple[dict[str, float | None], dict[str, str], dict[str, str]]:
    """Exact match, in which the order of the attributes counts, and F1 of slot-value pairs over all segments.

    Of several references, F1 counts the one with which the answer shares most.
    """
    right = shared = answered = wanted = 0
    for answer, known in zip(answers, references, strict=True):
        right += _plain(answer) in {_plain(reference) for reference in known}
        ours = parse(answer)
        both, theirs = max(((ours & parse(one)).total(), -parse(one).total()) for one in known)
        shared, answered, wanted = shared + both, answered + ours.total(), wanted - theirs
    f1 = 2 * shared / (answered + wanted) if answered + wanted else None
    options = {
        "exact_match": "the whole text, in the order that it has; white space is normalised",
        "slot_f1": "slot-value pairs over all segments; case and white space are normalised",
    }
    missing = {} if f1 is not None else {"slot_f1": "neither answers nor references have a slot"}
    return {"exact_match": right / len(answers), "slot_f1": f1}, options, missing


def _plain(text: str) -> str:
    return " ".join(text.split())
