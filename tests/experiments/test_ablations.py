"""The ablations: every file composes at each scale, starts from one run, and its runs end in one figure."""

from __future__ import annotations

from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from rosa.config import identity_hash, register
from rosa.records import find
from rosa.report.figures.ablation import ablation
from rosa.report.figures.diagnostics import diagnostics
from rosa.report.grouping import compare
from rosa.run import run
from rosa.utils.names import MOVED
from tests.composing import compose_config
from tests.conftest import ROOT, Composer

VARIES = {
    "ablation_sampling": {"method.sampling": "random,top,bottom,window"},
    "ablation_initialisation": {
        "method.factorization": "svd_equal,random_orthogonal,random_add,svd_add",
        "method.every": "0,1",
    },
    "ablation_frequency": {"method.every": "0,1,2"},
    "ablation_rank": {"method": "rosa_each_epoch,lora", "method.rank": "1,2,4,8,16"},
}


@pytest.mark.parametrize("name", VARIES)
def test_a_file_varies_what_it_is_named_for(name: str) -> None:
    register()
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        whole = compose("config", overrides=[f"experiment={name}"], return_hydra_config=True)
    assert dict(whole.hydra.sweeper.params) == {"task": "cola,stsb", **VARIES[name], "seed": "0,1,2"}


@pytest.mark.parametrize(
    ("scale", "model", "data", "epochs"),
    [
        (("model=minilm", "data=local", "data.dir=x", "data.limit=100"), "minilm", "local", 4),
        (("model=roberta-base", "data=hub", "train.epochs=10"), "roberta-base", "hub", 10),
    ],
)
def test_a_file_takes_every_scale_from_the_command_line(
    scale: tuple[str, ...], model: str, data: str, epochs: int
) -> None:
    for name in VARIES:
        config = compose_config(f"experiment={name}", *scale, "train.lr=5e-4")
        assert (config.model.name, config.data.source, config.train.epochs) == (model, data, epochs)
        assert (config.train.lr, config.experiment_name) == (5e-4, "ablation")


def test_the_run_from_which_all_files_start_is_one_and_the_same() -> None:
    start = {
        "ablation_sampling": ["method.sampling=random"],
        "ablation_initialisation": ["method.factorization=svd_equal", "method.every=1"],
        "ablation_frequency": ["method.every=1"],
        "ablation_rank": ["method=rosa_each_epoch", "method.rank=8"],
    }
    hashes = {identity_hash(compose_config(f"experiment={name}", *values)) for name, values in start.items()}
    assert len(hashes) == 1


def test_two_steps_of_each_file_end_in_records_that_the_figures_show(composed: Composer, tmp_path: Path) -> None:
    tiny = ("train.max_steps=2", "train.epochs=1", "data.train_size=32", "data.evaluation_size=16", "task=cola")
    chosen = [
        # Steps instead of epochs, so that a subspace is left within two of them.
        ("ablation_sampling", "method.sampling=random", "method.unit=step"),
        ("ablation_sampling", "method.sampling=window", "method.unit=step"),
        ("ablation_initialisation", "method.factorization=svd_equal", "method.every=1", "method.unit=step"),
        ("ablation_initialisation", "method.factorization=svd_add", "method.every=1", "method.unit=step"),
        ("ablation_frequency", "method.every=0", "method.unit=step"),
        ("ablation_rank", "method=rosa_each_epoch", "method.rank=1", "method.unit=step"),
        ("ablation_rank", "method=lora", "method.rank=16"),
        ("ablation_rank", "method=lora", "method.rank=1"),
    ]
    skipped = [
        run(composed(f"experiment={name}", *values, *tiny, "method.targets=[*query]"), name, progress=False).skipped
        for name, *values in chosen
    ]
    assert skipped == [False, False, True, False, False, False, False, False], "what two files share is done once"

    found, problems = find(tmp_path / "results")
    assert not problems
    comparison = compare(found, "ablation")
    (picture,), left_out = ablation(comparison)
    assert not left_out
    assert {(line["factor"], line["series"], line["value"], line["reference"]) for line in picture.rows} == {
        ("method.sampling", "", "random", True),
        ("method.sampling", "", "window", False),
        ("method.factorization", "", "svd_equal", True),
        ("method.factorization", "", "svd_add", False),
        ("method.every", "", "never", False),
        ("method.every", "", "every 1 step", True),
        ("method.rank", "ROSA", "1", False),
        ("method.rank", "ROSA", "8", True),
        ("method.rank", "LoRA", "1", False),
        ("method.rank", "LoRA", "16", False),
    }
    (layers,), left_out = diagnostics(comparison)
    assert not left_out
    moved = [line for line in layers.rows if line["quantity"] == MOVED]
    resampled = [row.label for row in comparison.rows if row.settings.get("method.every") == 1]
    for label in resampled:
        assert {line["subspace"] for line in moved if line["row"] == label} == {1, 2}
