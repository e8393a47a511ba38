"""Ablation groups: rows of a comparison that differ by one setting and agree on all others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rosa.config import registry
from rosa.records import default_settings
from rosa.report import formatting
from rosa.report.comparison import Row
from rosa.report.grouping import frozen

TOGETHER = {"method.every": ("method.every", "method.unit")}
"""Keys that vary together as one setting: a resampling period is a number and its unit."""
NAMES = {"method.every": "resampling"}


@dataclass(frozen=True)
class Group:
    """Rows of one model and method that agree on everything but one setting."""

    varied: str
    """The setting's dotted key."""
    label: str
    """What distinguishes the group from others of the same setting: ``never resampled``, ``LoRA``; may be empty."""
    rows: tuple[Row, ...]
    """By value: numbers ascending; words with the default first, then alphabetically."""


def name(varied: str) -> str:
    """A setting's name on an axis: ``sampling``, ``resampling``, ``train.epochs``."""
    return NAMES.get(varied, varied.removeprefix("method."))


def value(row: Row, varied: str) -> str:
    """A row's value of a setting, as text."""
    if varied == "method.every":
        return formatting.period(row.settings["method.every"], row.settings["method.unit"])
    found = row.settings.get(varied)
    return "+".join(map(str, found)) if isinstance(found, (list, tuple)) else str(found)


def groups(rows: Sequence[Row]) -> dict[str, tuple[Group, ...]]:
    """Setting, by dotted key -> the largest groups of rows that differ by it alone.

    Largest by the number of values, for each method separately; ties are all kept, since each compares something else
    (the factorizations without resampling, and with it). Settings without such a group are left out.
    """
    found = {}
    keys = {key: None for row in rows for key in row.settings}
    shadowed = {key for first, together in TOGETHER.items() for key in together if key != first}
    for varied in keys:
        if varied in shadowed or varied == "method.name":
            continue
        kept = _largest(_agreeing(rows, varied), varied)
        if kept:
            found[varied] = tuple(
                Group(varied, label, tuple(sorted(members, key=lambda row: _order(row, varied))))
                for members, label in zip(kept, _labels(kept, varied), strict=True)
            )
    return found


def reference(rows: Sequence[Row]) -> Row | None:
    """The row from which settings are varied: that in the most groups; of a tie, that nearest its method's defaults.

    None where no two rows differ by one setting alone.
    """
    member_of = [row for found in groups(rows).values() for group in found for row in group.rows]
    return max(member_of, key=lambda row: _centrality(row, member_of), default=None)


def _centrality(row: Row, member_of: Sequence[Row]) -> tuple[Any, ...]:
    defaults = default_settings(row.method)
    unusual = sum(frozen(setting) != frozen(defaults.get(key)) for key, setting in row.settings.items())
    return sum(other is row for other in member_of), -unusual, registry.order(row.method)


def _own(row: Row, varied: str) -> Any:
    """The values of a setting's keys, hashable."""
    return frozen([row.settings.get(key) for key in TOGETHER.get(varied, (varied,))])


def _agreeing(rows: Sequence[Row], varied: str) -> list[list[Row]]:
    """Groups of rows that agree on everything but one setting."""
    together = TOGETHER.get(varied, (varied,))
    found: dict[Any, list[Row]] = {}
    for row in rows:
        rest = {key: setting for key, setting in row.settings.items() if key not in together}
        found.setdefault((row.model, row.method, frozen(rest)), []).append(row)
    return list(found.values())


def _largest(agreeing: Sequence[Sequence[Row]], varied: str) -> list[Sequence[Row]]:
    sizes = [len({_own(row, varied) for row in members}) for members in agreeing]
    most: dict[tuple[str, str], int] = {}
    for members, size in zip(agreeing, sizes, strict=True):
        place = (members[0].model, members[0].method)
        most[place] = max(size, most.get(place, 2))
    return [
        members
        for members, size in zip(agreeing, sizes, strict=True)
        if size == most[members[0].model, members[0].method]
    ]


def _labels(kept: Sequence[Sequence[Row]], varied: str) -> list[str]:
    """One label per group: its method, and the settings that differ between groups of that method."""
    several_methods = len({members[0].method for members in kept}) > 1
    labels = []
    for members in kept:
        first = members[0]
        rivals = [others[0].settings for others in kept if others[0].method == first.method]
        parts = [registry.label(first.method)] if several_methods else []
        hidden = set(TOGETHER.get(varied, (varied,))) | {"method.unit"}
        for key, setting in first.settings.items():
            if key not in hidden and len({frozen(other.get(key)) for other in rivals}) > 1:
                parts.append(_in_words(first, key, setting))
        labels.append(", ".join(parts))
    return labels


def _in_words(row: Row, key: str, setting: Any) -> str:
    if key == "method.every":
        return formatting.period(setting, row.settings["method.unit"]) if setting else "never resampled"
    return formatting.option(key.removeprefix("method."), setting)


def _order(row: Row, varied: str) -> tuple[Any, ...]:
    found = row.settings.get(varied)
    if isinstance(found, (int, float)):
        return (0, found, value(row, varied))
    default = default_settings(row.method).get(varied)
    return (1, frozen(found) != frozen(default), value(row, varied))
