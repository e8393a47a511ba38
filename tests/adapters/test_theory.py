"""ROSA's theorem on linear regression, with exact minimisation in each subspace: where it holds and where not.

The loss of a weight W (out, in) on inputs X (n, in) and targets Y (n, out) is ||X W^T - Y||^2. With G the symmetric
square root of X^T X, W* a least-squares solution and D = W* - W, it is ||D G||^2 plus what no weight can reach, so the
best correction of rank R is the truncated SVD of D G (Eckart and Young, 1936), and what it leaves is the tail of the
singular values. All values are closed forms in float64; the factorizations are the project's own.

``python -m pytest tests/adapters/test_theory.py -s`` prints the tables that docs/theory.md quotes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pytest
import torch
from torch import Tensor

from rosa import records
from rosa.adapters.linalg.subspace import draw_indices, factorize_along
from rosa.config import DataConfig, ModelConfig, PerceptronConfig, TaskConfig
from rosa.data import regression as regression_module
from rosa.models import perceptron
from tests.conftest import ROOT

OUT, IN, DISTANCE = 32, 512, 24
"""The paper's regression: a teacher of rank 24 away, in 512, out 32."""
ZERO = 1e-20
"""Of the loss before training: an excess below this share is a float64 zero."""


def normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@dataclass(frozen=True)
class Regression:
    """Inputs X (n, in), targets Y (n, out) and the weight before training W0 (out, in)."""

    X: Tensor
    Y: Tensor
    W0: Tensor

    @cached_property
    def roots(self) -> tuple[Tensor, Tensor]:
        """G, the symmetric square root of X^T X, and its pseudo-inverse."""
        values, vectors = torch.linalg.eigh(self.X.T @ self.X)
        kept = values > 1e-10 * values[-1]
        values, vectors = values[kept].sqrt(), vectors[:, kept]
        return (vectors * values) @ vectors.T, (vectors / values) @ vectors.T

    def loss(self, W: Tensor) -> float:
        return float((self.X @ W.T - self.Y).square().sum())

    @cached_property
    def optimum(self) -> Tensor:
        """A least-squares solution W*, the smallest where there are several."""
        return torch.linalg.lstsq(self.X, self.Y, driver="gelsd").solution.T

    def excess(self, W: Tensor) -> float:
        """The loss above the least-squares optimum, as a share of what it was before training."""
        above, at_first = (self.X @ (weight - self.optimum).T for weight in (W, self.W0))
        return float(above.square().sum() / at_first.square().sum())

    def singular_values(self, W: Tensor) -> Tensor:
        """Of X W^T - P_X Y, the same as those of (W - W*) G: what is left to learn, in the norm of the loss."""
        return torch.linalg.svdvals((W - self.optimum) @ self.roots[0])

    @cached_property
    def largest(self) -> Tensor:
        """The largest of those singular values before training."""
        return self.singular_values(self.W0)[0]

    def rank(self, W: Tensor) -> int:
        return int((self.singular_values(W) > 1e-9 * self.largest).sum())

    def steps(self, R: int) -> int:
        """The number T of steps in the theorem."""
        return math.ceil(self.rank(self.W0) / R)

    def best_pair(self, frozen: Tensor, R: int) -> Tensor:
        """The product A B (out, in) of rank R at most that makes ``frozen + A B`` best."""
        G, G_inverse = self.roots
        U, S, Vh = torch.linalg.svd((self.optimum - frozen) @ G, full_matrices=False)
        return (U[:, :R] * S[:R]) @ Vh[:R] @ G_inverse

    def best_a(self, frozen: Tensor, B: Tensor) -> Tensor:
        """The best A (out, R) for a fixed B (R, in)."""
        return torch.linalg.lstsq(self.X @ B.T, self.Y - self.X @ frozen.T, driver="gelsd").solution.T

    def best_b(self, frozen: Tensor, A: Tensor) -> Tensor:
        """The best B (R, in) for a fixed A (out, R)."""
        return torch.linalg.pinv(A) @ (self.optimum - frozen)


