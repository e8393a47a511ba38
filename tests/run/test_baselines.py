"""scripts/make_baselines.py on the records of runs: once for all runs on the same rows, and on no other rows."""

from __future__ import annotations

from pathlib import Path

import pytest

from rosa import records
from rosa.config import Config
from rosa.data import e2e, load
from rosa.evaluation import answers, classification
from rosa.evaluation.baselines import retrieve
from rosa.records import baselines
from rosa.run import baselines as run_baselines
from tests import causal
from tests.commands import Ended, command
from tests.conftest import ROOT, Composer


def finished(config: Config) -> None:
    """Write the record of a run as if it had been done: settings and data are real, scores are not."""
    read = e2e.load if config.task.kind == "generation" else load
    facts = read(config.task, config.data, config.seed, config.holdout_share).facts
    split, metric = config.evaluated[0], config.task.headline
    scores = {"epoch": 1.0, "step": 1, **{name: {metric: 0.5} for name in config.evaluated}}
    record = records.new(config, "python scripts/train.py") | {
        "status": "done",
        "data": facts,
        "metrics": {"best": scores, "last": scores, "selection": {"split": split, "metric": metric, "rule": "x"}},
    }
    records.write(records.folder(config), record)


def make(results: Path, *arguments: str) -> Ended:
    words = (ROOT / "scripts" / "make_baselines.py", "--results", results, *arguments)
    # Without Java, METEOR has no value, and costs no time.
    return command(*words, cwd=results.parent, environment={"PATH": "", "PYTHONPATH": str(ROOT)})


def test_made_once_for_all_runs_on_the_same_rows(composed: Composer, tmp_path: Path) -> None:
    (tmp_path / "e2e").mkdir()
    folder = causal.write_e2e(tmp_path / "e2e")
    shared = [
        composed("task=rte", f"seed={seed}", f"method={method}") for seed in (0, 1) for method in ("full", "lora")
    ]
    drawn = [composed("task=cola", f"seed={seed}", "data.limit=50") for seed in (0, 1)]
    texts = composed("task=e2e", "data=local", f"data.dir={folder}")
    for config in (*shared, *drawn, texts):
        finished(config)
    results = Path(texts.results_dir)
    done = make(results)
    assert done.returncode == 0, done.stderr
    found, problems = baselines.find(results)
    assert not problems
    forms = sorted((record["data"]["task"], len(record["forms"])) for record in found.values())
    assert forms == [("cola", 2), ("cola", 2), ("e2e", 1), ("rte", 5)]
    (retrieval,) = next(record["forms"] for record in found.values() if record["data"]["task"] == "e2e")
    assert 0 <= retrieval["scores"]["test"]["bleu"] <= 1
    assert retrieval["scores"]["test"]["meteor"] is None
    # Each run finds its own, and a second call has nothing to do.
    runs, _ = records.find(results)
    assert {baselines.hash_of(key) for run in runs if (key := baselines.key_of_run(run))} == set(found)
    assert make(results).stdout == ""


@pytest.mark.parametrize(
    ("task", "scores"),
    [
        ("gsm8k", {"exact_match"}),
        ("viggo", {"exact_match", "slot_f1"}),
        ("sql", {"exact_match", "execution"}),
        ("cola", set(classification.METRICS) - {"pearson", "spearmanr"}),
        ("mnli", {"accuracy", "matthews_correlation"}),
        ("stsb", {"pearson", "spearmanr"}),
    ],
)
def test_baselines_have_the_scores_of_every_run_on_their_rows(task: str, scores: set[str], composed: Composer) -> None:
    config = composed(f"task={task}", "data.limit=40")
    finished(config)
    results = Path(config.results_dir)
    path = run_baselines.make(config, results, "python scripts/make_baselines.py")
    made = baselines.read(path)
    assert {name for form in made["forms"] for split in form["scores"].values() for name in split} == scores
    (run,), _ = records.find(results)
    assert baselines.key_of_run(run) == made["data"]
    if config.task.kind == "generation":  # the retrieved answer of the first prompt, by the scorer itself
        texts = e2e.load(config.task, config.drawn_data, config.seed)
        groups = texts.groups["test"]
        found = retrieve([group.mr for group in groups], *(texts.train[name][:] for name in e2e.PAIR_COLUMNS))
        right = answers.score(
            config.task.scorer, [group.mr for group in groups], found, [group.references for group in groups]
        )
        assert made["forms"][0]["scores"]["test"] == right.scores


def test_rows_that_are_not_the_records_are_refused(composed: Composer, tmp_path: Path) -> None:
    (tmp_path / "e2e").mkdir()
    folder = causal.write_e2e(tmp_path / "e2e")
    config = composed("task=e2e", "data=local", f"data.dir={folder}")
    finished(config)
    file = folder / "devset.csv"
    file.write_text(file.read_text() + "name[Other],Other.\n")
    results = Path(config.results_dir)
    done = make(results)
    assert done.returncode == 1
    assert "left out: run default/tiny/e2e" in done.stderr
    assert "the rows that can be read now are not those of the record" in done.stderr
    assert baselines.find(results) == ({}, [])
    assert "experiment 'other' has no records; there are: default" in make(results, "--experiment", "other").stderr
