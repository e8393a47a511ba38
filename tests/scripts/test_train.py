"""scripts/train.py as Hydra's users know it: its options, plugins of sweepers that search, errors in one line."""

from __future__ import annotations

import json
import logging
import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from hydra.core.global_hydra import GlobalHydra
from hydra.core.plugins import Plugins

from rosa import records
from rosa.errors import ConfigError
from rosa.records import tracking
from rosa.run import pipeline
from rosa.sweep import local
from rosa.utils import loading
from tests.commands import script
from tests.conftest import ROOT
from tests.sweep.test_kills import RUN


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As in a process of its own: without what the command and Hydra's --info leave behind."""
    GlobalHydra.instance().clear()
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    root = logging.getLogger()
    before = root.level, list(root.handlers)
    yield
    root.setLevel(before[0])
    root.handlers[:] = before[1]


class HereAndNow:
    """Stands in for the processes of a sweep: does each run in this one."""

    def __init__(self, do: Callable[[Any], Any], environments: Sequence[Any], *_: Any) -> None:
        self.do = do
        self.tasks: list[Any] = []

    @property
    def busy(self) -> int:
        return len(self.tasks)

    @property
    def free(self) -> int:
        return 1 - self.busy

    def start(self, task: Any) -> None:
        self.tasks.append(task)

    def finished(self, timeout: float) -> list[tuple[Any, Any]]:
        tasks, self.tasks = self.tasks, []
        return [(task, self.do(task)) for task in tasks]

    def ask_to_stop(self) -> None:
        pass

    def __enter__(self) -> HereAndNow:
        return self

    def __exit__(self, *_: object) -> None:
        pass


@pytest.fixture
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "Workers", HereAndNow)


def said(capsys: pytest.CaptureFixture[str]) -> tuple[str, str]:
    out, err = capsys.readouterr()
    return out, err


