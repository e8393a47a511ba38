"""Whole runs of a text generation task: training, selection on dev, decoding of test, scores, and resuming."""

from __future__ import annotations

import csv
import dataclasses
import functools
import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer, GPT2LMHeadModel

from rosa import records
from rosa.config import Config
from rosa.errors import ChangedRunError, SamplesError
from rosa.evaluation import nlg
from rosa.export import to_merged
from rosa.records.summary import summary
from rosa.report.samples import page
from rosa.run import build, recording, reload, run, test_split
from rosa.run.folder import WEIGHTS
from scripts.make_samples import read_groups
from tests import causal
from tests.conftest import Composer
from tests.records.declared import undeclared
from tests.run.test_resume import folder_of, results

pytestmark = pytest.mark.usefixtures("without_java")


@pytest.fixture(scope="module")
def e2e_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return causal.write_e2e(tmp_path_factory.mktemp("e2e"))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return causal.save_for_e2e(tmp_path_factory.mktemp("checkpoint"))


@pytest.fixture
def make(composed: Composer, e2e_dir: Path, checkpoint: Path):
    def compose(*overrides: str) -> Config:
        return composed(
            "task=e2e",
            "data=local",
            f"data.dir={e2e_dir}",
            f"model.path={checkpoint}",
            "method=rosa",
            "method.rank=4",
            "method.every=1",
            "train.lr=3e-2",
            "train.batch_size=4",
            "train.log_steps=1",
            "decoding.max_new_tokens=12",
            "decoding.no_repeat_ngram=0",
            *overrides,
        )

    return compose


def only_record(config: Config) -> dict[str, Any]:
    (path,) = Path(config.results_dir, "runs").glob("*/*/*/*/*/record.json")
    return records.read(path)


def perplexity_of(folder: Path, e2e_dir: Path) -> float:
    """Of the dev references under a plain checkpoint: token by token, in double precision."""
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder).double(), AutoTokenizer.from_pretrained(folder)
    total, tokens = 0.0, 0
    with (e2e_dir / "devset.csv").open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            given = tokenizer(f"Input: {row['mr']} Output:")["input_ids"]
            whole = [*given, *tokenizer(f" {row['ref']}")["input_ids"], tokenizer.eos_token_id]
            with torch.no_grad():
                logs = model(torch.tensor([whole])).logits[0].log_softmax(-1)
            total -= sum(float(logs[place - 1, whole[place]]) for place in range(len(given), len(whole)))
            tokens += len(whole) - len(given)
    return math.exp(total / tokens)


def test_train_select_decode_score(make, e2e_dir, tmp_path):
    outcome = run(make(), "python scripts/train.py", progress=False)
    record, folder = outcome.record, outcome.folder

    history = [epoch["validation"]["perplexity"] for epoch in record["history"]]
    assert len(history) == 3
    assert record["metrics"]["best"]["validation"]["perplexity"] == min(history)
    assert record["metrics"]["selection"]["rule"] == "lowest perplexity on validation, first of equals"
    assert record["params"]["head"] == 0
    assert min(history) < history[0], "the test's model learns something"

    finished = reload.load(folder, "best")
    to_merged(finished.plain, tmp_path / "plain", tokenizer=finished.tokenizer)
    assert perplexity_of(tmp_path / "plain", e2e_dir) == pytest.approx(min(history), rel=1e-5)

    tried = record["generation"]
    assert (tried["split"], tried["weights"], tried["prompts"]) == ("test", "best", 5)
    assert tried["perplexities"]["reference"] == pytest.approx(min(history), rel=1e-5)
    assert tried["perplexities"]["all_tokens"] != pytest.approx(min(history), rel=1e-2)
    assert tried["epoch"] == record["metrics"]["best"]["epoch"]
    texts = (folder / "test.best.txt").read_text(encoding="utf-8").split("\n")[:-1]
    groups: dict[str, list[str]] = {}
    with (e2e_dir / "testset_w_refs.csv").open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            groups.setdefault(row["mr"], []).append(row["ref"])
    expected = nlg.score(texts, list(groups.values()))
    assert tried["scores"] == expected.values()
    assert tried["scores"]["rouge_l"] > 0.1, "the test's model learns something"
    assert tried["scores"]["meteor"] is None
    assert any("METEOR is missing: no `java`" in warning for warning in record["warnings"])
    assert tried["scorer"]["versions"]["sacrebleu"]
    assert f"{tried['scores']['nist']:.4f}" in summary(record)
    assert records.read(folder / "record.json") == json.loads(json.dumps(record))
    assert undeclared(record) == []


