"""Every configuration file composes, and every bad value is refused before anything loads."""

from __future__ import annotations

import copy
import dataclasses
import functools
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf, flag_override
from omegaconf.errors import ConfigKeyError

from rosa.config import (
    DataConfig,
    DecodingConfig,
    LoggerConfig,
    ModelConfig,
    RosaConfig,
    TaskConfig,
    TrainConfig,
    from_hydra,
    identity_hash,
    methods,
    register,
)
from rosa.errors import ConfigError
from rosa.sweep.grid import cells
from tests.commands import command
from tests.composing import compose_config
from tests.conftest import ROOT, Composer
from tests.tiers import slow_but

CONF = ROOT / "conf"
NEEDS = {
    ("model", "folder"): ["model.path=x", "model.name=x"],
    ("model", "hub"): ["model.path=x", "model.name=x"],
    ("experiment", "regression_base"): ["model=linear"],
    ("model", "linear"): ["task=regression", "data=teacher"],
    ("model", "mlp"): ["task=regression", "data=teacher"],
    ("data", "teacher"): ["model=linear", "task=regression"],
    ("data", "diabetes"): ["model=linear", "task=regression", "model.perceptron.widths=[11,1]"],
    ("model", "mini-gpt2"): ["task=e2e"],
    ("model", "mini-gpt2-answers"): ["task=gsm8k"],
    ("decoding", "lora"): ["task=e2e", "model=mini-gpt2"],
    ("decoding", "greedy"): ["task=e2e", "model=mini-gpt2"],
    ("data", "local"): ["data.dir=x"],
    ("data", "files"): ["data.train=a.csv", "data.validation=b.csv"],
}
"""Further overrides that a choice needs; for tasks see :func:`needs_of_task`."""
CHOICES = [
    (group.name, path.stem)
    for group in sorted(CONF.iterdir())
    if group.is_dir()
    for path in sorted(group.glob("*.yaml"))
]


def named(group: str) -> list[str]:
    return [name for other, name in CHOICES if other == group]


@pytest.fixture(autouse=True, scope="module")
def registered() -> None:
    register()


@functools.cache
def experiment(name: str) -> DictConfig:
    """An experiment as its file composes, with Hydra's own part."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        needs = NEEDS.get(("experiment", name), [])
        return compose("config", overrides=[f"experiment={name}", *needs, "data.dir=x"], return_hydra_config=True)


def needs_of_task(name: str) -> list[str]:
    """The overrides that a task's kind needs."""
    file = OmegaConf.load(CONF / "task" / f"{name}.yaml")
    assert isinstance(file, DictConfig)
    del file["defaults"]
    task = OmegaConf.merge(OmegaConf.structured(TaskConfig), file)
    if task.kind == "vector_regression":
        return ["model=linear", "data=teacher"]
    model = ["model=mini-gpt2"] if task.kind == "generation" else []
    files = [f"data.{split}={split}.csv" for split in ("train", *task.evaluation, task.test) if split]
    whole = {"classification": "labels", "regression": "label_range", "generation": "name"}[task.kind]
    return model if task.get(whole) else [*model, "data=files", *files]


FEW = [choice for choice in CHOICES if choice[0] in ("data", "decoding", "logger", "train")] + [
    ("method", "robust_all_r4_of_16"),
    ("model", "folder"),
    ("task", "text_to_text"),
]
"""Choices that are composed whenever the quick tests run. Composing takes Hydra a while; merging does not."""
TYPES = {
    "model": ModelConfig, "task": TaskConfig, "train": TrainConfig, "data": DataConfig, "logger": LoggerConfig,
    "decoding": DecodingConfig,
}  # fmt: skip


def merged(group: str, name: str) -> DictConfig:
    """A file of a group, and those on which it is based, merged onto their dataclass."""
    file = OmegaConf.load(CONF / group / f"{name}.yaml")
    assert isinstance(file, DictConfig)
    base = file.pop("defaults")[0]
    if base == "schema" or base.endswith("_schema"):
        kind = methods()[base.removesuffix("_schema")].config if group == "method" else TYPES[group]
        return OmegaConf.merge(OmegaConf.structured(kind), file)
    return OmegaConf.merge(merged(group, base), file)


