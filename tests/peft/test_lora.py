"""An adapter of ROSA as an ordinary LoRA adapter, with a classification head, loaded where there is no rosa."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import peft
import pytest
import torch
from peft import PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import PreTrainedModel

import rosa
from rosa.errors import ExportError
from rosa.peft import RosaConfig, save_as_lora
from tests.adapters.tiny import batch, build, logits, perturb, relative_difference, train_steps
from tests.peft.old import skip_encoder_decoders

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
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    command = [sys.executable, "-c", ELSEWHERE, str(tmp_path), type(base).__name__]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
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
def test_a_classification_head_goes_through_merging_and_through_pefts_own_conversion(tmp_path, name):
    model = trained(name, build(name))
    before = logits(model, name)
    peft.save_as_lora(tmp_path / "theirs", model, rank=8)
    converted = load_file(tmp_path / "theirs" / "adapter_model.safetensors")
    assert any("lora_A" in key for key in converted)
    heads = [key for key in converted if "classifier" in key]
    assert len(heads) == 2  # of the two layers of RoBERTa's head PEFT writes one: docs/peft.md says so
    plain = model.merge_and_unload()
    assert relative_difference(logits(plain, name), before) <= 1e-5
    assert list(plain.state_dict()) == list(build(name).state_dict())
    plain.save_pretrained(tmp_path / "plain")
    again = type(plain).from_pretrained(tmp_path / "plain")
    assert torch.equal(logits(again, name), logits(plain, name))


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
