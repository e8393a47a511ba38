"""Reading GLUE: against the csv module and plain counting, on tricky files and on the real ones."""

from __future__ import annotations

import collections
import csv
import functools
import hashlib
import json
from pathlib import Path

import datasets
import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

import rosa.config
from rosa.config import DataConfig, TaskConfig
from rosa.data import TaskData, load
from rosa.data.sources import sample
from rosa.errors import DataError
from tests.composing import compose_config

PROJECT = Path(__file__).resolve().parents[2]
REAL = PROJECT / ".." / "shared" / "data" / "glue"
TASKS = ("cola", "sst2", "mrpc", "qqp", "stsb", "mnli", "qnli", "rte", "wnli")


def group(name: str) -> object:
    """One file of ``conf/``, composed by Hydra with its schema and turned into its dataclass."""
    rosa.config.register()
    with initialize_config_dir(str(PROJECT / "conf"), version_base=None):
        composed = compose(config_name=name)
    return OmegaConf.to_object(composed[name.split("/")[0]])


@functools.cache
def task_of(name: str) -> TaskConfig:
    task = group(f"task/{name}")
    assert isinstance(task, TaskConfig)
    return task


def write(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def local(root: Path, **settings: object) -> DataConfig:
    return DataConfig(source="local", dir=str(root), **settings)


def rows_of(split: datasets.Dataset) -> list[tuple]:
    columns = [name for name in ("text_a", "text_b", "label") if name in split.column_names]
    return list(zip(*(split[name][:] for name in columns), strict=True))


RTE_HEADER = "index\tsentence1\tsentence2\tlabel\n"
RTE_TRAIN = RTE_HEADER + "0\tone\ttwo\tentailment\n1\tthree\tfour\tnot_entailment\n"
RTE_DEV = RTE_HEADER + "0\tfive\tsix\tnot_entailment\n"


def rte(root: Path, train: str | bytes = RTE_TRAIN, dev: str | bytes = RTE_DEV) -> Path:
    write(root / "RTE" / "train.tsv", train)
    write(root / "RTE" / "dev.tsv", dev)
    return root


# --- configuration ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TASKS)
def test_task_files_agree_with_their_own_parts(name: str) -> None:
    task = task_of(name)
    assert task.name == name
    assert len(task.local.texts) == len(task.texts)
    assert set(task.evaluation) <= set(task.local.evaluation)
    assert (task.kind == "regression") == (name == "stsb")


def test_headlines_are_those_of_the_lora_table() -> None:
    other = {"cola": "matthews_correlation", "stsb": "pearson"}
    assert {name: task_of(name).headline for name in TASKS} == {name: other.get(name, "accuracy") for name in TASKS}


@pytest.mark.parametrize(
    ("task", "model", "path", "name"),
    [
        ("cola", "mini-roberta", "nyu-mll/glue", "cola"),
        ("e2e", "mini-gpt2", "tuetschek/e2e_nlg", "default"),
    ],
)
def test_hub_data_is_pinned_to_a_commit(task: str, model: str, path: str, name: str) -> None:
    data = compose_config(f"task={task}", f"model={model}", "data=hub").data
    assert (data.path, data.name or task) == (path, name)
    assert len(data.revision) == 40
    assert int(data.revision, 16) > 0


# --- reading ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_tricky_texts_read_as_the_csv_module_reads_them(tmp_path: Path, line_end: str, mark: str) -> None:
    texts = [
        ('"an opening quote', 'she said "no'),
        ("a line\u2028separator", "next\u0085line"),
        ("form\x0cfeed, vertical\x0btab", "file\x1cseparator \u2029"),
        (" spaces kept ", "\\t is no tab"),
        ("", "one empty text of two"),
        ("it's 'quoted'", '""'),
    ]
    lines = ["Quality\t#1 ID\t#2 ID\t#1 String\t#2 String"]
    lines += [f"{number % 2}\t{number}\t{number}\t{a}\t{b}" for number, (a, b) in enumerate(texts)]
    content = mark + line_end.join(lines) + line_end
    path = write(tmp_path / "MRPC" / "train.tsv", content)
    write(tmp_path / "MRPC" / "dev.tsv", line_end.join(lines[:2]))  # no end of line after the last row

    data = load(task_of("mrpc"), local(tmp_path), seed=0)

    with path.open(encoding="utf-8-sig", newline="") as file:
        lines_only_at_newline = (line.removesuffix("\n").removesuffix("\r") for line in file.read().split("\n") if line)
        reader = csv.DictReader(lines_only_at_newline, delimiter="\t", quoting=csv.QUOTE_NONE)
        expected = [(row["#1 String"], row["#2 String"], int(row["Quality"])) for row in reader]
    assert rows_of(data.train) == expected
    assert [row[:2] for row in expected] == texts
    assert rows_of(data.evaluation["validation"]) == expected[:1]


def test_cola_has_no_header(tmp_path: Path) -> None:
    write(tmp_path / "CoLA" / "train.tsv", "gj04\t1\t\tFine.\ngj04\t0\t*\tNot fine it.\n")
    write(tmp_path / "CoLA" / "dev.tsv", "gj04\t0\t*\tNot.\n")
    data = load(task_of("cola"), local(tmp_path), seed=0)
    assert rows_of(data.train) == [("Fine.", 1), ("Not fine it.", 0)]
    assert data.train.column_names == ["text_a", "label"]
    assert data.facts["splits"]["train"]["label_counts"] == {"unacceptable": 1, "acceptable": 1}


def test_labels_are_read_by_name_and_by_number(tmp_path: Path) -> None:
    train = RTE_HEADER + "0\ta\tb\tnot_entailment\n1\tc\td\t1\n2\te\tf\tentailment\n3\tg\th\t0\n"
    data = load(task_of("rte"), local(rte(tmp_path, train)), seed=0)
    assert data.train["label"][:] == [1, 1, 0, 0]


def test_mnli_has_two_evaluation_splits_in_order(tmp_path: Path) -> None:
    header = "index\tpromptID\tsentence1\tsentence2\tlabel1\tgold_label\n"
    for file, texts, label in (
        ("train", "a\tb", "contradiction"),
        ("dev_matched", "c\td", "neutral"),
        ("dev_mismatched", "e\tf", "entailment"),
    ):
        write(tmp_path / "MNLI" / f"{file}.tsv", f"{header}0\t1\t{texts}\tneutral\t{label}\n")
    data = load(task_of("mnli"), local(tmp_path), seed=0)
    assert list(data.evaluation) == ["validation_matched", "validation_mismatched"]
    assert rows_of(data.train) == [("a", "b", 2)]
    assert rows_of(data.evaluation["validation_matched"]) == [("c", "d", 1)]
    assert rows_of(data.evaluation["validation_mismatched"]) == [("e", "f", 0)]


def test_facts_can_be_written_and_checked(tmp_path: Path) -> None:
    root = rte(tmp_path)
    facts = load(task_of("rte"), local(root), seed=0).facts
    assert json.loads(json.dumps(facts)) == facts
    content = (root / "RTE" / "dev.tsv").read_bytes()
    assert facts["splits"]["validation"] == {
        "rows": 1,
        "sha256": hashlib.sha256(content).hexdigest(),
        "malformed": 0,
        "in_train": 0,
        "file": "RTE/dev.tsv",
        "label_counts": {"entailment": 0, "not_entailment": 1},
    }


# --- errors ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("2\tx\ty", "3 tab-separated fields, expected 4"),
        ("2\tx\ty\tentailment\tmore", "5 tab-separated fields, expected 4"),
        ("", "empty line"),
        ("2\tx\ty\tperhaps", "unknown label 'perhaps'; rte has entailment (0), not_entailment (1)"),
        ("2\tx\ty\t2", "unknown label '2'"),
        ("2\tx\ty\t-1", "without a published label"),
        ("2\tx\ty\t\u00b2", "unknown label"),
        ("2\t \t\tentailment", "both texts are empty"),
    ],
)
def test_a_malformed_row_is_named_or_left_out(tmp_path: Path, line: str, problem: str) -> None:
    root = rte(tmp_path, RTE_TRAIN + line + "\n3\tlast\trow\tentailment\n")
    with pytest.raises(DataError) as caught:
        load(task_of("rte"), local(root), seed=0)
    assert f"{root / 'RTE' / 'train.tsv'}:4: " in str(caught.value)
    assert problem in str(caught.value)
    assert "data.skip_malformed=true" in str(caught.value)

    data = load(task_of("rte"), local(root, skip_malformed=True), seed=0)
    assert data.train["text_a"][:] == ["one", "three", "last"]
    assert data.facts["splits"]["train"]["malformed"] == 1
    assert data.facts["splits"]["train"]["rows"] == 3
    assert data.facts["splits"]["validation"]["malformed"] == 0


