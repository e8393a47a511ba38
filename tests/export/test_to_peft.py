"""Adapters that to_peft writes, loaded by peft."""

from __future__ import annotations

import copy
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn
from torch.optim.swa_utils import AveragedModel
from transformers import PreTrainedModel

import rosa
from rosa.adapters import merge, resample
from rosa.config import MethodConfig, RosaConfig
from rosa.export import ExportError, PeftExport, to_merged, to_peft
from rosa.utils.seeding import generator
from tests.adapters.tiny import METHODS, OneLayer, attached, batch, build, logits, relative_difference, train_steps

MODELS = ("roberta", "bert", "gpt2", "llama", "t5")
SUBSPACES = 3


def tuned(name: str, config: MethodConfig | None = None, subspaces: int = SUBSPACES) -> PreTrainedModel:
    """The tiny model after training in several subspaces of rank 1 (or by another method), merged."""
    model = attached(name, config or RosaConfig(rank=1))
    for draw in range(subspaces):
        if draw:
            resample(model, generator=generator(draw, "draw"))
        train_steps(model, name)
    return merge(model).eval()


def reloaded(base: nn.Module, folder: Path) -> PeftModel:
    """As a user loads it, on a pretrained model of their own."""
    return PeftModel.from_pretrained(copy.deepcopy(base), folder).eval()


def forgetful(base: PreTrainedModel) -> PreTrainedModel:
    """The pretrained model with another random head, as when it is loaded again."""
    other = copy.deepcopy(base)
    for name in rosa.adapters.head_names(other):
        nn.init.normal_(other.get_parameter(name))
    return other


@pytest.mark.parametrize("name", MODELS)
def test_peft_gives_the_same_logits_and_the_weights_back(name: str, tmp_path: Path) -> None:
    base, plain = build(name), tuned(name)
    state = {key: tensor.clone() for key, tensor in base.state_dict().items()}
    export = to_peft(base, plain, tmp_path / "adapter")
    expected = logits(plain, name)
    assert relative_difference(logits(base, name), expected) > 0.1, "training changed too little to tell"
    loaded = reloaded(base if name == "llama" else forgetful(base), tmp_path / "adapter")
    assert relative_difference(logits(loaded, name), expected) < 1e-5
    unloaded = loaded.merge_and_unload()
    assert type(unloaded) is type(plain)
    for key, parameter in plain.named_parameters():
        assert relative_difference(unloaded.get_parameter(key).detach(), parameter.detach()) < 1e-6, key
    assert export.layers
    assert {layer.rank for layer in export.layers} == {2 * SUBSPACES}, "2 R in each subspace, and no rounding noise"
    assert all(layer.dropped < 1e-5 for layer in export.layers)
    assert all(torch.equal(tensor, state[key]) for key, tensor in base.state_dict().items()), "base was changed"
    assert not any("lora" in key for key, _ in base.named_modules())


WRAPPERS: dict[str, Any] = {
    "compiled": lambda model: torch.compile(model, backend="eager"),
    "parallel": nn.DataParallel,
    "averaged": AveragedModel,
}


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_a_wrapper_leaves_no_trace_in_an_export(wrapper: str, tmp_path: Path) -> None:
    """A wrapper adds prefixes (``_orig_mod.``, ``module.``) to names, which the adapter must not have."""
    wrap = WRAPPERS[wrapper]
    base, model = build("bert"), attached("bert", RosaConfig(rank=1))
    train_steps(model, "bert")
    plain = merge(wrap(model)).eval()
    expected = logits(model, "bert")
    to_peft(wrap(base), plain, tmp_path / "adapter")
    to_merged(plain, tmp_path / "merged")
    assert relative_difference(logits(reloaded(base, tmp_path / "adapter"), "bert"), expected) < 1e-5
    inner = model if wrapper != "averaged" else plain.module
    whole, found = type(inner).from_pretrained(tmp_path / "merged", output_loading_info=True)
    assert not found["missing_keys"]
    assert not found["unexpected_keys"]
    assert torch.equal(logits(whole.eval(), "bert"), logits(inner, "bert"))


def test_a_model_that_transformers_cannot_save_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="plain: Linear: expected a transformers model"):
        to_merged(nn.Linear(2, 2), tmp_path / "merged")


