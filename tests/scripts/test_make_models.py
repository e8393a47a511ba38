"""scripts/make_models.py: each architecture is probed, and failed probes are shown as unknown."""

from __future__ import annotations

import dataclasses

import make_models
import pytest
import torch

from tests.conftest import ROOT
from tests.peft.old import skip_encoder_decoders

NAMES = list(make_models.ARCHITECTURES)


@pytest.mark.parametrize("method", make_models.PROBES)
@pytest.mark.parametrize("name", NAMES)
def test_every_probe_of_every_architecture(name, method, recwarn):
    torch.manual_seed(0)
    if (name, method) in (("T5", "ROSA"), ("BART", "ROSA")):
        skip_encoder_decoders()  # its last probe loads a LoRA adapter
    row = make_models.probe(name, method)
    assert row.reason == ""
    assert row.results == dict.fromkeys(make_models.PROBES[method], "yes")
    table = (ROOT / "docs" / "models.md").read_text().partition(f"## {method}\n")[2].partition("\n## ")[0]
    line = next(one for one in table.splitlines() if one.startswith(f"| {name}"))
    assert line in make_models.page([row]).splitlines()


def test_what_cannot_be_built_is_unknown(monkeypatch):
    broken = dataclasses.replace(make_models.ARCHITECTURES["Llama"], model="NoSuchModel")
    monkeypatch.setitem(make_models.ARCHITECTURES, "New", broken)
    text = make_models.page([make_models.probe("New")])
    assert "| New | unknown |" + " unknown |" * len(make_models.PROBES["ROSA"]) in text
    assert "- ROSA, New: no tiny model: AttributeError" in text


def test_a_probe_that_fails_says_why_and_leaves_the_later_ones_unknown(monkeypatch):
    monkeypatch.setattr(make_models.rosa, "resample", lambda *arguments, **options: 1 / 0)
    row = make_models.probe("Llama")
    assert row.results == {"attach": "yes", "step": "yes", "resample": "fails"}
    assert "| yes | yes | fails | unknown | unknown | unknown | unknown |" in make_models.page([row])
    assert "- ROSA, Llama: ZeroDivisionError: division by zero" in make_models.page([row])
