"""Figure of the diagnostics in the records by adapted layer, grouped by kind of layer."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from rosa.errors import ReportError
from rosa.records import Record, Subspace, describe
from rosa.report import formatting
from rosa.report.comparison import Comparison, Task, summarise
from rosa.report.figures import style
from rosa.report.looks import Look, Selection, selections, unselected
from rosa.utils.names import MOVED

Number = TypeVar("Number", float, "float | None")

COLUMNS = (
    *("experiment", "model", "task", "panel", "row", "layer", "kind", "quantity", "subspace"),
    *("n", "seeds", "values", "mean", "lowest", "highest"),
)
LINES = {
    "effective_rank": "effective rank\nof the change",
    "visited": "singular directions\nvisited (share)",
    "factorization_ms": "one factorization\n(ms)",
}
"""Quantities with one number per layer -> axis label."""


@dataclass(frozen=True)
class Layer:
    """An adapted layer and its place on the axis."""

    name: str
    kind: str
    """The part of its name shared by the layers of other blocks: ``self.query``."""
    depth: str
    """Number of the layer's block; empty if the layer's name has none."""
    place: float
    """Position on the axis; there is a gap between kinds."""


@dataclass(frozen=True)
class Measured:
    """One quantity of one layer of a row, by seed."""

    quantity: str
    layer: str
    subspace: int | None
    """Index of the subspace from 1; None if the quantity is of the whole run."""
    values: dict[int, float]

    @property
    def mean(self) -> float:
        """Mean over the seeds that have it."""
        summary = summarise(self.values.values())
        return summary.mean if summary else math.nan


def diagnostics(comparison: Comparison) -> tuple[list[style.Picture], list[str]]:
    """One picture per task, and per varying setting if there are many rows.

    Returns:
        The pictures, and what could not be drawn: runs whose records predate the diagnostics, and rows that differ
        from no other by one setting.

    Raises:
        ReportError: a list in a record does not have one number per adapted layer.
    """
    pictures, left_out = [], []
    for task in comparison.tasks:
        runs = {
            row.label: list(row.results[task.name].selected.scored.values())
            for row in comparison.rows
            if task.name in row.results
        }
        old = sum("diagnostics" not in run for found in runs.values() for run in found)
        if old:
            left_out.append(f"{formatting.task_name(task.name)}: {old} runs without diagnostics, from an older version")
        measured = {label: list(_measure(found)) for label, found in runs.items()}
        rows = [row for row in comparison.rows if measured.get(row.label)]
        chosen = selections(rows)
        left_out += [
            f"{formatting.task_name(task.name)}: {label} differs from no other row by one setting alone"
            for label in unselected(rows, chosen)
        ]
        for selection in chosen if rows else ():
            pictures.append(_picture(comparison, task, selection, measured))
    if not pictures and not left_out:
        left_out.append("no finished run has diagnostics")
    return pictures, left_out


def _measure(runs: Sequence[Record]) -> Iterator[Measured]:
    """All measurements of a row's runs, by layer in the model's order."""
    found: dict[tuple[str, str, int | None], dict[int, float]] = {}
    for run in runs:
        for quantity, layer, subspace, number in _numbers(run):
            found.setdefault((quantity, layer, subspace), {})[run["identity"]["seed"]] = number
    for (quantity, layer, subspace), values in found.items():
        yield Measured(quantity, layer, subspace, dict(sorted(values.items())))


def _numbers(run: Record) -> Iterator[tuple[str, str, int | None, float]]:
    found = run.get("diagnostics", {})
    changes = found.get("layers", [])
    if not changes:
        return
    for change in changes:
        if change["effective_rank"] is not None:
            yield "effective_rank", change["name"], None, float(change["effective_rank"])
        if change["visited"] is not None:
            yield "visited", change["name"], None, float(change["visited"])
    names = [layer["name"] for layer in run["adapted"]]
    timed = [(end, end["factorization_seconds"]) for end in run["resamples"] if "factorization_seconds" in end]
    seconds = [_by_layer(run, end, "factorization_seconds", numbers, names) for end, numbers in timed]
    ends: list[Subspace] = [*run["resamples"], *([found["last_subspace"]] if "last_subspace" in found else [])]
    for name in names if seconds else ():
        yield "factorization_ms", name, None, 1000 * sum(one[name] for one in seconds) / len(seconds)
    for number, end in enumerate(ends, 1):
        if MOVED in end:
            for name, norm in _by_layer(run, end, MOVED, end[MOVED], names).items():
                if norm is not None:
                    yield MOVED, name, number, float(norm)


def _by_layer(
    run: Record, end: Subspace, key: str, numbers: Sequence[Number], names: Sequence[str]
) -> dict[str, Number]:
    if len(numbers) != len(names):
        raise ReportError(
            f"{describe(run)}: {key} at step {end['step']} has {len(numbers)} numbers, "
            f"expected one for each of the {len(names)} adapted layers"
        )
    return dict(zip(names, numbers, strict=True))


def arrange(names: Iterable[str]) -> list[Layer]:
    """Layers grouped by kind in order of first occurrence, and within a kind in the model's order.

    A kind is the layer's name without its first number (the block's) and without the parts that all kinds share.
    """
    split = {name: _without_number(name) for name in names}
    kinds = list(dict.fromkeys(words for words, _ in split.values()))
    shared = 0
    while len(kinds) > 1 and len({words[: shared + 1] for words in kinds}) == 1:
        shared += 1
    layers, place = [], 0.0
    for words in kinds:
        shown = ".".join(words[shared:] if len(kinds) > 1 else words[-1:])
        for name, (own, depth) in split.items():
            if own == words:
                layers.append(Layer(name, shown, depth, place))
                place += 1
        place += 1
    return layers


def _without_number(name: str) -> tuple[tuple[str, ...], str]:
    words = name.split(".")
    number = next((i for i, word in enumerate(words) if word.isdigit()), None)
    if number is None:
        return tuple(words), ""
    return (*words[:number], *words[number + 1 :]), words[number]


# --- one picture -----------------------------------------------------------------------------------------------------


def _picture(
    comparison: Comparison, task: Task, selection: Selection, measured: Mapping[str, Sequence[Measured]]
) -> style.Picture:
    own = {row.label: measured[row.label] for row in selection.rows}
    layers = arrange(dict.fromkeys(one.layer for found in own.values() for one in found))
    rows = tuple(_lines(comparison, task, selection, layers, own))
    with style.styled():
        drawing = _draw(comparison, task, selection, layers, own)
    slug = "-".join("".join(c if c.isalnum() or c == "_" else " " for c in selection.title).split())
    parts = ["diagnostics", task.name, *([slug] if slug else [])]
    return style.Picture(style.file_name(comparison, *parts), COLUMNS, rows, drawing)


def _lines(
    comparison: Comparison,
    task: Task,
    selection: Selection,
    layers: Sequence[Layer],
    measured: Mapping[str, Sequence[Measured]],
) -> Iterator[dict[str, Any]]:
    kinds = {layer.name: layer.kind for layer in layers}
    for row in selection.rows:
        for one in measured[row.label]:
            yield {
                "experiment": comparison.experiment,
                "model": row.model,
                "task": task.name,
                "panel": selection.title,
                "row": row.label,
                "layer": one.layer,
                "kind": kinds[one.layer],
                "quantity": one.quantity,
                "subspace": one.subspace,
                "n": len(one.values),
                "seeds": " ".join(map(str, one.values)),
                "values": " ".join(map(str, one.values.values())),
                "mean": one.mean,
                "lowest": min(one.values.values()),
                "highest": max(one.values.values()),
            }


def _draw(
    comparison: Comparison,
    task: Task,
    selection: Selection,
    layers: Sequence[Layer],
    measured: Mapping[str, Sequence[Measured]],
) -> Figure:
    quantities = [q for q in LINES if any(one.quantity == q for found in measured.values() for one in found)]
    named = list(zip(selection.labels, selection.rows, strict=True))
    maps = {label: _map(layers, measured[row.label]) for label, row in named}
    maps = {label: norms for label, norms in maps.items() if norms.size}
    heights = [1.3] * len(quantities) + [min(0.35 + 0.16 * len(norms), 1.6) for norms in maps.values()]
    figure = Figure(figsize=(style.WIDTH, sum(heights) + 0.3 * len(heights) + 1.2))
    axes_by_line = figure.subplots(len(heights), 1, sharex=True, squeeze=False, gridspec_kw={"height_ratios": heights})
    panels = list(axes_by_line[:, 0])
    for axes, quantity in zip(panels, quantities, strict=False):
        for (label, row), look in zip(named, selection.looks, strict=True):
            values = {one.layer: one for one in measured[row.label] if one.quantity == quantity}
            _line(axes, layers, values, look, label)
        axes.set_ylabel(LINES[quantity])
        axes.set_ylim(bottom=0)
        axes.grid(axis="y")
    _heat(figure, panels[len(quantities) :], maps)
    for axes in panels:
        for end in _ends(layers)[:-1]:
            axes.axvline(end + 1, color="#bbbbbb", linewidth=0.5)
    _layer_axis(panels[-1], layers)
    style.legend_below(figure, panels, selection.title)
    figure.suptitle(style.wrapped(_caption(comparison, task, selection), style.WIDTH), x=0.01, ha="left", fontsize=8)
    return figure


def _caption(comparison: Comparison, task: Task, selection: Selection) -> str:
    spread = ": mean, and whiskers from the lowest to the highest" if len(task.seeds) > 1 else ""
    others = style.other_seeds(selection.rows, [task])
    return f"{style.heading(comparison)}, {formatting.task_name(task.name)}; {style.seeds([task])}{spread}.{others}"


def _line(axes: Axes, layers: Sequence[Layer], values: Mapping[str, Measured], look: Look, label: str) -> None:
    if not values:
        return
    places: list[float] = []
    means: list[float] = []
    for layer in layers:
        if places and layer.place > places[-1] + 1:  # another kind: the line breaks
            places.append(layer.place - 1)
            means.append(math.nan)
        one = values.get(layer.name)
        places.append(layer.place)
        means.append(one.mean if one else math.nan)
        if one and len(one.values) > 1:
            found = one.values.values()
            axes.plot([layer.place] * 2, [min(found), max(found)], color=look.color, linewidth=0.6)
    axes.plot(places, means, color=look.color, marker=look.marker, linestyle=look.line, label=label)


def _map(layers: Sequence[Layer], measured: Sequence[Measured]) -> np.ndarray:
    """(subspaces, places): mean norm of the change; NaN if not measured."""
    found = [one for one in measured if one.quantity == MOVED]
    norms = np.full((max((one.subspace or 0 for one in found), default=0), int(layers[-1].place) + 1), math.nan)
    place = {layer.name: int(layer.place) for layer in layers}
    for one in found:
        norms[(one.subspace or 0) - 1, place[one.layer]] = one.mean
    return norms


def _heat(figure: Figure, panels: Sequence[Axes], maps: Mapping[str, np.ndarray]) -> None:
    if not maps:
        return
    highest = max(float(np.nanmax(norms)) for norms in maps.values())
    for axes, (label, norms) in zip(panels, maps.items(), strict=True):
        edges = np.arange(norms.shape[1] + 1) - 0.5
        mesh = axes.pcolormesh(
            edges, np.arange(len(norms) + 1) + 0.5, norms, cmap="viridis", norm=Normalize(0, highest or 1)
        )
        axes.set_title(label, loc="left", fontsize=8)
        axes.set_ylabel("subspace")
        axes.set_ylim(len(norms) + 0.5, 0.5)
        axes.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=4, min_n_ticks=1))
    figure.colorbar(mesh, ax=list(panels), label="norm moved of A B\n(Frobenius)", fraction=0.05, pad=0.02)


def _ends(layers: Sequence[Layer]) -> list[float]:
    """The last place of each kind."""
    return [
        max(layer.place for layer in layers if layer.kind == kind) for kind in dict.fromkeys(_.kind for _ in layers)
    ]


def _layer_axis(axes: Axes, layers: Sequence[Layer]) -> None:
    """Label the axis: block numbers at the ticks, kinds below."""
    kinds: dict[str, list[Layer]] = {}
    for layer in layers:
        kinds.setdefault(layer.kind, []).append(layer)
    step = max(1, math.ceil(len(layers) / 24))
    shown = [layer for members in kinds.values() for layer in members[::step]]
    axes.set_xticks([layer.place for layer in shown], [layer.depth for layer in shown])
    axes.set_xlim(-0.7, layers[-1].place + 0.7)
    for kind, members in kinds.items():
        centre = (members[0].place + members[-1].place) / 2
        axes.annotate(
            kind, (centre, 0), xycoords=("data", "axes fraction"), xytext=(0, -16), textcoords="offset points",
            ha="center", va="top",
        )  # fmt: skip
    axes.set_xlabel("layer, by kind", labelpad=16)
