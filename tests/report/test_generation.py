"""The table of a task that writes texts, and headlines of which the lowest is best."""

from __future__ import annotations

import copy
import csv
import io
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import scipy.stats

from rosa import records
from rosa.config import DataConfig, FullConfig, LoraConfig, ModelConfig, RosaConfig
from rosa.errors import SamplesError
from rosa.records import selection
from rosa.report import samples
from rosa.report.comparison import Words
from rosa.report.grouping import compare
from rosa.report.published import read_published
from rosa.report.study import Study
from rosa.report.tables.experiment import tables
from rosa.report.tables.latex import latex
from rosa.report.tables.markdown import markdown
from rosa.report.tables.scores_csv import long_csv
from tests.report.synthetic_records import METHODS, config, record, written
from tests.report.test_tables import LABELS, ROOT, cells, notes, run_script

PERPLEXITY = "Perplexity (validation)"


def run(method: Any, seed: int, perplexity: float, lr: float = 1e-3, **scores: float | None) -> dict[str, Any]:
    return written(record(config("e2e", method, lr, seed)), perplexity, scores)


def four_methods() -> list[dict[str, Any]]:
    generator = np.random.default_rng(0)
    return [
        run(method, seed, 2 + place / 2 + generator.random() / 5, bleu=0.7 - place / 50 + generator.random() / 100)
        for place, method in enumerate(METHODS)
        for seed in (0, 1, 2)
    ]


def made(found: list[dict[str, Any]], rule: str = "best") -> str:
    return "\n".join(map(markdown, tables(Study(found, "glue", rule))))


# --- an error is best where it is lowest -----------------------------------------------------------------------------


def test_the_learning_rate_with_the_lowest_perplexity_is_chosen_and_a_diverged_seed_still_loses():
    grid = {1e-4: (3.0, 3.2), 1e-3: (2.0, 2.4), 1e-2: (2.1, 9.0)}
    found = [run(RosaConfig(), seed, value, lr) for lr, row in grid.items() for seed, value in enumerate(row)]
    chosen, means = selection.select_lr(found)
    assert chosen == 1e-3
    assert {lr: mean for lr, (mean, _) in means.items()} == pytest.approx({lr: np.mean(v) for lr, v in grid.items()})
    infinite = {"type": "DivergedError", "message": "the loss is not finite", "traceback": ""}
    found += [
        run(RosaConfig(), 0, 0.5, 1e-1),
        record(config("e2e", RosaConfig(), 1e-1, 1), status="failed", error=infinite),
    ]
    found[-1]["config"]["task"] = dict(found[0]["config"]["task"])
    assert selection.select_lr(found)[0] == 1e-3


def test_old_records_are_scores_of_which_the_highest_is_best():
    old = record(config("rte"), 0.5)
    old["config"]["task"].pop("lower_is_better", None)
    assert not records.lower_is_better(old)
    assert records.lower_is_better(run(RosaConfig(), 0, 2.0))


def test_bold_is_the_lowest_perplexity_and_underlined_what_is_within_one_deviation():
    values = {"full": (2.00, 2.30), "lora": (2.05, 2.45), "ia3": (2.4, 2.6), "rosa": (2.14, 2.16)}
    found = [run(method, seed, values[method.name][seed]) for method in METHODS for seed in (0, 1)]
    table = cells(made(found))
    shown = {name: table[LABELS[name]][PERPLEXITY] for name in values}
    # The best row's deviation is 0.21: 2.25 is within it, 2.50 is not; 2.15 ties as written.
    assert shown == {
        "full": "**2.15 ± 0.21**",
        "lora": "<u>2.25 ± 0.28</u>",
        "ia3": "2.50 ± 0.14",
        "rosa": "**2.15 ± 0.01**",
    }
    assert "the lower, the better" in made(found)
    assert "the one with the lowest error" in made(found)


# --- the table -------------------------------------------------------------------------------------------------------


def test_every_cell_is_recomputed_from_the_records():
    found = four_methods()
    table = cells(made(found))
    assert list(table) == list(LABELS.values())
    assert list(table["Full"]) == [
        *("Method", "BLEU ×100", "NIST", "METEOR ×100", "ROUGE-L ×100", "CIDEr", PERPLEXITY, "Trainable"),
    ]
    for method in METHODS:
        own = [one for one in found if one["identity"]["method"] == method.name]
        row = table[LABELS[method.name]]
        bleu = 100 * np.array([one["generation"]["scores"]["bleu"] for one in own])
        perplexity = np.array([one["metrics"]["best"]["validation"]["perplexity"] for one in own])
        assert f"{bleu.mean():.1f} ± {bleu.std(ddof=1):.1f}" in row["BLEU ×100"]
        assert f"{perplexity.mean():.2f} ± {perplexity.std(ddof=1):.2f}" in row[PERPLEXITY]
        assert row["CIDEr"] == "**2.25 ± 0.00**"
    assert table["Full"]["BLEU ×100"].startswith("**")
    assert table["Full"][PERPLEXITY].startswith("**")


