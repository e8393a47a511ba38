"""The family of factorizations, ranks by layer, and resampling in several processes."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import loralib
import numpy as np
import pytest
import torch
from peft import LoraConfig as PeftLoraConfig
from peft import get_peft_model
from scipy import stats
from torch import Tensor, nn

from rosa.adapters import adapters, attach, attachment, resample
from rosa.adapters.rosa import RosaLinear
from rosa.config import LoraConfig, RosaConfig
from rosa.errors import AdapterError, ConfigError
from rosa.utils.seeding import generator
from tests.adapters.tiny import (
    OneLayer,
    assert_function_stays,
    attached,
    batch,
    build,
    inputs,
    logits,
    make_layer,
    perturb,
    relative_difference,
    with_rosa,
)
from tests.processes import together

SHAPES = [(24, 24), (40, 16), (16, 40)]
EXACT = ("svd_equal", "random_add", "random_orthogonal")


def wrap(kind: str, shape: tuple[int, int], seed: int = 0, **options: Any) -> tuple[OneLayer, RosaLinear, Tensor]:
    """A model of one layer with ROSA, its adapter, and the layer's weight (out, in) as it was, in float64."""
    layer = make_layer(kind, *shape)
    weight = layer.weight.detach().double().clone()
    model, adapter = with_rosa(layer, seed, **options)
    return model, adapter, weight.T if kind == "conv1d" else weight


def factors(adapter: RosaLinear) -> tuple[Tensor, Tensor]:
    return adapter.A.detach().double(), adapter.B.detach().double()


def frozen(adapter: RosaLinear) -> Tensor:
    stored = adapter.base.weight.detach().double()
    return stored.T if type(adapter.base).__name__ == "Conv1D" else stored


@pytest.mark.parametrize("factorization", EXACT)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("kind", ["linear", "conv1d"])
def test_the_function_stays_at_attach_and_resamples(kind: str, shape: tuple[int, int], factorization: str) -> None:
    layer, x = make_layer(kind, *shape), inputs(5, shape[1])
    with torch.no_grad():
        expected = layer(x)
    assert_function_stays(*with_rosa(layer, rank=4, factorization=factorization), x, expected)


@pytest.mark.parametrize("factorization", EXACT)
@pytest.mark.parametrize("name", ["roberta", "gpt2"])
def test_logits_and_loss_stay_in_whole_models(name: str, factorization: str) -> None:
    """The outputs change by at most 1e-5 in float32, and with a bfloat16 backbone by at most its own rounding."""
    for dtype in (torch.float32, torch.bfloat16):
        whole = build(name)
        exact = whole(**batch(name))
        model = build(name).to(dtype)
        rounded = whole.to(dtype).float()(**batch(name)) if dtype == torch.bfloat16 else exact
        attach(model, RosaConfig(rank=4, factorization=factorization), generator=generator(0, "adapter"), verbose=False)
        outputs = []
        for step in range(3):
            with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
                outputs.append(model(**batch(name)))
            resample(model, generator=generator(0, "resample", step))
        # The rounding of the weights alone, without that of the activations, is what the backbone costs at least.
        own = relative_difference(rounded.logits.detach(), exact.logits.detach())
        bound = 1e-5 if dtype == torch.float32 else 4 * max(own, 2**-8)
        for output in outputs[1:]:
            assert relative_difference(output.logits, outputs[0].logits) <= bound
            assert relative_difference(output.loss, outputs[0].loss) <= bound


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_svd_add_adds_the_drawn_triplets_to_the_whole_weight(shape: tuple[int, int]) -> None:
    """``svd_add`` changes the function: W_f = W, and the top triplets are added to it at each resample."""
    model, adapter, W = wrap("linear", shape, rank=3, factorization="svd_add", sampling="top")
    for step in range(2):
        U, S, Vh = np.linalg.svd(W.numpy(), full_matrices=False)
        top = torch.from_numpy((U[:, :3] * S[:3]) @ Vh[:3])
        A, B = factors(adapter)
        torch.testing.assert_close(A @ B, top, atol=1e-5, rtol=0)
        torch.testing.assert_close(frozen(adapter), W, atol=2e-6, rtol=0)
        x = inputs(4, shape[1])
        with torch.no_grad():
            expected = x.double() @ (W + top).T + adapter.bias.double()
            assert relative_difference(model(x), expected) < 1e-5
        W = W + A @ B
        resample(model, generator=generator(0, "resample", step))


