"""The report's contents and its HTML, compared with the records."""

from __future__ import annotations

import itertools
import json
import random
import re
import runpy
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from rosa import records
from rosa.config import DataConfig, FullConfig, LoraConfig, RosaConfig, to_dict
from rosa.errors import ReportError
from rosa.report.grouping import compare
from rosa.report.html import runs
from rosa.report.html import tables as tables_module
from rosa.report.html.contents import GROUPS, Page, contents
from rosa.report.html.figures import PANELS, ROWS
from rosa.report.html.render import asset, embedded, html
from rosa.report.tables.differences import differences
from tests.commands import answer
from tests.report.page_reader import Element, data, grid, read
from tests.report.synthetic_records import METHODS, config, costs, record

ROOT = Path(__file__).resolve().parents[2]
TASKS = ["cola", "mrpc", "mnli"]


def history(task: str, epochs: int = 3) -> list[dict[str, Any]]:
    settings = config(task).task
    return [
        {"epoch": float(e), "step": e, settings.evaluation[0]: {settings.headline: e / 10, "loss": 1 / e}}
        for e in range(1, epochs + 1)
    ]


def sweep(seeds: int = 2) -> list[dict[str, Any]]:
    return [
        record(config(task, method, seed=seed), history=history(task))
        for task in TASKS
        for method in METHODS
        for seed in range(seeds)
    ]


def located(found: list[dict[str, Any]]) -> dict[Path, dict[str, Any]]:
    """Each record by its file, as runs lay them out."""
    placed = {}
    for run in found:
        own = run["identity"]
        folder = Path("runs", own["experiment"], own["model"], own["task"], f"{own['method']}-{own['hash']}")
        placed[folder / f"seed{own['seed']}" / "record.json"] = run
    return placed


def page_of(found: list[dict[str, Any]], **options: Any) -> Page:
    return contents(located(found), **options)


def parsed(found: list[dict[str, Any]], **options: Any) -> Element:
    return read(html(page_of(found, **options)))


def tables(page: Element, experiment: str = "glue") -> list[Element]:
    sections = [s for s in page.all("section") if s.all("h2")[0].text == experiment]
    return sections[0].all("table")


@pytest.fixture(scope="module")
def found() -> list[dict[str, Any]]:
    made = sweep()
    made[0] |= {"status": "failed", "metrics": {}, "error": {"type": "E", "message": "x", "traceback": ""}}
    return made


@pytest.fixture(scope="module")
def text(found: list[dict[str, Any]]) -> str:
    return html(page_of(found))


@pytest.fixture(scope="module")
def page(text: str) -> Element:
    return read(text)


# --- numbers ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", records.RULES)
def test_the_tables_are_those_of_make_tables(tmp_path: Path, rule: str) -> None:
    for path, run in located(sweep()).items():
        records.write(tmp_path / path.parent, run)
    assert answer("make_tables", "--results", str(tmp_path), "--rule", rule).returncode == 0
    markdown = (tmp_path / "tables/glue.md").read_text()
    plain = re.sub(r"\*\*|\\(?=\*)|</?sup>|</?u>", "", markdown)
    lines = [line for line in plain.splitlines() if line.startswith("| ")]
    expected = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if not line.startswith("| :-")]
    shown, problems = records.locate(tmp_path)
    assert problems == []
    page = read(html(contents(shown, rule=rule)))
    assert grid(tables(page)[0]) == expected


def test_a_cell_leads_to_its_runs_and_no_other() -> None:
    found = sweep()
    page = parsed(found)
    behind = data(page)
    table = tables(page)[0]
    for row, method in zip(table.all("tbody")[0].all("tr"), ("full", "lora", "ia3", "rosa"), strict=True):
        assert row.attributes["data-method"] == method
        linked = row.all("td")[: len(TASKS)]
        for cell, task in zip(linked, ("mnli", "mrpc", "cola"), strict=True):
            (button,) = cell.all("button")
            facts = behind["cells"][int(button.attributes["data-runs"])]
            own = [r for r in found if (r["identity"]["task"], r["identity"]["method"]) == (task, method)]
            shown = [behind["runs"][place] for place in facts["runs"]]
            assert [run["command"] for run in shown] == [run["command"] for run in own]
            assert [run["seed"] for run in shown] == [0, 1]
            split, metric = own[0]["config"]["task"]["evaluation"][0], own[0]["config"]["task"]["headline"]
            for run, source in zip(shown, own, strict=True):
                for rule in records.RULES:
                    first = f"{100 * source['metrics'][rule][split][metric]:.1f}"
                    assert run[rule].startswith(first)
                    assert run[rule].endswith(f"(epoch {source['metrics'][rule]['epoch']:g})")
                assert run["curve"] == [[1, 10], [2, 20], [3, 30]]
                assert run["file"].endswith("/record.json")
        assert [cell.all("button") for cell in row.all("td")[len(TASKS) :]] == [[], []], "the average is of many tasks"


