"""A user's own files: reading, found labels, and refusals that name file, line and column."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from pyarrow import parquet

from rosa.config import Config, DataConfig
from rosa.data import e2e, load, sources, unlabelled
from rosa.errors import ConfigError, DataError
from tests.composing import compose_config

Rows = list[dict[str, Any]]

TRAIN: Rows = [
    {"id": 1, "text": 'a "quoted", and\nbroken one', "label": "pos"},
    {"id": 2, "text": "NA", "label": "neg"},
    {"id": 3, "text": "01", "label": "pos"},
    {"id": 4, "text": "caf\u00e9 \u2028 null", "label": "neg"},
]
VALIDATION: Rows = [{"id": 5, "text": "one", "label": "neg"}, {"id": 6, "text": "two", "label": "pos"}]


def as_csv(path: Path, rows: Rows, delimiter: str = ",") -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), delimiter=delimiter)
        writer.writeheader()
        writer.writerows(rows)


def as_json(path: Path, rows: Rows) -> None:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def as_parquet(path: Path, rows: Rows) -> None:
    parquet.write_table(pyarrow.Table.from_pylist(rows), path)


def composed(*overrides: str) -> Config:
    return compose_config("model=minilm", "data=files", *overrides)


def settings(folder: Path, ending: str = "csv", *overrides: str, kind: str = "text_classification") -> Config:
    files = [f"data.{split}={folder / split}.{ending}" for split in ("train", "validation")]
    model = ["model=gpt2", "task.test=''"] if kind == "text_to_text" else []
    return composed(f"task={kind}", *files, *model, *overrides)


def read(config: Config) -> Any:
    return load(config.task, config.data, config.seed)


def write(folder: Path, train: str | bytes, validation: str | bytes = "text,label\na,pos\nb,neg\n") -> None:
    for name, content in (("train", train), ("validation", validation)):
        (folder / f"{name}.csv").write_bytes(content.encode() if isinstance(content, str) else content)


# --- what is read ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ending", "writer"),
    [("csv", as_csv), ("json", as_json), ("jsonl", as_json), ("parquet", as_parquet)],
)
def test_rows_come_back_as_they_were_written(tmp_path: Path, ending: str, writer: Callable[..., None]) -> None:
    for split, rows in (("train", TRAIN), ("validation", VALIDATION)):
        writer(tmp_path / f"{split}.{ending}", rows)
    data = read(settings(tmp_path, ending))
    for rows, split in ((TRAIN, data.train), (VALIDATION, data.evaluation["validation"])):
        assert split["text_a"][:] == [row["text"] for row in rows]
        assert split["label"][:] == [["neg", "pos"].index(row["label"]) for row in rows]
    assert data.facts["source"] == "files"
    assert data.facts["labels"] == ["neg", "pos"]
    assert data.facts["splits"]["train"]["file"] == f"train.{ending}"
    assert data.facts["splits"]["train"]["label_counts"] == {"neg": 2, "pos": 2}


def test_a_quote_in_tsv_is_a_character(tmp_path: Path) -> None:
    (tmp_path / "train.tsv").write_text('text\tlabel\n"open\tpos\nit\'s 5" long\tneg\n')
    (tmp_path / "validation.tsv").write_text("text\tlabel\na, b\tpos\n")
    data = read(settings(tmp_path, "tsv"))
    assert data.train["text_a"][:] == ['"open', "it's 5\" long"]
    assert data.evaluation["validation"]["text_a"][:] == ["a, b"]


def test_a_field_that_never_ends_is_named_by_its_line(tmp_path: Path) -> None:
    write(tmp_path, 'text,label\na,pos\n"open,neg\n' + 200_000 * "b")
    with pytest.raises(DataError, match=r"train\.csv:3: a field has more than 131,072 characters.*never closed"):
        read(settings(tmp_path, "csv"))


def test_pairs_and_named_columns(tmp_path: Path) -> None:
    write(tmp_path, "q,topic,a\nwhy,x,so\nwho,y,me\n", "a,q,topic\nno,where,x\n")
    data = read(settings(tmp_path, "csv", "task.texts=[q,a]", "task.label=topic"))
    assert data.train[0] == {"text_a": "why", "text_b": "so", "label": 0}
    assert data.evaluation["validation"][0] == {"text_a": "where", "text_b": "no", "label": 0}


def test_a_further_split_is_scored_and_not_selected_by(tmp_path: Path) -> None:
    write(tmp_path, "text,label\na,x\nb,y\n", "text,label\nc,x\n")
    (tmp_path / "test.csv").write_text("text,label\nd,y\n", encoding="utf-8")
    config = settings(tmp_path, "csv", f"data.test={tmp_path / 'test.csv'}", "task.evaluation=[validation,test]")
    assert list(read(config).evaluation) == ["validation", "test"]
    assert config.evaluated[0] == "validation"


@pytest.mark.parametrize(
    ("labels", "found"),
    [
        (["b", "a", "C"], ["C", "a", "b"]),
        (["10", "9", "2"], ["2", "9", "10"]),
        ([10, 9, 2], ["2", "9", "10"]),
        ([True, False, True], ["false", "true"]),
        ([1.0, 0.0, 1.0], ["0", "1"]),
        (["1", "x", "1"], ["1", "x"]),
    ],
)
def test_labels_are_found_and_sorted(tmp_path: Path, labels: list[Any], found: list[str]) -> None:
    rows = [{"text": f"text {number}", "label": label} for number, label in enumerate(labels + labels)]
    as_json(tmp_path / "train.jsonl", rows)
    as_json(tmp_path / "validation.jsonl", rows[:2])
    data = read(settings(tmp_path, "jsonl"))
    assert data.facts["labels"] == found
    texts = {True: "true", False: "false"}
    assert [found[number] for number in data.train["label"]] == [
        texts[label] if isinstance(label, bool) else str(label).removesuffix(".0") for label in labels + labels
    ]


def test_class_labels_of_a_parquet_file_keep_their_names(tmp_path: Path) -> None:
    import datasets

    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["no", "yes"])})
    made = datasets.Dataset.from_dict({"text": ["a", "b", "c"], "label": [1, 0, 1]}, features=features)
    for split in ("train", "validation"):
        made.select(range(3 if split == "train" else 2)).to_parquet(str(tmp_path / f"{split}.parquet"))
    data = read(settings(tmp_path, "parquet"))
    assert data.facts["labels"] == ["no", "yes"]
    assert data.train["label"][:] == [1, 0, 1]


def test_named_labels_keep_their_order_and_may_be_written_as_numbers(tmp_path: Path) -> None:
    write(tmp_path, "text,label\na,pos\nb,1\nc,0\n")
    data = read(settings(tmp_path, "csv", "task.labels=[pos,neg]"))
    assert data.train["label"][:] == [0, 1, 0]
    assert "labels" not in data.facts


def test_any_finite_number_is_a_label_of_a_regression(tmp_path: Path) -> None:
    write(tmp_path, "text,score\na,-3\nb,1e3\n", "text,score\nc,0.5\nd,2\n")
    data = read(settings(tmp_path, "csv", "task.label=score", kind="text_regression"))
    assert data.train["label"][:] == [-3.0, 1000.0]
    assert data.facts["splits"]["train"]["label_range"] == [-3.0, 1000.0]


def test_references_of_one_text_are_a_group(tmp_path: Path) -> None:
    write(tmp_path, "source,target\na,A\nb,B\n", "source,target\nc,one\nd,D\nc,two\n")
    config = settings(tmp_path, kind="text_to_text")
    data = e2e.load(config.task, config.data, config.seed)
    assert [(group.mr, group.references) for group in data.groups["validation"]] == [
        ("c", ("one", "two")),
        ("d", ("D",)),
    ]


def test_a_task_of_the_project_reads_files_too(tmp_path: Path) -> None:
    write(tmp_path, "sentence,label\na,1\nb,0\n", "sentence,label\nc,acceptable\n")
    data = read(settings(tmp_path, kind="cola"))
    assert data.train["label"][:] == [1, 0]
    assert data.evaluation["validation"]["label"][:] == [1]


def test_malformed_rows_may_be_left_out(tmp_path: Path) -> None:
    write(tmp_path, "text,label\na,pos\nb\n,neg\nc,\nd,neg\n")
    data = read(settings(tmp_path, "csv", "data.skip_malformed=true"))
    assert data.train["text_a"][:] == ["a", "d"]
    assert data.facts["splits"]["train"]["malformed"] == 3


# --- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("train", "message"),
    [
        ("", r"train\.csv: the file is empty"),
        ("text,label\n", r"train\.csv: the column 'label' has no label"),
        ("txt,label\na,pos\nb,neg\n", r"no column 'text' \(task\.texts\); it has 'txt', 'label'; did you mean txt"),
        ("text,lable\na,pos\nb,neg\n", r"no column 'label' \(task\.label\).*did you mean lable"),
        ("text;label\na;pos\n", r"no column 'text' \(task\.texts\); it has 'text;label'"),
        ("text,label,label\na,pos,x\n", r"2 columns named 'label'"),
        ("text,label\na,pos,1\nb,neg,0\n", r"csv:2: 3 comma-separated fields, expected 2 \(data\.skip_malformed=true"),
        ('text,label\n"a\nb",pos\nc\n', r"train\.csv:4: 1 comma-separated fields, expected 2"),
        ('text,label\na,pos\n"b,neg\n', r"train\.csv:3: not valid CSV: unexpected end of data"),
        (b"text,label\na,pos\ncaf\xe9,neg\n", r"train\.csv:3: not UTF-8.*0xe9"),
        ("text,label\na,pos\n ,neg\n", r"train\.csv:3: empty text"),
        ("text,label\na,pos\nb,\nc,neg\n", r"train\.csv:3: no label"),
        ("text,label\na,pos\nb,pos\n", r"the column 'label' has only the label 'pos'; expected at least two"),
        ("text,label\na,0.1\nb,0.2\nc,0.3\n", r"different label in the column 'label', such as 0\.1,.*text_regression"),
    ],
)  # fmt: skip
def test_a_bad_file_is_named_with_the_line_or_column(tmp_path: Path, train: str | bytes, message: str) -> None:
    write(tmp_path, train)
    with pytest.raises(DataError, match=message):
        read(settings(tmp_path))


def test_columns_with_the_line_ends_of_old_macs_are_not_suggested(tmp_path: Path) -> None:
    path = tmp_path / "own.tsv"
    path.write_bytes(b"sentence1\tsentence2\ra\tb\r")
    expected = (
        r"no column 'sentence2' .*'sentence2\\ra', 'b'; a carriage return alone ends no line, expected a line feed$"
    )
    with pytest.raises(DataError, match=expected):
        unlabelled.read_file(path, ["sentence1", "sentence2"])


def test_a_label_that_training_does_not_have_is_unknown(tmp_path: Path) -> None:
    write(tmp_path, "text,label\na,1\nb,2\n", "text,label\nc,1\nd,0\n")
    with pytest.raises(DataError, match=r"n\.csv:3: unknown label '0'; text_classification has 1 \(0\), 2 \(1\)"):
        read(settings(tmp_path))


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        (["1", "nan"], r"train\.csv:3: label 'nan' is out of range; expected a number in \[-1e\+18, 1e\+18\]"),
        (["1", "inf"], r"train\.csv:3: label 'inf' is out of range"),
        (["0", "1e308"], r"train\.csv:3: label '1e308' is out of range; expected a number in \[-1e\+18"),
        (["1", "high"], r"train\.csv:3: label 'high' is not a number"),
        (["1", "1.0"], r"train\.csv: every row has the label 1 in the column 'label'; expected at least two"),
    ],
)
def test_a_score_is_a_finite_number(tmp_path: Path, scores: list[str], message: str) -> None:
    write(tmp_path, "text,label\n" + "".join(f"a{score},{score}\n" for score in scores), "text,label\na,1\nb,2\n")
    with pytest.raises(DataError, match=message):
        read(settings(tmp_path, kind="text_regression"))


def test_a_score_outside_the_configured_range_is_refused(tmp_path: Path) -> None:
    write(tmp_path, "text,label\na,1\nb,7\n", "text,label\na,1\nb,2\n")
    with pytest.raises(DataError, match=r"train\.csv:3: label '7' is out of range; expected a number in \[0, 5\]"):
        read(settings(tmp_path, "csv", "task.label_range=[0,5]", kind="text_regression"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('[{"text": "a", "label": "x"}]\n', r"train\.jsonl:1: expected a JSON object"),
        ('{"text": "a", "label": "x"}\n\n{"text": "b"}\n', r"train\.jsonl:3: no label"),
        ('{"text": "a", "label": "x"}\n{"text": 5, "label": "y"}\n', r"train\.jsonl:2: text is 5; expected text"),
        (
            '{"text": "a", "label": "x"}\n{"text": "b", "label": "y"\n',
            r"train\.jsonl:2: not JSON at character 27: expec",
        ),
        ('\n["a"]\n', r"train\.jsonl:2: expected a JSON object on each line, .*; found \['a'\]"),
        ('{"text": "a", "label": ["x"]}\n', r"jsonl:1: label is \['x'\]; expected a string, a number or a boolean"),
        ('{"text": "a", "label": {"x": 1}}\n', r"jsonl:1: label is {'x': 1}; expected a string, a number or a boolean"),
        ('{"text": "a", "label": "x\\u0000"}\n', r"train\.jsonl:1: label 'x\\x00' has a NUL character"),
        ('{"text": "a", "label": "x\\ud800"}\n', r"train\.jsonl:1: label 'x\\ud800' has half of a surrogate pair"),
        ('{"txt": "a", "label": "x"}\n', r"train\.jsonl has no column 'text'"),
    ],
)
def test_a_bad_json_line_is_named(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "train.jsonl").write_text(content)
    (tmp_path / "validation.jsonl").write_text('{"text": "v", "label": "x"}\n')
    with pytest.raises(DataError, match=message):
        read(settings(tmp_path, "jsonl", "task.labels=[x,y]"))


BAD = {
    "half a pair": ("jsonl", b'{"text": "\\ud800", "label": "x"}', r":1: text '\\ud800' has half of a surrogate pair"),
    "NUL in JSON": ("jsonl", b'{"text": "a\\u0000", "label": "x"}', r":1: text 'a\\x00' has a NUL character"),
    "a number": ("jsonl", b'{"text": 5, "label": "x"}', ":1: text is 5; expected text"),
    "many digits": (
        "jsonl",
        b'{"text": "a", "label": ' + b"9" * 5000 + b"}",
        ":1: a number has more than 4,300 digits; ",
    ),
    "many digits elsewhere": ("jsonl", b'{"text": "a", "x": ' + b"9" * 5000 + b"}", ":1: a number has more than 4,300"),
    "many brackets": ("jsonl", b"[" * 100_000, ":1: brackets are nested too deep; expected a JSON object on each line"),
    "many keys": ("jsonl", b'{"text": ' * 100_000, ":1: brackets are nested too deep; expected a JSON object"),
    "second line": ("jsonl", b'{"text": "a", "label": "x"}\n[[', ":2: not JSON at character 3: expecting value; exp"),
    "NUL in CSV": ("csv", b'text,label\na,x\n"b\n\0",y\n', ":4: a NUL character, which no text has"),
    "NUL in TSV": ("tsv", b"text\tlabel\na\tx\nb\0\ty\n", ":3: a NUL character, which no text has"),
    "UTF-16 without a mark": ("csv", "text,label\na,x\n".encode("utf-16-le"), ":1: a NUL character, .*as in UTF-16"),
    "NUL in JSON lines": ("jsonl", b'{"text": "a", "label": "x"}\n{"text": "\0"}', ":2: a NUL character"),
    "cut": ("parquet", b"PAR1 no more", ": cannot be read as Parquet; it is damaged, or a file of another format$"),
}


@pytest.mark.parametrize(("ending", "content", "message"), BAD.values(), ids=BAD)
def test_both_readers_of_own_files_refuse_the_same_in_the_same_words(
    tmp_path: Path, ending: str, content: bytes, message: str
) -> None:
    """The file of a split, and a file to predict for."""
    for name in ("train", "validation"):
        (tmp_path / f"{name}.{ending}").write_bytes(content)
    path = tmp_path / f"train.{ending}"
    said = []
    for call in (
        lambda: read(settings(tmp_path, ending, "task.labels=[x,y]")),
        lambda: unlabelled.read_file(path, ["text"]),
    ):
        with pytest.raises(DataError, match=re.escape(path.name) + message) as caught:
            call()
        said.append(str(caught.value).removesuffix(" (data.skip_malformed=true skips such rows)"))
    assert said[0] == said[1]
    assert len(said[0]) < 300 + len(str(tmp_path))
    assert not re.search(r"set_int_max_str_digits|recursion|[a-z]Error", said[0])


LONG = "a" * 100_000
TOO_LONG = {
    "column": f"{LONG},label\na,x\n",
    "only label": f"text,label\na,{LONG}\nb,{LONG}\n",
    "labels": "text,label\n" + "".join(f"a,{number}{LONG}\n" for number in range(4)),
    "label by name": f"text,label\na,{LONG}\nb,{LONG}\n",
    "unknown label": f"text,label\na,x\nb,{LONG}\n",
    "many fields": "text,label\n" + "a," * 10_000,
}


@pytest.mark.parametrize(("case", "content"), TOO_LONG.items(), ids=TOO_LONG)
def test_no_message_quotes_all_of_a_long_value(tmp_path: Path, case: str, content: str) -> None:
    write(tmp_path, content)
    named = {"label by name": f"task.labels=[{LONG},y]", "unknown label": "task.labels=[x,y]"}.get(case)
    with pytest.raises(DataError) as caught:
        read(settings(tmp_path, "csv", *([named] if named else [])))
    assert len(str(caught.value)) < 400 + len(str(tmp_path))


def test_a_row_of_parquet_to_predict_for_is_named(tmp_path: Path) -> None:
    as_parquet(tmp_path / "own.parquet", [{"text": "a"}, {"text": None}])
    with pytest.raises(DataError, match=r"own\.parquet, row 1: text is None; expected text"):
        unlabelled.read_file(tmp_path / "own.parquet", ["text"])


def test_a_label_range_beyond_what_the_loss_can_square_is_cut(tmp_path: Path) -> None:
    write(tmp_path, "text,label\na,0\nb,1e308\n")
    with pytest.raises(
        DataError, match=r"train\.csv:3: label '1e308' is out of range; expected a number in \[0, 1e\+18"
    ):
        read(settings(tmp_path, "csv", "task.label_range=[0,1e309]", kind="text_regression"))


def with_classes(path: Path, labels: list[int]) -> None:
    """Parquet as `datasets` writes it, with the names of classes in its metadata."""
    import datasets

    classes = datasets.ClassLabel(names=["no", "yes"])
    features = datasets.Features({"text": datasets.Value("string"), "label": classes})
    texts = [f"{path.stem} {number}" for number in range(len(labels))]
    datasets.Dataset.from_dict({"text": texts, "label": labels}, features=features).to_parquet(str(path))


def test_a_class_of_minus_one_is_a_row_without_a_label(tmp_path: Path) -> None:
    """As in GLUE's test splits: predicted for, and not trained on."""
    with_classes(tmp_path / "train.parquet", [1, -1, 0])
    with_classes(tmp_path / "validation.parquet", [1, 0])
    assert unlabelled.read_file(tmp_path / "train.parquet", ["text"]) == [["train 0", "train 1", "train 2"]]
    with pytest.raises(DataError, match=r"train\.parquet, row 1: no label"):
        read(settings(tmp_path, "parquet"))
    data = read(settings(tmp_path, "parquet", "data.skip_malformed=true"))
    assert data.train["label"][:] == [1, 0]


