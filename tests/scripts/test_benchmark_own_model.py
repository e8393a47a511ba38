"""``scripts/benchmark.py model=PATH_OR_NAME``: a model of the user's alone, as what its configuration says it is."""

from __future__ import annotations

import csv
import dataclasses
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from benchmarks import BenchmarkError, costs, fitting, gemm, memory, own_model, suite, workload
from benchmarks.contenders import LABELS, RANKED
from benchmarks.measured import Case, case_label, cases_at
from benchmarks.memory import Memory
from benchmarks.workload import Batch, Workload, configure, load_model, prepare, sizes
from torch import nn
from transformers import BertConfig, BertForMaskedLM, GPT2Config, PreTrainedConfig, RobertaConfig

from rosa.config import Config, ModelConfig
from rosa.models import pretrained
from rosa.run import build
from tests.commands import script
from tests.conftest import ROOT

CONF = ROOT / "conf"
COMMITTED = {"costs.md": "the committed table", "costs.csv": "its numbers"}


@pytest.fixture(scope="module")
def tiny_bert(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """A BERT of a few thousand random weights, saved with its head for masked tokens."""
    folder = tmp_path_factory.mktemp("models") / "tiny bert"
    shutil.copytree(tiny_model, folder)
    (folder / "model.safetensors").unlink()
    shape = json.loads((folder / "config.json").read_text())
    torch.manual_seed(0)
    bert = BertConfig(
        vocab_size=shape["vocab_size"],
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
        pad_token_id=shape["pad_token_id"],
    )
    BertForMaskedLM(bert).save_pretrained(folder)
    return folder


def here(config: Config, cases: Sequence[Case], batch: Batch) -> dict[Case, Memory]:
    """Instead of a process for each case."""
    return dict.fromkeys(cases, memory.measure("rosa", 2, config, batch))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "name", "text", "ranks"),
    [("bert", "tiny-bert", "CoLA's", (2, 8, 32)), ("gpt2", "", "E2E's", (2, 8))],
)
def test_a_users_model_alone_is_measured_into_files_of_its_own(
    kind: str,
    name: str,
    text: str,
    ranks: Sequence[int],
    tiny_bert: Path,
    tiny_gpt2: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A GPT-2 whose layers are 16 wide has no rank 32. Its head is its own; a BERT's is a new classifier."""
    monkeypatch.setattr(costs, "measure_apart", here)
    monkeypatch.setattr(costs, "random_model", lambda *_: pytest.fail("a shape of the project was measured too"))
    folder = {"bert": tiny_bert, "gpt2": tiny_gpt2}[kind]
    name = name or own_model.file_name(folder.name)
    tables = tmp_path / "tables"
    tables.mkdir()
    for file, content in COMMITTED.items():
        (tables / file).write_text(content)

    options = ["--repeats", 1, "--batch-size", 4, "--device", "cpu", "--results", tmp_path]
    assert script(monkeypatch, "benchmark", *options, f"model={folder}") == 0
    said = capsys.readouterr().out
    assert f"generated text in the shape of {text} training split" in said
    assert {path.name: path.read_text() for path in tables.iterdir() if path.name in COMMITTED} == COMMITTED
    assert {path.name for path in tables.iterdir()} - set(COMMITTED) == {
        f"costs_{name}.{e}" for e in ("md", "csv", "tex")
    }
    assert {path.name for path in (tmp_path / "figures").iterdir()} == {f"costs_{name}.svg", f"costs_{name}.csv"}
    with (tables / f"costs_{name}.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    steps = [line["case"] for line in lines if line["quantity"] == "step"]
    assert steps == [f"{name}: {case_label(case)}" for case in cases_at(ranks)]
    assert ("Only ranks up to 16" in said) == (kind == "gpt2")
    sizes = {line["case"]: float(line["value"]) for line in lines if line["quantity"] == "trainable parameters"}
    two, eight = (sizes[f"{name}: LoRA (peft) r={rank}"] for rank in (2, 8))
    # Linear in the rank without a head; a BERT's classifier and pooler train besides.
    assert (eight == 4 * two) == (kind == "gpt2")


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        (GPT2Config(architectures=["GPT2LMHeadModel"]), True),
        (GPT2Config(architectures=["GPT2ForSequenceClassification"]), False),
        (GPT2Config(architectures=["GPT2Model"]), True),
        (GPT2Config(), True),
        (RobertaConfig(architectures=["RobertaForMaskedLM"]), False),
        (RobertaConfig(architectures=["RobertaForCausalLM"]), True),
        (BertConfig(architectures=["BertModel"]), False),
        (BertConfig(), False),
    ],
)
def test_the_configuration_says_what_a_model_is(shape: PreTrainedConfig, expected: bool) -> None:
    assert own_model._is_causal(shape) is expected


