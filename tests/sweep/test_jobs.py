"""The jobs of a sweep: composed once and labelled by what varies; Hydra's options and plugins work or are refused."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from rosa import records
from rosa.config import register
from rosa.errors import ConfigError
from rosa.run.device import resolve
from rosa.sweep import jobs as module
from rosa.sweep.jobs import Job, expand, hydra_settings, labelled, refuse_half_a_sweep, request
from rosa.sweep.local import without_finished
from tests.conftest import ROOT, Composer

CONF = ROOT / "conf"


@pytest.fixture(autouse=True)
def registered() -> None:
    register()


def planned(*words: str) -> list[Job]:
    return [job for job, _ in expand(CONF, request(words))]


def test_each_cell_is_composed_once_and_its_command_composes_it_again(monkeypatch: pytest.MonkeyPatch) -> None:
    composed = []
    from_hydra = module.from_hydra
    monkeypatch.setattr(module, "from_hydra", lambda plain: composed.append(1) or from_hydra(plain))
    made = planned("-m", "method=rosa,lora", "seed=0,1,2", "model=mini-roberta")
    assert len(made) == len(composed) == 6
    assert [(job.config.method.name, job.config.seed) for job in made] == [
        (method, seed) for method in ("rosa", "lora") for seed in (0, 1, 2)
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
    assert request(job.command.split()[2:]) == request(["--config-dir", str(tmp_path), "task=mine"])


@pytest.mark.parametrize(
    ("words", "labels"),
    [
        (("seed=0,1",), ["seed=0", "seed=1"]),
        (("method=rosa,lora", "seed=0"), ["rosa", "lora"]),
        (("task=cola,stsb", "train.lr=1e-3,2e-3"), [
            "cola lr=0.001", "cola lr=0.002", "stsb lr=0.001", "stsb lr=0.002"]),
        (("method.rank=2,4", "data.seed=0,1", "seed=0"), [
            "seed=0 rank=2", "seed=1 rank=2", "seed=0 rank=4", "seed=1 rank=4"]),
        (("model=mini-roberta",), ["cola rosa seed=0"]),
    ],
)  # fmt: skip
def test_a_line_names_what_varies_and_nothing_else(words: tuple[str, ...], labels: list[str]) -> None:
    assert sorted(job.label for job in labelled(planned(*words))) == sorted(labels)


def test_a_forgotten_m_is_no_stray_run() -> None:
    def asked(*words: str) -> None:
        refuse_half_a_sweep(hydra_settings(CONF, request(words)), request(words))

    with pytest.raises(ConfigError, match=r"sweeps over task, method, seed: -m .* give a value to task, seed"):
        asked("experiment=glue_mini", "method=rosa")
    asked("experiment=glue_mini", "method=rosa", "task=cola", "seed=3")
    asked("seed=3")


def script(*words: str, status: int = 0) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "scripts/train.py", *words]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == status, done.stderr
    return done


def test_what_hydra_answers_itself_is_answered() -> None:
    assert "name: rosa" in script("--cfg", "job").stdout
    assert "Defaults List" in script("--info", "defaults").stdout + script("--info", "defaults").stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["-m", "seed=0,1", "hydra.sweep.dir=x"], "hydra.sweep.dir=x: a run's folder is its identity"),
        (["-m", "seed=0,1", "hydra/sweeper=nevergrad"], "hydra/sweeper=nevergrad: no such hydra/sweeper; it is"),
        (["experiment=glue_mini"], "the experiment sweeps over task, method, seed: -m does all its runs"),
        (["train.learning_rate=1"], "train.learning_rate: no such key; did you mean train.lr?"),
        (["rank=4"], "rank: no such key; did you mean method.rank?"),
        (["results_dir=/proc/no", "train.device=cpu"], "cannot write in the run's folder (results_dir)"),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_said_in_a_line(words: list[str], message: str) -> None:
    done = script(*words, status=2)
    first, second = [line for line in done.stderr.splitlines() if line.startswith(("error", "help", "\rerror"))] or [
        "", ""
    ]  # fmt: skip
    assert message in first
    assert second.startswith("help")


@pytest.mark.slow
def test_a_finished_run_is_skipped_without_pytorch(composed: Composer, tmp_path: Path) -> None:
    config = composed("train.epochs=1")
    words = [
        "model=folder", "model.name=tiny", f"model.path={config.model.path}", "data.train_size=64", "logger=none",
        "data.evaluation_size=32", "train.epochs=1", "train.device=cpu", "task=cola", f"results_dir={tmp_path}",
    ]  # fmt: skip
    script(*words)
    program = (
        "import runpy, sys; sys.argv = ['scripts/train.py', *sys.argv[1:]]\n"
        "try: runpy.run_path('scripts/train.py', run_name='__main__')\n"
        "finally: print('torch' in sys.modules)"
    )
    for more in ([], ["-m"]):
        done = subprocess.run(
            [sys.executable, "-c", program, *more, *words], cwd=ROOT, capture_output=True, text=True, check=True
        )
        assert "finished" in done.stdout
        assert done.stdout.splitlines()[-1] == "False", "PyTorch was loaded"


def test_the_command_that_a_corrupt_record_is_answered_with_does_the_run_over(composed: Composer) -> None:
    config = composed()
    folder = records.folder(resolve(config)[0])
    folder.mkdir(parents=True)
    (folder / records.RECORD).write_text("{")
    left, (result,) = without_finished([Job(config, "python scripts/train.py")])
    assert (left, result.status) == ([], "failed")
    assert "train.force=true starts the run over" in result.line
    assert result.again == "python scripts/train.py train.force=true"
    forced = composed("train.force=true")
    assert without_finished([Job(forced, "x")]) == ([Job(forced, "x")], [])


@pytest.mark.slow
def test_a_search_of_ten_trials_finds_the_best_selected_score(composed: Composer, tmp_path: Path) -> None:
    pytest.importorskip("hydra_plugins.hydra_optuna_sweeper", reason="hydra-optuna-sweeper is not installed")
    config = composed("train.epochs=1")
    words = [
        "-m", "hydra/sweeper=optuna", "hydra.sweeper.n_trials=10", "hydra.sweeper.n_jobs=1", "model=folder",
        "model.name=tiny", f"model.path={config.model.path}", "data.train_size=64", "data.evaluation_size=32",
        "train.epochs=1", "train.device=cpu", "task=stsb", "logger=none", f"results_dir={tmp_path}",
        f"hydra.sweep.dir={tmp_path / 'search'}", "train.lr=interval(1e-4,1e-2)",
    ]  # fmt: skip
    refused = script(*words, "hydra.sweeper.direction=minimize", status=2)
    assert "is the better the higher; use hydra.sweeper.direction=maximize" in refused.stderr
    done = script(*words, "hydra.sweeper.direction=maximize")
    found, _ = records.find(tmp_path)
    assert len(found) == 10
    best = max(map(records.score, found))
    assert f"best_value: {best}" in done.stdout
