"""All methods on a CUDA device; tests that need nothing specific to CUDA also run on the CPU.

``pytest -m gpu`` runs the tests on CUDA alone; they are skipped where PyTorch sees no such device.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from rosa import records
from rosa.adapters import adapters, attach, changing_state, load_changing_state, merge, resample
from rosa.adapters.base import Adapter, oriented
from rosa.adapters.support import choose, supported
from rosa.config import RosaConfig
from rosa.run import run
from rosa.run.device import precision_for
from rosa.utils.seeding import generator
from tests.adapters import tiny
from tests.adapters.tiny import METHODS, build, relative_difference
from tests.conftest import Composer
from tests.run.test_distributed import launch
from tests.run.test_resume import folder_of, interrupted_then_resumed

on_cuda = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch sees no CUDA device"),
]
"""The marks of what needs a CUDA device."""
CUDA = pytest.param("cuda", marks=on_cuda)
METHODS_AND_MODELS = [(method, name) for method in METHODS for name in ("roberta", "gpt2")]


@pytest.fixture(autouse=True)
def full_float32() -> Iterator[None]:
    """No TF32, which would hide what is measured here; cuDNN, under loralib's merged layer, uses it by default."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    yield
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


@pytest.fixture(params=["cpu", CUDA])
def device(request: pytest.FixtureRequest) -> str:
    """The device of the test: ``cpu`` or ``cuda``."""
    return request.param


def batch(name: str, device: str, seed: int = 0) -> dict[str, Tensor]:
    return {key: value.to(device) for key, value in tiny.batch(name, seed).items()}


def logits(model: PreTrainedModel, name: str, autocast: bool = False) -> Tensor:
    device = model.device.type
    with torch.no_grad(), torch.autocast(device, dtype=torch.bfloat16, enabled=autocast):
        return model(**batch(name, device)).logits


def train(model: PreTrainedModel, name: str, steps: int = 3) -> torch.optim.AdamW:
    """Updates as the harness does them on a GPU: bfloat16 autocast, fused AdamW."""
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trainable, lr=1e-2, fused=True)
    device = model.device.type
    for step in range(steps):
        optimizer.zero_grad()
        with torch.autocast(device, dtype=torch.bfloat16):
            loss = model(**batch(name, device, seed=100 + step)).loss
        loss.backward()
        optimizer.step()
    return optimizer


def attached(method: str, name: str, device: str, moved: str = "before") -> PreTrainedModel:
    """A tiny model on the device, moved there ``before`` or ``after`` attaching."""
    model = build(name)
    if moved == "before":
        model.to(device)
    attach(model, METHODS[method](), generator=generator(0, "adapter"), verbose=False)
    stream = generator(0, "scores")
    choose(model, {layer: torch.rand(one.shape, generator=stream) for layer, one in supported(model).items()})
    return model.to(device)


@pytest.mark.parametrize("moved", ["before", "after"])
@pytest.mark.parametrize(("method", "name"), METHODS_AND_MODELS)
def test_attach_train_resample_and_merge(method: str, name: str, moved: str, device: str) -> None:
    plain = build(name).to(device)
    start = logits(plain, name)
    rounding = relative_difference(logits(plain, name, autocast=True), start)

    model = attached(method, name, device, moved)
    assert all(tensor.device.type == device for tensor in model.state_dict().values())
    assert relative_difference(logits(model, name), start) <= 1e-5
    assert 0 < relative_difference(logits(model, name, autocast=True), start) <= 2 * rounding

    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    train(model, name)
    for parameter_name, parameter in model.named_parameters():
        assert torch.isfinite(parameter).all(), parameter_name
        assert torch.equal(parameter, before[parameter_name]) != parameter.requires_grad, parameter_name
        assert parameter.dtype == torch.float32
    trained = logits(model, name)
    assert relative_difference(trained, start) > 1e-3

    if method == "rosa":
        for step in range(3):
            assert list(resample(model, generator=generator(0, "resample", step))) == [n for n, _ in adapters(model)]
            assert relative_difference(logits(model, name), trained) <= 1e-5
            assert relative_difference(logits(model, name, autocast=True), trained) <= 4 * rounding
        train(model, name)
        trained = logits(model, name)

    assert merge(model) is model
    assert list(model.state_dict()) == list(plain.state_dict())
    assert {n: type(m) for n, m in model.named_modules()} == {n: type(m) for n, m in plain.named_modules()}
    assert relative_difference(logits(model, name), trained) <= 1e-5