@pytest.mark.parametrize("score", ["nan", "inf", "-0.01", "5.001", "high", ""])
def test_a_similarity_out_of_range_is_refused(tmp_path: Path, score: str) -> None:
    header = "index\tsentence1\tsentence2\tscore\n"
    write(tmp_path / "STS-B" / "dev.tsv", header + "0\ta\tb\t0\n1\tc\td\t5.000\n")
    path = write(tmp_path / "STS-B" / "train.tsv", header + f"0\ta\tb\t2.5\n1\tc\td\t{score}\n")
    with pytest.raises(DataError, match=r"label .* \[0, 5\]") as caught:
        load(task_of("stsb"), local(tmp_path), seed=0)
    assert f"{path}:3: " in str(caught.value)


def test_an_empty_single_text_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "SST-2" / "dev.tsv", "sentence\tlabel\ngood\t1\n")
    path = write(tmp_path / "SST-2" / "train.tsv", "sentence\tlabel\nfine\t1\n \t0\n")
    with pytest.raises(DataError, match="empty text") as caught:
        load(task_of("sst2"), local(tmp_path), seed=0)
    assert f"{path}:3: " in str(caught.value)


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_a_file_that_is_not_utf8_is_named_with_its_line(tmp_path: Path, mark: bytes) -> None:
    root = rte(tmp_path, mark + RTE_TRAIN.encode() + "2\tcafé\ty\tentailment\n".encode("latin-1"))
    with pytest.raises(DataError, match=r"not UTF-8: .*0xe9") as caught:
        load(task_of("rte"), local(root), seed=0)
    assert "train.tsv:4: " in str(caught.value)