def test_a_class_without_a_name_is_refused(tmp_path: Path) -> None:
    with_classes(tmp_path / "train.parquet", [1, 0])
    table = parquet.read_table(tmp_path / "train.parquet")
    changed = table.set_column(1, table.schema.field("label"), [pyarrow.array([7, 0])])
    parquet.write_table(changed, tmp_path / "train.parquet")
    with_classes(tmp_path / "validation.parquet", [1, 0])
    with pytest.raises(DataError, match=r"train\.parquet, row 0: label is class 7; the file names 2 classes, from 0"):
        read(settings(tmp_path, "parquet"))


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
@pytest.mark.parametrize("name", ["g?", "g[1]", "d[1]/g", "*", "g::b", "{a,b}"])
def test_a_files_name_is_no_pattern(tmp_path: Path, name: str, ending: str) -> None:
    writer = {"csv": as_csv, "jsonl": as_json, "parquet": as_parquet}[ending]
    for other in ("g1", "g2", "d1/g", "b", "a", name):
        path = tmp_path / f"{other}.{ending}"
        path.parent.mkdir(exist_ok=True)
        writer(path, [{"text": f"of {other}"}])
    assert unlabelled.read_file(tmp_path / f"{name}.{ending}", ["text"]) == [[f"of {name}"]]


