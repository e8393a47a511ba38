"""docs/own_data.md: its files are written and its commands run as printed, with a smaller model."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from rosa import records
from tests.composing import compose_config
from tests.conftest import ROOT
from tests.docs.pages import Block, Checkout, blocks, replaced

TEXT = (ROOT / "docs" / "own_data.md").read_text(encoding="utf-8")
PAGE = blocks(TEXT)
SETTINGS = re.findall(r"^\| [^|]+ \| `([^`]+)` \|$", TEXT, flags=re.MULTILINE)
"""The overrides in the page's table."""
SMALL = "train.epochs=1 train.batch_size=2 train.device=cpu logger=none"


def commands(label: str = "sh") -> list[Block]:
    return [block for block in PAGE if block.label == label]


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """The project's commands and the page's files."""
    folder = tmp_path_factory.mktemp("own-data")
    made = Checkout(folder / "project", folder / "site")
    for block in PAGE:
        if " file " in block.label:
            made.write(block)
    return made


@pytest.mark.slow
def test_the_commands_train_on_the_files(checkout: Checkout, tiny_model: Path, tiny_gpt2: Path) -> None:
    classes, numbers, texts, comparison = commands()
    roberta = f"model=folder model.name=tiny model.path={tiny_model} {SMALL}"
    gpt2 = f"model=folder model.name=tiny model.path={tiny_gpt2} decoding=greedy {SMALL}"
    changes = {
        **{block: {"model=minilm": roberta} for block in (classes, numbers)},
        texts: {"model=gpt2": gpt2},
        comparison: {"experiment=reviews\n": f"experiment=reviews jobs=1 {roberta}\n"},
    }
    checkout.run_scripts("".join(replaced(block.text, found) for block, found in changes.items()))

    found, problems = records.find(checkout.folder / "results")
    assert not problems
    assert {record["status"] for record in found} == {"done"}
    labels = {record["identity"]["task"]: record["data"].get("labels") for record in found}
    assert labels["text_classification"] == labels["reviews"] == ["bad", "good"]
    assert sum(record["identity"]["experiment"] == "reviews" for record in found) == 4
    (written,) = (record["generation"] for record in found if record["identity"]["task"] == "text_to_text")
    assert written["split"] == "test"
    assert {"bleu", "nist", "rouge_l", "cider"} <= set(written["scores"])
    assert "LoRA r=8" in (checkout.folder / "results/tables/reviews.md").read_text()


@pytest.mark.parametrize("kind", ["Text to class", "Text to number", "Text to text"])
def test_each_kind_of_task_takes_ten_lines(kind: str) -> None:
    """Its files and its command together."""
    section = TEXT.split(f"## {kind}\n")[1].split("\n## ")[0]
    assert 0 < sum(block.text.count("\n") for block in blocks(section)) <= 10


@pytest.mark.parametrize("settings", SETTINGS)
def test_each_setting_of_the_table_is_valid(settings: str) -> None:
    """Added to the page's first command."""
    assert len(SETTINGS) == 8
    first = commands()[0].text.replace("\\\n", " ").split()[2:]
    compose_config(*first, *settings.split())


@pytest.mark.slow
def test_a_wrong_column_is_refused_as_printed(checkout: Checkout) -> None:
    (refused,), (printed,) = commands("sh refused"), commands("text printed")
    assert printed.text.strip() in checkout.run_scripts(refused.text, status=2)
