"""METEOR 1.5 (Denkowski and Lavie 2014) by the Java program in pycocoevalcap.

Uses the protocol of pycocoevalcap's wrapper, but with a time limit and a check of every answer: that wrapper waits
forever if Java does not answer, and fails to parse an answer that is not a number.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from rosa.evaluation.nlg import java

START_LIMIT = 300.0
"""Seconds for start-up, which reads the paraphrase table: about 10, several times that on a busy machine."""
SEGMENT_LIMIT = 0.25
"""Further seconds per segment; a segment takes a few milliseconds."""

_NUMBERS = re.compile(r"\d[-+.eE\d]*(?: \d[-+.eE\d]*)*")


def score(hypotheses: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """Corpus METEOR, from 0 to 1: English, all modules, the tuned parameters.

    Args:
        hypotheses: Penn-Treebank tokens joined by spaces, one text per segment.
        references: likewise, one or more per segment.

    Raises:
        JavaError: Java is absent or broken, or the program exceeds its time limit or answers something else.
    """
    from pycocoevalcap.meteor import meteor

    jar = Path(meteor.__file__).with_name(meteor.METEOR_JAR)
    arguments = ["-Xmx2G", "-jar", str(jar), "-", "-", "-stdio", "-l", "en", "-norm"]
    with java.program(arguments, START_LIMIT + SEGMENT_LIMIT * len(hypotheses)) as running:
        source, sink = running.process.stdout, running.process.stdin
        if source is None or sink is None:
            raise running.failure("has no pipes")

        def ask(fields: Sequence[str]) -> None:
            sink.write((" ||| ".join(fields) + "\n").encode("utf-8", "replace"))
            sink.flush()

        def answer() -> str:
            line = source.readline().decode("utf-8", "replace").strip()
            if not _NUMBERS.fullmatch(line):
                raise running.failure(f"answered {line[:60]!r} where METEOR's numbers were expected")
            return line

        try:
            # Each answer is read before the next request, so that no pipe fills up.
            statistics = []
            for hypothesis, group in zip(hypotheses, references, strict=True):
                ask(["SCORE", *map(_plain, group), _plain(hypothesis)])
                statistics.append(answer())
            ask(["EVAL", *statistics])
            for _ in hypotheses:
                answer()  # score of one segment
            value = float(answer().split()[-1])
        except OSError:
            raise running.failure("ended before it had answered") from None
        if not 0 <= value <= 1:
            raise running.failure(f"answered {value} for METEOR, which lies between 0 and 1")
        return value


def _plain(text: str) -> str:
    """Remove the field separator, as the official wrapper does."""
    return text.replace("|||", "").replace("  ", " ")