def test_a_run_behind_two_cells_is_kept_once() -> None:
    found = [record(config("cola", LoraConfig(), lr=lr, seed=0, experiment="tuning")) for lr in (1e-3, 1e-2)]
    tuned = record(config("cola", LoraConfig(), lr=1e-2), tuning={
        "experiment": "tuning", "task": "cola", "seed": 0, "grid": [], "chosen": 1e-2, "rule": "best", "metric": "x"
    })  # fmt: skip
    page = parsed([*found, tuned])
    behind = data(page)
    assert len(behind["runs"]) == 3
    (table,) = tables(page, "tuning")
    assert grid(table)[0] == ["Method", "1e-3", "1e-2"]
    rates = [behind["cells"][int(button.attributes["data-runs"])] for button in table.all("td")[0].all("button")]
    assert [behind["runs"][place]["lr"] for cell in rates for place in cell["runs"]] == ["1e-3"]
    assert sum(run["shown"] for run in behind["runs"]) == 2, "one of the grid, and the only one of the other"


def test_a_cell_of_rank_and_frequency_leads_to_its_runs() -> None:
    methods = [RosaConfig(rank=rank, every=every) for rank in (2, 4) for every in (1, 2)]
    found = [record(config("cola", method, seed=seed)) for method in methods for seed in range(2)]
    page = parsed(found)
    behind = data(page)
    (table,) = [table for table in tables(page) if grid(table)[0][0] == "Rank"]
    _header, *rows = table.all("tr")
    for row, rank in zip(rows, (2, 4), strict=True):
        for button, every in zip(row.all("button"), (1, 2), strict=True):
            shown = [behind["runs"][place] for place in behind["cells"][int(button.attributes["data-runs"])]["runs"]]
            assert {run["seed"] for run in shown} == {0, 1}
            chosen = [{key: value for key, value, _ in behind["settings"][run["settings"]]} for run in shown]
            assert {(one.get("method.rank"), one.get("method.every", "2")) for one in chosen} == {
                (str(rank), str(every))
            }


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        *[("71.2 ± 0.4", 71.2), ("-0.1", -0.1), ("70.1/69.8 (n=1, 1 failed)", 70.1), ("812", 812.0)],
        *[("0.15M + 770 head", 150_000.0), ("8.2K", 8200.0), ("5e-4", 5e-4), ("—", None), ("failed", None)],
        *[("12,346 (1.0×)", 12_346.0), ("1,234,567.5", 1_234_567.5), ("+1,204", 1204.0), ("1,23", 1.0), ("+0.3", 0.3)],
    ],
)
def test_cells_are_sorted_by_the_number_that_they_show(text: str, expected: float | None) -> None:
    assert tables_module.order(text) == (pytest.approx(expected) if expected is not None else None)


def test_settings_are_those_that_differ_from_the_defaults() -> None:
    method = RosaConfig(rank=4, sampling="top", targets=["*.query", "*.key"])
    settings = config("cola", method, lr=3e-3, epochs=7, group_by_length=False)
    shown = {key: (value, usual) for key, value, usual in runs.different_settings(record(settings))}
    usual, own = to_dict(config("cola", RosaConfig())), to_dict(settings)
    for group in ("method", "train"):
        different = {key for key, value in own[group].items() if value != usual[group][key]} - {"lr"}
        assert different == {key.split(".")[1] for key in shown if key.startswith(f"{group}.")}
    assert shown["method.targets"][0] == "[*.query, *.key]"
    assert shown["train.epochs"] == ("7", "10")
    assert shown["train.group_by_length"] == ("false", "true")
    assert shown["model.source"] == ("mini", "hub")
    assert not any(key.startswith("task.") for key in shown)


# --- what is missing -------------------------------------------------------------------------------------------------


