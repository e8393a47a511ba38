"""FSDP2 in two processes on the CPU: ROSA trains and resamples as one process does, alone and behind PEFT."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from torch import multiprocessing, nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict, set_model_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

import rosa
from rosa.errors import AdapterError
from rosa.peft import RosaConfig
from rosa.utils.seeding import generator
from tests.adapters.tiny import attached, batch, build, logits, relative_difference

STEPS, DUE = 5, (1, 3)


def make(door: str, seed: int = 0) -> nn.Module:
    if door == "attach":
        return attached("bert", rosa.RosaConfig(rank=2), seed=seed)
    model = build("bert")
    torch.manual_seed(seed)
    return peft.get_peft_model(model, RosaConfig(r=2, modules_to_save=["classifier"])).eval()


def train(model: nn.Module) -> None:
    """Updates of the trainable parameters, with two resamples."""
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    for step in range(STEPS):
        if step in DUE:
            rosa.resample(model, generator=generator(0, "resample", step), optimizer=optimizer)
        optimizer.zero_grad()
        model(**batch("bert", seed=step)).loss.backward()
        optimizer.step()


def _in_a_group(rank: int, folder: Path, door: str) -> None:
    store = torch.distributed.FileStore(str(folder / "store"), 2)
    torch.distributed.init_process_group("gloo", store=store, rank=rank, world_size=2)
    torch.set_num_threads(1)
    model = make(door)
    inner = model.get_base_model() if door == "peft" else model
    mesh = init_device_mesh("cpu", (2,))
    for layer in inner.bert.encoder.layer:
        fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)
    train(model)
    saved: dict[str, Any] = {"outputs": logits(model, "bert")}
    options = StateDictOptions(full_state_dict=True, cpu_offload=True)
    saved["state"] = get_model_state_dict(model, options=options)
    if door == "peft" and rank == 0:  # which alone has the whole state
        saved["adapter"] = peft.get_peft_model_state_dict(model, state_dict=saved["state"])
    saved["shards"] = all(isinstance(p, DTensor) for p in model.parameters())
    # Loading brings another training back to the same place.
    other = make(door, seed=1)
    for layer in (other.get_base_model() if door == "peft" else other).bert.encoder.layer:
        fully_shard(layer, mesh=mesh)
    fully_shard(other, mesh=mesh)
    set_model_state_dict(other, get_model_state_dict(model), options=StateDictOptions(strict=False))
    saved["loaded"] = logits(other, "bert")
    # A weight of one process's share is broken: both must stop, say why, and change nothing.
    name, bad = list(rosa.adapters.adapters(model))[1]
    before = {key: tensor.full_tensor() for key, tensor in model.named_parameters() if isinstance(tensor, DTensor)}
    with torch.no_grad():
        bad.A.to_local().fill_(math.nan)
    before |= {key: tensor.full_tensor() for key, tensor in model.named_parameters() if key == f"{name}.A"}
    try:
        rosa.resample(model)
    except AdapterError as error:
        saved["error"] = str(error)
    after = {key: tensor.full_tensor() for key, tensor in model.named_parameters() if isinstance(tensor, DTensor)}
    saved["unchanged"] = all(torch.equal(after[key].nan_to_num(), before[key].nan_to_num()) for key in before)
    torch.save(saved, folder / f"{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.mark.slow
@pytest.mark.parametrize("door", ["attach", "peft"])
def test_two_processes_with_shards_end_where_one_does(door, tmp_path):
    multiprocessing.spawn(_in_a_group, (tmp_path, door), nprocs=2)
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=False) for rank in range(2))
    alone = make(door)
    train(alone)
    expected = logits(alone, "bert")
    assert first["shards"]
    for one in (first, second):
        assert relative_difference(one["outputs"], expected) <= 1e-6
        assert torch.equal(one["loaded"], one["outputs"])
        assert "weights are not finite" in one["error"]
        assert one["unchanged"]
    state = alone.state_dict()
    for key, tensor in first["state"].items():
        if tensor.is_floating_point() and tensor.numel():
            assert relative_difference(tensor, state[key]) <= 1e-4, key
    plain = make(door, seed=1)
    plain.load_state_dict(first["state"])
    assert relative_difference(logits(plain, "bert"), expected) <= 1e-6
    if door == "peft":
        again = make(door, seed=1)
        peft.set_peft_model_state_dict(again, first["adapter"])
        assert relative_difference(logits(again, "bert"), expected) <= 1e-6
