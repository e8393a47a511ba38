"""Penn-Treebank tokens, lower-cased and without punctuation, for the COCO captioning scores.

The exact tokens come from Stanford's PTBTokenizer, a Java program in pycocoevalcap; where Java is absent or broken,
:mod:`rosa.evaluation.nlg.treebank` replaces it. pycocoevalcap's own wrapper is not used: it starts Java twice, writes a
file into its installed folder, and takes U+2028 within a text for a line end, which shifts all later texts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rosa.evaluation.nlg import java, treebank

LIMIT = 120.0
"""Time limit of the Java program in seconds; E2E's training references take about two."""
STANFORD = "Stanford PTBTokenizer 3.4.1 (Java)"
PYTHON = "rosa.evaluation.nlg.treebank (Python)"

_LINE_ENDS = dict.fromkeys(map(ord, "\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029"), " ")
"""Characters that Java or Python takes for a line end -> space."""
_PROBE = ("(The £5 isn't.)", "-lrb- the # 5 is n't . -rrb-")
"""A text and its tokens, to check that the tokenizer works."""


@dataclass(frozen=True)
class Tokenized:
    """Texts as tokens joined by spaces."""

    references: list[list[str]]
    """The references of each segment."""
    hypotheses: list[str]
    tokenizer: str
    """The name of the tokenizer: ``STANFORD`` or ``PYTHON``."""
    java: str | None
    """Java's version; None without Java."""
    problem: str | None
    """Why the exact tokenizer failed; None if it ran."""


def tokenize(references: Sequence[Sequence[str]], hypotheses: Sequence[str]) -> Tokenized:
    """Tokenize all texts with the Java tokenizer, or with the Python one if Java fails."""
    texts = [text for group in references for text in group]
    # The tokenizer detects sentence starts across lines; the probe separates references from hypotheses.
    lines = [_PROBE[0], *texts, _PROBE[0], *hypotheses, _PROBE[0]]
    lines = [line.translate(_LINE_ENDS) for line in lines]
    version, problem = None, None
    try:
        tokenized, version = _by_java(lines)
    except java.JavaError as error:
        problem = str(error)
        tokenized = treebank.tokenize(lines)
    kept = _without_punctuation(tokenized)
    start, grouped = 1, []
    for group in references:
        grouped.append(kept[start : start + len(group)])
        start += len(group)
    return Tokenized(grouped, kept[start + 1 : -1], PYTHON if problem else STANFORD, version, problem)


def _by_java(lines: Sequence[str]) -> tuple[list[list[str]], str]:
    """The tokens of each line, and Java's version.

    Raises:
        JavaError: no Java, or its output is not the tokenizer's.
    """
    from pycocoevalcap.tokenizer import ptbtokenizer

    jar = Path(ptbtokenizer.__file__).with_name(ptbtokenizer.STANFORD_CORENLP_3_4_1_JAR)
    command = ["-XX:TieredStopAtLevel=1", "-cp", str(jar), "edu.stanford.nlp.process.PTBTokenizer"]
    command += ["-preserveLines", "-lowerCase", "-encoding", "UTF-8"]
    output, version = java.run(command, "\n".join(lines) + "\n", LIMIT)
    tokenized = output.removesuffix("\n").split("\n")
    probes = [tokens for line, tokens in zip(lines, tokenized, strict=False) if line == _PROBE[0]]
    if len(tokenized) != len(lines) or any(tokens.strip() != _PROBE[1] for tokens in probes):
        raise java.JavaError(
            f"Java is broken: the tokenizer made {len(tokenized)} lines of {len(lines)}, beginning with "
            f"{output[:60]!r}; (re)install {java.PACKAGE}"
        )
    return [line.rstrip().split(" ") for line in tokenized], version


def _without_punctuation(tokenized: Sequence[Sequence[str]]) -> list[str]:
    from pycocoevalcap.tokenizer.ptbtokenizer import PUNCTUATIONS

    dropped = frozenset(PUNCTUATIONS)
    return [" ".join(token for token in tokens if token not in dropped) for tokens in tokenized]