def test_random_add_starts_from_zero_and_gets_a_new_b_each_time() -> None:
    model, adapter, W = wrap("linear", (16, 40), rank=4, factorization="random_add")
    seen = []
    for step in range(3):
        A, B = factors(adapter)
        assert not A.any()
        torch.testing.assert_close(frozen(adapter), W, atol=1e-6, rtol=0)
        seen.append(B)
        with torch.no_grad():
            adapter.A += inputs(16, 4, seed=step)
        W = W + factors(adapter)[0] @ B
        resample(model, generator=generator(0, "resample", step))
    assert relative_difference(seen[1], seen[0]) > 0.1
    # Kaiming's uniform initialisation, as in loralib: uniform in +-1/sqrt(in).
    values = torch.cat(seen).flatten().numpy() * math.sqrt(40)
    assert stats.kstest(values, stats.uniform(-1, 2).cdf).pvalue > 1e-3
    assert np.abs(values).max() <= 1


def test_random_add_that_never_resamples_is_lora() -> None:
    """The same gradients and updates as loralib's layer with alpha = r, from the same B (loralib's A)."""
    shape, x = (12, 20), inputs(6, 20)
    model, adapter, _ = wrap("linear", shape, rank=3, factorization="random_add", every=0)
    layer = loralib.Linear(20, 12, r=3, lora_alpha=3, merge_weights=False)
    original = make_layer("linear", *shape)
    with torch.no_grad():
        layer.weight.copy_(original.weight)
        layer.bias.copy_(original.bias)
        layer.lora_A.copy_(adapter.B)
    ours = torch.optim.AdamW([adapter.A, adapter.B], lr=1e-2, weight_decay=0.0)
    theirs = torch.optim.AdamW([layer.lora_B, layer.lora_A], lr=1e-2, weight_decay=0.0)
    for _ in range(4):
        for network, optimizer in ((model, ours), (layer, theirs)):
            optimizer.zero_grad()
            network(x).square().sum().backward()
            optimizer.step()
    assert relative_difference(adapter.A.detach(), layer.lora_B.detach()) < 1e-5
    assert relative_difference(adapter.B.detach(), layer.lora_A.detach()) < 1e-5


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_random_orthogonal_projects_the_weight_on_a_random_basis_of_its_inputs(shape: tuple[int, int]) -> None:
    _, adapter, W = wrap("linear", shape, rank=5, factorization="random_orthogonal")
    A, B = factors(adapter)
    torch.testing.assert_close(B @ B.T, torch.eye(5, dtype=torch.float64), atol=1e-6, rtol=0)
    torch.testing.assert_close(A, W @ B.T, atol=1e-5, rtol=0)
    torch.testing.assert_close(frozen(adapter), W - W @ B.T @ B, atol=1e-5, rtol=0)
    # The basis is independent of W: no five of its singular vectors span the subspace.
    _, _, Vh = np.linalg.svd(W.numpy(), full_matrices=False)
    overlap = (B @ torch.from_numpy(Vh).T).abs()
    assert float(overlap.max()) < 0.99


def test_random_subspaces_are_uniform() -> None:
    """A fixed unit vector's squared projection on a uniform r-dimensional subspace of R^n is Beta(r/2, (n-r)/2)."""
    n, r = 6, 2
    shares = []
    for seed in range(400):
        _, adapter, _ = wrap("linear", (n, n), seed=seed, rank=r, factorization="random_orthogonal")
        shares.append(float(factors(adapter)[1][:, 0].square().sum()))
    assert stats.kstest(shares, stats.beta(r / 2, (n - r) / 2).cdf).pvalue > 1e-3


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_symmetric_split_shares_singular_values_between_the_factors(shape: tuple[int, int]) -> None:
    _, adapter, W = wrap("linear", shape, rank=3, sampling="top", split="symmetric")
    A, B = factors(adapter)
    S = torch.from_numpy(np.linalg.svd(W.numpy(), compute_uv=False))[:3]
    torch.testing.assert_close(A.T @ A, torch.diag(S), atol=1e-4, rtol=0)
    torch.testing.assert_close(B @ B.T, torch.diag(S), atol=1e-4, rtol=0)
    torch.testing.assert_close(frozen(adapter) + A @ B, W, atol=1e-5, rtol=0)


@pytest.mark.parametrize("solver", ["gram", "svd"])
def test_solvers_agree(solver: str) -> None:
    _, chosen, _ = wrap("linear", (16, 40), rank=3, solver=solver)
    _, auto, _ = wrap("linear", (16, 40), rank=3)
    torch.testing.assert_close(chosen.delta_weight(), auto.delta_weight(), atol=1e-5, rtol=0)