def test_a_header_without_the_column_names_the_nearest(tmp_path: Path) -> None:
    root = rte(tmp_path, RTE_TRAIN.replace("sentence2", "sentence_2"))
    with pytest.raises(DataError, match=r"train.tsv:1: .*'sentence2'.*'index'.*did you mean sentence_2"):
        load(task_of("rte"), local(root), seed=0)


def test_a_column_named_twice_is_refused(tmp_path: Path) -> None:
    root = rte(tmp_path, RTE_TRAIN.replace("index", "label"))
    with pytest.raises(DataError, match=r"train.tsv:1: .*2 columns named 'label'"):
        load(task_of("rte"), local(root), seed=0)


@pytest.mark.parametrize("content", ["", RTE_HEADER, RTE_HEADER + "0\tx\n"])
def test_a_split_without_rows_is_refused(tmp_path: Path, content: str) -> None:
    root = rte(tmp_path, dev=content)
    with pytest.raises(DataError, match=r"dev\.tsv: no rows"):
        load(task_of("rte"), local(root, skip_malformed=True), seed=0)


def test_a_missing_file_is_named_beside_what_is_there(tmp_path: Path) -> None:
    root = rte(tmp_path)
    (root / "RTE" / "dev.tsv").rename(root / "RTE" / "valid.tsv")
    with pytest.raises(DataError, match=r"dev\.tsv: no such file; its folder contains train\.tsv, valid\.tsv"):
        load(task_of("rte"), local(root), seed=0)


def test_a_missing_folder_is_named_beside_what_is_there(tmp_path: Path) -> None:
    root = rte(tmp_path)
    with pytest.raises(DataError, match=r"expected the folder WNLI .* contains RTE"):
        load(task_of("wnli"), local(root), seed=0)
    with pytest.raises(DataError, match=r"set data\.dir to the folder that contains RTE"):
        load(task_of("rte"), local(root / "RTE"), seed=0)
    with pytest.raises(DataError, match=r"data\.dir=.*absent: no such folder"):
        load(task_of("rte"), local(root / "absent"), seed=0)


def test_a_copied_split_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="'train' and 'validation' have the same rows"):
        load(task_of("rte"), local(rte(tmp_path, dev=RTE_TRAIN)), seed=0)


# --- mini ------------------------------------------------------------------------------------------------------------


