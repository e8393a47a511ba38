"""Read text for pretraining: the references of an E2E file, or the lines of a plain text file."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from rosa.data.base import listing
from rosa.data.local_files import column_position, csv_fields, decode, read, wrong_number
from rosa.errors import DataError

COLUMNS = (("mr", "ref"), ("meaning_representation", "human_reference"))
"""(meaning representation, reference) columns of an E2E file, as the challenge and as the hub name them."""


def read_paragraphs(path: Path) -> tuple[tuple[tuple[str, ...], ...], dict[str, Any]]:
    """The paragraphs of a file, each a tuple of texts; blank ones are left out.

    In a CSV file (its name ends in ``.csv``) a paragraph is all references of one meaning representation; the meaning
    representation only groups them. In any other file each line is a paragraph.

    Returns:
        The paragraphs in the order of first appearance, and facts for the record: ``file`` (name without folder) and
        ``sha256`` of its bytes.

    Raises:
        DataError: the file is missing, not UTF-8, not valid CSV, lacks a column, or has no text.
    """
    content = read(path)
    if path.suffix.lower() == ".csv":
        groups = _references(content, path)
    else:
        groups = [[line] for line in decode(content, path).split("\n")]
    paragraphs = []
    for group in groups:
        texts = tuple(text for text in (line.strip() for line in group) if text)
        if texts:
            paragraphs.append(texts)
    if not paragraphs:
        raise DataError(f"{path}: no text; expected E2E's references in a .csv file, or one paragraph per line")
    return tuple(paragraphs), {"file": path.name, "sha256": hashlib.sha256(content).hexdigest()}


def _references(content: bytes, path: Path) -> list[list[str]]:
    rows = csv_fields(content, path)
    _, header = next(rows, (1, []))
    known = [columns for columns in COLUMNS if set(columns) <= set(header)]
    if not known:
        expected = " or ".join(" and ".join(columns) for columns in COLUMNS)
        raise DataError(f"{path}:1: expected the columns {expected}; the header has {listing(header)}")
    given, wanted = (column_position(name, header, f"{path}:1: the header", "E2E's format") for name in known[0])
    groups: dict[str, list[str]] = {}
    for line, values in rows:
        if len(values) != len(header):
            raise DataError(f"{path}:{line}: {wrong_number(values, header, 'comma')}")
        groups.setdefault(values[given], []).append(values[wanted])
    return list(groups.values())
