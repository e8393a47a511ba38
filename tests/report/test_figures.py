"""Figures: their CSV recomputed from the records, and their files read by other libraries."""

from __future__ import annotations

import csv
import io
import itertools
import random
import re
import shutil
import statistics
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import make_figures
import pytest
from matplotlib.figure import Figure

from rosa import records
from rosa.config import FullConfig, IA3Config, LoraConfig, MethodConfig, ModelConfig, RosaConfig, to_dict
from rosa.errors import OutputError, ReportError
from rosa.report.ablations import groups, name, reference, value
from rosa.report.comparison import Row
from rosa.report.figures.ablation import ablation
from rosa.report.figures.curves import curves
from rosa.report.figures.diagnostics import arrange, diagnostics
from rosa.report.figures.style import Picture
from rosa.report.grouping import compare
from rosa.report.looks import selections
from tests.commands import Ended, command
from tests.report.synthetic_records import config, record

ROOT = Path(__file__).resolve().parents[2]
START = RosaConfig(every=1)
SAMPLING = [RosaConfig(every=1, sampling=one) for one in ("random", "top", "bottom", "window")]
SQUARE = [
    RosaConfig(every=every, factorization=one)
    for one, every in itertools.product(("svd_equal", "random_orthogonal", "random_add", "svd_add"), (0, 1))
]
RANKS: list[MethodConfig] = [
    *(RosaConfig(every=1, rank=rank) for rank in (2, 8, 16)),
    *(LoraConfig(rank=rank) for rank in (2, 8, 16)),
]
LAYERS = [
    f"roberta.encoder.layer.{depth}.attention.{kind}" for depth in (0, 1) for kind in ("self.query", "output.dense")
]


def done(
    method: MethodConfig, seed: int = 0, task: str = "cola", model: ModelConfig | None = None, epochs: int = 3
) -> dict[str, Any]:
    """A finished run with a history, and diagnostics where the method adds to weights."""
    made = record(config(task, method, seed=seed, experiment="study", model=model))
    rng = random.Random(str(made["identity"]))
    split, metrics = "validation", made["config"]["task"]["metrics"]
    made["history"] = [
        {"epoch": float(e), "step": 10 * e, split: {m: rng.random() for m in metrics} | {"loss": 2 * rng.random()}}
        for e in range(1, epochs + 1)
    ]
    best = max(made["history"], key=lambda entry: entry[split][metrics[0]])
    made["metrics"] |= {"best": best, "last": made["history"][-1]}
    options = made["config"]["method"]
    if options["name"] in ("rosa", "lora"):
        adapted = {"kind": "Linear", "shape": [8, 8], "rank": options["rank"], "trainable": 16}
        made["adapted"] = [{"name": layer} | adapted for layer in LAYERS]
        change = {"full_rank": 8, "rank": 4, "norm": 1.0, "relative_norm": 0.5}
        seen = options["name"] == "rosa" and options["factorization"].startswith("svd")
        made["diagnostics"] = {
            "layers": [
                change | {"name": layer, "effective_rank": 9 * rng.random(), "visited": rng.random() if seen else None}
                for layer in LAYERS
            ]
        }
    if options["name"] == "rosa":
        times = (epochs - 1) // options["every"] if options["every"] else 0
        ends = [{"step": 10 * (i + 1), "epoch": i + 1.0, "subspace_moved": numbers(rng)} for i in range(times + 1)]
        made["diagnostics"]["last_subspace"] = ends.pop()
        for event in ends:
            event |= {"resample_layers": len(LAYERS), "resample_seconds": 0.5, "factorization_seconds": numbers(rng)}
        made["resamples"] = ends
    return made


def numbers(rng: random.Random) -> list[float]:
    return [rng.random() for _ in LAYERS]


def study(seeds: int = 2, tasks: tuple[str, ...] = ("cola", "stsb")) -> list[dict[str, Any]]:
    methods = {str(method): method for method in [*SAMPLING, *SQUARE, RosaConfig(every=2), *RANKS]}
    return [done(m, seed, task) for m, seed, task in itertools.product(methods.values(), range(seeds), tasks)]


def lines(picture: Picture) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(picture.table().decode())))