def test_what_is_missing_is_counted_and_listed() -> None:
    found = [record(config("cola", method, seed=seed)) for method in METHODS for seed in range(3)]
    by_key = {(run["identity"]["method"], run["identity"]["seed"]): run for run in found}
    found.remove(by_key["rosa", 2])
    failed = by_key["lora", 1]
    failed |= {"status": "failed", "metrics": {}, "error": {"type": "OutOfMemoryError", "message": "CUDA\nsecond line"}}
    by_key["lora", 2] |= {"status": "running", "metrics": {}}
    for rule in records.RULES:
        by_key["ia3", 0]["metrics"][rule]["validation"]["matthews_correlation"] = None
    found.append(record(config("mrpc", FullConfig(), seed=5)))
    page = parsed(found)
    _, lacking, overview = page.all("table")
    assert grid(overview)[1][5:9] == ["9", "2", "1", "4"], "done, failed, running, missing"
    rows = grid(lacking)[1:]
    assert [row[:5] for row in rows] == [
        ["LoRA r=8", "MRPC", "", "5", "missing"],
        ["LoRA r=8", "CoLA", "1e-3", "1", "failed"],
        ["LoRA r=8", "CoLA", "1e-3", "2", "running"],
        ["(IA)3", "MRPC", "", "5", "missing"],
        ["(IA)3", "CoLA", "1e-3", "0", "diverged"],
        ["ROSA r=8, every 2 epochs", "MRPC", "", "5", "missing"],
        ["ROSA r=8, every 2 epochs", "CoLA", "1e-3", "2", "missing"],
    ]
    assert rows[1][5:] == ["OutOfMemoryError: CUDA", failed["command"]]


def test_seeds_of_losing_learning_rates_are_not_missing() -> None:
    found = [record(config("cola", LoraConfig(), lr=1e-3, seed=seed), best=0.9) for seed in range(3)]
    found.append(record(config("cola", LoraConfig(), lr=1e-2, seed=0), best=0.1))
    (section,) = page_of(found).sections
    assert section.states["missing"] == 0
    assert section.models[0].gaps == ()


def test_records_that_cannot_be_read_are_named() -> None:
    page = contents(located(sweep()), [records.RecordError("runs/x/record.json: <b>broken</b>")])
    (left_out,) = [element for element in read(html(page)).all("ul") if element.attributes.get("class") == "loud"]
    assert left_out.text.strip() == "runs/x/record.json: <b>broken</b>"


def test_an_experiment_without_records_is_refused() -> None:
    with pytest.raises(ReportError, match="'nonesuch' has no records; there are: glue"):
        page_of(sweep(), experiments=["nonesuch"])


# --- nothing from a record is markup ---------------------------------------------------------------------------------

HOSTILE = (
    "</script><script>alert(1)</script><img src=x onerror=\"alert('2')\">&amp; ]]> <!-- \u2028 \x07 {{ 7 * 7 }} $x_$"
)


def hostile_records() -> list[dict[str, Any]]:
    """Two finished runs and a failed one with markup wherever a record holds text."""
    made = [
        record(config("cola", LoraConfig(targets=[HOSTILE]), seed=seed), command=HOSTILE, warnings=[HOSTILE])
        for seed in range(2)
    ]
    made.append(record(config("cola", RosaConfig(), seed=1), status="failed"))
    made[2]["error"] = {"type": HOSTILE, "message": HOSTILE, "traceback": HOSTILE}
    for run in made:
        run["history"] = history("cola")
        run["environment"]["commit"] = HOSTILE
        run["identity"] |= {"experiment": HOSTILE, "model": HOSTILE, "task": HOSTILE}
        run["config"]["task"]["name"] = run["config"]["model"]["name"] = HOSTILE
    return made


def test_hostile_text_stays_text() -> None:
    text = html(page_of(hostile_records()))
    page = read(text)
    scripts = page.all("script")
    assert [script.attributes for script in scripts] == [{"type": "application/json", "id": "data"}, {}]
    assert scripts[1].text == asset("page.js")
    assert page.all("img") == []
    assert {name for element in page.all() for name in element.attributes if name.startswith("on")} == set()
    run = data(page)["runs"][0]
    assert run["command"] == HOSTILE
    assert run["warnings"] == [HOSTILE]
    assert HOSTILE in data(page)["cells"][0]["title"]
    assert any(HOSTILE in value for _, value, _ in data(page)["settings"][0])
    section, _ = page.all("section")
    assert section.all("h2")[0].text == HOSTILE
    assert any(cell.text == f"{HOSTILE}: {HOSTILE}" for cell in section.all("td"))


