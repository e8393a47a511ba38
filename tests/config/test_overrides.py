"""Arguments of a command as Hydra reads them."""

from __future__ import annotations

import json
import re
import shlex

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from rosa.config.overrides import quoted, readable, unreadable
from rosa.errors import ConfigError
from tests.conftest import ROOT


def value(word: str) -> object:
    return OverridesParser.create().parse_override(word).value()


@pytest.mark.parametrize(
    "mapping",
    [
        {"*.query": 4, "*.layer.0.*": 0.05},
        {"*.layer.[01].*": 4, "a(b)": 2, "c:d=e, f": 3, "g\\h": 1},
        {"*": None, "key?": True, "text": "a,b", "list": [1, "two"], "more": {"x": 1}},
        {},
    ],
)
def test_a_mapping_in_json_is_read_as_it_stands(mapping: dict[str, object]) -> None:
    (word,) = readable([f"method.rank_pattern={json.dumps(mapping)}"])
    assert value(word) == mapping


def test_the_mapping_of_the_documentation_is_read() -> None:
    text = (ROOT / "docs" / "family.md").read_text(encoding="utf-8")
    (shown,) = re.findall(r"`(\{\"\*\.query\".*?\})`", text)
    assert value(readable([f"method.rank_pattern={shown}"])[0]) == {"*.query": 4, "*.layer.0.*": 0.05}


@pytest.mark.parametrize("word", ["seed=0,1", "-m", "method.rank_pattern={*.query: 4}", "x={not json", "task=cola"])
def test_all_else_stays(word: str) -> None:
    assert readable([word]) == [word]


@pytest.mark.parametrize("word", ["~logger", "~method.rank", "~seed=0"])
def test_a_key_cannot_be_left_out(word: str) -> None:
    with pytest.raises(ConfigError, match=f"^{re.escape(word)}: .* cannot be left out"):
        readable(["task=cola", word])


@pytest.mark.parametrize(
    "text", ["/a=b", "/a (b)", "/été", 'say "so"', "a\\b", "a\\", 'a\\"b\\\\', "it's", "{a}", "$HOME", "a,b", " "]
)
def test_what_is_advised_is_read_by_shell_and_hydra(text: str) -> None:
    (word,) = shlex.split(quoted(f"data.dir={text}"))
    assert value(word) == text
    assert unreadable([word]) is None


def test_the_argument_that_cannot_be_read_is_found() -> None:
    assert unreadable(["-m", "seed=0,1", "data.dir=/a=b", "x=("]) == "data.dir=/a=b"
