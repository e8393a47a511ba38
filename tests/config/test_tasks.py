"""The nine tasks of GLUE, E2E and the decoding presets, against their published definitions.

Columns, label order and numbers of rows are those of the hub's cards of nyu-mll/glue and tuetschek/e2e_nlg; files are
those of the official download (gluebenchmark.com), with the columns of their header lines. Metrics are those of Wang et
al. (2019), table 1; headlines those of Hu et al. (2022), table 2.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from rosa.config import DecodingConfig
from tests.composing import compose_config

ROOT = Path(__file__).resolve().parents[2]
NOT_FIRST = ["not_entailment", "entailment"]
ENTAILMENT_FIRST = ["entailment", "not_entailment"]

# name: hub columns, labels by number, metrics, headline, rows of train and evaluation, folder, its text, label columns
GLUE = {
    "cola": (["sentence"], ["unacceptable", "acceptable"], ["matthews_correlation"], "matthews_correlation",
             [8551, 1043], "CoLA", ["sentence"], "label"),
    "sst2": (["sentence"], ["negative", "positive"], ["accuracy"], "accuracy",
             [67349, 872], "SST-2", ["sentence"], "label"),
    "mrpc": (["sentence1", "sentence2"], ["not_equivalent", "equivalent"], ["accuracy", "f1"], "accuracy",
             [3668, 408], "MRPC", ["#1 String", "#2 String"], "Quality"),
    "qqp": (["question1", "question2"], ["not_duplicate", "duplicate"], ["accuracy", "f1"], "accuracy",
            [363846, 40430], "QQP", ["question1", "question2"], "is_duplicate"),
    "stsb": (["sentence1", "sentence2"], [], ["pearson", "spearmanr"], "pearson",
             [5749, 1500], "STS-B", ["sentence1", "sentence2"], "score"),
    "mnli": (["premise", "hypothesis"], ["entailment", "neutral", "contradiction"], ["accuracy"], "accuracy",
             [392702, 9815, 9832], "MNLI", ["sentence1", "sentence2"], "gold_label"),
    "qnli": (["question", "sentence"], ENTAILMENT_FIRST, ["accuracy"], "accuracy",
             [104743, 5463], "QNLI", ["question", "sentence"], "label"),
    "rte": (["sentence1", "sentence2"], ENTAILMENT_FIRST, ["accuracy"], "accuracy",
            [2490, 277], "RTE", ["sentence1", "sentence2"], "label"),
    "wnli": (["sentence1", "sentence2"], NOT_FIRST, ["accuracy"], "accuracy",
             [635, 71], "WNLI", ["sentence1", "sentence2"], "label"),
}  # fmt: skip
MNLI_SPLITS = {"validation_matched": "dev_matched.tsv", "validation_mismatched": "dev_mismatched.tsv"}


@pytest.mark.parametrize("name", GLUE)
def test_a_task_of_glue_is_as_its_sources_have_it(name: str) -> None:
    task = compose_config(f"task={name}", "model=mini-roberta").task
    columns, labels, metrics, headline, rows, folder, file_columns, label = GLUE[name]
    evaluation = MNLI_SPLITS if name == "mnli" else {"validation": "dev.tsv"}
    assert task.name == name
    assert task.kind == ("regression" if name == "stsb" else "classification")
    assert (task.texts, task.label, task.labels) == (columns, "label", labels)
    assert task.label_range == ([0, 5] if name == "stsb" else [])
    assert (task.metrics, task.headline, task.lower_is_better) == (metrics, headline, False)
    assert task.evaluation == list(evaluation), "selection is on the first"
    assert task.rows == dict(zip(["train", *evaluation], rows, strict=True))
    local = task.local
    assert (local.folder, local.train, local.evaluation) == (folder, "train.tsv", evaluation)
    assert (local.texts, local.label) == (file_columns, label)
    assert local.columns == (["source", "label", "original_mark", "sentence"] if name == "cola" else [])
    assert (task.hub.path, task.hub.name) == ("nyu-mll/glue", "")
    assert task.hub.revision == "bcdcba79d07bc864c1c254ccfcedcce55bcc9a8c"


def test_e2e_is_as_its_sources_have_it() -> None:
    """The test split is separate from the evaluation splits."""
    task = compose_config("task=e2e", "model=mini-gpt2").task
    assert task.prompt == "Input: {given} Output:"
    assert (task.texts, task.loss_on) == (["meaning_representation", "human_reference"], "reference")
    assert (task.metrics, task.headline, task.lower_is_better) == (["perplexity", "bits_per_token"], "perplexity", True)
    assert (task.evaluation, task.test) == (["validation"], "test")
    assert task.rows == {"train": 42061, "validation": 4672, "test": 4693}
    assert task.local.train == "trainset.csv"
    assert task.local.evaluation == {"validation": "devset.csv", "test": "testset_w_refs.csv"}
    assert task.local.texts == ["mr", "ref"]
    assert (task.hub.path, task.hub.name) == ("tuetschek/e2e_nlg", "default")
    assert task.hub.revision == "5061e4307d2e553f9b51ccb73998d7039fe6ed90"


@pytest.mark.parametrize(
    ("preset", "expected"),
    [
        # ROSA's released code: num_beams=5, no_repeat_ngram_size=4, length_penalty=1.0.
        ("reference", DecodingConfig(5, 1.0, 4, True, 128)),
        # LoRA's gpt2_beam.py: --beam 10 --length_penalty 0.8 --no_repeat_ngram_size 4.
        ("lora", DecodingConfig(10, 0.8, 4, False, 128)),
        ("greedy", DecodingConfig(1, 1.0, 0, False, 128)),
    ],
)
def test_a_decoding_preset_is_as_its_source_has_it(preset: str, expected: DecodingConfig) -> None:
    assert compose_config("task=e2e", "model=mini-gpt2", f"decoding={preset}").decoding == expected


@pytest.mark.parametrize("task", ["gsm8k", "viggo", "sql"])
def test_the_tasks_of_robust_adaptation_decode_greedily_unless_asked_otherwise(task: str) -> None:
    assert compose_config(f"task={task}", "model=mini-gpt2").decoding.beams == 1
    assert compose_config("experiment=e2e_mini_base", f"task={task}").decoding.beams == 1
    assert compose_config(f"task={task}", "model=mini-gpt2", "decoding=lora").decoding.beams == 10