def test_json_in_a_script_has_no_markup_and_comes_back() -> None:
    given = {"a": HOSTILE, "b": ["\u2029", "é", 1.5, None]}
    text = embedded(given)
    assert not set("<>&\u2028\u2029") & set(text)
    assert json.loads(text) == given
    with pytest.raises(ValueError, match="JSON"):
        embedded(float("nan"))


def test_half_a_surrogate_pair_can_be_written() -> None:
    found = sweep(1)
    found[0]["command"] = "\ud800"
    assert html(page_of(found)).encode()


# --- one file, the same for the same records -------------------------------------------------------------------------


def test_the_same_records_give_the_same_file(found: list[dict[str, Any]], text: str) -> None:
    mixed = random.Random(0).sample(found, len(found))
    assert mixed != found
    assert html(page_of(mixed)) == text


def test_the_page_asks_for_nothing(page: Element, text: str) -> None:
    addresses = [
        e.attributes[a] for e in page.all() for a in ("src", "href", "xlink:href", "action") if a in e.attributes
    ]
    assert addresses
    assert [address for address in addresses if re.match(r"([a-z]+:)?//|[a-z]+:", address)] == []
    (policy,) = [
        m.attributes["content"] for m in page.all("meta") if "Policy" in (m.attributes.get("http-equiv") or "")
    ]
    assert policy.startswith("default-src 'none'; style-src ")
    assert "url(" not in text.replace("url(#", "")


def test_ids_are_unique_and_figures_need_none(page: Element) -> None:
    ids = [element.attributes["id"] for element in page.all() if "id" in element.attributes]
    assert len(ids) == len(set(ids))
    assert len(page.all("svg", role="img")) >= 2 * len(TASKS)
    for drawing in page.all("svg"):
        assert [element for element in drawing.all() if "id" in element.attributes] == []
        assert drawing.all("style", "metadata", "script", "foreignobject") == []


# --- figures ---------------------------------------------------------------------------------------------------------


def studied(seeds: int = 3, ahead: float = 0.05, tasks: Sequence[str] = ("cola", "mrpc")) -> list[dict[str, Any]]:
    """LoRA and three methods that are ahead of it by so much, give or take a thousandth, with costs."""
    made = []
    for task in tasks:
        for method in METHODS:
            for seed in range(seeds):
                score = 0.5 + seed / 50 + (0 if method.name == "lora" else ahead + (-0.001, 0.001, 0)[seed % 3])
                run = record(config(task, method, seed=seed), score, history=history(task))
                run["params"] = {"trainable": 1000 * (1 + METHODS.index(method)), "head": 10, "total": 10**6}
                made.append(run | {"costs": costs(0.01 * (2 if task == "mrpc" else 1))})
    return made


def figures(page: Element, title: str) -> list[Element]:
    return [figure for figure in page.all("figure") if figure.all("h4")[0].text.startswith(title)]


def test_an_experiment_opens_with_the_differences_from_lora_and_what_they_say() -> None:
    found = studied()
    page = parsed(found)
    (figure,) = figures(page, "Difference from LoRA")
    panels = figure.all("svg", role="img")
    assert [panel.attributes["aria-label"] for panel in panels] == ["MRPC", "CoLA"]
    expected = {(one.task.name, one.row.label): one for one in differences(compare(found, "glue"))}
    for task, panel in zip(("mrpc", "cola"), panels, strict=True):
        titles = [title.text for title in panel.all("title")]
        for label in ("Full", "(IA)3", "ROSA r=8, every 2 epochs"):
            low, high = expected[task, label].paired.interval or (0, 0)
            assert f"{label}: +5.0 ({100 * low:+.1f} to {100 * high:+.1f})" in titles
    tests = sum(one.p_holm is not None for one in expected.values())
    caption = figure.all("figcaption")[0].text
    assert f"corrected for all {tests} tests (Holm)" in caption, "a verdict may differ from what an interval suggests"
    (answers,) = page.all("ul", class_="answers")
    assert "ROSA r=8, every 2 epochs, beside LoRA r=8: better on MRPC, CoLA." in answers.text
    section = next(one for one in page.all("section") if figure in one.all("figure"))
    order = [element.tag for element in section.all("figure", "table")]
    assert order[0] == "figure", "before any table"


def test_one_seed_has_differences_without_intervals_and_says_so() -> None:
    page = parsed(studied(1))
    (figure,) = figures(page, "Difference from LoRA")
    assert "one seed: no interval" in figure.text
    assert "Too few seeds for a test" in page.text


