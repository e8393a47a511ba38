"""Calls in an unusual order: each leaves the base, and every adapter, as they would be in the usual one."""

from __future__ import annotations

import copy
import pickle
import warnings

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import TrainerState, TrainingArguments

import rosa
from rosa.errors import AdapterError, ConfigError
from rosa.peft import RobustConfig, RosaConfig
from tests.adapters.tiny import attached, build, logits, relative_difference, train_steps
from tests.peft.test_model import both, change_course, config_of, trained, wrapped


def base_logits(name: str = "llama") -> torch.Tensor:
    return logits(build(name), name)


@pytest.fixture(params=[RosaConfig, RobustConfig])
def kind(request: pytest.FixtureRequest) -> type:
    return request.param


@pytest.fixture
def model(kind: type) -> PeftModel:
    return trained("llama", kind=kind)


def test_an_adapter_added_while_another_is_merged_starts_from_the_pretrained_weights(model, kind):
    out = logits(model, "llama")
    model.merge_adapter()
    model.add_adapter("second", config_of(kind))
    model.unmerge_adapter()
    model.set_adapter("second")
    assert relative_difference(logits(model, "llama"), base_logits()) <= 1e-5
    model.set_adapter("default")
    assert torch.equal(logits(model, "llama"), out)


def test_adapters_merged_one_after_the_other_are_merged_once_each(model, kind):
    model.add_adapter("second", config_of(kind))
    model.set_adapter("second")
    train_steps(model, "llama", 2)
    change_course(model, 5)
    train_steps(model, "llama", 2)
    model.base_model.set_adapter(["default", "second"])
    together = logits(model, "llama")
    model.merge_adapter(["default"])
    model.merge_adapter(["second"])
    assert relative_difference(logits(model, "llama"), together) <= 1e-5
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PEFT says that they are merged already
        model.merge_adapter()
    assert relative_difference(logits(model, "llama"), together) <= 1e-5
    model.unmerge_adapter()
    assert torch.equal(logits(model, "llama"), together)


def test_saving_and_loading_while_merged(model, tmp_path):
    out = logits(model, "llama")
    model.merge_adapter()
    model.save_pretrained(tmp_path)
    assert torch.equal(logits(PeftModel.from_pretrained(build("llama"), tmp_path), "llama"), out)
    model.load_adapter(tmp_path, "again")
    model.unmerge_adapter()
    model.set_adapter("again")
    assert torch.equal(logits(model, "llama"), out)


@pytest.mark.parametrize("task", [None, "SEQ_CLS"])
def test_unloading_while_merged_gives_the_pretrained_model(task, kind):
    model = trained("roberta", kind=kind, task_type=task)
    model.add_adapter("second", config_of(kind, task_type=task))
    model.merge_adapter()
    assert torch.equal(logits(model.unload(), "roberta"), base_logits("roberta"))


def test_merging_and_unloading_while_merged_changes_nothing_more(model):
    out = logits(model, "llama")
    model.merge_adapter()
    merged = logits(model, "llama")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        plain = model.merge_and_unload()
    assert torch.equal(logits(plain, "llama"), merged)
    assert relative_difference(merged, out) <= 1e-5


def test_a_change_of_course_while_disabled_or_merged(model, kind):
    """A resample keeps the function; a choice of positions sets the sparse values to 0."""
    out = logits(model, "llama")
    with model.disable_adapter():
        change_course(model, 5)
        assert torch.equal(logits(model, "llama"), base_logits())
    if kind is RosaConfig:
        assert relative_difference(logits(model, "llama"), out) <= 1e-5
    out = logits(model, "llama")
    model.merge_adapter()
    change_course(model, 6)
    assert relative_difference(logits(model, "llama"), out) <= 1e-5
    model.unmerge_adapter()
    if kind is RosaConfig:
        assert relative_difference(logits(model, "llama"), out) <= 1e-5
    with model.disable_adapter():
        assert torch.equal(logits(model, "llama"), base_logits())