@pytest.mark.parametrize(("method", "name"), [m for m in METHODS_AND_MODELS if m[0] != "full"])
def test_bfloat16_backbone(method: str, name: str, device: str) -> None:
    start = logits(build(name).to(device), name)
    rounding = relative_difference(logits(build(name).bfloat16().to(device), name, autocast=True), start)
    model = build(name).bfloat16().to(device)
    attach(model, METHODS[method](), generator=generator(0, "adapter"), verbose=False)
    assert relative_difference(logits(model, name, autocast=True), start) <= 2 * rounding
    train(model, name)
    for parameter in model.parameters():
        assert parameter.dtype == (torch.float32 if parameter.requires_grad else torch.bfloat16)
        assert torch.isfinite(parameter).all()
    if method == "rosa":
        trained = logits(model, name, autocast=True)
        resample(model, generator=generator(0, "resample"))
        assert relative_difference(logits(model, name, autocast=True), trained) <= 4 * rounding


@pytest.fixture
def synchronisation_is_an_error() -> Iterator[Any]:
    """A context in which CUDA raises if the CPU waits for the device; switched off after the test."""
    before = torch.cuda.get_sync_debug_mode()
    yield lambda: torch.cuda.set_sync_debug_mode("error")
    torch.cuda.set_sync_debug_mode(before)


def one_pass(adapter: Adapter, x: Tensor, autocast: bool) -> None:
    with torch.autocast("cuda", dtype=torch.bfloat16, enabled=autocast):
        out = adapter(x)
    out.backward(out.detach())


@pytest.mark.parametrize("device", [CUDA])
@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("moved", ["before", "after"])
@pytest.mark.parametrize(("method", "name"), [m for m in METHODS_AND_MODELS if m[0] != "full"])
def test_no_synchronisation_in_a_layer(
    method: str, name: str, moved: str, autocast: bool, device: str, synchronisation_is_an_error: Any
) -> None:
    """Forward and backward of each layer alone, without the model's code around it."""
    layers = [adapter for _, adapter in adapters(attached(method, name, device, moved))]
    batches = [
        torch.randn(2, 5, oriented(layer.base, layer.weight).shape[1], device=device, requires_grad=True)
        for layer in layers
    ]
    for layer, x in zip(layers, batches, strict=True):
        one_pass(layer, x, autocast)  # libraries load and allocate at a first use
    torch.cuda.synchronize()
    synchronisation_is_an_error()
    for layer, x in zip(layers, batches, strict=True):
        one_pass(layer, x, autocast)


@pytest.mark.parametrize("device", [CUDA])
def test_the_switch_that_the_test_above_trusts_works(device: str, synchronisation_is_an_error: Any) -> None:
    x = torch.ones(3, device=device)
    synchronisation_is_an_error()
    with pytest.raises(RuntimeError, match="synchroniz"):
        x.sum().item()


@pytest.mark.parametrize("sampling", ["random", "top", "bottom", "window"])
@pytest.mark.parametrize("shape", [(96, 96), (160, 64), (64, 160)], ids=str)
@pytest.mark.parametrize("kind", ["linear", "conv1d"])
def test_a_split_is_the_cpus(kind: str, shape: tuple[int, int], sampling: str, device: str) -> None:
    """One seed chooses one subspace, whatever the device. Its product is compared: a direction's sign is free."""
    products = []
    for place in ("cpu", device):
        model = tiny.OneLayer(tiny.make_layer(kind, *shape)).to(place)
        config = RosaConfig(rank=8, sampling=sampling)
        attach(model, config, generator=generator(0, "adapter"), verbose=False)
        resample(model, generator=generator(0, "resample"))
        factors = model.attention.layer.factors()
        assert all(factor.device.type == place for factor in factors.values())
        products.append((factors["A"] @ factors["B"]).detach().cpu())
    assert relative_difference(products[1], products[0]) <= 1e-4