def test_scores_stand_against_ratios_of_costs_to_loras_and_memory_is_a_devices_or_above_the_baseline() -> None:
    found = studied()
    (figure,) = figures(parsed(found), "Score against")
    names = [panel.attributes["aria-label"] for panel in figure.all("svg", role="img")]
    assert names == ["Trainable parameters", "Training state", "Step"]
    page = parsed([run | {"costs": run["costs"] | {"device_bytes": 2**30}} for run in found])
    panels = figures(page, "Score against")[0].all("svg", role="img")
    assert [panel.attributes["aria-label"] for panel in panels] == [*names[:2], "Peak memory", "Step"]
    # MRPC's steps take twice CoLA's; no method differs from LoRA.
    assert {title.text.split(", ")[-1] for title in panels[3].all("title")} == {"1"}
    more = {"checkpoint_bytes": 2**20, "memory_max_bytes": 2**25}
    page = parsed([run | {"costs": run["costs"] | more} for run in found])
    shown = figures(page, "Score against")[0].all("svg", role="img")
    assert [panel.attributes["aria-label"] for panel in shown] == [
        *("Trainable parameters", "Checkpoint", "Training state", "Memory above baseline", "Step"),
    ]
    assert any(
        title.text.startswith("ROSA") and title.text.endswith(f", {4010 / 2010:.3g}")
        for title in panels[0].all("title")
    )


def test_curves_of_all_tasks_are_one_grid_with_one_legend() -> None:
    (figure,) = figures(parsed(studied(tasks=TASKS)), "Score by epoch")
    assert len(figure.all("svg", role="img")) == len(TASKS) < PANELS
    (legend,) = figure.all("ul", class_="legend")
    assert [entry.text.strip() for entry in legend.all("li")] == [
        "Full", "LoRA r=8", "(IA)3", "ROSA r=8, every 2 epochs"
    ]  # fmt: skip


def test_rows_beyond_a_glance_are_not_drawn() -> None:
    methods = [LoraConfig(), *(RosaConfig(every=every) for every in range(ROWS + 1))]
    page = parsed([record(config("rte", method, seed=seed)) for method in methods for seed in (0, 1)])
    assert figures(page, "Difference from LoRA") == []


def test_evidence_comes_first_and_grids_last_whatever_their_names() -> None:
    local = DataConfig(source="local", dir="d")
    tuning = {"experiment": "a-grid", "task": "rte", "seed": 0, "rule": "best", "chosen": 1e-3, "grid": []}
    kinds = {
        "z-four": [config("rte", m, seed=s, data=local, experiment="z-four") for m in METHODS for s in (0, 1)],
        "y-one": [config("rte", m, seed=0, data=local, experiment="y-one") for m in METHODS],
        "x-two": [config("rte", m, seed=s, data=local, experiment="x-two") for m in METHODS[:2] for s in (0, 1)],
        "b-mini": [config("rte", m, experiment="b-mini") for m in METHODS],
        "a-grid": [config("rte", METHODS[1], lr, data=local, experiment="a-grid") for lr in (1e-3, 1e-2)],
    }
    found = [record(one) for several in kinds.values() for one in several]
    found[0]["tuning"] = tuning
    page = page_of(found)
    assert [section.name for section in page.sections] == list(kinds)
    assert [section.group for section in page.sections] == [GROUPS[0]] * 3 + [GROUPS[2], GROUPS[3]]
    text = " ".join(read(html(page)).all("nav")[0].text.split())
    assert text.startswith("In this order: real data, then regressions on vectors, then mini scale")
    assert [section.name for section in page_of(found, experiments=["a-grid", "z-four"]).sections] == [
        "a-grid",
        "z-four",
    ]


# --- for everyone ----------------------------------------------------------------------------------------------------


def test_headings_go_down_one_level_at_a_time(page: Element) -> None:
    levels = [int(element.tag[1]) for element in page.all("h1", "h2", "h3", "h4", "h5", "h6")]
    assert levels.count(1) == 1
    assert levels[0] == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))


def test_landmarks_language_and_names(page: Element) -> None:
    assert page.all("html")[0].attributes["lang"] == "en"
    for landmark in ("header", "nav", "main", "footer"):
        assert len(page.all(landmark)) == 1
    for box in page.all("label"):
        assert len(box.all("input")) == 1
        assert box.text.strip()
    assert len(page.all("input")) == len(page.all("label")) == len(TASKS) + len(METHODS)
    assert all(fieldset.all("legend")[0].text for fieldset in page.all("fieldset"))
    assert all(button.text.strip() for button in page.all("button"))
    ids = {element.attributes.get("id") for element in page.all()}
    for element in page.all():
        if "aria-labelledby" in element.attributes:
            assert element.attributes["aria-labelledby"] in ids


