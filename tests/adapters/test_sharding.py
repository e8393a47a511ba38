"""FSDP2 in two processes on the CPU: ROSA and RoSA train as in one process, alone and behind PEFT."""

from __future__ import annotations

import math
import weakref
from collections import OrderedDict
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from benchmarks.tensors import AllocatedInGroup, join
from torch import nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict, set_model_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from transformers import TrainerState

import rosa
from rosa.adapters import sharding, support
from rosa.adapters.base import ResampledAdapter
from rosa.adapters.collect import Collector
from rosa.adapters.rosa import RosaLinear
from rosa.errors import AdapterError
from rosa.peft import RobustConfig, RosaConfig
from rosa.utils.seeding import generator
from tests.adapters.tiny import attached, batch, build, logits, relative_difference
from tests.processes import together

STEPS, DUE = 5, (1, 3)
DOORS, METHODS = ("attach", "peft"), ("rosa", "robust")
WIDTH, RANK, DEPTHS = 256, 2, (2, 6)
"""Layers, and numbers of them, whose memory in a resample is counted."""


def make(door: str, seed: int = 0, method: str = "rosa") -> nn.Module:
    head = ["classifier"]
    model = build("bert")
    torch.manual_seed(seed)
    if door == "attach":
        own = rosa.RosaConfig(rank=2, head=head) if method == "rosa" else rosa.RobustConfig(density=0.05, head=head)
        return rosa.attach(model, own, generator=generator(seed, "adapter"), verbose=False)
    config = RosaConfig(r=2) if method == "rosa" else RobustConfig(r=2, density=0.05)
    config.modules_to_save = head
    return peft.get_peft_model(model, config).eval()


def train(model: nn.Module) -> None:
    """Updates of the trainable parameters, with two resamples, or with the choice of positions from the first."""
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    collector = Collector(support.supported(model), "gradient_squared")
    collector.start()
    for step in range(STEPS):
        if step in DUE and not collector.adapters:
            rosa.resample(model, generator=generator(0, "resample", step), optimizer=optimizer)
        optimizer.zero_grad()
        model(**batch("bert", seed=step)).loss.backward()
        if step == 0 and collector.adapters:
            collector.end_update()
            support.choose(model, collector.scores)
            collector.stop()
        else:
            optimizer.step()


class Gathered:
    """Counts the adapters that are whole at once."""

    def __init__(self) -> None:
        self.alive: weakref.WeakSet[nn.Module] = weakref.WeakSet()
        self.most = 0
        self.original = sharding.gathered

    def __call__(self, adapter: ResampledAdapter) -> ResampledAdapter:
        one = self.original(adapter)
        self.alive.add(one)
        self.most = max(self.most, len(self.alive))
        return one


def shard(model: Any, door: str) -> None:
    mesh = init_device_mesh("cpu", (2,))
    for layer in (model.get_base_model() if door == "peft" else model).bert.encoder.layer:
        fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)


def _in_a_group(rank: int, folder: Path) -> None:
    join(folder, rank, 2)
    torch.set_num_threads(1)
    for door in DOORS:
        for method in METHODS:
            torch.save(_trained_in_shards(rank, door, method), folder / f"{door}-{method}-{rank}.pt")
        found = {depth: _least_bytes_of_a_resample(door, depth) for depth in DEPTHS}
        torch.save(found, folder / f"{door}-bytes-{rank}.pt")
    torch.save(_after_a_forward_pass(), folder / f"forward-{rank}.pt")
    torch.save(_pruned(rank), folder / f"pruned-{rank}.pt")
    torch.distributed.destroy_process_group()


def _after_a_forward_pass() -> dict[str, Any]:
    """A forward pass without a backward pass leaves the whole parameters in place, beside the shards."""
    model = make("attach")
    fully_shard(model, mesh=init_device_mesh("cpu", (2,)))
    options = StateDictOptions(full_state_dict=True, cpu_offload=True)
    start = get_model_state_dict(model, options=options)
    saved: dict[str, Any] = {"start": start, "before": logits(model, "bert")}
    rosa.resample(model, generator=generator(0, "resample", 0))
    model.reshard()
    return saved | {"after": logits(model, "bert"), "state": get_model_state_dict(model, options=options)}


