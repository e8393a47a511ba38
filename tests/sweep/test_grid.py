"""The cells of a sweep: those of Hydra's own sweeper, composed to what Hydra composes, each choice of files once."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hydra import compose
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from rosa.config import ConfigError, register
from rosa.sweep import grid
from rosa.sweep.grid import Composer, cells, expand, parse
from rosa.sweep.jobs import Job, request
from tests.conftest import ROOT

CONF = ROOT / "conf"


@pytest.fixture(autouse=True)
def registered() -> None:
    register()


def planned(*words: str) -> list[Job]:
    return [job for job, _ in expand(CONF, request(words))]


def counted(calls: list[list[str]]) -> Any:
    def load(words: list[str]) -> Any:
        calls.append(words)
        return compose("config", overrides=words, return_hydra_config=True)

    return load


@pytest.mark.parametrize(
    "words",
    [
        ["seed=0,1", "method=rosa,lora", "task=cola"],
        ["seed=range(1,4)", "train.lr=choice(1e-3,2e-3)"],
        ["train.lr=range(0.1,0.4,step=0.1)", "method.rank=sort(4,2,8,reverse=true)"],
        ["method=glob(lora_r*)", "seed=1"],
        ["task=glob([c*,m*],exclude=mnli)"],
        ["experiment_name='a,b',c", "+cache_dir=x,y"],
        ["train.betas=[0.9,0.98],[0.9,0.999]"],
        ["seed=0", "seed=1,2"],
        ["data=tag(mine,choice(mini,local))"],
    ],
)
def test_the_cells_are_those_of_hydras_sweeper(words: list[str]) -> None:
    with grid._composer(CONF):
        loader = GlobalHydra.instance().config_loader()
        (expected,) = BasicSweeper.split_arguments(parse(words, loader), None)
        assert cells({}, words, loader) == expected
        assert len(expected) > 1


WHERE = {
    "task=cola": {"train.batch_size": 32, "train.lr": "0.1,0.2"},
    "method=full": {"train.lr": "0.4"},
    "method=full task=cola,rte": {"train.lr": "0.3,0.4"},
}
PARAMS = {"task": "cola,sst2", "method": "rosa,full", "train.lr": "0.5"}


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (
            [],
            [
                "cola rosa 0.1 32", "cola rosa 0.2 32", "cola full 0.3 32", "cola full 0.4 32", "sst2 rosa 0.5",
                "sst2 full 0.4",
            ],
        ),
        (["task=rte", "method=full"], ["rte full 0.3", "rte full 0.4"]),
        (["task=cola", "train.lr=5,6"], ["cola rosa 5 32", "cola rosa 6 32", "cola full 5 32", "cola full 6 32"]),
        (["train.batch_size=8", "method=full", "task=cola"], ["cola full 0.3 8", "cola full 0.4 8"]),
    ],
)  # fmt: skip
def test_conditions_give_cells_other_values_and_the_command_overrides_them(
    words: list[str], expected: list[str]
) -> None:
    with grid._composer(CONF):
        found = cells(PARAMS, words, GlobalHydra.instance().config_loader(), WHERE)
    assert [" ".join(word.partition("=")[2] for word in cell) for cell in found] == expected


def test_a_condition_on_what_conditions_set_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"a condition on train\.lr, .*; use task, method, seed$"):
        cells({**PARAMS, "seed": "1"}, [], where={**WHERE, "train.lr=0.5": {"train.batch_size": 8}})


def test_a_files_types_are_no_choices_of_a_glob() -> None:
    with grid._composer(CONF):
        found = cells({}, ["decoding=glob(*)"], GlobalHydra.instance().config_loader())
    assert {word for (word,) in found} == {f"decoding={path.stem}" for path in (CONF / "decoding").glob("*.yaml")}


@pytest.mark.parametrize(
    ("word", "message"),
    [("train.lr=interval(1e-4,1)", "a grid has no intervals"), ("task=glob(x*)", "nothing matches")],
)
def test_what_has_no_values_is_refused(word: str, message: str) -> None:
    with grid._composer(CONF), pytest.raises(ConfigError, match=message):
        cells({}, [word], GlobalHydra.instance().config_loader())


@pytest.mark.parametrize(
    "words",
    [
        ["seed=3", "method=lora", "method.rank=4"],
        ["method.rank=4", "method=lora", "task=stsb"],
        ["experiment=glue_mini", "task=cola", "method=rosa", "seed=1", "train.epochs=2"],
        ["train={lr:0.5}", "train.lr=0.25"],
        ["train.lr=0.25", "train={lr:0.5}"],
        ["seed=1", "seed=2", "++seed=3"],
        ["data.train_size=${data.evaluation_size}", "data.evaluation_size=64"],
        ["experiment_name=run_${hydra:job.num}"],
        ["experiment_name=${hydra:job.config_name}", "seed=1"],
        ["results_dir='/a,b'", "experiment_name=${model.name}"],
        ["train.betas=[0.9,0.999]", "train.lr=tuned"],
        ["method.rank_pattern={a:2}", "seed=0"],
        ["+method.rank_pattern.a=2", "method.rank=4"],
        # what is wrong stays wrong
        ["seed=null"],
        ["nothing=1"],
        ["method.rank=0", "seed=1"],
        ["task=nothing"],
        ["+method.extra=1"],
    ],
)
def test_a_cell_is_what_hydra_composes(words: list[str]) -> None:
    errors = (ConfigError, HydraException, OmegaConfBaseException)

    def outcome(call: Any) -> Any:
        try:
            return call(words, 7)[0]
        except errors as error:
            return type(error), str(error)

    with grid._composer(CONF):
        composer = Composer(counted([]))
        assert outcome(composer) == outcome(composer._whole)


def test_each_choice_of_files_is_composed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["method=rosa,lora", "seed=0,1,2", "train.lr=1e-3,2e-3,3e-3"]
    calls: list[list[str]] = []
    with grid._composer(CONF):
        composer = Composer(counted(calls))
        made = [composer(cell)[0] for cell in cells({}, words)]
    assert len(made) == 18
    assert len({str(config) for config in made}) == 18
    assert len(calls) == 3, "each method, and once to learn which keys choose files"


def test_a_sweep_composes_what_its_cells_share_and_each_choice_of_files(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[list[str]] = []
    load = counted(calls)
    monkeypatch.setattr("hydra.compose", lambda name, overrides, **_: load(overrides))
    made = planned("task=cola", "method=rosa,lora", "seed=0,1,2", "train.lr=1e-3")
    assert len({str(job.config) for job in made}) == 6
    assert calls == [["task=cola", "train.lr=1e-3"], ["task=cola", "method=rosa"], ["task=cola", "method=lora"]]


def test_the_command_of_a_cell_composes_it_again() -> None:
    made = planned("-m", "method=rosa,lora", "seed=0,1,2", "model=mini-roberta")
    assert [(job.config.method.name, job.config.seed, job.number) for job in made] == [
        (method, seed, 3 * number + seed) for number, method in enumerate(("rosa", "lora")) for seed in (0, 1, 2)
    ]
    assert made[4].command == "python scripts/train.py method=lora seed=1 model=mini-roberta"
    assert planned(*made[4].command.split()[2:])[0].config == made[4].config


def test_a_sweep_over_experiments_is_the_sweeps_of_their_files() -> None:
    both = planned("-m", "experiment=e2e_mini_tune,e2e_mini")
    alone = [*planned("experiment=e2e_mini_tune"), *planned("experiment=e2e_mini")]
    assert [job.config for job in both] == [job.config for job in alone]
    assert len(both) == 24


def test_a_folder_of_further_files_is_in_the_command(tmp_path: Path) -> None:
    (tmp_path / "task").mkdir()
    (tmp_path / "task" / "mine.yaml").write_text((CONF / "task" / "cola.yaml").read_text())
    (job,) = planned("--config-dir", str(tmp_path), "task=mine")
    assert job.command == f"python scripts/train.py --config-dir={tmp_path} task=mine"
    assert planned(*job.command.split()[2:])[0].config == job.config


def test_the_options_of_a_command_are_those_that_compose_the_run_again(tmp_path: Path) -> None:
    load = partial(compose, "config", return_hydra_config=True)
    with grid._composer(CONF):
        plain = load([]).hydra
        words = ["+hydra.job.env_set.NAME=${oc.env:NOT_SET}", "seed=${nope}"]
        later = load(words).hydra
        assert [*grid.typed(later.overrides.hydra), *grid.typed(later.overrides.task)] == words
        more = load([f"hydra.searchpath=[file://{tmp_path}]", "+hydra.job.env_set.WANDB_MODE=offline"]).hydra
    assert grid.options(plain, CONF) == []
    assert grid.options(plain, tmp_path) == [f"--config-path={CONF}"]
    assert grid.options(more, CONF) == [
        f"hydra.searchpath=[file://{tmp_path}]", "+hydra.job.env_set.WANDB_MODE=offline"
    ]  # fmt: skip
    assert grid.job([], None, more, []).environment == {"WANDB_MODE": "offline"}  # type: ignore[arg-type]
