"""Data sets that `datasets` saved: what is read, and errors that name the damaged file."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import datasets
import pytest

from rosa.data import load, sources, unlabelled
from rosa.errors import DataError
from tests.data.test_glue import local, rows_of, rte, task_of


def saved_rte(names: list[str] | None = None) -> datasets.DatasetDict:
    label = datasets.ClassLabel(names=names or ["entailment", "not_entailment"])
    features = datasets.Features(
        {"sentence1": datasets.Value("string"), "sentence2": datasets.Value("string"), "label": label}
    )
    columns = {"sentence1": ["one", "three"], "sentence2": ["two", "four"], "label": [0, 1]}
    dev = {"sentence1": ["five"], "sentence2": ["six"], "label": [1]}
    unlabelled = {**dev, "label": [-1]}
    return datasets.DatasetDict(
        {
            split: datasets.Dataset.from_dict(content, features=features)
            for split, content in {"train": columns, "validation": dev, "test": unlabelled}.items()
        }
    )


@pytest.mark.parametrize("folder", [".", "rte"])
def test_a_saved_data_set_equals_the_official_files(tmp_path: Path, folder: str) -> None:
    saved_rte().save_to_disk(tmp_path / "saved" / folder)
    saved = load(task_of("rte"), local(tmp_path / "saved"), seed=0)
    official = load(task_of("rte"), local(rte(tmp_path / "official")), seed=0)
    assert rows_of(saved.train) == rows_of(official.train)
    assert rows_of(saved.evaluation["validation"]) == rows_of(official.evaluation["validation"])
    assert saved.train.features == official.train.features
    lines = ['["one", "two", 0]', '["three", "four", 1]']
    expected = hashlib.sha256("".join(line + "\n" for line in lines).encode()).hexdigest()
    assert saved.facts["splits"]["train"]["sha256"] == expected


def test_splits_saved_one_by_one_are_the_data_set_of_their_folder(tmp_path: Path) -> None:
    for name, split in saved_rte().items():
        split.save_to_disk(tmp_path / "one by one" / name)
    saved_rte().save_to_disk(tmp_path / "together")
    found, expected = (load(task_of("rte"), local(tmp_path / one), 0) for one in ("one by one", "together"))
    assert rows_of(found.train) == rows_of(expected.train)
    assert found.facts == expected.facts
    hashes = [sources.hashes(task_of("rte"), local(tmp_path / one)) for one in ("one by one", "together")]
    assert hashes[0] == hashes[1]


@pytest.mark.parametrize("folder", [".", "rte"])
def test_a_single_saved_split_is_called_what_it_is(tmp_path: Path, folder: str) -> None:
    saved_rte()["train"].save_to_disk(tmp_path / "data" / folder)
    data = local(tmp_path / "data")
    expected = r"is one split, saved by Dataset\.save_to_disk; expected a folder with the splits train, validation"
    for call in (sources.check, sources.hashes, lambda *one: unlabelled.read_split(*one, "test")):
        with pytest.raises(DataError, match=expected):
            call(task_of("rte"), data)


def test_a_split_of_a_saved_set_points_to_the_whole(tmp_path: Path) -> None:
    saved_rte().save_to_disk(tmp_path / "rte")
    with pytest.raises(DataError, match=rf"is one split of a saved data set; expected {tmp_path}/rte, which holds all"):
        load(task_of("rte"), local(tmp_path / "rte" / "train"), seed=0)


def test_a_format_that_was_set_before_saving_changes_nothing(tmp_path: Path) -> None:
    saved_rte().with_format("numpy").save_to_disk(tmp_path / "rte")
    assert rows_of(load(task_of("rte"), local(tmp_path), seed=0).train) == [("one", "two", 0), ("three", "four", 1)]
    assert unlabelled.read_split(task_of("rte"), local(tmp_path), "test") == [["five"], ["six"]]


def arrow_file(folder: Path) -> Path:
    (file,) = (folder / "train").glob("*.arrow")
    return file


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:200])


def replaced(file: Path, **values: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


DAMAGE = {
    "marked with a list": (lambda to: (to / "dataset_dict.json").write_text("[]"),
                           r"rte/dataset_dict\.json: expected a JSON object, found \[\]"),
    "marked with a number": (lambda to: replaced(to / "dataset_dict.json", splits=3),
                             r"rte/dataset_dict\.json: splits is 3, expected a list of names"),
    "empty mark": (lambda to: (to / "dataset_dict.json").write_text(""),
                   r"rte/dataset_dict\.json: not JSON at character 1: expecting value"),
    "no split": (lambda to: (to / "validation").rename(to / "moved"), r"rte/validation/state\.json: missing"),
    "no info": (lambda to: (to / "train/dataset_info.json").unlink(), r"train/dataset_info\.json: missing"),
    "cut state": (lambda to: (to / "train/state.json").write_text('{"_data_files": ['),
                  r"train/state\.json: not JSON at character 18: expecting value"),
    "NUL": (lambda to: (to / "train/state.json").write_bytes(bytes(300)), r"train/state\.json:1: a NUL character"),
    "deep": (lambda to: (to / "train/state.json").write_text("[" * 100_000), "brackets are nested too deep"),
    "state without a key": (lambda to: (to / "train/state.json").write_text("{}"),
                            r"train/state\.json: _data_files is None"),
    "state of a wrong type": (lambda to: replaced(to / "train/state.json", _format_kwargs=3),
                              r"train/state\.json: _format_kwargs is 3"),
    "files without names": (lambda to: replaced(to / "train/state.json", _data_files=[{}]),
                            r"train/state\.json: _data_files has {}, expected the name of a file"),
    "a file's name that is too long": (
        lambda to: replaced(to / "train/state.json", _data_files=[{"filename": "a" * 100_000}]),
        r"train/state\.json: _data_files has {'filename': 'a{10,30}\.\.\.a+'}, expected the name of a file",
    ),
    "a split's name that is too long": (
        lambda to: replaced(to / "dataset_dict.json", splits=["train", "\u00e9" * 128]),
        r"dataset_dict\.json: splits is \['train', '\u00e9+\.\.\.\u00e9+'\], expected a list of names",
    ),
    "half a character": (lambda to: replaced(to / "dataset_dict.json", splits=["\ud800"]),
                         r"dataset_dict\.json: splits is \['\\ud800'\], expected a list of names"),
    "a path for a name": (lambda to: replaced(to / "dataset_dict.json", splits=["train/../train"]),
                          r"dataset_dict\.json: splits is \['train/\.\./train'\], expected a list of names"),
    "columns of a wrong type": (lambda to: replaced(to / "train/dataset_info.json", features=3),
                                r"train/dataset_info\.json: does not describe a data set"),
    "other columns": (lambda to: replaced(to / "train/dataset_info.json", features={}),
                      r"rte/train: its files, state\.json, dataset_info\.json and the data, do not fit each other"),
    "cut rows": (lambda to: cut(arrow_file(to)), r"train/data-.*\.arrow: not a whole Arrow file"),
    "no rows": (lambda to: arrow_file(to).unlink(), r"train/data-.*\.arrow: missing"),
    "bytes that are no text": (
        lambda to: arrow_file(to).write_bytes(arrow_file(to).read_bytes().replace(b"three", b"\xff" * 5)),
        r"train/data-.*\.arrow: not a whole Arrow file",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("damage", "message"), DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_file_is_named(tmp_path: Path, damage: Any, message: str) -> None:
    saved_rte().save_to_disk(tmp_path / "rte")
    damage(tmp_path / "rte")
    with pytest.raises(DataError, match=message) as caught:
        load(task_of("rte"), local(tmp_path), seed=0)
    assert ("save it again" in str(caught.value)) == ("NUL" not in str(caught.value))
    assert "Error" not in str(caught.value)


def test_a_folders_name_that_is_too_long_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"data\.dir='.*\.\.\.a+': File name too long"):
        load(task_of("rte"), local(tmp_path / ("a" * 300)), seed=0)


def test_columns_that_cannot_be_converted_are_named(tmp_path: Path) -> None:
    """An image is decoded while its column is read."""
    found = saved_rte()
    features = datasets.Features(found["train"].features | {"sentence1": datasets.Image()})
    columns = {"sentence1": [{"bytes": b"none", "path": None}], "sentence2": ["a"], "label": [0]}
    found["train"] = datasets.Dataset.from_dict(columns, features=features)
    found.save_to_disk(tmp_path / "rte")
    with pytest.raises(DataError, match=r"split train: the columns sentence1, sentence2, label cannot be read"):
        load(task_of("rte"), local(tmp_path), seed=0)


def test_saved_labels_in_another_order_are_refused(tmp_path: Path) -> None:
    saved_rte(["not_entailment", "entailment"]).save_to_disk(tmp_path)
    with pytest.raises(DataError, match=r"split train: its labels are .*, in this order"):
        load(task_of("rte"), local(tmp_path), seed=0)


def test_saved_data_without_a_split_or_column_is_refused(tmp_path: Path) -> None:
    found = saved_rte()
    found.remove_columns("sentence2").save_to_disk(tmp_path / "a")
    with pytest.raises(DataError, match="split train: no column 'sentence2'; it has sentence1, label"):
        load(task_of("rte"), local(tmp_path / "a"), seed=0)
    del found["validation"]
    found.save_to_disk(tmp_path / "b")
    with pytest.raises(DataError, match="no split 'validation'; it has train, test"):
        load(task_of("rte"), local(tmp_path / "b"), seed=0)


def test_a_long_name_of_a_column_is_cut(tmp_path: Path) -> None:
    found = saved_rte().rename_column("sentence2", "a" * 100_000)
    found.save_to_disk(tmp_path / "rte")
    with pytest.raises(DataError, match=r"no column 'sentence2'; it has sentence1, a{60}\.\.\., label$"):
        load(task_of("rte"), local(tmp_path), seed=0)


def test_saved_rows_without_a_label_are_named(tmp_path: Path) -> None:
    found = saved_rte()
    found["validation"] = found["test"]
    found.save_to_disk(tmp_path)
    with pytest.raises(DataError, match=r"split validation, row 0: unknown label -1.*without a published label"):
        load(task_of("rte"), local(tmp_path), seed=0)


@pytest.mark.parametrize("task", ["rte", "stsb"])
def test_a_saved_set_in_the_folder_itself_must_say_whose_it_is(tmp_path: Path, task: str) -> None:
    """RTE, WNLI and STS-B have the same columns as MRPC."""
    columns = {"sentence1": ["a", "b"], "sentence2": ["c", "d"], "label": [0, 1]}
    splits = {
        name: datasets.Dataset.from_dict(columns | {"sentence1": [name, "b"]}) for name in ("train", "validation")
    }
    saved = datasets.DatasetDict(splits)
    saved.save_to_disk(tmp_path)
    with pytest.raises(DataError, match=rf"nothing says that this is {task}: its labels are .*move it to the folder"):
        load(task_of(task), local(tmp_path), seed=0)
    saved.save_to_disk(tmp_path / "all" / task)
    assert len(load(task_of(task), local(tmp_path / "all"), seed=0).train) == 2


@pytest.mark.slow
def test_a_saved_set_damaged_in_any_place_is_an_error_that_names_it(tmp_path: Path) -> None:
    """Damage each JSON file: replace the whole, or the value of each key, by values of each type."""
    saved_rte().save_to_disk(tmp_path / "rte")
    tried = 0
    for file in sorted((tmp_path / "rte").rglob("*.json")):
        whole = file.read_text()
        content = json.loads(whole)
        for wrong in (None, 3, "x", [], {}, "a" * 1000, ["a" * 1000], [{"filename": "a" * 1000}]):
            for key in (None, *content):
                file.write_text(json.dumps(wrong if key is None else content | {key: wrong}))
                tried += 1
                try:
                    load(task_of("rte"), local(tmp_path), seed=0)
                except DataError as error:
                    assert str(tmp_path) in str(error)
                    assert len(str(error)) < 400
                    assert not re.search(r"[a-z](Error|Exception)\b", str(error)), str(error)
        file.write_text(whole)
    assert tried > 50
