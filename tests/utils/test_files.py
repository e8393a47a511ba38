"""Text and JSON that users and other programs wrote: what is read, and what is refused in our own words."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from rosa.errors import RecordError, ScoringError
from rosa.utils.files import decode, parse_json


@pytest.mark.parametrize("text", ["", "a\r\nb", "É\u2028\x85\x1c", "\x01\x7f"])
def test_text_is_decoded_unchanged_without_its_mark(text: str) -> None:
    for mark in ("", "\ufeff"):
        assert decode((mark + text).encode(), Path("a.txt"), ScoringError) == text


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a\nb\xff", "a.txt:2: not UTF-8: invalid start byte (byte 0xff)"),
        (b"\xef\xbb\xbfa\n\nb\0", "a.txt:3: a NUL character, which no text has"),
        ("é".encode("utf-32-be"), "a.txt:1: not UTF-8"),
        ("e".encode("utf-32-be"), "a.txt:1: a NUL character"),
    ],
)
def test_what_is_no_text_is_named_by_its_line(content: bytes, message: str) -> None:
    with pytest.raises(ScoringError, match=re.escape(message)):
        decode(content, Path("a.txt"), ScoringError)


def test_json_is_parsed() -> None:
    assert parse_json('{"a": [1, 2.5, null, "\\ud800"]}', RecordError) == {"a": [1, 2.5, None, "\ud800"]}
    assert parse_json("9" * 4300, RecordError) == int("9" * 4300)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not JSON at character 1: expecting value"),
        ('{"a": 1\n,, "b": 2}', "not JSON at line 2, character 2: expecting property name enclosed in double quotes"),
        ('{"a', "not JSON at character 2: unterminated string"),
        ('"a\tb"', "not JSON at character 3: invalid control character"),
        ("1 2", "not JSON at character 3: extra data"),
        ("[" * 100_000, "brackets are nested too deep"),
        ('{"a":' * 100_000, "brackets are nested too deep"),
        ("9" * 5000, "a number has more than 4,300 digits"),
    ],
)
def test_what_is_no_json_is_said_in_our_words(text: str, message: str) -> None:
    with pytest.raises(RecordError, match=f"^{re.escape(message)}$"):
        parse_json(text, RecordError)