def _pruned(rank: int) -> dict[str, Any]:
    """Moments in shards of which the largest are cut, and then an error that says nothing about a weight."""
    model = pruning()
    shard(model, "attach")
    train(model)
    options = StateDictOptions(full_state_dict=True, cpu_offload=True)
    saved: dict[str, Any] = {"state": get_model_state_dict(model, options=options), "outputs": logits(model, "bert")}
    with pytest.MonkeyPatch.context() as patch:
        if rank == 1:
            patch.setattr(RosaLinear, "factorize", staticmethod(no_memory))
        try:
            rosa.resample(model)
        except Exception as error:
            saved["error"] = f"{type(error).__name__}: {error}"
    return saved | {"left": logits(model, "bert")}


def pruning() -> nn.Module:
    model = build("bert")
    config = rosa.RosaConfig(rank=2, optimizer_state="prune")
    return rosa.attach(model, config, generator=generator(0, "adapter"), verbose=False)


def no_memory(*_: Any) -> Any:
    raise torch.OutOfMemoryError("CUDA out of memory")


def _least_bytes_of_a_resample(door: str, depth: int) -> tuple[int, int]:
    """Of three measurements, the smallest peak and the least that is kept; each counts at least what is needed."""
    peaks, kept = zip(*(_bytes_of_a_resample(door, depth) for _ in range(3)), strict=True)
    return min(peaks), min(kept)


def _bytes_of_a_resample(door: str, depth: int) -> tuple[int, int]:
    """The most bytes of tensors at once in a resample of square layers, and what is kept of them."""
    model: Any = nn.Sequential(*(nn.Sequential(OrderedDict(attention=nn.Linear(WIDTH, WIDTH))) for _ in range(depth)))
    if door == "attach":
        rosa.attach(model, rosa.RosaConfig(rank=RANK), verbose=False)
    else:
        model = peft.get_peft_model(model, RosaConfig(r=RANK))
    mesh = init_device_mesh("cpu", (2,))
    for block in model.get_base_model() if door == "peft" else model:
        fully_shard(block, mesh=mesh)
    fully_shard(model, mesh=mesh)
    with AllocatedInGroup() as counted:
        rosa.resample(model)
    return counted.peak, counted.now


def _trained_in_shards(rank: int, door: str, method: str) -> dict[str, Any]:
    model = make(door, method=method)
    shard(model, door)
    counted = Gathered()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sharding, "gathered", counted)
        train(model)
    saved: dict[str, Any] = {"outputs": logits(model, "bert"), "most": counted.most, "left": len(counted.alive)}
    options = StateDictOptions(full_state_dict=True, cpu_offload=True)
    saved["state"] = get_model_state_dict(model, options=options)
    if door == "peft" and rank == 0:  # which alone has the whole state
        saved["adapter"] = peft.get_peft_model_state_dict(model, state_dict=saved["state"])
    saved["shards"] = all(isinstance(p, DTensor) for p in model.parameters())
    # Loading brings another training back to the same place.
    other = make(door, seed=1, method=method)
    shard(other, door)
    set_model_state_dict(other, get_model_state_dict(model), options=StateDictOptions(strict=False))
    saved["loaded"] = logits(other, "bert")
    if method == "rosa":
        saved |= _fail(model)
    return saved


def _fail(model: nn.Module) -> dict[str, Any]:
    """A weight of one process's share is broken: both must stop, say why, and change nothing."""
    name, bad = list(rosa.adapters.adapters(model))[1]
    before = {key: tensor.full_tensor() for key, tensor in model.named_parameters() if isinstance(tensor, DTensor)}
    with torch.no_grad():
        bad.A.to_local().fill_(math.nan)
    before |= {key: tensor.full_tensor() for key, tensor in model.named_parameters() if key == f"{name}.A"}
    said = ""
    try:
        rosa.resample(model)
    except AdapterError as error:
        said = str(error)
    after = {key: tensor.full_tensor() for key, tensor in model.named_parameters() if isinstance(tensor, DTensor)}
    unchanged = all(torch.equal(after[key].nan_to_num(), before[key].nan_to_num()) for key in before)
    return {"error": said, "unchanged": unchanged}


