"""The support of sparse parts: its choice by scores, the scores of gradients, and its file."""

from __future__ import annotations

import json
import math
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import TrainerControl, TrainerState

from rosa.adapters import adapters, attach, support
from rosa.adapters.collect import Collector
from rosa.adapters.state import rate_ratios
from rosa.adapters.support_callback import SupportCallback
from rosa.config import FullConfig, RobustConfig
from rosa.errors import AdapterError
from rosa.utils.seeding import generator
from tests.adapters.test_own_model import UPDATES, trainer_for
from tests.adapters.tiny import attached, batch, build, inputs, perturb
from tests.commands import answer

CONFIG = RobustConfig(rank=4, density=0.05)


def places(model: nn.Module) -> dict[str, Tensor]:
    return {name: adapter.index.clone() for name, adapter in support.supported(model).items()}


# --- the largest scores ----------------------------------------------------------------------------------------------


def brute_force(scores: Tensor, count: int) -> list[int]:
    flat = scores.flatten().tolist()
    return sorted(sorted(range(len(flat)), key=lambda i: (-flat[i], i))[:count])


@pytest.mark.parametrize("levels", [1, 2, 5, 1000])
@pytest.mark.parametrize("count", [1, 17, 59, 60])
def test_the_largest_scores_are_those_of_a_brute_force_search(levels: int, count: int) -> None:
    scores = torch.randint(levels, (6, 10), generator=torch.Generator().manual_seed(levels)).float()
    assert support.largest(scores, count).tolist() == brute_force(scores, count)


def test_equal_scores_give_exactly_as_many_and_the_first() -> None:
    assert support.largest(torch.full((6, 10), 0.5), 13).tolist() == list(range(13))


def test_a_support_with_the_first_entry_of_a_weight_is_one_when_it_is_loaded() -> None:
    """Positions that are not chosen yet are -1."""
    model, other = attached("roberta", CONFIG), attached("roberta", CONFIG, seed=1)
    for adapter in support.supported(model).values():
        adapter.choose(torch.arange(len(adapter.index)))
    other.load_state_dict(model.state_dict())
    assert support.chosen(other)
    for adapter in support.supported(other).values():
        assert adapter.support is not None
        assert adapter.support.index.tolist() == list(range(len(adapter.index)))


def test_a_part_of_a_model_has_its_layers_by_its_own_names() -> None:
    """Only the whole model knows under which names its layers were adapted."""
    model = attached("roberta", CONFIG)
    own = support.by_layer(model.roberta)
    assert [f"roberta.{name}" for name in own] == list(support.by_layer(model))
    assert list(own.values()) == list(support.supported(model).values())


# --- scores ----------------------------------------------------------------------------------------------------------