def regression(
    n: int = 1024, out: int = OUT, in_: int = IN, distance: int = DISTANCE, seed: int = 0, spread: float = 1.0
) -> Regression:
    """A teacher ``distance`` away in rank; the inputs' scales lie between 1 and ``spread``."""
    X = normal(n, in_, seed=seed) * torch.logspace(0, math.log10(spread), in_, dtype=torch.float64)
    W0 = normal(out, in_, seed=seed + 1) / in_**0.5
    difference = normal(out, distance, seed=seed + 2) @ normal(distance, in_, seed=seed + 3)
    regression_module = W0 + difference * (W0.norm() / difference.norm())
    return Regression(X, X @ regression_module.T, W0)


# --- the subspaces ---------------------------------------------------------------------------------------------------

Pair = tuple[Tensor, Tensor, Tensor]
"""Frozen part (out, in), A (out, R), B (R, in)."""
Factorization = Callable[[Tensor, int, torch.Generator], Pair]


def svd_equal(sampling: str = "random") -> Factorization:
    """ROSA's own: W_f = W - A B, the pair holds R of W's singular triplets."""

    def factorize(W: Tensor, R: int, stream: torch.Generator) -> Pair:
        A, B = factorize_along(W, draw_indices(min(W.shape), R, sampling, stream))
        return W - A @ B, A, B

    return factorize


def svd_add(W: Tensor, R: int, stream: torch.Generator) -> Pair:
    """The pair starts at singular triplets, and W stays whole beside it."""
    A, B = factorize_along(W, draw_indices(min(W.shape), R, "random", stream))
    return W, A, B


def random_add(W: Tensor, R: int, stream: torch.Generator) -> Pair:
    """A = 0, B random, and W stays whole: LoRA, merged and started again."""
    B = torch.randn(R, W.shape[1], dtype=torch.float64, generator=stream)
    return W, W.new_zeros(W.shape[0], R), B


def random_orthogonal(W: Tensor, R: int, stream: torch.Generator) -> Pair:
    """W projected on R random orthonormal directions Q of the input space: A = W Q, B = Q^T."""
    Q = torch.linalg.qr(torch.randn(W.shape[1], R, dtype=torch.float64, generator=stream)).Q
    return W - W @ Q @ Q.T, W @ Q, Q.T


FREE: dict[str, Factorization] = {"random_add": random_add, "svd_add": svd_add}
"""W stays whole, so the pair is free to be any correction of rank R."""
CARRYING: dict[str, Factorization] = {
    "svd_equal": svd_equal(),
    "svd_equal, top": svd_equal("top"),
    "svd_equal, bottom": svd_equal("bottom"),
    "random_orthogonal": random_orthogonal,
}
"""The pair also holds the part that was taken out of W."""


def rosa(problem: Regression, factorize: Factorization, R: int, train: str = "ab", seed: int = 7) -> Iterator[Tensor]:
    """The merged weight after each exact minimisation, without end."""
    W, stream = problem.W0, torch.Generator().manual_seed(seed)
    while True:
        frozen, A, B = factorize(W, R, stream)
        if train == "ab":
            product = problem.best_pair(frozen, R)
        elif train == "a":
            product = problem.best_a(frozen, B) @ B
        else:
            product = A @ problem.best_b(frozen, A)
        W = frozen + product
        yield W


def after(steps: int, weights: Iterator[Tensor]) -> list[Tensor]:
    return [next(weights) for _ in range(steps)]


# --- the closed forms are right --------------------------------------------------------------------------------------


def alternating_least_squares(problem: Regression, frozen: Tensor, R: int, seed: int) -> float:
    """The loss of the best pair, found by solving for A and for B in turn with numpy: no SVD, no square root."""
    X, W = problem.X.numpy(), frozen.numpy()
    target = problem.Y.numpy() - X @ W.T
    B = np.random.default_rng(seed).standard_normal((R, W.shape[1]))
    for _ in range(400):
        A = np.linalg.lstsq(X @ B.T, target, rcond=None)[0].T
        # ||X B^T A^T - target|| over B: project the target's columns on those of A, then solve for each row of B.
        B = np.linalg.lstsq(X, target @ np.linalg.pinv(A).T, rcond=None)[0].T
    return float(((X @ (W + A @ B).T - problem.Y.numpy()) ** 2).sum())


