"""What was run and what was cut: the studies with their hours, and one run to repeat."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rosa.records import Record, by_split, settings
from rosa.report import formatting
from rosa.report.claims.ablations import FACTORIZATIONS, arm
from rosa.report.claims.ranks import PLANNED as PLANNED_RANKS
from rosa.report.claims.section import Section, listed
from rosa.report.claims.verdicts import FULL, IA3, LORA, NEVER, RANK, ROBUST, ROSA, SPARSE, Settings
from rosa.report.tables.table import Cell, Table, text


@dataclass(frozen=True)
class Study:
    """One study: its experiment, and what was planned for it."""

    experiment: str
    files: tuple[str, ...]
    """Names of its YAML files, each the experiment of a command."""
    tasks: tuple[str, ...]
    planned: Mapping[str, Settings]
    """Words -> settings of rows that were planned, of which at least one has to have a score."""


STUDIES = (
    Study(
        "evidence_glue",
        ("evidence_glue",),
        ("sst2", "mrpc", "cola", "rte", "stsb"),
        {"full": FULL, "LoRA": LORA, "(IA)3": IA3, "ROSA": ROSA, "never": NEVER, "RoSA": ROBUST, "sparse": SPARSE},
    ),
    Study(
        "e2e_real", ("e2e_real",), ("e2e",), {"full": FULL, "LoRA": LORA, "(IA)3": IA3, "ROSA": ROSA, "RoSA": ROBUST}
    ),
    Study(
        "evidence_e2e",
        ("evidence_e2e",),
        ("e2e",),
        {
            "full": FULL,
            "LoRA": LORA,
            "(IA)3": IA3,
            "ROSA": ROSA,
            "RoSA": ROBUST,
            "rank 2": {RANK: 2},
        },
    ),
    Study(
        "evidence_ablation",
        ("evidence_ablation_sampling", "evidence_ablation_initialisation", "evidence_ablation_state"),
        ("cola", "mrpc"),
        {
            **{f"{kind} triplets": arm(sampling=kind) for kind in ("random", "top", "bottom", "window")},
            **{kind: arm(factorization=kind) for kind in FACTORIZATIONS},
            **{f"{kind} never resampled": arm(factorization=kind, every=0) for kind in FACTORIZATIONS},
            "state kept": arm(optimizer_state="keep"),
        },
    ),
    Study(
        "evidence_rank",
        ("evidence_rank",),
        ("cola", "stsb"),
        {
            **{f"rank {rank}": {RANK: rank} for rank in PLANNED_RANKS},
            **{
                words: {"method.name": "rosa", "method.every": every}
                for words, every in (("every second epoch", 2), ("each epoch", 1), ("never", 0))
            },
        },
    ),
)
REPEATED = Study("rank_frequency", ("rank_frequency",), ("cola",), {"": ROSA})
"""The row one of whose cells the page repeats: its runs are short, and in fp32, as those in bf16 differ between
versions of the code and kinds of CPU."""
DECAYED = ("5b8509b", "d19f8aa", "8aad458", "ef1005c")
"""Commits at which weight decay still pulled (IA)3's vectors from 1 towards 0."""


def section(found: Sequence[Record]) -> Section:
    """What the studies have of what was planned, what they took, and how to repeat a run."""
    return Section(
        "What was run, and what was cut",
        (
            "A study is run by `python scripts/train.py -m experiment=NAME data.dir=DIR`, with each NAME that the "
            "table gives it; each file in `experiments/` says how its learning rates were tuned before, and "
            "`python scripts/plan.py experiment=NAME data.dir=DIR` what it would take on a GPU. All was cut to the "
            f"time there was. {where_run(found)}",
            studies_table(found),
            *_decayed(found),
            *repeated(found),
        ),
    )


def where_run(found: Sequence[Record]) -> str:
    """How many of the studies' runs were on GPUs and how many on CPUs, and for how long."""
    own: dict[str, list[Record]] = {"on GPUs": [], "on CPUs": [], "on machines that were not recorded": []}
    on_gpus, on_cpus, unknown = own
    for run in (run for study in STUDIES for some in _runs(study, found) for run in some):
        device = run["environment"].get("device")
        own[on_cpus if device == "cpu" else on_gpus if device else unknown].append(run)
    told = listed(f"{len(runs)} were {where} ({_hours(runs):.1f} hours)" for where, runs in own.items() if runs)
    if not told:
        return "None of the studies has a run."
    runs = sum(map(len, own.values()))
    return (
        f"Of the {runs} runs, tuning included, {told}; many ran beside others, and took longer than they would alone."
    )


