"""Names, patterns and layer indices that match nothing are refused by name, before anything is changed."""

from __future__ import annotations

import re
import warnings
from pathlib import Path

import pytest
import torch
from peft import PeftModel, get_peft_model
from peft.utils.other import ModulesToSaveWrapper
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import AlbertConfig, AlbertForSequenceClassification

import rosa
from rosa.errors import AdapterError, ConfigError
from rosa.peft import RobustConfig, RosaConfig
from rosa.peft.names import HEADS
from tests.adapters.tiny import build, logits
from tests.peft.test_model import both, config_of, layers, trained, wrapped

LISTS = "layers_pattern: 'layer' names no list of modules of LlamaForCausalLM; did you mean layers\\?; it has: layers$"
WRONG = [
    ("llama", {"target_modules": ["q_proj", "v_porj"]},
     "target_modules: 'v_porj' names no module of LlamaForCausalLM; did you mean [a-z]_proj\\?; it has: .*q_proj"),
    ("llama", {"target_modules": ["self_atn.q_proj"]},
     "target_modules: 'self_atn.q_proj' names no module .*did you mean self_attn.q_proj"),
    ("llama", {"exclude_modules": ["k_proj", "v_pro"]}, "exclude_modules: 'v_pro' matches no .*did you mean v_proj"),
    ("llama", {"exclude_modules": "v_proj"}, "exclude_modules: 'v_proj' matches no module of LlamaForCausalLM; did"),
    ("llama", {"exclude_modules": ["mlp"]},
     r"exclude_modules: 'mlp' matches model.layers.0.mlp, but not the layers inside .*exclude_modules='.*mlp\\..*'"),
    ("llama", {"exclude_modules": r".*\.mlp"}, "matches model.layers.0.mlp, but not the layers inside it"),
    ("llama", {"modules_to_save": ["lm_haed"]},
     "modules_to_save: 'lm_haed' names no module .*; did you mean lm_head\\?; it has: model, lm_head"),
    ("llama", {"rank_pattern": {"q_porj": 2}},
     r"rank_pattern: 'q_porj' matches none of the 8 layers that are adapted; did you mean q_proj\?; they are: model"),
    ("llama", {"rank_pattern": {"k_proj": 2}, "target_modules": ["q_proj"]},
     "rank_pattern: 'k_proj' matches none of the 2 layers"),
    ("llama", {"rank_pattern": {"q_proj": 2, r"layers\.0\..*q_proj": 1}},
     "'layers.* has no effect, since PEFT takes the first pattern that matches a layer, here 'q_proj': put 'layers"),
    ("llama", {"density_pattern": {"up_proj": 0.2}}, "density_pattern: 'up_proj' matches none of the 8 layers"),
    ("llama", {"layers_to_transform": [1, 2]}, "layers_to_transform: 2 is no layer with target .*; it has: 0, 1$"),
    ("llama", {"layers_to_transform": 7, "target_modules": ["q_proj"]}, "layers_to_transform: 7 is no layer with"),
    ("llama", {"layers_to_transform": 0, "layers_pattern": "layer", "target_modules": ["q_proj"]}, LISTS),
    ("llama", {"layers_to_transform": 0, "layers_pattern": ["layers", "layer"]}, LISTS),
    ("llama", {"layers_to_transform": 0, "layers_pattern": "layer"}, "with layers_pattern='layer' leaves none"),
    ("roberta", {"modules_to_save": ["clasifier"]}, "modules_to_save: 'clasifier' names .*did you mean classifier"),
    ("roberta", {"modules_to_save": ["clasifier"], "task_type": "SEQ_CLS"}, "modules_to_save: 'clasifier' names no"),
]  # fmt: skip


def parts_of(model: nn.Module) -> tuple:
    """What must stay as it was: modules, and what trains."""
    modules = {name: type(module) for name, module in model.named_modules()}
    return modules, {name: parameter.requires_grad for name, parameter in model.named_parameters()}


