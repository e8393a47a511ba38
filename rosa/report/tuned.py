"""Whether the learning rate that tuning chose on one seed holds on the seeds of a study."""

from __future__ import annotations

from rosa import records
from rosa.report.baselines import constant
from rosa.report.comparison import Comparison, Result, Task, Trial

HELD, HELD_FROM_ZERO = 0.5, 0.75
"""Share of its score in tuning, above a constant answer's, that a learning rate must keep on every seed; the larger
one where a constant answer has no score, as a correlation of a half is then far from nothing learned."""


def tuned_score(result: Result, lr: float, task: Task) -> float | None:
    """The best score of a learning rate in the tuning of this task; None where it was not tried on it."""
    # Of all runs, as those of a rate that was asked for by hand have no grid.
    tunings = [run["tuning"] for run in result.runs if run["tuning"]]
    scores = [
        entry["score"]
        for tuning in tunings
        if tuning.get("task") == task.name
        for entry in tuning["grid"]
        if entry["lr"] == lr and entry["score"] is not None
    ]
    return (min if task.lower_is_better else max)(scores, default=None)


def holds(comparison: Comparison, task: Task, result: Result, trial: Trial) -> bool | None:
    """Whether a rate kept enough of its score in tuning on every seed; None where that was not measured.

    Of an error for which a constant answer has no score there is no share, and so None.
    """
    tuned = tuned_score(result, trial.lr, task)
    if tuned is None or not trial.scored:
        return None
    split = next(iter(trial.scored.values()))["metrics"]["selection"]["split"]
    nothing = constant(comparison, task, (split, task.metric))
    if nothing is None and task.lower_is_better:
        return None
    share, start = (HELD_FROM_ZERO, 0.0) if nothing is None else (HELD, nothing)
    sign = -1 if task.lower_is_better else 1
    gained = sign * (tuned - start)
    return gained > 0 and all(
        sign * (records.score(run, trial.rule) - start) >= share * gained for run in trial.scored.values()
    )
