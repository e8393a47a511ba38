"""The benchmarks of compiled steps, at a tiny size, without the code generator, which would take minutes."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from benchmarks import NAMES, BenchmarkError, compiled, on_gpu, suite
from benchmarks.compiled import Gain, Model
from benchmarks.contenders import Contender
from benchmarks.findings import Findings, Measurement, note, row
from benchmarks.timing import spread
from benchmarks.workload import Batch, configure, load_model, prepare
from torch import Tensor, nn

from rosa.config import Config
from rosa.report.tables.table import Table
from rosa.utils.formatting import MIB
from tests.commands import script
from tests.conftest import ROOT

Options = dict[str, Any]


@pytest.fixture(scope="module")
def config(tiny_model: Path) -> Config:
    plain = configure(ROOT / "conf", str(tiny_model), None, "cpu", 16)
    return dataclasses.replace(plain, data=dataclasses.replace(plain.data, train_size=96, evaluation_size=8))


@pytest.fixture
def traced(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Options]]:
    """Models are traced, and the graphs run as they are; yields the options with which each was to be compiled."""
    asked: list[Options] = []
    compile_in_place = nn.Module.compile

    def compile_as_it_is(model: nn.Module, **options: Any) -> None:
        asked.append(options)
        compile_in_place(model, backend="eager", **options)

    monkeypatch.setattr(nn.Module, "compile", compile_as_it_is)
    compiled.start.cache_clear()
    yield asked
    compiled.start.cache_clear()
    torch._dynamo.reset()


@pytest.mark.slow
def test_methods_are_timed_both_ways_on_the_same_batches(traced: list[Options], config: Config) -> None:
    workload = prepare(config)
    batches = [workload.batch(number) for number in range(3)]
    assert len({batch["input_ids"].shape for batch in batches}) > 1
    built: list[tuple[str, str]] = []

    def build(config: Config) -> Any:
        model = load_model(config)
        built.append((config.train.precision, model.config._attn_implementation))
        return model

    cases = {"fp32": [("rosa", 4), ("full", 0)], "bf16": [("lora", 4)]}
    found = compiled.measure("tiny", build, workload.config, batches, cases)
    assert built == [("fp32", "sdpa"), ("bf16", "eager")]
    assert list(found.gains) == [("fp32", ("rosa", 4)), ("fp32", ("full", 0)), ("bf16", ("lora", 4))]
    assert traced == [{"dynamic": True}] * 4  # the compiler's start, and as training does it
    for gain in found.gains.values():
        assert (len(gain.eager), len(gain.compiled)) == (3, 3)
        assert (gain.breaks, gain.again) == (0, 0)
        assert gain.first > 0
        assert gain.peaks is None
    assert found.tokens == [batch["input_ids"].numel() for batch in batches]


def test_a_language_model_leaves_outputs_out_only_where_training_does(
    traced: list[Options], tiny_gpt2: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = configure(ROOT / "conf", str(tiny_gpt2), None, "cpu", 4)
    config = dataclasses.replace(config, data=dataclasses.replace(config.data, train_size=40, evaluation_size=4))
    steps: set[tuple[bool, bool]] = set()

    def step(contender: Contender, batch: Batch) -> None:
        steps.add((contender.model._compiled_call_impl is not None, "logits_to_keep" in batch))
        whole_step(contender, batch)

    whole_step = Contender.step
    monkeypatch.setattr(Contender, "step", step)
    monkeypatch.setattr(compiled, "CASES", (("full", 0),))
    monkeypatch.setattr(compiled, "precisions", lambda device: ("fp32",))
    found = compiled.benchmark(prepare(config), 2)
    assert steps == {(False, True), (True, False)}
    assert any("leaves out the model's outputs" in line[0].text for line in found.table.notes)


class Troublesome(nn.Module):
    """Breaks the graph, and has a number that the compiler takes for a constant, and that changes."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        y = x + 1
        torch._dynamo.graph_break()
        return y * self.calls


def test_breaks_and_later_compilations_are_counted(traced: list[Options]) -> None:
    model = Troublesome()

    def step(batch: dict[str, Tensor]) -> None:
        model(batch["x"])
        model.calls += 2

    contender: Any = SimpleNamespace(name="full", model=model, step=step)
    torch._dynamo.reset()
    _, breaks, again = compiled._compile(contender, [{"x": torch.ones(3, 4)}, {"x": torch.ones(5, 4)}], "cpu")
    assert breaks == 1
    assert again >= 1


# --- tables ----------------------------------------------------------------------------------------------------------


def value(findings: Findings, case: str, quantity: str) -> Any:
    (found,) = [line.value for line in findings.measurements if (line.case, line.quantity) == (case, quantity)]
    return found