def gradients(name: str, batches: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Gradients (out, in) of the mean loss, by autograd on the plain model."""
    model = build(name)
    for each in batches:
        (model(**each).loss / len(batches)).backward()
    found = {}
    for layer, module in model.named_modules():
        if getattr(getattr(module, "weight", None), "grad", None) is not None and module.weight.dim() == 2:
            found[layer] = module.weight.grad.T if "Conv1D" in type(module).__name__ else module.weight.grad
    return found


@pytest.mark.spread
@pytest.mark.parametrize("score", ["gradient_squared", "gradient_magnitude"])
@pytest.mark.parametrize("accumulation", [1, 2])
@pytest.mark.parametrize("name", ["roberta", "gpt2", "llama", "t5"])
def test_scores_are_those_of_plain_autograd(name: str, accumulation: int, score: str) -> None:
    """Query, key and value share one input, which collecting gradients must not change."""
    model = build(name)
    attach(model, CONFIG, verbose=False)
    collector = Collector(support.supported(model), score)
    collector.start()
    expected: dict[str, Tensor] = {}
    for update in range(3):
        batches = [batch(name, seed=2 * update + part) for part in range(accumulation)]
        for each in batches:
            (model(**each).loss / accumulation).backward()
        collector.end_update()
        for layer, gradient in gradients(name, batches).items():
            part = gradient.square() if score == "gradient_squared" else gradient.abs()
            expected[layer] = expected.get(layer, 0) + part
    assert collector.updates == 3
    for layer in collector.scores:
        torch.testing.assert_close(collector.scores[layer], expected[layer], rtol=1e-3, atol=1e-9)
    support.choose(model, collector.scores)
    for layer, index in places(model).items():
        assert index.tolist() == brute_force(collector.scores[layer], int(0.05 * expected[layer].numel()))


def test_collecting_changes_no_gradient_and_ends() -> None:
    model = attached("roberta", CONFIG)
    perturb(model)
    model(**batch("roberta")).loss.backward()
    expected = {name: p.grad.clone() for name, p in model.named_parameters() if p.requires_grad}
    collector = Collector(support.supported(model), "gradient_squared")
    for collecting in (True, False):
        (collector.start if collecting else collector.stop)()
        model.zero_grad()
        model(**batch("roberta")).loss.backward()
        found = {name: p.grad for name, p in model.named_parameters() if p.requires_grad}
        assert all(torch.equal(found[name], gradient) for name, gradient in expected.items())
        assert bool(collector._gradients) == collecting
    assert all(parameter.grad is None for parameter in model.parameters() if not parameter.requires_grad)


def test_a_layer_that_is_called_twice_is_scored_by_its_whole_gradient() -> None:
    layer = nn.Linear(6, 6)
    model = nn.Sequential()
    model.attention = nn.Module()  # type: ignore[assignment]
    model.attention.layer = layer
    whole = (layer(layer(inputs(3, 6)))).square().sum()
    expected = torch.autograd.grad(whole, layer.weight)[0].square()
    attach(model, RobustConfig(rank=2, density=0.1), verbose=False)
    collector = Collector(support.supported(model), "gradient_squared")
    collector.start()
    wrapped = model.attention.layer
    wrapped(wrapped(inputs(3, 6))).square().sum().backward()
    collector.end_update()
    torch.testing.assert_close(collector.scores["attention.layer"], expected)


def test_after_an_overflow_the_collection_begins_anew() -> None:
    model = attached("roberta", CONFIG)
    collector = Collector(support.supported(model), "gradient_squared")
    collector.start()
    for scale in (1.0, float("inf")):
        (model(**batch("roberta")).loss * scale).backward()
        collector.end_update()
    assert (collector.updates, collector.scores) == (0, {})


def test_a_layer_that_no_gradient_reaches_is_named() -> None:
    model = attached("roberta", CONFIG)
    collector = Collector(support.supported(model), "gradient_squared")
    collector.start()
    with pytest.raises(AdapterError, match=r"roberta\.encoder\.layer\.0\.attention\.self\.query: no gradient"):
        collector.end_update()


# --- the callback ----------------------------------------------------------------------------------------------------


def train(scales: list[float], max_steps: int | None = None) -> list[bool]:
    """Updates whose losses are multiplied, one warm-up and two collecting; whether the support is chosen after each.

    As a scaler of float16 does, an update whose gradients are not finite is left out.
    """
    model = build("roberta")
    attach(model, RobustConfig(rank=4, density=0.05, schedule="warmup", warmup_steps=1, collect_steps=2), verbose=False)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    callback, control = SupportCallback(), TrainerControl()
    state = TrainerState(max_steps=max_steps or len(scales))
    chosen = []
    callback.on_train_begin(None, state, control, model=model)
    for scale in scales:
        callback.on_step_begin(None, state, control)
        optimizer.zero_grad()
        (model(**batch("roberta", seed=state.global_step)).loss * scale).backward()
        callback.on_pre_optimizer_step(None, state, control, model=model, optimizer=optimizer)
        if math.isfinite(scale):
            optimizer.step()
        callback.on_optimizer_step(None, state, control, model=model)
        state.global_step += 1
        chosen.append(support.chosen(model))
    callback.on_train_end(None, state, control)
    return chosen


@pytest.mark.parametrize(
    ("scales", "first"),
    [
        ([1, 1, 1, 1], 2),
        ([1, 1, math.inf, 1, 1, 1], 4),  # the first of two is dropped with the second
        ([1, math.nan, math.inf, 1, 1], 4),
        ([math.inf, 1, 1, 1], 2),  # before the collection
        ([1, 1, 1, math.inf], 2),  # after it
    ],
)
def test_the_support_is_chosen_after_as_many_finite_updates_in_a_row(scales: list[float], first: int) -> None:
    assert train(scales) == [step >= first for step in range(len(scales))]


def test_a_training_without_enough_finite_updates_in_a_row_ends_with_an_error() -> None:
    with pytest.raises(AdapterError, match="ended before the support was chosen: .* collect_steps=2 updates in a row"):
        train([1, 1, math.inf, 1, math.inf])


def test_a_training_that_was_stopped_before_the_choice_says_so() -> None:
    with pytest.warns(UserWarning, match="was stopped at update 2 of 5, before the support was chosen"):
        assert train([1, 1], max_steps=5) == [False, False]


def followed(config: RobustConfig, trained: nn.Module, batches: list[dict[str, Tensor]], lr: float) -> tuple[Any, Any]:
    """A loop by hand of what the callback promises: the model and its optimizer after updates on these batches.

    The positions are those that were chosen for ``trained``.
    """
    model = build("bert").train()
    attach(model, config, generator=generator(0, "adapter"), verbose=False)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=lr, weight_decay=0.0)
    first = config.updates_to_choose
    undone = {"warmup": first if config.restart else 0}.get(config.schedule, first - 1)
    for update, each in enumerate(batches):
        if update == first:
            for adapter, other in zip(support.supported(model).values(), places(trained).values(), strict=True):
                adapter.choose(other)
        if update < undone:
            continue
        optimizer.zero_grad()
        model(**each).loss.backward()
        if update < first:
            for adapter in support.supported(model).values():
                adapter.factors()["values"].grad = None
        optimizer.step()
    return model, optimizer


@pytest.mark.parametrize(
    "options",
    [
        {"schedule": "joint", "collect_steps": 1},
        {"schedule": "joint", "collect_steps": 3},
        {"schedule": "sparse_only", "collect_steps": 2},
        {"schedule": "warmup", "warmup_steps": 2, "collect_steps": 2},
        {"schedule": "warmup", "warmup_steps": 3, "restart": True},
    ],
)
def test_a_stock_trainer_trains_as_a_loop_by_hand(options: dict[str, Any], tmp_path: Path) -> None:
    """Updates that are undone leave nothing behind in model or optimizer, and the values begin after the choice."""
    config = RobustConfig(rank=2, density=0.05, **options)
    model = build("bert").train()
    attach(model, config, generator=generator(0, "adapter"), verbose=False)
    batches: list[dict[str, Tensor]] = []
    model.register_forward_pre_hook(lambda _, args, given: batches.append(given), with_kwargs=True)
    plain: dict[str, Any] = {"lr_scheduler_type": "constant", "max_grad_norm": 0.0, "optim": "adamw_torch"}
    trainer = trainer_for("bert", model, tmp_path, SupportCallback(), **plain)
    trainer.train()
    assert len(batches) == UPDATES
    expected, optimizer = followed(config, model, batches, trainer.args.learning_rate)
    ours, theirs = ({n: p for n, p in one.named_parameters() if p.requires_grad} for one in (model, expected))
    for name, parameter in theirs.items():
        torch.testing.assert_close(ours[name], parameter, rtol=1e-5, atol=1e-7, msg=lambda m, at=name: f"{at}: {m}")
        state = trainer.optimizer.state[ours[name]]
        assert float(state["step"]) == float(optimizer.state[parameter]["step"]), name


@pytest.mark.parametrize("schedule", ["joint", "sparse_only"])
@pytest.mark.parametrize(
    ("ratio", "apart", "warns"), [(0.25, None, True), (1.0, None, False), (0.25, 0.25, False), (0.25, 0.5, False)]
)
def test_a_learning_rate_of_sparse_values_that_has_no_effect_is_warned_of(
    schedule: str, ratio: float, apart: float | None, warns: bool, tmp_path: Path
) -> None:
    model = build("bert").train()
    config = RobustConfig(rank=2, density=0.05, schedule=schedule, lr_sparse=ratio, head="freeze")
    attach(model, config, verbose=False)
    trainer = trainer_for("bert", model, tmp_path, SupportCallback(), warmup_steps=2, max_steps=2)
    if apart is not None:
        names = dict(model.named_parameters())
        sparse = [names[name] for name in rate_ratios(model)]
        ours = {id(parameter) for parameter in sparse}
        rest = [p for p in model.parameters() if p.requires_grad and id(p) not in ours]
        rate = trainer.args.learning_rate
        groups = [{"params": sparse, "lr": apart * rate}, *([{"params": rest, "lr": rate}] if rest else [])]
        trainer.optimizer = torch.optim.AdamW(groups)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trainer.train()
    texts = [text for text in (str(one.message) for one in caught) if "lr_sparse" in text]
    assert len(texts) == warns
    assert all("lr_sparse=0.25 has no effect" in text and "query.values" in text for text in texts)


# --- the file --------------------------------------------------------------------------------------------------------


def test_a_support_comes_back_from_its_file(tmp_path: Path) -> None:
    model = attached("gpt2", CONFIG, seed=3)
    path = tmp_path / support.FILE
    support.write(model, path)
    other = build("gpt2")
    attach(other, RobustConfig(rank=4, density=0.05, support=str(path)), verbose=False)
    assert support.chosen(other)
    assert support.describe(other) == support.describe(model)
    assert {name: index.tolist() for name, index in places(other).items()} == {
        name: index.tolist() for name, index in places(model).items()
    }
    described = support.describe(model)["layers"]
    assert [(layer["name"], layer["entries"]) for layer in described] == [
        (name, int(0.05 * adapter.base.weight.numel())) for name, adapter in adapters(model)
    ]
    assert support.content_hash(attached("gpt2", CONFIG, seed=4)) != support.content_hash(model)


def test_the_overlap_of_two_supports_is_the_share_in_common(tmp_path: Path) -> None:
    one, other = attached("gpt2", CONFIG, seed=3), attached("gpt2", CONFIG, seed=4)
    support.write(one, tmp_path / "one")
    support.write(other, tmp_path / "other")
    ours, theirs = places(one), places(other)
    shares = {name: len(set(ours[name].tolist()) & set(theirs[name].tolist())) / len(ours[name]) for name in ours}
    found = support.overlap(tmp_path / "one", tmp_path / "other")
    assert {name: one.share for name, one in found.items()} == pytest.approx(shares)
    densities = {layer["name"]: layer["density"] for layer in support.describe(one)["layers"]}
    assert {name: one.chance for name, one in found.items()} == densities
    assert {one.share for one in support.overlap(tmp_path / "one", tmp_path / "one").values()} == {1.0}
    support.write(attached("gpt2", RobustConfig(rank=4, density=0.06)), tmp_path / "denser")
    with pytest.raises(AdapterError, match="different models, targets or densities"):
        support.overlap(tmp_path / "one", tmp_path / "denser")


def test_the_command_prints_the_overlap_beside_chance(tmp_path: Path) -> None:
    for seed, run in enumerate(("one", "other")):
        (tmp_path / run).mkdir()
        support.write(attached("roberta", CONFIG, seed=seed), tmp_path / run / support.FILE)
    found = support.overlap(tmp_path / "one" / support.FILE, tmp_path / "other" / support.FILE)
    ended = answer("support_overlap", str(tmp_path / "one"), str(tmp_path / "other"))
    head, *lines, mean = ended.stdout.splitlines()
    assert head.split() == ["layer", "in", "common", "by", "chance"]
    assert [line.split() for line in lines] == [
        [name, f"{100 * one.share:.1f}", "%", "5.0", "%"] for name, one in found.items()
    ]
    assert mean.split() == ["mean", f"{100 * sum(one.share for one in found.values()) / 8:.1f}", "%", "5.0", "%"]
    refused = answer("support_overlap", str(tmp_path / "one"), str(tmp_path))
    assert refused.returncode == 2
    assert f"{tmp_path / support.FILE}: expected support.safetensors of a run" in refused.stderr


def test_other_methods_have_no_support() -> None:
    assert support.supported(attached("gpt2", FullConfig())) == {}
    assert support.supported(attached("gpt2", RobustConfig(rank=4, schedule="low_rank_only"))) == {}


def _shape(tensors: dict[str, Tensor], shapes: dict[str, Any]) -> None:
    shapes[next(iter(shapes))] = [16, 64]


def _fewer(tensors: dict[str, Tensor], shapes: dict[str, Any]) -> None:
    tensors[next(iter(tensors))] = torch.arange(3)


def _unsorted(tensors: dict[str, Tensor], shapes: dict[str, Any]) -> None:
    name = next(iter(tensors))
    tensors[name] = tensors[name].flip(0).contiguous()


def _outside(tensors: dict[str, Tensor], shapes: dict[str, Any]) -> None:
    tensors[next(iter(tensors))][-1] = 32 * 32


def _twice(tensors: dict[str, Tensor], shapes: dict[str, Any]) -> None:
    index = tensors[next(iter(tensors))]
    index[1] = index[0]


def _below(tensors: dict[str, Tensor], shapes: dict[str, Any]) -> None:
    tensors[next(iter(tensors))][0] = -1


def _complex(tensors: dict[str, Tensor], shapes: dict[str, Any]) -> None:
    name = next(iter(tensors))
    tensors[name] = tensors[name].to(torch.complex64)


def _fractions(tensors: dict[str, Tensor], shapes: dict[str, Any]) -> None:
    name = next(iter(tensors))
    tensors[name] = tensors[name].float()


def _table(tensors: dict[str, Tensor], shapes: dict[str, Any]) -> None:
    name = next(iter(tensors))
    tensors[name] = tensors[name][None]


def _number(tensors: dict[str, Tensor], shapes: dict[str, Any]) -> None:
    shapes[next(iter(shapes))] = 1024


def _empty(tensors: dict[str, Tensor], shapes: dict[str, Any]) -> None:
    tensors.clear()
    shapes.clear()


def _missing(tensors: dict[str, Tensor], shapes: dict[str, Any]) -> None:
    name = next(iter(tensors))
    del tensors[name], shapes[name]


def _more(tensors: dict[str, Tensor], shapes: dict[str, Any]) -> None:
    tensors["another"], shapes["another"] = torch.arange(3), [2, 3]


def _nameless(tensors: dict[str, Tensor], shapes: dict[str, Any]) -> None:
    shapes.clear()


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (_shape, r"does not fit .*query: it is of a weight of \(16, 64\), this one has \(32, 32\)"),
        (_fewer, r"does not fit .*: it has 3 entries \(density 0\.00293\), method\.density asks for 51"),
        *(
            (spoil, r"query: its positions are not sorted whole numbers below 1024")
            for spoil in (_unsorted, _outside, _twice, _below, _complex, _fractions, _table)
        ),
        (_missing, r"is of another model or other targets: it has no layer roberta.*query"),
        (_more, r"is of another model or other targets: another is not adapted here"),
        *((spoil, r"it names no layers and shapes") for spoil in (_nameless, _number, _empty)),
    ],
)
def test_a_support_of_something_else_is_refused(spoil: Any, said: str, tmp_path: Path) -> None:
    tensors = places(attached("roberta", CONFIG))
    shapes: dict[str, Any] = {name: [32, 32] for name in tensors}
    spoil(tensors, shapes)
    path = tmp_path / support.FILE
    save_file(tensors, path, metadata={"shapes": json.dumps(shapes)})
    model = build("roberta")
    before = list(model.state_dict())
    with pytest.raises(AdapterError, match=rf"^method\.support={path} {said}|^method\.support={path}: .*{said}"):
        attach(model, RobustConfig(rank=4, density=0.05, support=str(path)), verbose=False)
    assert list(model.state_dict()) == before


def test_positions_of_another_width_are_the_same(tmp_path: Path) -> None:
    """Unsigned ones, as another program may write them."""
    model = attached("roberta", CONFIG)
    path = tmp_path / support.FILE
    shapes = {name: adapter.shape for name, adapter in support.supported(model).items()}
    wide = {name: index.to(torch.uint64) for name, index in places(model).items()}
    save_file(wide, path, metadata={"shapes": json.dumps(shapes)})
    other = build("roberta")
    attach(other, RobustConfig(rank=4, density=0.05, support=str(path)), verbose=False)
    assert support.describe(other) == support.describe(model)
    support.write(model, tmp_path / "own")
    assert {one.share for one in support.overlap(path, tmp_path / "own").values()} == {1.0}


@pytest.mark.parametrize("content", [None, b"", b"no tensors", b"\xff" * 40])
def test_a_file_that_is_no_support_is_refused(content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "file"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(AdapterError, match=rf"method\.support={path}: expected support\.safetensors of a run"):
        attached("roberta", RobustConfig(rank=4, density=0.05, support=str(path)))