def test_a_name_under_conf_is_that_model() -> None:
    config = configure(CONF, "mini-gpt2", None, "cpu")
    assert (config.model.source, config.task.name, config.train.batch_size) == ("mini", "e2e", 8)
    config = configure(CONF, "mini-roberta", None, "cpu")
    assert (config.model.source, config.task.name, config.train.batch_size) == ("mini", "cola", 32)


def test_a_language_model_reads_e2es_files(tiny_gpt2: Path, tmp_path: Path) -> None:
    config = configure(CONF, str(tiny_gpt2), None, "cpu", 4, tmp_path)
    assert (config.data.source, config.data.dir) == ("local", str(tmp_path))
    with pytest.raises(BenchmarkError, match=f"--data-dir {tmp_path}: model={tiny_gpt2} is measured on E2E's texts"):
        configure(CONF, str(tiny_gpt2), tmp_path, "cpu", 4)


def test_a_hubs_model_that_cannot_be_had_is_refused_before_anything_slow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(pretrained, "why_unreachable", lambda: "the hub cannot be reached")
    monkeypatch.setattr(suite, "prepare", lambda *_: pytest.fail("the data were read first"))
    assert script(monkeypatch, "benchmark", "model=someone/no-such-model", "--results", tmp_path) == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert said == [
        "error: model=someone/no-such-model: not in the hub's cache on this machine, and the hub cannot be reached; "
        "there is no such folder here",
        "help: python scripts/benchmark.py --help",
    ]


def test_a_hubs_model_is_named_after_its_repository() -> None:
    assert own_model.named("someone/some.model", ()) == ModelConfig("some.model", "hub", "someone/some.model")
    assert own_model.file_name("my model/é!") == "my-model-é"


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BenchmarkError, match=rf"model={tmp_path}: expected config.json in {tmp_path}; found: nothing"):
        configure(CONF, str(tmp_path))
    (tmp_path / "config.json").write_text('{"model_type": "no such type"}')
    with pytest.raises(BenchmarkError, match=rf"model={tmp_path}: .*no such type"):
        configure(CONF, str(tmp_path))


def test_a_model_without_attention_layers_is_refused_with_those_it_has() -> None:
    plain = nn.Sequential(nn.Linear(16, 16), nn.Linear(16, 16))
    with pytest.raises(BenchmarkError, match=r"model=x: cannot be adapted .* match none of the 2 linear layers of"):
        own_model.check_targets(plain, "x")


# --- what fits -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def plain(tiny_bert: Path) -> Any:
    return load_model(configure(CONF, str(tiny_bert), None, "cpu", 4))


def test_only_one_rank_is_measured_where_memory_is_short(plain: Any) -> None:
    whole, ranks = fitting._needed(plain, cases_at([2, 8])), [2, 8]
    assert fitting.possible_cases(plain, ranks, "x", None) == (cases_at(ranks), [])
    assert fitting.possible_cases(plain, ranks, "x", whole) == (cases_at(ranks), [])
    found, said = fitting.possible_cases(plain, ranks, "x", whole - 1)
    assert found == cases_at([8])
    assert said == ["Only rank 8: all methods are measured side by side, a model each, and memory is short."]
    with pytest.raises(BenchmarkError, match=r"model=x: all methods are measured side by side, .* GiB are free"):
        fitting.possible_cases(plain, ranks, "x", 1000)
    assert len(cases_at([2, 8])) - len(found) == len(RANKED)


def test_a_layer_narrower_than_the_rank_is_refused(plain: Any) -> None:
    narrow = nn.ModuleDict({"attention": nn.Linear(64, 4)})
    with pytest.raises(BenchmarkError, match="model=x: an adapted layer has a side of 4, and methods have rank 8"):
        fitting.possible_cases(narrow, [2, 8], "x", None)


def test_a_method_that_does_not_know_the_architecture_is_left_out_and_said() -> None:
    model = nn.ModuleDict({"attention": nn.Linear(64, 64)})
    found, said = fitting.possible_cases(model, [8], "x", None)
    assert found == [case for case in cases_at([8]) if case[0] != "ia3"]
    assert len(said) == 1
    assert said[0].startswith("Without (IA)3: (IA)3 found no key and value layer in ModuleDict")
    assert {name for name, _ in found} == set(LABELS) - {"ia3"}


