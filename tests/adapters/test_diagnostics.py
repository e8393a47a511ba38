"""Diagnostics of subspaces and weight changes, against closed forms and brute force."""

from __future__ import annotations

import copy
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from rosa import records
from rosa.adapters import adapters, attach, resample
from rosa.adapters.diagnostics import changes, compared, effective_rank, factors_of, moved, visited_share
from rosa.config import IA3Config, LoraConfig, RosaConfig
from rosa.errors import AdapterError
from rosa.utils.seeding import generator
from tests.adapters.tiny import attached, build, perturb, train_steps
from tests.report import synthetic_records


@pytest.mark.parametrize(
    ("values", "expected"),
    [([3.0], 1.0), ([2.0] * 5, 5.0), ([0.0, 0.0], 0.0), ([1.0, 0.0, 0.0], 1.0), ([], 0.0)],
)
def test_effective_rank_of_spectra_with_a_closed_form(values: list[float], expected: float) -> None:
    assert effective_rank(torch.tensor(values)) == pytest.approx(expected)


def test_effective_rank_of_two_unequal_directions() -> None:
    p, q = 0.8, 0.2
    entropy = -(p * math.log(p) + q * math.log(q))
    assert effective_rank(torch.tensor([4.0, 1.0])) == pytest.approx(math.exp(entropy))


def test_moved_is_the_norm_of_the_difference_of_the_products() -> None:
    model = attached("llama", RosaConfig(rank=4))
    before = factors_of(model)
    assert all(norm < 1e-6 for norm in moved(before, factors_of(model)).values())
    perturb(model)
    after = factors_of(model)
    norms = moved(before, after)
    assert list(norms) == [name for name, _ in adapters(model)]
    for name, norm in norms.items():
        (A0, B0), (A, B) = before[name], after[name]
        brute = np.linalg.norm(A.double().numpy() @ B.double().numpy() - A0.double().numpy() @ B0.double().numpy())
        assert norm == pytest.approx(float(brute), rel=1e-9)


def test_copies_of_factors_do_not_follow_training() -> None:
    model = attached("roberta", RosaConfig(rank=4))
    before = factors_of(model)
    perturb(model)
    assert all(not torch.equal(before[name][0], now[0]) for name, now in factors_of(model).items())


def test_change_of_a_rosa_model_against_numpy() -> None:
    model = attached("gpt2", RosaConfig(rank=2))
    for step in range(3):
        train_steps(model, "gpt2", steps=2)
        if step < 2:
            resample(model, generator=generator(0, "resample", step))
    found = changes(model, build("gpt2"))
    assert [change.name for change in found] == [name for name, _ in adapters(model)]
    for change, (_, adapter) in zip(found, adapters(model), strict=True):
        stored = build("gpt2").get_submodule(change.name).weight.detach().double().numpy().T
        final = adapter.base.weight.detach().double().numpy().T
        A, B = (factor.detach().double().numpy() for factor in adapter.factors().values())
        D = final + A @ B - stored
        S = np.linalg.svd(D, compute_uv=False)
        assert change.norm == pytest.approx(float(np.linalg.norm(D)), rel=1e-5)
        assert change.relative_norm == pytest.approx(float(np.linalg.norm(D) / np.linalg.norm(stored)), rel=1e-5)
        # Three subspaces of rank 2, each of whose updates has rank at most 4; rounding is no rank.
        assert 2 < change.rank <= 12 < change.full_rank == 32
        assert S[change.rank] < 1e-4 * S[0]
        shares = S[: change.rank] / S[: change.rank].sum()
        assert change.effective_rank == pytest.approx(float(np.exp(-(shares * np.log(shares)).sum())), rel=1e-4)
        assert change.visited == pytest.approx(float(adapter.visited.float().mean()))
        assert 2 / 32 <= change.visited <= 6 / 32


def test_lora_changes_a_weight_by_its_rank_and_nothing_before_training() -> None:
    model = attached("roberta", LoraConfig(rank=3))
    assert {(change.rank, change.norm) for change in changes(model, build("roberta"))} == {(0, 0.0)}
    train_steps(model, "roberta")
    found = changes(model, build("roberta"))
    assert {change.rank for change in found} == {3}
    assert {change.visited for change in found} == {None}


@pytest.mark.parametrize("factorization", ["svd_equal", "random_orthogonal"])
def test_splitting_a_weight_is_no_change(factorization: str) -> None:
    model = attached("roberta", RosaConfig(rank=4, factorization=factorization))
    for change in changes(model, build("roberta")):
        assert change.rank == 0
        assert change.relative_norm < 1e-6


def test_methods_that_add_to_no_weight() -> None:
    assert not compared(attached("roberta", IA3Config()))
    assert changes(attached("roberta", IA3Config()), build("roberta")) == []
    assert visited_share(attached("roberta", LoraConfig(rank=2))) == {}


def test_another_model_is_refused_by_the_layers_name() -> None:
    model = attached("roberta", RosaConfig(rank=4))
    with pytest.raises(AdapterError, match=r"roberta\.encoder\.layer\.0\.attention\.self\.query: .*no such layer"):
        changes(model, build("bert"))
    wider = build("roberta")
    wider.roberta.encoder.layer[0].attention.self.query = nn.Linear(32, 64)
    with pytest.raises(AdapterError, match=r"self\.query: .*shape \(32, 32\)"):
        changes(model, wider)


def test_a_record_without_diagnostics_is_still_read(tmp_path: Path) -> None:
    """Records from before the diagnostics existed."""
    old = synthetic_records.record(synthetic_records.config())
    del old["diagnostics"]
    records.write(tmp_path, old)
    assert "diagnostics" not in records.read(tmp_path / records.RECORD)


@pytest.mark.parametrize("trained", [True, False])
def test_a_pretrained_weight_of_zeros_has_no_relative_change(trained: bool) -> None:
    """As some architectures start their last layers; a division by its norm would fail a run after its training."""
    model = build("gpt2")
    with torch.no_grad():
        model.transformer.h[0].attn.c_proj.weight.zero_()
    pretrained = copy.deepcopy(model)
    attach(model, LoraConfig(rank=2), verbose=False)
    if trained:
        perturb(model)
    found = {change.name: change for change in changes(model, pretrained)}
    zero = found["transformer.h.0.attn.c_proj"]
    assert zero.relative_norm is None
    assert (zero.norm > 0) == trained
    assert all((change.relative_norm is not None) == (name != zero.name) for name, change in found.items())
