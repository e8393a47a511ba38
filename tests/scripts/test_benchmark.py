"""Each benchmark runs at a tiny size and writes its measurements; no test depends on speed."""

from __future__ import annotations

import csv
import dataclasses
import gc
import itertools
import re
import shutil
import time
import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import forkserver
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from benchmarks import (
    NAMES,
    BenchmarkError,
    against,
    compiled,
    costs,
    decoding,
    factorization,
    full_size,
    gemm,
    growth,
    layer,
    memory,
    padding,
    reports,
    scaling,
    scoring,
    shapes,
    solvers,
    sparse,
    stages,
    suite,
    texts,
    timing,
)
from benchmarks.contenders import DORA, LABELS, PARTS, PEFT, RANKED, Contender
from benchmarks.findings import Findings, number, with_quartiles
from benchmarks.measured import Case, Measured, case_label, cases_at
from benchmarks.memory import Memory
from benchmarks.tensors import peak_bytes
from benchmarks.timing import Spread, interleave, ratio, spread
from benchmarks.workload import Batch, Workload, configure, in_precision, load_model, prepare
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import GPT2Config, GPT2LMHeadModel

from rosa.adapters import adapters, resample
from rosa.adapters.linalg.subspace import draw_indices, factorize_along
from rosa.adapters.robust import RobustLinear
from rosa.adapters.sparse import dense
from rosa.config import Config
from rosa.errors import ConfigError, RosaError
from rosa.evaluation.nlg import score
from rosa.training.checkpoints import save_weights
from rosa.utils.formatting import MIB
from tests.commands import command, script
from tests.conftest import ROOT
from tests.processes import forking

CONF = ROOT / "conf"


@pytest.fixture(scope="module")
def config(tiny_model: Path) -> Config:
    plain = configure(CONF, str(tiny_model), None, "cpu", 16)
    return dataclasses.replace(plain, data=dataclasses.replace(plain.data, train_size=96, evaluation_size=8))


@pytest.fixture(scope="module")
def workload(config: Config) -> Workload:
    return prepare(config)


def with_train(config: Config, **changes: Any) -> Config:
    return dataclasses.replace(config, train=dataclasses.replace(config.train, **changes))


def value(findings: Findings, case: str, quantity: str) -> Spread | float | str:
    (found,) = [line.value for line in findings.measurements if (line.case, line.quantity) == (case, quantity)]
    return found


# --- timing ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [2, 3, 4, 7, 40])
def test_spread_is_numpys_median_and_quartiles(count: int) -> None:
    values = np.random.default_rng(count).exponential(size=count)
    expected = np.percentile(values, [50, 25, 75])
    found = spread(values.tolist())
    assert [found.median, found.low, found.high] == pytest.approx(expected)
    assert found.count == count


def test_one_value_has_no_width_and_none_has_no_median() -> None:
    assert spread([3.0]) == Spread(3.0, 3.0, 3.0, 1)
    with pytest.raises(AssertionError, match="no values"):
        spread([])


def test_a_ratio_is_taken_within_each_round() -> None:
    # The machine was ten times slower in the last two rounds; a is twice b in all of them but one.
    a, b = [2.0, 4.0, 2.0, 20.0, 20.0], [1.0, 1.0, 1.0, 10.0, 10.0]
    assert ratio(a, b).median == 2.0
    with pytest.raises(ValueError, match="shorter"):
        ratio(a, b[:3])


def test_actions_are_interleaved_and_timed_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    calls: list[tuple[str, int]] = []

    def taking(name: str, duration: float) -> Callable[[int], None]:
        def action(position: int) -> None:
            nonlocal now
            calls.append((name, position))
            now += duration

        return action

    monkeypatch.setattr(timing.time, "perf_counter", lambda: now)
    durations = {"a": 1.0, "b": 2.0, "c": 4.0}
    taken = interleave({n: taking(n, d) for n, d in durations.items()}, 20, "cpu", "test", {"c": 2})

    assert taken == {"a": [1.0] * 20, "b": [2.0] * 20, "c": [4.0] * 40}
    rounds = [calls[start : start + 4] for start in range(0, 80, 4)]
    for i, played in enumerate(rounds):
        assert sorted(played) == [("a", i), ("b", i), ("c", 2 * i), ("c", 2 * i + 1)]
    orders = {tuple(dict.fromkeys(name for name, _ in played)) for played in rounds}
    assert orders == set(itertools.permutations("abc"))


@pytest.mark.parametrize(
    ("given", "expected"),
    [(0, "0"), (0.043214, "0.0432"), (0.9996, "1.00"), (1.2345, "1.23"), (86.72, "86.7"), (12345.6, "12,346")],
)
def test_numbers_have_three_digits_and_no_exponent(given: float, expected: str) -> None:
    assert number(given) == expected


def test_quartiles_are_shown_where_there_are_some() -> None:
    assert with_quartiles(Spread(0.5, 0.25, 1.0, 9), 1000) == "500 (250–1,000)"
    assert with_quartiles(Spread(0.5, 0.5, 0.5, 1)) == "0.500"


# --- what is measured on ---------------------------------------------------------------------------------------------


def test_batches_are_an_epoch_grouped_by_length(config: Config) -> None:
    workload = prepare(with_train(config, batch_size=4))
    lengths = [len(ids) for ids in workload.train["input_ids"]]
    assert sorted(row for batch in workload.order for row in batch) == list(range(96))
    assert [len(batch) for batch in workload.order] == [4] * workload.steps_per_epoch

    def wasted(batches: Sequence[Sequence[int]]) -> int:
        return sum(4 * max(lengths[row] for row in batch) - sum(lengths[row] for row in batch) for batch in batches)

    assert wasted(workload.order) < wasted([range(i, i + 4) for i in range(0, 96, 4)]) / 2


def test_both_paddings_hold_the_same_examples(workload: Workload) -> None:
    for i in range(workload.steps_per_epoch + 1):
        rows = workload.order[i % workload.steps_per_epoch]
        dynamic, padded = workload.batch(i), workload.padded_batch(i)
        longest = max(len(workload.train[row]["input_ids"]) for row in rows)
        assert dynamic["input_ids"].shape == (16, longest)
        assert padded["input_ids"].shape == (16, workload.limit)
        for j, row in enumerate(rows):
            ids = workload.train[row]["input_ids"]
            for batch in (dynamic, padded):
                assert batch["input_ids"][j][batch["attention_mask"][j].bool()].tolist() == ids
                assert int(batch["labels"][j]) == workload.train[row]["label"]


def test_a_batch_larger_than_the_data_is_refused(config: Config) -> None:
    with pytest.raises(BenchmarkError, match="--batch-size 97: the training split has 96 examples"):
        prepare(with_train(config, batch_size=97))


# --- the contenders --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "more"), [(PEFT, 0), (DORA, 32)])
def test_the_loras_adapt_the_same_layers_and_train_the_same_head(workload: Workload, name: str, more: int) -> None:
    """DoRA has a magnitude for each of a layer's outputs, 32 here, beside the factors."""
    config = workload.config
    ours = Contender("lora", load_model(config), config)
    theirs = Contender(name, load_model(config), config)
    wrapped = {name for name, _ in adapters(ours.model)}
    assert {
        name.removeprefix("base_model.model.")
        for name, module in theirs.model.named_modules()
        if hasattr(module, "lora_A")
    } == wrapped

    def head(contender: Contender) -> dict[str, int]:
        return {
            name.removeprefix("base_model.model."): parameter.numel()
            for name, parameter in contender.model.named_parameters()
            if parameter.requires_grad and "lora_" not in name
        }

    assert head(ours) == head(theirs)
    assert all(name.startswith("classifier.") for name in head(ours))
    assert theirs.trainable_parameters - ours.trainable_parameters == more * len(wrapped)


@pytest.mark.parametrize("name", RANKED)
def test_a_rank_makes_factors_of_that_rank(workload: Workload, name: str) -> None:
    """Each rank more is 32 + 32 parameters a layer."""
    counts = [Contender(name, load_model(workload.config), workload.config, r).trainable_parameters for r in (2, 3)]
    layers = len(list(adapters(Contender("lora", load_model(workload.config), workload.config).model)))
    assert counts[1] - counts[0] == 64 * layers


