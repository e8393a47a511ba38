"""E2E data: the challenge's CSV files, their groups and tokens, and refused files."""

from __future__ import annotations

import csv
import hashlib
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from tokenizers import ByteLevelBPETokenizer
from transformers import GPT2TokenizerFast

from rosa.config import DataConfig, TaskConfig
from rosa.data import e2e, tokenization
from rosa.errors import DataError
from tests.composing import compose_config
from tests.conftest import REAL_DATA

REAL = REAL_DATA / "e2e"
needs_real = pytest.mark.skipif(not REAL.is_dir(), reason="the real E2E files are not beside the project")


@pytest.fixture(scope="module")
def task() -> TaskConfig:
    return compose_config("task=e2e", "data=mini", "model=mini-gpt2").task


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> GPT2TokenizerFast:
    """GPT-2's kind of tokenizer with no merges: a token a byte."""
    folder = tmp_path_factory.mktemp("bytes")
    made = ByteLevelBPETokenizer()
    made.train_from_iterator([], vocab_size=256, special_tokens=["<|endoftext|>"])
    made.save_model(str(folder))
    return GPT2TokenizerFast.from_pretrained(folder)


DEFAULT = b'mr,ref\n"name[A], area[b]",One.\n"name[A], area[b]",Two.\nname[B],Three.\n'


@pytest.fixture
def folder(tmp_path: Path) -> Callable[..., Path]:
    def write(
        train: bytes = DEFAULT, dev: bytes = b"mr,ref\nname[C],Dev.\n", test: bytes = b"mr,ref\nname[B],T.\n"
    ) -> Path:
        for name, content in (("trainset", train), ("devset", dev), ("testset_w_refs", test)):
            (tmp_path / f"{name}.csv").write_bytes(content)
        return tmp_path

    return write


def load(task: TaskConfig, folder: Path, **options: object) -> e2e.GenerationData:
    return e2e.load(task, DataConfig(source="local", dir=str(folder), **options), seed=3)  # type: ignore[arg-type]


def test_rows_groups_and_facts(task, folder):
    data = load(task, folder())
    assert data.train["mr"][:] == ["name[A], area[b]", "name[A], area[b]", "name[B]"]
    assert data.train["ref"][:] == ["One.", "Two.", "Three."]
    assert data.groups == {
        "validation": (e2e.Group("name[C]", ("Dev.",)),),
        "test": (e2e.Group("name[B]", ("T.",)),),
    }
    facts = data.facts["splits"]
    assert facts["train"]["rows"] == 3
    assert facts["train"]["given"] == 2
    assert facts["train"]["sha256"] == hashlib.sha256(DEFAULT).hexdigest()
    assert (facts["validation"]["in_train"], facts["test"]["in_train"]) == (0, 1)


def test_byte_order_mark_quotes_commas_line_ends_and_other_separators(task, folder):
    content = (
        '\ufeffref,mr\r\n"He said ""hi"", twice.",name[X]\r\n"Two\nlines\u2028three",name[Y]\r\nCafé £5,name[Z]\r\n'
    )
    data = load(task, folder(content.encode()))
    assert data.train["ref"][:] == ['He said "hi", twice.', "Two lines three", "Café £5"]
    assert data.train["mr"][:] == ["name[X]", "name[Y]", "name[Z]"]


def test_an_mr_in_two_places_is_one_group(task, folder):
    data = load(task, folder(dev=b"mr,ref\nname[C],1\nname[D],2\nname[C],3\nname[C],1\n"))
    assert data.groups["validation"] == (e2e.Group("name[C]", ("1", "3", "1")), e2e.Group("name[D]", ("2",)))