def test_sizes_are_those_of_the_files(tmp_path: Path) -> None:
    base, plain = build("bert"), tuned("bert")
    export = to_peft(base, plain, tmp_path / "adapter")
    assert export.adapter_bytes == (tmp_path / "adapter" / "adapter_model.safetensors").stat().st_size
    assert export.full_bytes == 4 * sum(parameter.numel() for parameter in plain.parameters())
    # 8 layers of 32 x 32 at rank 6, a head of 3 x 32 and 3, and at most 4 KiB to say so.
    held = 4 * (8 * 6 * 64 + 3 * 32 + 3)
    assert held < export.adapter_bytes < held + 4096
    lines = export.table().splitlines()
    assert lines[1].split() == [export.layers[0].name, "32", "x", "32", "6", f"{export.layers[0].dropped:.1e}"]
    assert lines[-2] == "whole: classifier"
    assert f"{export.adapter_bytes:,} bytes" in lines[-1]
    assert f"{100 * export.adapter_bytes / export.full_bytes:.2f} %" in lines[-1]


def test_scaling_is_1_and_ranks_differ_by_layer(tmp_path: Path) -> None:
    """Layers visited more or less often have ranks of their own, among them two whose names end alike."""
    shapes = {"k": 3, "inner.k": 1, "inner.xk": 2, "deep.inner.k": 0}
    base = nn.Module()
    for path in shapes:
        parent = base
        for part in path.split(".")[:-1]:
            if not hasattr(parent, part):
                setattr(parent, part, nn.Module())
            parent = getattr(parent, part)
        setattr(parent, path.split(".")[-1], nn.Linear(16, 16))
    plain = copy.deepcopy(base)
    for path, rank in shapes.items():
        if rank:
            torch.manual_seed(rank)
            with torch.no_grad():
                plain.get_submodule(path).weight.add_(torch.randn(16, rank) @ torch.randn(rank, 16))
    export = to_peft(base, plain, tmp_path / "adapter")
    assert {layer.name: layer.rank for layer in export.layers} == {"k": 3, "inner.k": 1, "inner.xk": 2}
    loaded = reloaded(base, tmp_path / "adapter")
    for path, rank in shapes.items():
        layer = loaded.base_model.model.get_submodule(path)
        assert hasattr(layer, "lora_A") == bool(rank)
        if rank:
            assert layer.r == {"default": rank}
            assert layer.scaling == {"default": 1.0}
            delta = plain.get_submodule(path).weight - base.get_submodule(path).weight
            assert relative_difference(layer.get_delta_weight("default").detach(), delta.detach()) < 1e-6


@pytest.mark.parametrize("tolerance", [0.5, 0.1, 1e-3])
def test_coarse_tolerance_drops_what_the_singular_values_say(tolerance: float, tmp_path: Path) -> None:
    base, plain = build("gpt2"), tuned("gpt2")
    export = to_peft(base, plain, tmp_path / "adapter", tolerance=tolerance)
    merged = reloaded(base, tmp_path / "adapter").merge_and_unload()
    ranks = set()
    for layer in export.layers:
        after = plain.get_submodule(layer.name).weight.detach().double()
        change = after - base.get_submodule(layer.name).weight.detach().double()
        S = torch.linalg.svdvals(change)
        tail = float(S[layer.rank :].norm() / S.norm())
        assert layer.dropped == pytest.approx(tail, rel=1e-6)
        assert tail <= tolerance < float(S[layer.rank - 1 :].norm() / S.norm())
        left = float((after - merged.get_submodule(layer.name).weight.detach().double()).norm() / change.norm())
        assert left == pytest.approx(tail, rel=1e-3, abs=1e-5)
        ranks.add(layer.rank)
    assert tolerance < 0.5 or max(ranks) < 2 * SUBSPACES


@pytest.mark.parametrize("name", ["gpt2", "bert"])
def test_lora_exports_at_its_own_rank(name: str, tmp_path: Path) -> None:
    """GPT-2's fused layer has a pair of factors for each of query, key and value."""
    base, plain = build(name), tuned(name, METHODS["lora"](), subspaces=1)
    export = to_peft(base, plain, tmp_path / "adapter", tolerance=1e-6)
    for layer in export.layers:
        assert layer.rank == (12 if layer.name.endswith("c_attn") else 4)
    assert relative_difference(logits(reloaded(base, tmp_path / "adapter"), name), logits(plain, name)) < 1e-5


