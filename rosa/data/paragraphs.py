"""Read text for pretraining: the references of an E2E file, the lines of a plain text file, GLUE's sentences."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from rosa.data.base import listing
from rosa.data.local_files import column_position, csv_fields, decode, expanded, read, rows_of, wrong_number
from rosa.errors import DataError

COLUMNS = (("mr", "ref"), ("meaning_representation", "human_reference"))
"""(meaning representation, reference) columns of an E2E file, as the challenge and as the hub name them."""
GLUE_TRAIN = "train.tsv"
GLUE_TEXTS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "CoLA": (("sentence",), ("source", "label", "original_mark", "sentence")),
    "SST-2": (("sentence",), ()),
    "MRPC": (("#1 String", "#2 String"), ()),
    "RTE": (("sentence1", "sentence2"), ()),
    "STS-B": (("sentence1", "sentence2"), ()),
}
"""The folders of GLUE's download whose training sentences are read: (columns of text, all columns of a file that has no
header line)."""


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
    path = expanded(str(path))
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


def read_glue(folder: Path) -> tuple[tuple[tuple[str, ...], ...], dict[str, Any]]:
    """The sentences of five GLUE training files, each a paragraph, the repeated ones once; no label is read.

    Args:
        folder: GLUE's official download, with :data:`GLUE_TEXTS`' folders.

    Returns:
        The paragraphs in the order of first appearance, and for the record the ``glue_sha256`` of all files' bytes.

    Raises:
        DataError: a file is missing, not UTF-8, lacks a column, or has a row with another number of columns.
    """
    sentences: dict[str, None] = {}
    digest = hashlib.sha256()
    for name, (texts, columns) in GLUE_TEXTS.items():
        path = expanded(str(folder)) / name / GLUE_TRAIN
        content = read(path)
        digest.update(content)
        line = 0
        for line, values in rows_of(content, path, "tab", texts, columns, "model.mini.glue"):
            if isinstance(values, str):
                raise DataError(f"{path}:{line}: {values}")
            sentences.update(dict.fromkeys(filter(None, map(str.strip, values))))
        if not line:
            raise DataError(f"{path}: no rows; expected a training file of GLUE's official download")
    return tuple((sentence,) for sentence in sentences), {"glue_sha256": digest.hexdigest()}


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
