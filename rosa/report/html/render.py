"""The page, written: one HTML file with everything in it, that asks no network for anything."""

from __future__ import annotations

import base64
import hashlib
import json
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from rosa.report.figures.style import LOOKS
from rosa.report.html import missing
from rosa.report.html.contents import Page

ASSETS = "assets"
"""The folder of the template, the style sheet and the script, in this package."""


def html(page: Page) -> str:
    """The text of the file; the same page gives the same text.

    Whatever comes from a record is escaped, and the page's own policy lets a browser run no script but the one below
    and load nothing at all, should something slip through.
    """
    environment = Environment(
        loader=PackageLoader(__package__, ASSETS),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    script, style = asset("page.js"), asset("page.css")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    data = page.runs.data() | {"looks": [[look.color, look.line] for look in LOOKS]}
    text = environment.get_template("page.html.jinja").render(
        page=page,
        states=missing.COUNTED,
        policy=f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'",
        # Files of the project itself, and what embedded() and drawings.inline() have made safe.
        style=Markup(style),
        script=Markup(script),
        data=Markup(embedded(data)),
        svg=Markup,
    )
    # Half of a surrogate pair is legal in a record's JSON, and cannot be written.
    return text.encode("utf-8", "replace").decode()


def asset(name: str) -> str:
    """The text of a file of the page."""
    return files(__package__).joinpath(ASSETS, name).read_text(encoding="utf-8")


def embedded(data: Any) -> str:
    """JSON that may stand inside a ``script`` element: nothing in it looks like markup, not even ``</script>``.

    Raises:
        ValueError: a number that JSON does not have.
    """
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text
