"""Do on the CPU and on the pretend device what no run of a tiny model reaches; print how far apart the results are.

``python -m tests.training.pretend_parts FOLDER``: a folder for models and exports. Prints a JSON object: what was done,
and the largest difference relative to the largest value, or null for what only has to work.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import gc
import io
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from benchmarks import on_gpu
from peft import get_peft_model
from safetensors.torch import save_file
from torch import Tensor, nn

import rosa.peft
from rosa.adapters import adapters, attach, merge, resample
from rosa.adapters.diagnostics import changes
from rosa.adapters.resampling import resampled
from rosa.adapters.support import choose, supported
from rosa.config import RosaConfig, register
from rosa.export import to_peft, to_sparse
from rosa.run import mini_model
from rosa.utils.names import PRETRAINING
from rosa.utils.seeding import generator
from tests.adapters import tiny
from tests.composing import compose_config
from tests.training import pretend_device
from tests.training.pretend_runs import known_device

MINI = (
    *("model.mini.steps=4", "model.mini.batch_size=16", "model.mini.sentences=200", "model.mini.layers=2"),
    *("model.mini.hidden=32", "model.mini.heads=2", "model.mini.intermediate=64"),
)
SPLITS: dict[str, dict[str, str]] = {
    "exactly": {"solver": "svd"},
    "by the Gram matrix": {"solver": "gram", "split": "symmetric"},
    "by either": {"solver": "auto", "sampling": "window"},
    "added": {"factorization": "svd_add"},
    "at random": {"factorization": "random_add"},
    "on a random basis": {"factorization": "random_orthogonal"},
}
SIZES = ((24, 16), (16, 24))


def apart(here: Tensor, there: Tensor) -> float:
    """The largest difference, relative to the largest value (0 for two zeros)."""
    return float((there.detach().cpu() - here).abs().max() / here.abs().max().clamp(min=1e-9))


def pretrained(folder: Path) -> Iterator[tuple[str, float]]:
    """What each small model is said to have learnt, of which the last updates' loss."""
    for model, task in (("mini-roberta", "cola"), ("mini-gpt2", "e2e")):
        facts = []
        for device in ("cpu", pretend_device.NAME):
            overrides = (f"model={model}", f"task={task}", *MINI, "train.device=cpu", f"cache_dir={folder / device}")
            config = compose_config(*overrides)
            config = dataclasses.replace(config, train=dataclasses.replace(config.train, device=device))
            found = json.loads((Path(mini_model.located(config).path) / PRETRAINING).read_text(encoding="utf-8"))
            facts.append({name: value for name, value in found.items() if name != "seconds"})
        # Weights are no measure: Adam moves one without a gradient by the sign of its rounding error.
        assert facts[0].keys() == facts[1].keys()
        numbers = [torch.tensor([one[name] for name in one if isinstance(one[name], float)]) for one in facts]
        yield f"pretraining of {model}", float(((numbers[0] - numbers[1]) / numbers[0]).abs().max())


def split() -> Iterator[tuple[str, float]]:
    """Each way to split a weight: the products of the factors of a few resamples, and the merged weight."""
    for name, options in SPLITS.items():
        worst = 0.0
        for size in SIZES:
            found = []
            for device in ("cpu", pretend_device.NAME):
                model: nn.Module = tiny.OneLayer(tiny.make_layer("linear", *size)).to(device)
                attach(model, RosaConfig(rank=3, **options), generator=generator(0, "adapter"), verbose=False)
                for number in range(2):
                    resample(model, generator=generator(0, "resample", number))
                ((_, adapter),) = adapters(model)
                factors = adapter.factors()
                found.append([factors["A"] @ factors["B"], merge(model).attention.layer.weight])
            worst = max(
                worst, *(apart(here.detach() + 1, there.detach() + 1) for here, there in zip(*found, strict=True))
            )
        yield f"split {name}", worst


def _save(tensors: dict[str, Tensor], *place: Any, **options: Any) -> None:
    save_file({name: tensor.cpu() for name, tensor in tensors.items()}, *place, **options)


def exported(folder: Path) -> Iterator[tuple[str, None]]:
    """A model's change, measured and exported from the device where it was trained."""
    for method, name in (("rosa", "gpt2"), ("robust", "roberta")):
        base = tiny.build(name).to(pretend_device.NAME)
        model = attach(copy.deepcopy(base), tiny.METHODS[method](), generator=generator(0, "a"), verbose=False)
        for _, adapter in adapters(model):
            for factor in adapter.factors().values():
                factor.data.add_(0.01)
        assert changes(model, base)
        if method == "robust":
            choose(model, {layer: torch.rand(one.shape) for layer, one in supported(model).items()})
            to_sparse(model, folder / "sparse")
        else:
            # PEFT tells tied tensors by their addresses, and there are none.
            with (
                mock.patch("peft.peft_model.id_tensor_storage", id),
                mock.patch("peft.peft_model.safe_save_file", _save),
            ):
                to_peft(base, merge(model), folder / "peft")
        yield f"export of {method}", None


def through_peft() -> Iterator[tuple[str, float]]:
    """The model's outputs after PEFT has trained, moved and merged each of the two methods there and on the CPU."""
    for kind in (rosa.peft.RosaConfig, rosa.peft.RobustConfig):
        outputs = []
        for device in ("cpu", pretend_device.NAME):
            torch.manual_seed(0)
            model = get_peft_model(tiny.build("gpt2").to(device), kind(r=4))
            tiny.give_support(model)
            batch = {name: values.to(device) for name, values in tiny.batch("gpt2").items()}
            optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1e-2)
            for number in range(2):
                model(**batch).loss.backward()
                optimizer.step()
                if resampled(model):
                    resample(model, generator=generator(0, "resample", number), optimizer=optimizer)
            plain = model.merge_and_unload()
            with torch.no_grad():
                outputs.append(plain(**batch).logits)
        yield f"peft's {kind.__name__}", apart(*outputs)


def measured() -> Iterator[tuple[str, None]]:
    """What ``scripts/gpu_check.py`` measures."""
    # Storages have no address there.
    with (
        mock.patch("benchmarks.contenders.Contender.saved_bytes", return_value=1),
        contextlib.redirect_stdout(io.StringIO()),
    ):
        for model in on_gpu.MODELS:
            for precision in ("fp32", "bf16"):
                on_gpu.steps(model, precision, pretend_device.NAME)
        on_gpu.factorization(pretend_device.NAME)
    yield "measurements", None


def main() -> None:
    """Do all of it."""
    folder = Path(sys.argv[1])
    register()
    torch.set_num_threads(1)
    alive = pretend_device.register()
    gc.freeze()  # each measurement collects garbage, among which the imports' objects are none
    with known_device():
        parts = (pretrained(folder), split(), exported(folder), through_peft(), measured())
        print(json.dumps({name: found for part in parts for name, found in part}))
    del alive


if __name__ == "__main__":
    main()
