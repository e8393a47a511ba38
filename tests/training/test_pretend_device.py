"""Training on a pretend device: every method ends as on the CPU, and no update waits for the device."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.commands import Ended, command
from tests.conftest import ROOT
from tests.training.pretend_runs import CASES, LABELLED, STOPS, UPDATES

Outcome = dict[str, Any]
HERE = Path(__file__).parent

MIXING = """
import torch
from tests.training import pretend_device

alive = pretend_device.register()
with pretend_device.available(), pretend_device.counting():
    there, here = torch.ones(2, device=pretend_device.NAME), torch.ones(2)
    float(there.sum())
    (wait,) = pretend_device.waits
    assert wait.startswith("_local_scalar_dense at "), wait
    there + here
"""


def in_a_process_of_its_own(program: Path, *words: object) -> Ended:
    """Run a program in a process of its own, since the device stays registered until that ends."""
    path = os.pathsep.join([str(ROOT), str(ROOT / "scripts")])
    return command(program, *words, environment={**os.environ, "PYTHONPATH": path})


@pytest.fixture(scope="module")
def outcomes(
    tiny_model: Path, tiny_gpt2: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[tuple[str, ...], Outcome]:
    """Each run's outcome, by method, precision, task and device."""
    folder = tmp_path_factory.mktemp("pretend")
    roberta = folder / "roberta"
    shutil.copytree(tiny_model, roberta)
    config = json.loads((roberta / "config.json").read_text())
    # PyTorch draws dropout by another kernel on a device: other numbers of the same stream.
    config |= {"hidden_dropout_prob": 0, "attention_probs_dropout_prob": 0, "classifier_dropout": 0}
    (roberta / "config.json").write_text(json.dumps(config))
    done = in_a_process_of_its_own(HERE / "pretend_runs.py", roberta, tiny_gpt2, folder)
    assert done.returncode == 0, done.stderr[-3000:]
    found = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    return {tuple(run.pop(key) for key in ("method", "precision", "task", "device")): run for run in found}


@pytest.mark.slow
def test_the_device_counts_waits_and_refuses_mixed_tensors(tmp_path: Path) -> None:
    program = tmp_path / "mixing.py"
    program.write_text(MIXING)
    done = in_a_process_of_its_own(program)
    assert "found cpu and pretend:0 in add" in done.stderr.splitlines()[-1]


CHOICE = (
    "adapters/collect.py",
    "adapters/robust.py",
    "adapters/state.py",
    "adapters/support.py",
    "transformers/trainer.py",
)
"""Files that run while RoSA chooses its support and starts over."""


def waits_of_the_project(waits: dict[str, int], method: str) -> list[str]:
    """Waits of updates but those of transformers' masks and of RoSA's choice.

    Nor those for the rest of an epoch after a resume, which accelerate copies synchronously: one batch of at most four
    tensors.
    """
    passing = ("masking_utils.py", *(CHOICE if method == "robust" else ()))
    left = {wait: count for wait, count in waits.items() if not any(file in wait for file in passing)}
    rest = 4 * len(STOPS[method])
    return [wait for wait, count in left.items() if "utils/operations.py" not in wait or count > rest]


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids="-".join)
def test_a_stopped_and_resumed_run_is_that_of_the_cpu_left_alone_and_its_updates_wait_for_nothing(
    outcomes: dict[tuple[str, ...], Outcome], case: tuple[str, ...]
) -> None:
    there, here = outcomes[(*case, "pretend")], outcomes[(*case, "cpu")]
    assert len(here["losses"]) == UPDATES
    exact = case[1] == "fp32"  # autocast lowers other operators on the CPU than on a device
    for part in ("losses", "scores"):
        assert there[part] == pytest.approx(here[part], rel=1e-6 if exact else 0.02, abs=1e-6)
    assert there["resamples"] == here["resamples"] == (1 if case[0] == "rosa" else 0)
    assert here["diagnostics"]
    if exact:
        assert there["diagnostics"] == pytest.approx(here["diagnostics"], rel=1e-3, abs=1e-6)
        assert there["perplexities"] == pytest.approx(here["perplexities"], rel=1e-5)
    assert there["texts"] == here["texts"]
    assert bool(here["perplexities"]) == (case[2] not in ("cola", "stsb", "e2e"))
    assert not waits_of_the_project(there["waits"], case[0])


@pytest.mark.slow
@pytest.mark.parametrize("case", [case for case in CASES if case[2] == "e2e"], ids="-".join)
def test_a_runs_weights_write_the_same_on_both_devices(
    outcomes: dict[tuple[str, ...], Outcome], case: tuple[str, ...]
) -> None:
    written = outcomes[(*case, "pretend")]["decoded"]
    assert len(written["cpu"]) == 3
    assert all(written["cpu"])
    assert written["pretend"] == written["cpu"]


@pytest.mark.slow
@pytest.mark.parametrize("case", [case for case in CASES if case[2] in LABELLED], ids="-".join)
def test_a_runs_weights_predict_the_same_on_both_devices(
    outcomes: dict[tuple[str, ...], Outcome], case: tuple[str, ...]
) -> None:
    here, there = (outcomes[(*case, device)]["predicted"] for device in ("cpu", "pretend"))
    assert len(here) == 2
    assert there == pytest.approx(here, rel=1e-5 if case[1] == "fp32" else 0.05)


@pytest.mark.slow
def test_pretraining_splits_exports_and_measurements_work_on_the_device(tmp_path: Path) -> None:
    done = in_a_process_of_its_own(HERE / "pretend_parts.py", tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert len(found) == 13
    assert {name: apart for name, apart in found.items() if apart is not None and not apart < 1e-4} == {}