def own(found: list[dict[str, Any]], method: MethodConfig, task: str) -> list[dict[str, Any]]:
    """The runs of a method and task, by their configuration."""
    wanted = to_dict(method)
    return [one for one in found if (one["config"]["method"], one["identity"]["task"]) == (wanted, task)]


# --- one setting at a time -------------------------------------------------------------------------------------------


def rows_of(methods: list[MethodConfig]) -> list[Row]:
    return list(compare([done(method) for method in methods], "study").rows)


@pytest.mark.parametrize("seed", range(8))
def test_the_groups_are_those_of_a_brute_force(seed):
    rng = random.Random(seed)
    every_method: list[MethodConfig] = [
        RosaConfig(rank=rank, every=every, sampling=sampling, train=train)
        for rank, every in itertools.product((2, 8), (0, 1, 2))
        for sampling, train in itertools.product(("random", "top", "bottom"), ("a", "b"))
    ]
    every_method += [LoraConfig(rank=rank, alpha=alpha) for rank in (1, 2, 4) for alpha in (8.0, 16.0)]
    rows = rows_of(rng.sample(every_method, 14))
    found = groups(rows)
    for varied in ("method.rank", "method.every", "method.sampling", "method.train", "method.alpha"):
        expected = set()
        for method in ("rosa", "lora"):
            candidates = [row for row in rows if row.method == method and varied in row.settings]
            # Two rows are neighbours if the setting is all that they differ by; being so is transitive.
            alone = {
                frozenset(
                    other.label
                    for other in candidates
                    if all(other.settings[key] == row.settings[key] for key in row.settings if key != varied)
                )
                for row in candidates
            }
            largest = max(map(len, alone), default=0)
            expected |= {labels for labels in alone if len(labels) == largest > 1}
        assert {frozenset(row.label for row in group.rows) for group in found.get(varied, ())} == expected
    assert not found.keys() - {"method.rank", "method.every", "method.sampling", "method.train", "method.alpha"}


def test_values_series_and_the_reference_of_the_ablations():
    rows = list(compare(study(1, ("cola",)), "study").rows)
    found = groups(rows)
    shown = {
        name(varied): {group.label: [value(row, varied) for row in group.rows] for group in members}
        for varied, members in found.items()
    }
    factorizations = ["svd_equal", "random_add", "random_orthogonal", "svd_add"]
    assert shown == {
        "rank": {"ROSA": ["2", "8", "16"], "LoRA": ["2", "8", "16"]},
        "factorization": {"never resampled": factorizations, "every 1 epoch": factorizations},
        "resampling": {"": ["never", "every 1 epoch", "every 2 epochs"]},
        "sampling": {"": ["random", "bottom", "top", "window"]},
    }
    start = reference(rows)
    assert start is not None
    assert start.label == "ROSA r=8, every 1 epoch"


def test_a_period_and_its_unit_are_one_setting():
    rows = rows_of([RosaConfig(every=20, unit="step"), RosaConfig(every=1), RosaConfig(every=0)])
    (group,) = groups(rows)["method.every"]
    assert [value(row, "method.every") for row in group.rows] == ["never", "every 1 epoch", "every 20 steps"]


def test_rows_that_differ_by_two_settings_are_no_ablation():
    found = [done(RosaConfig(rank=2)), done(RosaConfig(rank=8, sampling="top")), done(FullConfig())]
    pictures, left_out = ablation(compare(found, "study"))
    assert not pictures
    assert left_out == ["no two rows differ by one setting alone"]


# --- the numbers -----------------------------------------------------------------------------------------------------