@pytest.fixture(scope="module")
def group(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with what two processes found, in every way."""
    folder = tmp_path_factory.mktemp("group")
    together(_in_a_group, folder)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("door", DOORS)
def test_two_processes_with_shards_end_where_one_does(door, method, group):
    first, second = (torch.load(group / f"{door}-{method}-{rank}.pt", weights_only=False) for rank in range(2))
    alone = make(door, method=method)
    train(alone)
    expected = logits(alone, "bert")
    assert first["shards"]
    assert max(first["most"], second["most"]) == (2 if method == "rosa" else 0)  # the second keeps its own alone
    for one in (first, second):
        assert relative_difference(one["outputs"], expected) <= 1e-6
        assert torch.equal(one["loaded"], one["outputs"])
        assert one["left"] == 0
        assert one["most"] <= 2
        if method == "rosa":
            assert "weights are not finite" in one["error"]
            assert one["unchanged"]
    state = alone.state_dict()
    for key, tensor in first["state"].items():
        if tensor.is_floating_point() and tensor.numel():
            assert relative_difference(tensor, state[key]) <= 1e-4, key
    plain = make(door, seed=1, method=method)
    plain.load_state_dict(first["state"])
    assert relative_difference(logits(plain, "bert"), expected) <= 1e-6
    if door == "peft":
        again = make(door, seed=1, method=method)
        peft.set_peft_model_state_dict(again, first["adapter"])
        assert relative_difference(logits(again, "bert"), expected) <= 1e-6


@pytest.mark.slow
def test_moments_in_shards_are_pruned_as_whole_ones(group):
    alone = pruning()
    train(alone)
    kept = rosa.attach(
        build("bert"), rosa.RosaConfig(rank=2, optimizer_state="keep"), generator=generator(0, "adapter")
    )
    train(kept)
    expected = logits(alone, "bert")
    assert relative_difference(logits(kept, "bert"), expected) > 1e-3, "pruning changes the training"
    for rank in range(2):
        found = torch.load(group / f"pruned-{rank}.pt")
        assert relative_difference(found["outputs"], expected) <= 1e-5


@pytest.mark.slow
def test_an_error_of_any_kind_in_one_process_ends_the_resample_of_all_shards(group):
    first, second = (torch.load(group / f"pruned-{rank}.pt") for rank in range(2))
    assert first["error"] == "FactorizationError: OutOfMemoryError: CUDA out of memory"
    assert second["error"] == "OutOfMemoryError: CUDA out of memory"
    for found in (first, second):
        assert torch.equal(found["left"], found["outputs"])


@pytest.mark.slow
@pytest.mark.parametrize("door", DOORS)
def test_a_resample_in_shards_needs_the_memory_of_a_layer_or_two_however_many_there_are(door, group):
    """In float64 a layer takes twice its bytes: the weight, its copies in a sum, and its Gram matrix."""
    layer, factors = 4 * WIDTH**2, 4 * RANK * 2 * WIDTH
    for rank in range(2):
        found = torch.load(group / f"{door}-bytes-{rank}.pt")
        rows = 3 if door == "peft" else 0  # a layer's history: a start, an end, the next start
        for depth, (peak, kept) in found.items():
            visited = WIDTH  # a byte for each direction
            assert kept <= depth * (rows * factors + visited), (rank, depth, kept)
            assert peak <= 7.5 * layer + kept + depth * factors, (rank, depth, peak / layer)


@pytest.mark.slow
def test_a_resample_after_a_forward_pass_alone_moves_the_shards(group):
    alone = make("attach")
    rosa.resample(alone, generator=generator(0, "resample", 0))
    expected = alone.state_dict()
    for rank in range(2):
        found = torch.load(group / f"forward-{rank}.pt")
        assert relative_difference(found["after"], found["before"]) <= 1e-5
        assert relative_difference(found["after"], logits(alone, "bert")) <= 1e-5
    first = torch.load(group / "forward-0.pt")  # which alone has the whole state
    moved = [key for key in first["state"] if key.endswith(".B")]
    for key in moved:
        assert relative_difference(first["state"][key], first["start"][key]) > 0.1, key
        assert relative_difference(first["state"][key], expected[key]) <= 1e-5, key
    assert moved


def test_what_a_layer_alone_gathers_is_a_copy():
    model = attached("bert", rosa.RosaConfig(rank=2))
    for _, adapter in rosa.adapters.adapters(model):
        twin = sharding.gathered(adapter)
        for one, other in zip(adapter.parameters(), twin.parameters(), strict=True):
            assert torch.equal(one, other)
            assert one.data_ptr() != other.data_ptr()
            assert one.requires_grad == other.requires_grad


# --- what cannot be had ----------------------------------------------------------------------------------------------


class FullyShardedDataParallel(nn.Module):
    """What the real one shows of itself: its class, and the wrapped module."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module


def flattened(model: nn.Module) -> nn.Module:
    """One block under FSDP1, as an automatic wrapping policy does."""
    layer = next(module for module in model.modules() if isinstance(module, nn.ModuleList))
    layer[1] = FullyShardedDataParallel(layer[1])
    return model


def partitioned(model: nn.Module) -> nn.Module:
    """Every parameter as DeepSpeed leaves it: its pieces are elsewhere, and it is marked."""
    for number, parameter in enumerate(model.parameters()):
        parameter.ds_id = number
        parameter.ds_status = "NOT_AVAILABLE"
        parameter.data = torch.empty(0)
    return model


WAYS = [
    (flattened, r"encoder\.layer\.1 is wrapped by FullyShardedDataParallel \(FSDP1\).*fully_shard"),
    (partitioned, r"weight is partitioned by DeepSpeed's ZeRO-3.*DistributedDataParallel"),
]


@pytest.mark.parametrize(("shard", "message"), WAYS)
@pytest.mark.parametrize("kind", [RosaConfig, RobustConfig])
def test_flat_shards_are_refused_before_anything_is_adapted(shard, message, kind):
    for add in (lambda model: rosa.attach(model, kind.METHOD()), lambda model: peft.get_peft_model(model, kind())):
        model = shard(build("bert"))
        before = {name: type(module) for name, module in model.named_modules()}
        with pytest.raises(AdapterError, match=message):
            add(model)
        assert {name: type(module) for name, module in model.named_modules()} == before


@pytest.mark.parametrize(("shard", "message"), WAYS)
@pytest.mark.parametrize("door", ["attach", "peft"])
def test_flat_shards_around_adapters_are_refused_at_the_start_of_training_and_at_a_resample(shard, message, door):
    model = shard(make(door))
    with pytest.raises(AdapterError, match=message):
        rosa.resample(model)
    state = TrainerState()
    with pytest.raises(AdapterError, match=message):
        rosa.ResampleCallback().on_train_begin(None, state, None, model=model)
    model = shard(attached("bert", rosa.RobustConfig(rank=2, density=0.05)))
    with pytest.raises(AdapterError, match=message):
        rosa.SupportCallback().on_train_begin(None, state, None, model=model)


@pytest.mark.slow
def test_the_real_fsdp1_is_recognized(tmp_path):
    from torch.distributed.fsdp import FullyShardedDataParallel as Real

    store = torch.distributed.FileStore(str(tmp_path / "store"), 1)
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        with pytest.raises(AdapterError, match=r"is wrapped by FullyShardedDataParallel \(FSDP1\)"):
            rosa.resample(Real(make("attach"), device_id=torch.device("cpu"), use_orig_params=True))
    finally:
        torch.distributed.destroy_process_group()
