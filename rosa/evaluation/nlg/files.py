"""Reading references and hypotheses: plain text, in the layout of the E2E challenge's official scorer."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rosa.errors import ScoringError

_HEADER = re.compile(r'"?mr"?\s*[,;\t]', re.IGNORECASE)
_QUOTED_FIELD = re.compile(r'"(?:[^"]|"")*"[,;\t](?!\s)')
_QUOTED_LINE = re.compile(r'"(?:[^"]|"")*"')


@dataclass(frozen=True)
class Corpus:
    """What is to be scored, and against what."""

    hypotheses: list[str]
    references: list[list[str]]
    """Of each hypothesis."""


def read(references: Path, hypotheses: Path) -> Corpus:
    """Read and check the two files.

    Args:
        references: a reference a line, the groups of a segment's references parted by one blank line. A file without
            blank lines is one group where there is one hypothesis, and else has one reference a segment.
        hypotheses: a hypothesis a line, in the order of the groups; a line may be empty.

    Raises:
        ScoringError: a file is missing, empty, not UTF-8 or a CSV, a group has no references, or the two do not go
            together; names file and line.
    """
    outputs = _lines(hypotheses, "one hypothesis a line")
    groups = _groups(references)
    if len(groups) == 1 and len(outputs) == len(groups[0].texts):
        groups = [_Group(line, [text]) for line, text in enumerate(groups[0].texts, start=1)]
    if len(outputs) < len(groups):
        raise ScoringError(
            f"{hypotheses}:{len(outputs)}: the file ends with hypothesis {len(outputs)}, but {references} has "
            f"{len(groups)} groups of references; group {len(outputs) + 1} begins in its line "
            f"{groups[len(outputs)].line}"
        )
    if len(outputs) > len(groups):
        raise ScoringError(
            f"{hypotheses}:{len(groups) + 1}: no group of references for this hypothesis; {references} has "
            f"{len(groups)} groups, and the file has {len(outputs)} lines"
        )
    return Corpus(outputs, [group.texts for group in groups])


@dataclass(frozen=True)
class _Group:
    line: int
    """Where it begins."""
    texts: list[str]


def _groups(path: Path) -> list[_Group]:
    groups: list[_Group] = []
    inside = False
    for number, line in enumerate(_lines(path, "one reference a line, with a blank line between groups"), start=1):
        if line.strip():
            if not inside:
                groups.append(_Group(number, []))
            groups[-1].texts.append(line)
        elif not inside:
            what = "two blank lines" if groups else "a blank line before the first reference"
            raise ScoringError(f"{path}:{number}: {what}, so a group without references; groups are parted by one")
        inside = bool(line.strip())
    return groups


def _lines(path: Path, expected: str) -> list[str]:
    """The lines of a text file, which end with LF or CRLF and with nothing else: a text may hold a U+2028."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ScoringError(f"{path}: cannot be read: {error.strerror}") from error
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        # The codec counts from after a byte-order mark, and hands its input along.
        line = error.object.count(b"\n", 0, error.start) + 1
        raise ScoringError(
            f"{path}:{line}: not UTF-8: {error.reason} (byte {error.object[error.start]:#04x})"
        ) from None
    if not text:
        raise ScoringError(f"{path}: the file is empty; expected {expected}")
    lines = [line.removesuffix("\r") for line in text.removesuffix("\n").split("\n")]
    sign = _sign_of_csv(lines)
    if sign:
        number, what = sign
        raise ScoringError(f"{path}:{number}: this looks like a CSV file ({what}); expected plain text, {expected}")
    return lines


def _sign_of_csv(lines: Sequence[str]) -> tuple[int, str] | None:
    """The line that gives a CSV file away and what is seen there, or None for plain text."""
    if _HEADER.match(lines[0]):
        return 1, f"a header, {lines[0][:40]!r}"
    filled = [(number, line) for number, line in enumerate(lines, start=1) if line.strip()]
    # A sentence may begin with a quoted name, so one such line says nothing.
    quoted = [number for number, line in filled if _QUOTED_FIELD.match(line)]
    if 2 * len(quoted) > len(filled):
        return quoted[0], f"{len(quoted)} of {len(filled)} lines begin with a quoted field"
    # What a CSV writer makes of one column: quotes around those lines that hold a comma, and no others.
    commas = [(number, line) for number, line in filled if "," in line]
    if commas and all(_QUOTED_LINE.fullmatch(line) for _, line in commas):
        return commas[0][0], "every line that holds a comma is quoted"
    return None
