"""The looks of a figure's series, and which rows stand in one panel; needs no drawing library."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from rosa.config import registry
from rosa.report.ablations import groups, name, value
from rosa.report.comparison import Row
from rosa.report.significance import lora_of


@dataclass(frozen=True)
class Look:
    """Colour, marker and line style of one series."""

    color: str
    marker: str
    line: str


RANK = "method.rank"
LINES = ("-", "--", "-.", ":")
SHADES = (0.0, -0.5, 0.45, -0.75, 0.7)
"""Shades of a method's colour for further series of it: towards black below 0, towards white above."""
MOST = len(registry.MARKERS)
"""Maximum number of series of a panel, each with its own marker."""


@dataclass(frozen=True)
class Selection:
    """Rows of one panel, at most :data:`MOST`."""

    title: str
    """The setting that varies; empty if the selection has all rows."""
    rows: tuple[Row, ...]
    labels: tuple[str, ...]
    """Label of each row: its own, or its value of the setting."""

    @property
    def looks(self) -> list[Look]:
        """Look of each row."""
        return looks_of([row.method for row in self.rows])


def selections(rows: Sequence[Row]) -> list[Selection]:
    """All rows in one selection; if there are more than :data:`MOST`, one per rank, or per group that varies a setting.

    One per rank where several methods have the same ranks, so that they are compared in one panel. Otherwise each group
    is joined by the LoRA rows that it is compared with and by the rows in no group, such as full fine-tuning, if it has
    looks left for them.
    """
    if len(rows) <= MOST:
        return [Selection("", tuple(rows), tuple(row.label for row in rows))]
    by_rank = _by_rank(rows)
    if by_rank:
        return by_rank
    found = groups(rows)
    grouped = {row.label for members in found.values() for group in members for row in group.rows}
    alone = [row for row in rows if row.label not in grouped]
    chosen = []
    for varied, members in found.items():
        for group in members:
            title = f"{name(varied)} ({group.label})" if group.label else name(varied)
            partners = {id(other): other for row in group.rows if (other := lora_of(row, rows)) is not None}
            joining = next(
                (more for more in ([*partners.values(), *alone], [*partners.values()], alone)
                 if len(group.rows) + len(more) <= MOST), [],
            )  # fmt: skip
            labels = [*(value(row, varied) for row in group.rows), *(row.label for row in joining)]
            chosen.append(Selection(title, (*group.rows, *joining), tuple(labels)))
    return chosen


def _by_rank(rows: Sequence[Row]) -> list[Selection]:
    """One selection per rank, with the rows of that rank and those without; empty if it compares no methods."""
    ranks = {row.settings[RANK] for row in rows if RANK in row.settings}
    if not all(isinstance(rank, (int, float)) for rank in ranks):
        return []
    of_rank = {rank: [row for row in rows if row.settings.get(RANK, rank) == rank] for rank in sorted(ranks)}
    methods = [{row.method for row in members if RANK in row.settings} for members in of_rank.values()]
    if len(of_rank) < 2 or max(map(len, of_rank.values())) > MOST or any(len(own) < 2 for own in methods):
        return []
    return [
        Selection(f"rank {rank}", tuple(members), tuple(row.label.replace(f" r={rank}", "", 1) for row in members))
        for rank, members in of_rank.items()
    ]


def unselected(rows: Sequence[Row], chosen: Sequence[Selection]) -> list[str]:
    """Labels of the rows that are in no selection."""
    shown = {row.label for selection in chosen for row in selection.rows}
    return [row.label for row in rows if row.label not in shown]


def looks_of(methods: Sequence[str]) -> list[Look]:
    """The looks of a panel's series, given the method of each.

    A method has the colour and marker of :mod:`rosa.config.registry` in every figure, and a solid line. Further series
    of the same method have shades of its colour, other lines, and markers that no other series of the panel has.
    """
    own = [registry.look(method).marker for method in methods]
    taken = {registry.look(method.name).marker for method in registry.OWN}
    free = sorted((marker for marker in registry.MARKERS if marker not in own), key=lambda marker: marker in taken)
    used: set[str] = set()
    count: Counter[str] = Counter()
    found = []
    for method, marker in zip(methods, own, strict=True):
        if marker in used and free:
            marker = free.pop(0)
        used.add(marker)
        nth = count[method]
        count[method] += 1
        color = shaded(registry.look(method).color, SHADES[nth % len(SHADES)])
        found.append(Look(color, marker, LINES[nth % len(LINES)]))
    return found


def shaded(color: str, shade: float) -> str:
    """Mix a colour ``#rrggbb`` with black (``shade`` from -1 to 0) or white (0 to 1); 0 is the colour itself."""
    end = 255 if shade > 0 else 0
    channels = (int(color[place : place + 2], 16) for place in (1, 3, 5))
    return "#" + "".join(f"{round(channel + abs(shade) * (end - channel)):02x}" for channel in channels)
