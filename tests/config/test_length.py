"""Settings that count updates, in a training that ends before: refused or warned of, before anything slow."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

from rosa.config import RosaConfig, TrainConfig, check_length, methods, unreached
from rosa.config.length import most_rows
from rosa.errors import ConfigError
from rosa.run import build, mini_model, run
from tests.composing import compose_config
from tests.conftest import Composer

ROBUST = ("method=robust", "method.rank=2")
COLLECT, WARMUP = r"method\.collect_steps", r"method\.warmup_steps"
WARM = (*ROBUST, "method.schedule=warmup")
REFUSED = {
    "method.collect_steps": [
        ((*ROBUST, "method.collect_steps=4"), r"method\.collect_steps=4: expected fewer updates than the training's 4"),
        (
            (*ROBUST, "method.schedule=sparse_only", "method.collect_steps=9"),
            r"method\.collect_steps=9: expected fewer",
        ),
        (
            (*WARM, "method.warmup_steps=2", "method.collect_steps=2"),
            f"{WARMUP}=2 and {COLLECT}=2: expected together fewer updates than the training's 4",
        ),
    ],
    "method.warmup_steps": [
        ((*WARM, "method.warmup_steps=3"), r"method\.warmup_steps=3 and method\.collect_steps=1: expected together"),
        (
            (*WARM, "method.restart=true", "method.warmup_steps=64"),
            r"method\.warmup_steps=64 and method\.collect_steps=1",
        ),
    ],
    "train.warmup": [
        (("method=lora", "train.warmup=4"), r"train\.warmup=4: expected fewer updates than the training's 4"),
        (("method=full", "train.warmup=500"), r"train\.warmup=500: expected fewer updates than the training's 4"),
    ],
}
"""Setting -> overrides that a training of four updates is too short for, and the error."""
ELSEWHERE = {
    "method.rewarm_steps": "refused if the next resample cuts it off (below)",
    "method.every": "warned of: the run is that of every=0 (below)",
    "train.max_steps": "is an upper bound",
    "train.save_steps": "each epoch is saved anyway, so that no more is lost than asked for",
    "train.log_steps": "has no effect on the training",
}
"""Other settings that count updates, and what becomes of them."""
CASES = [case for cases in REFUSED.values() for case in cases]
GENERATED = ("cola", "mnli", "stsb", "e2e", "gsm8k", "viggo", "sql")
BOUNDS = {
    "max_steps": ("train.max_steps=4",),
    "rows": ("data.train_size=64", "train.epochs=1"),
    "limit": ("data=local", "data.dir=x", "data.limit=64", "train.epochs=1"),
}
"""What shows, without the data, that a training with batches of 16 has at most four updates."""


def test_every_setting_that_counts_updates_is_here() -> None:
    groups = {"train": TrainConfig} | {f"method {name}": method.config for name, method in methods().items()}
    counting = {
        f"{group.partition(' ')[0]}.{field.name}"
        for group, kind in groups.items()
        for field in dataclasses.fields(kind)
        if re.search(r"steps$|^every$|^warmup$", field.name)
    }
    assert counting == REFUSED.keys() | ELSEWHERE.keys()


@pytest.mark.parametrize("bound", BOUNDS)
@pytest.mark.parametrize(("overrides", "said"), CASES)
def test_what_the_configuration_shows_is_refused_with_it(
    overrides: tuple[str, ...], said: str, bound: str, composed: Composer
) -> None:
    with pytest.raises(ConfigError, match=f"^{said}"):
        composed(*overrides, *BOUNDS[bound])


@pytest.mark.parametrize("model", ["mini-roberta", "folder"])
@pytest.mark.parametrize(("overrides", "said"), CASES)
def test_what_the_rows_show_is_refused_before_a_model_is_made_or_loaded(
    overrides: tuple[str, ...],
    said: str,
    model: str,
    composed: Composer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    files = []
    for split in ("train", "validation"):
        file = tmp_path / f"{split}.csv"
        file.write_text("text,label\n" + "".join(f"{split} {row},{row % 2}\n" for row in range(64)))
        files.append(f"data.{split}={file}")
    own = ("task=text_classification", "data=files", *files, "train.epochs=1", f"model={model}", f"model.name={model}")
    config = composed(*overrides, *own, *([] if model == "folder" else ["model.path=''"]))
    monkeypatch.setattr(mini_model, "located", lambda _: pytest.fail("made a model"))
    monkeypatch.setattr(build, "gather", lambda *_: pytest.fail("loaded a model"))
    with pytest.raises(ConfigError, match=f"^{said}"):
        run(config, "command", progress=False)


@pytest.mark.parametrize("overrides", [(), ("train.epochs=1", "train.max_steps=4"), ("train.accumulation=2",)])
def test_the_last_lengths_that_are_long_enough_are_taken(overrides: tuple[str, ...], composed: Composer) -> None:
    """Of 18 updates, 4, and 9."""
    updates = composed(*overrides).train.updates(96)
    assert updates == {0: 18, 1: 9, 2: 4}[len(overrides)]
    long = (f"method.collect_steps={updates - 1}", f"train.warmup={updates - 1}")
    assert composed(*ROBUST, *long, *overrides).method.name == "robust"
    for setting in long:
        with pytest.raises(ConfigError, match=f"fewer updates than the training's {updates}"):
            composed(*ROBUST, setting.replace(str(updates - 1), str(updates)), *overrides)


def test_a_support_that_is_not_chosen_takes_no_updates(composed: Composer) -> None:
    composed(*ROBUST, "method.collect_steps=99", "method.support=file", "train.max_steps=4")
    composed(*ROBUST, "method.collect_steps=99", "method.schedule=low_rank_only", "train.max_steps=4")
    composed(*ROBUST, "method.warmup_steps=99", "train.max_steps=4")  # of schedule=warmup


def test_a_ramp_that_the_next_resample_cuts_off_is_refused(composed: Composer) -> None:
    """Of six updates an epoch."""
    composed("method=rosa", "method.every=1", "method.rewarm_steps=5")
    said = r"^method\.rewarm_steps=6: expected fewer updates than the 6 between two resamples"
    with pytest.raises(ConfigError, match=said):
        composed("method=rosa", "method.every=1", "method.rewarm_steps=6")
    train = TrainConfig(batch_size=16)
    check_length(train, RosaConfig(every=1, rewarm_steps=6), None)
    with pytest.raises(ConfigError, match=said):
        check_length(train, RosaConfig(every=1, rewarm_steps=6), 96)


@pytest.mark.parametrize(
    ("every", "unit", "first"),
    [(0, "epoch", 0), (2, "epoch", 0), (3, "epoch", 18), (17, "step", 0), (18, "step", 18), (99, "step", 99)],
)
def test_a_subspace_that_is_never_drawn_anew_is_warned_of(every: int, unit: str, first: int) -> None:
    """Of 18 updates in three epochs."""
    found = unreached(TrainConfig(epochs=3, batch_size=16), RosaConfig(every=every, unit=unit), 96)
    said = f"method.every={every} with method.unit={unit}: the training has 18 updates and the first resample would "
    assert [text.startswith(f"{said}come after {first}, ") for text in found] == [True] * bool(first)


def test_a_training_that_is_all_warm_up_is_warned_of() -> None:
    """A share of one update is that update."""
    (found,) = unreached(TrainConfig(max_steps=1), RosaConfig(every=0), 96)
    assert found.startswith("train.warmup=0.06: all of the training (1 updates) is warm-up")
    assert unreached(TrainConfig(max_steps=2), RosaConfig(every=0), 96) == []
    assert unreached(TrainConfig(max_steps=1, warmup=0), RosaConfig(every=0), 96) == []


@pytest.mark.parametrize("task", GENERATED)
def test_generated_data_have_no_more_rows_than_the_settings_allow(task: str) -> None:
    """Against the rows that are made: where a setting counts something else, only the data bound the updates."""
    model = "mini-roberta" if task in ("cola", "mnli", "stsb") else "mini-gpt2"
    config = compose_config(
        f"task={task}", f"model={model}", "data=mini", "data.train_size=6", "data.evaluation_size=2"
    )
    texts = build.read(config)
    assert texts is not None
    bound = most_rows(config.data, config.task)
    assert bound is None or len(texts.train) <= bound
    assert (bound is None) == (len(texts.train) > 6)