def test_the_ablation_has_the_seeds_scores_and_their_mean():
    found = study()
    found = [one for one in found if one not in own(found, SAMPLING[1], "stsb")]
    (lost,) = [one for one in own(found, SAMPLING[3], "cola") if one["identity"]["seed"] == 1]
    found[found.index(lost)] = record(config("cola", SAMPLING[3], seed=1, experiment="study"), status="failed")
    (picture,), _ = ablation(compare(found, "study"))
    written = lines(picture)
    for method, task in itertools.product(SAMPLING, ("cola", "stsb")):
        (line,) = [
            line
            for line in written
            if (line["factor"], line["value"], line["task"]) == ("method.sampling", method.sampling, task)
        ]
        metric = {"cola": "matthews_correlation", "stsb": "pearson"}[task]
        runs = [one for one in own(found, method, task) if one["status"] == "done"]
        scores = [max(entry["validation"][metric] for entry in one["history"]) for one in runs]
        assert [float(score) for score in line["scores"].split()] == scores
        assert int(line["n"]) == len(scores)
        assert line["mean"] == (str(statistics.fmean(scores)) if scores else "")
        assert line["failed_seeds"] == ("1" if (method.sampling, task) == ("window", "cola") else "")
        assert line["reference"] == str(method == START)
    # 4 samplings, 2 x 4 factorizations, 3 periods, 2 x 3 ranks, of two tasks each
    assert len(written) == 2 * (4 + 8 + 3 + 6)
    texts = svg_texts(picture)
    assert {"no run", "n = 1", "random_orthogonal", "every 2 epochs", "CoLA", "STS-B", "LoRA"} <= set(texts)


@pytest.mark.parametrize("metric", ["headline", "loss"])
def test_the_curves_have_mean_and_range_after_each_epoch(metric):
    methods = [START, LoraConfig(), FullConfig(), IA3Config()]
    found = [done(m, seed, task) for m, seed, task in itertools.product(methods, range(3), ("cola", "stsb"))]
    found[0]["history"][1]["validation"]["loss"] = None  # a loss that was no number
    (picture,), left_out = curves(compare(found, "study"), metric)
    assert not left_out
    assert picture.name == "study/mini-roberta-curves" + ("" if metric == "headline" else "-loss")
    written = lines(picture)
    assert len(written) == 4 * 2 * 3
    label = {"ROSA r=8, every 1 epoch": START, "LoRA r=8": methods[1], "Full": methods[2], "(IA)3": methods[3]}
    for line in written:
        key = {"cola": "matthews_correlation", "stsb": "pearson"}[line["task"]] if metric == "headline" else "loss"
        values = [
            entry["validation"][key]
            for one in own(found, label[line["row"]], line["task"])
            for entry in one["history"]
            if entry["epoch"] == float(line["epoch"])
        ]
        values = [one for one in values if one is not None]
        assert [float(one) for one in line["values"].split()] == values
        assert (float(line["lowest"]), float(line["highest"])) == (min(values), max(values))
        assert float(line["mean"]) == pytest.approx(statistics.fmean(values))
    assert ("2" in {line["n"] for line in written}) == (metric == "loss")
    drawn = {axes.get_yscale() for axes in picture.drawing.axes}
    assert drawn == {"log" if metric == "loss" else "linear"}


def test_many_rows_are_shown_by_what_varies():
    (picture,), left_out = curves(compare(study(1, ("cola",)), "study"))
    assert not left_out
    panels = {line["panel"] for line in lines(picture)}
    assert panels == {
        "rank (LoRA)", "rank (ROSA)", "factorization (never resampled)", "factorization (every 1 epoch)",
        "resampling", "sampling",
    }  # fmt: skip


def test_methods_of_one_rank_stand_in_one_panel():
    ranks = (1, 2, 4, 8)
    methods = [FullConfig(), *(LoraConfig(rank=rank) for rank in ranks)]
    methods += [RosaConfig(every=1, rank=rank, factorization=f) for rank in ranks for f in ("svd_equal", "random_add")]
    chosen = selections(compare([record(config("cola", method)) for method in methods], "glue").rows)
    assert [one.title for one in chosen] == [f"rank {rank}" for rank in ranks]
    labels = ("Full", "LoRA", "ROSA, every 1 epoch", "ROSA, every 1 epoch, random_add")
    assert {one.labels for one in chosen} == {labels}


def test_what_varies_in_rosa_is_shown_beside_the_lora_that_it_is_compared_with():
    rows = compare(study(1, ("cola",)), "study").rows
    shown = {one.title: [row.method for row in one.rows] for one in selections(rows)}
    assert "lora" in shown["sampling"]
    assert shown["rank (ROSA)"].count("lora") == shown["rank (LoRA)"].count("lora")