@both
@pytest.mark.parametrize(("name", "options", "message"), WRONG)
def test_what_matches_nothing_is_refused_and_the_model_is_left_alone(kind, name, options, message):
    if "density_pattern" in options and kind is RosaConfig:
        options = {"rank_pattern": {"up_proj": 2}}
        message = message.replace("density", "rank")
    model = build(name)
    before, out = parts_of(model), logits(model, name)
    with pytest.raises(AdapterError, match=message):
        get_peft_model(model, config_of(kind, **options))
    assert parts_of(model) == before
    # As a second adapter, too.
    first = trained(name, kind=kind, **({"task_type": "SEQ_CLS"} if "task_type" in options else {}))
    before, out = parts_of(first), logits(first, name)
    with pytest.raises(AdapterError, match=message):
        first.add_adapter("second", config_of(kind, **options))
    assert parts_of(first) == before
    assert set(first.peft_config) == {"default"}
    assert torch.equal(logits(first, name), out)


@both
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("llama", {"target_modules": ["q_proj", "model.layers.0.mlp.up_proj"], "exclude_modules": ["lm_head"]}),
        ("llama", {"exclude_modules": r".*\.0\..*"}),
        ("llama", {"target_modules": "all-linear", "exclude_modules": ["lm_head", "down_proj"]}),
        ("llama", {"modules_to_save": ["lm_head"], "rank_pattern": {r"layers\.0\..*q_proj": 1, "q_proj": 2}}),
        ("llama", {"layers_to_transform": [0, 1], "layers_pattern": ["layers"]}),
        ("roberta", {"task_type": "SEQ_CLS"}),
        ("roberta", {"modules_to_save": ["classifier.dense", "classifier.out_proj"]}),
        ("bert", {"task_type": "SEQ_CLS", "layers_to_transform": [1], "target_modules": ["query", "output.dense"]}),
        ("t5", {"layers_to_transform": [0], "layers_pattern": "block"}),
    ],
)
def test_what_matches_is_taken_also_for_a_second_adapter_and_from_a_file(tmp_path, kind, name, options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of PEFT, about tied weights
        model = wrapped(name, kind=kind, **options)
        model.add_adapter("second", config_of(kind, **options))
        model.save_pretrained(tmp_path)
        for folder, trains in ((tmp_path, False), (tmp_path / "second", True)):
            PeftModel.from_pretrained(build(name), folder, is_trainable=trains)


@both
def test_what_is_only_loaded_is_not_asked_about_names(tmp_path, kind):
    """The model may lack what the trained one excluded: the tensors decide."""
    model = trained("llama", kind=kind, exclude_modules=["lm_head"])
    model.save_pretrained(tmp_path)
    other = build("llama")
    other.lm_head = nn.Identity()
    loaded = PeftModel.from_pretrained(other, tmp_path)
    assert len(layers(loaded)) == len(layers(model))
    other = build("llama")
    other.lm_head = None
    with pytest.raises(AdapterError, match="exclude_modules: 'lm_head' matches no module"):
        PeftModel.from_pretrained(other, tmp_path, is_trainable=True)


@both
def test_an_adapter_of_another_model_is_refused_by_name(tmp_path, kind):
    wrapped("roberta", kind=kind, target_modules=["query", "value"]).save_pretrained(tmp_path)
    for trains, message in (
        (False, r"target_modules=\['query', 'value'\] matches none of the modules of LlamaForCausalLM"),
        (True, "target_modules: 'query' names no module of LlamaForCausalLM; it has: .*q_proj"),
    ):
        with pytest.raises(AdapterError, match=message):
            PeftModel.from_pretrained(build("llama"), tmp_path, is_trainable=trains)


@both
def test_a_saved_module_inside_another_is_refused_since_peft_could_not_load_it(kind):
    message = "'classifier.dense' matches classifier.dense, which lies in classifier, saved as 'classifier': leave out"
    with pytest.raises(AdapterError, match=message):
        get_peft_model(build("roberta"), config_of(kind, task_type="SEQ_CLS", modules_to_save=["classifier.dense"]))


@both
def test_a_classifier_whose_head_peft_does_not_know_is_refused(kind):
    shape = {"vocab_size": 50, "embedding_size": 8, "hidden_size": 16, "num_attention_heads": 2}
    model = AlbertForSequenceClassification(AlbertConfig(**shape, intermediate_size=16, num_hidden_layers=2))
    model.top = model.classifier
    del model.classifier
    with pytest.raises(AdapterError, match=r"task_type=SEQ_CLS: PEFT trains a head called classifier or score, which"):
        get_peft_model(model, config_of(kind, task_type="SEQ_CLS"))
    found = get_peft_model(model, config_of(kind, task_type="SEQ_CLS", modules_to_save=["top"]))
    assert isinstance(found.base_model.model.top, ModulesToSaveWrapper)


def test_the_heads_are_those_that_peft_looks_for():
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.config = {"model_type": "custom"}
            self.q = nn.Linear(4, 4)
            self.classifier, self.score, self.qa_outputs = nn.Linear(4, 2), nn.Linear(4, 2), nn.Linear(4, 2)

        def prepare_inputs_for_generation(self) -> None:
            """Looked for by PEFT."""

    for task in ("SEQ_CLS", "TOKEN_CLS", "QUESTION_ANS", "FEATURE_EXTRACTION", "CAUSAL_LM"):
        found = get_peft_model(Model(), RosaConfig(r=2, target_modules=["q"], task_type=task))
        assert tuple(found.peft_config["default"].modules_to_save or ()) == HEADS.get(task, ())


@both
def test_what_peft_refuses_half_way_is_taken_back(kind):
    model = build("llama")
    before = parts_of(model)
    with pytest.raises(TypeError, match="ModuleList"):
        get_peft_model(model, config_of(kind, modules_to_save=["layers"], target_modules=["lm_head"]))
    assert parts_of(model) == before
    first = trained("llama", kind=kind)
    before, out = parts_of(first), logits(first, "llama")
    saved = ["embed_tokens", "k_proj"]  # the first is in place when the second, an adapted layer, is refused
    with pytest.raises(TypeError, match="cannot be applied to modules of type"):
        first.add_adapter("second", config_of(kind, target_modules=["up_proj"], modules_to_save=saved))
    assert parts_of(first) == before
    assert set(first.peft_config) == {"default"}
    assert torch.equal(logits(first, "llama"), out)


def of_another_rank(file: Path) -> None:
    tensors = {key: tensor[:, :1] if tensor.ndim == 2 else tensor for key, tensor in load_file(file).items()}
    save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, file)


