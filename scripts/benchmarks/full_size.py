"""Measure time and peak memory of each stage of a ROSA run on a full-size GPT-2 with random weights."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

import torch
from tqdm import tqdm
from transformers import GPT2Config, GPT2LMHeadModel

from benchmarks.contenders import LEARNING_RATE, RANK
from benchmarks.findings import Findings, Measurement, note, number, row, with_quartiles
from benchmarks.timing import seconds, spread
from benchmarks.workload import Workload
from rosa.adapters import attach, merge, resample
from rosa.config import DecodingConfig, RosaConfig
from rosa.evaluation.generation.decode import continue_prompts
from rosa.report.tables.table import Table
from rosa.training import costs
from rosa.utils.formatting import MIB

ROUNDS = 1
"""One round, without warm-up: in a run, too, the first call of a stage is the one that counts."""
EXAMPLES, TOKENS = 8, 64
PROMPTS, NEW_TOKENS = 4, 8


@dataclass(frozen=True)
class Stage:
    """Time and peak memory of one stage."""

    name: str
    seconds: float
    peak: int | None
    """Peak memory in bytes, as in ``costs.peak_memory``; None if the system does not report it."""


def benchmark(workload: Workload, rounds: int) -> Findings:
    """Measure the stages in separate processes, so the peaks include no other memory."""
    fresh = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(max_workers=1, mp_context=fresh, max_tasks_per_child=1) as pool:
        bar = tqdm(range(rounds), desc="GPT-2 at its real size", unit="run", dynamic_ncols=True)
        measured = [pool.submit(measure, GPT2Config(), workload.device).result() for _ in bar]
    return findings([stages for stages, _ in measured], measured[0][1])


def measure(shape: GPT2Config, device: str) -> tuple[list[Stage], int]:
    """Build, attach, train one step, resample, merge and decode.

    Returns:
        The stages in order, and the number of the model's parameters.
    """
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    end = shape.vocab_size - 1
    shape.vocab_size += 1  # for the padding token
    stages: list[Stage] = []

    def stage(name: str, action: Callable[[], object]) -> None:
        costs.reset_peak_memory(device)
        taken = seconds(action, device)
        peak = costs.peak_memory(device)
        stages.append(Stage(name, taken, peak["device_bytes"] if device == "cuda" else peak["host_bytes"]))

    model = GPT2LMHeadModel(shape)
    stage("to the device", lambda: model.to(device))  # type: ignore[arg-type]
    parameters = sum(parameter.numel() for parameter in model.parameters())
    stage("attach", lambda: attach(model, RosaConfig(rank=RANK), generator=generator, verbose=False))
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trainable, lr=LEARNING_RATE, fused=True)
    batch = torch.randint(end, (EXAMPLES, TOKENS), generator=generator).to(device)

    def step() -> None:
        model(batch, labels=batch).loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    stage("training step", step)
    stage("resample", lambda: resample(model, generator=generator, optimizer=optimizer))
    stage("merge", lambda: merge(model))
    prompts = torch.randint(end, (PROMPTS, TOKENS), generator=generator).tolist()
    settings = DecodingConfig(max_new_tokens=NEW_TOKENS)
    stage("decode", lambda: continue_prompts(model, prompts, NEW_TOKENS, settings, end, end + 1))
    return stages, parameters


def findings(measured: Sequence[Sequence[Stage]], parameters: int) -> Findings:
    """Build the table, one row a stage.

    Args:
        measured: the stages of each round, in the same order.
        parameters: number of the model's parameters.
    """
    rows, lines = [], []
    for stages in zip(*measured, strict=True):
        name, taken = stages[0].name, spread([stage.seconds for stage in stages])
        peaks = [stage.peak for stage in stages if stage.peak is not None]
        rows.append(row(name, with_quartiles(taken), number(max(peaks) / MIB) if peaks else "unknown"))
        lines.append(Measurement(name, "time", "s", taken))
        if peaks:
            lines.append(Measurement(name, "peak memory", "byte", max(peaks)))
    lines.append(Measurement("model", "parameters", "", parameters))
    notes = (
        note(f"{parameters:,} parameters of random weights, float32; ROSA at rank {RANK} on the attention layers."),
        note(
            f"A training step on {EXAMPLES} examples of {TOKENS} tokens; {PROMPTS} prompts of {TOKENS} continued "
            f"by {NEW_TOKENS} with 5 beams. Times are of the first call; on a CPU the peak counts the whole process."
        ),
    )
    header = ("stage", "time, s", "peak, MiB")
    return Findings(Table("benchmark_full_size", "GPT-2 at its real size", header, tuple(rows), notes), tuple(lines))
