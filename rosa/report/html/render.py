"""Render the page as one self-contained HTML file that makes no network request."""

from __future__ import annotations

import base64
import hashlib
import json
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from rosa.report.html import missing
from rosa.report.html.contents import GROUPS, Page
from rosa.report.looks import MOST, looks_of

ASSETS = "assets"
"""The folder of the template, the style sheet and the script, in this package."""


def html(page: Page) -> str:
    """The text of the HTML file, deterministic.

    Text from records is escaped. As a second line of defence, the page's Content-Security-Policy allows only the
    script below, by its hash, and loads nothing from elsewhere.
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
    shades = {method: [[look.color, look.line] for look in looks_of([method] * MOST)] for method in page.methods}
    data = page.runs.data() | {"looks": shades}
    text = environment.get_template("page.html.jinja").render(
        page=page,
        states=missing.COUNTED,
        groups=GROUPS,
        policy=f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'",
        # Safe without escaping: this package's files, and the output of embedded() and of charts.
        style=Markup(style),
        script=Markup(script),
        data=Markup(embedded(data)),
        svg=Markup,
    )
    # A lone surrogate is legal in a record's JSON, but cannot be encoded as UTF-8.
    return text.encode("utf-8", "replace").decode()


def asset(name: str) -> str:
    """The text of a file under ``assets``."""
    return files(__package__).joinpath(ASSETS, name).read_text(encoding="utf-8")


def embedded(data: Any) -> str:
    """JSON that is safe inside a ``script`` element: characters of markup (as in ``</script>``) are escaped.

    Raises:
        ValueError: a number is NaN or infinite.
    """
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text