@pytest.mark.parametrize("shape", [(24, 24), (40, 16)], ids=str)
def test_top_with_a_symmetric_split_is_pissa(shape: tuple[int, int]) -> None:
    """The factors equal those of peft's PiSSA, up to the sign of each triplet (peft: B A, with alpha = r)."""
    _, adapter, _ = wrap("linear", shape, rank=4, sampling="top", split="symmetric", every=0)
    plain = OneLayer(make_layer("linear", *shape))
    reference = get_peft_model(
        plain, PeftLoraConfig(r=4, lora_alpha=4, init_lora_weights="pissa", target_modules=["layer"])
    )
    layer = reference.base_model.model.attention.layer
    theirs_A, theirs_B = layer.lora_B["default"].weight.detach(), layer.lora_A["default"].weight.detach()
    ours_A, ours_B = adapter.A.detach(), adapter.B.detach()
    sign = torch.sign((ours_A * theirs_A).sum(dim=0))
    assert relative_difference(ours_A * sign, theirs_A) < 1e-4
    assert relative_difference(ours_B * sign[:, None], theirs_B) < 1e-4
    assert relative_difference(adapter.base.weight.detach(), layer.base_layer.weight.detach()) < 1e-4


@pytest.mark.parametrize(
    ("factorization", "exempt"),
    [("svd_equal", True), ("svd_add", True), ("random_orthogonal", True), ("random_add", False)],
)
def test_decay_spares_factors_that_hold_pretrained_weight(factorization: str, exempt: bool) -> None:
    _, adapter, _ = wrap("linear", (8, 8), rank=2, factorization=factorization)
    assert adapter.undecayed() == (["A", "B"] if exempt else [])


def test_visited_directions_are_counted() -> None:
    model, adapter, _ = wrap("linear", (10, 30), rank=3, sampling="top")
    assert adapter.visited is not None
    assert adapter.visited.tolist() == [True] * 3 + [False] * 7
    for step in range(60):
        resample(model, generator=generator(0, "resample", step))
    assert adapter.visited.tolist() == [True] * 3 + [False] * 7
    model, adapter, _ = wrap("linear", (10, 30), rank=3)
    for step in range(60):
        resample(model, generator=generator(0, "resample", step))
    assert adapter.visited is not None
    assert bool(adapter.visited.all())
    assert wrap("linear", (10, 30), rank=3, factorization="random_add")[1].visited is None


# --- what does not go together ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"factorization": "svd"}, r"method\.factorization='svd'.*svd_equal"),
        ({"split": "both"}, r"method\.split='both'.*one_sided, symmetric"),
        ({"solver": "qr"}, r"method\.solver='qr'.*auto, gram, svd"),
        ({"optimizer_state": "clear"}, r"method\.optimizer_state='clear'.*reset, keep, prune"),
        ({"rewarm_steps": -1}, r"method\.rewarm_steps=-1"),
        ({"factorization": "random_add", "sampling": "top"}, r"method\.sampling='top'.*random_add uses no singular"),
        ({"factorization": "random_orthogonal", "split": "symmetric"}, r"method\.split='symmetric'.*no singular"),
        ({"every": 0, "rewarm_steps": 5}, r"method\.rewarm_steps=5.*method\.every=0 never resamples"),
        ({"every": 5, "unit": "step", "rewarm_steps": 5}, r"method\.rewarm_steps=5.*fewer than method\.every=5"),
        ({"rank_pattern": {"*query": 0}}, r"method\.rank_pattern\.\*query=0"),
        ({"rank_pattern": None}, r"method\.rank_pattern=None: expected a dictionary"),
    ],
)
def test_impossible_options_are_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        RosaConfig(**options)


# --- ranks by layer --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("config", [RosaConfig, LoraConfig])
def test_a_pattern_gives_its_layers_another_rank(config: type[RosaConfig | LoraConfig]) -> None:
    pattern = {"*.layer.1.*": 2, "query": 0.25}
    model = attached("roberta", config(rank=5, rank_pattern=pattern))
    ranks = {layer.name: layer.rank for layer in attachment(model).layers}  # type: ignore[union-attr]
    assert len(ranks) == 8
    for name, rank in ranks.items():
        expected = 8 if name.endswith("query") else 2 if ".layer.1." in name else 5
        assert rank == expected, name
    assert {adapter.rank for _, adapter in adapters(model)} == {2, 5, 8}


