"""Select the tuned learning rate from the records of a grid, in the same way for every method."""

from __future__ import annotations

import json
import logging
import math
import shlex
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from rosa.config import SAME, Config, canonical, to_dict
from rosa.errors import DivergedError, RecordError
from rosa.records.record import describe, lower_is_better, order_key, score
from rosa.records.schema import Configuration, Record, Rule, Tuning, TuningCell
from rosa.records.settings import learning_rate, resolved_settings, settings
from rosa.records.store import find, is_committed

log = logging.getLogger(__name__)


def select_lr(records: Sequence[Record], rule: Rule = "best") -> tuple[float, dict[float, tuple[float, int]]]:
    """Select the learning rate with the best score, among runs that differ only by learning rate and seed.

    The best score is the highest, or the lowest if the headline is an error.

    Returns:
        The selected learning rate, and for each its mean headline over the finished seeds and their number (NaN and 0
        if none finished). A learning rate with a diverged seed ranks below all those without one, since the mean over
        its finished seeds would be too good. A seed that failed for another reason (killed, a full disk) says nothing
        about its learning rate and is left out of the mean. The rate with most seeds is the measure of the others: each
        is compared with it over the seeds that both have, and one that shares fewer than half of its seeds is not
        selected, whatever its score. Ties go to the smaller learning rate.

    Raises:
        RecordError: the runs differ in another setting too, or none has finished.
    """
    _refuse_other_differences(records)
    return best_lr(records, rule)


def best_lr(records: Sequence[Record], rule: Rule = "best") -> tuple[float, dict[float, tuple[float, int]]]:
    """The same as :func:`select_lr`, without the check that runs differ only by learning rate and seed.

    Raises:
        RecordError: none has finished.
    """
    scores: dict[float, dict[int, list[float]]] = {}
    diverged: set[float] = set()
    for record in sorted(records, key=order_key):
        lr = learning_rate(record)
        value = score(record, rule) if record["status"] == "done" else math.nan
        reached = scores.setdefault(lr, {})
        if math.isfinite(value):
            reached.setdefault(record["identity"]["seed"], []).append(value)
        elif has_diverged(record):
            diverged.add(lr)
    grid = {lr: (_mean(found), sum(map(len, found.values()))) for lr, found in sorted(scores.items())}
    finished = [lr for lr, (_, n) in grid.items() if n]
    if not finished:
        raise RecordError(
            f"none of the {len(records)} runs has a score: {', '.join(map(describe, records)) or 'no runs'}"
        )
    sign = 1 if lower_is_better(records[0]) else -1
    left = [lr for lr in finished if lr not in diverged] or finished
    most = scores[max(left, key=lambda lr: (len(scores[lr]), -lr))]
    shared = {lr: scores[lr].keys() & most.keys() for lr in left}
    known = [lr for lr in left if 2 * len(shared[lr]) >= len(most)]

    def lead(lr: float) -> float:
        own, other = (_mean({seed: found[seed] for seed in sorted(shared[lr])}) for found in (scores[lr], most))
        return own - other

    return min(known, key=lambda lr: (sign * lead(lr), lr)), grid


def _mean(found: Mapping[int, Sequence[float]]) -> float:
    """The mean over seeds; NaN without one."""
    values = [value for own in found.values() for value in own]
    return statistics.fmean(values) if values else math.nan


def _refuse_other_differences(records: Sequence[Record]) -> None:
    first = settings(records[0]) if records else {}
    for record in records:
        own = settings(record)
        for key in sorted(own.keys() | first.keys()) if own != first else ():
            if key != "train.lr" and own.get(key) != first.get(key):
                raise RecordError(
                    "runs of one learning-rate grid differ by more than the learning rate: "
                    f"{key}={first.get(key)!r} in {describe(records[0])}, {key}={own.get(key)!r} in {describe(record)}"
                )


