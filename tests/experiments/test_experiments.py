"""Each file of experiments/ runs for two updates at the smallest sizes."""

from __future__ import annotations

import csv
import re
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from torch import nn
from transformers import BertConfig, BertForSequenceClassification, GPT2Config, GPT2LMHeadModel

from rosa.adapters import attach, attachment
from rosa.config import Config, TuningConfig, from_hydra, register
from rosa.mini.pretraining import gpt2
from rosa.run import run
from rosa.sweep.grid import cells, expand
from rosa.sweep.jobs import request
from rosa.utils.seeding import generator
from tests.conftest import ROOT
from tests.docs.pages import commands_of, filled

CONF = ROOT / "conf"
FILES = sorted(path.stem for path in (ROOT / "experiments").glob("*.yaml") if not path.stem.endswith("_base"))
"""Files of experiments; those on which others are based are left out."""
SMALLEST = [
    "data.train_size=32", "data.evaluation_size=16", "train.max_steps=2", "train.epochs=1", "train.batch_size=16",
    "train.accumulation=1", "train.warmup=1", "train.lr=1e-3", "train.device=cpu", "train.threads=1", "train.keep=none",
    "logger=none",
]  # fmt: skip

COMMENTS = {
    path.stem: re.sub(r"^# ?", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    for path in sorted((ROOT / "experiments").glob("*.yaml"))
}
"""The text of each file, its comments without their marks."""
COMMANDS = [(name, words) for name, text in COMMENTS.items() for words in commands_of("train", text)]
"""The training commands in the files' comments: the file, and the arguments."""
NAMED = [
    (name, words)
    for name, text in COMMENTS.items()
    for script in ("make_tables", "make_figures", "make_baselines", "make_samples", "plan")
    for words in commands_of(script, text)
]
"""Those of other scripts, which name an experiment."""


@pytest.fixture(autouse=True)
def registered() -> None:
    register()


@pytest.mark.parametrize("name", FILES)
def test_two_updates_of_the_first_run(
    name: str, tiny_model: Path, tiny_gpt2: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    overrides = [f"experiment={name}", *SMALLEST, f"results_dir={tmp_path}"]
    texts = name.startswith(("e2e", "evidence_e2e", "robust"))
    if name.startswith("regression_diabetes"):
        pass  # it is small already
    elif name.startswith("regression"):
        widths = "[8,6,4]" if "mlp" in name else "[8,4]"
        overrides += [f"model.perceptron.widths={widths}", "data.teacher.rank=2"]
    else:
        model = tiny_gpt2 if texts else tiny_model
        overrides += ["model=folder", "model.name=tiny", f"model.path={model}", "data=mini"]
    if texts:
        overrides += ["decoding.max_new_tokens=4", "data.evaluation_size=4", "model.mini.text=", "model.mini.glue="]
        if name in ("e2e_workshop", "robust_paper"):
            overrides.append("method.rank=2")
        monkeypatch.setenv("PATH", "")  # METEOR takes ten seconds of Java
    job, _ = next(expand(CONF, request(overrides)))
    record = run(job.config, job.command, progress=False).record
    assert record["status"] == "done"
    assert record["costs"]["steps"] == 2
    assert record["identity"]["experiment"] == job.config.experiment_name


@pytest.mark.parametrize(("name", "words"), COMMANDS)
def test_the_commands_of_a_file_make_runs_of_it(name: str, words: list[str]) -> None:
    overrides = [word for word in filled(words) if word != "-m"]
    assert len(overrides) == len(words) - 1
    asked = request(overrides)
    assert asked.options == ()
    job, _ = next(expand(CONF, asked))
    (own,) = (word.removeprefix("experiment=") for word in overrides if word.startswith("experiment="))
    assert belongs(own, name)
    # A search for learning rates has the name under which the file looks for it.
    file = [word for word in overrides if not word.startswith(("experiment_name=", "train.lr="))]
    plain, _ = next(expand(CONF, request(file)))
    assert job.config.experiment_name in (plain.config.experiment_name, plain.config.train.tuning.experiment)


@pytest.mark.parametrize(("name", "words"), NAMED)
def test_the_other_commands_of_a_file_are_about_it(name: str, words: list[str]) -> None:
    names = {re.sub(r"^experiment=", "", word) for word in words if re.fullmatch(r"(experiment=)?[a-z]\w*", word)}
    assert names
    assert all(belongs(own, name) for own in names)
    assert all((ROOT / "experiments" / f"{own}.yaml").is_file() or f"{own}_base" == name for own in names)


def belongs(own: str, name: str) -> bool:
    """Whether an experiment is the one of a file, or derived from it."""
    family = name.removesuffix("_base")
    return own == family or own.startswith(f"{family}_")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("python scripts/train.py -m experiment=a \\\n    seed=0\n", [["-m", "experiment=a", "seed=0"]]),
        ("  python scripts/train.py -m a=b   # seed=0\n", [["-m", "a=b"]]),
        ("see python scripts/train.py -m a=b\n", []),
    ],
)
def test_a_command_ends_where_a_shell_ends_it(text: str, words: list[list[str]]) -> None:
    assert commands_of("train", text) == words