@pytest.mark.parametrize(
    ("pattern", "said"),
    [
        ({"qeury": 4}, r"method\.rank_pattern: 'qeury' matches none of the 8 layers.*attention"),
        ({"query": 33}, r"layer\.0\.attention\.self\.query \(32 x 32\): method\.rank_pattern\.query: rank 33"),
    ],
)
def test_a_pattern_that_cannot_be_meant_is_refused(pattern: dict[str, Any], said: str) -> None:
    model = build("roberta")
    with pytest.raises(AdapterError, match=said):
        attach(model, RosaConfig(rank=4, rank_pattern=pattern), verbose=False)
    assert not list(adapters(model))


# --- several processes -----------------------------------------------------------------------------------------------


def _without_memory(*_: Any) -> Any:
    raise torch.OutOfMemoryError("CUDA out of memory")


def _resample_in_a_group(rank: int, folder: Path, factorization: str) -> None:
    store = torch.distributed.FileStore(str(folder / "store"), 2)
    torch.distributed.init_process_group("gloo", store=store, rank=rank, world_size=2)
    torch.set_num_threads(1)
    model = attached("roberta", RosaConfig(rank=4, factorization=factorization))
    perturb(model)
    calls: list[str] = []
    factorize = RosaLinear.factorize

    def counted(members: Any, drawn: Any) -> Any:
        calls.extend(member._name for member in members)
        return factorize(members, drawn)

    RosaLinear.factorize = staticmethod(counted)  # type: ignore[method-assign]
    seconds = resample(model, generator=generator(0, "resample"))
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    saved: dict[str, Any] = {"state": state, "factorized": calls, "seconds": seconds}
    # A weight of one process's share is broken: both must stop, and say why.
    bad = dict(adapters(model))[calls[0]]
    with torch.no_grad():
        bad.base.weight[0, 0] = math.nan if rank == 1 else 1.0
    try:
        resample(model, generator=generator(0, "resample", 1))
    except AdapterError as error:
        saved["error"] = str(error)
        saved["bad"] = calls[0]
    if rank == 1:
        RosaLinear.factorize = staticmethod(_without_memory)  # type: ignore[method-assign]
    try:
        resample(model, generator=generator(0, "resample", 2))
    except Exception as error:
        saved["other error"] = f"{type(error).__name__}: {error}"
    torch.save(saved, folder / f"{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.mark.slow
@pytest.mark.parametrize("factorization", ["svd_equal", "random_orthogonal"])
def test_two_processes_share_the_work_and_hold_the_same_weights(factorization: str, tmp_path: Path) -> None:
    together(_resample_in_a_group, tmp_path, factorization)
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=False) for rank in range(2))
    names = [name for name, _ in adapters(attached("roberta", RosaConfig(rank=4)))]
    assert first["factorized"][:4] == names[0::2]
    assert second["factorized"][:4] == names[1::2]
    assert list(first["seconds"]) == list(second["seconds"]) == names
    assert first["state"].keys() == second["state"].keys()
    assert all(torch.equal(first["state"][name], second["state"][name]) for name in first["state"])
    # Alone, one process comes to the same.
    alone = attached("roberta", RosaConfig(rank=4, factorization=factorization))
    perturb(alone)
    before = logits(alone, "roberta")
    resample(alone, generator=generator(0, "resample"))
    for name, tensor in alone.state_dict().items():
        torch.testing.assert_close(first["state"][name], tensor, atol=1e-6, rtol=1e-5)
    assert relative_difference(logits(alone, "roberta"), before) <= 1e-5
    # Neither process is left waiting for the other's layers.
    assert second["bad"] in first["error"]
    assert first["error"] == second["error"]
    assert second["other error"] == "OutOfMemoryError: CUDA out of memory"
    assert second["other error"] in first["other error"]
    assert first["other error"].startswith("FactorizationError: ")


def test_a_resampled_model_is_a_plain_module() -> None:
    """The state that a stock Trainer saves and loads has one more tensor per layer, and everything can be copied."""
    model = attached("gpt2", RosaConfig(rank=4))
    other = attached("gpt2", RosaConfig(rank=4), seed=1)
    result = other.load_state_dict(model.state_dict())
    assert not result.missing_keys
    assert not result.unexpected_keys
    assert torch.equal(logits(other, "gpt2"), logits(model, "gpt2"))
    assert isinstance(model, nn.Module)