@pytest.mark.parametrize(("rank", "sparse_rank"), [(2, 1), (3, 2), (8, 4)])
def test_rosas_budget_is_loras_and_half_of_it_is_sparse(workload: Workload, rank: int, sparse_rank: int) -> None:
    """In each layer, whatever its shape: GPT-2's c_attn is 96 x 32 here."""
    shape = GPT2Config(vocab_size=50, n_layer=1, n_embd=32, n_head=2, n_positions=80)
    for model in (load_model(workload.config), GPT2LMHeadModel(shape)):
        contender = Contender("robust", model, workload.config, rank)
        layers = [adapter for _, adapter in adapters(contender.model) if isinstance(adapter, RobustLinear)]
        assert len(layers) >= 2
        for adapter in layers:
            assert adapter.values.numel() == sparse_rank * sum(adapter.shape)
            assert sum(factor.numel() for factor in adapter.factors().values()) == rank * sum(adapter.shape)
            assert adapter.index is not None
            assert len(set(adapter.index.tolist())) == len(adapter.index)
            assert 0 <= int(adapter.index.min()) <= int(adapter.index.max()) < adapter.shape[0] * adapter.shape[1]


@pytest.mark.parametrize("name", LABELS)
def test_a_step_moves_what_is_trained_and_nothing_else(workload: Workload, name: str) -> None:
    contender = Contender(name, load_model(workload.config), workload.config)
    assert contender.model.training
    before = {key: tensor.clone() for key, tensor in contender.model.state_dict().items()}
    trained = {key for key, parameter in contender.model.named_parameters() if parameter.requires_grad}
    contender.step(workload.batch(0))
    contender.step(workload.batch(1))  # LoRA's A has no gradient while its B is zero
    after = contender.model.state_dict()
    moved = {key for key in after if not torch.equal(after[key], before[key])}
    if name == "full":  # the embeddings of padding and of unused token types have no gradient
        assert moved <= trained
        assert len(moved) > 0.9 * len(trained)
    else:
        assert moved == trained
    assert all(parameter.grad is None for parameter in contender.model.parameters())


# --- costs -----------------------------------------------------------------------------------------------------------


def parts_of(steps: Sequence[float]) -> list[dict[str, float]]:
    """Rounds whose parts take a quarter, a half and a quarter of a step."""
    return [dict(zip(PARTS, (step / 4, step / 2, step / 4), strict=True)) for step in steps]


