"""Layers of a linear class whose weight is read instead of called, and those that are refused by name."""

from __future__ import annotations

import copy
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import (
    BloomConfig,
    BloomForCausalLM,
    DebertaConfig,
    DebertaForSequenceClassification,
    FalconMambaConfig,
    FalconMambaForCausalLM,
    GPTBigCodeConfig,
    GPTBigCodeForCausalLM,
    JambaConfig,
    JambaForCausalLM,
    MambaConfig,
    MambaForCausalLM,
    PreTrainedModel,
    WavLMConfig,
    WavLMForSequenceClassification,
)
from transformers.models.detr.modeling_detr import DetrMHAttentionMap

from rosa.adapters import adapters, attach, base, changing_state, load_changing_state, merge
from rosa.adapters.robust import RobustLinear
from rosa.config import IA3Config, LoraConfig, MethodConfig, RobustConfig, RosaConfig
from rosa.errors import AdapterError
from tests.adapters import tiny
from tests.adapters.tiny import attached, build, inputs, perturb, relative_difference

# --- weights that are read and not called ----------------------------------------------------------------------------


def _bloom() -> PreTrainedModel:
    shape: dict[str, Any] = {"hidden_size": 32, "n_layer": 1, "n_head": 4, "pretraining_tp": 2, "slow_but_exact": True}
    return BloomForCausalLM(BloomConfig(vocab_size=40, hidden_dropout=0.0, attention_dropout=0.0, **shape))


def _wavlm() -> PreTrainedModel:
    shape: dict[str, Any] = {
        "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16,
        "conv_dim": (8, 8), "conv_stride": (5, 2), "conv_kernel": (10, 3), "num_feat_extract_layers": 2,
        "num_conv_pos_embeddings": 4, "num_conv_pos_embedding_groups": 2, "classifier_proj_size": 8,
    }  # fmt: skip
    return WavLMForSequenceClassification(WavLMConfig(**shape))


def _mamba() -> PreTrainedModel:
    shape: dict[str, Any] = {"hidden_size": 16, "num_hidden_layers": 1, "state_size": 4, "time_step_rank": 4}
    return MambaForCausalLM(MambaConfig(vocab_size=40, **shape))


def _falcon_mamba() -> PreTrainedModel:
    shape: dict[str, Any] = {"hidden_size": 16, "num_hidden_layers": 1, "state_size": 4, "time_step_rank": 4}
    return FalconMambaForCausalLM(FalconMambaConfig(vocab_size=40, **shape))


def _jamba() -> PreTrainedModel:
    shape: dict[str, Any] = {
        "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
        "num_key_value_heads": 1, "num_experts": 1, "num_experts_per_tok": 1, "mamba_d_state": 4, "mamba_dt_rank": 4,
        "attn_layer_period": 2, "attn_layer_offset": 1, "use_mamba_kernels": False, "mamba_d_conv": 4,
    }  # fmt: skip
    return JambaForCausalLM(JambaConfig(vocab_size=40, pad_token_id=0, **shape))


class MaskHead(nn.Module):
    """DETR's attention over an image, whose key is a convolution with a linear layer's weight."""

    def __init__(self) -> None:
        super().__init__()
        self.bbox_attention = DetrMHAttentionMap(16, 2)

    def forward(self, x: Tensor) -> Any:
        image = x.view(2, 16, 2, 2)
        return SimpleNamespace(logits=self.bbox_attention(x.view(2, 4, 16), image))


def _deberta() -> PreTrainedModel:
    shape: dict[str, Any] = {"relative_attention": True, "pos_att_type": ["c2p", "p2c"], "max_relative_positions": 16}
    return DebertaForSequenceClassification(DebertaConfig(**tiny.ENCODER, **shape))


TOKENS = torch.randint(3, 40, (2, 7), generator=torch.Generator().manual_seed(0))
READERS: dict[str, tuple[Callable[[], nn.Module], Tensor]] = {
    "bloom": (_bloom, TOKENS),
    "wavlm": (_wavlm, inputs(2, 400)),
    "mamba": (_mamba, TOKENS),
    "falcon_mamba": (_falcon_mamba, TOKENS),
    "jamba": (_jamba, TOKENS),
    "detr": (MaskHead, inputs(2, 64)),
    "deberta": (_deberta, TOKENS),
}


