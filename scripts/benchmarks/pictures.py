"""The figure of the costs: time of a step and peak memory, a bar for each method and rank."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.contenders import LABELS, PEFT
from benchmarks.measured import Case, Measured, case_label
from rosa.report.figures import style
from rosa.report.figures.style import Picture
from rosa.report.looks import looks_of
from rosa.utils.formatting import MIB

COLUMNS = ("model", "method", "rank", "step_relative", "lower_quartile", "upper_quartile", "relative_to", "peak_mib")


def picture(measured: Measured, name: str) -> Picture:
    """The figure of one model, of a name; bars of peak memory are left out where it was not measured."""
    cases = list(measured.parts)
    rows = []
    for case in cases:
        reference, relative = measured.relative(case)
        peak = measured.memory[case].peak
        rows.append(
            {
                "model": measured.model,
                "method": LABELS[case[0]],
                "rank": case[1] or None,
                "step_relative": relative.median,
                "lower_quartile": relative.low,
                "upper_quartile": relative.high,
                "relative_to": case_label(reference),
                "peak_mib": None if peak is None else peak / MIB,
            }
        )
    with style.styled():
        drawing = _draw(measured, cases)
    return Picture(name, COLUMNS, tuple(rows), drawing)


def _draw(measured: Measured, cases: Sequence[Case]) -> Figure:
    with_peak = any(measured.memory[case].peak is not None for case in cases)
    figure = Figure(figsize=(style.WIDTH, 0.19 * len(cases) + 1.0))
    panels = figure.subplots(1, 2 if with_peak else 1, sharey=True, squeeze=False)[0]
    looks = dict(zip(LABELS, looks_of(["lora" if name == PEFT else name for name in LABELS]), strict=True))
    for place, case in enumerate(cases):
        color = looks[case[0]].color
        relative = measured.relative(case)[1]
        spread = [[relative.median - relative.low], [relative.high - relative.median]]
        panels[0].barh(place, relative.median, 0.7, color=color, xerr=spread, error_kw={"elinewidth": 0.8})
        peak = measured.memory[case].peak
        if peak is not None:
            panels[1].barh(place, peak / MIB, 0.7, color=color)
    panels[0].axvline(1, color="#777777", linewidth=0.8)
    panels[0].set_xlabel("time of a step, x the faster LoRA's (median, quartiles)")
    panels[0].set_yticks(range(len(cases)), [case_label(case) for case in cases])
    panels[0].invert_yaxis()
    if with_peak:
        whose = "of PyTorch on the GPU" if measured.device == "cuda" else "of the process"
        panels[1].set_xlabel(f"peak memory {whose}, MiB")
    for axes in panels:
        _tidy(axes)
    figure.suptitle(f"What a training step costs: {measured.model}", fontsize=9)
    return figure


def _tidy(axes: Axes) -> None:
    axes.grid(axis="x")
    axes.tick_params(axis="y", length=0)
