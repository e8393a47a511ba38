"""A loss, gradient, weight or factorization that is not finite stops the run at that step and is named."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from transformers import EvalPrediction, TrainerCallback

from rosa import records
from rosa.adapters import modules
from rosa.errors import DivergedError, FactorizationError
from rosa.evaluation import regression
from rosa.evaluation.generation.decode import Continuation, Hypotheses
from rosa.run import pipeline, run
from rosa.run.earlier import CHECKPOINTS
from rosa.training.finiteness import FinitenessWatch, first_bad_layer
from tests.conftest import Composer
from tests.run.test_resume import folder_of

BAD = [math.nan, math.inf, -math.inf]
LAYER = "roberta.encoder.layer.1.attention.self.query"


# --- the watch -------------------------------------------------------------------------------------------------------


def two_layers() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))


def watched(model: nn.Module) -> FinitenessWatch:
    return FinitenessWatch(model, torch.device("cpu"))


@pytest.mark.parametrize("value", BAD)
@pytest.mark.parametrize("name", ["0.weight", "0.bias", "2.weight", "2.bias"])
def test_a_gradient_and_a_weight_are_named(name: str, value: float) -> None:
    model = two_layers()
    watch = watched(model)
    model(torch.ones(5, 3)).sum().backward()
    watch.loss(torch.tensor(1.0), 0)
    watch.gradients(0)
    watch.weights(0)
    assert watch.first() is None
    parameter = model.get_parameter(name)
    with torch.no_grad():
        parameter.view(-1)[-1] = value
    watch.weights(3)
    assert watch.first() == (3, f"the weight {name}")
    assert parameter.grad is not None
    parameter.grad.view(-1)[0] = value
    watch.gradients(2)
    watch.gradients(5)
    assert watch.first() == (2, f"the gradient of {name}")
    watch.loss(torch.tensor(value), 2)
    assert watch.first() == (2, "the loss"), "it comes before its gradients"


def test_large_numbers_are_finite() -> None:
    """Values that are finite but whose squares are not."""
    model = two_layers()
    watch = watched(model)
    model(torch.ones(5, 3)).sum().backward()
    for parameter in model.parameters():
        assert parameter.grad is not None
        parameter.grad.fill_(3e38)
        parameter.data.fill_(-3e38)
    watch.loss(torch.tensor(3e38), 0)
    watch.gradients(0)
    watch.weights(0)
    assert watch.first() is None


def test_frozen_parameters_and_those_without_gradient_are_let_be() -> None:
    model = two_layers()
    model[0].requires_grad_(False)
    watch = watched(model)
    model[0].weight.data.fill_(math.nan)
    watch.gradients(0)
    watch.weights(0)
    assert watch.first() is None
    empty = watched(nn.ReLU())
    empty.gradients(0)
    empty.weights(0)
    assert empty.first() is None


def test_the_first_layer_whose_output_is_bad_is_found() -> None:
    model = two_layers()
    model.forward = lambda x: nn.Sequential.forward(model, x)  # type: ignore[method-assign]
    assert first_bad_layer(model, {"x": torch.ones(2, 3)}) is None
    model[2].bias.data[0] = math.inf
    model.train()
    assert first_bad_layer(model, {"x": torch.ones(2, 3)}) == "2"
    assert all(module.training for module in model.modules())
    assert all(not module._forward_hooks for module in model.modules())


# --- runs ------------------------------------------------------------------------------------------------------------


def broken_at(step: int, harm: Callable[[Any], None], hook: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have ``harm`` called with the model in a callback's hook before the update after ``step`` others."""
    build = pipeline.build_trainer

    class Harm(TrainerCallback):
        pass

    def call(self: Any, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == step:
            harm(kwargs["model"])

    setattr(Harm, hook, call)

    def building(*args: Any, **kwargs: Any) -> Any:
        trainer = build(*args, **kwargs)
        trainer.callback_handler.callbacks.insert(0, Harm())
        return trainer

    monkeypatch.setattr(pipeline, "build_trainer", building)


def failed(config: Any, kind: type[Exception]) -> str:
    with pytest.raises(kind):
        run(config, "command", progress=False)
    record = records.read(folder_of(config) / records.RECORD)
    assert (record["status"], record["error"]["type"]) == ("failed", kind.__name__)
    return record["error"]["message"]


@pytest.mark.slow
@pytest.mark.parametrize("value", BAD[:2])
def test_a_gradient_stops_the_run_before_the_update(
    value: float, composed: Composer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only one layer is named, although clipping would make all gradients NaN."""

    def poison(model: Any) -> None:
        model.get_parameter(f"{LAYER}.A").register_hook(lambda gradient: torch.full_like(gradient, value))

    broken_at(4, poison, "on_step_begin", monkeypatch)
    said = failed(composed(), DivergedError)
    assert said.startswith(f"the gradient of {LAYER}.A is not finite at step 5: {LAYER}.A: ")
    assert "gradient norm 0," not in said
    assert "gradient norm 0;" not in said


@pytest.mark.slow
def test_a_weight_stops_the_run_at_the_update_that_spoilt_it(
    composed: Composer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last update, after which no loss is computed."""

    def poison(model: Any) -> None:
        model.get_parameter(f"{LAYER}.B").data[0, 0] = math.inf

    broken_at(17, poison, "on_optimizer_step", monkeypatch)
    assert failed(composed(), DivergedError).startswith(f"the weight {LAYER}.B is not finite at step 18: {LAYER}.B: ")


@pytest.mark.slow
def test_a_loss_is_traced_to_the_layer_whose_output_is_bad(composed: Composer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A frozen weight, which is not watched."""

    def poison(model: Any) -> None:
        model.get_submodule("roberta.encoder.layer.1.intermediate.dense").weight.data[0] = math.nan

    broken_at(4, poison, "on_step_begin", monkeypatch)
    config = composed("train.save_steps=1")
    said = failed(config, DivergedError)
    assert said.startswith(
        "the loss is not finite at step 5 (the output of roberta.encoder.layer.1.intermediate.dense is the first that "
    )
    steps = sorted(int(path.name.rpartition("-")[2]) for path in (folder_of(config) / CHECKPOINTS).iterdir())
    assert steps == [3, 4], "nothing was saved after it"


@pytest.mark.slow
def test_a_factorization_stops_the_run_and_names_the_layer(composed: Composer, monkeypatch: pytest.MonkeyPatch) -> None:
    def poison(model: Any) -> None:
        dict(modules.adapters(model))[LAYER].base.weight.data[0, 0] = math.nan

    broken_at(6, poison, "on_step_begin", monkeypatch)
    said = failed(composed("method=rosa", "method.rank=4", "method.every=1"), FactorizationError)
    assert said.startswith(f"{LAYER}: 1 of 1024 weights are not finite") or said.startswith(f"{LAYER}: 32 of 1024")


# --- predictions that are all the same -------------------------------------------------------------------------------


class Vectors:
    metrics = ("mse",)


@pytest.mark.parametrize(("spread", "flagged"), [(0.0, True), (1e-9, True), (0.1, False)])
def test_constant_vectors_are_flagged(spread: float, flagged: bool) -> None:
    scorer = regression.Scorer(Vectors())  # type: ignore[arg-type]
    predictions = np.full((6, 3), 0.5)
    predictions[0, 1] += spread
    scorer(EvalPrediction(predictions=predictions, label_ids=np.eye(6)[:, :3]))
    assert [text.split(":")[0] for text in scorer.warnings] == (["all 6 predictions are the same"] if flagged else [])


def test_hypotheses_that_are_all_the_same_are_flagged() -> None:
    one = Continuation((1,), ended=True)
    assert any("are the same text" in text for text in Hypotheses((one, one), ("a", "a"), 0).warnings())
    assert Hypotheses((one, one), ("a", "b"), 0).warnings() == []
    assert Hypotheses((one,), ("a",), 0).warnings() == []


@pytest.mark.slow
def test_constant_predictions_are_in_the_record_and_on_the_screen(composed: Composer) -> None:
    from rosa.records.summary import summary
    from rosa.sweep.jobs import Job
    from rosa.sweep.local import attempt

    config = composed("train.lr=0.1", "train.epochs=1")  # steps so long that all predictions become one class
    result = attempt(Job(config, "command"), 1)
    record = records.read(folder_of(config) / records.RECORD)
    # A training of one update is also warned of, as all of it is warm-up.
    (warning,) = [one for one in record["warnings"] if one.startswith("all 32 predictions are class ")]
    assert f"warning: {warning}" in summary(record)
    assert f"warning: {warning}" in result.line
