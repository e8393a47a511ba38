"""The regression task from end to end: the same runs, records and resumption as every other task."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rosa import records
from rosa.adapters import attach, merge
from rosa.config import Config, DataConfig, TaskConfig, from_dict
from rosa.data import diabetes
from rosa.data import regression as regression_module
from rosa.errors import AdapterError, ConfigError, DataError, ExportError
from rosa.models import perceptron
from rosa.records.summary import summary
from rosa.report.grouping import compare
from rosa.report.study import Study
from rosa.report.tables.markdown import markdown
from rosa.report.tables.results import results_table
from rosa.report.tables.scores_csv import long_csv
from rosa.run import build, reload, run
from rosa.run.device import resolve
from rosa.run.prepare import prepare
from rosa.training import load_weights
from tests.composing import compose_config
from tests.records.declared import undeclared
from tests.run.test_resume import interrupted_then_resumed, results

METHODS = {
    "rosa": ["method=rosa_each_epoch", "method.rank=4", "method.targets=['*']"],
    "lora": ["method=lora", "method.rank=4", "method.targets=['*']"],
    "full": ["method=full"],
}

DIABETES = [
    "data=diabetes", "data.train_size=128", "data.evaluation_size=50", "data.per_seed=true",
    "task.evaluation=[validation,test,train]", "train.epochs=50", "train.batch_size=32", "train.lr=0.05",
]  # fmt: skip

Regressions = Callable[..., Config]


@pytest.fixture
def regression(tmp_path: Path) -> Regressions:
    """Compose a small regression; arguments are Hydra overrides."""

    def make(*overrides: str, model: str = "linear") -> Config:
        sizes = {"linear": "[20,12]", "mlp": "[20,16,12]"}
        words = [
            "experiment=regression_base", f"model={model}", f"model.perceptron.widths={sizes[model]}",
            "data.train_size=96", "data.evaluation_size=32", "data.teacher.rank=6", "train.epochs=3",
            "train.batch_size=16", "train.lr=0.02", "train.device=cpu", "experiment_name=regression",
            f"results_dir={tmp_path / 'results'}",
        ]  # fmt: skip
        return compose_config(*words, *overrides)

    return make


@pytest.mark.parametrize("model", ["linear", "mlp"])
@pytest.mark.parametrize("method", METHODS)
def test_a_run_learns_and_its_record_tells_all(method: str, model: str, regression: Regressions) -> None:
    config = regression(*METHODS[method], "train.log_steps=1", model=model)
    outcome = run(config, "command", progress=False)
    record = records.read(outcome.folder / "record.json")
    assert undeclared(record) == []
    assert record["status"] == "done"
    assert record["params"]["head"] == 0
    weights = {"linear": [(12, 20)], "mlp": [(16, 20), (12, 16)]}[model]
    counted = [out * in_ if method == "full" else 4 * (out + in_) for out, in_ in weights]
    assert record["params"]["trainable"] == sum(counted)
    assert record["params"]["total"] == sum(out * in_ for out, in_ in weights)
    assert record["costs"]["examples"] == 3 * 96
    assert record["costs"]["tokens"] == 0
    assert len(record["resamples"]) == (2 if method == "rosa" else 0)
    for evaluation in record["history"]:
        # The model's own loss, in float32 and by batches, and the scorer's, in float64 over the whole split.
        assert evaluation["validation"]["mse"] == pytest.approx(evaluation["validation"]["loss"], rel=1e-4)
    before = record["data"]["splits"]["validation"]["pretrained_mse"]
    assert record["metrics"]["last"]["validation"]["mse"] < 0.9 * before
    assert record["metrics"]["best"]["validation"]["r2"] == max(e["validation"]["r2"] for e in record["history"])
    assert run(config, "command", progress=False).skipped


@pytest.mark.parametrize("method", METHODS)
def test_kept_weights_reload_and_merge_to_the_recorded_error(method: str, regression: Regressions) -> None:
    config = regression(*METHODS[method], "train.keep=last", model="mlp")
    outcome = run(config, "command", progress=False)
    model, _ = perceptron.load(config.model)
    validation = regression_module.load(config.task, config.data, model).evaluation["validation"]
    attach(model, config.method, verbose=False)
    load_weights(model, outcome.folder / "last.safetensors")
    merge(model)
    with torch.no_grad():
        loss = model(validation.features, validation.labels)["loss"]
    assert float(loss) == pytest.approx(outcome.record["metrics"]["last"]["validation"]["mse"], rel=1e-4)


def test_a_perceptron_is_refused_by_the_export(regression: Regressions) -> None:
    outcome = run(regression(*METHODS["rosa"]), "command", progress=False)
    with pytest.raises(ExportError, match="model=linear is a perceptron, which neither Hugging Face nor PEFT can load"):
        reload.load(outcome.folder, "last")


def test_run_seeds_share_data_and_pretrained_weights(regression: Regressions) -> None:
    check: list[dict[str, Any]] = [
        run(regression(*METHODS["rosa"], f"seed={seed}"), "command", progress=False).record for seed in (0, 1)
    ]
    assert check[0]["data"] == check[1]["data"]
    assert check[0]["model"] == check[1]["model"]
    assert check[0]["history"] != check[1]["history"]


@pytest.mark.parametrize(("method", "stops"), [("rosa", [6, 7]), ("lora", [3]), ("full", [13])])
def test_interrupted_run_ends_as_uninterrupted(
    method: str, stops: list[int], regression: Regressions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    overrides = (*METHODS[method], "train.log_steps=2")
    whole = run(regression(*overrides, f"results_dir={tmp_path / 'whole'}"), "command", progress=False).record
    assert results(interrupted_then_resumed(regression(*overrides), stops, monkeypatch)) == results(whole)


def test_tables_and_screen_show_it(regression: Regressions) -> None:
    """The headline in hundredths; an error is no share of anything, and is shown as it is."""
    found = [run(regression(*words), "command", progress=False).record for words in METHODS.values()]
    mse = found[0]["metrics"]["best"]["validation"]["mse"]
    assert f"mse     {mse:.4f}" in summary(found[0])
    table = markdown(results_table(compare(found, "regression")))
    for record in found:
        assert f"{100 * record['metrics']['best']['validation']['r2']:.1f}" in table
    assert "teacher, generated with seed 0. Rows: train 96, validation 32" in table
    assert str(mse) in long_csv(Study(found, "regression"))


def test_nothing_has_to_be_fetched_before_a_sweep(regression: Regressions) -> None:
    prepare([regression(*METHODS["full"])])


@pytest.mark.parametrize("method", [["method=full"], ["method=lora", "method.rank=1", "method.targets=['*']"]])
def test_a_linear_map_of_real_data_ends_at_the_least_squares_of_its_training_rows(
    method: list[str], regression: Regressions
) -> None:
    """A weight of one row differs from any other by rank 1, so LoRA of rank 1 is no limit."""
    words = (*DIABETES, *method, "model.perceptron.widths=[11,1]", "task.evaluation=[train]")
    record = run(regression(*words), "command", progress=False).record
    features, labels = (values.double().numpy() for values in diabetes.splits(*_drawn(record))["train"])
    solution, residual = np.linalg.lstsq(features, labels, rcond=None)[:2]
    assert solution.shape == (11, 1)
    least = float(residual[0]) / len(labels)
    assert record["data"]["splits"]["train"]["pretrained_mse"] > 1.2 * least
    assert record["metrics"]["last"]["train"]["mse"] == pytest.approx(least, rel=0.01)


def _drawn(record: records.Record) -> tuple[TaskConfig, DataConfig]:
    config = from_dict(record["config"])
    return config.task, config.drawn_data


def test_real_data_are_split_for_each_seed_and_the_network_is_pretrained_on_other_patients(
    regression: Regressions,
) -> None:
    words = (*DIABETES, "method=full", "model.perceptron.widths=[11,8,1]", "train.epochs=1")
    made = [regression(*words, f"seed={seed}") for seed in (0, 1)]
    first, second = (run(config, "command", progress=False).record for config in made)
    assert undeclared(first) == []
    assert first["model"] == second["model"]
    for split, rows in (("train", 128), ("validation", 50), ("test", 50)):
        assert first["data"]["splits"][split]["rows"] == rows
        assert first["data"]["splits"][split]["sha256"] != second["data"]["splits"][split]["sha256"]
    student = build.pretrained(made[0])
    features, labels = diabetes.younger()
    untrained = perceptron.load(made[0].model)[0]
    with torch.no_grad():
        before, after = (float(network(features, labels)["loss"]) for network in (untrained, student))
        at_start = float(student(*diabetes.splits(*_drawn(first))["test"])["loss"])
    assert after < 0.8 < before  # the labels have variance 1
    assert first["data"]["splits"]["test"]["pretrained_mse"] == pytest.approx(at_start, rel=1e-5)
    assert all(parameter.grad is None for parameter in student.parameters())
    table = markdown(results_table(compare([first, second], "regression")))
    assert "diabetes, split anew for each seed of a run. Rows: train 128, validation 50, test 50" in table


# --- what goes wrong -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("overrides", "kind", "message", "begun"),
    [
        (["method=ia3"], AdapterError, r"\(IA\)3 found no key and value layer in Perceptron; .* layers\.0", True),
        (["method=rosa"], AdapterError, r"match none of the 1 linear layers of Perceptron; it has: layers\.\*", False),
        ([*METHODS["rosa"], "method.rank=13"], AdapterError, r"layers\.0 \(12 x 20\): method\.rank", False),
        ([*METHODS["rosa"], "data.teacher.rank=13"], DataError, r"teacher\.rank=13: layers\.0\.weight", True),
    ],
)
def test_a_run_that_cannot_be_is_refused(
    overrides: list[str], kind: type[Exception], message: str, begun: bool, regression: Regressions
) -> None:
    """Before a record is written, where the layers alone tell."""
    config = regression(*overrides)
    with pytest.raises(kind, match=message):
        run(config, "command", progress=False)
    found = records.folder(resolve(config)[0]) / "record.json"
    assert (found.exists() and records.read(found)["status"]) == (begun and "failed")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("data=mini", "data.source=mini and model.source=perceptron: vector regression needs"),
        ("task=cola", "task=cola with data.source=teacher"),
        ("model.perceptron.widths=[512]", r"model.perceptron.widths=\[512\]: expected at least two"),
        ("model.perceptron.widths=[512,0]", "model.perceptron.widths=0: expected a whole number above 0"),
        ("model.dtype=bfloat16", "model.dtype='bfloat16': expected one of float32"),
        ("data.teacher.rank=0", "data.teacher.rank=0"),
        ("data.limit=5", "data.limit=5: expected 0 for data.source=teacher: data.train_size sets the rows"),
        ("data=diabetes", r"model.perceptron.widths=\[512, 32\] with data=diabetes: expected 11 first, .* and 1 last"),
        ("task.texts=[sentence]", "task.texts=.*expected no columns with task.kind=vector_regression"),
    ],
)
def test_settings_that_do_not_fit_are_refused(override: str, message: str) -> None:
    group = override.partition("=")[0]
    words = [word for word in ("task=regression", "data=teacher", "model=linear") if not word.startswith(f"{group}=")]
    with pytest.raises(ConfigError, match=message):
        compose_config(*words, override)