def without_the_head(file: Path) -> None:
    save_file({key: tensor for key, tensor in load_file(file).items() if ".classifier." not in key}, file)


@both
@pytest.mark.parametrize("spoil", [of_another_rank, without_the_head, Path.unlink])
@pytest.mark.parametrize("options", [{}, {"is_trainable": True}, {"low_cpu_mem_usage": True}])
def test_a_new_adapter_whose_file_cannot_be_loaded_is_taken_back(tmp_path, kind, spoil, options):
    source = trained("roberta", kind=kind, task_type="SEQ_CLS")
    good, bad = tmp_path / "good", tmp_path / "bad"
    for folder in (good, bad):
        source.save_pretrained(folder)
    spoil(bad / "adapter_model.safetensors")
    plain = build("roberta")
    plain.roberta.embeddings.requires_grad_(False)
    first = wrapped("roberta", kind=kind, target_modules=["query"])
    for model, load in (
        (plain, lambda: PeftModel.from_pretrained(plain, bad, **options)),
        (first, lambda: first.load_adapter(bad, "second", **options)),
    ):
        before, out, state = parts_of(model), logits(model, "roberta"), model.state_dict()
        with pytest.raises((AdapterError, KeyError, ValueError)):
            load()
        assert parts_of(model) == before
        assert torch.equal(logits(model, "roberta"), out)
        assert list(model.state_dict()) == list(state)
    assert not hasattr(plain, "peft_config")
    assert rosa.adapters.attachment(plain) is None
    assert (set(first.peft_config), first.active_adapter) == ({"default"}, "default")
    expected = logits(source, "roberta")
    assert torch.equal(logits(PeftModel.from_pretrained(plain, good, **options).eval(), "roberta"), expected)
    first.load_adapter(good, "second", **options)
    first.set_adapter("second")
    assert torch.equal(logits(first.eval(), "roberta"), expected)


def test_a_pattern_of_lists_must_be_a_regular_expression():
    for kind in (RosaConfig, RobustConfig):
        with pytest.raises(ConfigError, match=re.escape("layers_pattern: '(' is not a regular expression")):
            kind(layers_to_transform=0, layers_pattern=["("])