def test_the_notes_say_what_was_decoded_and_scored_and_how():
    text = notes(made(four_methods()))
    for part in (
        "Decoding: beams 5, length_penalty 1.0, no_repeat_ngram 4.",
        "Scorer: tokenizer PTB, sacrebleu 2.5, lowercase True.",
        "Texts: test, 630 prompts, each decoded once, with the weights of the best epoch",
        "24 texts did not end by themselves and 0 are empty",
        "perplexity (an error: the lower, the better) of E2E NLG",
        "numbers say nothing about E2E NLG",
        "two-sided paired t-test over the seeds that both have, p \\< 0.05; 6 tests of 3 seeds",
        "`python scripts/make_tables.py --experiment glue --rule best`",
    ):
        assert part in text
    other = four_methods()
    other[0]["generation"]["decoding"] = {"beams": 1}
    assert "**Decoding is not equal:** beams 1; beams 5" in made(other)


def test_the_notes_on_texts_are_of_the_tables_own_task():
    both = four_methods()
    sql = copy.deepcopy(both)
    for one in sql:
        one["identity"]["task"] = one["config"]["task"]["name"] = "sql"
        one["config"]["task"]["scorer"] = "sql"
        one["generation"] |= {"scores": {"exact_match": 0.5, "execution": 0.5}, "prompts": 80, "unended": 0}
        options = {"execution": "x"}
        one["generation"]["scorer"] = {"tokenizer": "none", "versions": {}, "options": options, "missing": {}}
    first, second = map(markdown, tables(Study(both + sql, "glue", "best")))
    assert "Scorer: tokenizer PTB, sacrebleu 2.5, lowercase True." in first
    assert "630 prompts" in first
    assert "24 texts did not end" in first
    assert "Scorer: tokenizer none, execution x." in second
    assert "80 prompts" in second
    assert "not equal" not in first + second


def test_a_missing_meteor_is_missing_with_its_reason_and_never_a_number():
    found = four_methods()
    for one in found:
        one["generation"]["scores"]["meteor"] = None
        one["generation"]["scorer"]["missing"] = {"meteor": "Java is not installed: apt install default-jre"}
    text = made(found)
    assert [row["METEOR ×100"] for row in cells(text).values()] == ["—<sup>a</sup>"] * 4
    assert "(a) METEOR is missing: Java is not installed: apt install default-jre." in text


def test_runs_without_texts_and_texts_of_other_weights_are_said():
    found = [run(FullConfig(), seed, 2.0) for seed in (0, 1)] + [run(RosaConfig(), seed, 2.0) for seed in (0, 1)]
    found[1]["generation"] = {}
    del found[3]["generation"]
    text = made(found)
    assert cells(text)["Full"]["BLEU ×100"] == "65.0 (n=1)<sup>a</sup>"
    assert "(a) Finished runs that wrote no texts" in text
    last = made(four_methods(), "last")
    assert cells(last)["Full"]["BLEU ×100"] == "—<sup>a</sup>"
    assert "(a) Texts were written with the weights of the best epoch, not the last one." in last
    assert cells(last)["Full"][PERPLEXITY].startswith("**3.")


def test_the_csv_has_the_scores_of_the_texts_of_losing_learning_rates_too():
    found = [run(method, seed, 2 + lr, lr, bleu=lr) for method in METHODS for lr in (1e-3, 1e-2) for seed in (0, 1)]
    lines = list(csv.DictReader(io.StringIO(long_csv(Study(found, "glue")))))
    bleu = [line for line in lines if line["metric"] == "bleu"]
    assert {(x["method"], x["lr"], x["split"], x["rule"], x["scores"], x["selected"]) for x in bleu} == {
        (method.name, lr, "test", "best", f"{float(lr)} {float(lr)}", str(lr == "1e-3"))
        for method in METHODS
        for lr in ("1e-3", "1e-2")
    }


def test_p_values_are_in_the_csv_exactly():
    found = four_methods()
    lines = list(csv.DictReader(io.StringIO(long_csv(Study(found, "glue")))))
    for metric, split in (("bleu", "test"), ("perplexity", "validation")):
        line = {x["method"]: x for x in lines if (x["metric"], x["split"], x["rule"]) == (metric, split, "best")}
        values = {name: np.array(x["scores"].split(), float) for name, x in line.items()}
        for name in ("full", "ia3", "rosa"):
            expected = scipy.stats.ttest_rel(values[name], values["lora"])
            assert float(line[name]["p_paired_t"]) == pytest.approx(expected.pvalue, rel=1e-9)
            assert float(line[name]["difference_to_lora"]) == pytest.approx(np.mean(values[name] - values["lora"]))
            assert (line[name]["lora_row"], line[name]["pairs"]) == ("LoRA r=8", "3")
        assert line["lora"]["p_paired_t"] == line["lora"]["lora_row"] == ""


