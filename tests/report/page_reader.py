"""Reads a report with the standard library's HTML parser, independently of the code that writes it."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from html.parser import HTMLParser
from typing import Any

VOID = {"meta", "input", "link", "br", "img", "hr"}


@dataclass
class Element:
    tag: str
    attributes: dict[str, str | None]
    children: list[Element | str] = field(default_factory=list)

    def all(self, *tags: str, **attributes: str) -> list[Element]:
        """Every element below, in order, of one of these kinds (or of any) with these attributes."""
        found = []
        for child in self.children:
            if isinstance(child, Element):
                fits = not tags or child.tag in tags
                if fits and all(child.attributes.get(key.rstrip("_")) == value for key, value in attributes.items()):
                    found.append(child)
                found += child.all(*tags, **attributes)
        return found

    @property
    def text(self) -> str:
        return "".join(child if isinstance(child, str) else child.text for child in self.children)


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.open = [Element("", {})]

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        made = Element(tag, dict(attributes))
        self.open[-1].children.append(made)
        if tag not in VOID:
            self.open.append(made)

    def handle_endtag(self, tag: str) -> None:
        made = self.open.pop()
        if made.tag != tag:
            raise ValueError(f"</{tag}> closes <{made.tag}>, line {self.getpos()[0]}")

    def handle_data(self, text: str) -> None:
        self.open[-1].children.append(text.replace("\xa0", " "))  # which only says where a line may not end


def read(text: str) -> Element:
    """The page's elements.

    Raises:
        ValueError: an element is closed in another one, or never.
    """
    reader = _Reader()
    reader.feed(text)
    reader.close()
    if len(reader.open) != 1:
        raise ValueError(f"never closed: {[element.tag for element in reader.open[1:]]}")
    return reader.open[0]


def data(page: Element) -> dict[str, Any]:
    """The embedded data of the cells."""
    (element,) = page.all("script", id="data")
    return json.loads(element.text)


def grid(table: Element) -> list[list[str]]:
    """The texts of a table's cells, headings included."""
    return [[cell.text.strip() for cell in row.all("th", "td")] for row in table.all("tr")]