def test_full_fine_tuning_does_not_squash_the_adapters():
    far = done(FullConfig())
    for entry in far["history"]:
        entry["validation"]["loss"] = 1e-9
    (picture,), _ = curves(compare([done(START), done(LoraConfig()), far], "study"), "loss")
    near = [float(x) for line in lines(picture) if line["row"] != "Full" for x in line["values"].split()]
    low, high = picture.drawing.axes[0].get_ylim()
    assert low > min(near) / 2
    assert high < max(near) * 2
    assert min(near) > low
    assert "full fine-tuning may leave them" in picture.drawing.get_suptitle()


def test_no_adapter_leaves_the_panels_of_a_task_which_have_one_scale():
    """The highest and the lowest of them stand in different panels."""
    found = study(1, ("cola",))
    for one in found:
        rank = one["config"]["method"].get("rank")
        for entry in one["history"]:
            entry["validation"]["matthews_correlation"] += {2: -3, 16: 3}.get(rank, 0)
    (picture,), _ = curves(compare(found, "study"))
    shown = [float(x) * 100 for line in lines(picture) for x in line["values"].split()]
    (low, high), *others = [axes.get_ylim() for axes in picture.drawing.axes]
    assert set(others) == {(low, high)}
    assert low < min(shown) < max(shown) < high


def test_the_diagnostics_of_each_layer():
    methods = [START, RosaConfig(every=1, factorization="random_add"), LoraConfig()]
    found = [done(method, seed) for method in methods for seed in (0, 1)]
    (picture,), left_out = diagnostics(compare([*found, done(IA3Config())], "study"))
    assert not left_out
    written = {(x["row"], x["layer"], x["quantity"], x["subspace"]): x for x in lines(picture)}
    label = {
        "ROSA r=8, every 1 epoch": START,
        "ROSA r=8, every 1 epoch, random_add": methods[1],
        "LoRA r=8": methods[2],
    }
    expected: dict[tuple[str, str, str, str], list[float]] = {}
    for row, method in label.items():
        for one in own(found, method, "cola"):
            for place, layer in enumerate(LAYERS):
                facts = one["diagnostics"]["layers"][place]
                expected.setdefault((row, layer, "effective_rank", ""), []).append(facts["effective_rank"])
                if facts["visited"] is not None:
                    expected.setdefault((row, layer, "visited", ""), []).append(facts["visited"])
                seconds = [event["factorization_seconds"][place] for event in one["resamples"]]
                if seconds:
                    milliseconds = expected.setdefault((row, layer, "factorization_ms", ""), [])
                    milliseconds.append(1000 * statistics.fmean(seconds))
                last = [one["diagnostics"]["last_subspace"]] if "last_subspace" in one["diagnostics"] else []
                for number, event in enumerate([*one["resamples"], *last], 1):
                    key = (row, layer, "subspace_moved", str(number))
                    expected.setdefault(key, []).append(event["subspace_moved"][place])
    assert written.keys() == expected.keys()
    for key, values in expected.items():
        assert [float(one) for one in written[key]["values"].split()] == pytest.approx(values)
        assert float(written[key]["mean"]) == pytest.approx(statistics.fmean(values))
    assert {line["kind"] for line in written.values()} == {"self.query", "output.dense"}


@pytest.mark.parametrize(
    ("names", "kinds", "depths"),
    [
        (LAYERS, ["self.query"] * 2 + ["output.dense"] * 2, ["0", "1"] * 2),
        ([f"transformer.h.{i}.attn.{k}" for i in range(2) for k in ("c_attn", "c_proj")],
         ["c_attn"] * 2 + ["c_proj"] * 2, ["0", "1"] * 2),
        (["encoder.block.3.layer.0.SelfAttention.q", "decoder.block.3.layer.0.SelfAttention.q"],
         ["encoder.block.layer.0.SelfAttention.q", "decoder.block.layer.0.SelfAttention.q"], ["3", "3"]),
        (["linear"], ["linear"], [""]),
        (["h.10.q", "h.11.q"], ["q", "q"], ["10", "11"]),
    ],
)  # fmt: skip
def test_layers_are_grouped_by_kind(names, kinds, depths):
    layers = arrange(names)
    assert [layer.kind for layer in layers] == kinds
    assert [layer.depth for layer in layers] == depths
    places = [layer.place for layer in layers]
    for (one, first), (two, second) in itertools.pairwise(zip(layers, places, strict=True)):
        assert second - first == (1 if one.kind == two.kind else 2)