def test_sound_parquet_is_not_called_damaged(tmp_path: Path) -> None:
    path = tmp_path / "own.parquet"
    columns = [pyarrow.array(["a", "b"]), pyarrow.array([1, 2]), pyarrow.array(["x", "y"]).dictionary_encode()]
    table = pyarrow.Table.from_arrays(columns, names=["text", "id", "label"])
    parquet.write_table(table.slice(0, 0), path)
    with pytest.raises(DataError, match=r"own\.parquet: no rows$"):
        unlabelled.read_file(path, ["text"])
    parquet.write_table(table.rename_columns(["id", "id", "text"]), path)
    assert unlabelled.read_file(path, ["text"]) == [["x", "y"]]
    with pytest.raises(DataError, match=r"own\.parquet has 2 columns named 'id'; expected one"):
        unlabelled.read_file(path, ["id"])


@pytest.mark.parametrize(
    ("column", "said"),
    [
        (pyarrow.array([b"good", b"caf\xe9"]).view(pyarrow.string()), "text is not UTF-8"),
        (pyarrow.array([10**15] * 2).cast(pyarrow.timestamp("s")), r"text is a timestamp\[ms\] that cannot be read"),
    ],
)
def test_a_value_of_parquet_that_python_cannot_have_is_named_by_its_row(
    tmp_path: Path, column: pyarrow.Array, said: str
) -> None:
    parquet.write_table(pyarrow.table({"text": column, "label": ["x", "y"]}), tmp_path / "train.parquet")
    as_parquet(tmp_path / "validation.parquet", VALIDATION)
    for call in (
        lambda: read(settings(tmp_path, "parquet")),
        lambda: unlabelled.read_file(tmp_path / "train.parquet", ["text"]),
    ):
        with pytest.raises(DataError, match=rf"train\.parquet, row [01]: {said}"):
            call()