@pytest.mark.parametrize(("method", "name"), METHODS_AND_MODELS)
def test_what_a_gpu_trained_loads_on_the_cpu(method: str, name: str, device: str) -> None:
    model = attached(method, name, device)
    train(model, name)
    if method == "rosa":
        resample(model, generator=generator(0, "resample"))
    saved = {key: tensor.cpu() for key, tensor in changing_state(model).items()}
    other = tiny.attached(name, METHODS[method](), seed=1)
    load_changing_state(other, saved, "checkpoint")
    assert relative_difference(tiny.logits(other, name), logits(model, name).cpu()) <= 1e-4


def test_auto_precision_asks_for_bfloat16_in_hardware(monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU such as Turing's that only emulates it, which PyTorch tells of when it is asked about emulation."""
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation)
    assert precision_for("auto", "cuda") == "fp32"
    assert precision_for("bf16", "cuda") == "bf16"
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: True)
    assert precision_for("auto", "cuda") == "bf16"
    assert precision_for("auto", "cpu") == "fp32"


def losses(record: dict[str, Any]) -> list[float]:
    """Every training and evaluation loss of a run, in their order."""
    entries = [*record["training"], *record["history"]]
    return [value for entry in entries for key, value in _leaves(entry) if key.endswith("loss")]


def _leaves(node: Any, key: str = "") -> Iterator[tuple[str, float]]:
    if isinstance(node, dict):
        for child, value in node.items():
            yield from _leaves(value, child)
    elif isinstance(node, float):
        yield key, node


@pytest.mark.slow
@pytest.mark.parametrize("options", [["rosa", "method.every=1"], ["lora"], ["ia3"], ["full"]], ids=lambda o: o[0])
def test_an_interrupted_run_goes_on(
    options: list[str], device: str, composed: Composer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Six updates an epoch, stopped twice: before the first resample and after it."""
    config = composed(f"method={options[0]}", *options[1:], "train.log_steps=2")
    config = dataclasses.replace(config, train=dataclasses.replace(config.train, device=device, precision="auto"))
    whole = run(dataclasses.replace(config, results_dir=str(tmp_path / "whole")), "command", progress=False).record
    resumed = interrupted_then_resumed(config, [4, 8], monkeypatch)
    assert resumed["status"] == whole["status"] == "done"
    assert whole["config"]["train"]["precision"] in ("bf16", "fp32")
    assert [event["step"] for event in resumed["resamples"]] == [event["step"] for event in whole["resamples"]]
    assert len(whole["resamples"]) == (2 if options[0] == "rosa" else 0)
    # Sums on a GPU may come in another order from run to run; the two trainings must not differ by more.
    assert len(losses(whole)) > 5
    assert losses(resumed) == pytest.approx(losses(whole), rel=1e-2)


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 2])
def test_several_gpus_are_as_one(count: int, device: str, composed: Composer, tmp_path: Path) -> None:
    """One process as torchrun starts it; and two processes, through NCCL."""
    if device == "cuda" and torch.cuda.device_count() < count:
        pytest.skip(f"PyTorch sees fewer than {count} CUDA devices")
    config = composed("method=rosa", "method.every=1", "data.train_size=97", "train.log_steps=2")
    config = dataclasses.replace(config, train=dataclasses.replace(config.train, device=device, precision="fp32"))
    alone = run(dataclasses.replace(config, results_dir=str(tmp_path / "alone")), "command", progress=False).record
    assert launch(*[config] * count) == ["done"] * count
    several = records.read(folder_of(config) / records.RECORD)
    assert several["environment"]["processes"] == count
    assert several["costs"]["examples"] == alone["costs"]["examples"]
    # The head's dropout draws another pattern where a batch is shared.
    assert losses(several) == pytest.approx(losses(alone), rel=1e-2 if count == 1 else 0.2)
