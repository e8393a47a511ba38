"""Run benchmarks one after the other, and write their results."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import (
    ALL,
    NAMES,
    OF_A_MODEL,
    BenchmarkError,
    against,
    compiled,
    costs,
    decoding,
    factorization,
    full_size,
    gemm,
    layer,
    on_gpu,
    padding,
    reports,
    scaling,
    scoring,
    solvers,
    sparse,
    stages,
)
from benchmarks.findings import Findings, facts_table, long_csv
from benchmarks.texts import of_task
from benchmarks.workload import Workload, prepare
from rosa.config import Config
from rosa.records import environment
from rosa.report.tables.latex import latex
from rosa.report.tables.markdown import markdown
from rosa.run.device import resolve_device
from rosa.utils import files

DEFAULT = ("costs",)

Benchmark = Callable[[Workload, int], Findings]

BENCHMARKS: dict[str, tuple[Benchmark, int]] = {
    "costs": (costs.benchmark, costs.ROUNDS),
    "layer": (layer.benchmark, layer.ROUNDS),
    "compile": (compiled.benchmark, compiled.ROUNDS),
    "against": (against.benchmark, against.ROUNDS),
    "gpu": (on_gpu.benchmark, on_gpu.BENCHMARK_ROUNDS),
    "padding": (padding.benchmark, padding.ROUNDS),
    "factorization": (factorization.benchmark, factorization.ROUNDS),
    "solvers": (solvers.benchmark, solvers.ROUNDS),
    "stages": (stages.benchmark, stages.ROUNDS),
    "scaling": (scaling.benchmark, scaling.ROUNDS),
    "sparse": (sparse.benchmark, sparse.ROUNDS),
    "gemm": (gemm.benchmark, gemm.ROUNDS),
    "decoding": (decoding.benchmark, decoding.ROUNDS),
    "scoring": (scoring.benchmark, scoring.ROUNDS),
    "full_size": (full_size.benchmark, full_size.ROUNDS),
    "reports": (reports.benchmark, reports.ROUNDS),
}
"""The benchmarks, with their default numbers of rounds."""

ON_CPU = ("against", "stages", "scaling", "gemm", "scoring", "reports")
"""Those that measure on the CPU on any machine."""
IN_A_RUNS_PRECISION = ("costs", "padding", "factorization", "sparse")
"""Those with steps in the workload's precision; the others have precisions of their own, which their tables name."""

OBSTACLES: dict[str, Callable[[str], str]] = {
    "compile": compiled.obstacle,
    "against": against.obstacle,
    "gpu": on_gpu.obstacle,
}
"""For benchmarks that some machines cannot run: why not on a device, or an empty string."""


def run(
    config: Config,
    results: Path,
    names: Sequence[str] = (),
    repeats: int | None = None,
    e2e_dir: Path | None = None,
    asked: str = "",
) -> str:
    """Run benchmarks and write their tables as Markdown, LaTeX and CSV, and their figures.

    Each benchmark has its own files: ``tables/costs.*``, and ``tables/benchmark_NAME.*`` for the others; of a user's
    model ``_MODEL`` follows. They are written as soon as it is done, so that a later one that fails takes nothing
    with it.

    Args:
        config: from :func:`benchmarks.workload.configure`.
        results: the results folder.
        names: which of ``NAMES``, checked by :func:`benchmarks.check`; ``all`` for all that this machine can run, none
            for ``costs``.
        repeats: rounds of each benchmark; by default each benchmark's own number.
        e2e_dir: the folder of E2E's files; None for generated text.
        asked: what the user wrote after ``model=``: only this model is measured; empty for the benchmarks' own.

    Returns:
        The Markdown text.

    Raises:
        BenchmarkError: a benchmark that this machine cannot run.
        BenchmarkError, DataError: E2E's files cannot be read.
        OutputError: the folder is not writable.
    """
    tables_folder = results / "tables"
    files.refuse_unwritable(tables_folder, "--results ")
    config = resolve_device(config)
    chosen, left_out = _possible(names or DEFAULT, config.train.device, OF_A_MODEL if asked else NAMES)
    workload = prepare(config, e2e_dir, asked)
    if e2e_dir is not None and {"decoding", "scoring"} & set(chosen):
        of_task("e2e", workload, 1)
        scoring.read(e2e_dir)
    texts = []
    for name in chosen:
        benchmark, rounds = BENCHMARKS[name]
        findings = benchmark(workload, repeats or rounds)
        facts = _facts(name, workload, left_out)
        told = {key: value for group in facts.values() for key, value in group.items()}
        tables = [*findings.tables, facts_table("benchmark_facts", "What was measured, and where", told)]
        texts.append("\n".join(map(markdown, tables)))
        stem = _stem(name, config.model.name if asked else "")
        files.write(tables_folder / f"{stem}.md", texts[-1])
        files.write(tables_folder / f"{stem}.tex", "\n".join(map(latex, tables)))
        files.write(tables_folder / f"{stem}.csv", long_csv({name: findings}, facts))
        for picture in findings.pictures:
            picture.write(results / "figures")
    return "\n".join(texts)


def _possible(names: Sequence[str], device: str, known: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """The benchmarks to run in their order, and as a fact those of ``all``, which are these, that cannot run here.

    Raises:
        BenchmarkError: one that was asked for by its own name cannot.
    """
    asked = [name for name in NAMES if name in names or (ALL in names and name in known)]
    obstacles = {name: OBSTACLES[name](device) for name in asked if name in OBSTACLES}
    obstacles = {name: why for name, why in obstacles.items() if why}
    for name, why in obstacles.items():
        if name in names:
            raise BenchmarkError(why)
        print(f"left out: {why}", file=sys.stderr)
    fact = {"left out": "; ".join(obstacles.values())} if obstacles else {}
    return [name for name in asked if name not in obstacles], fact


def _stem(name: str, model: str) -> str:
    """The name of a benchmark's files."""
    of_model = f"_{model}" if model else ""
    return f"costs{of_model}" if name == "costs" else f"benchmark_{name}{of_model}"


def _facts(name: str, workload: Workload, left_out: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """What a benchmark measured, and where, in groups."""
    described = {
        key: value for key, value in workload.describe().items() if key != "precision" or name in IN_A_RUNS_PRECISION
    }
    device = "cpu" if name in ON_CPU else workload.device
    return {"workload": {**described, **left_out}, "environment": _environment(device)}


def _environment(device: str) -> dict[str, Any]:
    """The environment as a flat dictionary, without packages that no benchmark uses."""
    facts = environment.environment(device)
    used = ("torch", "scipy", "transformers", "loralib", "peft")
    known = {name: value for name, value in facts.items() if name != "packages"}
    return {**known, **{name: facts["packages"][name] for name in used}}