def test_a_home_folder_of_nobody_is_named() -> None:
    own = DataConfig(source="files", train="~nobody-of-this-name/a.csv", validation="b.csv")
    with pytest.raises(
        DataError, match=r"~nobody-of-this-name/a\.csv: no user 'nobody-of-this-name' with a home folder"
    ):
        load(composed("task=text_classification", *TWO).task, own, 0)
    folder = DataConfig(source="local", dir="~nobody-of-this-name")
    with pytest.raises(DataError, match="~nobody-of-this-name: no user 'nobody-of-this-name' with a home folder"):
        load(composed("task=rte", "data=mini").task, folder, 0)


def test_bad_parquet_is_named(tmp_path: Path) -> None:
    as_parquet(tmp_path / "train.parquet", [{"text": "a", "label": "x"}, {"text": None, "label": "y"}])
    (tmp_path / "validation.parquet").write_bytes(b"PAR1 no more")
    config = settings(tmp_path, "parquet")
    with pytest.raises(DataError, match=r"train\.parquet, row 1: text is None; expected text"):
        read(config)
    as_parquet(tmp_path / "train.parquet", TRAIN)
    with pytest.raises(DataError, match=r"validation\.parquet: cannot be read as Parquet"):
        read(config)


def test_files_that_are_not_there_or_of_another_kind(tmp_path: Path) -> None:
    write(tmp_path, "text,label\na,pos\nb,neg\n")
    with pytest.raises(DataError, match=r"train\.tsv: no such file; its folder contains train\.csv, validation\.csv"):
        read(settings(tmp_path, "tsv"))
    (tmp_path / "train.xlsx").write_bytes(b"x")
    with pytest.raises(DataError, match=r"train\.xlsx: unknown format; expected a file name ending in \.csv, \.tsv"):
        read(settings(tmp_path, "xlsx"))
    generation = composed("task=e2e", "data=mini", "model=mini-gpt2").task
    with pytest.raises(DataError, match=rf"data\.dir={tmp_path}: .*trainset\.csv: no such file"):
        sources.check(generation, DataConfig(source="local", dir=str(tmp_path)))
    twins = settings(tmp_path, "csv", f"data.validation={tmp_path / 'train.csv'}")
    where = rf"data\.train={tmp_path}/train\.csv and data\.validation={tmp_path}/train\.csv"
    for read_or_check in (read, lambda config: sources.check(config.task, config.data)):
        with pytest.raises(DataError, match=rf"'train' and 'validation' have the same rows \({where}\); expected"):
            read_or_check(twins)