def has_diverged(record: Record) -> bool:
    """Whether a run ended in a loss or a score that is not finite; a run that was killed has not."""
    if record["status"] == "done":
        return not math.isfinite(score(record))
    return record["error"] is not None and record["error"]["type"] == DivergedError.__name__


def untuned(tuning: Tuning | None) -> list[str]:
    """A warning where a learning rate was chosen among fewer than two; else none.

    Any larger grid may be the one that was meant: a tuning experiment's rates are replaced and extended on the command
    line. A rate whose runs all failed without diverging was not tried.
    """
    tried = {cell["lr"] for cell in tuning["grid"] if cell["status"] != "failed"} if tuning else set()
    if tuning is None or len(tried) > 1:
        return []
    return [
        f"train.lr=tuned had no choice: {tuning['chosen']:g} is the only learning rate of {tuning['experiment']} that "
        "has a result for this method and its settings; any others of the grid have not been run, or failed"
    ]


def tuned_lr(results_dir: Path, config: Config) -> tuple[float, Tuning]:
    """The learning rate for ``train.lr=tuned``; see :meth:`Grids.tuned_lr`."""
    return Grids(results_dir).tuned_lr(config)


class Grids:
    """Learning rates for ``train.lr=tuned``, from the records of tuning experiments; each experiment is read once.

    Args:
        results_dir: the folder of ``runs/`` and ``records/``.
    """

    def __init__(self, results_dir: Path) -> None:
        self._results_dir = results_dir
        self._read: dict[str, tuple[list[Record], list[RecordError]]] = {}
        self._answers: dict[str, tuple[float, Tuning] | RecordError] = {}

    def tuned_lr(self, config: Config, command: str = "") -> tuple[float, Tuning]:
        """The best learning rate among the runs of the tuning experiment.

        The runs are those on the tuning task and seed with the same model, the same method settings and the same
        ``selection``, so a run with a holdout is tuned on holdout scores. This folder's own runs come before committed
        records. Where they are several grids, such as one of another precision, the one whose settings are nearest to
        the run's is used. A diverged run counts as the worst of the grid.

        Args:
            config: the run that is tuned.
            command: the shell command that does it, for the message.

        Returns:
            The learning rate, and the ``tuning`` entry of the run's own record.

        Raises:
            RecordError: there are no such runs, some are unfinished or unreadable, all failed, or two grids are equally
                near; the message names the command to run.
        """
        question = json.dumps([resolved_settings(cast(Configuration, to_dict(config))), vars(config.train.tuning)])
        if question not in self._answers:
            try:
                self._answers[question] = self._choose(config, command)
            except RecordError as error:
                self._answers[question] = error
        answer = self._answers[question]
        if isinstance(answer, RecordError):
            raise answer
        return answer

    def _choose(self, config: Config, command: str) -> tuple[float, Tuning]:
        tuning = config.train.tuning
        task = config.task.name if tuning.task == SAME else tuning.task
        asked, rule = resolved_settings(cast(Configuration, to_dict(config))), config.chosen_epoch
        wanted = _fixed_settings(asked)
        if tuning.experiment not in self._read:
            self._read[tuning.experiment] = find(self._results_dir, tuning.experiment, "beside")
        records, problems = self._read[tuning.experiment]
        runs = [
            record
            for record in records
            if (record["identity"]["task"], record["identity"]["seed"]) == (task, tuning.seed)
            and record["identity"]["model"] == config.model.name
            and _fixed_settings(settings(record)) == wanted
        ]
        what = (
            f"train.lr=tuned for model={config.model.name} with "
            f"{', '.join(f'{key}={value}' for key, value in sorted(wanted.items()))}"
        )
        where = f"experiment {tuning.experiment}, task {task}, seed {tuning.seed}, under {self._results_dir}"
        if problems:
            # Without them the grid may silently lack its best learning rate.
            broken = "; ".join(map(str, problems))
            raise RecordError(f"{what}: the grid has records that cannot be used: {broken}")
        if not runs:
            raise RecordError(
                f"{what}: no runs to choose from ({where}); make them with: {grid_command(config, command)}"
            )
        runs = _nearest([run for run in runs if not is_committed(run)] or runs, asked)
        unfinished = [record["command"] for record in runs if record["status"] == "running"]
        if unfinished:
            listed = "".join(f"\n  {command}" for command in sorted(unfinished))
            raise RecordError(
                f"{what}: {len(unfinished)} of {len(runs)} runs are unfinished ({where}); finish:{listed}"
            )
        try:
            chosen, _ = select_lr(runs, rule)
        except RecordError as error:
            raise RecordError(f"{what}: {error} ({where})") from error
        grid: list[TuningCell] = []
        for record in sorted(runs, key=lambda r: (learning_rate(r), order_key(r))):
            value = score(record, rule) if record["status"] == "done" else math.nan
            status = "diverged" if has_diverged(record) else record["status"]
            grid.append({"lr": learning_rate(record), "score": None if math.isnan(value) else value, "status": status})
        selected_by = next(record["metrics"]["selection"] for record in runs if record["status"] == "done")
        committed = is_committed(runs[0])
        failed = sum(cell["status"] == "failed" for cell in grid)
        log.info(
            "train.lr=tuned is %g for %s on %s: the best of %d learning rates of %s%s%s",
            chosen, config.method.name, task, len(grid), tuning.experiment,
            ", committed with the project" if committed else "",
            f"; {failed} of their runs failed without diverging and did not count" if failed else "",
        )  # fmt: skip
        return chosen, {
            "experiment": tuning.experiment,
            "task": task,
            "seed": tuning.seed,
            "split": selected_by["split"],
            "metric": selected_by["metric"],
            "rule": rule,
            "grid": grid,
            "chosen": chosen,
            "committed": committed,
        }