def test_published_numbers_of_the_model_stand_beside_those_of_real_data_only():
    published = read_published(ROOT / "results" / "paper" / "e2e_gpt2.csv")
    model = ModelConfig(name="gpt2-medium", source="hub", path="gpt2-medium")
    for source, expected in (("hub", True), ("mini", False)):
        settings = config("e2e", LoraConfig(), model=model, data=DataConfig(source, path="x/e2e"))
        found = [written(record(settings), 2.5)]
        text = markdown(tables(Study(found, "glue"), published)[0])
        assert ("Hu et al. 2021" in text) == expected
    found = [written(record(replace(settings, data=DataConfig("hub", path="x/e2e"))), 2.5)]
    rows = [line for line in markdown(tables(Study(found, "glue"), published)[0]).splitlines() if "| " in line]
    lora = [row.replace(" ", "") for row in rows if row.startswith("| LoRA (")]
    assert [row.split("|")[2] for row in lora] == ["70.4±0.1", "—", "—", "—", "—"]
    # Published perplexities are of another quantity than the headline.
    assert [row.split("|")[7] for row in lora] == ["—"] * 5
    assert [row.split("|")[8].split("<")[0] for row in lora] == ["—", "2.63", "2.68", "2.68", "2.87"]
    assert [row.split("|")[9] for row in lora] == ["0.35M", "4.70M", "9.80M", "20.10M", "40.10M"]


def test_the_authors_perplexity_has_a_column_beside_published_ones_alone():
    published = read_published(ROOT / "results" / "paper" / "e2e_gpt2.csv")
    model = ModelConfig(name="gpt2", source="hub", path="gpt2")
    settings = [
        config("e2e", LoraConfig(), seed=seed, model=model, data=DataConfig("hub", path="x")) for seed in (0, 1)
    ]
    found = [written(record(one), 2.5, {"bleu": 0.5}) for one in settings]
    for number, one in enumerate(found):
        one["generation"]["perplexities"] = {
            "split": "validation", "batch_size": 16, "reference": 2.5, "all_tokens": 1.9, "mean_of_batches": 3 + number,
        }  # fmt: skip
    (table,) = tables(Study(found, "glue"), published)
    assert table.header[-3:] == (PERPLEXITY, "Perplexity by ROSA's code (validation)", "Trainable")
    assert all(len(row) == len(table.header) for row in table.rows)
    assert [table.rows[0][place].text for place in (-3, -2)] == ["2.50 ± 0.00", "3.50 ± 0.71"]
    assert "mean over batches, here of 16 examples, of exp of the mean loss of all tokens" in markdown(table)
    (table,) = tables(Study(found, "glue"))
    assert table.header[-2:] == (PERPLEXITY, "Trainable")
    assert "ROSA's code" not in markdown(table)


def test_texts_and_other_tasks_of_one_experiment_have_tables_of_their_own():
    found = [*four_methods(), record(config("rte"), 0.5)]
    assert [table.name for table in tables(Study(found, "glue"))] == ["glue", "glue-e2e"]


def test_samples_of_several_tasks_are_refused(tmp_path):
    found = [written(record(config(task, RosaConfig())), 3.0) for task in ("e2e", "viggo")]
    for run in found:
        run["data"]["splits"]["test"] = {"rows": 1, "sha256": "x"}
    with pytest.raises(SamplesError, match="decoded different inputs: .*'e2e'.*'viggo'"):
        samples.page(tmp_path, found, "glue", "best", 0, 1, "", lambda config, split: ([], "x"))


def test_the_script_writes_the_same_bytes_again(tmp_path):
    for number, one in enumerate(four_methods()):
        records.write(tmp_path.joinpath("runs", *"abcd", str(number)), one)
    written_files = []
    for _ in range(2):
        done = run_script("--results", str(tmp_path))
        assert done.returncode == 0, done.stderr
        written_files.append({path.name: path.read_bytes() for path in (tmp_path / "tables").iterdir()})
    assert written_files[0] == written_files[1]
    words = Words(("--results", str(tmp_path)))
    study = Study(four_methods(), "glue", words=words)
    assert written_files[0]["glue.tex"].decode() == "\n".join(map(latex, tables(study)))


def test_a_mixed_scale_has_no_average():
    found = [*four_methods(), record(config("rte"), 0.5)]
    for one in found:
        one["config"]["task"]["kind"] = "classification"
    table = made(found)
    assert "Average" not in table
    assert compare(found, "glue").tasks[1].lower_is_better