def test_the_logits_are_made_where_they_count_and_evaluated_once(make, monkeypatch):
    """A model that is given labels computes its own loss from them, as long as all else at a small width."""
    given = []
    stock = GPT2LMHeadModel.forward

    @functools.wraps(stock)  # the Trainer reads its signature
    def forward(self, *arguments, **named):
        if len(named.get("input_ids", ())) > 2:  # attaching tries the model on two examples
            given.append((self.training, named.get("labels") is not None))
            assert named["logits_to_keep"] < named["input_ids"].shape[1] - 1, "no logits for the prompts' tokens"
        return stock(self, *arguments, **named)

    monkeypatch.setattr(GPT2LMHeadModel, "forward", forward)
    record = run(make("task.test="), "command", progress=False).record
    assert set(given) == {(False, False), (True, True)}
    for epoch in record["history"]:  # the dev split is one batch, so the loss's mean over batches is that over tokens
        assert math.exp(epoch["validation"]["loss"]) == pytest.approx(epoch["validation"]["perplexity"], rel=1e-5)


def test_weights_are_kept_as_asked_and_the_test_split_needs_no_asking(make):
    none = run(make("train.keep=none"), "", progress=False)
    assert none.record["generation"]["prompts"] == 5
    assert not (none.folder / WEIGHTS["best"]).exists()
    assert not (none.folder / WEIGHTS["last"]).exists()


def test_the_last_epoch_writes_the_texts_where_it_is_selected(make):
    last = run(make("selection=dev-last", "train.keep=none"), "", progress=False)
    tried = last.record["generation"]
    assert (tried["weights"], tried["epoch"]) == ("last", 3.0)
    assert (last.folder / "test.last.txt").is_file()
    assert not list(last.folder.glob("*.safetensors"))


def test_a_run_that_was_stopped_while_decoding_goes_on_there(make, monkeypatch):
    """Training is not repeated."""
    config = make()

    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(test_split.hypotheses, "write", stop)
        with pytest.raises(KeyboardInterrupt):
            run(config, "the first command", progress=False)
    left = only_record(config)
    assert left["status"] == "running"
    assert left["generation"] == {}

    here = recording.environment.environment("cpu")
    elsewhere = here | {"cpu": "another", "packages": here["packages"] | {"torch": "1.0"}}
    monkeypatch.setattr(recording.environment, "environment", lambda device: elsewhere)
    monkeypatch.setattr("rosa.run.pipeline.build_trainer", lambda *_: pytest.fail("trained again"))
    record = run(config, "the second command", progress=False).record
    assert record["status"] == "done"
    assert record["history"] == left["history"]
    assert record["generation"]["prompts"] == 5
    assert record["command"] == "the first command"
    assert record["environment"] == left["environment"], "that of the training"
    changes = f"cpu={here['cpu']}, now another; torch={here['packages']['torch']}, now 1.0"
    assert f"resumed in another environment: {changes}" in record["warnings"]


@pytest.mark.parametrize("replaced", ["data", "weights"])
@pytest.mark.parametrize("epochs", [1, 3])
def test_a_training_is_not_taken_over_from_a_run_on_other_files(replaced, epochs, make, monkeypatch, tmp_path):
    """Only the test split is missing; a run of one epoch never has a checkpoint."""
    places = {"data.dir": make().data.dir, "model.path": make().model.path}
    places = {key: shutil.copytree(place, tmp_path / key) for key, place in places.items()}
    config = make(*(f"{key}={place}" for key, place in places.items()), f"train.epochs={epochs}")

    def fail(*_: object, **__: object) -> None:
        raise nlg.ScoringError("no scores today")

    with monkeypatch.context() as patch:
        patch.setattr(test_split.nlg, "score", fail)
        with pytest.raises(nlg.ScoringError):
            run(config, "", progress=False)
    if replaced == "data":
        train = places["data.dir"] / "trainset.csv"
        lines = train.read_text().splitlines(keepends=True)
        train.write_text("".join(lines[:-1]))
        said = "begun with data, split train="
    else:
        weights = load_file(places["model.path"] / "model.safetensors")
        weights["transformer.ln_f.bias"] += 0.25
        save_file(weights, places["model.path"] / "model.safetensors", metadata={"format": "pt"})
        said = "begun with weights, file model.safetensors="
    before = only_record(config)
    with pytest.raises(ChangedRunError, match=said):
        run(config, "", progress=False)
    assert only_record(config) == before


def test_a_failed_scorer_loses_nothing(make, monkeypatch):
    def fail(*_: object, **__: object) -> None:
        raise nlg.ScoringError("no scores today")

    config = make()
    with monkeypatch.context() as patch:
        patch.setattr(test_split.nlg, "score", fail)
        with pytest.raises(nlg.ScoringError):
            run(config, "", progress=False)
    left = only_record(config)
    assert (left["status"], left["error"]["type"]) == ("failed", "ScoringError")
    assert len(left["history"]) == 3
    record = run(config, "", progress=False).record
    assert (record["status"], record["error"]) == ("done", None)


