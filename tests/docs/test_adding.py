"""docs/adding.md: its package is a method like the project's own, and its task works."""

from __future__ import annotations

import csv
import dataclasses
import importlib
from pathlib import Path
from types import ModuleType

import peft
import pytest
import torch

from rosa import attach, merge, records
from rosa.adapters.modules import adapters
from rosa.config import registry
from rosa.run import run
from rosa.utils.seeding import generator
from tests.adapters.tiny import batch, build, logits, perturb, relative_difference
from tests.conftest import ROOT, Composer
from tests.docs.pages import Block, Checkout, blocks, replaced
from tests.run.test_resume import interrupted_then_resumed, results

PAGE = ROOT / "docs" / "adding.md"
PIP = "python -m pip install --quiet --no-deps --no-index --no-build-isolation --disable-pip-version-check"


def block(label: str, number: int = 0) -> Block:
    return [one for one in blocks(PAGE.read_text(encoding="utf-8")) if one.label.startswith(label)][number]


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """The project's commands, the page's files, and its package installed."""
    folder = tmp_path_factory.mktemp("adding")
    made = Checkout(folder / "project", folder / "site")
    for one in blocks(PAGE.read_text(encoding="utf-8")):
        if " file " in one.label:
            made.write(one)
    made.run(block("sh install").text, {"pip install": f"{PIP} --target {made.site}"})
    return made


@pytest.fixture
def dora(checkout: Checkout, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The page's package, registered in this process as a script does it."""
    monkeypatch.syspath_prepend(checkout.site)
    monkeypatch.setattr(registry, "_registered", {})
    package = importlib.import_module("rosa_dora")
    registry.register_method(package.METHOD)
    return package


@pytest.mark.slow
def test_the_method_trains_and_has_its_row_label_and_colour(checkout: Checkout, tiny_model: Path) -> None:
    small = (
        f"experiment_name=dora model=folder model.name=mini-roberta model.path={tiny_model} data.train_size=64 "
        "data.evaluation_size=32 train.epochs=2 train.batch_size=16 train.device=cpu logger=none jobs=1"
    )
    said = checkout.run_scripts(replaced(block("sh", 1).text, {"experiment_name=dora": small}))

    found, problems = records.find(checkout.folder / "results")
    assert not problems
    assert sorted(record["identity"]["method"] for record in found) == ["dora", "dora", "lora", "lora"]
    assert {record["status"] for record in found} == {"done"}
    layer = next(record for record in found if record["identity"]["method"] == "dora")["adapted"][0]
    assert layer["trainable"] == 8 * sum(layer["shape"]) + layer["shape"][0]

    table = (checkout.folder / "results/tables/dora.md").read_text()
    rows = [line.split("|")[1].strip() for line in table.splitlines() if line.startswith("|")]
    assert rows[2:4] == ["LoRA r=8", "DoRA r=8"], "the project's methods first"
    svg = (checkout.folder / "results/figures/dora/mini-roberta-costs.svg").read_text()
    assert "DoRA r=8" in svg
    assert registry.look("dora").color in svg
    with (checkout.folder / "results/figures/dora/mini-roberta-costs.csv").open() as file:
        assert {line["row"] for line in csv.DictReader(file)} == {"LoRA r=8", "DoRA r=8"}

    assert (checkout.folder / "merged" / "model.safetensors").is_file()
    assert "matthews_correlation" in said  # the export's check has scored the merged model


@pytest.mark.slow
def test_the_task_is_found_and_read(checkout: Checkout, tiny_model: Path) -> None:
    folder = checkout.folder / "data" / "BoolQ"
    folder.mkdir(parents=True)
    for split, count in (("train", 32), ("dev", 16)):
        rows = [f"is it {i}?\tso they say {split}\t{('no', 'yes')[i % 2]}" for i in range(count)]
        (folder / f"{split}.tsv").write_text("\n".join(["question\tpassage\tanswer", *rows]) + "\n")
    small = f"model=folder model.name=tiny model.path={tiny_model} train.epochs=1 train.device=cpu logger=none"
    said = checkout.run_scripts(replaced(block("sh", 2).text, {"data.dir=DIR": f"data.dir=data {small}"}))
    assert "f1" in said
    assert "boolq" in checkout.run_scripts("python scripts/train.py task=boolk", status=2)


@pytest.mark.slow
def test_an_interrupted_run_of_the_method_ends_as_an_uninterrupted_one(
    dora: ModuleType, composed: Composer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = composed("method=dora", "method.rank=2", "train.log_steps=2")
    assert type(config.method) is dora.DoraConfig
    whole = run(dataclasses.replace(config, results_dir=str(tmp_path / "whole")), "command", progress=False).record
    assert results(interrupted_then_resumed(config, [3, 7], monkeypatch)) == results(whole)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["roberta", "gpt2"])
def test_the_method_changes_nothing_when_attached_and_merges_to_what_it_computes(dora: ModuleType, name: str) -> None:
    model = build(name)
    before = logits(model, name)
    attach(model, dora.DoraConfig(rank=3), generator=generator(0, "adapter"), verbose=False)
    assert relative_difference(logits(model, name), before) < 1e-6
    perturb(model)
    moved = logits(model, name)
    assert relative_difference(moved, before) > 1e-3
    assert relative_difference(logits(merge(model), name), moved) < 1e-5


@pytest.mark.slow
def test_the_method_is_the_one_that_peft_calls_dora(dora: ModuleType) -> None:
    """The same factors and magnitudes in both: the same logits, and the same gradients."""
    ours, theirs = build("roberta"), build("roberta")
    config = dora.DoraConfig(rank=3, alpha=6, targets=["*query"], head="freeze")
    attach(ours, config, generator=generator(0, "adapter"), verbose=False)
    settings = peft.LoraConfig(r=3, lora_alpha=6, use_dora=True, target_modules=["query"])
    theirs = peft.get_peft_model(theirs, settings)
    layers = [module for module in theirs.modules() if hasattr(module, "lora_magnitude_vector")]
    perturb(ours)
    pairs = []
    for (_, adapter), layer in zip(adapters(ours), layers, strict=True):
        matched = [
            (adapter.down, layer.lora_A["default"].weight),
            (adapter.up, layer.lora_B["default"].weight),
            (adapter.magnitude, layer.lora_magnitude_vector["default"].weight),
        ]
        with torch.no_grad():
            for own, other in matched:
                other.copy_(own)
        pairs += matched
    assert len(pairs) == 3 * len(layers) > 0
    assert relative_difference(logits(theirs, "roberta"), logits(ours, "roberta")) < 1e-5
    for model in (ours, theirs):
        model.eval()(**batch("roberta")).logits.square().sum().backward()
    assert all(relative_difference(other.grad, own.grad) < 1e-4 for own, other in pairs)