def test_a_gain_is_taken_pair_by_pair_and_pays_after_some_steps() -> None:
    gain = Gain([0.3, 0.4, 2.0], [0.2, 0.2, 1.0], 10.2, 0, 1, (3 * MIB, 2 * MIB))
    found = compiled.findings("benchmark_gpu", [Model("tiny", [100, 200, 100], {("bf16", ("rosa", 8)): gain})])
    case = "tiny, bf16: ROSA r=8"
    assert value(found, case, "step relative to the compiled one") == spread([1.5, 2.0, 2.0])
    assert value(found, case, "tokens per second, compiled") == 500
    assert value(found, case, "first compiled step") == 10.2
    assert value(found, case, "peak memory, compiled") == 2 * MIB
    (cells,) = found.table.rows
    assert [cell.text for cell in cells] == [
        *("bf16", "ROSA r=8", "400 (350–1,200)", "200 (200–600)", "2.00 (1.75–2.00)", "333", "500"),
        *("10.2", "50", "0", "1", "3.00", "2.00"),
    ]
    assert len(found.table.header) == len(cells)


def test_what_is_not_reliably_faster_never_pays() -> None:
    gain = Gain([1.0, 1.0, 1.2], [1.1, 1.0, 1.0], 10.0, 0, 0, None)
    assert gain.pays_after is None
    models = [Model(name, [1] * 3, {("fp32", ("full", 0)): gain}) for name in ("one", "other")]
    found = compiled.findings("benchmark_gpu", models)
    assert [table.name for table in found.tables] == ["benchmark_gpu", "benchmark_gpu_other"]
    assert [cell.text for cell in found.table.rows[0]][-3:] == ["–", "0", "0"]
    assert len(found.table.header) == 11
    assert not any("memory" in line.quantity for line in found.measurements)


# --- where it can run ------------------------------------------------------------------------------------------------


def test_without_a_compiler_it_is_refused_at_once(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(model: nn.Module, **options: Any) -> None:
        def backend(*_: Any) -> Any:
            raise FileNotFoundError("no g++")

        compile_in_place(model, backend=backend, **options)

    def fail(*_: Any) -> None:
        raise AssertionError("the workload was prepared first")

    compile_in_place = nn.Module.compile
    monkeypatch.setattr(nn.Module, "compile", absent)
    monkeypatch.setattr(suite, "prepare", fail)
    compiled.start.cache_clear()
    with pytest.raises(BenchmarkError, match=r"torch\.compile does not work here, where it needs a C\+\+ compiler"):
        suite.run(config, Path("results"), ["compile"])
    torch._dynamo.reset()


def test_gpu_is_refused_without_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    options = ["--device", "cpu", "--results", tmp_path / "results"]
    assert script(monkeypatch, "benchmark", "gpu", *options) == 2
    assert capsys.readouterr().err.startswith("error: gpu measures on a CUDA device, and this one is cpu; compile ")


def test_all_leaves_out_what_cannot_run(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ran: list[str] = []

    def stub(name: str) -> tuple[Any, int]:
        def benchmark(*_: Any) -> Findings:
            ran.append(name)
            return Findings(Table(name, name, ("x",), (row("1"),), (note("1"),)), (Measurement("", "x", "", 1),))

        return benchmark, 1

    monkeypatch.setattr(suite, "BENCHMARKS", {name: stub(name) for name in NAMES})
    monkeypatch.setattr(compiled, "start", lambda device: 1.0)
    text = suite.run(config, tmp_path, ["all"])
    assert ran == [name for name in NAMES if name != "gpu"]
    left_out = "gpu measures on a CUDA device, and this one is cpu"
    assert f"left out: {left_out}" in capsys.readouterr().err
    assert left_out in text
    assert "left out" not in suite.run(config, tmp_path, ["padding"])


# --- on a GPU, rehearsed ---------------------------------------------------------------------------------------------


def test_the_gpus_benchmark_measures_both_models(
    traced: list[Options], config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiled, "CASES", (("rosa", 4),))
    monkeypatch.setattr(compiled, "precisions", lambda device: ("fp32",))
    found = on_gpu.benchmark(SimpleNamespace(device="cpu", config=on_gpu.settings("cpu", "fp32")), 2)  # type: ignore[arg-type]
    assert [table.name for table in found.tables] == ["benchmark_gpu", "benchmark_gpu_gpt2"]
    for model in on_gpu.MODELS:
        assert value(found, f"{model}, fp32: ROSA r=4", "compiled step").count == 2
        assert value(found, f"{model}, fp32: ROSA r=4", "graph breaks") == 0
        assert value(found, f"{model}, fp32: ROSA r=4", "compilations after the first step") == 0


@pytest.mark.slow
def test_the_check_of_a_gpu_has_a_table_for_each_method(
    traced: list[Options], capsys: pytest.CaptureFixture[str]
) -> None:
    on_gpu.compiled("cpu")
    said = capsys.readouterr().out
    assert said.count("| bf16 ") == 2
    assert said.count("ROSA r=8") == said.count("LoRA (loralib) r=8") == 1
