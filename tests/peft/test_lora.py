"""An adapter of ROSA as an ordinary LoRA adapter, with a classification head, loaded where there is no rosa."""

from __future__ import annotations

import copy
import json
import warnings
from pathlib import Path

import peft
import pytest
import torch
from peft import PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import PreTrainedModel

import rosa
from rosa.errors import ExportError
from rosa.peft import RobustConfig, RosaConfig, save_as_lora
from tests.adapters.tiny import batch, build, logits, perturb, relative_difference, train_steps
from tests.peft.elsewhere import python
from tests.peft.old import skip_encoder_decoders
from tests.peft.test_model import change_course

ELSEWHERE = """
import sys
sys.modules["rosa"] = None
import torch
from peft import AutoPeftModelForCausalLM, AutoPeftModelForSequenceClassification, LoraConfig, PeftConfig
from safetensors.torch import load_file, save_file
folder, kind = sys.argv[1:]
config = PeftConfig.from_pretrained(folder + "/lora")
assert type(config) is LoraConfig
model = getattr(__import__("transformers"), kind).from_pretrained(folder + "/base")
from peft import PeftModel
model = PeftModel.from_pretrained(model, folder + "/lora").eval()
inputs = load_file(folder + "/batch.safetensors")
with torch.no_grad():
    save_file({"logits": model(**inputs).logits}, folder + "/logits.safetensors")
merged = model.merge_and_unload()
assert not [name for name in sys.modules if name.startswith("rosa.")]
"""


def head_of(name: str) -> dict:
    return {"roberta": {"task_type": "SEQ_CLS"}, "bert": {"modules_to_save": ["classifier"]}}.get(name, {})


def trained(name: str, base: PreTrainedModel, dtype: torch.dtype = torch.float32, **options) -> PeftModel:
    """A PEFT model with a trained head, after two resamples."""
    torch.manual_seed(0)
    model = get_peft_model(base.to(dtype), RosaConfig(**{"r": 1, **head_of(name), **options})).eval()
    for step in range(3):
        if step:
            rosa.resample(model)
        train_steps(model, name, 2)
    perturb(model)
    return model


def trained_as(kind: type, name: str, **options) -> PeftModel:
    """A PEFT model of either method with a trained head, after a change of course."""
    own = {"density": 0.05} if kind is RobustConfig else {}
    torch.manual_seed(0)
    model = get_peft_model(build(name), kind(r=2, **{**own, **head_of(name), **options})).eval()
    change_course(model)
    train_steps(model, name, 2)
    perturb(model)
    return model


@pytest.mark.slow
@pytest.mark.parametrize("name", ["roberta", "llama", "gpt2"])
def test_it_loads_where_rosa_cannot_be_imported(tmp_path, name):
    base = build(name)
    base.save_pretrained(tmp_path / "base")
    model = trained(name, base)
    before = logits(model, name)
    model.save_pretrained(tmp_path / "lora", as_lora=True)
    assert torch.equal(logits(model, name), before)
    save_file({key: tensor.clone() for key, tensor in batch(name).items()}, tmp_path / "batch.safetensors")
    done = python(ELSEWHERE, tmp_path, tmp_path, type(base).__name__)
    assert done.returncode == 0, done.stderr
    assert relative_difference(load_file(tmp_path / "logits.safetensors")["logits"], before) <= 1e-4
    assert "rosa" not in (tmp_path / "lora" / "adapter_config.json").read_text()


@pytest.mark.parametrize("name", ["roberta", "bert", "llama", "gpt2", "t5"])
def test_the_adapter_has_the_rank_of_what_changed(tmp_path, name):
    if name == "t5":
        skip_encoder_decoders()
    model = trained(name, build(name), r=1)
    export = save_as_lora(model, tmp_path)
    assert export.layers
    assert all(1 <= layer.rank <= 2 * 1 * 3 for layer in export.layers)  # three subspaces of rank 1
    loaded = PeftModel.from_pretrained(build(name), tmp_path)
    assert relative_difference(logits(loaded, name), logits(model, name)) <= 1e-4
    assert json.loads((tmp_path / "adapter_config.json").read_text())["peft_type"] == "LORA"