# --- what is missing -------------------------------------------------------------------------------------------------


def test_records_older_than_the_diagnostics_are_counted_and_left_out():
    old, new = done(LoraConfig()), done(START)
    del old["diagnostics"]
    (picture,), left_out = diagnostics(compare([old, new], "study"))
    assert left_out == ["CoLA: 1 runs without diagnostics, from an older version"]
    assert {line["row"] for line in lines(picture)} == {"ROSA r=8, every 1 epoch"}
    assert diagnostics(compare([old], "study"))[0] == []
    assert diagnostics(compare([done(IA3Config())], "study")) == ([], ["no finished run has diagnostics"])


def test_lists_that_do_not_fit_the_layers_name_the_run():
    broken = done(START)
    broken["resamples"][1]["subspace_moved"].pop()
    with pytest.raises(ReportError, match=r"run study/.*seed0: subspace_moved at step 20 has 3 numbers, .* 4 adapted"):
        diagnostics(compare([broken], "study"))


def test_a_metric_that_no_run_has_is_said():
    assert curves(compare([done(START)], "study"), "bleu") == ([], ["no finished run has bleu in its history"])


def test_one_seed_has_no_spread_and_the_caption_says_which():
    found = [done(method) for method in (START, RosaConfig(every=1, sampling="top"))]
    comparison = compare(found, "study")
    for picture in (*ablation(comparison)[0], *curves(comparison)[0], *diagnostics(comparison)[0]):
        text = " ".join(svg_texts(picture))
        assert "seed 0 (n\N{NO-BREAK SPACE}=\N{NO-BREAK SPACE}1)" in text
        assert "lowest" not in text
        assert all(line["n"] == "1" for line in lines(picture))


# --- the files -------------------------------------------------------------------------------------------------------


def svg_texts(picture: Picture) -> list[str]:
    """The texts of the svg, which must parse."""
    root = ElementTree.fromstring(picture.image("svg"))
    return ["".join(element.itertext()) for element in root.iter("{http://www.w3.org/2000/svg}text")]


def test_the_same_records_in_any_order_give_the_same_bytes(tmp_path):
    found = [done(method, seed) for method in (*SAMPLING[:2], LoraConfig()) for seed in (0, 1)]
    outputs = []
    for turn in ("first", "second"):
        comparison = compare(found, "study")
        pictures = [*ablation(comparison)[0], *curves(comparison)[0], *diagnostics(comparison)[0]]
        paths = [path for picture in pictures for path in picture.write(tmp_path / turn)]
        outputs.append({path.relative_to(tmp_path / turn): path.read_bytes() for path in paths})
        assert [picture.image("svg") for picture in pictures] == [path.read_bytes() for path in paths[1::2]]
        found.reverse()
    assert len(outputs[0]) == 3 * 2
    assert outputs[0] == outputs[1]