def test_tables_have_captions_and_headings_with_a_scope(page: Element) -> None:
    for table in page.all("table"):
        assert table.all("caption")[0].text
        columns = table.all("thead")[0].all("th")
        assert {cell.attributes["scope"] for cell in columns} == {"col"}
        assert {cell.attributes["aria-sort"] for cell in columns} == {"none"}
        for row in table.all("tbody")[0].all("tr"):
            assert [cell.attributes["scope"] for cell in row.all("th")] == ["row"]
            assert len(row.all("th", "td")) == len(columns)


def colours() -> dict[str, dict[str, str]]:
    """The colours of each scheme: the dark one changes some of the light one's."""
    light, dark = re.findall(r":root \{(.*?)\}", asset("page.css"), re.DOTALL)
    found = {"light": dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", light))}
    return found | {"dark": found["light"] | dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", dark))}


def luminance(colour: str) -> float:
    """Relative luminance as WCAG 2 defines it."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    red, green, blue = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


def test_contrast_is_computed_as_it_should_be() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_can_be_read_on_what_is_behind_it(scheme: str) -> None:
    found = colours()[scheme]
    texts = [(text, ground) for text in ("text", "muted", "link", "bad") for ground in ("ground", "band")]
    texts += [("loud-text", "loud-ground"), ("paper-text", "paper")]
    weak = {pair: contrast(*(found[name] for name in pair)) for pair in texts}
    assert {pair: ratio for pair, ratio in weak.items() if ratio < 4.5} == {}
    shapes = [(name, ground) for name in ("control", "focus") for ground in ("ground", "band")]
    assert min(contrast(found[name], found[ground]) for name, ground in shapes) >= 3
    used = set(re.findall(r"var\(--([\w-]+)\)", asset("page.css")))
    assert used - {"line"} == {name for pair in texts + shapes for name in pair}, "a colour that no pair here checks"


# --- the command -----------------------------------------------------------------------------------------------------


Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def make_report(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Run the script here; its exit status, and what it printed."""

    def run(results: Path, *options: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["make_report.py", "--results", str(results), *options])
        with pytest.raises(SystemExit) as ended:
            runpy.run_path(str(ROOT / "scripts/make_report.py"), run_name="__main__")
        printed = capsys.readouterr()
        return int(ended.value.code or 0), printed.out, printed.err

    return run


def test_the_command_writes_one_file_whose_links_lead_to_records(tmp_path: Path, make_report: Command) -> None:
    for path, run in located(sweep(1)).items():
        records.write(tmp_path / path.parent, run)
    broken = tmp_path / "runs/glue/mini-roberta/cola/full-00000000/seed9/record.json"
    broken.parent.mkdir(parents=True)
    broken.write_text("{")
    status, said, warned = make_report(tmp_path)
    assert status == 0
    assert said.startswith(f"{tmp_path / 'report.html'}: 1 experiment, 12 runs, ")
    assert str(broken) in warned
    page = read((tmp_path / "report.html").read_text())
    assert str(broken) in page.text
    files = [run["file"] for run in data(page)["runs"]]
    assert len(files) == 12
    assert all(json.loads((tmp_path / file).read_text())["command"] for file in files)
    elsewhere = tmp_path / "a/b/report.html"
    assert make_report(tmp_path, "--out", str(elsewhere))[0] == 0
    assert all((elsewhere.parent / run["file"]).is_file() for run in data(read(elsewhere.read_text()))["runs"])


@pytest.mark.parametrize(
    ("options", "expected"),
    [([], "no records under"), (["--experiment", "x"], "no records under")],
)
def test_nothing_to_show_is_said(tmp_path: Path, make_report: Command, options: list[str], expected: str) -> None:
    status, _, warned = make_report(tmp_path, *options)
    assert status != 0
    assert expected in warned
    assert not (tmp_path / "report.html").exists()


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path, make_report: Command) -> None:
    for path, run in located(sweep(1)[:1]).items():
        records.write(tmp_path / path.parent, run)
    (tmp_path / "file").touch()
    status, _, warned = make_report(tmp_path, "--out", str(tmp_path / "file/report.html"))
    assert status == 2
    assert warned.startswith(f"error: --out {tmp_path / 'file'}: cannot be written: ")