@pytest.mark.parametrize("name", ["roberta", "bert"])
def test_a_classification_head_goes_through_merging(tmp_path, name):
    model = trained(name, build(name))
    before = logits(model, name)
    plain = model.merge_and_unload()
    assert relative_difference(logits(plain, name), before) <= 1e-5
    assert list(plain.state_dict()) == list(build(name).state_dict())
    plain.save_pretrained(tmp_path / "plain")
    again = type(plain).from_pretrained(tmp_path / "plain")
    assert torch.equal(logits(again, name), logits(plain, name))


@pytest.mark.parametrize("kind", [RosaConfig, RobustConfig])
@pytest.mark.parametrize(
    ("name", "rank"), [("roberta", 32), ("roberta", 1.0), ("bert", 32), ("llama", 1.0), ("gpt2", 32)]
)
def test_pefts_own_conversion_gives_an_adapter_with_the_whole_head(tmp_path, name, kind, rank):
    """PEFT 0.21.2 by itself writes one of the two layers of RoBERTa's head, under a name that is not loaded."""
    model = trained_as(kind, name, modules_to_save=["lm_head"]) if name == "llama" else trained_as(kind, name)
    peft.save_as_lora(tmp_path, model, rank=rank)
    config, state = peft.convert_to_lora(model, rank=rank)
    saved = load_file(tmp_path / "adapter_model.safetensors")
    assert {key: tensor.shape for key, tensor in saved.items()} == {key: t.shape for key, t in state.items()}
    assert type(config) is peft.LoraConfig
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "Found missing adapter keys")
        loaded = PeftModel.from_pretrained(build(name), tmp_path).eval()
    shares = 1e-3 if rank == 1.0 else 1e-4  # a share of a sum of squares is exact to the root of float32's precision
    assert relative_difference(logits(loaded, name), logits(model, name)) <= shares


@pytest.mark.parametrize("kind", [RosaConfig, RobustConfig])
def test_pefts_own_conversion_takes_the_head_and_the_layers_of_the_adapter_that_is_asked_for(tmp_path, kind):
    model = trained_as(kind, "roberta")
    own = {"density": 0.05} if kind is RobustConfig else {}
    model.add_adapter("second", kind(r=2, task_type="SEQ_CLS", target_modules=["query", "intermediate.dense"], **own))
    model.set_adapter("second")
    train_steps(model, "roberta", 2)
    for name in ("default", "second"):
        model.set_adapter(name)
        peft.save_as_lora(tmp_path / name, model, rank=32, adapter_name=name)
        loaded = PeftModel.from_pretrained(build("roberta"), tmp_path / name).eval()
        assert relative_difference(logits(loaded, "roberta"), logits(model, "roberta")) <= 1e-4
    with pytest.raises(ExportError, match="adapter 'third': the model has 'default', 'second'"):
        peft.save_as_lora(tmp_path / "third", model, rank=32, adapter_name="third")


def test_pefts_own_conversion_is_as_it_was_for_other_methods():
    torch.manual_seed(0)
    model = get_peft_model(
        build("bert"), peft.LoHaConfig(r=2, target_modules=["query"], modules_to_save=["classifier"])
    )
    perturb(model)
    mine = peft.convert_to_lora(model, 4)
    theirs = peft.tuners.lora.conversion.convert_to_lora.__wrapped__(model, 4)
    assert mine[0] == theirs[0]
    assert list(mine[1]) == list(theirs[1])
    assert all(torch.equal(tensor, theirs[1][key]) for key, tensor in mine[1].items())


@pytest.mark.parametrize("name", ["roberta", "gpt2"])
def test_a_sparse_part_with_a_head_has_no_exact_lora_form_and_what_the_refusal_names_works(tmp_path, name):
    model = trained_as(RobustConfig, name)
    remedies = (
        r"save_pretrained\(folder\) saves it .*merge_and_unload\(\) .*peft.save_as_lora\(folder, model, rank=...\)"
    )
    with pytest.raises(ExportError, match=f"sparse part has full rank.*{remedies}"):
        model.save_pretrained(tmp_path, as_lora=True)
    assert not list(tmp_path.iterdir())
    before = logits(model, name)
    model.save_pretrained(tmp_path / "own")
    assert torch.equal(logits(PeftModel.from_pretrained(build(name), tmp_path / "own").eval(), name), before)
    peft.save_as_lora(tmp_path / "lora", model, rank=32)  # the full rank: as exact as it can be
    loaded = PeftModel.from_pretrained(build(name), tmp_path / "lora").eval()
    assert relative_difference(logits(loaded, name), before) <= 1e-4
    assert relative_difference(logits(model.merge_and_unload(), name), before) <= 1e-5