TWO = ["data.train=a.csv", "data.validation=b.csv"]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["task=text_classification"], r"data\.train='': expected a csv, tsv, jsonl or parquet file"),
        (["task=text_classification", "data.train=a.csv"], r"data\.validation='': expected a csv"),
        (["task=text_to_text", "model=gpt2", *TWO], r"data\.test='': .*set task\.test='' to have no test split"),
        (["task=cola", *TWO, "data.test=c.csv"], r"task\.evaluation=\[validation,test\] to score it"),
        (["task=mnli", *TWO], r"task=mnli has the split 'validation_matched'"),
        (["data=mini", "data.train=a.csv"], r"data\.train='a\.csv': expected no file with data\.source=mini"),
        (["task=text_classification", "data=mini"], r"task\.labels=\[\] with data\.source=mini"),
        (["task=text_regression", "data=mini"], r"task\.label_range=\[\] with data\.source=mini"),
        (["task=text_classification", "task.labels=[a,a]"], r"\['a', 'a'\]: expected at least two different"),
        (["task=mrpc", "task.labels=[a,b,c]"], r"task\.metrics=.*: expected no f1 with 3 labels"),
    ],
)  # fmt: skip
def test_a_request_that_does_not_fit_is_refused_while_composing(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        composed(*overrides)


def test_f1_of_labels_that_are_found_to_be_three_is_refused(tmp_path: Path) -> None:
    write(tmp_path, "text,label\na,x\nb,y\nc,z\nd,x\n", "text,label\na,x\n")
    with pytest.raises(ConfigError, match="no f1 with 3 labels"):
        read(settings(tmp_path, "csv", "task.metrics=[f1]", "task.headline=f1"))


@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
def test_a_label_that_is_not_a_number_is_missing(tmp_path: Path, ending: str) -> None:
    """pandas writes a missing value as NaN: it is no class of that name."""
    rows = [*TRAIN, {"id": 9, "text": "nine", "label": float("nan")}]
    if ending == "parquet":
        rows = [{**row, "label": float(number % 2)} for number, row in enumerate(TRAIN)] + rows[-1:]
    folder = tmp_path / "D"
    folder.mkdir()
    for split, some in (("train", rows), ("validation", VALIDATION if ending == "jsonl" else rows[:4])):
        (as_json if ending == "jsonl" else as_parquet)(folder / f"{split}.{ending}", some)
    with pytest.raises(DataError, match="train.*label") as refused:
        read(settings(folder, ending))
    assert "nan" not in str(refused.value).lower()