@pytest.mark.parametrize("name", COMMENTS)
def test_no_part_of_a_command_is_cut_off(name: str) -> None:
    """A line of overrides alone goes on with a command, which a shell runs without it if no backslash is before it."""
    lines = COMMENTS[name].splitlines()
    alone = re.compile(r" +(?:[\w.@/+~]+=\S+ ?)+\\?")
    assert [after for before, after in pairwise(lines) if alone.fullmatch(after) and not before.endswith("\\")] == []


def shaped(config: Config) -> nn.Module:
    """A model whose adapted layers have the sizes of the configuration's."""
    if config.model.name == "minilm":
        return BertForSequenceClassification(
            BertConfig(
                hidden_size=384, num_hidden_layers=1, num_attention_heads=12, intermediate_size=16, vocab_size=16
            )
        )
    return GPT2LMHeadModel(gpt2.architecture(config.model.mini, 300))


@pytest.mark.parametrize(
    ("model", "lora", "robust"),
    [
        *(("minilm", "lora", name) for name in ("robust_minilm", "robust_sparse_minilm")),
        *(("mini-gpt2", "lora", name) for name in ("robust_mini_gpt2", "robust_sparse_mini_gpt2")),
        *(("mini-gpt2-answers", "lora_r4", name) for name in ("robust_r2", "robust_sparse_wide")),
    ],
)
def test_robust_adapters_train_as_many_parameters_as_the_lora_that_they_are_compared_with(
    model: str, lora: str, robust: str
) -> None:
    task, trained = "cola" if model == "minilm" else "e2e", []
    for method in (lora, robust):
        job, _ = next(expand(CONF, request([f"model={model}", f"task={task}", f"method={method}"])))
        adapted = shaped(job.config)
        attach(adapted, job.config.method, generator=generator(0, "adapter"), verbose=False)
        found = attachment(adapted)
        assert found is not None
        trained.append(found.trainable_parameters - found.head_parameters)
    assert trained[0] == trained[1]


def test_the_workshops_runs_are_plain_gradient_descent() -> None:
    job, _ = next(expand(CONF, request(["experiment=e2e_workshop"])))
    assert (job.config.train.optimizer, job.config.train.warmup) == ("sgd", 500)
    assert (job.config.method.split, job.config.method.every) == ("symmetric", 1)


def grid_of(name: str) -> list[dict[str, str]]:
    """The keys and values of each run of an experiment, without composing them."""
    from hydra import compose, initialize_config_dir

    with initialize_config_dir(str(CONF), version_base="1.3"):
        composed = compose("config", overrides=[f"experiment={name}"], return_hydra_config=True)
    sweeper = composed.hydra.sweeper
    return [dict(word.split("=", 1) for word in cell) for cell in cells(sweeper.params, [], where=sweeper.where)]


def first_of(name: str) -> Config:
    return next(expand(CONF, request([f"experiment={name}"])))[0].config


def rates(runs: list[dict[str, str]], **wanted: str) -> set[float]:
    """Learning rates of the runs that have some values."""
    return {float(run["train.lr"]) for run in runs if run | wanted == run}


@pytest.mark.parametrize(
    ("name", "count", "seeds"), [("glue_paper_tune", 158, {"0"}), ("glue_authors", 573, {"42", "43", "44"})]
)
def test_the_papers_glue_has_the_authors_grid(name: str, count: int, seeds: set[str]) -> None:
    grid, first = grid_of(name), first_of(name)
    assert len(grid) == count
    assert {cell["seed"] for cell in grid} == seeds
    assert (first.model.name, first.train.epochs, first.train.batch_size) == ("roberta-base", 10, 16)
    assert {(cell["task"] == "cola", cell.get("train.batch_size")) for cell in grid} == {(True, "32"), (False, None)}
    for task in {cell["task"] for cell in grid}:
        more = {2e-2} if task == "cola" else set()
        for method in ("rosa", "rosa_r2", "lora", "lora_r2"):
            assert rates(grid, task=task, method=method) == {2e-5, 2e-4, 2e-3} | more
        assert rates(grid, task=task, method="ia3") == {2e-4, 2e-3, 2e-2}
        assert rates(grid, task=task, method="full") == {2e-5, 2e-4} | ({2e-6} if task == "cola" else set())
    every = {cell.get("method.every") for cell in grid if cell["method"].startswith("rosa")}
    assert every == ({"1", "2"} if name == "glue_authors" else {None})