def told(folder: Path) -> dict[str, Any]:
    """What a run leaves that no failure may change: all of its record but the times, and its files' names."""
    record = records.read(folder / "record.json")
    same = results(record)
    changing = {"started", "finished", "costs", "config", "environment", "resamples", *same}
    same |= {key: value for key, value in record.items() if key not in changing}
    return same | {"costs": sorted(record["costs"]), "files": sorted(path.name for path in folder.iterdir())}


FAILING = [(recording, "_costs"), (recording, "diagnose"), (recording, "save_weights"), (recording, "_metrics"),
           (test_split, "on_test_split"), (test_split, "perplexities"), (recording, "summary")]  # fmt: skip
"""The steps of a run after its training, in order."""


@pytest.mark.parametrize("keep", ["none", "both"])
def test_a_retry_after_any_failed_step_ends_as_a_run_without_one(keep, make, tmp_path, monkeypatch):
    def fail(*_: object) -> None:
        raise ZeroDivisionError

    def at(place: str) -> Config:
        return dataclasses.replace(make("train.epochs=2", f"train.keep={keep}"), results_dir=str(tmp_path / place))

    def warning(task: Any) -> Any:
        made = build_scorer(task)
        made.warnings = ["the scorer warns"]
        return made

    build_scorer = build.scorer
    monkeypatch.setattr(build, "scorer", warning)
    whole = told(run(at("whole"), "command", progress=False).folder)
    assert "the scorer warns" in whole["warnings"]
    for module, name in FAILING if keep == "both" else [step for step in FAILING if step[1] != "save_weights"]:
        with monkeypatch.context() as patch:
            patch.setattr(module, name, fail)
            with pytest.raises(ZeroDivisionError):
                run(at(name), "command", progress=False)
        assert records.read(folder_of(at(name)) / "record.json")["status"] == "failed"
        assert told(run(at(name), "command", progress=False).folder) == whole, name


def test_label_smoothing_changes_training_and_not_the_perplexity_of_the_start(make):
    plain = run(make("train.max_steps=1", "train.lr=1e-9"), "", progress=False).record
    smooth = run(make("train.max_steps=1", "train.lr=1e-9", "train.label_smoothing=0.1"), "", progress=False).record
    assert smooth["training"][0]["loss"] != plain["training"][0]["loss"]
    scores = [record["metrics"]["last"]["validation"]["perplexity"] for record in (plain, smooth)]
    assert scores[0] == pytest.approx(scores[1], rel=1e-6)


def test_the_page_of_samples_shows_each_row_beside_the_references(make, e2e_dir):
    config = make("train.epochs=1", "train.keep=none")
    folders = {
        "ROSA r=4, every 1 epoch": run(config, "the first command", progress=False).folder,
        "ROSA r=2, every 1 epoch": run(
            make("train.epochs=1", "train.keep=none", "method.rank=2"), "", progress=False
        ).folder,
    }
    results = Path(config.results_dir)
    found, _ = records.find(results, "default")
    made = page(
        results, found, "default", None, seed=0, number=3, command="the command of the page", read_groups=read_groups
    )

    written = {label: (folder / "test.best.txt").read_text().split("\n") for label, folder in folders.items()}
    with (e2e_dir / "testset_w_refs.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    sections = made.split("\n## ")[1:]
    assert [section.partition(".")[0] for section in sections] == ["1", "2", "4"], "spread over five inputs"
    for section in sections:
        place = int(section.partition(".")[0]) - 1
        title, *lines = section.replace("\\", "").splitlines()
        assert title.partition(" ")[2] == rows[2 * place]["mr"]
        assert lines[1:3] == [
            f"- {rows[2 * place]['ref']}",
            f"- {rows[2 * place + 1]['ref']} *(of 2 references)*",
        ]
        for label, texts in written.items():
            assert f"- **{label}**: {texts[place] or '*(empty)*'}" in lines
    assert "Made by `the command of the page`" in made
    assert "`the first command`" in made

    with pytest.raises(SamplesError, match="no finished run of seed 7 has decoded texts of the best epoch"):
        page(results, found, "default", "best", seed=7, number=3, command="", read_groups=read_groups)
    references = e2e_dir / "testset_w_refs.csv"
    kept = references.read_bytes()
    references.write_bytes(kept.replace(rows[0]["ref"].encode(), b"Another text of as many inputs."))
    with pytest.raises(SamplesError, match="default: the test split has changed since the runs: its sha256 is "):
        page(results, found, "default", "best", seed=0, number=3, command="", read_groups=read_groups)
    references.write_bytes(kept)
    texts = folders["ROSA r=2, every 1 epoch"] / "test.best.txt"
    texts.write_text(texts.read_text() + "one more\n")
    with pytest.raises(SamplesError, match=r"test\.best\.txt: changed since the run"):
        page(results, found, "default", "best", seed=0, number=3, command="", read_groups=read_groups)
    texts.unlink()
    with pytest.raises(SamplesError, match=r"test\.best\.txt: cannot be read"):
        page(results, found, "default", "best", seed=0, number=3, command="", read_groups=read_groups)
