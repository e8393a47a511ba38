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


def test_the_page_has_all_architectures_or_is_not_replaced(monkeypatch, tmp_path, capsys):
    page = tmp_path / "models.md"
    monkeypatch.setattr(make_models, "PAGE", page)
    monkeypatch.setattr(make_models, "probe", lambda name, method: make_models.Row(name, "", method))
    named = ["Llama", "--out", str(tmp_path / "llama.md")]
    for words, written in ((["Llama"], False), ([], True), (named, False)):
        page.write_text("all\n")
        monkeypatch.setattr("sys.argv", ["make_models.py", *words])
        make_models.main()
        assert (page.read_text() != "all\n") == written
        assert "ROSA Llama" in capsys.readouterr().out
        assert not written or all(f"| {name} |" in page.read_text() for name in NAMES)
    assert "| Llama |" in (tmp_path / "llama.md").read_text()
    assert "| BERT |" not in (tmp_path / "llama.md").read_text()
