"""The claims about ROSA's parts: which triplets, the SVD initialisation, orthogonality, resampling."""

from __future__ import annotations

from typing import Any

from rosa.report import formatting
from rosa.report.claims.one_task import claims_table
from rosa.report.claims.section import Section, protocol, study_of, tuned_on
from rosa.report.claims.verdicts import Claim, Settings
from rosa.report.comparison import Comparison

EXPERIMENT = "evidence_ablation"

FACTORIZATIONS = ("svd_equal", "random_orthogonal", "random_add", "svd_add")


def arm(**options: Any) -> Settings:
    """ROSA as the ablations train it, with a new random set of singular triplets each epoch, but for ``options``."""
    usual = {
        "name": "rosa",
        "factorization": "svd_equal",
        "sampling": "random",
        "every": 1,
        "unit": "epoch",
        "optimizer_state": "reset",
    }
    return {f"method.{key}": value for key, value in (usual | options).items()}


BASIS, LORAS_START = arm(factorization="random_orthogonal"), arm(factorization="random_add")
KEPT = Claim("The optimizer's state is better dropped at a resample than kept", arm(), arm(optimizer_state="keep"))
CLAIMS = (
    Claim("Random triplets are at least as good as the largest (top)", arm(), arm(sampling="top"), as_good=True),
    Claim("Random triplets are at least as good as the smallest (bottom)", arm(), arm(sampling="bottom"), as_good=True),
    Claim("Random triplets are at least as good as a random window", arm(), arm(sampling="window"), as_good=True),
    Claim("SVD initialisation: singular vectors are better than a random orthonormal basis", arm(), BASIS),
    Claim("Orthogonality: a random orthonormal basis is better than LoRA's start", BASIS, LORAS_START),
    Claim("Triplets taken out of the frozen weight are better than left in it", arm(), arm(factorization="svd_add")),
    Claim("Resampling: a new subspace each epoch is better than the first one kept", arm(), arm(every=0)),
    *(
        Claim(f"Resampling, with {name}", arm(factorization=name), arm(factorization=name, every=0))
        for name in FACTORIZATIONS[1:]
    ),
    Claim("SVD initialisation, never resampled", arm(every=0), arm(factorization="random_orthogonal", every=0)),
    Claim(
        "Orthogonality, never resampled",
        arm(factorization="random_orthogonal", every=0),
        arm(factorization="random_add", every=0),
    ),
    KEPT,
)
TERMS = (
    "Triplets are singular values with their two vectors; a window is a random block of consecutive ones, which the "
    "authors' released code draws. Of a weight `W`, `svd_equal` (ROSA) trains the drawn triplets and freezes the rest; "
    "`random_orthogonal` does so with the part of `W` in the span of a random orthonormal basis `B` (`A = W Bᵀ`); "
    "`random_add`, LoRA's start, trains `A = 0` and a random `B` beside the whole `W`, so that it differs from "
    "`random_orthogonal` in the start as well as in orthogonality; `svd_add` trains the drawn triplets beside the "
    "whole `W`, which changes the function at each draw. [More](family.md)."
)


def section(comparison: Comparison) -> Section:
    """The claims on each task of the ablations."""
    tables = []
    for task in comparison.tasks:
        name = formatting.task_name(task.name)
        tables.append(claims_table(f"claims-parts-{task.name}", f"ROSA's parts, on {name}", CLAIMS, comparison, task))
    return Section(
        "The parts of ROSA",
        (
            f"{protocol(comparison)}{tuned_on(comparison)}. [Scores, rates and commands]"
            f"(../results/tables/{EXPERIMENT}.md).",
            TERMS,
            *tables,
        ),
        study_of(comparison),
    )