def measured_as(seconds: dict[Case, Sequence[float]], held: Memory) -> Measured:
    return Measured(
        model="tiny",
        batch_tokens=[100] * len(next(iter(seconds.values()))),
        parts={case: parts_of(steps) for case, steps in seconds.items()},
        trainable=dict.fromkeys(seconds, 5),
        memory=dict.fromkeys(seconds, held),
        saved=dict.fromkeys(seconds, MIB // 2),
        checkpoint=dict.fromkeys(seconds, MIB),
        moves={8: [0.5, 0.7, 0.6]},
        layers=4,
        merged={("rosa", 8): Spread(1.0, 0.9, 1.1, 3)},
        steps_per_epoch=10,
    )


def test_the_ratio_is_to_the_faster_lora_of_its_rank() -> None:
    seconds: dict[Case, Sequence[float]] = {case: [1.0, 1.0, 2.0] for case in cases_at([8])}
    seconds["lora", 8], seconds["peft", 8], seconds["rosa", 8] = [3.0, 3.0, 6.0], [2.0, 2.0, 4.0], [1.8, 2.0, 3.0]
    found = costs.findings([measured_as(seconds, Memory(2 * MIB, None, True, MIB, 0, 0, 3 * MIB))])

    assert value(found, "tiny: ROSA r=8", "step relative to LoRA (peft) r=8") == spread([0.9, 1.0, 0.75])
    assert value(found, "tiny: LoRA (loralib) r=8", "step relative to LoRA (peft) r=8") == spread([1.5, 1.5, 1.5])
    times, memory_table, moves, merged = found.tables
    assert [cells[0].text for cells in times.rows] == [case_label(case) for case in seconds]
    shown = {cells[0].text: [cell.text for cell in cells[1:]] for cells in times.rows}
    assert shown["ROSA r=8"] == ["5", "500", "1,000", "500", "2,000 (1,900–2,500)", "0.900 (0.825–0.950)", "50"]
    assert shown["LoRA (peft) r=8"][5] == "1"
    assert "0.900 (0.825–0.950) times as long as that of LoRA (peft) r=8" in times.notes[0][0].text
    shown = {cells[0].text: [cell.text for cell in cells[1:]] for cells in memory_table.rows}
    assert shown["ROSA r=8"] == ["2.00", "1.00", "0", "0", "0.500", "3.00", "1.00"]
    assert [cell.text for cell in moves.rows[0]] == ["tiny, r=8", "4", "600 (550–650)", "150", "3.00 % of 20.0 s"]
    assert [cell.text for cell in merged.rows[0]] == ["tiny", "ROSA r=8", "1.00 (0.900–1.10)"]


def test_memory_that_is_unknown_is_shown_as_missing() -> None:
    found = costs.findings([measured_as({case: [1.0] for case in cases_at([8])}, Memory(None, None, False, 1, 1, 1))])
    assert {cells[1].text for cells in found.tables[1].rows} == {"–"}
    assert "cannot reset" in found.tables[1].notes[-1][0].text
    assert not any(line.quantity == "peak memory" for line in found.measurements)
    assert [picture.name for picture in found.pictures] == ["costs/tiny"]


@pytest.mark.parametrize("name", ["rosa", "peft", "robust", "full"])
def test_a_contender_that_is_done_leaves_no_memory(workload: Workload, name: str) -> None:
    contender = Contender(name, load_model(workload.config), workload.config)
    contender.step(workload.batch(0))
    contender.saved_bytes(workload.batch(0))
    weights = [weakref.ref(parameter) for parameter in contender.model.parameters()]
    del contender
    gc.collect()
    assert [weight for weight in weights if weight() is not None] == []


@pytest.mark.parametrize("depth", [1, 5])
def test_what_is_kept_for_the_backward_pass_is_counted_once(depth: int) -> None:
    """A squared linear layer keeps its input, for the weight's gradient, and its output, for the square's.

    The memory of an output that one layer no longer needs must not count as that of a later layer's.
    """

    class Squared(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = torch.nn.ModuleList(torch.nn.Linear(6, 6) for _ in range(depth))

        def forward(self, x: torch.Tensor) -> Any:
            for each in self.layers:
                x = each(x).square()
            return SimpleNamespace(loss=x.sum())

    contender = Contender("full", Squared(), configure(CONF, "minilm", None, "cpu", 4))
    rows = 20_000  # so many that freed memory has its address again
    assert contender.saved_bytes({"x": torch.randn(rows, 6)}) == 4 * depth * 2 * rows * 6


@pytest.mark.parametrize("name", ["rosa", "lora", "robust", "ia3", "full"])
def test_a_checkpoint_has_the_bytes_of_its_file(workload: Workload, name: str, tmp_path: Path) -> None:
    contender = Contender(name, load_model(workload.config), workload.config)
    save_weights(contender.model, tmp_path / "weights")
    written = (tmp_path / "weights").read_bytes()
    header = int.from_bytes(written[:8], "little")
    assert contender.checkpoint_bytes() == len(written) - 8 - header


@pytest.mark.parametrize("name", [PEFT, DORA])
def test_of_pefts_methods_a_checkpoint_is_what_trains_and_a_merged_model_the_base(name: str, config: Config) -> None:
    plain = load_model(config)
    contender = Contender(name, plain, config, 4)
    trained = {key: value for key, value in contender.model.named_parameters() if value.requires_grad}
    assert any("lora_A" in key for key in trained)
    assert any("classifier" in key for key in trained)
    assert contender.checkpoint_bytes() == 4 * sum(value.numel() for value in trained.values())
    merged = contender.merged()
    assert list(merged.state_dict()) == list(load_model(config).state_dict())
    assert type(merged) is type(plain)


def test_every_case_is_measured_on_a_model(workload: Workload) -> None:
    batches = [workload.batch(number) for number in range(2)]
    plain = load_model(workload.config)
    before = {key: tensor.clone() for key, tensor in plain.state_dict().items()}
    found = costs.measure("tiny", plain, workload.config, batches, cases_at([2, 3]))
    assert all(torch.equal(plain.state_dict()[key], tensor) for key, tensor in before.items())
    assert list(found.parts) == cases_at([2, 3]) == list(found.memory) == list(found.saved)
    assert all(set(parts) == set(PARTS) for rounds in found.parts.values() for parts in rounds)
    assert all(len(rounds) == 2 for rounds in found.parts.values())
    assert set(found.moves) == {2, 3}
    assert found.batch_tokens == [batch["input_ids"].numel() for batch in batches]


@pytest.mark.parametrize("shape", ["roberta-base", "gpt2", "gpt2-medium"])
def test_shapes_have_the_published_numbers_of_parameters(shape: str) -> None:
    """As the checkpoints of the hub; RoBERTa's classifier of two classes has 592,130 parameters."""
    with torch.device("meta"):
        model = shapes.random_model(shape, configure(CONF, "minilm", None, "cpu", 4))
    count = sum(parameter.numel() for parameter in model.parameters())
    assert count == {"roberta-base": 124_055_040 + 592_130, "gpt2": 124_439_808, "gpt2-medium": 354_823_168}[shape]


SMALL_SHAPES: dict[str, dict[str, Any]] = {
    "roberta-base": {"num_hidden_layers": 1, "hidden_size": 32, "num_attention_heads": 4, "intermediate_size": 64},
    "gpt2": {"n_layer": 1, "n_embd": 32, "n_head": 4},
}


@pytest.mark.parametrize("shape", SMALL_SHAPES)
def test_a_shape_has_the_attention_of_a_run_in_its_precision(shape: str) -> None:
    """As rosa.run.build chooses it; see docs/measurements.md."""
    config = configure(CONF, "minilm", None, "cpu", 4)
    found = [
        shapes.random_model(shape, in_precision(config, precision), **SMALL_SHAPES[shape])
        for precision in ("fp32", "bf16")
    ]
    assert [model.config._attn_implementation for model in found] == ["sdpa", "eager"]
    texts = shapes.random_texts(shape, 0, "cpu", 2, 8)
    torch.testing.assert_close(*(model.eval()(**texts).loss for model in found))


def test_the_shapes_peaks_and_bf16_are_measured_beside_the_steps(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the cases that were asked for have a process; in bf16 steps alone, of a model built for it."""
    built: list[str] = []

    def small(shape: str, config: Config) -> Any:
        model = shapes.random_model(shape, config, **SMALL_SHAPES[shape])
        built.append(model.config._attn_implementation)
        return model

    def here(config: Config, cases: Sequence[Case], batch: Batch, build: Any) -> dict[Case, Memory]:
        return {case: memory.measure(*case, config, batch, build) for case in cases}

    monkeypatch.setattr(costs, "random_model", small)
    monkeypatch.setattr(costs, "measure_apart", here)
    cases: list[Case] = [("rosa", 8), ("lora", 8), (PEFT, 8), ("full", 0)]
    plain = costs.Shape("roberta-base", 5, cases, cases[:2])
    config = in_precision(config, "fp32")
    measured = costs.measure_shape(plain, config, 4)
    assert [held.peak is not None for held in measured.memory.values()] == [True, True, False, False]
    assert measured.memory["rosa", 8].resample is not None
    assert (len(measured.moves[8]), set(measured.merged)) == (costs.RESAMPLES, set(cases))
    assert set(built) == {"sdpa"}

    narrow = costs.Shape("roberta-base", 2, cases[:3], precision="bf16")
    built.clear()
    bf16 = costs.measure_shape(narrow, config, 4)
    assert (bf16.model, len(bf16.batch_tokens), bf16.moves, bf16.merged) == ("roberta-base, bf16", 2, {}, {})
    assert set(built) == {"eager"}
    found = costs.findings([measured, bf16])
    assert isinstance(value(found, "roberta-base, bf16: ROSA r=8", "step"), Spread)
    times = next(table for table in found.tables if table.name == "costs_roberta-base_bf16")
    assert times.notes[0][0].text.startswith("Rank 8: ROSA's step takes ")
    assert [picture.name for picture in found.pictures] == ["costs/roberta-base", "costs/roberta-base_bf16"]


@pytest.mark.parametrize(
    ("precision", "capable", "expected"), [("fp32", 1, ["bf16"]), ("fp32", 0, []), ("bf16", 1, ["fp32"])]
)
def test_the_other_precision_is_measured_beside_the_runs_where_the_device_multiplies_in_it(
    config: Config, monkeypatch: pytest.MonkeyPatch, precision: str, capable: int, expected: list[str]
) -> None:
    """A run's is bf16 on most GPUs."""
    monkeypatch.setattr(costs, "precisions", lambda device: ("fp32", "bf16")[: 1 + capable])
    chosen = [shape for shape in costs.SHAPES if costs._possible(shape, in_precision(config, precision))]
    assert [shape.precision for shape in chosen if shape.precision] == expected
    assert len(chosen) == 3 + len(expected)


@pytest.mark.parametrize("name", ["rosa", PEFT, "full"])
def test_all_of_a_step_is_in_its_parts(workload: Workload, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is done between two timed parts, or after the last, would be in no part."""
    contender = Contender(name, load_model(workload.config), workload.config)
    timed = False
    done: list[str] = []

    def taking(action: Callable[[], object], device: str) -> float:
        nonlocal timed
        timed = True
        action()
        timed = False
        return 1.0

    def noting(thing: object, method: str) -> None:
        plain = getattr(thing, method)

        def noted(*arguments: Any, **named: Any) -> Any:
            assert timed, f"{method} is in no part"
            done.append(method)
            return plain(*arguments, **named)

        monkeypatch.setattr(thing, method, noted)

    monkeypatch.setattr("benchmarks.contenders.seconds", taking)
    for thing, method in ((contender, "forward"), (contender.optimizer, "step"), (contender.optimizer, "zero_grad")):
        noting(thing, method)
    assert list(contender.step_in_parts(workload.batch(0))) == list(PARTS)
    assert done == ["forward", "step", "zero_grad"]
    assert all(parameter.grad is None for parameter in contender.model.parameters())


def test_a_table_names_its_device_and_precision() -> None:
    """A GPU's peak is not the process's, its step is the sum of parts, and what is wanted is of its precision."""
    seconds: dict[Case, Sequence[float]] = {case: [1.0] for case in cases_at([8])}
    on_cpu = measured_as(seconds, Memory(MIB, MIB, True, 1, 1, 1))
    on_gpu = dataclasses.replace(
        measured_as(seconds, Memory(MIB, None, True, 1, 1, 1)), device="cuda", precision="bf16"
    )
    for measured, wanted, resident in (
        (on_cpu, "in fp32 at most 0.95 is", True),
        (on_gpu, "in bf16 at most 0.97 is", False),
    ):
        found = costs.findings([measured])
        times, held = ("\n".join(line[0].text for line in table.notes) for table in found.tables[:2])
        assert wanted in times
        assert f"1 steps a method in {measured.precision}, " in times
        assert ("On a GPU" in times) is not resident
        assert ("resident memory" in held) is resident
        assert ("allocated on the GPU" in held) is not resident
        labels = [axes.get_xlabel() for axes in found.pictures[0].drawing.axes]
        assert labels[1] == f"peak memory of {'the process' if resident else 'PyTorch on the GPU'}, MiB"


def test_peaks_are_measured_before_this_process_has_the_other_models(
    workload: Workload, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []

    def apart(*_: object) -> dict[Case, Memory]:
        order.append("apart")
        return {}

    def here(*_: object, **__: object) -> Measured:
        order.append("here")
        return measured_as({case: [1.0] for case in cases_at([8])}, Memory(1, 1, True, 1, 1, 1))

    monkeypatch.setattr(costs, "measure_apart", apart)
    monkeypatch.setattr(costs, "measure", here)
    monkeypatch.setattr(costs, "random_model", lambda *_: torch.nn.Linear(1, 1))
    costs.measure_workload(workload, 1)
    costs.measure_shape(costs.SHAPES[0], in_precision(workload.config, "fp32"), 1)
    assert order == ["apart", "here"] * 2


@pytest.mark.parametrize(("device", "emptied"), [("cuda", True), ("cpu", False)])
def test_a_gpus_memory_is_given_back_before_other_processes_are_measured_on_it(
    device: str, emptied: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: order.append("emptied"))
    monkeypatch.setattr(memory, "measure", lambda *_: order.append("measured"))
    monkeypatch.setattr(memory, "ProcessPoolExecutor", lambda **_: ThreadPoolExecutor(1))
    monkeypatch.setattr(memory.multiprocessing, "get_context", lambda _: SimpleNamespace(set_forkserver_preload=list))
    config: Any = SimpleNamespace(train=SimpleNamespace(device=device))
    memory.measure_apart(config, [("rosa", 8)], {})
    assert order == ["emptied"] * emptied + ["measured"]


@pytest.mark.parametrize(("name", "factors"), [("rosa", 2), ("full", 2)])
def test_memory_counts_gradients_and_both_moments_of_adam(workload: Workload, name: str, factors: int) -> None:
    held = memory.measure(name, 8, workload.config, workload.batch(0))
    model = load_model(workload.config)
    trainable = Contender(name, model, workload.config).trainable_parameters
    parameters = sum(1 for parameter in model.parameters() if parameter.requires_grad)
    assert held.gradients == 4 * trainable
    assert held.optimizer_state == factors * 4 * trainable + 4 * parameters  # and a step count each
    assert held.weights == sum(t.numel() * t.element_size() for t in (*model.parameters(), *model.buffers()))
    assert held.peak is None or held.peak > held.weights
    assert (held.resample is None) == (held.peak is None or name != "rosa")
    assert held.resample is None or held.resample > held.weights


@pytest.mark.slow
def test_memory_is_measured_in_another_process(workload: Workload, monkeypatch: pytest.MonkeyPatch) -> None:
    # The process comes from the tests' own fork server, which has imported what the command's would import again.
    forking()
    monkeypatch.setattr(forkserver, "set_forkserver_preload", lambda modules: None)
    (apart,) = memory.measure_apart(workload.config, [("rosa", 8)], workload.batch(0)).values()
    here = memory.measure("rosa", 8, workload.config, workload.batch(0))
    for key in ("weights", "gradients", "optimizer_state"):
        assert getattr(apart, key) == getattr(here, key)
    assert (apart.peak is None) == (here.peak is None)


# --- one layer -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", layer.METHODS)
def test_a_layer_computes_the_same_under_every_method_and_trains_its_factors(name: str) -> None:
    x = torch.randn(5, 48, requires_grad=True)
    frozen, adapted = (layer.adapted(each, 48, 4, 0) for each in (layer.FROZEN, name))
    wanted, found = frozen(x), adapted(x)
    torch.testing.assert_close(found, wanted)
    slopes = [torch.autograd.grad(out.sum(), x)[0] for out in (found, wanted)]
    torch.testing.assert_close(*slopes)
    trained = [parameter.numel() for parameter in adapted.parameters() if parameter.requires_grad]
    assert trained == ([] if name == layer.FROZEN else [4 * 48, 4 * 48])


def test_a_layers_ratio_is_to_the_faster_lora() -> None:
    case = (32, "bf16", 2)
    taken = {(*case, "frozen"): [1.0], (*case, "rosa"): [1.5], (*case, "lora"): [3.0], (*case, "peft"): [2.0]}
    found = layer.findings(taken)
    assert value(found, "32 bf16 rank 2", "ROSA relative to LoRA (peft)") == spread([0.75])
    (cells,) = found.table.rows
    assert [cell.text for cell in cells] == ["32", "bf16", "2", "1,000", "1,500", "3,000", "2,000", "0.750", "0.97"]


@pytest.mark.parametrize("named", [("fp32",), ("fp32", "bf16")])
def test_every_layer_is_timed_in_every_round(
    named: tuple[str, ...], workload: Workload, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the precisions of the device that it is measured on, whatever those of the CPU are."""
    monkeypatch.setattr(gemm, "precisions", lambda: pytest.fail("the CPU was asked"))
    monkeypatch.setattr(layer, "precisions", lambda device: {workload.device: named}[device])
    found = layer.benchmark(workload, 2, [32])
    times = [line for line in found.measurements if line.quantity == "forward and backward"]
    assert len(times) == len(named) * len(costs.RANKS) * len(layer.METHODS)
    assert list(dict.fromkeys(line.case.split()[1] for line in times)) == list(named)
    assert {line.value.count for line in times if isinstance(line.value, Spread)} == {2}


# --- padding ---------------------------------------------------------------------------------------------------------


def test_padding_is_compared_by_medians_means_and_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(padding, "DYNAMIC_STEPS", 3)
    seconds = {"dynamic": [0.1, 0.2, 0.9, 0.2, 0.4, 0.6], "padded": [20.0, 80.0]}
    found = padding.findings(seconds, [10, 12, 30, 9, 12, 13], 512, 32)

    assert value(found, "padded", "step relative to dynamic, medians") == pytest.approx(50 / 0.3)
    assert value(found, "padded", "step relative to dynamic, means") == pytest.approx(50 / 0.4)
    assert value(found, "padded", "step relative to dynamic, a round") == spread([100.0, 200.0])
    assert value(found, "dynamic", "examples per second") == pytest.approx(32 / 0.3)
    dynamic, padded = [[cell.text for cell in cells] for cells in found.table.rows]
    assert dynamic[1:3] == ["12.0", "6"]
    assert padded[1:3] == ["512", "2"]


def test_padding_runs(workload: Workload) -> None:
    found = padding.benchmark(workload, 2)
    assert value(found, "padded", "step").count == 2
    assert value(found, "dynamic", "step").count == 2 * padding.DYNAMIC_STEPS
    assert value(found, "padded", "tokens an example") == workload.limit


# --- factorization ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(12, 12), (12, 30), (30, 12)])
def test_the_plain_split_takes_a_weight_apart_along_its_singular_vectors(shape: tuple[int, int]) -> None:
    W = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    A, B, frozen = factorization.factorize_by_svd(W, 5, torch.Generator().manual_seed(1))
    chosen = draw_indices(12, 5, "random", torch.Generator().manual_seed(1)).tolist()
    expected = np.linalg.svd(W.numpy(), compute_uv=False)
    others = [i for i in range(12) if i not in chosen]

    torch.testing.assert_close(frozen + A @ B, W)
    assert np.linalg.svd((A @ B).numpy(), compute_uv=False)[:5] == pytest.approx(expected[chosen])
    assert np.linalg.svd(frozen.numpy(), compute_uv=False)[:7] == pytest.approx(expected[others])


def test_all_layers_are_compared_with_as_many_decompositions() -> None:
    seconds = {
        "all layers": [1.0, 2.0],
        "training step": [0.1, 0.2, 0.3],
        "resample 4 x 4": [0.1, 0.1],
        "svd 4 x 4": [0.2, 0.4],
        "resample 4 x 8": [0.2, 0.4],
        "svd 4 x 8": [1.0, 3.0],
    }
    found = factorization.findings(seconds, {(4, 4): 3, (4, 8): 2}, 50)
    assert value(found, "4 x 8", "svd relative to resample") == spread([5.0, 7.5])
    whole = value(found, "all layers", "svd")
    assert isinstance(whole, Spread)
    assert whole.median == pytest.approx((2.6 + 7.2) / 2)
    assert value(found, "training step", "epoch") == pytest.approx(10.0)
    assert value(found, "all layers", "share of an epoch") == pytest.approx(0.15)
    assert [[cell.text for cell in cells[:2]] for cells in found.table.rows] == [
        ["4 x 4", "3"],
        ["4 x 8", "2"],
        ["all layers", "5"],
    ]


def test_factorization_runs_on_every_shape(workload: Workload) -> None:
    found = factorization.benchmark(workload, 2)
    assert [(cells[0].text, cells[1].text) for cells in found.table.rows] == [("32 x 32", "8"), ("all layers", "8")]
    assert value(found, "training step", "step").count == 2 * factorization.STEPS


# --- solvers ---------------------------------------------------------------------------------------------------------

SMALL_MODELS = {"small": {(48, 16): 3, (16, 16): 2}, "smaller": {(16, 16): 5}}


def test_a_model_takes_as_long_as_its_layers() -> None:
    of_shapes = {
        (4, 4): {"ours": [1.0, 2.0], "svd32": [2.0, 3.0], "svd64": [4.0, 4.0]},
        (8, 4): {"ours": [3.0, 5.0], "svd32": [9.0, 7.0], "svd64": [9.0, 9.0]},
    }
    layers = {(4, 4): 10, (8, 4): 2}
    assert solvers._sum(layers, of_shapes, "ours") == [16.0, 30.0]
    whole = {way: solvers._sum(layers, of_shapes, way) for way in solvers.WAYS}
    found = solvers.findings([solvers.Case("model", 12, 2, whole)], {"ours": 1e-16, "svd32": 2e-7, "svd64": 3e-16}, 8)
    assert value(found, "model, 2 threads", "SVD, float32 relative to ours") == spread([38 / 16, 44 / 30])
    assert value(found, "model, 2 threads", "ours") == spread([16.0, 30.0])
    assert [cell.text for cell in found.table.rows[0][:4]] == ["model", "12", "2", "23,000 (19,500–26,500)"]
    assert "ours 1.0e-16, SVD, float32 2.0e-07" in found.table.notes[2][0].text


def test_a_gpu_is_measured_once_and_has_no_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def timed(shapes: Sequence[solvers.Shape], device: torch.device, *_: object) -> dict[Any, dict[str, list[float]]]:
        asked.append(device.type)
        return {shape: {way: [1.0] for way in solvers.WAYS} for shape in shapes}

    monkeypatch.setattr(solvers, "_time", timed)
    workload: Any = SimpleNamespace(device="cuda", config=SimpleNamespace(seed=0))
    with solvers.limited_to(3):
        found = solvers.benchmark(workload, 1, SMALL_MODELS)
        assert torch.get_num_threads() == 3
    assert asked == ["cuda"]
    assert {cells[2].text for cells in found.table.rows} == {"–"}
    assert not any("threads" in line.case for line in found.measurements)


@pytest.mark.parametrize("threads", [1, 2])
def test_solvers_run_on_one_thread_and_on_those_given(workload: Workload, threads: int) -> None:
    torch.set_num_threads(threads)
    try:
        found = solvers.benchmark(workload, 2, SMALL_MODELS, rank=4)
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(1)
    labels = ["48 x 16", "16 x 16", "small", "smaller"]
    shown = [[cell.text for cell in cells[:3]] for cells in found.table.rows]
    counts = ["1", "1", "5", "5"]
    assert shown == [[*pair, str(t)] for t in range(1, threads + 1) for pair in zip(labels, counts, strict=True)]
    assert 0 < value(found, "ours", "relative difference") < 1e-14
    assert 1e-9 < value(found, "SVD, float32", "relative difference") < 1e-5


# --- stages ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(40, 40), (64, 40)], ids=str)
def test_the_steps_that_are_timed_are_those_of_a_split(shape: tuple[int, int]) -> None:
    W = solvers.random_weight(shape, torch.Generator().manual_seed(0))
    indices = torch.tensor([3, 11, 30])
    found, taken = stages.timed_factorization(W, indices)
    expected = factorize_along(W, indices)
    assert torch.equal(found.A, expected.A)
    assert torch.equal(found.B, expected.B)
    assert tuple(taken) == stages.STAGES


def test_steps_are_summed_within_a_round() -> None:
    by_size = {
        4: {stage: [1.0, 2.0, 3.0] for stage in stages.STAGES} | {"residual": [3.0, 0.0, 1.0]},
        8: {stage: [5.0] for stage in stages.STAGES},
    }
    found = stages.findings(by_size, {4: [18.0, 6.0, 38.0]}, 1)
    assert value(found, "4 x 4", "total") == spread([9.0, 12.0, 19.0])
    assert value(found, "4 x 4", "svd relative to total") == spread([2.0, 0.5, 2.0])
    assert [[cells[i].text for i in (0, 1, -3, -2, -1)] for cells in found.table.rows] == [
        ["4 x 4", "2,000", "12,000", "3", "2.00"],
        ["8 x 8", "5,000", "35,000", "1", "–"],
    ]


def test_large_weights_are_timed_once_and_without_an_svd(workload: Workload, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stages, "LARGE", 48)
    monkeypatch.setattr(stages, "SVD", 40)
    found = stages.benchmark(workload, 3, [40, 44, 48])
    assert [(cells[-2].text, cells[-1].text == "–") for cells in found.table.rows] == [
        ("3", False),
        ("3", True),
        ("1", True),
    ]


# --- scoring ---------------------------------------------------------------------------------------------------------

SMALL_CORPUS = [["It isn't a pub.", "A pub, £20."], ["The café is near the river; it's cheap."], ["A pub."]]


def test_generated_texts_are_as_many_as_the_test_sets() -> None:
    groups = scoring.generated()
    assert (len(groups), sum(map(len, groups))) == (scoring.SEGMENTS, scoring.REFERENCES)
    assert {len(text.split()) for group in groups for text in group} == {scoring.WORDS}


@pytest.mark.skipif(shutil.which("java") is None, reason="the packages' own tokenizer needs Java")
def test_both_ways_give_the_same_scores() -> None:
    hypotheses = ["A pub near the river.", "", "It's cheap"]
    ours = score(hypotheses, SMALL_CORPUS, with_meteor=False).values()
    theirs = scoring.stock(hypotheses, SMALL_CORPUS)
    assert theirs == pytest.approx({name: ours[name] for name in theirs}, rel=1e-12)
    assert theirs["cider"] > 0


def test_scoring_is_compared_round_by_round_or_not_at_all() -> None:
    found = scoring.findings({"ours": [1.0, 2.0, 4.0], "stock": [3.0, 4.0, 20.0]}, "a corpus", SMALL_CORPUS)
    assert value(found, "stock", "time relative to ours") == spread([3.0, 2.0, 5.0])
    assert value(found, "ours", "seconds") == spread([1.0, 2.0, 4.0])
    assert "3 segments, 4 references" in found.table.notes[0][0].text
    assert "ours took 2.00 s" in found.table.notes[0][0].text
    alone = scoring.findings({"ours": [1.0]}, "a corpus", SMALL_CORPUS)
    assert "There is no Java" in alone.table.notes[-1][0].text


def test_references_are_read_by_input_and_a_wrong_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BenchmarkError, match=r"--e2e-dir .*: cannot read testset_w_refs\.csv"):
        scoring.read(tmp_path)
    path = tmp_path / scoring.TEST_SET
    path.write_text('\ufeffmr,ref\n"a, b",One.\nc,Two.\n"a, b","Three, four."\n', encoding="utf-8")
    assert scoring.read(tmp_path) == [("One.", "Three, four."), ("Two.",)]
    path.write_text("name,text\n1,2\n")
    with pytest.raises(BenchmarkError, match="columns mr and ref"):
        scoring.read(tmp_path)


def test_every_other_answer_of_the_answers_scored_is_right(workload: Workload, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(texts, "SIZES", dict.fromkeys(texts.TASKS, 40))
    tasks = [texts.of_task(task, workload, 1) for task in scoring.ANSWERED]
    table, lines = scoring.measure_answers(tasks, 2)
    assert [[cell.text for cell in cells[:2]] for cells in table.rows] == [
        ["ViGGO", "40"],
        ["SQL", "40"],
        ["GSM8K", "40"],
    ]
    assert [line.value.count for line in lines if isinstance(line.value, Spread)] == [2, 2, 2]
    for cells, least in zip(table.rows, (0.5, 0.5, 0.5), strict=True):
        assert least <= float(cells[3].text.split()[1].rstrip(",")) < 1


# --- reports ---------------------------------------------------------------------------------------------------------


def test_tables_figures_and_report_are_made_by_their_commands(workload: Workload) -> None:
    found = reports.benchmark(workload, 1, [40])
    assert [[cell.text for cell in cells[:2]] for cells in found.table.rows] == [
        ["40", page] for page in ("tables", "figures", reports.BOTH, "report")
    ]
    times = [line.value.median for line in found.measurements if isinstance(line.value, Spread)]
    assert times[2] == pytest.approx(times[0] + times[1])
    sizes = [line.value for line in found.measurements if isinstance(line.value, int)]
    assert min(sizes) > 0
    assert len(sizes) == 2


def test_a_command_that_fails_is_named_with_what_it_said(tmp_path: Path) -> None:
    with pytest.raises(BenchmarkError, match=r"make_tables\.py .* failed: error: no records under"):
        reports.make("tables", tmp_path)


def test_what_is_wanted_stands_beside_the_times() -> None:
    taken = {count: {page: [1.0] for page in reports.PAGES} for count in (2000, 5)}
    found = reports.findings(taken, dict.fromkeys(taken, (7, 10**6)))
    assert [cells[3].text for cells in found.table.rows] == ["", "", "3", "6", "", "", "", ""]


# --- decoding --------------------------------------------------------------------------------------------------------


def shrink_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, size in (("STEPS", 30), ("TEXTS", 200), ("LIMIT", 120), ("EXAMPLES", 8)):
        monkeypatch.setattr(decoding, name, size)
    monkeypatch.setattr(texts, "SIZES", dict.fromkeys(texts.TASKS, 12))
    monkeypatch.setattr(decoding, "GREEDY", dataclasses.replace(decoding.GREEDY, max_new_tokens=10))


def test_both_ways_of_decoding_write_the_same_on_every_task(
    workload: Workload, monkeypatch: pytest.MonkeyPatch
) -> None:
    shrink_decoding(monkeypatch)
    found = decoding.benchmark(workload, 1)
    assert [cells[0].text for cells in found.table.rows] == [
        one for one in ("E2E", "ViGGO", "SQL", "GSM8K") for _ in "ab"
    ]
    for task in texts.TASKS.values():
        assert value(found, f"{task}: ours", "hypotheses that are the same") == 12
        ours, theirs = value(found, f"{task}: ours", "all prompts"), value(found, f"{task}: file order", "all prompts")
        assert isinstance(ours, Spread)
        assert isinstance(theirs, Spread)
        assert value(found, f"{task}: ours", "times as fast") == ratio([theirs.median], [ours.median])


def test_hypotheses_that_differ_are_counted() -> None:
    written = {"ours": [(1, 2), (3,), ()], "file order": [(1, 2), (4,), ()]}
    one = decoding.Decoded({"ours": [1.0], "file order": [4.0]}, written, [5, 9, 7], real=True)
    found = decoding.findings({"sql": one})
    assert value(found, "SQL: ours", "hypotheses that are the same") == 2
    assert value(found, "SQL: ours", "times as fast") == Spread(4.0, 4.0, 4.0, 1)
    assert (
        "SQL: 3 prompts, the official test split, of 7 (9) tokens; hypotheses of 1 (2), 2 of them equal both ways."
        in [line[0].text for line in found.table.notes]
    )


def test_a_tasks_official_files_are_read_where_they_are_given(workload: Workload, tmp_path: Path) -> None:
    for name in ("trainset.csv", "devset.csv", "testset_w_refs.csv"):
        (tmp_path / name).write_text(f'mr,ref\n"name[{name}]",One.\n"name[{name}]",Two.\n')
    real = texts.of_task("e2e", dataclasses.replace(workload, e2e_dir=tmp_path), 10)
    assert real.real
    assert real.prompts == ["Input: name[testset_w_refs.csv] Output:"]
    assert real.groups[0].references == ("One.", "Two.")
    made = texts.of_task("e2e", workload, 5)
    assert not made.real
    assert len(made.prompts) == texts.SIZES["e2e"]


def small_gpt2() -> GPT2Config:
    return GPT2Config(vocab_size=50, n_layer=1, n_embd=32, n_head=2, n_positions=80)


def test_every_stage_of_the_full_size_is_measured() -> None:
    shape = small_gpt2()
    measured, parameters = full_size.measure(shape, "cpu")
    names = ["to the device", "attach", "training step", "resample", "merge", "decode"]
    assert [stage.name for stage in measured] == names
    assert parameters == sum(p.numel() for p in GPT2LMHeadModel(shape).parameters())
    found = full_size.findings([measured, measured], parameters)
    assert value(found, "resample", "time") == spread([measured[3].seconds] * 2)
    assert value(found, "decode", "peak memory") == measured[5].peak


# --- sparse parts ----------------------------------------------------------------------------------------------------


def test_the_ways_to_multiply_agree() -> None:
    problem = sparse.Problem.of(40, seed=0)
    whole = problem.weight + dense(problem.values, problem.support)
    expected = (problem.x @ whole.T, problem.grad @ whole)
    gathered = (problem.grad.T @ problem.x).flatten()[problem.support.index.long()]
    for way in sparse.WAYS.values():
        for found, wanted in zip(way(problem), (*expected, gathered), strict=True):
            torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)


def test_the_peak_counts_what_lives_at_once() -> None:
    x = torch.ones(1000)

    def action() -> torch.Tensor:
        y = x + 1
        y = y * 2  # the first one is freed only now
        return y[:10].sum() + y.view(10, 100).sum()

    assert 2 * 4000 <= peak_bytes(action) <= 2 * 4000 + 100


def test_memory_that_was_there_before_is_counted_once_it_is_used_anew() -> None:
    held = [torch.ones(1000) for _ in range(100)]

    def action() -> list[torch.Tensor]:
        while held:
            held.pop().add_(1)
        return [torch.ones(1000) for _ in range(100)]

    assert peak_bytes(action) == 100 * 4000


# --- scaling ---------------------------------------------------------------------------------------------------------


def test_a_model_of_the_costs_scales_each_term_on_its_own() -> None:
    """Twice as wide: eight times both terms. Twice as long in one direction: twice the Gram matrix alone."""
    one = scaling.Width(Spread(1.0, 1, 1, 1), Spread(10.0, 10, 10, 1), Spread(0.1, 0.1, 0.1, 1))
    assert scaling.modelled((100, 100), 100, one) == 11
    assert scaling.modelled((200, 200), 100, one) == 88
    assert scaling.modelled((200, 100), 100, one) == scaling.modelled((100, 200), 100, one) == 12
    layers = {count: growth.Growth(Spread(2.0 * count, 1, 1, 3), 2**30) for count in (1, 4)}
    found = scaling.findings({100: one, 50: one}, {}, layers, 100)
    assert [cells[3].text for cells in found.table.rows] == ["0.125", "–"]
    assert [cells[2].text for cells in found.further[0].rows] == ["1.00", "1.00"]  # time a layer
    assert [cells[3].text for cells in found.further[1].rows] == ["beyond"] * 3
    eight_b = 32 * (2 * 4096**2 + 2 * 1024 * 4096)
    assert [cell.text for cell in found.further[1].rows[1][-2:]] == [
        number(2 * 2 * eight_b / 2**30 / rate) for rate in (1, 10)
    ]


def test_the_layers_table_is_of_the_layers_width(workload: Workload) -> None:
    """And not of the last width of the weights that are factorized alone."""
    found = scaling.benchmark(workload, 1, widths=(32, 40), width=48)
    assert "square layers of 48 x 48," in found.further[0].notes[0][0].text
    cases = {line.case for line in found.measurements if "layers of" in line.case}
    assert cases == {f"{count} layers of 48 x 48" for count in growth.LAYERS}
    threads = torch.get_num_threads()
    modelled = value(found, "8 layers of 48 x 48", "modelled memory of the resample")
    assert modelled == growth.resample_bytes((48, 48), 8, threads)


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_the_memory_of_a_resample_grows_with_the_threads_and_not_with_the_layers(
    threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As modelled, within a twentieth; what the factorizing threads themselves allocate is not seen here."""
    monkeypatch.setattr("rosa.adapters.rosa.layers_at_once", lambda *_: threads)
    width, peaks = 512, {}
    for count in (1, 3, 6):
        model = growth.stack(count, width, seed=0)
        peaks[count] = peak_bytes(lambda model=model: resample(model, generator=torch.Generator().manual_seed(0)))
        modelled = growth.resample_bytes((width, width), count, threads)
        factors = 2 * count * 8 * growth.RANK * width  # of all layers, in float64 and as they are stored
        assert modelled <= peaks[count] <= 1.05 * modelled + 2 * factors
    assert peaks[6] < 1.1 * peaks[3]


@pytest.mark.parametrize(("shape", "layers", "threads", "matrices"), [
    ((100, 100), 1, 1, 3), ((100, 100), 8, 1, 3), ((100, 100), 8, 2, 4), ((300, 100), 3, 8, 6),
])  # fmt: skip
def test_the_modelled_memory_of_a_resample(shape: tuple[int, int], layers: int, threads: int, matrices: int) -> None:
    assert growth.resample_bytes(shape, layers, threads) == matrices * 8 * shape[0] * shape[1]


def test_a_resample_is_measured_by_number_of_layers() -> None:
    found = growth.benchmark(2, 0, width=32, numbers=(1, 2))
    assert [one.time.count for one in found.values()] == [2, 2]
    table, lines = growth.table(found, 32)
    assert [cells[0].text for cells in table.rows] == ["1", "2"]
    assert len(lines) == 4 + sum(one.peak is not None for one in found.values())


def test_a_randomized_solver_finds_a_subspace_only_where_there_is_a_gap() -> None:
    """After rank 4 the first weight has a gap of 10^6, the second none; either split is exact."""
    Q = torch.linalg.qr(torch.randn(60, 60, dtype=torch.float64, generator=torch.Generator().manual_seed(0))).Q
    spectrum = torch.ones(60, dtype=torch.float64)
    spectrum[:4] = torch.tensor([4e6, 3e6, 2e6, 1e6])
    steep = scaling.randomized(Q * spectrum @ Q.T, 4, 1, seed=0)
    flat = scaling.randomized(Q * torch.linspace(1, 0.9, 60, dtype=torch.float64) @ Q.T, 4, 1, seed=0)
    assert steep.sine < 1e-9
    assert 0.1 < flat.sine <= 1
    assert max(steep.change, flat.change) < 1e-14


def test_the_language_models_have_their_attention_parameters() -> None:
    """Two square layers and two of the key and value heads' width, in each of 16, 32 and 80."""
    for (name, layers), (count, width, heads) in zip(
        scaling.LANGUAGE_MODELS.items(), [(16, 2048, 512), (32, 4096, 1024), (80, 8192, 1024)], strict=True
    ):
        parameters = sum(out * into * number for (out, into), number in layers.items())
        assert parameters == count * (2 * width * width + 2 * heads * width), name


# --- the rate of matrix products --------------------------------------------------------------------------------------


def test_the_products_of_a_step_are_counted_by_shape_and_repeated_alone() -> None:
    x, layer = torch.randn(10, 64), torch.nn.Linear(64, 48)
    with gemm.Recorder() as found:
        layer(x).sum().backward()
        torch.randn(3, 2, 4) @ torch.randn(3, 4, 5)
    shapes = {tuple(shape for shape, _, _ in product.operands): count for product, count in found.products.items()}
    assert shapes == {((48,), (10, 64), (64, 48)): 1, ((48, 10), (10, 64)): 1, ((3, 2, 4), (3, 4, 5)): 1}
    assert found.operations == 2 * (2 * 10 * 64 * 48) + 2 * 3 * 2 * 4 * 5
    with gemm.Recorder() as again:
        gemm.Replay([found.products])(0)
    assert again.products == found.products


def test_products_that_add_to_a_given_matrix_are_counted_and_repeated_too() -> None:
    """As ROSA's: forward three and backward five, of which each of the weight's size is one of two."""
    x, rank = torch.randn(10, 48, requires_grad=True), 4
    adapted = layer.adapted("rosa", 48, rank, 0)
    with gemm.Recorder() as found:
        adapted(x).sum().backward()
    assert found.products.total() == 3 + 5
    assert found.operations == 2 * 10 * (2 * 48 * 48 + 6 * rank * 48)
    with gemm.Recorder() as again:
        gemm.Replay([found.products])(0)
    assert again.products == found.products


@pytest.mark.parametrize("is_fused", [True, False])
def test_attentions_products_are_told_apart_and_those_of_a_fused_kernel_are_said_to_be_hidden(is_fused: bool) -> None:
    query = torch.randn(1, 2, 4, 8)
    backend = SDPBackend.FLASH_ATTENTION if is_fused else SDPBackend.MATH
    with gemm.Recorder() as found, sdpa_kernel(backend):
        functional.scaled_dot_product_attention(query, query, query)
        query[0, 0] @ torch.randn(8, 3)
    assert found.hides is is_fused
    assert found.batched == (0 if is_fused else 2 * 2 * (2 * 4 * 4 * 8))
    assert found.operations == found.batched + 2 * 4 * 8 * 3


def reached(hides: bool) -> gemm.Reached:
    one = Spread(1.0, 1.0, 1.0, 3)
    parts = dict.fromkeys((*gemm.PARTS, gemm.OUTSIDE), 0.0)
    return gemm.Reached(one, 10**10, 2 * 10**9, hides, Spread(0.675, 0.6, 0.7, 3), one, one, one, one, parts, {})


@pytest.mark.parametrize(
    ("hides", "expected"),
    [
        ([False, False], "attention's, which are plain products, are counted: GFLOP 2.00 (Full, fp32)."),
        ([True, True], "nor attention's, which are in a fused kernel (the part attention below)."),
    ],
)
def test_the_table_of_the_rate_says_where_attentions_products_are(hides: list[bool], expected: str) -> None:
    cases = [("full", "fp32"), ("rosa", "fp32")]
    found = {case: reached(one) for case, one in zip(cases, hides, strict=True)}
    table = gemm.findings([gemm.Model("tiny", [8], {"fp32": Spread(1e9, 1, 1, 3)}, found)]).table
    assert table.notes[0][0].text.endswith(expected)
    at = table.header.index("GFLOP, x full")
    assert [cells[at].text for cells in table.rows] == ["1", "0.675"]


def test_a_frozen_layer_costs_a_product_less(workload: Workload) -> None:
    """Full fine-tuning does three products of each weight's size; an adapter two and its own."""
    counted = {}
    for name in ("full", "rosa"):
        contender = Contender(name, load_model(workload.config), workload.config)
        contender.step(workload.batch(0))
        with gemm.Recorder() as found:
            contender.step(workload.batch(0))
        counted[name] = found.operations
    assert counted["rosa"] < counted["full"]


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [
        ({"avx2": True, "avx512_bf16": False, "amx_bf16": False}, ["fp32"]),
        ({"avx2": True, "avx512_bf16": True, "amx_bf16": False}, ["fp32", "bf16"]),
        ({"sve": True, "arm_bf16": True}, ["fp32", "bf16"]),
    ],
)
def test_bf16_is_measured_where_the_cpu_multiplies_in_it(
    monkeypatch: pytest.MonkeyPatch, capabilities: dict[str, bool], expected: list[str]
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    assert list(gemm.precisions()) == expected


def test_a_model_is_built_for_each_precision(workload: Workload, monkeypatch: pytest.MonkeyPatch) -> None:
    built: list[tuple[str, str]] = []

    def build(config: Config) -> Any:
        model = load_model(config)
        built.append((config.train.precision, model.config._attn_implementation))
        return model

    monkeypatch.setattr(gemm, "METHODS", ("full", "rosa"))
    monkeypatch.setattr(gemm, "SQUARE", 32)
    monkeypatch.setattr(gemm, "precisions", lambda: gemm.PRECISIONS)
    found = gemm.measure("tiny", build, workload.config, [workload.batch(0)])
    assert built == [("fp32", "sdpa"), ("bf16", "eager")]
    assert list(found.reached) == [(name, precision) for precision in ("fp32", "bf16") for name in ("full", "rosa")]


def test_every_operator_is_in_one_part(workload: Workload) -> None:
    contender = Contender("robust", load_model(workload.config), workload.config)
    parts, others = gemm.profiled(contender, workload.batch(0))
    assert list(parts) == [*gemm.PARTS, gemm.OUTSIDE]
    assert sum(parts.values()) == pytest.approx(1)
    assert min(parts.values()) >= 0
    assert all(parts[name] > 0 for name in gemm.PARTS)
    assert 0 < len(others) <= gemm.LARGEST
    assert sum(others.values()) <= parts["others"]


@pytest.mark.parametrize(
    ("operators", "part"),
    [
        ("mm addmm addmm_ bmm baddbmm", "products"),
        ("_softmax _softmax_backward_data _scaled_dot_product_flash_attention_for_cpu _safe_softmax", "attention"),
        ("native_dropout native_dropout_backward bernoulli_", "dropout"),
        ("native_layer_norm native_layer_norm_backward", "normalization"),
        ("linalg_vector_norm _fused_adamw_ _foreach_mul_", "optimizer"),
        ("copy_ _to_copy clone cat", "casts, copies"),
        ("gelu gelu_backward add_ mul sum tanh_backward", "element-wise"),
        ("embedding embedding_dense_backward index_select", "embeddings"),
        ("empty empty_strided zeros fill_ zero_", "new memory"),
        ("view _unsafe_view t transpose expand detach slice unsqueeze", "views"),
        ("index_add_ sparse_sampled_addmm", "sparse part"),
        ("linear nll_loss_forward", "others"),
    ],
)
def test_operators_are_in_the_part_that_names_them(operators: str, part: str) -> None:
    assert {name: gemm.part_of(name) for name in operators.split()} == dict.fromkeys(operators.split(), part)


# --- everything together ---------------------------------------------------------------------------------------------


def test_everything_is_written_for_people_and_for_programs(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def here(config: Config, cases: Sequence[Case], batch: Batch) -> dict[Case, Memory]:
        return dict.fromkeys(cases, memory.measure("rosa", 2, config, batch))

    monkeypatch.setattr(costs, "measure_apart", here)  # a process a case takes long, and one is tested above
    monkeypatch.setattr(costs, "SHAPES", ())
    gain = compiled.Gain([1.0], [1.0], 1.0, 0, 0, None)  # compiling takes long, and is tested on its own
    stand_in = compiled.findings("benchmark_compile", [compiled.Model("tiny", [1], {("fp32", ("full", 0)): gain})])
    monkeypatch.setitem(suite.BENCHMARKS, "compile", (lambda w, n: stand_in, 1))
    monkeypatch.setitem(suite.OBSTACLES, "compile", lambda device: "")
    beside = against.findings({"start": [2.0]}, {"start": [1.0]})  # pretraining twice takes minutes
    monkeypatch.setitem(suite.BENCHMARKS, "against", (lambda w, n: beside, 1))
    monkeypatch.setitem(suite.OBSTACLES, "against", lambda device: "")
    monkeypatch.setitem(suite.BENCHMARKS, "solvers", (lambda w, n: solvers.benchmark(w, n, SMALL_MODELS), 1))
    monkeypatch.setitem(suite.BENCHMARKS, "stages", (lambda w, n: stages.benchmark(w, n, [32, 40]), 1))
    monkeypatch.setitem(suite.BENCHMARKS, "sparse", (lambda w, n: sparse.benchmark(w, n, [32, 40]), 1))
    monkeypatch.setitem(suite.BENCHMARKS, "layer", (lambda w, n: layer.benchmark(w, n, [32]), 1))
    monkeypatch.setattr(gemm, "METHODS", ("full", "robust"))
    monkeypatch.setattr(gemm, "SQUARE", 32)
    monkeypatch.setattr(gemm, "random_model", lambda shape, config: load_model(config))
    monkeypatch.setattr(gemm, "random_texts", lambda *_: prepare(config).batch(0))
    monkeypatch.setitem(suite.BENCHMARKS, "scaling", (lambda w, n: scaling.benchmark(w, n, [32, 40], 32), 1))
    monkeypatch.setitem(suite.BENCHMARKS, "scoring", (lambda w, n: scoring.measure(SMALL_CORPUS, n, "a corpus"), 1))

    shrink_decoding(monkeypatch)
    full = full_size.findings([full_size.measure(small_gpt2(), "cpu")[0]], 1)
    monkeypatch.setitem(suite.BENCHMARKS, "full_size", (lambda w, n: full, 1))
    monkeypatch.setitem(suite.BENCHMARKS, "reports", (lambda w, n: reports.benchmark(w, n, [40]), 1))
    text = suite.run(config, tmp_path, ["all"], repeats=1)

    stems = {name: "costs" if name == "costs" else f"benchmark_{name}" for name in NAMES if name != "gpu"}
    written = {path.name for path in (tmp_path / "tables").iterdir()}
    assert written == {f"{stem}.{ending}" for stem in stems.values() for ending in ("md", "tex", "csv")}
    assert "\n".join((tmp_path / "tables" / f"{stem}.md").read_text() for stem in stems.values()) == text
    for name, stem in stems.items():
        with (tmp_path / "tables" / f"{stem}.csv").open(newline="") as file:
            assert {line["benchmark"] for line in csv.DictReader(file)} == {name, "workload", "environment"}
    with (tmp_path / "tables" / "costs.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    facts = {line["quantity"]: line["value"] for line in lines if line["benchmark"] in ("workload", "environment")}
    assert facts["torch"] == torch.__version__
    assert facts["device"] == "cpu"
    assert facts["data"].startswith("generated text in the shape of CoLA's training split, 96 examples")
    timed = {line["case"]: line for line in lines if line["quantity"] == "step" and line["benchmark"] == "costs"}
    model = config.model.name
    assert list(timed) == [f"{model}: {case_label(case)}" for case in cases_at(costs.RANKS)]
    first_table = text.split("\n\n")[1]
    for label, line in timed.items():
        (shown,) = [row for row in first_table.splitlines() if row.startswith(f"| {label.partition(': ')[2]} ")]
        assert number(1000 * float(line["value"])) in shown
        assert line["samples"] == "1"
    assert (tmp_path / "figures" / "costs" / f"{model}.svg").is_file()


@pytest.mark.parametrize("name", NAMES)
def test_the_facts_of_a_table_are_of_where_it_was_measured(
    name: str, workload: Workload, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a machine with a GPU, where a run would be in bf16."""
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "a GPU")
    config = in_precision(with_train(workload.config, device="cuda"), "bf16")
    facts = suite._facts(name, dataclasses.replace(workload, config=config), {"left out": "x"})
    on_cpu = name in ("against", "stages", "scaling", "gemm", "scoring", "reports")
    assert facts["environment"]["device"] == ("cpu" if on_cpu else "a GPU")
    in_bf16 = name in ("costs", "padding", "factorization", "sparse")
    assert facts["workload"].get("precision") == ("bf16" if in_bf16 else None)
    assert facts["workload"]["left out"] == "x"


@pytest.fixture
def cola_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "glue" / "CoLA"
    folder.mkdir(parents=True)
    for name, rows in (("train", 40), ("dev", 8)):
        text = "".join(f"x\t{i % 2}\t\tThe {name} number {i} is here.\n" for i in range(rows))
        (folder / f"{name}.tsv").write_text(text)
    return folder.parent


def test_the_script_measures_on_real_files_and_an_own_model(
    cola_folder: Path,
    tiny_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    results = tmp_path / "results"
    options = ["--data-dir", cola_folder, "--batch-size", 8, "--device", "cpu", f"model={tiny_model}"]
    assert script(monkeypatch, "benchmark", "factorization", *options, "--repeats", 1, "--results", results) == 0
    said = capsys.readouterr()
    table = f"benchmark_factorization_{tiny_model.name}"
    assert (results / "tables" / f"{table}.md").read_text().strip() == said.out.strip()
    assert "the real CoLA's training split, 40 examples" in said.out
    assert "factorization: 100%" in said.err
    with (results / "tables" / f"{table}.csv").open(newline="") as file:
        assert {line["benchmark"] for line in csv.DictReader(file)} == {"factorization", "workload", "environment"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["model=no/such/folder"], "model=no/such/folder: no such folder; expected one of gpt2, "),
        ([f"model={__file__}"], "/test_benchmark.py: a file; expected one of gpt2, "),
        (["model=mlp"], "model=mlp: a network for vectors; the benchmarks measure models of texts"),
        (["model="], "model=: expected model=PATH_OR_NAME"),
        (["rank=8"], "rank=8: expected model=PATH_OR_NAME"),
        (["model=minilm", "model=gpt2"], "model=minilm model=gpt2: expected one model"),
        (["layer", "model=minilm"], "model=minilm: layer cannot measure a model of your own; costs, compile, padding,"),
        (
            ["cost"],
            "no benchmark cost; there are costs, layer, compile, against, gpu, padding, factorization, solvers,",
        ),
        (["--repeats", "0"], "--repeats 0: expected at least 1"),
        (["--batch-size", "0"], "train.batch_size=0"),
        (["--results", __file__], f"--results {__file__}/tables: cannot be written"),
    ],
)
def test_the_script_refuses_bad_arguments_in_two_lines(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert script(monkeypatch, "benchmark", *arguments) == 2
    said = capsys.readouterr().err.strip()
    assert said.startswith("error: ")
    assert message in said
    assert said.count("\n") == 1
    assert list(tmp_path.rglob("benchmark.*")) == []


@pytest.mark.parametrize("arguments", [["cost"], ["--repeats", "0"], ["layer", "model=someone/model"], ["rank=8"]])
def test_words_are_checked_before_pytorch_is_imported_and_a_hub_is_asked(arguments: list[str]) -> None:
    done = command("scripts/benchmark.py", *arguments, light=True)
    assert (done.returncode, done.torch) == (2, False), done.stderr


def test_a_missing_gpu_is_refused(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match="no CUDA device"):
        prepare(with_train(config, device="cuda"))


def test_without_real_files_the_text_is_generated() -> None:
    config = configure(CONF, "minilm", None, "cpu", 32)
    assert (config.data.source, config.data.train_size) == ("mini", 8551)
    with pytest.raises(ConfigError, match=r"train\.batch_size=-1"):
        configure(CONF, "minilm", None, "cpu", -1)


def test_the_peaks_stop_at_the_first_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread stands for the processes; without the rest being cancelled, all would be measured first."""
    asked: list[str] = []

    def fails(name: str, *_: object) -> None:
        asked.append(name)
        if name == "lora0":
            raise MemoryError(name)
        time.sleep(0.05)

    monkeypatch.setattr(memory, "measure", fails)
    monkeypatch.setattr(memory, "ProcessPoolExecutor", lambda **_: ThreadPoolExecutor(1))
    config: Any = SimpleNamespace(train=SimpleNamespace(device="cuda"))  # whose pool imports nothing ahead
    with pytest.raises(MemoryError, match="lora0"):
        memory.measure_apart(config, [(f"lora{i}", 8) for i in range(20)], {})
    assert len(asked) < 20


@pytest.mark.parametrize("name", ["decoding", "scoring"])
def test_files_of_e2e_that_cannot_be_read_are_refused_before_anything_is_measured(
    name: str, config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def measured(workload: Workload, rounds: int) -> Findings:
        raise AssertionError("measured")

    for one in suite.BENCHMARKS:
        monkeypatch.setitem(suite.BENCHMARKS, one, (measured, 1))
    with pytest.raises(RosaError, match=re.escape(str(tmp_path / "nothing"))):
        suite.run(config, tmp_path, ["padding", name], e2e_dir=tmp_path / "nothing")
