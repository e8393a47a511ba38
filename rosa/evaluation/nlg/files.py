"""Read references and hypotheses from plain text in the format of the E2E challenge's official scorer."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rosa.errors import ScoringError
from rosa.utils.files import decode

# In one case and without a blank after the separator: a text may begin with "Mr, said she".
_HEADER = re.compile(r'(?:"(?:mr|MR)"|mr|MR)[,;\t](?!\s)')
_QUOTED_FIELD = re.compile(r'"(?:[^"]|"")*"[,;\t](?!\s)')
_QUOTED_LINE = re.compile(r'"(?:[^"]|"")*"')


@dataclass(frozen=True)
class Corpus:
    """Hypotheses and their references."""

    hypotheses: list[str]
    references: list[list[str]]
    """The references of each hypothesis."""


def read(references: Path, hypotheses: Path, as_text: bool = False) -> Corpus:
    """Read and check the two files.

    Args:
        references: one reference per line, one blank line between the groups of two segments. A file without blank
            lines is one group if there is one hypothesis, and otherwise has one reference per segment.
        hypotheses: one hypothesis per line, in the order of the groups; a line may be empty.
        as_text: accept what looks like a CSV file.

    Raises:
        ScoringError: a file is missing, empty, not UTF-8 or seems to be a CSV, a group has no references, or the
            numbers of groups and hypotheses differ; names file and line.
    """
    outputs = _hypotheses(hypotheses, as_text)
    groups = _groups(references, as_text)
    if len(groups) == 1 and len(outputs) == len(groups[0].texts):
        groups = [_Group(line, [text]) for line, text in enumerate(groups[0].texts, start=1)]
    begins = [f"in its line {group.line}" for group in groups]
    return _paired(outputs, hypotheses, [group.texts for group in groups], references, begins)


def read_hypotheses(
    hypotheses: Path, groups: Sequence[tuple[str, Sequence[str]]], source: Path, as_text: bool = False
) -> Corpus:
    """As :func:`read`, where the references have been read already.

    Args:
        hypotheses: one hypothesis per line, in the order of the groups.
        groups: the input of each group, and its references.
        source: the file of the references, for messages.
        as_text: accept what looks like a CSV file.

    Raises:
        ScoringError: as :func:`read`.
    """
    begins = [f"with the input {given[:60]!r}" for given, _ in groups]
    outputs = _hypotheses(hypotheses, as_text)
    return _paired(outputs, hypotheses, [list(texts) for _, texts in groups], source, begins)


def _paired(
    outputs: list[str], hypotheses: Path, references: list[list[str]], source: Path, begins: Sequence[str]
) -> Corpus:
    """Hypotheses and references, of which there must be as many; ``begins`` says where each group begins."""
    if len(outputs) < len(references):
        raise ScoringError(
            f"{hypotheses}:{len(outputs)}: the file ends with hypothesis {len(outputs)}, but {source} has "
            f"{len(references)} groups of references; group {len(outputs) + 1} begins {begins[len(outputs)]}"
        )
    if len(outputs) > len(references):
        raise ScoringError(
            f"{hypotheses}:{len(references) + 1}: no group of references for this hypothesis; {source} has "
            f"{len(references)} groups, and the file has {len(outputs)} lines"
        )
    return Corpus(outputs, references)


def _hypotheses(path: Path, as_text: bool) -> list[str]:
    return _lines(path, "one hypothesis per line", as_text)


@dataclass(frozen=True)
class _Group:
    line: int
    """The group's first line, from 1."""
    texts: list[str]


def _groups(path: Path, as_text: bool) -> list[_Group]:
    groups: list[_Group] = []
    inside = False
    expected = "one reference per line, with a blank line between groups"
    for number, line in enumerate(_lines(path, expected, as_text), start=1):
        if line.strip():
            if not inside:
                groups.append(_Group(number, []))
            groups[-1].texts.append(line)
        elif not inside:
            what = "a second blank line" if groups else "a blank line before the first reference"
            raise ScoringError(f"{path}:{number}: {what}; expected exactly one blank line between groups of references")
        inside = bool(line.strip())
    return groups


def _lines(path: Path, expected: str, as_text: bool) -> list[str]:
    """The lines of a text file, split at LF and CRLF only: a text may contain U+2028, or a CR of its own."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ScoringError(f"{path}: cannot be read: {error.strerror}") from error
    text = decode(content, path, ScoringError)
    if not text:
        raise ScoringError(f"{path}: the file is empty; expected {expected}")
    lines = [line.removesuffix("\r") for line in text.removesuffix("\n").split("\n")]
    sign = None if as_text else _sign_of_csv(lines)
    if sign:
        number, what = sign
        raise ScoringError(
            f"{path}:{number}: this looks like a CSV file ({what}); expected plain text, {expected}; if it is text, "
            "--format text"
        )
    return lines


def _sign_of_csv(lines: Sequence[str]) -> tuple[int, str] | None:
    """Line number and description of the first sign of a CSV file; None for plain text."""
    if _HEADER.match(lines[0]):
        return 1, f"a header, {lines[0][:40]!r}"
    filled = [(number, line) for number, line in enumerate(lines, start=1) if line.strip()]
    # Most lines, because a sentence may begin with a quoted name.
    quoted = [number for number, line in filled if _QUOTED_FIELD.match(line)]
    if 2 * len(quoted) > len(filled):
        return quoted[0], f"{len(quoted)} of {len(filled)} lines begin with a quoted field"
    # A CSV writer quotes, in a file of one column, the lines that contain a comma.
    commas = [(number, line) for number, line in filled if "," in line]
    # One such line may as well be somebody's words.
    if len(commas) > 1 and all(_QUOTED_LINE.fullmatch(line) for _, line in commas):
        return commas[0][0], "every line that contains a comma is quoted"
    return None