@pytest.mark.parametrize("name", ["random_add", "svd_equal", "random_orthogonal"])
def test_closed_form_is_the_minimum_over_both_factors(name: str) -> None:
    """Against alternating least squares from several starts: none is below it, and the best one reaches it."""
    problem = regression(n=30, out=7, in_=9, distance=5, spread=5.0)
    frozen, *_ = (FREE | CARRYING)[name](problem.W0, 2, torch.Generator().manual_seed(1))
    closed = problem.loss(frozen + problem.best_pair(frozen, 2))
    found = [alternating_least_squares(problem, frozen, 2, seed) for seed in range(3)]
    assert min(found) == pytest.approx(closed, rel=1e-6)
    assert min(found) >= closed * (1 - 1e-9)


@pytest.mark.parametrize("name", ["random_add", "svd_equal"])
def test_gradient_descent_reaches_the_closed_form(name: str) -> None:
    """From where training starts, by the gradients of A and B alone."""
    problem = regression(n=40, out=4, in_=6, distance=4)
    frozen, A, B = (FREE | CARRYING)[name](problem.W0, 2, torch.Generator().manual_seed(1))
    A, B = A.clone().requires_grad_(), B.clone().requires_grad_()
    optimizer = torch.optim.LBFGS([A, B], max_iter=120, tolerance_grad=1e-12, tolerance_change=1e-14, history_size=20,
                                  line_search_fn="strong_wolfe")  # fmt: skip

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = (problem.X @ (frozen + A @ B).T - problem.Y).square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    closed = problem.loss(frozen + problem.best_pair(frozen, 2))
    assert problem.loss((frozen + A @ B).detach()) == pytest.approx(closed, rel=1e-8)


@pytest.mark.parametrize("name", FREE | CARRYING)
def test_no_factorization_loses_on_a_step(name: str) -> None:
    """Each step's subspace holds the weight it starts from (or the whole weight stays), so no step makes it worse."""
    problem = regression(n=60, out=8, in_=20, distance=6)
    losses = [problem.excess(W) for W in after(8, rosa(problem, (FREE | CARRYING)[name], 2))]
    assert all(later <= earlier + ZERO for earlier, later in zip([1.0, *losses], losses, strict=False))


# --- the theorem, where the pair is free ----------------------------------------------------------------------------


