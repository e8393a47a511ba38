"""Style, layout and output shared by all figures; lines are distinguishable in greyscale too."""

from __future__ import annotations

import csv
import io
import textwrap
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backend_bases import get_registered_canvas_class
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from rosa.errors import OutputError
from rosa.report import formatting
from rosa.report.comparison import Comparison, Row, Task
from rosa.utils import files

STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",  # ships with matplotlib, so that a figure is the same everywhere
    "font.size": 8,
    "axes.titlesize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.5,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "lines.linewidth": 1.2,
    "lines.markersize": 4,
    "figure.constrained_layout.use": True,
    "text.parse_math": False,  # a dollar sign in a name is a dollar sign
    "svg.fonttype": "none",  # text stays text: searchable, and accessible to screen readers
    "svg.hashsalt": "rosa",  # element ids that do not change from run to run
    "savefig.dpi": 200,
}
WIDTH = 7.0
"""Width of a figure in inches, that of a page's text."""
CHARACTER = 0.066
"""Mean width of a character in the small font, in inches."""
METADATA: dict[str, dict[str, None]] = {
    "svg": {"Date": None}, "png": {"Software": None}, "pdf": {"CreationDate": None}
}  # fmt: skip
"""Image format -> metadata to omit, because it changes from day to day or between versions."""
CONTROL = bytes(set(range(32)) - set(b"\t\n\r"))
"""Control characters that XML does not allow, even escaped."""
NUMBER = "n\N{NO-BREAK SPACE}=\N{NO-BREAK SPACE}{}"
"""How many seeds, on one line."""
BESIDE = 1.5
"""Width in inches of the text of a legend beside panels."""


def styled() -> AbstractContextManager[None]:
    """Context with the matplotlib settings of these figures, needed to draw and to save; restores the old settings."""
    return matplotlib.rc_context(STYLE)


@dataclass(frozen=True)
class Picture:
    """A figure and the numbers that it shows."""

    name: str
    """Path under the figures' folder, without extension."""
    columns: tuple[str, ...]
    rows: tuple[Mapping[str, Any], ...]
    """Rows of the CSV file; a missing value is empty."""
    drawing: Figure

    def table(self) -> bytes:
        """The numbers, as csv."""
        text = io.StringIO()
        writer = csv.DictWriter(text, self.columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        return text.getvalue().encode()

    def image(self, ending: str) -> bytes:
        """The drawing in a format of ``METADATA``; the same records give the same bytes."""
        buffer = io.BytesIO()
        with styled():
            # Lay out once only: repeated layout moves elements slightly, and the bytes would differ.
            engine = self.drawing.get_layout_engine()
            if engine is not None:
                engine.execute(self.drawing)
                self.drawing.set_layout_engine("none")
            self.drawing.set_dpi(STYLE["savefig.dpi"])
            # Figure.savefig would draw everything once more before, for a layout.
            canvas = get_registered_canvas_class(ending)(self.drawing)
            getattr(canvas, f"print_{ending}")(buffer, metadata=METADATA[ending])
        return buffer.getvalue().translate(None, CONTROL if ending == "svg" else b"")

    def write(self, folder: Path, formats: Sequence[str] = ("svg",)) -> list[Path]:
        """Write the numbers, and the drawing in each format; creates the folder.

        Raises:
            OutputError: a file cannot be written, or the name, which is made of records, leads out of the folder.
        """
        if ".." in Path(self.name).parts or not (folder / self.name).is_relative_to(folder):
            raise OutputError(f"{self.name!r}: a picture of this name would lie outside {folder}")
        paths = []
        for ending, content in (("csv", self.table()), *((one, self.image(one)) for one in formats)):
            path = folder / f"{self.name}.{ending}"
            files.write(path, content)
            paths.append(path)
        return paths


def file_name(comparison: Comparison, *parts: str) -> str:
    """``EXPERIMENT/MODEL-part-part``; a hub name's slash would add a folder."""
    model = comparison.rows[0].model.replace("/", "--")
    return f"{comparison.experiment}/{'-'.join((model, *parts))}"


def heading(comparison: Comparison) -> str:
    """Experiment and model, with a remark if the data are generated."""
    mini = any(run["config"]["data"].get("source") == "mini" for run in comparison.runs)
    return f"{comparison.experiment}, {comparison.rows[0].model}" + (", mini scale (generated data)" if mini else "")


def seeds(tasks: Sequence[Task]) -> str:
    """``seeds 0, 1, 2 (n = 3)``; per task if they differ."""
    by_seeds: dict[tuple[int, ...], list[str]] = {}
    for task in tasks:
        by_seeds.setdefault(task.seeds, []).append(formatting.task_name(task.name))
    parts = []
    for found, names in by_seeds.items():
        where = f" for {', '.join(names)}" if len(by_seeds) > 1 else ""
        parts.append(f"{', '.join(map(str, found))} ({NUMBER.format(len(found))}){where}")
    one = all(len(found) == 1 for found in by_seeds)
    return f"seed{'' if one else 's'} {'; '.join(parts)}"


def other_seeds(rows: Sequence[Row], tasks: Sequence[Task]) -> str:
    """A sentence that names the rows whose scores are of other seeds than a task's; empty if none is."""
    shown = {row.label: row for row in rows}.values()
    return told_seeds((row.label, task, row.scores(task)) for row in shown for task in tasks)


def told_seeds(found: Iterable[tuple[str, Task, Collection[int]]]) -> str:
    """The same sentence of given seeds: a row's label, a task, and the seeds that are drawn."""
    parts = [
        f"{label} on {formatting.task_name(task.name)} ({NUMBER.format(len(own))})"
        for label, task, own in found
        if set(own) != set(task.seeds)
    ]
    return f" Other seeds: {'; '.join(parts)}." if parts else ""


def wrapped(text: str, inches: float) -> str:
    """Wrap a text in the small font to lines of about ``inches``, or of one word each where there is no room."""
    return textwrap.fill(text, max(1, int(inches / CHARACTER)), break_long_words=False, break_on_hyphens=False)


def legend_beside(panels: Sequence[Axes], title: str) -> None:
    """Add one legend to the right of a row of panels."""
    handles = _handles(panels)
    labels = [wrapped(label, BESIDE) for label in handles]
    panels[-1].legend(
        handles.values(), labels, loc="center left", bbox_to_anchor=(1.0, 0.5), title=wrapped(title, BESIDE),
        alignment="left",
    )  # fmt: skip


def legend_below(figure: Figure, panels: Sequence[Axes], title: str) -> None:
    """Add one legend at the bottom of a figure, in as many columns as fit."""
    handles = _handles(panels)
    longest = max(map(len, handles), default=0) * CHARACTER + 0.6
    columns = max(1, min(len(handles), int(WIDTH / longest)))
    figure.legend(handles.values(), handles.keys(), loc="outside lower left", ncols=columns, title=title,
                  alignment="left")  # fmt: skip


def few_ticks(axis: Axis, count: int = 4, whole: bool = False) -> None:
    """Put ``count`` ticks or fewer on a linear axis, however long it is, so that its labels do not depend on that.

    Args:
        axis: the axis.
        count: the number.
        whole: only at whole numbers.
    """
    axis.set_major_locator(MaxNLocator(nbins=count, integer=whole, steps=[1, 2, 2.5, 5, 10], min_n_ticks=2))


def _handles(panels: Sequence[Axes]) -> dict[str, Artist]:
    """Label -> legend handle, over all panels."""
    found: dict[str, Artist] = {}
    for axes in panels:
        handles, labels = axes.get_legend_handles_labels()
        found.update(zip(labels, handles, strict=True))
    return found