@pytest.mark.parametrize(("name", "count", "seed"), [("e2e_paper_tune", 60, "0"), ("e2e_authors", 36, "42")])
def test_the_papers_e2e_has_the_authors_grid(name: str, count: int, seed: str) -> None:
    grid, train = grid_of(name), first_of(name).train
    assert len(grid) == count
    assert {cell["seed"] for cell in grid} == {seed}
    found = (train.epochs, train.batch_size, train.weight_decay, train.warmup, train.max_length)
    assert found == (5, 10, 0.01, 500, 512)
    for model in ("gpt2", "gpt2-medium", "gpt2-large") if name == "e2e_paper_tune" else ("gpt2-medium",):
        own = [cell for cell in grid if cell.get("model", "gpt2-medium") == model]
        for method in ("rosa", "lora"):
            ranks = {cell.get("method.rank") for cell in own if cell["method"] == method}
            assert ranks == ({"1", "2", "4", "8"} if model == "gpt2-medium" else {None})  # the default, 8
            for rank in ranks:
                chosen = [cell for cell in own if cell.get("method.rank") == rank]
                assert rates(chosen, method=method) == {2e-4, 2e-3, 2e-2, 2e-1}
        assert rates(own, method="ia3") == {2e-4, 2e-3, 2e-2}
        assert rates(own, method="full") == {5e-5}


@pytest.mark.parametrize(("name", "count"), [("glue_paper", 162), ("e2e_paper", 54)])
def test_each_run_of_a_papers_table_finds_the_grid_that_tunes_it(name: str, count: int) -> None:
    """Each winner is searched among runs with its own settings, but for rate, seed and experiment."""
    tuned, grid = grid_of(name), grid_of(f"{name}_tune")
    assert len(tuned) == count
    assert {cell["seed"] for cell in tuned} == {"1", "2", "3"}
    without = [
        {tuple(sorted((cell | {"seed": "", "train.lr": ""}).items())) for cell in both} for both in (tuned, grid)
    ]
    assert without[0] == without[1]
    first, second = first_of(name), first_of(f"{name}_tune")
    tuning = first.train.tuning
    assert (first.train.lr, tuning.experiment, tuning.task, tuning.seed) == ("tuned", f"{name}_tune", "same", 0)
    assert (first.model, first.task, first.method, first.data) == (
        second.model,
        second.task,
        second.method,
        second.data,
    )
    assert replace(first.train, lr=1.0, tuning=TuningConfig()) == replace(second.train, lr=1.0, tuning=TuningConfig())


@pytest.mark.parametrize("method", ["rosa", "lora"])
def test_the_workshops_ranks_have_the_papers_numbers_of_parameters(method: str) -> None:
    """Counted on one of the twelve blocks, for GPT-2 small, and compared in millions with a decimal, as published."""
    with (ROOT / "results" / "paper" / "e2e_gpt2.csv").open(newline="", encoding="utf-8") as file:
        published = [
            f"{int(row['trainable_parameters']) / 1e6:.1f}"
            for row in csv.DictReader(file)
            if (row["model"], row["method"]) == ("gpt2", method) and "workshop" in row["source"]
        ]
    found = []
    for job, _ in expand(CONF, request(["experiment=e2e_workshop", "seed=0"])):
        one = job.config
        if one.method.name == method:
            # A subspace at random, as its factors have the same shapes and need no decomposition.
            own = replace(one.method, factorization="random_add", split="one_sided") if method == "rosa" else one.method
            model = GPT2LMHeadModel(GPT2Config(n_layer=1, vocab_size=8, n_positions=8))
            attached = attachment(attach(model, own, generator=generator(0, "adapter"), verbose=False))
            assert attached is not None
            found.append(f"{12 * (attached.trainable_parameters - attached.head_parameters) / 1e6:.1f}")
    assert found == published
    assert len(found) == 4


def test_rank_frequency_is_the_whole_grid() -> None:
    jobs = [job for job, _ in expand(CONF, request(["experiment=rank_frequency"]))]
    cells = {(job.config.method.rank, job.config.method.every, job.config.seed) for job in jobs}
    assert cells == {(rank, every, seed) for rank in (1, 2, 4, 8) for every in (0, 1, 2) for seed in (0, 1, 2)}
    assert len(jobs) == 36
    assert {job.config.task.name for job in jobs} == {"cola"}


def test_expanding_gives_the_runs_that_the_sweeper_gives() -> None:
    """The command's values override the file's, and each job's command composes the same run."""
    from hydra import compose, initialize_config_dir

    asked = request(["experiment=rank_frequency", "seed=5,6", "method.rank=2", "hydra/launcher=basic"])
    jobs = [job for job, _ in expand(CONF, asked)]
    assert [(job.config.method.every, job.config.seed) for job in jobs] == [(e, s) for e in (0, 1, 2) for s in (5, 6)]
    for job in jobs[:2]:
        words = job.command.split()
        assert words[:2] == ["python", "scripts/train.py"]
        with initialize_config_dir(str(CONF), version_base="1.3"):
            assert from_hydra(compose("config", overrides=words[2:])) == job.config