def test_full_fine_tuning_exports_biases_and_norms_at_a_coarse_tolerance(tmp_path: Path) -> None:
    base, plain = build("bert"), tuned("bert", METHODS["full"](), subspaces=1)
    with pytest.raises(ExportError, match=r"bert\.\S+ \(\d+ x \d+\): its change has rank \d+ at tolerance 1e-05"):
        to_peft(base, plain, tmp_path / "adapter")
    export = to_peft(base, plain, tmp_path / "adapter", tolerance=0.7)
    assert "bert.embeddings.LayerNorm" in export.whole
    assert "bert.embeddings.word_embeddings" in export.whole
    assert export.adapter_bytes < export.full_bytes
    merged = reloaded(forgetful(base), tmp_path / "adapter").merge_and_unload()
    adapted = {layer.name for layer in export.layers}
    for key, parameter in plain.named_parameters():
        got = merged.get_parameter(key).detach()
        if key.endswith(".weight") and key.removesuffix(".weight") in adapted:
            change = (parameter - base.get_parameter(key)).norm()
            assert float(((got - parameter).norm() / change).detach()) < 0.7 + 1e-5
        else:
            assert torch.allclose(got, parameter, atol=1e-6), key


def test_bias_that_changed_alone_goes_along(tmp_path: Path) -> None:
    base, plain = build("bert"), tuned("bert")
    bias = "bert.encoder.layer.0.intermediate.dense.bias"
    with torch.no_grad():
        plain.get_parameter(bias).add_(0.3)
    to_peft(base, plain, tmp_path / "adapter")
    assert relative_difference(logits(reloaded(base, tmp_path / "adapter"), "bert"), logits(plain, "bert")) < 1e-5


def test_bfloat16_backbone_agrees_within_its_own_rounding(tmp_path: Path) -> None:
    """The tolerance is the change of the logits when the float32 weights are rounded to bfloat16."""
    base = build("roberta").to(torch.bfloat16)
    model = copy.deepcopy(base)
    rosa.attach(model, RosaConfig(rank=1), generator=generator(0, "adapter"), verbose=False)
    for draw in range(SUBSPACES):
        if draw:
            resample(model, generator=generator(draw, "draw"))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            train_steps(model, "roberta", steps=6, lr=5e-2)
    plain = merge(model).eval()
    export = to_peft(base, plain, tmp_path / "adapter")
    assert 0 < max(layer.rank for layer in export.layers) <= 2 * SUBSPACES
    expected = logits(copy.deepcopy(plain).float(), "roberta")
    loaded = reloaded(base, tmp_path / "adapter")
    held = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    assert {tensor.dtype for name, tensor in held.items() if "lora" in name} == {torch.float32}
    rounding = relative_difference(logits(plain, "roberta"), expected)
    moved = relative_difference(logits(base, "roberta"), expected)
    assert relative_difference(logits(loaded, "roberta"), expected) < 2 * rounding + 0.01 < moved


def test_frozen_head_goes_along_as_it_is_drawn_anew_elsewhere(tmp_path: Path) -> None:
    base, plain = build("bert"), tuned("bert", RosaConfig(rank=1, head="freeze"))
    assert torch.equal(base.classifier.weight, plain.classifier.weight)
    export = to_peft(base, plain, tmp_path / "adapter")
    assert export.whole == ("classifier",)
    loaded = reloaded(forgetful(base), tmp_path / "adapter")
    assert relative_difference(logits(loaded, "bert"), logits(plain, "bert")) < 1e-5


def test_pretrained_output_layer_that_stayed_is_left_out(tmp_path: Path) -> None:
    base, plain = build("llama"), tuned("llama", RosaConfig(rank=1, head="freeze"))
    assert to_peft(base, plain, tmp_path / "adapter").whole == ()


def test_layers_that_stayed_or_differ_by_rounding_are_left_out(tmp_path: Path) -> None:
    base, plain = build("bert"), tuned("bert", RosaConfig(rank=1, targets=["query", "key"]))
    for index in range(2):  # keys trained back to where they were, up to rounding
        key = plain.bert.encoder.layer[index].attention.self.key.weight
        pretrained = base.bert.encoder.layer[index].attention.self.key.weight
        somewhere = 10 * torch.randn(key.shape, generator=generator(index, "rounding"))
        key.data = torch.nextafter(pretrained.detach(), somewhere)
    export = to_peft(base, plain, tmp_path / "adapter")
    ranks = {layer.name.rpartition(".")[2]: layer.rank for layer in export.layers}
    assert ranks == {"query": 2 * SUBSPACES, "key": 0}
    held = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    assert {name.split(".")[-3] for name in held if "lora" in name} == {"query"}


