"""The letters of the footnotes of a table's cells."""

from __future__ import annotations


class Footnotes:
    """Assigns letters to footnote texts, in order of first use."""

    def __init__(self) -> None:
        self._letters: dict[str, str] = {}

    def mark(self, text: str) -> str:
        """The letter of a footnote: ``a`` to ``z``, then ``aa``."""
        if text not in self._letters:
            number, letters = len(self._letters), ""
            while True:
                letters = chr(ord("a") + number % 26) + letters
                number = number // 26 - 1
                if number < 0:
                    break
            self._letters[text] = letters
        return self._letters[text]

    def lines(self) -> list[str]:
        """``(a) text`` of every footnote."""
        return [f"({letters}) {text}" for text, letters in self._letters.items()]
