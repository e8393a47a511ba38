"""METEOR 1.5 (Denkowski and Lavie 2014), the Java program that comes with pycocoevalcap.

That package's own wrapper waits for ever where Java does not answer, and fails on the first number where it answers
with something else; the conversation is the same here, within a time.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from rosa.evaluation.nlg import java

START_LIMIT = 300.0
"""Seconds to read its table of paraphrases: ten of work, and several times that on a busy machine."""
SEGMENT_LIMIT = 0.25
"""More for each segment, which takes a few milliseconds."""

_NUMBERS = re.compile(r"\d[-+.eE\d]*(?: \d[-+.eE\d]*)*")


def score(hypotheses: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """METEOR of a corpus, from 0 to 1: English, all its modules, its tuned parameters.

    Args:
        hypotheses: Penn-Treebank tokens joined by spaces, one text a segment.
        references: the same, at least one a segment.

    Raises:
        JavaError: Java is absent or broken, or the program does not answer in time or as it should.
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
            # One question, one answer: neither side can fill a pipe that the other does not read.
            statistics = []
            for hypothesis, group in zip(hypotheses, references, strict=True):
                ask(["SCORE", *map(_plain, group), _plain(hypothesis)])
                statistics.append(answer())
            ask(["EVAL", *statistics])
            for _ in hypotheses:
                answer()  # each segment's own
            value = float(answer().split()[-1])
        except OSError:
            raise running.failure("ended before it had answered") from None
        if not 0 <= value <= 1:
            raise running.failure(f"answered {value} for METEOR, which lies between 0 and 1")
        return value


def _plain(text: str) -> str:
    """Without what parts the fields of a question, as the official wrapper has it."""
    return text.replace("|||", "").replace("  ", " ")
