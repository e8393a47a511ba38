"""What a run or a sweep does not do, in one line: half a sweep, folders of Hydra's, a search in the wrong direction."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
from hydra.experimental.callback import Callback

from rosa.errors import ConfigError
from rosa.sweep.jobs import Job
from rosa.sweep.refusals import (
    FOLDERS,
    SWEEP_FOLDER,
    refuse_folders,
    refuse_half_a_sweep,
    refuse_job_callbacks,
    refuse_shared_folders,
    refuse_wrong_direction,
)
from tests.config.test_identity import OUTSIDE, leaves, other
from tests.conftest import Composer

PARAMS = {"task": "cola,stsb", "method": "rosa,lora", "seed": "1,2"}


def test_a_forgotten_m_is_no_stray_run() -> None:
    with pytest.raises(ConfigError, match=r"sweeps over task, method, seed: -m .* give a value to task, seed"):
        refuse_half_a_sweep(PARAMS, ["experiment=glue_mini", "method=rosa"])
    refuse_half_a_sweep(PARAMS, ["experiment=glue_mini", "method=rosa", "task=cola", "seed=3"])
    refuse_half_a_sweep(None, ["seed=3"])


def test_a_single_run_says_itself_what_a_sweep_would_set_for_it() -> None:
    where = {"task=cola": {"train.batch_size": 32}}
    words = ["experiment=glue_mini", "method=rosa", "seed=3"]
    with pytest.raises(ConfigError, match=r"for one of them add train\.batch_size=32, or another value$"):
        refuse_half_a_sweep(PARAMS, [*words, "task=cola"], where)
    refuse_half_a_sweep(PARAMS, [*words, "task=cola", "train.batch_size=16"], where)
    refuse_half_a_sweep(PARAMS, [*words, "task=stsb"], where)


@pytest.mark.parametrize(
    ("word", "of_runs", "of_sweeps"),
    [
        ("hydra.sweep.dir=x", False, True),
        ("hydra.sweep.subdir=x", False, True),
        ("hydra.run.dir=x", True, False),
        ("hydra.job.chdir=true", True, False),
        ("+hydra.output_subdir=.hydra", True, False),
        ("hydra.verbose=true", False, False),
        ("+hydra.job.env_set.A=b", False, False),
        ("hydra/launcher=local", False, False),
    ],
)
def test_folders_of_hydras_are_refused_where_they_would_not_hold(word: str, of_runs: bool, of_sweeps: bool) -> None:
    for refused, folders in ((of_runs, FOLDERS), (of_sweeps, SWEEP_FOLDER)):
        if refused:
            with pytest.raises(ConfigError, match="a run's folder is its identity, under results_dir"):
                refuse_folders(["seed=0", word], folders)
        else:
            refuse_folders(["seed=0", word], folders)


def test_callbacks_of_single_jobs_are_refused() -> None:
    class OfSweeps(Callback):
        def on_multirun_end(self, config: object, **kwargs: object) -> None:
            pass

    class OfJobs(OfSweeps):
        def on_job_end(self, config: object, job_return: object, **kwargs: object) -> None:
            pass

    refuse_job_callbacks([OfSweeps()])
    with pytest.raises(ConfigError, match="OfJobs.on_job_end is not called by hydra/launcher=local"):
        refuse_job_callbacks([OfSweeps(), OfJobs()])


@pytest.mark.parametrize("direction", ["minimize", "Direction.minimize", "maximize", None, "['minimize','maximize']"])
def test_a_search_in_the_wrong_direction_is_refused(composed: Composer, direction: str | None) -> None:
    config = composed("task=cola")
    if direction in ("minimize", "Direction.minimize"):
        with pytest.raises(ConfigError, match="the better the higher; use hydra.sweeper.direction=maximize"):
            refuse_wrong_direction(config, direction)
    else:
        refuse_wrong_direction(config, direction)


@pytest.mark.parametrize("key", sorted(OUTSIDE))
def test_runs_that_one_folder_cannot_tell_apart_are_refused(composed: Composer, key: str) -> None:
    one = composed("train.lr=1e-3")
    two = copy.deepcopy(one)
    node, name = next((node, name) for dotted, node, name in leaves(two) if dotted == key)
    setattr(node, name, other(getattr(node, name)))
    jobs = [Job(one, "a"), Job(replace(one, seed=99), "b"), Job(one, "the first run once more")]
    refuse_shared_folders(jobs)
    if key in ("seed", "experiment_name", "results_dir") or key.startswith("train.tuning."):
        refuse_shared_folders([*jobs, Job(two, "c")])
        return
    with pytest.raises(ConfigError, match=rf"^{key}.* and {key}.*: both runs have the folder {one.results_dir}"):
        refuse_shared_folders([*jobs, Job(two, "c")])


def test_two_models_of_one_name_are_refused(composed: Composer) -> None:
    one = composed()
    moved = replace(one, model=replace(one.model, path="elsewhere"))
    with pytest.raises(ConfigError, match=r"and model\.path=elsewhere: .* with another experiment_name or model\.name"):
        refuse_shared_folders([Job(one, "a"), Job(moved, "b")])