def test_an_adapter_that_was_added_after_training_can_be_left_and_taken_again(model, kind):
    out = logits(model, "llama")
    model.add_adapter("second", config_of(kind, target_modules=["up_proj"]))
    assert torch.equal(logits(model, "llama"), out)
    for name in ("second", "default", "second"):
        model.set_adapter(name)
        train_steps(model, "llama", 1)
        change_course(model, 7)
    model.delete_adapter("second")
    assert set(model.peft_config) == {"default"}
    train_steps(model, "llama", 1)
    change_course(model, 8)
    with model.disable_adapter():
        assert torch.equal(logits(model, "llama"), base_logits())


def test_the_last_adapter_is_deleted_and_another_one_added(kind):
    model = trained("llama", kind=kind)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.delete_adapter("default")
    assert rosa.adapters.attachment(model) is None
    with pytest.raises(AdapterError, match="nothing to resample"):
        rosa.resample(model)
    model.add_adapter("fresh", config_of(kind))
    model.set_adapter("fresh")
    assert relative_difference(logits(model, "llama"), base_logits()) <= 1e-5
    change_course(model)
    train_steps(model, "llama", 2)
    with model.disable_adapter():
        assert torch.equal(logits(model, "llama"), base_logits())


@pytest.mark.parametrize("through", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_a_copied_or_pickled_model_goes_on_alike(model, through):
    twin = through(model)
    for one in (model, twin):
        train_steps(one, "llama", 1)
        change_course(one, 9)
        train_steps(one, "llama", 1)
    assert torch.equal(logits(model, "llama"), logits(twin, "llama"))


def test_a_whole_model_in_another_dtype(model):
    out = logits(model, "llama")
    assert relative_difference(logits(copy.deepcopy(model).double(), "llama"), out) <= 1e-5
    narrow = copy.deepcopy(model).to(torch.bfloat16)
    assert relative_difference(logits(narrow, "llama"), out) <= 0.05
    train_steps(narrow, "llama", 1)
    change_course(narrow, 4)
    assert torch.isfinite(logits(narrow, "llama")).all()


def test_another_base_is_refused_if_it_has_other_layers(model, tmp_path):
    model.save_pretrained(tmp_path)
    with pytest.raises(AdapterError, match="target_modules=.* matches none of the modules of GPT2LMHeadModel"):
        PeftModel.from_pretrained(build("gpt2"), tmp_path)


def test_a_merged_model_is_adapted_again(model, kind):
    plain = model.merge_and_unload()
    expected = logits(plain, "llama")
    again = get_peft_model(plain, config_of(kind))
    assert relative_difference(logits(again, "llama"), expected) <= 1e-5
    change_course(again)
    train_steps(again, "llama", 1)
    assert torch.equal(logits(again.unload(), "llama"), expected)


@both
@pytest.mark.parametrize("name", ["layer", "A", "rosa_A", "robust_layer", "index"])
def test_an_adapter_may_be_called_like_a_tensor(kind, name, tmp_path):
    torch.manual_seed(0)
    model = get_peft_model(build("llama"), config_of(kind), adapter_name=name).eval()
    change_course(model)
    train_steps(model, "llama", 2)
    model.save_pretrained(tmp_path)
    loaded = PeftModel.from_pretrained(build("llama"), tmp_path / name, adapter_name=name)
    assert torch.equal(logits(loaded, "llama"), logits(model, "llama"))


def test_the_two_methods_are_not_mixed_in_one_model():
    model = wrapped("llama")
    with pytest.raises(ValueError, match="different peft types"):
        model.add_adapter("other", config_of(RobustConfig))


PLAIN = r"rosa\.attach\(model, rosa\.{0}\(\.\.\.\)\) or peft\.get_peft_model\(model, rosa\.peft\.{0}\(\.\.\.\)\)"
ATTACH = r"rosa\.attach\(model, rosa\.{0}\(\.\.\.\)\)$"
PEFT = r"peft\.get_peft_model\(model, rosa\.peft\.{0}\(\.\.\.\)\)"


@pytest.mark.parametrize(
    ("make", "resampling", "choosing"),
    [
        (build, f"no adapter of rosa; call {PLAIN} first", f"no adapter of rosa; call {PLAIN} first"),
        (lambda name: attached(name, rosa.LoraConfig(rank=2)), f"lora has nothing to resample; .* {ATTACH}",
         f"lora has no sparse part here; .* {ATTACH}"),
        (lambda name: get_peft_model(build(name), LoraConfig(r=2)), f"no adapter of rosa; call {PEFT} first",
         f"no adapter of rosa; call {PEFT} first"),
        (lambda name: wrapped(name, kind=RobustConfig, schedule="low_rank_only"),
         f"robust has nothing to resample; leave it out, .* {PEFT}$", f"robust has no sparse part here; .* {PEFT}$"),
        (wrapped, None, f"rosa has no sparse part here; leave it out, or adapt a plain model by {PEFT}$"),
    ],
    ids=["plain", "attach", "LoRA of PEFT", "RoSA", "ROSA"],
)  # fmt: skip
def test_callbacks_name_the_door_of_the_model(make, resampling, choosing):
    model = make("llama")
    state = TrainerState(max_steps=4)
    with pytest.raises(AdapterError, match=choosing.format("RobustConfig")):
        rosa.SupportCallback().on_train_begin(None, state, None, model=model)
    if resampling is not None:
        optimizer = torch.optim.SGD(model.parameters())
        with pytest.raises(AdapterError, match=resampling.format("RosaConfig")):
            rosa.ResampleCallback().on_step_begin(None, state, None, model=model, optimizer=optimizer)
        with pytest.raises(AdapterError, match="nothing to resample; adapt a plain model by .*RosaConfig"):
            rosa.resample(model)


@pytest.mark.parametrize("through_peft", [True, False])
def test_a_choice_that_comes_too_late_names_the_options_of_the_door(through_peft):
    options = {"schedule": "warmup", "warmup_steps": 5}
    if through_peft:
        model, prefix = wrapped("llama", kind=RobustConfig, **options), ""
    else:
        model, prefix = rosa.attach(build("llama"), rosa.RobustConfig(rank=2, **options), verbose=False), "method."
    with pytest.raises(
        ConfigError, match=f"^{prefix}warmup_steps=5 and {prefix}collect_steps=1: expected together fewer"
    ):
        rosa.SupportCallback().on_train_begin(None, TrainerState(max_steps=4), None, model=model)


@pytest.mark.parametrize(
    ("kind", "one", "other"),
    [
        (RosaConfig, {"every": 1}, {"every": 5}),
        (RosaConfig, {"unit": "step"}, {"unit": "epoch"}),
        (RosaConfig, {"rewarm_steps": 1}, {"rewarm_steps": 0}),
        (RobustConfig, {"schedule": "warmup"}, {"schedule": "joint"}),
        (RobustConfig, {"score": "gradient_squared"}, {"score": "gradient_magnitude"}),
    ],
)
def test_active_adapters_with_different_schedules_are_refused_by_the_callback(kind, one, other):
    model = wrapped("llama", kind=kind, **one)
    model.add_adapter("other", config_of(kind, **other))
    model.add_adapter("alike", config_of(kind, r=2, **one))

    def begin():
        state, optimizer = TrainerState(max_steps=100), torch.optim.SGD(model.parameters())
        if kind is RobustConfig:
            rosa.SupportCallback().on_train_begin(None, state, None, model=model)
        else:
            arguments = TrainingArguments(output_dir="unused")
            rosa.ResampleCallback().on_step_begin(
                arguments, state, None, model=model, optimizer=optimizer, train_dataloader=[0]
            )

    begin()
    model.base_model.set_adapter(["default", "alike"])
    begin()
    model.base_model.set_adapter(["default", "other"])
    (option,) = one
    with pytest.raises(AdapterError, match=rf"has active adapters with {option}=.* and with {option}=.* equal values"):
        begin()
    model.set_adapter("other")
    begin()
