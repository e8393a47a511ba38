"""ROSA in a user's own script: any architecture, the stock Trainer, and nothing of the harness."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import (
    PreTrainedModel,
    Seq2SeqTrainer,
    Seq2SeqTrainingArguments,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)
from transformers.pytorch_utils import Conv1D

import rosa
from rosa.utils.names import EVENT, MOVED
from tests.adapters import tiny
from tests.adapters.tiny import build, logits, relative_difference
from tests.tiers import slow_but

ARCHITECTURES = list(tiny.BUILDERS)
HEADS = {"bert": {"classifier"}, "roberta": {"classifier"}, "gpt2": set(), "llama": set(), "t5": set()}
"""The outermost module of each architecture's head; a language model has none."""

EXAMPLES, BATCH, EPOCHS = 12, 4, 3
UPDATES = EPOCHS * EXAMPLES // BATCH
DUE = [3, 6]
"""Updates done when a resample is due: three an epoch, and none after the last."""


def examples(name: str) -> list[dict[str, Tensor]]:
    """Random sequences of one length; a classifier's label is learnable, a language model's is the sequence."""
    stream = torch.Generator().manual_seed(0)
    rows = torch.randint(3, tiny.VOCABULARY, (EXAMPLES, 7), generator=stream)
    return [{"input_ids": row, "labels": row[0] % 3 if name in ("bert", "roberta") else row} for row in rows]


def arguments(folder: Path, kind: type[TrainingArguments] = TrainingArguments, **changes: Any) -> TrainingArguments:
    settings: dict[str, Any] = {
        "num_train_epochs": EPOCHS, "per_device_train_batch_size": BATCH, "learning_rate": 1e-2, "logging_steps": 1,
        "save_strategy": "no", "report_to": "none", "disable_tqdm": True, "use_cpu": True, "seed": 0,
    }  # fmt: skip
    return kind(output_dir=str(folder), **{**settings, **changes})


def attached(name: str, seed: int = 0, **options: Any) -> PreTrainedModel:
    """A tiny model with ROSA, attached as in the README; the global generator draws the subspaces."""
    model = build(name).train()
    torch.manual_seed(seed)
    return rosa.attach(model, rosa.RosaConfig(rank=2, every=1, **options), verbose=False)


def trainer_for(name: str, model: nn.Module, folder: Path, *callbacks: TrainerCallback, **changes: Any) -> Trainer:
    if name == "t5":
        kind, args = Seq2SeqTrainer, arguments(folder, Seq2SeqTrainingArguments, **changes)
    else:
        kind, args = Trainer, arguments(folder, **changes)
    return kind(
        model=model, args=args, train_dataset=examples(name), eval_dataset=examples(name), callbacks=list(callbacks)
    )


def values(model: nn.Module) -> dict[str, Tensor]:
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def resamples(trainer: Trainer) -> list[int]:
    """Updates done before each resample, as the log history has it."""
    return [entry["step"] for entry in trainer.state.log_history if EVENT in entry]


class CheckedCallback(rosa.ResampleCallback):
    """A ResampleCallback that also compares outputs around each resample, and parameters around each update."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name
        self.differences: list[float] = []
        self.redrawn: list[bool] = []
        self.moved: list[set[str]] = []

    def on_step_begin(self, args: Any, state: Any, control: Any, model: Any = None, **others: Any) -> None:
        events = sum(EVENT in entry for entry in state.log_history)
        outputs, before = logits(model, self.name), values(model)
        super().on_step_begin(args, state, control, model=model, **others)
        self.start = values(model)
        if sum(EVENT in entry for entry in state.log_history) > events:
            self.differences.append(relative_difference(logits(model, self.name), outputs))
            factors = [key for key in before if key.endswith((".A", ".B", ".base.weight"))]
            self.redrawn.append(all(not torch.equal(before[key], self.start[key]) for key in factors))

    def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **others: Any) -> None:
        self.moved.append({key for key, value in values(model).items() if not torch.equal(value, self.start[key])})


class Story:
    """One architecture that was attached, trained and merged, with the observations made."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        self.pretrained = build(name)
        model = attached(name)
        self.layers = [layer.name for layer in rosa.adapters.attachment(model).layers]
        self.trainable = {key for key, parameter in model.named_parameters() if parameter.requires_grad}
        self.callback = CheckedCallback(name)
        self.trainer = trainer_for(name, model, folder, self.callback)
        self.trainer.train()
        self.trained = logits(model.eval(), name)
        self.merged = rosa.merge(model)