def grid_command(config: Config, command: str) -> str:
    """The command that makes the runs from which a run's learning rate is chosen.

    It is the run's own command with the tuning experiment's file for its own, on the task and the seed of the tuning.

    Args:
        config: the run.
        command: the shell command that does it; without one, only the settings that its configuration shows are kept.
    """
    tuning = config.train.tuning
    begin, words = ["python", "scripts/train.py"], shlex.split(command)
    words = words[len(begin) :] if words[: len(begin)] == begin else []
    other_task = ("task=",) if tuning.task != SAME else ()
    replaced = ("experiment=", "experiment_name=", "seed=", "train.lr=", "train.tuning.", "train.force=", *other_task)
    kept = [word for word in words if not word.lstrip("+").startswith(replaced)]
    given = {word.partition("=")[0] for word in kept}
    task = config.task.name if tuning.task == SAME else tuning.task
    told = {"task": task, "selection": config.selection, "results_dir": config.results_dir}
    if config.selection == Config.selection:
        del told["selection"]
    options = [word for word in kept if word.startswith("-")]
    kept = [*(word for word in kept if word not in options),
            *(f"{key}={value}" for key, value in told.items() if key not in given)]  # fmt: skip
    experiment, seed = f"experiment={tuning.experiment}", f"seed={tuning.seed}"
    return shlex.join([*begin, *options, "-m", experiment, *kept, seed])


def _nearest(runs: Sequence[Record], asked: Mapping[str, Any]) -> list[Record]:
    """The runs of the grids with the fewest settings other than ``asked``; of several grids that tie, all."""
    distances = []
    for run in runs:
        own = settings(run)
        keys = (own.keys() | asked.keys()) - {"train.lr"}
        distances.append(sum(canonical(own.get(key)) != canonical(asked.get(key)) for key in keys))
    return [run for run, distance in zip(runs, distances, strict=True) if distance == min(distances)]


def _fixed_settings(found: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that a grid's runs must share with the run that is tuned; the others may differ."""
    return {key: value for key, value in found.items() if key.startswith("method.") or key == "selection"}
