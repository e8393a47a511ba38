"""Measure on a GPU: the benchmark ``gpu``, and sections of ``scripts/gpu_check.py``, which print Markdown.

On another device than ``cuda`` the shapes are tiny, to rehearse.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import gc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from benchmarks import compiled as compiling
from benchmarks import costs, memory
from benchmarks.contenders import RANK, Contender
from benchmarks.factorization import factorize_by_svd
from benchmarks.findings import Findings, row, with_quartiles
from benchmarks.measured import Case, case_label, cases_at
from benchmarks.shapes import random_model, random_texts
from benchmarks.timing import Spread, seconds, spread
from benchmarks.workload import Batch, Build, Workload, configure, in_precision
from rosa.adapters.linalg.subspace import draw_indices, factorize_along, layers_at_once
from rosa.config import Config
from rosa.report.tables.markdown import markdown
from rosa.report.tables.table import Table

CONF = Path(__file__).resolve().parent.parent.parent / "conf"
STEPS = 10
"""Timed steps of each method, and timed resamples."""
ROUNDS = 5
"""Timed factorizations."""
BENCHMARK_ROUNDS = 20
"""Timed steps of the benchmark."""
LAYERS = (1, 4, 16)
"""Layers of one shape that are factorized as a stack."""
SHAPES = ((768, 768), (2304, 768), (1024, 1024), (4096, 1024))
"""Weights (out, in) of RoBERTa-base and GPT-2, of their large versions, and of a feed-forward layer."""
SMALL_VOCABULARY = 99
"""Of a rehearsal."""


def is_rehearsal(device: str) -> bool:
    """Whether the shapes are tiny."""
    return device != "cuda"


def roberta(device: str) -> tuple[Build, Batch]:
    """RoBERTa-base's shape with random weights, and a batch of 32 examples of 128 tokens on the device."""
    small = {"num_hidden_layers": 1, "hidden_size": 32, "num_attention_heads": 4}
    return _shape("roberta-base", device, small, 32, 128)


def gpt2(device: str) -> tuple[Build, Batch]:
    """GPT-2's shape (124M) with random weights, and a batch of 8 texts of 256 tokens on the device."""
    small = {"n_layer": 1, "n_embd": 32, "n_head": 4, "bos_token_id": 0, "eos_token_id": 0}
    return _shape("gpt2", device, small, 8, 256)


def _shape(shape: str, device: str, small: dict[str, Any], examples: int, tokens: int) -> tuple[Build, Batch]:
    if not is_rehearsal(device):
        return functools.partial(random_model, shape), random_texts(shape, 0, device, examples, tokens)
    build = functools.partial(random_model, shape, vocab_size=SMALL_VOCABULARY, **small)
    return build, random_texts(shape, 0, device, 2, 8, SMALL_VOCABULARY)


MODELS: dict[str, Callable[[str], tuple[Build, Batch]]] = {"roberta": roberta, "gpt2": gpt2}


def settings(device: str, precision: str) -> Config:
    """A configuration with the protocol's optimizer and clipping."""
    return in_precision(configure(CONF, device=device), precision)


def contend(case: Case, plain: PreTrainedModel, config: Config) -> Contender:
    """A contender on the device, made from a copy of a model; the original stays on the host."""
    gc.collect()  # optimizers hold reference cycles; free the previous one before measuring the peak
    copied = copy.deepcopy(plain).to(config.train.device)  # type: ignore[arg-type]
    return Contender(case[0], copied, config, case[1] or RANK)


def timed(action: Callable[[], object], device: str) -> Spread:
    """Time an action in seconds, after one untimed call that initializes the solver."""
    action()
    return spread([seconds(action, device) for _ in range(ROUNDS)])


def steps(model: str, precision: str, device: str) -> None:
    """Measure time and memory of a training step of each method, and of a resample of all layers."""
    build, batch = MODELS[model](device)
    config = settings(device, precision)
    plain = build(config)
    shape, parameters = tuple(batch["input_ids"].shape), sum(parameter.numel() for parameter in plain.parameters())
    print(f"Batches of {shape} tokens; {parameters:,} parameters.\n", flush=True)
    # One at a time: on a GPU the peak counts everything allocated.
    held = {case: memory.of_steps(contend(case, plain, config), batch, device) for case in cases_at([RANK])}
    on_device = copy.deepcopy(plain).to(device)  # type: ignore[arg-type]
    batches = [batch] * (2 if is_rehearsal(device) else STEPS)
    found = costs.measure(f"{type(plain).__name__}, {precision}", on_device, config, batches, cases_at([RANK]))
    for table in costs.findings([dataclasses.replace(found, memory=held)]).tables:
        print(markdown(table), flush=True)
    gc.collect()
    whole = costs.interleaved({case: contend(case, plain, config) for case in held}, batches, device)
    print("Whole steps, without waits inside, ms: ", end="")
    print("; ".join(f"{case_label(case)} {with_quartiles(spread(taken), 1000)}" for case, taken in whole.items()))


def factorization(device: str) -> None:
    """Milliseconds per layer to factorize a stack of weights, and of a plain SVD of one."""
    stream = torch.Generator().manual_seed(0)
    rows = []
    for shape in ((48, 32),) if is_rehearsal(device) else SHAPES:
        weights = torch.randn(max(LAYERS), *shape, generator=stream).to(device)
        cells = [f"{shape[0]} x {shape[1]}"]
        for count in LAYERS:
            drawn = torch.stack([draw_indices(min(shape), RANK, "random", stream) for _ in range(count)])
            cells.append(
                with_quartiles(timed(functools.partial(factorize_along, weights[:count], drawn), device), 1000 / count)
            )
        plain = timed(functools.partial(factorize_by_svd, weights[0], RANK, stream), device)
        most = layers_at_once(*shape, torch.device(device))
        rows.append(row(*cells, with_quartiles(plain, 1000), str(most)))
    header = ("weight, out x in", *(f"{count} at once" for count in LAYERS), "SVD and rebuilding", "most at once")
    print(
        markdown(Table("factorization", "Milliseconds per layer of a factorization at rank 8", header, tuple(rows), ()))
    )


def compiled(device: str) -> None:
    """What ``train.compile=true`` gains for RoBERTa-base's shape in bf16."""
    build, batch = roberta(device)
    batches = [batch] * (2 if is_rehearsal(device) else STEPS)
    for case in (("rosa", RANK), ("lora", RANK)):
        config = settings(device, "bf16")
        model = compiling.measure("roberta", build, config, batches, {"bf16": [case]})
        # One at a time, in case the next one hangs.
        print(markdown(compiling.findings("compile", [model]).table), flush=True)


def obstacle(device: str) -> str:
    """Why :func:`benchmark` cannot run on a device, as a message for the user; empty if it can."""
    if device != "cuda":
        return f"gpu measures on a CUDA device, and this one is {device}; compile measures the same on any device"
    return compiling.obstacle(device)


def benchmark(workload: Workload, rounds: int) -> Findings:
    """Measure both models' training steps with fixed batches in each precision, as they are and compiled."""
    device = workload.device
    cases = dict.fromkeys(compiling.precisions(device), compiling.CASES)
    found = []
    for name, of in MODELS.items():
        build, batch = of(device)
        found.append(compiling.measure(name, build, workload.config, [batch] * rounds, cases))
    return compiling.findings("benchmark_gpu", found)