@pytest.fixture(scope="module", params=ARCHITECTURES)
def story(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Story:
    return Story(request.param, tmp_path_factory.mktemp(request.param))


# --- three lines on five architectures -------------------------------------------------------------------------------


def attention_layers(model: nn.Module) -> list[str]:
    return [
        name
        for name, module in model.named_modules()
        if isinstance(module, (nn.Linear, Conv1D)) and ("attention" in name.lower() or "attn" in name.lower())
    ]


def test_the_default_targets_are_every_attention_layer(story: Story) -> None:
    assert story.layers == attention_layers(story.pretrained)
    # Two blocks of query, key, value and output; GPT-2 fuses three of them; T5 has two decoder attentions more a block.
    assert len(story.layers) == {"gpt2": 2 * 2, "t5": 2 * 4 + 2 * 8}.get(story.name, 2 * 4)


def test_an_update_moves_the_factors_and_the_head_and_nothing_else(story: Story) -> None:
    head = {key for key in values(story.pretrained) if key.split(".")[0] in HEADS[story.name]}
    expected = {f"{layer}.{factor}" for layer in story.layers for factor in "AB"} | head
    assert story.trainable == expected
    assert len(story.callback.moved) == UPDATES
    # The linear schedule's last learning rate is small, but it is not 0: every update moves every factor.
    assert all(moved == expected for moved in story.callback.moved)


def test_resamples_happen_when_due_and_leave_the_outputs(story: Story) -> None:
    assert resamples(story.trainer) == DUE
    assert [entry[EVENT] for entry in story.trainer.state.log_history if EVENT in entry] == [len(story.layers)] * 2
    assert story.callback.redrawn == [True, True]
    assert len(story.callback.differences) == 2
    assert max(story.callback.differences) <= 1e-5


def test_the_loss_is_finite_and_falls(story: Story) -> None:
    losses = [entry["loss"] for entry in story.trainer.state.log_history if "loss" in entry]
    assert len(losses) == UPDATES
    assert all(math.isfinite(loss) for loss in losses)
    assert sum(losses[-3:]) < sum(losses[:3])


def test_merging_gives_the_untouched_models_classes_and_keys_and_the_trained_function(story: Story) -> None:
    classes = {key: type(module) for key, module in story.merged.named_modules()}
    assert classes == {key: type(module) for key, module in story.pretrained.named_modules()}
    assert list(story.merged.state_dict()) == list(story.pretrained.state_dict())
    assert relative_difference(logits(story.merged, story.name), story.trained) <= 1e-5
    assert relative_difference(story.trained, logits(story.pretrained, story.name)) > 1e-3


def test_merged_weights_differ_in_the_targets_and_the_head_alone(story: Story) -> None:
    before = values(story.pretrained)
    changed = {key for key, value in values(story.merged).items() if not torch.equal(value, before[key])}
    head = {key for key in before if key.split(".")[0] in HEADS[story.name]}
    assert changed == {f"{layer}.weight" for layer in story.layers} | head
    # Three subspaces of rank 2 change a weight by no more than rank 12: each leaves 2 directions and enters 2.
    for layer in story.layers:
        change = story.merged.get_submodule(layer).weight.detach() - before[f"{layer}.weight"]
        singular = torch.linalg.svdvals(change.double())
        assert float(singular[12]) <= 1e-5 * float(singular[0])


def test_a_saved_model_loads_with_transformers_alone(story: Story, tmp_path: Path) -> None:
    story.merged.save_pretrained(tmp_path)
    again, report = type(story.merged).from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert torch.equal(logits(again.eval(), story.name), logits(story.merged, story.name))


# --- further features of the Trainer ---------------------------------------------------------------------------------


def trained(name: str, folder: Path, prepare: Callable[[nn.Module], Any] | None = None, **changes: Any) -> Trainer:
    model = attached(name)
    if prepare is not None:
        prepare(model)
    trainer = trainer_for(name, model, folder, rosa.ResampleCallback(), **changes)
    trainer.train()
    return trainer


@pytest.mark.parametrize("name", ["roberta", "gpt2"])
def test_two_half_batches_an_update_are_one_whole(name: str, tmp_path: Path) -> None:
    whole = trained(name, tmp_path)
    halves = trained(name, tmp_path, per_device_train_batch_size=BATCH // 2, gradient_accumulation_steps=2)
    assert resamples(halves) == resamples(whole) == DUE
    # Up to the order of sums, which Adam's division by small moments enlarges.
    assert relative_difference(logits(halves.model, name), logits(whole.model, name)) <= 1e-3


@pytest.mark.spread
@pytest.mark.parametrize("reentrant", [True, False])
@pytest.mark.parametrize("name", ["bert", "gpt2", "t5"])
def test_gradient_checkpointing_changes_no_gradient(name: str, reentrant: bool, tmp_path: Path) -> None:
    """Reentrant checkpointing with frozen embeddings: without an input that requires a gradient, no factor would get
    one."""
    plain = trained(name, tmp_path)
    options = {"activation_checkpointing": True, "activation_checkpointing_kwargs": {"use_reentrant": reentrant}}
    checkpointed = trained(name, tmp_path, **options)
    assert any(getattr(module, "gradient_checkpointing", False) for module in checkpointed.model.modules())
    # T5's encoder collects gradients from each decoder block, in another order when these run again.
    one, other = (logits(trainer.model.eval(), name) for trainer in (checkpointed, plain))
    assert relative_difference(one, other) <= 1e-3


@pytest.mark.parametrize("first", ["attach", "checkpointing"])
def test_gradient_checkpointing_before_or_after_attaching(first: str) -> None:
    def checkpointing(model: PreTrainedModel) -> None:
        model.activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": True})

    model = build("bert").train()
    if first == "checkpointing":
        checkpointing(model)
    rosa.attach(model, rosa.RosaConfig(rank=2), verbose=False)
    if first == "attach":
        checkpointing(model)
    model(**tiny.batch("bert")).loss.backward()
    assert all((p.grad is not None) == p.requires_grad for p in model.parameters())


class StopAfter(TrainerCallback):
    """Stops a training after an update, right after the Trainer's own checkpoint, as an interruption would."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        if state.global_step == self.step:
            control.should_save = control.should_training_stop = True


def with_dropout(model: nn.Module) -> nn.Module:
    """The model with dropout, so that a resume that loses the random state is noticed."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.2
    return model


def timeless(history: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The log without values that an interruption may change: times, and the summary of the process's own updates."""
    return [
        {key: value for key, value in entry.items() if not key.endswith(("_seconds", "_runtime", "_per_second"))}
        for entry in history
        if "train_loss" not in entry
    ]


# Before the first resample, where one is due next, just after one, and after the last.
@pytest.mark.parametrize(
    ("name", "stop"),
    slow_but(
        [("bert", 3), ("gpt2", 5)],
        [("bert", 2), ("bert", 3), ("bert", 4), ("bert", 7), ("gpt2", 3), ("gpt2", 5), ("t5", 4)],
    ),
)
def test_a_resumed_training_is_the_uninterrupted_one(name: str, stop: int, tmp_path: Path) -> None:
    whole = trainer_for(name, with_dropout(attached(name)), tmp_path / "whole", rosa.ResampleCallback())
    whole.train()
    resumable = (rosa.ResampleCallback(), StopAfter(stop))
    trainer_for(name, with_dropout(attached(name)), tmp_path / "part", *resumable).train()
    checkpoint = tmp_path / "part" / f"checkpoint-{stop}"

    # Another process: other subspaces at first, which the checkpoint's own must replace.
    fresh = with_dropout(attached(name, seed=1))
    assert not torch.equal(next(rosa.adapters.adapters(fresh))[1].A, next(rosa.adapters.adapters(attached(name)))[1].A)
    resumed = trainer_for(name, fresh, tmp_path / "part", rosa.ResampleCallback())
    resumed.train(resume_from_checkpoint=str(checkpoint))

    assert resumed.state.global_step == whole.state.global_step == UPDATES
    assert resamples(resumed) == DUE
    assert timeless(resumed.state.log_history) == timeless(whole.state.log_history)
    expected = whole.model.state_dict()
    assert all(torch.equal(value, expected[key]) for key, value in resumed.model.state_dict().items())
    for one, other in zip(optimizer_states(resumed), optimizer_states(whole), strict=True):
        assert all(torch.equal(one[key], other[key]) for key in other)


def optimizer_states(trainer: Trainer) -> list[dict[str, Tensor]]:
    return list(trainer.optimizer.state_dict()["state"].values())


class Outputs(TrainerCallback):
    """The outputs at each evaluation."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.outputs: list[Tensor] = []

    def on_evaluate(self, args: Any, state: Any, control: Any, model: Any = None, **others: Any) -> None:
        self.outputs.append(logits(model, self.name))


def ended_with_the_best(
    name: str, model: nn.Module, folder: Path, callback: TrainerCallback | None = None
) -> tuple[Trainer, Tensor]:
    """A training that puts the first evaluation's model back at its end, and that evaluation's outputs.

    The highest evaluation loss is called best, so a later subspace has to give way to an earlier one.
    """
    watch = Outputs(name)
    trainer = trainer_for(
        name, model, folder, callback or rosa.ResampleCallback(), watch, eval_strategy="epoch", save_strategy="epoch",
        load_best_model_at_end=True, metric_for_best_model="loss", greater_is_better=True,
    )  # fmt: skip
    trainer.train()
    losses = [entry["eval_loss"] for entry in trainer.state.log_history if "eval_loss" in entry]
    assert losses.index(max(losses)) == 0
    assert torch.equal(logits(model, name), watch.outputs[0])
    return trainer, watch.outputs[0]


def test_the_best_model_at_the_end_is_that_of_its_subspace(tmp_path: Path) -> None:
    model = attached("bert")
    trainer, outputs = ended_with_the_best("bert", model, tmp_path)
    straight = trained("bert", tmp_path / "straight", eval_strategy="epoch")
    assert MOVED in trainer.state.log_history[-1]
    assert trainer.state.log_history[-1] == straight.state.log_history[-1]  # of the last subspace, not of the best
    assert relative_difference(logits(rosa.merge(model), "bert"), outputs) <= 1e-5


def test_a_bfloat16_backbone_trains_under_the_trainers_autocast(tmp_path: Path) -> None:
    model = build("bert").bfloat16().train()
    rosa.attach(model, rosa.RosaConfig(rank=2, every=1), verbose=False)
    before = values(model)
    trainer = trainer_for("bert", model, tmp_path, rosa.ResampleCallback(), bf16=True, max_steps=5)
    trainer.train()
    assert resamples(trainer) == [3]
    assert all(math.isfinite(entry["loss"]) for entry in trainer.state.log_history if "loss" in entry)
    for key, parameter in model.named_parameters():
        trains = key.endswith((".A", ".B")) or key.startswith("classifier")
        assert parameter.dtype == (torch.float32 if trains else torch.bfloat16), key
        if not key.endswith(".base.weight"):  # the resample moves W_f
            assert torch.equal(parameter, before[key]) != trains, key
    assert {parameter.dtype for parameter in rosa.merge(model).parameters()} == {torch.bfloat16}


def test_a_float32_head_on_a_bfloat16_backbone_needs_autocast() -> None:
    """The error that docs/own_model.md describes, and its two remedies."""
    model = rosa.attach(build("bert").bfloat16(), rosa.RosaConfig(rank=2), verbose=False)
    with pytest.raises(RuntimeError, match="same dtype"):
        logits(model, "bert")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.isfinite(logits(model, "bert")).all()
    assert torch.isfinite(logits(rosa.merge(model), "bert")).all()


def test_weight_decay_reaches_the_factors_unless_they_are_named(tmp_path: Path) -> None:
    """A stock Trainer decays every weight that is no bias or normalization; the page shows how to spare A and B."""

    class SparingTrainer(Trainer):
        def get_decay_parameter_names(self, model: nn.Module) -> list[str]:
            return [name for name in super().get_decay_parameter_names(model) if not name.endswith((".A", ".B"))]

    model = attached("bert")
    factors = {key for key, parameter in model.named_parameters() if key.endswith((".A", ".B"))}
    for kind, decayed in ((Trainer, factors), (SparingTrainer, set())):
        trainer = kind(model, arguments(tmp_path, weight_decay=0.1), train_dataset=examples("bert"))
        trainer.create_optimizer()
        group = next(group for group in trainer.optimizer.param_groups if group["weight_decay"] == 0.1)
        inside = {id(parameter) for parameter in group["params"]}
        assert {key for key, p in model.named_parameters() if key in factors and id(p) in inside} == decayed


# --- generation, ties, compilation -----------------------------------------------------------------------------------


def continuation(model: PreTrainedModel) -> Tensor:
    prompt = torch.tensor([[5, 6, 7, 8], [9, 10, 11, 12]])
    return model.generate(
        prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=12, do_sample=False, use_cache=True,
        pad_token_id=0, eos_token_id=None,
    )  # fmt: skip


@pytest.mark.parametrize("name", ["gpt2", "llama", "t5"])
def test_greedy_generation_with_a_cache_is_the_plain_models(name: str) -> None:
    model = build(name)
    tiny.perturb(model, size=0.3)  # or T5 repeats one token
    plain = continuation(model)
    assert len(set(plain[:, -12:].flatten().tolist())) >= 3
    rosa.attach(model, rosa.RosaConfig(rank=2), verbose=False)
    assert torch.equal(continuation(model), plain)
    rosa.resample(model)
    assert torch.equal(continuation(model), plain)
    tiny.perturb(model, size=0.5)
    trained = continuation(model)
    assert not torch.equal(trained, plain)
    assert torch.equal(continuation(rosa.merge(model)), trained)


@pytest.mark.parametrize("name", ["gpt2", "t5"])
def test_tied_embeddings_stay_tied_through_training_saving_and_loading(name: str, tmp_path: Path) -> None:
    model = trained(name, tmp_path / "run", max_steps=4).model
    merged = rosa.merge(model)
    merged.save_pretrained(tmp_path / "saved")
    for each in (model, merged, type(merged).from_pretrained(tmp_path / "saved")):
        assert each.get_output_embeddings().weight is each.get_input_embeddings().weight


@pytest.mark.slow
def test_a_compiled_model_follows_a_resample() -> None:
    """The graph is traced without a break, and the factors are its inputs, not constants."""
    model = build("bert")
    rosa.attach(model, rosa.RosaConfig(rank=2), verbose=False)
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    expected = logits(model, "bert")
    assert torch.equal(logits(compiled, "bert"), expected)
    rosa.resample(model)
    tiny.perturb(model)
    trained = logits(model, "bert")
    assert not torch.allclose(trained, expected, atol=1e-3)
    assert torch.equal(logits(compiled, "bert"), trained)


# --- models of one's own ---------------------------------------------------------------------------------------------


class Tower(nn.Module):
    """A plain PyTorch model whose layer names say nothing about their role."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed = nn.Embedding(tiny.VOCABULARY, 16)
        self.zig = nn.ModuleList([nn.Linear(16, 24), nn.Linear(24, 16)])
        self.zag = nn.Linear(16, 3)

    def forward(self, input_ids: Tensor, labels: Tensor | None = None) -> dict[str, Tensor]:
        hidden = self.embed(input_ids).mean(1)
        for layer in self.zig:
            hidden = torch.tanh(layer(hidden))
        scores = self.zag(hidden)
        loss = nn.functional.cross_entropy(scores, labels) if labels is not None else scores.sum()
        return {"loss": loss, "logits": scores}


def test_odd_names_need_targets_and_the_error_lists_them() -> None:
    with pytest.raises(rosa.AdapterError, match=r"match none of the 3 linear layers of Tower; it has: zag, zig\.\*"):
        rosa.attach(Tower(), rosa.RosaConfig(rank=2))


def test_a_plain_module_in_a_trainer(tmp_path: Path) -> None:
    model = Tower()
    expected = copy.deepcopy(model.state_dict())
    rosa.attach(model, rosa.RosaConfig(rank=2, every=1, targets=["zig.*"]), verbose=False)
    model.zag.requires_grad_(True)  # outside transformers' models, which layer is the head is for the user to say
    trainer = Trainer(model, arguments(tmp_path), train_dataset=examples("bert"), callbacks=[rosa.ResampleCallback()])
    trainer.train()
    assert resamples(trainer) == DUE
    state = rosa.merge(model).state_dict()
    assert list(state) == list(expected)
    changed = {key for key, value in state.items() if not torch.equal(value, expected[key])}
    assert changed == {"zig.0.weight", "zig.1.weight", "zag.weight", "zag.bias"}


def test_a_loop_of_ones_own() -> None:
    """A resample clears the optimizer's state of the factors: for them alone, the next update is a first one."""
    model = attached("bert")
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2, weight_decay=0.0)
    batch = tiny.batch("bert")
    losses = []
    for step in range(9):
        if step and step % 3 == 0:
            before = logits(model, "bert")
            assert len(rosa.resample(model, generator=torch.Generator().manual_seed(step), optimizer=optimizer)) == 8
            assert relative_difference(logits(model, "bert"), before) <= 1e-5
        loss = model(**batch).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    counts = {key: int(optimizer.state[p]["step"]) for key, p in model.named_parameters() if p in optimizer.state}
    assert {count for key, count in counts.items() if key.endswith((".A", ".B"))} == {3}
    assert {count for key, count in counts.items() if key.startswith("classifier")} == {9}


# --- layers that cannot be adapted -----------------------------------------------------------------------------------


class Quantized(nn.Linear):
    """Stands for the layers of quantization libraries, which are subclasses of ``nn.Linear``."""

    def __init__(self, features: int, dtype: torch.dtype) -> None:
        super().__init__(features, features)
        self.weight = nn.Parameter(torch.zeros(features, features).to(dtype), requires_grad=False)


@pytest.mark.parametrize("config", [rosa.RosaConfig(rank=2), rosa.LoraConfig(rank=2)], ids=["rosa", "lora"])
@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.float8_e4m3fn], ids=str)
def test_a_quantized_layer_is_refused_by_name(dtype: torch.dtype, config: Any) -> None:
    model = build("bert")
    layer = "bert.encoder.layer.1.attention.self.key"
    model.get_submodule(layer.rpartition(".")[0]).key = Quantized(tiny.HIDDEN, dtype)
    with pytest.raises(rosa.AdapterError, match=rf"{layer} \(Quantized\) has a weight of {dtype}.*without quant"):
        rosa.attach(model, config, verbose=False)
    assert rosa.adapters.attachment(model) is None
    query = copy.deepcopy(config)
    query.targets = ["query"]
    rosa.attach(model, query, verbose=False)  # the rest of the model can be adapted


