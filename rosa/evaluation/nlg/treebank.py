"""Penn-Treebank tokenizer in Python: replaces Stanford's PTBTokenizer on texts like those of E2E.

The rules cover restaurant descriptions: words and their hyphens, contractions, prices, ratings, initials and common
abbreviations. They were derived by comparison with the Java program; a test requires equal tokens on every reference of
the E2E data, after removing the punctuation that the scorer drops. On other texts (web addresses, smileys, formulas)
the two may differ, so a score always names its tokenizer.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence

_LETTER = r"[^\W\d_]"
_ABBREVIATIONS = "mr|mrs|ms|dr|prof|st|rd|ave|blvd|inc|co|ltd|corp|etc|vs|jr|sr"

_PLAIN = str.maketrans({"’": "'", "‘": "'", "“": '"', "”": '"', "–": "--", "—": "--", "…": "..."})
"""Typographic character -> ASCII replacement."""

_TWO_WORDS = {
    "cannot": ("can", "not"),
    "gimme": ("gim", "me"),
    "gonna": ("gon", "na"),
    "gotta": ("got", "ta"),
    "lemme": ("lem", "me"),
    "wanna": ("wan", "na"),
}
_SYMBOLS = {
    "£": "#",  # the Treebank has no other currency than the dollar and the pound, which it writes as a number sign
    "€": "$",
    "(": "-lrb-",
    ")": "-rrb-",
    "[": "-lsb-",
    "]": "-rsb-",
    "{": "-lcb-",
    "}": "-rcb-",
    '"': "''",
}

_TOKEN = re.compile(
    rf"""
      \.\.\.                                            # an ellipsis
    | --+                                               # a dash
    | {_LETTER}+(?=n't\b)                               # do|n't
    | n't\b
    | '(?:s|m|d|re|ve|ll)\b                             # it|'s
    | \b[dlo]'{_LETTER}+                                # d'oeuvre, o'clock
    | \b(?:{_ABBREVIATIONS})\.
    | \b(?:{_LETTER}\.)+(?!\w)                          # p.m., U.K., 25 L.
    | {_LETTER}[\w-]*(?:\.{_LETTER}[\w-]*)+             # city centre.Nice: the space after the full stop is missing
    | {_LETTER}+(?:-{_LETTER}+)*\.(?=[,;:])             # a full stop within a sentence is taken for an abbreviation's
    | [-+]?(?:\d+(?:[.,:/]\d+)+|\.\d+)                  # 20.00, 1,000, 3/5, .5
    | [-+]\d+\b                                         # -25
    | \w+(?:[-/]\w+)*                                   # family-friendly, 20-25, 5pm, and/or
    | \S
    """,
    re.VERBOSE,
)


_OPENER = re.compile(
    r"a|according|additionally|after|an|as|at|but|he|her|here|however|if|in|it|last|many|more|now|one|other|"
    r"our|she|since|so|some|that|the|their|then|there|these|they|this|we|what|when|while|you"
)
"""Words that, capitalised, start a new sentence after an initial."""


def tokenize(texts: Sequence[str]) -> list[list[str]]:
    """Lower-cased tokens of each text, including punctuation.

    Whether an initial's full stop (``for 20-25 L.``) ends a sentence depends on the next word, which may be the first
    of the next text: the Java program reads all texts as one.
    """
    tokenized: list[list[str]] = []
    first = ""  # first word of the next text that is not empty
    for text in reversed(texts):
        pieces = text.split()
        tokens: list[str] = []
        for piece, following in zip(pieces, [*pieces[1:], first], strict=False):
            if len(piece) == 2 and piece[0].isalpha() and piece[1] == "." and _opens_sentence(following):
                tokens += [piece[0].lower(), "."]
            else:
                tokens += _tokens_of_piece(piece)
        tokenized.append(tokens)
        first = pieces[0] if pieces else first
    return tokenized[::-1]


def _opens_sentence(word: str) -> bool:
    return word[:1].isupper() and _OPENER.fullmatch(word.lower()) is not None


@functools.lru_cache(maxsize=2**16)
def _tokens_of_piece(piece: str) -> tuple[str, ...]:
    """Tokens of a piece of text without spaces; cached, because few pieces make up many texts."""
    tokens: list[str] = []
    for token in _TOKEN.findall(piece.translate(_PLAIN).lower()):
        tokens.extend(_TWO_WORDS.get(token) or (_SYMBOLS.get(token, token),))
    return tuple(tokens)