def studies_table(found: Sequence[Record]) -> Table:
    """One line per study: runs and hours of tuning and of the study, machines, and what was planned and not run."""
    rows = []
    for study in STUDIES:
        runs, grid = _runs(study, found)
        counts, took = f"{len(runs)} + {len(grid)}", " + ".join(f"{_hours(some):.1f}" for some in (runs, grid))
        on = listed(f"{machine} ({count})" for machine, count in sorted(Counter(map(_machine, runs)).items()))
        cells = (study.experiment, listed(study.files), counts, took, on or formatting.MISSING, _cut(study, runs))
        rows.append(tuple(map(Cell, cells)))
    note = text(
        "Runs and hours (of all runs together): of the study + of its tuning. On: the GPU or, for runs without one, "
        "the CPU, with how many of the study's runs were on it. Not run: the planned tasks without a run, and the "
        "planned rows without one on any task."
    )
    header = ("Study", "NAME", "Runs", "Hours", "On", "Not run")
    return Table("claims-studies", "The studies", header, tuple(rows), (note,))


def _runs(study: Study, found: Sequence[Record]) -> tuple[list[Record], list[Record]]:
    """The runs of a study, and those that tuned its learning rates."""
    own, grid = (
        [run for run in found if run["identity"]["experiment"] == name]
        for name in (study.experiment, f"{study.experiment}_tune")
    )
    return own, grid


def _hours(runs: Sequence[Record]) -> float:
    """What runs took together."""
    return float(sum(run["costs"].get("seconds_total", 0.0) for run in runs)) / 3600


def _machine(run: Record) -> str:
    device = run["environment"].get("device")
    return str((run["environment"].get("cpu") if device == "cpu" else device) or "not recorded")


def _cut(study: Study, runs: Sequence[Record]) -> str:
    """The planned tasks and rows that have no finished run, and the rows that have none on some task only."""
    done = [run for run in runs if run["status"] == "done"]
    tasks = [task for task in study.tasks if any(run["identity"]["task"] == task for run in done)]
    named = {task: formatting.task_name(task) for task in study.tasks}
    missing = [named[task] for task in study.tasks if task not in tasks]
    partly: dict[str, list[str]] = {}
    for words, wanted in study.planned.items():
        where = {run["identity"]["task"] for run in done if _has(run, wanted)}
        if not where:
            missing.append(words)
        for task in tasks if where else ():
            if task not in where:
                partly.setdefault(words, []).append(named[task])
    return listed([*missing, *(f"{words} on {' and '.join(on)}" for words, on in partly.items())]) or "nothing"


def _has(run: Record, wanted: Settings) -> bool:
    own = settings(run)
    return all(own.get(key) == value for key, value in wanted.items())


def _decayed(found: Sequence[Record]) -> list[str]:
    """Where (IA)3 was trained, or only tuned, with a weight decay that it no longer has."""
    trained: dict[str, list[str]] = {}
    for study in STUDIES:
        for name in (study.experiment, f"{study.experiment}_tune"):
            tasks = {
                run["identity"]["task"]
                for run in found
                if run["identity"]["experiment"] == name
                and run["identity"]["method"] == "ia3"
                and str(run["environment"].get("commit")).startswith(DECAYED)
            }
            if tasks:
                trained[name] = [formatting.task_name(task) for task in formatting.task_order(tasks)]
    if not trained:
        return []
    where = "; ".join(f"`{name}` ({listed(tasks)})" for name, tasks in trained.items())
    return [
        f"(IA)3 was trained with a weight decay that it no longer has, which pulled its factors towards 0, in: {where}."
    ]


def repeated(found: Sequence[Record]) -> list[str]:
    """The command of one short run, and the committed scores that it prints again; nothing without the run."""
    (wanted,) = REPEATED.planned.values()
    runs = [
        run
        for run in found
        if run["identity"]["experiment"] == REPEATED.experiment
        and run["identity"]["task"] in REPEATED.tasks
        and run["status"] == "done"
        and _has(run, wanted)
    ]
    if not runs:
        return []
    run = min(runs, key=lambda one: one["identity"]["seed"])
    task = run["config"]["task"]
    score = by_split(run["metrics"]["best"])[task["evaluation"][0]][task["headline"]] or 0.0
    attention = run["model"].get("attention")
    words = [word for word in run["command"].split() if not word.startswith("jobs=")]
    command = " ".join([*words, *([f"model.attention={attention}"] if attention else [])])
    minutes = 60 * _hours([run])
    threads = run["environment"].get("threads")
    on = _machine(run) + (f", {threads} thread{'' if threads == 1 else 's'}" if threads else "")
    return [
        f"**One cell again.** `{command}` took {minutes:.1f} minutes ({on}), and its record "
        f"has a {formatting.METRIC_NAMES[task['headline']]} of {score!r} on {task['evaluation'][0]}."
    ]