def test_every_file_of_a_group_has_keys_and_types_of_its_dataclass() -> None:
    for group, name in CHOICES:
        if group != "experiment":
            merged(group, name)
    with pytest.raises(ConfigKeyError):
        OmegaConf.merge(merged("method", "rosa_r2"), {"rnk": 2})


@pytest.mark.parametrize(("group", "name"), slow_but(FEW, [choice for choice in CHOICES if choice[0] != "experiment"]))
def test_every_choice_of_every_group_composes(group: str, name: str) -> None:
    overrides = [f"{group}={name}", *NEEDS.get((group, name), [])]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        overrides += needs_of_task(name) if group == "task" else []
        config = from_hydra(compose("config", overrides=overrides))
    assert config.method.name in methods()


@pytest.mark.parametrize("name", slow_but(["glue_mini", "e2e_mini_tune", "rank_frequency"], named("experiment")))
def test_every_experiment_composes_and_is_named_as_its_file(name: str) -> None:
    """A file that adds runs to another experiment has that experiment's name as the beginning of its own."""
    composed = copy.copy(experiment(name))
    with flag_override(composed, ["struct", "readonly"], False):
        del composed["hydra"]
    config = from_hydra(composed)
    assert config.method.name in methods()
    if not name.endswith("_base"):
        # A part of another experiment, with other settings, goes into the same table.
        assert config.experiment_name in (name, name.rpartition("_")[0])


@pytest.mark.slow
def test_every_sweep_of_every_experiment_composes() -> None:
    """Compose a cell with each value of each swept key; each condition on cells holds for one."""
    for path in sorted((ROOT / "experiments").glob("*.yaml")):
        sweeper = experiment(path.stem).hydra.sweeper
        seen: set[str] = set()
        for cell in cells(sweeper.params or {}, [], where=sweeper.where):
            if not seen.issuperset(cell):
                compose_config(f"experiment={path.stem}", "data.dir=x", *cell)
                seen.update(cell)


def test_each_condition_of_an_experiment_holds_for_a_run() -> None:
    """A misspelt one would hold for none, and say nothing."""
    found = 0
    for path in sorted((ROOT / "experiments").glob("*.yaml")):
        if path.stem.endswith("_base") or "where:" not in path.read_text(encoding="utf-8"):
            continue
        sweeper = experiment(path.stem).hydra.sweeper
        for condition, others in sweeper.where.items():
            found += 1
            left = {text: given for text, given in sweeper.where.items() if text != condition}
            assert cells(sweeper.params, [], where=sweeper.where) != cells(sweeper.params, [], where=left), condition
            assert others
    assert found >= 10


