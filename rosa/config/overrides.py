"""Command-line arguments: JSON mappings, which Hydra's grammar lacks, and the quoting of values."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Sequence
from typing import Any

from rosa.errors import ConfigError

RESERVED = re.compile(r"[][(){}:=, \\]")
"""Characters that an unquoted text may hold only behind a backslash."""
MAPPING = re.compile(r"([+\w./@-]+)=(\{.*\})", re.DOTALL)


def readable(words: Sequence[str]) -> list[str]:
    """Rewrite arguments in Hydra's grammar, which does not know the quotes of ``key={"*.query": 4}``.

    Raises:
        ConfigError: there is no key; or ``~key`` would remove one, which every run needs.
    """
    for word in words:
        if word.startswith("="):
            raise ConfigError(f"{word}: expected KEY=VALUE")
        if word.startswith("~") and not word.startswith("~hydra"):
            key = word[1:].partition("=")[0]
            none = "; logger=none switches W&B off" if key == "logger" else ""
            raise ConfigError(f"{word}: {key} cannot be left out: expected a value, {key}=...{none}")
    return [_without_json(word) for word in words]


def quoted(word: str) -> str:
    """An argument ``key=value`` as it must be typed where the value has characters that Hydra's grammar reserves."""
    key, _, value = word.partition("=")
    return shlex.quote(f"{key}={_text(value)}")


def unreadable(words: Sequence[str]) -> str | None:
    """The first argument that is not an override in Hydra's grammar."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    parser = OverridesParser.create()
    for word in words:
        try:
            if not word.startswith("-"):
                parser.parse_override(word)
        except HydraException:
            return word
    return None


def _without_json(word: str) -> str:
    found = MAPPING.fullmatch(word)
    try:
        mapping = json.loads(found.group(2)) if found else None
    except ValueError:
        return word
    return f"{found.group(1)}={_written(mapping)}" if found and isinstance(mapping, dict) else word


def _text(value: str) -> str:
    """Quote a text; within quotes Hydra reads a backslash as an escape only before a quote."""
    escaped = re.sub(r'(\\*)("|$)', lambda found: 2 * found[1] + ('\\"' if found[2] else ""), value)
    return f'"{escaped}"'


def _written(value: Any) -> str:
    """A JSON value in Hydra's grammar."""
    if isinstance(value, dict):
        pairs = (RESERVED.sub(r"\\\g<0>", key) + f": {_written(inner)}" for key, inner in value.items())
        return "{" + ", ".join(pairs) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_written, value)) + "]"
    return _text(value) if isinstance(value, str) else json.dumps(value)