@pytest.mark.parametrize(
    "content",
    [
        DEFAULT.replace(b"name[B]", b"name[E]"),
        b"mr,ref\nname[C],1\nname[D],2\nname[C],3\nname[C],1\n",
        '\ufeffref,mr\r\n"He said ""hi"".",name[X]\r\n"Two\nlines\u2028three", name[Y] \r\n'.encode(),
    ],
)
def test_a_file_alone_has_the_groups_of_its_split(task, folder, content):
    place = folder(test=content)
    assert e2e.read_file(place / "testset_w_refs.csv") == load(task, place).groups["test"]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"mr,ref\n", ": no rows"),
        (b"mr,ref\nname[A],One.\nname[A],\n", ":3: ref is empty"),
        (b"mr,ref\nname[A],One.,\n", ":2: 3 comma-separated fields, expected 2"),
        (b"mr,refs\nname[A],One.\n", ":1: the header has no column 'ref' (of the challenge's files); it has"),
        (b'mr,ref\n"name[A],One.\n', ":2: not valid CSV: "),
        (None, ": no such file; its folder contains "),
    ],
)
def test_a_malformed_file_alone_names_the_line(tmp_path, content, expected):
    path = tmp_path / "references.csv"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=re.escape(f"{path}{expected}")):
        e2e.read_file(path)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"mr,ref\nname[A],One.\nname[A],\n", r"trainset\.csv:3: human_reference is empty"),
        (b"mr,ref\nname[A],One.\n  ,Two.\n", r"trainset\.csv:3: meaning_representation is empty"),
        (b'mr,ref\n"name[A]","One\ntwo"\nname[A]\n', r"trainset\.csv:4: 1 comma-separated fields, expected 2"),
        (b"mr,ref\nname[A],One.\n\nname[A],Two.\n", r"trainset\.csv:3: empty line"),
        (b'mr,ref\nname[A],One.\n"name[A],Two.\n', r"trainset\.csv:3: not valid CSV: unexpected end of data"),
        (b'mr,ref\n"name"[A],One.\n', r"trainset\.csv:2: not valid CSV"),
        (b"mr,reff\nname[A],One.\n", r"trainset\.csv:1: the header has no column 'ref'.*did you mean reff"),
        (b"mr,ref\n", r"trainset\.csv: no rows"),
        (b"", r"trainset\.csv: no rows"),
        (b"mr,ref\nname[A],caf\xe9\n", r"trainset\.csv:2: not UTF-8.*0xe9"),
    ],
)
def test_malformed_files_name_the_line(task, folder, content, expected):
    with pytest.raises(DataError, match=expected):
        load(task, folder(content))


def test_malformed_rows_can_be_left_out_and_are_counted(task, folder):
    data = load(task, folder(b"mr,ref\nname[A],One.\nname[A],\nname[A]\n"), skip_malformed=True)
    assert data.train["ref"][:] == ["One."]
    assert data.facts["splits"]["train"]["malformed"] == 2


def test_a_copied_split_is_refused(task, folder):
    with pytest.raises(DataError, match="'validation' and 'test' have the same rows"):
        load(task, folder(dev=b"mr,ref\nname[B],T.\n"))


def test_a_missing_file_is_named(task, folder):
    place = folder()
    (place / "testset_w_refs.csv").unlink()
    with pytest.raises(
        DataError, match=r"testset_w_refs\.csv: no such file; its folder contains devset\.csv, trainset\.csv"
    ):
        load(task, place)


def test_a_limit_samples_pairs_with_the_seed(task, folder):
    rows = b"mr,ref\n" + b"".join(b"name[%d],ref %d\n" % (i, i) for i in range(100))
    data = load(task, folder(rows), limit=10)
    again = load(task, folder(rows), limit=10)
    assert len(data.train) == 10
    assert data.train["ref"][:] == again.train["ref"][:]
    assert data.facts["limit"] == {"rows": 10, "of": 100, "seed": 3}


# --- tokens ----------------------------------------------------------------------------------------------------------


def tokens(task: TaskConfig, folder: Path, tokenizer: GPT2TokenizerFast, limit: int = 200, **changes: str):
    import dataclasses

    return tokenization.tokenize_pairs(load(task, folder), dataclasses.replace(task, **changes), tokenizer, limit)