class OwnForward(nn.Linear):
    """A subclass with a forward pass of its own, as some architectures have."""

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight.T + self.bias


def test_other_subclasses_of_a_linear_layer_are_adapted_and_given_back() -> None:
    model = build("bert")
    original = model.bert.encoder.layer[0].attention.self.query
    replacement = OwnForward(tiny.HIDDEN, tiny.HIDDEN)
    replacement.load_state_dict(original.state_dict())
    model.bert.encoder.layer[0].attention.self.query = replacement
    expected = logits(model, "bert")
    rosa.attach(model, rosa.RosaConfig(rank=2), verbose=False)
    rosa.resample(model)
    assert relative_difference(logits(model, "bert"), expected) <= 1e-5
    assert rosa.merge(model).bert.encoder.layer[0].attention.self.query is replacement


class Mixed(nn.Module):
    """PyTorch's own attention, whose output layer is read and never called, beside layers that are."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.attention_in = nn.Linear(16, 16)
        self.attention = nn.MultiheadAttention(16, 2, batch_first=True)
        self.encoder = nn.TransformerEncoderLayer(16, 2, 24, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        x = self.attention_in(x)
        return self.encoder(self.attention(x, x, x)[0])


def test_layers_that_pytorchs_own_modules_read_without_calling_are_adapted() -> None:
    """Modules that read the layer's weight get the effective weight."""
    model = Mixed().eval()
    x = tiny.inputs(2, 3, 16)
    with torch.no_grad():  # so that the encoder layer takes its fused path
        expected = model(x)
        rosa.attach(model, rosa.RosaConfig(rank=2, targets=["*"]), verbose=False)
        layers = [layer.name for layer in rosa.adapters.attachment(model).layers]
        assert layers == [
            "attention_in",
            "attention.out_proj",
            *(f"encoder.{n}" for n in ("self_attn.out_proj", "linear1", "linear2")),
        ]
        assert relative_difference(model(x), expected) <= 1e-5
        tiny.perturb(model)
        trained = model(x)
        assert relative_difference(trained, expected) > 1e-3
    model(x).square().sum().backward()
    for _, adapter in rosa.adapters.adapters(model):
        assert all(factor.grad is not None for factor in adapter.factors().values())
    with torch.no_grad():
        assert relative_difference(rosa.merge(model)(x), trained) <= 1e-5


def test_a_parametrized_weight_is_left_alone() -> None:
    """Weight normalization recomputes the weight at each call, so a merged weight would be overwritten."""
    model = nn.Sequential(nn.Linear(8, 8), nn.utils.parametrizations.weight_norm(nn.Linear(8, 8)))
    rosa.attach(model, rosa.RosaConfig(rank=2, targets=["*"]), verbose=False)
    assert [layer.name for layer in rosa.adapters.attachment(model).layers] == ["0"]