def test_a_picture_is_laid_out_once_and_drawn_once_a_format(monkeypatch, tmp_path):
    drawn = []
    draw = Figure.draw

    def counted(self, renderer):
        drawn.append(type(renderer).__name__)
        return draw(self, renderer)

    monkeypatch.setattr(Figure, "draw", counted)
    (picture,), _ = curves(compare([done(START)], "study"))
    picture.write(tmp_path, ["svg", "png", "pdf"])
    assert drawn == ["MixedModeRenderer", "RendererAgg", "MixedModeRenderer"]
    assert (tmp_path / f"{picture.name}.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / f"{picture.name}.pdf").read_bytes().startswith(b"%PDF")


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (picture,), _ = curves(compare([done(START)], "study"))
    (tmp_path / "study").write_text("a file where the folder should be")
    with pytest.raises(OutputError, match=r"study/mini-roberta-curves\.csv: cannot be written"):
        picture.write(tmp_path)


def run_script(*arguments: str) -> Ended:
    return command("scripts/make_figures.py", *arguments, light=True)


@pytest.mark.slow
def test_the_script_writes_a_set_for_each_model_and_leaves_out_what_it_cannot_read(tmp_path):
    other = ModelConfig(name="org/other", source="hub", path="org/other")
    found = [done(m, model=model) for m in (START, RosaConfig(every=1, rank=2)) for model in (None, other)]
    for number, one in enumerate([*found, done(FullConfig(), task="rte", epochs=1)]):
        records.write(tmp_path / "records" / str(number), one)
    (tmp_path / "records" / "broken.json").write_text("{")
    result = run_script("--results", str(tmp_path), "--figure", "ablation", "diagnostics", "--format", "svg", "pdf")
    assert result.returncode == 0, result.stderr
    assert f"left out: {tmp_path / 'records' / 'broken.json'}: not a readable record" in result.stderr
    written = sorted(str(path.relative_to(tmp_path / "figures")) for path in (tmp_path / "figures").rglob("*.*"))
    stems = [
        f"study/{model}-{kind}" for model in ("mini-roberta", "org--other") for kind in ("ablation", "diagnostics-cola")
    ]
    assert written == sorted(f"{stem}.{ending}" for stem in stems for ending in ("csv", "pdf", "svg"))
    assert sorted(result.stdout.split()) == sorted(f"{tmp_path / 'figures' / stem}.{{csv,svg,pdf}}" for stem in stems)

    result = run_script("--results", str(tmp_path), "--experiment", "nothing")
    assert result.returncode == 2
    assert "error: experiment 'nothing' has no records; there are: study" in result.stderr


def test_figures_that_the_records_no_longer_give_are_removed(tmp_path, capsys):
    def draw(found: list[dict[str, Any]], formats: list[str]) -> set[str]:
        shutil.rmtree(tmp_path / "records", ignore_errors=True)
        for number, one in enumerate(found):
            records.write(tmp_path / "records" / str(number), one)
        make_figures.STUDIES.clear()
        for kind in ("ablation", "curves"):
            make_figures.draw((tmp_path, "study", None, "instead", kind, ["loss"], tmp_path / "figures", formats))
        return {path.name for path in (tmp_path / "figures" / "study").iterdir()}

    both = [done(START), done(RosaConfig(every=1, rank=2))]
    ablations = {f"mini-roberta-ablation.{ending}" for ending in ("csv", "svg", "png")}
    losses = {f"mini-roberta-curves-loss.{ending}" for ending in ("csv", "svg", "png")}
    assert draw(both, ["svg", "png"]) == ablations | losses
    kept = {"mini-roberta-curves.csv", "mini-roberta-quality.svg", "mini-roberta-ablation.txt", "ablation.csv"}
    for file in kept:  # of another metric, of a kind that is not asked for, and a user's own
        (tmp_path / "figures" / "study" / file).write_text("")
    assert draw(both, ["svg"]) == ablations | losses | kept
    assert "removed" not in capsys.readouterr().err
    assert draw(both[:1], ["svg"]) == losses | kept
    said = capsys.readouterr().err.splitlines()
    assert {line.split(",")[0] for line in said} == {
        f"removed: {tmp_path / 'figures' / 'study' / file}" for file in ablations
    }


@pytest.mark.parametrize("kind", make_figures.FIGURES)
def test_the_endings_of_a_kind_are_those_of_its_files(kind):
    """What a kind removes is its own: each committed figure is of one kind, with all metrics of the curves."""
    metrics = ["headline", "loss"]
    ending = make_figures.endings(kind, metrics)
    others = [make_figures.endings(other, metrics) for other in make_figures.FIGURES if other != kind]
    stems = [path.stem for path in (ROOT / "results" / "figures").rglob("*-*.csv") if path.parent.name != "costs"]
    own = [stem for stem in stems if re.fullmatch(f".+-({ending})", stem)]
    assert own
    assert not [stem for stem in own for other in others if re.fullmatch(f".+-({other})", stem)]


@pytest.mark.slow
def test_the_script_says_when_there_is_nothing_to_show(tmp_path):
    result = run_script("--results", str(tmp_path))
    assert (result.returncode, result.stdout) == (2, "")
    assert f"no records under {tmp_path}" in result.stderr
