"""The fenced blocks of a page of docs/, for the tests that run them."""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Block:
    """One fenced block: the words behind its fence, its text, and the line of the page above the text."""

    label: str
    text: str
    line: int


def blocks(page: str) -> list[Block]:
    fenced = re.finditer(r"^```([^\n]*)\n(.*?)^```$", page, flags=re.MULTILINE | re.DOTALL)
    return [Block(match[1], match[2], page.count("\n", 0, match.start(2))) for match in fenced]