def test_configuration_is_that_of_an_ordinary_adapter(tmp_path: Path) -> None:
    to_peft(build("bert"), tuned("bert"), tmp_path / "adapter", origin="From the moon.")
    config = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert config["peft_type"] == "LORA"
    assert config["task_type"] == "SEQ_CLS"
    assert (config["r"], config["lora_alpha"]) == (6, 6)
    assert config["modules_to_save"] == ["classifier"]
    card = (tmp_path / "adapter" / "README.md").read_text()
    assert "From the moon." in card
    assert "PeftModel.from_pretrained" in card


def test_global_random_stream_is_left_alone(tmp_path: Path) -> None:
    base, plain = build("bert"), tuned("bert")
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    to_peft(base, plain, tmp_path / "adapter")
    assert torch.equal(torch.rand(1), expected)


# --- what is refused -------------------------------------------------------------------------------------------------


def poisoned(plain: PreTrainedModel, value: float) -> PreTrainedModel:
    plain.bert.encoder.layer[1].attention.self.query.weight.data[0, 0] = value
    return plain


def refused(base: nn.Module, plain: nn.Module, folder: Path, match: str, **options: Any) -> None:
    with pytest.raises(ExportError, match=match):
        to_peft(base, plain, folder, **options)
    assert not folder.exists()
    assert not list(folder.parent.glob(".*")), "something was left behind"


def test_models_that_are_not_one_are_refused(tmp_path: Path) -> None:
    out, plain = tmp_path / "out", tuned("bert")
    refused(build("roberta"), plain, out, r"not the model that plain was made from: bert\.\S+ is only in plain")
    other = build("bert")
    other.classifier = nn.Linear(32, 5)
    refused(other, plain, out, r"classifier\.bias is \(5,\) in base and \(3,\) in plain")
    refused(build("bert").to(torch.bfloat16), plain, out, r"torch\.bfloat16 in base and torch\.float32 in plain")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_named(value: float, tmp_path: Path) -> None:
    plain = poisoned(tuned("bert"), value)
    refused(
        build("bert"),
        plain,
        tmp_path / "out",
        r"not finite cannot be exported: bert\.encoder\.layer\.1\.attention\.self\.query\.w",
    )


def test_attached_models_are_refused(tmp_path: Path) -> None:
    model = attached("bert", RosaConfig(rank=1))
    refused(build("bert"), model, tmp_path / "out", r"plain: .* has rosa attached; call rosa\.merge")
    refused(model, build("bert"), tmp_path / "out", "base: .* has rosa attached")


@pytest.mark.parametrize("name", ["bert", "gpt2"])
def test_ia3_is_refused_and_told_why(name: str, tmp_path: Path) -> None:
    plain = tuned(name, METHODS["ia3"](), subspaces=1)
    refused(build(name), plain, tmp_path / "out", r"\(\d+ x 32\): its change has rank 3\d .*\(IA\)3.*merged model")


def test_no_change_is_refused(tmp_path: Path) -> None:
    refused(build("bert"), build("bert"), tmp_path / "out", "no linear layer .* changed")


def test_tied_weights_that_changed_are_refused_by_name(tmp_path: Path) -> None:
    plain = tuned("gpt2")
    with torch.no_grad():
        plain.transformer.wte.weight.add_(1.0)
    refused(build("gpt2"), plain, tmp_path / "out", r"tied weight transformer\.wte\.weight and lm_head\.weight changed")


def test_parameter_beside_other_modules_is_refused_by_name(tmp_path: Path) -> None:
    base = OneLayer(nn.Linear(16, 16))
    base.token = nn.Parameter(torch.zeros(4))
    plain = copy.deepcopy(base)
    with torch.no_grad():
        plain.token.add_(1.0)
    refused(base, plain, tmp_path / "out", "token changed, but its module contains other modules")


def test_buffer_that_changed_is_refused_by_name(tmp_path: Path) -> None:
    base = nn.Sequential(nn.Linear(16, 16), nn.BatchNorm1d(16))
    plain = copy.deepcopy(base)
    plain(torch.randn(8, 16))
    refused(base, plain, tmp_path / "out", r"buffers changed.*1\.running_mean")