@pytest.mark.parametrize("name", ["roberta", "gpt2"])
def test_a_model_that_was_loaded_keeps_its_backbone(tmp_path, name):
    """Transformers marks what it loaded; without the marks, adapted weights would pass for a new head."""
    build(name).save_pretrained(tmp_path / "base")
    kind = type(build(name))
    model = trained(name, kind.from_pretrained(tmp_path / "base"))
    export = save_as_lora(model, tmp_path / "lora")
    assert export.whole == (("classifier",) if name == "roberta" else ())
    loaded = PeftModel.from_pretrained(kind.from_pretrained(tmp_path / "base"), tmp_path / "lora").eval()
    assert relative_difference(logits(loaded, name), logits(model, name)) <= 1e-4


def test_unload_gives_the_pretrained_head_back():
    expected = logits(build("roberta"), "roberta")
    model = trained("roberta", build("roberta"))
    with model.disable_adapter():
        assert torch.equal(logits(model, "roberta"), expected)
    assert torch.equal(logits(model.unload(), "roberta"), expected)


def test_other_files_of_the_folder_stay(tmp_path):
    (tmp_path / "tokenizer.json").write_text("{}")
    model = trained("llama", build("llama"))
    for _ in range(2):
        model.save_pretrained(tmp_path, as_lora=True)
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"tokenizer.json", "adapter_config.json", "adapter_model.safetensors", "README.md"}


def test_one_adapter_of_several_is_chosen_by_name(tmp_path):
    model = trained("llama", build("llama"))
    first = logits(model, "llama")
    model.add_adapter("other", RosaConfig(r=1))
    model.set_adapter("other")
    train_steps(model, "llama", 2)
    model.save_pretrained(tmp_path / "first", as_lora=True, selected_adapters=["default"])
    model.save_pretrained(tmp_path / "active", as_lora=True)
    model.save_pretrained(tmp_path / "nowhere", as_lora=True, is_main_process=False)
    assert not Path(tmp_path / "nowhere").exists()
    for folder, expected in (("first", first), ("active", logits(model, "llama"))):
        loaded = PeftModel.from_pretrained(build("llama"), tmp_path / folder)
        assert relative_difference(logits(loaded, "llama"), expected) <= 1e-4


def test_what_cannot_be_converted_is_refused_by_name(tmp_path):
    model = trained("llama", build("llama"))
    with pytest.raises(ExportError, match=r"adapter 'missing': the model has 'default'"):
        model.save_pretrained(tmp_path, as_lora=True, selected_adapters=["missing"])
    with pytest.raises(ExportError, match=r"selected_adapters=\['a', 'b'\]: expected one name"):
        model.save_pretrained(tmp_path, as_lora=True, selected_adapters=["a", "b"])
    with pytest.raises(ExportError, match="takes selected_adapters and is_main_process, not safe_serialization"):
        model.save_pretrained(tmp_path, as_lora=True, safe_serialization=False)
    other = get_peft_model(build("llama"), peft.IA3Config(target_modules=["q_proj"], feedforward_modules=[]))
    with pytest.raises(ExportError, match="as_lora: adapter 'default' is of IA3"):
        other.save_pretrained(tmp_path, as_lora=True)
    other.save_pretrained(tmp_path)
    assert (tmp_path / "adapter_config.json").is_file()  # for others, saving is as it was


@pytest.mark.parametrize(("saved", "other"), [("wte", "lm_head.weight"), ("lm_head", "transformer.wte.weight")])
def test_an_embedding_that_was_tied_is_refused_by_name_and_what_the_refusal_names_works(tmp_path, saved, other):
    base = build("gpt2").eval()
    model = trained("gpt2", copy.deepcopy(base), target_modules=["c_attn"], modules_to_save=[saved])
    with pytest.raises(ExportError, match=rf"{saved} of modules_to_save is tied to {other} .*peft\.save_as_lora"):
        save_as_lora(model, tmp_path / "lora")
    assert not (tmp_path / "lora").exists()
    model.save_pretrained(tmp_path / "own")
    loaded = PeftModel.from_pretrained(base, tmp_path / "own")
    assert torch.equal(logits(loaded, "gpt2"), logits(model, "gpt2"))
