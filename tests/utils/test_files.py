"""Text and JSON that users and other programs wrote: what is read, and what is refused in our own words."""

from __future__ import annotations

import errno
import re
from pathlib import Path

import pytest
import torch

from rosa.errors import CheckpointError, RecordError, ScoringError
from rosa.utils.files import decode, parse_json, reading


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


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(), torch.OutOfMemoryError("CUDA"), RuntimeError("DefaultCPUAllocator: no"),
        RuntimeError("CUDA error: out of memory"), RuntimeError("not enough memory: you tried to allocate 8 bytes"),
    ],
)  # fmt: skip
def test_memory_that_is_not_enough_says_nothing_about_a_checkpoint(error: Exception) -> None:
    with pytest.raises(type(error)) as raised, reading(Path("checkpoint")):
        raise error
    assert raised.value is error


@pytest.mark.parametrize("number", [errno.ESTALE, errno.EIO, errno.EACCES, errno.EMFILE])
def test_a_checkpoint_that_cannot_be_read_now_is_not_to_be_removed(number: int) -> None:
    said = r"checkpoint: cannot be read \(.*\)\. Run it again"
    with pytest.raises(CheckpointError, match=said) as raised, reading(Path("checkpoint")):
        raise OSError(number, "said the system")
    assert "Remove" not in str(raised.value)


@pytest.mark.parametrize(
    "error", [FileNotFoundError(2, "none"), ValueError("torn"), RuntimeError("no zip"), KeyError("step")]
)
def test_what_is_in_a_file_of_another_kind_is_no_checkpoint(error: Exception) -> None:
    said = "checkpoint: not a checkpoint of this run .* Remove it"
    with pytest.raises(CheckpointError, match=said), reading(Path("checkpoint")):
        raise error