def test_defaults_are_the_protocol() -> None:
    """The reference grid of the protocol, as the design states it."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        train = from_hydra(compose("config", overrides=["model=minilm"])).train
    expected = {
        "beta1": 0.9, "beta2": 0.98, "epsilon": 1e-6, "weight_decay": 0.1, "schedule": "linear", "warmup": 0.06,
        "batch_size": 32, "epochs": 10, "max_length": 512,
    }  # fmt: skip
    assert {key: getattr(train, key) for key in expected} == expected


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["method.rnk=3"], "method.rnk: no such key; did you mean method.rank?"),
        (["trian.lr=1"], "trian.lr: no such key; did you mean train.lr?"),
        (["method=lora", "method.evry=2"], "method.evry: no such key"),
        (["method=lora", "method.every=2"], "method.every: no such key; every belongs to method=rosa"),
        (["method=full", "method.rank=2"], "method.rank: no such key; rank belongs to method=lora, method="),
        (["train.lr=tuned"], "the name of the tuning experiment, such as glue_mini_tune (experiments/"),
        (["+extra=1"], "extra: no such key"),
        (["+method.extra=1"], "method.extra: no such key"),
        (["task=colla"], f"task=colla: no such task; did you mean cola? Available: {', '.join(named('task'))}"),
        (["experiment=glue_mimi"], "did you mean glue_mini? Available: ablation_frequency, ablation_initialisation, "),
        (["model=bert-base-uncased"], "; another model: model=hub model.path=OWNER/NAME or model=folder"),
        (["task.texts=[[a]]"], "task.texts=[['a']]: expected a list of texts, such as [A,B]"),
        (["task.labels=[[a],[b]]"], "task.labels=[['a'], ['b']]: expected a list of texts"),
        (["task.texts=a"], "error: task.texts=a: expected a list, such as [A,B]\n"),
        (["train.compile=maybe"], "error: train.compile=maybe: expected true or false\n"),
        (["train.epochs=abc"], "error: train.epochs=abc: expected a whole number\n"),
        (
            ["model=hub", "model.name=x", "model.path=/x"],
            "model.path='/x': expected a name on the hub, OWNER/NAME; for",
        ),
        (
            ["train.warmup=1.5"],
            "train.warmup=1.5: expected a share of all updates in [0, 1), or a whole number of updates",
        ),
        (["train.optimizer=adam"], "train.optimizer='adam': expected one of adamw, sgd"),
        (["train.epochs=0"], "train.epochs=0: expected a whole number above 0"),
        (["train.lr=fast"], "train.lr='fast': expected a number above 0, or 'tuned'"),
        (["train.lr=nan"], "train.lr=nan"),
        (["method.rank=0"], "method.rank=0: expected a whole number of at least 1"),
        (["method.rank=-3"], "method.rank=-3"),
        (["method.rank=1.5"], "method.rank=1.5"),
        (["method.rank=true"], "method.rank=True"),
        (["method.every=-1"], "method.every=-1: expected a whole number of at least 0"),
        (["method.sampling=middle"], "one of random, top, bottom, window"),
        (["method.unit=minute"], "one of epoch, step"),
        (["method.targets=[]"], "method.targets=[]: expected a list of at least one pattern"),
        (["seed=-1"], "seed=-1"),
        (["data=local"], "data=local data.dir=DIR"),
        (["train.precision=fp16", "train.device=cpu"], "fp16 needs a GPU"),
        (
            ["task=regression"],
            "vector regression needs task=regression, data=teacher or data=diabetes, and model=linear",
        ),
        (
            ["data=local", "data.dir=/a=b"],
            """data.dir=/a=b: quote the value, and the quotes from the shell: 'data.dir="/a=b"'""",
        ),
        (["data=local", "data.dir=/a(b)"], """'data.dir="/a(b)"'"""),
        (["data=local", "data.dir=/\u00e9t\u00e9"], """'data.dir="/\u00e9t\u00e9"'"""),
        (
            ["data=local", "data.dir=/a,b"],
            """for one, quote the value, and the quotes from the shell: 'data.dir="/a,b"'""",
        ),
        (["~logger"], "~logger: logger cannot be left out: expected a value, logger=...; logger=none switches W&B off"),
        (["~method.rank"], "~method.rank: method.rank cannot be left out"),
        (["model.name=???"], "model.name: has no value; expected model.name=..."),
        (['method.rank_pattern={"*.query": 0}'], "method.rank_pattern.*.query=0: expected a whole number"),
        (["data=teacher"], "task=cola with data.source=teacher and model.source=package"),
    ],
)
def test_bad_input_is_refused_in_a_line_before_anything_loads(arguments: list[str], message: str) -> None:
    done = command("scripts/train.py", "model=minilm", *arguments, light=True)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    assert not done.torch


def test_api_and_yaml_refuse_alike() -> None:
    with pytest.raises(ConfigError, match=r"method\.rank=0"):
        RosaConfig(rank=0)
    with pytest.raises(TypeError, match="rnk"):
        RosaConfig(rnk=3)  # type: ignore[call-arg]
    with pytest.raises(ConfigError, match="expected 'rosa'"):
        RosaConfig(name="lora")


def test_identity_survives_an_option_added_later(composed: Composer, monkeypatch: pytest.MonkeyPatch) -> None:
    config = composed("method.rank=4")
    before = identity_hash(config)

    @dataclasses.dataclass
    class Later(RosaConfig):
        added_later: int = 0

    fields = {f.name: getattr(config.method, f.name) for f in dataclasses.fields(config.method)}
    assert identity_hash(dataclasses.replace(config, method=Later(**fields))) == before
    assert identity_hash(dataclasses.replace(config, method=Later(**fields, added_later=1))) != before


def test_link_to_the_experiments_is_relative() -> None:
    link = CONF / "experiment"
    assert link.is_symlink()
    assert link.readlink() == Path("../experiments")