def test_free_memory_is_known_on_linux() -> None:
    assert fitting.free_memory("cpu") is None or fitting.free_memory("cpu") > 2**20


def test_the_rate_of_products_is_measured_of_that_model_alone(tiny_bert: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gemm, "METHODS", ("full", "rosa"))
    monkeypatch.setattr(gemm, "SQUARE", 32)
    monkeypatch.setattr(gemm, "precisions", lambda: {"fp32": torch.float32})
    monkeypatch.setattr(gemm, "random_model", lambda *_: pytest.fail("a shape of the project was measured too"))
    config = configure(CONF, str(tiny_bert), None, "cpu", 4)
    found = gemm.benchmark(prepare(config, asked=str(tiny_bert)), 1)
    assert [table.name for table in found.tables] == ["gemm_tiny-bert", "gemm_parts_tiny-bert"]


def test_all_means_those_that_measure_a_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(suite, "OBSTACLES", {})
    found, _ = suite._possible(["all"], "cpu", suite.OF_A_MODEL)
    assert set(found) == set(suite.OF_A_MODEL)
    assert [suite._stem(name, "mine") for name in found[:2]] == ["costs_mine", "benchmark_compile_mine"]


def few_rows(config: Config) -> Config:
    return dataclasses.replace(config, data=dataclasses.replace(config.data, train_size=40, evaluation_size=4))


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_batches_are_those_of_training(
    device: str, tiny_gpt2: Path, tiny_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As it is, and compiled; the device of each is the CPU, so that only the batches' lengths are a GPU's."""
    monkeypatch.setattr(workload, "moved", lambda batch, _: batch)
    kept = {}
    for folder in (tiny_gpt2, tiny_bert):
        prepared = prepare(few_rows(configure(CONF, str(folder), None, "cpu", 4)))
        train = dataclasses.replace(prepared.config.train, device=device)
        prepared = dataclasses.replace(prepared, config=dataclasses.replace(prepared.config, train=train))
        for compiled in (False, True):
            asked = dataclasses.replace(train, compile=compiled)
            config = dataclasses.replace(prepared.config, cache_dir=str(tmp_path), train=asked)
            parts = build.gather(config, build.read(config))
            for number in range(3):
                wanted = parts.collator([parts.train[row] for row in prepared.order[number]])
                found = prepared.batch(number, compiled)
                assert list(found) == list(wanted)
                for name, value in wanted.items():
                    assert torch.equal(torch.as_tensor(found[name]), torch.as_tensor(value)), name
                kept[folder, compiled] = "logits_to_keep" in found
    assert [place for place, found in kept.items() if found] == [(tiny_gpt2, False)]


def test_batches_of_texts_have_labels_for_the_tokens_of_the_reference(tiny_gpt2: Path) -> None:
    workload: Workload = prepare(configure(CONF, str(tiny_gpt2), None, "cpu", 4))
    batch, whole, padded = workload.batch(0), workload.batch(0, compiled=True), workload.padded_batch(0)
    assert whole["labels"].shape == whole["input_ids"].shape
    counted = whole["labels"] != -100
    assert 0 < int(counted.sum()) < int(whole["attention_mask"].sum())
    assert torch.equal(whole["labels"][counted], whole["input_ids"][counted])
    for trimmed in (batch, padded):
        assert trimmed["labels"].shape[1] == trimmed["logits_to_keep"] < trimmed["input_ids"].shape[1]
        assert int((trimmed["labels"] != -100).sum()) == int(counted.sum())
    assert SimpleNamespace(**workload.describe()).model == own_model.file_name(tiny_gpt2.name)


def test_products_are_counted_for_each_number_of_outputs(tiny_gpt2: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two batches of as many tokens, of which one makes half of the outputs."""
    monkeypatch.setattr(gemm, "METHODS", ("full",))
    monkeypatch.setattr(gemm, "SQUARE", 32)
    monkeypatch.setattr(gemm, "precisions", lambda: {"fp32": torch.float32})
    seen, record = [], gemm._recorded

    def recorded(contender: Any, batch: Batch) -> Any:
        seen.append(sizes(batch))
        return record(contender, batch)

    monkeypatch.setattr(gemm, "_recorded", recorded)
    prepared = prepare(few_rows(configure(CONF, str(tiny_gpt2), None, "cpu", 4)))
    whole = prepared.batch(0, compiled=True)
    half = whole["input_ids"].shape[1] // 2
    fewer = {**whole, "labels": whole["labels"][:, -half:], "logits_to_keep": half}
    gemm.measure("tiny", load_model, prepared.config, [whole, fewer])
    assert seen == [sizes(whole), sizes(fewer)]