def test_prompt_reference_and_end_with_labels_on_the_reference(task, folder, tokenizer):
    data = tokens(task, folder(), tokenizer)
    row = data.train[0]
    given, wanted = "Input: name[A], area[b] Output:", " One.<|endoftext|>"
    assert tokenizer.decode(row["input_ids"]) == given + wanted
    start = len(tokenizer(given)["input_ids"])
    assert row["labels"] == [-100] * start + row["input_ids"][start:]
    # The prompt in decoding is the beginning of the training example.
    assert tokenizer(e2e.prompt(task, "name[A], area[b]"))["input_ids"] == row["input_ids"][:start]
    counts = data.facts["splits"]["train"]
    assert counts["tokens"] == sum(map(len, data.train["input_ids"]))
    assert counts["scored_tokens"] == sum(label != -100 for labels in data.train["labels"] for label in labels)


def test_loss_on_all_counts_every_token_but_the_first(task, folder, tokenizer):
    data = tokens(task, folder(), tokenizer, loss_on="all")
    assert data.train["labels"][:] == data.train["input_ids"][:]
    assert data.facts["splits"]["train"]["scored_tokens"] == sum(len(ids) - 1 for ids in data.train["input_ids"])


def test_truncation_is_counted_and_said(task, folder, tokenizer, caplog):
    longest = len("Input: name[A], area[b] Output: One.") + 1
    data = tokens(task, folder(), tokenizer, limit=longest - 1)
    assert data.facts["splits"]["train"]["truncated"] == 2
    assert [len(ids) for ids in data.train["input_ids"]] == [
        longest - 1,
        longest - 1,
        len("Input: name[B] Output: Three.") + 1,
    ]
    assert "2 of 3 examples of train are longer than train.max_length=36 tokens; their end is cut off" in caplog.text


def test_a_prompt_without_room_for_a_reference_is_refused(task, folder, tokenizer):
    with pytest.raises(
        DataError, match=r"the prompt 'Input: name\[A\], area\[b\] Output:' has 31 tokens; expected fewer than 31"
    ):
        tokens(task, folder(), tokenizer, limit=31)


# --- the real files --------------------------------------------------------------------------------------------------


@needs_real
def test_the_real_files(task):
    """Against the counts that the data's README states, and Python's own reading of the test file."""
    data = load(task, REAL)
    counts = {name: (split["rows"], split["given"]) for name, split in data.facts["splits"].items()}
    assert counts == {"train": (42061, 4862), "validation": (4672, 547), "test": (4693, 630)}
    with (REAL / "testset_w_refs.csv").open(newline="", encoding="utf-8") as file:
        rows = [(row["mr"], row["ref"]) for row in csv.DictReader(file)]
    flat = [(one.mr, reference) for one in data.groups["test"] for reference in one.references]
    assert flat == [(mr.strip(), re.sub(r"\s*\n\s*", " ", ref.strip())) for mr, ref in rows]


@needs_real
def test_real_tokens_of_prompt_and_reference_are_those_of_the_whole(task, tmp_path):
    """GPT-2's vocabulary splits at spaces, so a prompt's tokens do not depend on the text after it."""
    place = REAL_DATA / "gpt2-tokenizer"
    if not place.is_dir():
        pytest.skip("GPT-2's vocabulary is not beside the project")
    own = GPT2TokenizerFast.from_pretrained(place)
    for one in load(task, REAL).groups["test"][:200]:
        given = e2e.prompt(task, one.mr)
        for reference in one.references:
            parts = own(given)["input_ids"] + own(f" {reference}")["input_ids"]
            assert parts == own(f"{given} {reference}")["input_ids"]


def test_other_braces_in_a_prompt_are_text(task):
    import dataclasses

    assert e2e.prompt(dataclasses.replace(task, prompt="{x} {given} {}"), "name[{A}]") == "{x} name[{A}] {}"