@pytest.mark.parametrize("config", [RosaConfig(rank=2, targets=["*"]), LoraConfig(rank=2, targets=["*"])], ids=str)
@pytest.mark.parametrize("name", READERS)
def test_a_weight_that_is_read_is_adapted_like_one_that_is_called(name: str, config: MethodConfig) -> None:
    make, x = READERS[name]
    torch.manual_seed(0)
    model = make().eval()

    def answer() -> Tensor:
        return model(x).logits

    expected = answer().detach()
    attach(model, config, generator=torch.Generator().manual_seed(0), verbose=False)
    assert relative_difference(answer().detach(), expected) <= 1e-4
    perturb(model, size=0.02)
    answer().square().sum().backward()
    factors = [(layer, f) for layer, adapter in adapters(model) for f in adapter.factors().values()]
    assert [layer for layer, factor in factors if factor.grad is None] == []
    trained = answer().detach()
    assert relative_difference(trained, expected) > 1e-3
    merge(model)
    assert relative_difference(answer().detach(), trained) <= 1e-4


# --- subclasses that are not linear ----------------------------------------------------------------------------------


class ScaledWeight(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return 0.5 * super().forward(x)


class Clipped(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).clamp(-10, 10)


class Ternary(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        scale = self.weight.abs().mean()
        return functional.linear(x, (self.weight / scale).round().clamp(-1, 1) * scale, self.bias)


class Grouped(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        groups = self.weight.view(4, -1, x.shape[-1]).transpose(1, 2)
        return (x.unflatten(-2, (4, -1)) @ groups).flatten(-2)


class Router(nn.Linear):
    def forward(self, x: Tensor) -> Any:
        return super().forward(x).topk(2)


METHODS = [make() for name, make in tiny.METHODS.items() if name != "full"]
"""Every method with adapters: whichever way it finds its layers, it refuses those that it cannot adapt."""
KEY = r"bert\.encoder\.layer\.1\.attention\.self\.key"
each_method = pytest.mark.parametrize("config", METHODS, ids=[name for name in tiny.METHODS if name != "full"])


@each_method
@pytest.mark.parametrize("kind", [ScaledWeight, Clipped, Ternary, Grouped, Router])
def test_a_layer_that_computes_something_else_is_refused_by_name(kind: type[nn.Linear], config: MethodConfig) -> None:
    model = build("bert")
    model.bert.encoder.layer[1].attention.self.key = kind(tiny.HIDDEN, tiny.HIDDEN)
    said = rf"bert\.encoder\.layer\.1\.attention\.self\.key \({kind.__name__}\) does not compute x W\^T"
    with pytest.raises(AdapterError, match=said):
        attach(model, config, verbose=False)


class InHalves(nn.Linear):
    """Sums in another order, so that the last digits differ."""

    def forward(self, x: Tensor) -> Tensor:
        half = self.in_features // 2
        second = x[..., half:] @ self.weight[:, half:].T
        return second + x[..., :half] @ self.weight[:, :half].T + self.bias


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_layer_of_another_class_that_computes_the_same_is_adapted(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    layer = InHalves(96, 64).to(dtype)
    x = torch.randn(5, 96, dtype=dtype)
    assert not torch.equal(layer(x), functional.linear(x, layer.weight, layer.bias))
    model = nn.ModuleDict({"attention": layer})
    attach(model, LoraConfig(rank=2), verbose=False)
    assert [name for name, _ in adapters(model)] == ["attention"]


@each_method
@pytest.mark.parametrize("dtype", [torch.int8, torch.float8_e4m3fn], ids=str)
def test_a_layer_of_codes_is_refused_by_name(dtype: torch.dtype, config: MethodConfig) -> None:
    """A scale of 1.04 changes none of the whole numbers when it is merged: the training would be lost."""
    model = build("bert")
    layer = model.bert.encoder.layer[1].attention.self.key
    layer.weight = nn.Parameter(torch.ones(tiny.HIDDEN, tiny.HIDDEN).to(dtype), requires_grad=False)
    with pytest.raises(AdapterError, match=rf"{KEY} \(Linear\) has a weight of .*, which looks quantized"):
        attach(model, config, verbose=False)


@each_method
@pytest.mark.parametrize("how", ["emptied", "distributed"])
def test_a_layer_of_which_only_a_shard_is_here_is_refused_by_name(how: str, config: MethodConfig) -> None:
    """ZeRO-3 leaves an empty parameter between its uses; FSDP leaves a distributed tensor with a device mesh."""
    model = build("bert")
    layer = model.bert.encoder.layer[1].attention.self.key
    if how == "emptied":
        layer.weight.data = torch.empty(0)
    else:
        layer.weight.device_mesh = "two devices"
    with pytest.raises(AdapterError, match=r"layer\.1\.attention\.self\.key \(Linear\) holds only a shard .*ZeRO-3"):
        attach(model, config, verbose=False)


@each_method
def test_an_offloaded_layer_is_refused_by_name(config: MethodConfig) -> None:
    model = build("bert")
    model.bert.encoder.layer[1].attention.self.key.to("meta")
    with pytest.raises(
        AdapterError, match=r"layer\.1\.attention\.self\.key \(Linear\) has its weight on the meta device"
    ):
        attach(model, config, verbose=False)


@each_method
def test_an_expanded_weight_is_refused_by_name(config: MethodConfig) -> None:
    """Its rows are one in memory, where nothing can be written."""
    model = build("bert")
    layer = model.bert.encoder.layer[1].attention.self.key
    layer.weight = nn.Parameter(torch.ones(1, tiny.HIDDEN).expand(tiny.HIDDEN, tiny.HIDDEN))
    with pytest.raises(AdapterError, match=r"layer\.1\.attention\.self\.key \(Linear\) has an expanded weight"):
        attach(model, config, verbose=False)


def test_a_weight_of_one_row_may_have_any_stride_there() -> None:
    """No two entries share memory, though the stride of the row is 0."""
    model = nn.ModuleDict({"attention": nn.Linear(16, 1)})
    model["attention"].weight = nn.Parameter(torch.randn(16).as_strided((1, 16), (0, 1)))
    attach(model, RosaConfig(rank=1), verbose=False)
    assert [name for name, _ in adapters(model)] == ["attention"]


@pytest.mark.parametrize("config", [tiny.METHODS[name]() for name in ("rosa", "lora", "robust")], ids=lambda c: c.name)
def test_two_weights_in_one_memory_are_left_alone(config: MethodConfig) -> None:
    """Two parameters, tied by their data alone: what is written into one is in the other."""
    model = build("bert")
    attention = model.bert.encoder.layer[1].attention.self
    attention.key.weight.data = attention.query.weight.data
    before = tiny.logits(model, "bert")
    attach(model, config, verbose=False)
    names = [name for name, _ in adapters(model) if name.startswith("bert.encoder.layer.1.")]
    assert [name.rpartition(".attention.")[2] for name in names] == ["self.value", "output.dense"]
    assert relative_difference(tiny.logits(model, "bert"), before) < 1e-5
    assert relative_difference(tiny.logits(merge(model), "bert"), before) < 1e-5


@pytest.mark.parametrize("method", tiny.METHODS)
def test_inference_mode_around_the_loading_or_the_attaching_is_refused(method: str) -> None:
    model = build("bert")
    with torch.inference_mode():
        made = tiny.BUILDERS["bert"]()
        with pytest.raises(AdapterError, match=r"attach: factors made under torch\.inference_mode cannot train"):
            attach(model, tiny.METHODS[method](), verbose=False)
    flags = {name: parameter.requires_grad for name, parameter in made.named_parameters()}
    with pytest.raises(AdapterError, match=r"word_embeddings\.weight was made under torch\.inference_mode"):
        attach(made, tiny.METHODS[method](), verbose=False)
    assert {name: parameter.requires_grad for name, parameter in made.named_parameters()} == flags


@pytest.mark.parametrize("wrap", [nn.DataParallel, lambda model: torch.compile(model, backend="eager")])
def test_a_wrapped_model_is_refused(wrap: Any) -> None:
    with pytest.raises(AdapterError, match="wraps BertForSequenceClassification: attach to the inner model"):
        attach(wrap(build("bert")), RosaConfig(rank=2), verbose=False)


@pytest.mark.parametrize("wrap", [nn.DataParallel, lambda model: torch.compile(model, backend="eager")])
def test_a_wrapper_leaves_no_trace_in_what_is_saved(wrap: Any) -> None:
    model = attached("bert", RosaConfig(rank=2))
    perturb(model)
    state = changing_state(wrap(model))
    assert state.keys() == changing_state(model).keys()
    other = attached("bert", RosaConfig(rank=2), seed=1)
    load_changing_state(wrap(other), state, "checkpoint")
    assert torch.equal(tiny.logits(other, "bert"), tiny.logits(model, "bert"))


# --- hooks -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["rosa", "lora", "ia3", "robust"])
@pytest.mark.parametrize("kind", ["before", "after", "backward"])
def test_a_hook_stays_with_what_its_layer_computes(kind: str, method: str) -> None:
    """It changes what the layer is given, gives, or gets as a gradient; registered before, removed while attached."""
    hooks: dict[str, Callable[[nn.Module], Any]] = {
        "before": lambda layer: layer.register_forward_pre_hook(lambda _, inputs: (2 * inputs[0],)),
        "after": lambda layer: layer.register_forward_hook(lambda _, inputs, output: 2 * output),
        "backward": lambda layer: layer.register_full_backward_hook(lambda _, gradients, __: (2 * gradients[0],)),
    }

    def seen(model: nn.Module) -> Tensor:
        if kind != "backward":
            return tiny.logits(model, "bert").detach()
        (embeddings,) = [m for name, m in model.named_modules() if name.endswith("word_embeddings")]
        embeddings.weight.requires_grad_(True)
        model(**tiny.batch("bert")).logits.sum().backward()
        gradient, embeddings.weight.grad = embeddings.weight.grad, None
        return gradient

    def value(model: nn.Module) -> nn.Module:
        return model.get_submodule("bert.encoder.layer.0.attention.self.value")

    plain, hooked = build("bert").eval(), build("bert").eval()
    without = seen(plain)
    handle = hooks[kind](value(hooked))
    expected = seen(hooked)
    assert relative_difference(without, expected) > 1e-3
    attach(hooked, tiny.METHODS[method](), verbose=False)
    assert relative_difference(seen(hooked), expected) < 1e-5
    merged = merge(copy.deepcopy(hooked))
    assert relative_difference(seen(merged), expected) < 1e-5
    handle.remove()
    assert relative_difference(seen(hooked), without) < 1e-5
    again = hooks[kind](value(hooked))
    merge(hooked)
    assert relative_difference(seen(hooked), expected) < 1e-5
    again.remove()
    assert relative_difference(seen(hooked), without) < 1e-5


# --- (IA)3 on a fused layer ------------------------------------------------------------------------------------------


def bigcode(multi_query: bool) -> PreTrainedModel:
    shape: dict[str, Any] = {"n_embd": 32, "n_layer": 1, "n_head": 4, "n_positions": 16}
    return GPTBigCodeForCausalLM(GPTBigCodeConfig(vocab_size=40, multi_query=multi_query, **shape))


def test_ia3_leaves_the_query_of_a_model_with_one_key_and_value() -> None:
    model = bigcode(multi_query=True)
    attach(model, IA3Config(), verbose=False)
    scale = model.transformer.h[0].attn.c_attn.factors()["scale"]
    assert scale.numel() == 2 * 8  # a key and a value of one head


def test_ia3_refuses_a_fused_layer_whose_order_it_does_not_know() -> None:
    with pytest.raises(AdapterError, match=r"h\.0\.attn\.c_attn \(96 x 32\): .*cannot locate the keys"):
        attach(bigcode(multi_query=False), IA3Config(), verbose=False)


# --- what model code reads of a layer --------------------------------------------------------------------------------


@each_method
@pytest.mark.parametrize("name", ["bert", "gpt2"])
def test_an_adapter_has_the_sizes_of_its_layer(name: str, config: MethodConfig) -> None:
    """Model code reads ``layer.out_features``, or ``nf`` and ``nx`` of a Conv1D."""
    model, plain = build(name), build(name)
    attach(model, config, verbose=False)
    for prefix, adapter in adapters(model):
        layer = plain.get_submodule(prefix)
        for size in ("in_features", "out_features", "nf", "nx"):
            assert getattr(adapter, size, None) == getattr(layer, size, None), (prefix, size)


def test_an_adapter_may_have_sizes_of_its_own() -> None:
    model = build("bert")
    attach(model, RosaConfig(rank=2), verbose=False)
    _, adapter = next(iter(adapters(model)))
    adapter.in_features = 7
    assert adapter.in_features == 7


@pytest.mark.parametrize("biased", [True, False])
def test_what_is_read_of_an_adapter_on_4_bits_is_in_the_dtypes_of_what_was_quantized(
    biased: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The codes are whole numbers: in their dtype every weight and bias would be one."""
    layer = nn.Linear(8, 8, bias=biased)
    dense = layer.weight.detach().to(torch.bfloat16)
    weight: Any = nn.Parameter(torch.zeros(32, 1, dtype=torch.uint8), requires_grad=False)
    weight.quant_state = SimpleNamespace(shape=(8, 8), dtype=torch.bfloat16)
    layer.weight = weight
    monkeypatch.setattr(base, "dequantized", lambda _: dense)
    adapter = RobustLinear(layer, 2, 0, RobustConfig(schedule="low_rank_only"), 0)
    assert adapter.weight.dtype == torch.bfloat16
    assert torch.equal(adapter.weight, dense)
    assert (adapter.bias is None) if not biased else torch.equal(adapter.bias, layer.bias)
