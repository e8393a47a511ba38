"""Layout of a figure that is one grid of panels: a caption above, a legend below or beside, no label cut."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure
from matplotlib.layout_engine import LayoutEngine

PAD = 0.06
"""Space at the figure's edge and around its parts, in inches."""
GAP = 0.1
"""Space between what belongs to two panels, in inches."""


class Grid(LayoutEngine):
    """Panels of given heights, as wide as their labels leave them; the figure becomes as high as all parts need.

    Everything is measured once, where matplotlib's constrained layout, which takes most of a figure's time, measures
    twice and keeps the figure's height, at the cost of panels and legends. So the labels must not depend on the panels'
    size: each axis has a locator with a fixed number of ticks (:func:`rosa.report.figures.style.few_ticks`).

    Args:
        heights: of the panels of each row, in inches.
    """

    _adjust_compatible = False
    _colorbar_gridspec = False

    def __init__(self, heights: Sequence[float]) -> None:
        super().__init__()
        self.heights = list(heights)

    def execute(self, fig: Figure) -> None:
        """Place the panels, the caption and the legend, and set the figure's height."""
        # Room of each column and row around its panels: left, right, above, below.
        columns = max(axes.get_subplotspec().get_geometry()[1] for axes in fig.axes)  # type: ignore[union-attr]
        sides = [[0.0, 0.0] for _ in range(columns)]
        ends = [[0.0, 0.0] for _ in self.heights]
        places = []
        for axes in fig.axes:
            spec = axes.get_subplotspec()
            assert spec is not None
            row, column = spec.rowspan.start, spec.colspan.start
            places.append((axes, row, column))
            if axes.get_visible():
                inner, outer = axes.get_window_extent(), axes.get_tightbbox(for_layout_only=True)
                assert outer is not None
                around = (inner.x0 - outer.x0, outer.x1 - inner.x1, outer.y1 - inner.y1, inner.y0 - outer.y0)
                left, right, above, below = (max(0.0, pixels / fig.dpi) for pixels in around)
                sides[column] = [max(sides[column][0], left), max(sides[column][1], right)]
                ends[row] = [max(ends[row][0], above), max(ends[row][1], below)]
        total = fig.get_figwidth()
        width = (total - 2 * PAD - sum(map(sum, sides)) - GAP * (columns - 1)) / columns
        legend = sum(one.get_window_extent().height for one in fig.legends) / fig.dpi
        # Title of the figure, of which matplotlib has no public name but this.
        caption = next((text for text in fig.texts if text.get_text() == fig.get_suptitle()), None)
        above = caption.get_window_extent().height / fig.dpi + 2 * PAD if caption else PAD
        rows = sum(self.heights) + sum(map(sum, ends)) + GAP * (len(ends) - 1)
        whole = above + rows + (legend + 2 * PAD if legend else 0) + PAD
        fig.set_figheight(whole)
        if caption:
            caption.set_position((caption.get_position()[0], 1 - PAD / whole))
            caption.set_verticalalignment("top")
        for axes, row, column in places:
            x = PAD + sum(map(sum, sides[:column])) + sides[column][0] + column * (width + GAP)
            top = above + sum(map(sum, ends[:row])) + ends[row][0] + sum(self.heights[:row]) + row * GAP
            height = self.heights[row]
            axes.set_position((x / total, 1 - (top + height) / whole, width / total, height / whole))