# --- what Hydra answers itself ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--cfg", "job", "method=lora"], "name: lora"),
        (["method=lora", "--cfg", "job"], "name: lora"),
        (["--cfg", "job", "--package", "method"], "# @package method"),
        (["-c", "job", "--resolve"], "name: rosa"),
        (["--cfg", "hydra", "-p", "hydra.sweeper"], "_target_: hydra_plugins.rosa_sweep.GridSweeper"),
        (["--cfg", "job", "experiment=glue_mini"], "experiment_name: glue_mini"),
        (["--info", "defaults"], "Defaults List"),
        (["--info", "plugins"], "LocalLauncher"),
        (["--info", "searchpath"], "structured://"),
        (["--help"], "Configuration groups"),
        (["-sc", "install=bash"], "complete -o nospace"),
        (["--shell-completion", "uninstall=bash"], "unset hydra_bash_completion"),
    ],
)
def test_hydras_options_are_answered(
    words: list[str], expected: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert script(monkeypatch, "train", *words) == 0
    assert expected in "".join(said(capsys))


HEAVY = {
    *("torch", "transformers", "datasets", "peft", "accelerate", "tokenizers", "huggingface_hub", "wandb", "submitit"),
    *("numpy", "scipy", "pandas", "pyarrow", "sklearn", "matplotlib"),
}
"""Packages whose import takes from a tenth of a second to many seconds."""


@pytest.mark.parametrize(
    ("words", "said_first"),
    [
        (["--help"], "Configuration groups"),
        (["--cfg", "job"], "seed: 0"),
        (["-m", "experiment=glue_mini", "method.rank=-1"], "composing:"),  # ends with its first run, without training
    ],
)
def test_the_first_words_wait_for_few_imports(words: list[str], said_first: str) -> None:
    asked = [sys.executable, "-X", "importtime", "scripts/train.py", *words]
    # Without coverage in the command: its imports would be counted.
    plain = {key: value for key, value in os.environ.items() if not key.startswith("COVERAGE")}
    done = subprocess.run(asked, cwd=ROOT, env=plain, capture_output=True, text=True, check=False)
    imports = [line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if line.startswith("import time:")]
    assert said_first in done.stdout + done.stderr
    assert "hydra" in imports
    assert {name.partition(".")[0] for name in imports} & HEAVY == set()
    assert len(imports) <= 480  # 385 to 422 when this was written


def test_a_run_loads_wandb_first_and_the_rest_quickly(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    order: list[str] = []
    monkeypatch.setattr(tracking, "load_early", lambda _: order.append("wandb"))
    monkeypatch.setattr(loading, "load", order.append)

    def stop(*_: Any, **__: Any) -> None:
        raise ConfigError("far enough")

    monkeypatch.setattr(pipeline, "run", stop)
    assert script(monkeypatch, "train", f"results_dir={tmp_path}") == 2
    assert order == ["wandb", "rosa.run.pipeline"]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("meth", {"method.", "method="}),
        ("method.ran", {"method.rank=", "method.rank_pattern."}),
        ("task=c", {"task=cola"}),
        ("task=cola method=lora meth", {"method.", "method="}),
        ("hydra/sweeper=g", {"hydra/sweeper=grid"}),
        ("experiment=glue_paper_t", {"experiment=glue_paper_tune"}),
    ],
)
def test_the_shell_completes_keys_and_choices(
    line: str, expected: set[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As Hydra's own tests ask: the line so far in COMP_LINE."""
    monkeypatch.setenv("COMP_LINE", f"python scripts/train.py {line}")
    assert script(monkeypatch, "train", "-sc", "query=bash") == 0
    assert set(said(capsys)[0].split()) == expected


# --- what cannot be done ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("-m --cfg job", "-m: --cfg, --info and --help tell about one run: leave -m out"),
        ("-m seed=0,1 hydra.sweep.dir=x", "hydra.sweep.dir=x: a run's folder is its identity"),
        ("hydra.run.dir=x", "hydra.run.dir=x: a run's folder is its identity"),
        ("-m hydra.job.chdir=true", "hydra.job.chdir=true: a run's folder is its identity"),
        ("-m seed=0,1 hydra/sweeper=nevergrad", "hydra/sweeper=nevergrad: no such hydra/sweeper; it is a plugin"),
        ("-m hydra/launcher=ray", "hydra/launcher=ray: no such hydra/launcher; it is a plugin"),
        ("-m hydra/launcher=submitit_slrum", "no such hydra/launcher; did you mean submitit_slurm?"),
        ("-m hydra.launcher.n_jobs=2", "hydra.launcher.n_jobs: no such key; did you mean jobs?"),
        ("-m seed=0,1 hydra.sweeper.max_batch_size=-1", "hydra.sweeper.max_batch_size=-1: expected a whole number of"),
        ("-m seed=0,1 hydra.sweeper.max_batch_size=0", "hydra.sweeper.max_batch_size=0: expected a whole number of"),
        ("-m seed=0,1 hydra.sweeper.max_batch_size=x", "hydra.sweeper.max_batch_size=x: expected a whole number of"),
        (
            "-m train.fail_fast=true hydra/launcher=basic",
            "train.fail_fast=true: only hydra/launcher=local stops",
        ),
        ("experiment=glue_mini", "the experiment sweeps over task, method, seed: -m does all its runs"),
        ("seed=0,1", "seed=0,1: several values of seed are a sweep, which -m does; for one, quote the value"),
        ("-m train.lr=interval(1e-4,1)", "train.lr=interval(1e-4,1): a grid has no intervals"),
        ("train.learning_rate=1", "train.learning_rate: no such key; did you mean train.lr?"),
        ("rank=4", "rank: no such key; did you mean method.rank?"),
        ("-m rank=4,8", "rank: no such key; did you mean method.rank?"),
        ("seed", "seed: expected KEY=VALUE"),
        ("--seed 1", "--seed: no such option; settings are KEY=VALUE, such as seed=1"),
        (
            "-m task=cola --results-dir=x",
            "--results-dir=x: no such option; settings are KEY=VALUE, such as results_dir=x",
        ),
        ("--force", "--force: no such option; settings are KEY=VALUE"),
        ("=3", "=3: expected KEY=VALUE"),
        ("seed=null", "seed=null: expected a value"),
        ("method=null", "method=null: expected one of full, ia3"),
        ("+method.foo=1", "method.foo: no such key; method has: name, head"),
        ("~method", "~method: method cannot be left out"),
        ("seed=${nope}", "nope"),
        ("-m seed=1,${nope}", "nope"),
        ("experiment_name=${oc.env:ROSA_NOT_SET}", "Environment variable 'ROSA_NOT_SET' not found"),
        ("-cn nothing", "Cannot find primary config 'nothing'"),
        ("-cp /nowhere", "Primary config directory not found"),
        ("--config-dir /nowhere", "Additional config directory '/nowhere' not found"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_line(
    words: str, message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    assert script(monkeypatch, "train", *words.split()) == 2
    lines = [line.strip() for line in said(capsys)[1].splitlines()]
    first, second = [line for line in lines if line and not line.startswith("composing")]
    assert first.startswith("error: ")
    assert message in first
    assert second == "help: python scripts/train.py --help"
    assert list(tmp_path.iterdir()) == [], "nothing is left behind"


@pytest.mark.parametrize(
    "words",
    [
        "-m seed=0,1",
        "hydra.mode=MULTIRUN seed=0,1",
        "++hydra.mode=RunMode.MULTIRUN",
        "hydra.mode=2",
        "hydra.mode=MULTIRUN hydra/sweeper=basic hydra/launcher=basic",
        "experiment=sweeps seed=0,1",
        "experiment=sweeps hydra/launcher=basic",
        "experiment=sweeps hydra/sweeper=basic",
        "experiment=sweeps hydra/sweeper=basic hydra/launcher=basic",
    ],
)
def test_no_way_to_ask_for_a_sweep_makes_the_processes_of_a_run_do_one(
    words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "sweeps.yaml").write_text("# @package _global_\nhydra: {mode: MULTIRUN}\n")
    for name, value in {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    results = tmp_path / "results"
    asked = [f"--config-dir={tmp_path}", *words.split(), f"results_dir={results}", f"hydra.sweep.dir={results}"]
    assert script(monkeypatch, "train", *asked) == 2
    first, second = said(capsys)[1].splitlines()[-2:]
    assert first.startswith("error: a sweep (-m, or hydra.mode=MULTIRUN) under torchrun")
    assert second == "help: python scripts/train.py --help"
    assert not list(results.rglob("record.json"))


@pytest.mark.parametrize(
    ("words", "refused"),
    [
        ([], "results_dir=/proc/no/runs/"),
        (["-m", "seed=0,1"], "results_dir=/proc/no:"),
        (["-m", "seed=0,1", "hydra/launcher=basic"], "results_dir=/proc/no:"),
        (["-m", "seed=0,1", "hydra/launcher=submitit_local"], "results_dir=/proc/no:"),
    ],
)
def test_a_folder_that_cannot_be_written_is_two_lines_before_anything_slow(
    words: list[str], refused: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for slow in ("rosa.run.pipeline", "rosa.run.prepare", "rosa.run.build"):
        monkeypatch.setitem(sys.modules, slow, None)  # its import raises
    assert script(monkeypatch, "train", *RUN, *words, "results_dir=/proc/no") == 2
    first, second = said(capsys)[1].splitlines()[-2:]  # the bar of the composing is gone from the screen by then
    assert first.startswith(f"error: {refused}")
    assert "cannot be written: " in first
    assert second.startswith("help")


@pytest.mark.parametrize(
    "how",
    ["train.force=true", "hydra.sweeper.max_batch_size=1", "hydra/launcher=basic", "hydra/launcher=submitit_local"],
)
def test_runs_that_would_replace_each_other_are_refused_before_any_begins(
    how: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    for slow in ("rosa.run.pipeline", "rosa.run.prepare", "rosa.run.build"):
        monkeypatch.setitem(sys.modules, slow, None)  # its import raises
    words = [*RUN, "-m", "data.dir=a,b", how, f"results_dir={tmp_path}"]
    assert script(monkeypatch, "train", *words) == 2
    first, second = said(capsys)[1].splitlines()[-2:]
    assert f"error: data.dir=a and data.dir=b: both runs have the folder {tmp_path}/runs/" in first
    assert second.startswith("help")
    assert not list(tmp_path.rglob("record.json"))


# --- what works as in Hydra's manual ---------------------------------------------------------------------------------


def test_a_run_by_a_folder_of_further_files_is_recorded_with_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Environment variables of the run hold in it; its command does it again, and finds it done."""
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "mine.yaml").write_text("defaults: [default, _self_]\nlr: 0.5\n")
    seen: list[str] = []
    monkeypatch.setattr("rosa.run.pipeline.build_trainer", spy(seen))
    words = [
        *RUN, f"--config-dir={tmp_path}", "train=mine", "method.rank=1", f"results_dir={tmp_path / 'results'}",
        "+hydra.job.env_set.ROSA_SEEN=yes", "experiment_name=${oc.env:ROSA_NAME}", "train.epochs=1",
        "train.batch_size=16", "train.device=cpu", "train.threads=1", "train.keep=none",
    ]  # fmt: skip
    monkeypatch.setenv("ROSA_NAME", "named")
    assert script(monkeypatch, "train", *words) == 0
    assert seen == ["yes"]
    ((record,), _) = records.find(tmp_path / "results")
    assert (record["config"]["train"]["lr"], record["identity"]["experiment"]) == (0.5, "named")
    assert f"--config-dir={tmp_path}" in record["command"]
    assert "+hydra.job.env_set.ROSA_SEEN=yes" in record["command"]
    capsys.readouterr()
    assert script(monkeypatch, "train", *shlex.split(record["command"])[2:]) == 0
    assert "finished before, nothing to do" in said(capsys)[0]
    assert script(monkeypatch, "train", "-m", *shlex.split(record["command"])[2:]) == 0
    assert "every run was already finished" in said(capsys)[0]


def spy(seen: list[str]) -> Callable[..., Any]:
    from rosa.run import pipeline

    original = pipeline.build_trainer

    def build(*arguments: Any, **options: Any) -> Any:
        seen.append(os.environ.get("ROSA_SEEN", ""))
        return original(*arguments, **options)

    return build


@pytest.mark.parametrize(("names", "count"), [("choice(e2e_mini_tune)", 6), ("e2e_mini_tune,e2e_mini", 12)])
def test_a_sweep_over_experiments_does_their_sweeps(
    names: str, count: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def skipped(jobs: Sequence[Any], *_: Any) -> list[Any]:
        return [local.Result(job, "skipped", "", 0.0) for job in reversed(jobs)]

    monkeypatch.setattr(local, "run_all", skipped)
    words = ["-m", f"experiment={names}", "method=lora,ia3", f"results_dir={tmp_path}"]
    assert script(monkeypatch, "train", *words) == 0
    assert f"{count} runs in" in said(capsys)[0]


SWEEPER = '''
import json, pathlib
from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper

class AskAndTell(Sweeper):
    """Halves or doubles the learning rate, whichever was better: each trial depends on what the last one returned."""
    def __init__(self, direction, n_trials, params=None):
        self.n_trials = n_trials
    def setup(self, *, hydra_context, task_function, config):
        self.config = config
        self.launcher = Plugins.instance().instantiate_launcher(hydra_context, task_function, config)
    def sweep(self, arguments):
        fixed = [word for word in arguments if not word.startswith("train.lr=")]
        lr, factor, told = 1e-3, 2.0, []
        for number in range(self.n_trials):
            (job,) = self.launcher.launch([[*fixed, f"train.lr={lr}"]], initial_job_idx=number)
            told.append((lr, job.return_value))
            if len(told) > 1 and told[-1][1] < told[-2][1]:
                factor = 1 / factor * 1.1
            lr *= factor
        pathlib.Path(self.config.hydra.sweep.dir, "told.json").write_text(json.dumps(told))
'''


@pytest.fixture
def ask_and_tell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """A sweeper that searches, as a package would bring it; the words that choose it."""
    (tmp_path / "hydra_plugins").mkdir()
    (tmp_path / "hydra_plugins" / "ask_and_tell.py").write_text(SWEEPER)
    (tmp_path / "conf" / "hydra" / "sweeper").mkdir(parents=True)
    (tmp_path / "conf" / "hydra" / "sweeper" / "ask_and_tell.yaml").write_text(
        "_target_: hydra_plugins.ask_and_tell.AskAndTell\ndirection: maximize\nn_trials: 4\nparams: null\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    module = __import__("hydra_plugins.ask_and_tell", fromlist=["AskAndTell"])
    Plugins.instance().register(module.AskAndTell)
    yield [
        "-m", f"--config-dir={tmp_path / 'conf'}", "hydra/sweeper=ask_and_tell", *RUN, "method.rank=1",
        f"results_dir={tmp_path / 'results'}", f"hydra.sweep.dir={tmp_path / 'search'}", "train.lr=interval(1e-4,1e-2)",
    ]  # fmt: skip
    del sys.modules["hydra_plugins.ask_and_tell"]


def test_a_sweeper_that_searches_gets_the_selected_score_of_each_trial(
    ask_and_tell: list[str], in_this_process: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:  # fmt: skip
    assert script(monkeypatch, "train", *ask_and_tell) == 0
    told = json.loads((tmp_path / "search" / "told.json").read_text())
    found, _ = records.find(tmp_path / "results")
    assert len(found) == 4
    assert {records.learning_rate(run): records.score(run) for run in found} == dict(map(tuple, told))
    lines = [line for line in said(capsys)[0].splitlines() if line.startswith("done ")]
    assert len(lines) == 4
    assert all(f"lr={lr}" in line for line, (lr, _) in zip(lines, told, strict=True)), "a line names what varies"

    assert script(monkeypatch, "train", *ask_and_tell) == 0
    again = json.loads((tmp_path / "search" / "told.json").read_text())
    assert again == told, "a trial that was finished before returns its score as well"

    assert script(monkeypatch, "train", *ask_and_tell, "hydra.sweeper.direction=minimize") == 2
    assert "is the better the higher; use hydra.sweeper.direction=maximize" in said(capsys)[1]
    assert script(monkeypatch, "train", *ask_and_tell, "data.teacher.rank=400") == 1
    err = said(capsys)[1]
    assert "error: DataError: data.teacher.rank=400: layers.0.weight is 4 x 8" in err
    assert "again: python scripts/train.py" in err


def test_a_search_that_is_stopped_does_not_go_on_with_its_next_trial(
    ask_and_tell: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def stopped(jobs: Sequence[Any], *_: Any) -> list[Any]:
        return [local.Result(job, "interrupted", "asked to stop", 1.0) for job in jobs]

    monkeypatch.setattr(local, "run_all", stopped)
    assert script(monkeypatch, "train", *ask_and_tell) == 1
    assert "stopped early: run the same command again to resume" in said(capsys)[0]
    assert not (tmp_path / "search" / "told.json").exists()


@pytest.mark.quick
def test_a_failure_in_one_batch_begins_no_other(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    begun: list[int] = []

    def failed(jobs: Sequence[Any], *_: Any) -> list[Any]:
        begun.extend(job.config.seed for job in jobs)
        return [local.Result(job, "failed", "OSError: full", 1.0) for job in jobs]

    monkeypatch.setattr(local, "run_all", failed)
    words = [*RUN, "-m", "seed=0,1,2", "hydra.sweeper.max_batch_size=1", f"results_dir={tmp_path}"]
    assert script(monkeypatch, "train", *words, "train.fail_fast=true") == 1
    assert begun == [0]
    assert "failed: OSError: full" in said(capsys)[0]
    assert script(monkeypatch, "train", *words) == 1
    assert begun == [0, 0, 1, 2]


def test_a_search_of_ten_trials_by_optuna(
    in_this_process: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    pytest.importorskip("hydra_plugins.hydra_optuna_sweeper", reason="hydra-optuna-sweeper is not installed")
    words = [
        "-m", "hydra/sweeper=optuna", "hydra.sweeper.n_trials=10", "hydra.sweeper.n_jobs=2", *RUN, "method.rank=1,2",
        "hydra.sweeper.direction=maximize", "hydra.sweeper.sampler.seed=1", f"results_dir={tmp_path}",
        f"hydra.sweep.dir={tmp_path / 'search'}", "train.lr=interval(1e-4,1e-2)",
    ]  # fmt: skip
    assert script(monkeypatch, "train", *words) == 0
    found, _ = records.find(tmp_path)
    assert len(found) == 10
    best = yaml.safe_load((tmp_path / "search" / "optimization_results.yaml").read_text())
    assert best["best_value"] == max(map(records.score, found))