def test_biases_that_only_some_layers_have_are_refused(tmp_path: Path) -> None:
    base = nn.Sequential(nn.Linear(16, 16), nn.Linear(16, 16, bias=False))
    plain = copy.deepcopy(base)
    with torch.no_grad():
        for parameter in plain.parameters():
            parameter.add_(0.1)
    refused(base, plain, tmp_path / "out", "bias of 0 changed and 1 has none")


@pytest.mark.parametrize(
    ("others", "match"), [(True, "mistakes base_model.classifier.attention.layer for"), (False, "peft cannot")]
)
def test_layer_that_peft_takes_for_a_part_of_the_head_is_refused(others: bool, match: str, tmp_path: Path) -> None:
    base = OneLayer(nn.Linear(16, 2))
    base.base_model = nn.Module()
    base.base_model.classifier = OneLayer(nn.Linear(16, 16))
    base.base_model.other = nn.Linear(16, 16)
    base.classifier = base.attention.layer
    del base.attention
    plain = copy.deepcopy(base)
    with torch.no_grad():
        for layer in [plain.base_model.classifier.attention.layer, *([plain.base_model.other] if others else [])]:
            layer.weight[0].add_(1.0)
    refused(base, plain, tmp_path / "out", match)


@pytest.mark.parametrize("tolerance", [-0.1, 1.0, float("nan")])
def test_tolerance_out_of_range_is_refused(tolerance: float, tmp_path: Path) -> None:
    refused(build("bert"), tuned("bert"), tmp_path / "out", "tolerance=", tolerance=tolerance)


# --- folders ---------------------------------------------------------------------------------------------------------


def exported(folder: Path, **options: Any) -> PeftExport:
    return to_peft(build("bert"), tuned("bert"), folder, **options)


def test_folder_that_is_taken_is_refused_unless_it_is_an_export_to_overwrite(tmp_path: Path) -> None:
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    (theirs / "thesis.tex").write_text("years of work")
    for overwrite in (False, True):
        with pytest.raises(ExportError, match="is not an export"):
            exported(theirs, overwrite=overwrite)
    assert (theirs / "thesis.tex").read_text() == "years of work"
    ours = tmp_path / "deeper" / "ours"
    exported(ours)
    with pytest.raises(ExportError, match="already contains an export"):
        exported(ours)
    (ours / "adapter_model.safetensors").write_text("")
    exported(ours, overwrite=True)
    assert load_file(ours / "adapter_model.safetensors")
    assert [path.name for path in ours.parent.iterdir()] == ["ours"]


def test_empty_folder_is_filled(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    exported(tmp_path / "empty")
    assert (tmp_path / "empty" / "adapter_config.json").is_file()


@pytest.mark.parametrize("place", [".", "", "..", "/", "../here", "{here}"])
@pytest.mark.parametrize("overwrite", [True, False])
def test_the_current_folder_and_those_around_it_are_refused(
    place: str, overwrite: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    with pytest.raises(ExportError, match="the current folder would be replaced"):  # every export's folder is made so
        to_merged(build("bert"), place.format(here=here), overwrite=overwrite)
    assert not any(here.iterdir())


@pytest.mark.parametrize("error", [OSError("No space left"), SafetensorError("I/O error"), KeyboardInterrupt()])
def test_export_that_breaks_off_leaves_the_earlier_one(
    error: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "out"
    exported(folder)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}

    def breaking(self: PeftModel, place: str, **options: Any) -> None:
        Path(place, "adapter_model.safetensors").write_bytes(b"half")
        raise error

    monkeypatch.setattr(PeftModel, "save_pretrained", breaking)
    with pytest.raises(KeyboardInterrupt if isinstance(error, KeyboardInterrupt) else ExportError):
        exported(folder, overwrite=True)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    shutil.rmtree(folder)
    assert not any(tmp_path.iterdir())


def test_unlabelled_batch_is_enough_to_use_it(tmp_path: Path) -> None:
    exported(tmp_path / "out")
    loaded = reloaded(build("bert"), tmp_path / "out")
    inputs = {key: value for key, value in batch("bert").items() if key != "labels"}
    assert torch.allclose(loaded(**inputs).logits, tuned("bert")(**inputs).logits, atol=1e-5)