def test_mini_rows_are_asked_for_by_split_and_size(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def examples(task_name: str, split: str, size: int, seed: int) -> list[dict]:
        asked.append((task_name, split, size, seed))
        return [{"sentence1": split, "sentence2": str(row), "label": row % 2} for row in range(size)]

    monkeypatch.setattr("rosa.data.sources.mini_text.examples", examples)
    data = load(task_of("rte"), DataConfig(source="mini", train_size=6, evaluation_size=3, seed=5), seed=1)
    assert asked == [("rte", "train", 6, 5), ("rte", "validation", 3, 5)]
    assert rows_of(data.evaluation["validation"]) == [
        ("validation", "0", 0),
        ("validation", "1", 1),
        ("validation", "2", 0),
    ]


# --- limit -----------------------------------------------------------------------------------------------------------


def limited(root: Path, limit: int, seed: int) -> TaskData:
    return load(task_of("rte"), local(root, limit=limit), seed=seed)


def test_a_limit_draws_a_seeded_sample_without_replacement(tmp_path: Path) -> None:
    rows = "".join(f"{row}\tt{row}\tu\t{int(row >= 100)}\n" for row in range(200))
    root = rte(tmp_path, RTE_HEADER + rows)
    data = limited(root, 50, seed=3)
    drawn = data.train["text_a"][:]
    assert len(drawn) == len(set(drawn)) == 50
    assert drawn != [f"t{row}" for row in range(50)]
    assert drawn == limited(root, 50, seed=3).train["text_a"][:]
    assert drawn != limited(root, 50, seed=4).train["text_a"][:]
    assert len(data.evaluation["validation"]) == 1
    assert data.facts["limit"] == {"rows": 50, "of": 200, "seed": 3}
    assert data.facts["splits"]["train"]["rows"] == 50
    assert sum(data.facts["splits"]["train"]["label_counts"].values()) == 50
    assert limited(root, 200, seed=3).facts["limit"] is None
    assert len(limited(root, 1000, seed=3).train) == 200


def test_a_limit_keeps_every_class_and_is_otherwise_uniform() -> None:
    task = task_of("mnli")
    labels = [0] * 60 + [1] * 39 + [2]
    draws = [sample(labels, 10, seed, task) for seed in range(1000)]
    counts = collections.Counter(row for draw in draws for row in draw)
    for draw in draws:
        assert len(set(draw)) == 10
        assert {labels[row] for row in draw} == {0, 1, 2}
    assert counts[99] == 1000  # the only row of its class
    # The other nine places fall on 99 rows alike: 91 each, with a standard deviation of 9.
    assert all(45 < counts[row] < 137 for row in range(99))


def test_a_limit_of_a_regression_task_needs_no_classes() -> None:
    labels = [row / 10 for row in range(50)]
    assert len(sample(labels, 1, 0, task_of("stsb"))) == 1


def test_a_limit_below_the_number_of_classes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"data\.limit=1: expected at least 2, one row for each class of rte"):
        limited(rte(tmp_path), 1, seed=0)


# --- the real files --------------------------------------------------------------------------------------------------


@pytest.mark.real
@pytest.mark.skipif(not REAL.is_dir(), reason="the real GLUE files are not beside the project (../shared/data/glue)")
@pytest.mark.parametrize(
    ("name", "train", "dev", "share"),
    [
        # share: of the second label in the train set, as the papers of the data sets give it
        ("cola", 8551, 1043, 0.70),
        ("mrpc", 3668, 408, 0.67),
        ("rte", 2490, 277, 0.50),
        ("stsb", 5749, 1500, None),
        ("wnli", 635, 71, 0.49),
        ("sst2", 67349, 872, 0.56),
    ],
)
def test_the_real_files_are_read_in_full(name: str, train: int, dev: int, share: float | None) -> None:
    task = task_of(name)
    data = load(task, local(REAL), seed=0)
    assert (len(data.train), len(data.evaluation["validation"])) == (train, dev)
    facts = data.facts["splits"]["train"]
    if share is None:
        assert facts["label_range"] == [0.0, 5.0]
        assert 2 < facts["label_mean"] < 3
    else:
        assert facts["label_counts"][task.labels[1]] / train == pytest.approx(share, abs=0.01)
    with (REAL / task.local.folder / "dev.tsv").open(encoding="utf-8-sig", newline="\n") as file:
        columns = task.local.columns or None
        reader = csv.DictReader(file, fieldnames=columns, delimiter="\t", quoting=csv.QUOTE_NONE)
        expected = [tuple(row[column] for column in task.local.texts) for row in reader]
    assert [row[:-1] for row in rows_of(data.evaluation["validation"])] == expected