@pytest.mark.spread
@pytest.mark.parametrize("R", [1, 2, 4, 8])
@pytest.mark.parametrize("name", FREE)
def test_free_pair_reaches_the_optimum_in_exactly_that_many_steps(name: str, R: int) -> None:
    """After k steps the loss is the tail of the singular values beyond k R: zero at T, and not before."""
    problem = regression(spread=3.0)
    T = problem.steps(R)
    assert {1: 24, 2: 12, 4: 6, 8: 3}[R] == T
    values = problem.singular_values(problem.W0).square()
    weights = after(T, rosa(problem, FREE[name], R))
    for k in (1, T // 2, T - 1, T):
        tail = float(values[k * R :].sum() / values.sum())
        assert problem.excess(weights[k - 1]) == pytest.approx(tail, rel=1e-6, abs=ZERO)
    assert problem.excess(weights[-1]) <= ZERO < problem.excess(weights[-2])


@pytest.mark.parametrize("R", [1, 2, 4, 8, 24])
def test_lora_stops_at_the_best_correction_of_its_rank(R: int) -> None:
    """More training does not help; only at the rank of the distance is LoRA's optimum that of the full model."""
    problem = regression(spread=3.0)
    values = problem.singular_values(problem.W0).square()
    lora = problem.W0 + problem.best_pair(problem.W0, R)
    assert problem.excess(lora) == pytest.approx(float(values[R:].sum() / values.sum()), rel=1e-6, abs=ZERO)
    again = problem.W0 + problem.best_pair(problem.W0, R)  # more training of the same pair: its W0 stays
    assert torch.equal(lora, again)
    assert (problem.excess(lora) <= ZERO) == (R >= DISTANCE)


def test_the_norm_is_that_of_the_inputs() -> None:
    """The truncated SVD of the correction itself is not the best one where inputs differ in scale."""
    problem = regression(spread=30.0)
    U, S, Vh = torch.linalg.svd(problem.optimum - problem.W0, full_matrices=False)
    unweighted = problem.excess(problem.W0 + (U[:, :8] * S[:8]) @ Vh[:8])
    assert unweighted > 1.05 * problem.excess(problem.W0 + problem.best_pair(problem.W0, 8))


def test_noise_that_no_weight_can_fit_raises_the_stated_rank_and_not_the_count() -> None:
    """rank(X W0 - Y) counts it; the residual to the projected target P_X Y is what takes steps."""
    clean = regression()
    noise = normal(1024, OUT, seed=9)
    noise -= clean.X @ torch.linalg.lstsq(clean.X, noise).solution  # only what is outside the span of X
    problem = Regression(clean.X, clean.Y + 0.1 * noise, clean.W0)
    assert torch.linalg.matrix_rank(problem.X @ problem.W0.T - problem.Y) == OUT
    assert problem.rank(problem.W0) == DISTANCE
    weights = after(3, rosa(problem, random_add, 8))
    assert problem.steps(8) == 3 < math.ceil(OUT / 8)
    assert problem.excess(weights[2]) <= ZERO < problem.excess(weights[1])
    assert problem.loss(weights[2]) > 1, "the noise itself stays"


def test_fewer_inputs_than_dimensions() -> None:
    """X without full column rank: the least-squares optimum is one of many, and the count is at most n / R."""
    problem = regression(n=20)
    assert problem.rank(problem.W0) == 20 < DISTANCE
    weights = after(3, rosa(problem, random_add, 8))
    assert problem.steps(8) == 3
    assert problem.excess(weights[2]) <= ZERO < problem.excess(weights[1])


# --- where the pair carries a part of the pretrained weight -----------------------------------------------------------


@pytest.mark.spread
@pytest.mark.parametrize("R", [1, 2, 4, 8])
@pytest.mark.parametrize("name", CARRYING)
def test_carrying_pair_misses_the_count(name: str, R: int) -> None:
    """The target of the pair is correction plus removed part, of rank 24 + R: what is left keeps its rank."""
    problem = regression()
    T = problem.steps(R)
    frozen, *_ = CARRYING[name](problem.W0, R, torch.Generator().manual_seed(7))
    assert torch.linalg.matrix_rank(problem.optimum - frozen) == min(DISTANCE + R, OUT)
    last = after(T, rosa(problem, CARRYING[name], R))[-1]
    assert problem.rank(last) == DISTANCE
    assert problem.excess(last) > 1e-4


@pytest.mark.parametrize("name", CARRYING)
@pytest.mark.parametrize("seed", [0, 100])
def test_rank_left_never_grows_and_falls_by_twice_the_rank_at_most(name: str, seed: int) -> None:
    """rank(D + C) lies within R of rank(D), and the best pair takes R away."""
    problem = regression(n=60, out=10, in_=14, distance=6, seed=seed)
    before = problem.rank(problem.W0)
    for W in after(5, rosa(problem, CARRYING[name], 2, seed=seed)):
        assert before - 4 <= problem.rank(W) <= before
        before = problem.rank(W)


def test_bottom_triplets_of_a_singular_weight_are_a_free_pair() -> None:
    """Where the removed triplets have singular value 0, svd_equal takes nothing out, and the count holds."""
    problem = regression()
    low_rank = normal(OUT, 8, seed=5) @ normal(8, IN, seed=6) / (8 * IN) ** 0.5
    moved = Regression(problem.X, problem.Y + problem.X @ (low_rank - problem.W0).T, low_rank)
    assert moved.steps(8) == 3
    weights = after(3, rosa(moved, svd_equal("bottom"), 8))
    assert moved.excess(weights[2]) <= ZERO < moved.excess(weights[1])


def test_chosen_triplets_can_beat_the_count() -> None:
    """A teacher that lacks 24 of W0's triplets: each step forgets the 8 it took out, and learns 8 more beside."""
    problem = regression()
    U, S, Vh = torch.linalg.svd(problem.W0, full_matrices=False)
    regression_module = (U[:, 24:] * S[24:]) @ Vh[24:]
    pruned = Regression(problem.X, problem.X @ regression_module.T, problem.W0)
    assert pruned.steps(8) == 3
    weights = after(2, rosa(pruned, svd_equal("top"), 8))
    assert pruned.rank(weights[0]) == 8
    assert pruned.excess(weights[1]) <= ZERO


def test_rank_of_the_whole_layer_needs_one_step() -> None:
    problem = regression()
    for factorize in (*FREE.values(), svd_equal()):
        assert problem.excess(next(rosa(problem, factorize, OUT))) <= ZERO


# --- one factor alone -------------------------------------------------------------------------------------------------


def test_one_trained_factor_makes_what_is_carried_irrelevant() -> None:
    """With B fixed the pair is any A B over that B, the removed part among them: removing it changes nothing."""
    problem = regression(n=60, out=8, in_=20, distance=6)
    frozen, A, B = svd_equal()(problem.W0, 3, torch.Generator().manual_seed(1))
    carrying = problem.loss(frozen + problem.best_a(frozen, B) @ B)
    assert carrying == pytest.approx(problem.loss(problem.W0 + problem.best_a(problem.W0, B) @ B), rel=1e-9)
    carrying = problem.loss(frozen + A @ problem.best_b(frozen, A))
    assert carrying == pytest.approx(problem.loss(problem.W0 + A @ problem.best_b(problem.W0, A)), rel=1e-9)


def test_one_trained_factor_in_chosen_directions_keeps_the_count() -> None:
    """B along the leading right singular vectors of the weighted correction: A alone finds the best pair."""
    problem = regression(spread=3.0)

    def chosen(W: Tensor, R: int, _: torch.Generator) -> Pair:
        G, G_inverse = problem.roots
        Vh = torch.linalg.svd((problem.optimum - W) @ G, full_matrices=False).Vh
        return W, W.new_zeros(W.shape[0], R), Vh[:R] @ G_inverse

    weights = after(3, rosa(problem, chosen, 8, train="a"))
    assert problem.excess(weights[2]) <= ZERO < problem.excess(weights[1])


def test_one_trained_factor_in_random_directions_misses_the_count() -> None:
    """A step takes about R / 512 of the loss away, the share of the input's directions that it visits, and no rank."""
    problem = regression()
    weights = after(3, rosa(problem, random_orthogonal, 8, train="a"))
    assert problem.rank(weights[2]) == DISTANCE
    assert (1 - 2 * 8 / IN) ** 3 < problem.excess(weights[2]) < 1


def test_training_one_factor_never_leaves_the_rows_of_the_weight() -> None:
    """svd_equal's B are rows of W's own span, which 32 x 512 leaves 480 directions without: a floor for any time."""
    problem = regression()
    rows = torch.linalg.svd(problem.W0, full_matrices=False).Vh
    floor = problem.excess(problem.W0 + problem.best_a(problem.W0, rows) @ rows)
    losses = [problem.excess(W) for W in after(40, rosa(problem, svd_equal(), 8, train="a"))]
    assert floor > 0.5
    assert all(loss >= floor - 1e-9 for loss in losses)
    assert losses[-1] == pytest.approx(floor, abs=1e-3)


# --- what docs/theory.md quotes ---------------------------------------------------------------------------------------


def written(value: float) -> str:
    return f"{value:.1e}" if value > ZERO else "0"


@pytest.mark.slow
def test_tables(capsys: pytest.CaptureFixture[str]) -> None:
    """Excess loss by rank at step T, and by step at rank 8."""
    problem = regression()
    ranks, steps = (1, 2, 4, 8), (1, 2, 3, 5, 10, 30)
    at_count = {"LoRA": [problem.excess(problem.W0 + problem.best_pair(problem.W0, R)) for R in ranks]}
    for name, factorize in (FREE | CARRYING).items():
        at_count[name] = [problem.excess(after(problem.steps(R), rosa(problem, factorize, R))[-1]) for R in ranks]
    paths = {(name, "ab"): factorize for name, factorize in CARRYING.items()}
    paths |= {("svd_equal", "a"): svd_equal(), ("svd_equal", "b"): svd_equal()}
    paths |= {("random_orthogonal", "a"): random_orthogonal}
    by_step: dict[str, list[float]] = {}
    for (name, train), factorize in paths.items():
        weights = after(max(steps), rosa(problem, factorize, 8, train))
        trained = "A and B" if train == "ab" else f"{train.upper()} alone"
        by_step[f"{name}, {trained}"] = [problem.excess(weights[k - 1]) for k in steps]
    with capsys.disabled():
        print(f"\nexcess loss after T = ceil({DISTANCE} / R) exact steps (LoRA: at its optimum); before training 1")
        print(" " * 28 + "".join(f"{f'R={R}, T={problem.steps(R)}':>12}" for R in ranks))
        for label, row in at_count.items():
            print(f"{label:28}" + "".join(f"{written(value):>12}" for value in row))
        print("\nexcess loss at rank 8 after so many exact steps")
        print(" " * 28 + "".join(f"{k:>12}" for k in steps))
        for label, row in by_step.items():
            print(f"{label:28}" + "".join(f"{written(value):>12}" for value in row))
    assert all(value <= ZERO for name in FREE for value in at_count[name])
    assert all(value > 1e-4 for name in ("LoRA", *CARRYING) for value in at_count[name])
    assert by_step["svd_equal, A and B"][-1] < 1e-6, "random triplets do get there in the end"
    assert by_step["svd_equal, top, A and B"][-1] > at_count["LoRA"][-1], "the top ones stay behind LoRA"


# --- the records against the closed form ------------------------------------------------------------------------------


@pytest.mark.parametrize("R", [1, 2, 4, 8])
def test_recorded_lora_runs_stop_at_the_bound(R: int, capsys: pytest.CaptureFixture[str]) -> None:
    """Validation error of experiments/regression_linear.yaml's LoRA runs, and of the best correction of their rank."""
    runs = [
        run
        for run in records.find(ROOT / "results", "regression_linear")[0]
        if run["identity"]["method"] == "lora" and run["config"]["method"]["rank"] == R and run["status"] == "done"
    ]
    assert runs
    model = ModelConfig("linear", "perceptron", perceptron=PerceptronConfig([IN, OUT]))
    data = DataConfig("teacher", train_size=2048, evaluation_size=1024)
    task = TaskConfig(name="regression", kind="vector_regression", metrics=["mse"], headline="mse")
    student, facts = perceptron.load(model)
    loaded = regression_module.load(task, data, student)
    assert {run["model"]["sha256"]["weights"] for run in runs} == {facts["sha256"]["weights"]}
    W0 = student.layers[0].weight.detach().double()
    problem = Regression(loaded.train.features.double(), loaded.train.labels.double(), W0)
    bound = W0 + problem.best_pair(W0, R)
    validation = loaded.evaluation["validation"]
    error = float((validation.features.double() @ bound.T - validation.labels.double()).square().mean())
    best = [min(entry["validation"]["mse"] for entry in run["history"]) for run in runs]
    with capsys.disabled():
        print(f"\nLoRA r={R}: best correction of rank {R} {error:.4f}; runs {min(best):.4f} to {max(best):.4f}")
    assert best == pytest.approx([error] * len(best), rel=0.02)
