"""Time scoring of generated texts: E2E's without METEOR, and the answers to the tasks of RoSA's paper.

E2E's texts are tokenized in one Java process, where the packages start two.
"""

from __future__ import annotations

import csv
import dataclasses
import random
import shutil
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from benchmarks import BenchmarkError
from benchmarks.findings import Findings, Measurement, note, number, row, with_quartiles
from benchmarks.texts import TASKS, Texts, of_task
from benchmarks.timing import Action, interleave, ratio, spread
from benchmarks.workload import Workload
from rosa.config import TaskConfig
from rosa.data.e2e import group
from rosa.evaluation import answers
from rosa.evaluation.nlg import bleu, nist, score
from rosa.report.tables.table import Table

ROUNDS = 5
SEGMENTS, REFERENCES, WORDS = 630, 4693, 24
"""Sizes of E2E's test set: number of inputs, number of references, and about the number of words in each."""
TEST_SET = "testset_w_refs.csv"
WANTED = 3
"""The most seconds that are wanted for a test split."""
ANSWERED = tuple(task for task in TASKS if task != "e2e")
"""The tasks whose outputs are right or wrong."""
LABELS = {"ours": "score(), one Java process", "stock": "pycocoevalcap's classes, two Java processes"}

Groups = Sequence[Sequence[str]]


def benchmark(workload: Workload, rounds: int) -> Findings:
    """Time scoring of E2E's texts, each segment's first reference against all, and of answers to the other tasks."""
    folder = workload.e2e_dir
    groups = generated() if folder is None else read(folder)
    found = measure(groups, rounds, "generated text in E2E's shape" if folder is None else "the real E2E test set")
    table, lines = measure_answers([of_task(task, workload, 1) for task in ANSWERED], rounds)
    return dataclasses.replace(found, measurements=(*found.measurements, *lines), further=(table,))


def read(folder: Path) -> Groups:
    """Read the references of each input of the official test set.

    Raises:
        BenchmarkError: the file cannot be read, or is not E2E's.
    """
    path = folder / TEST_SET
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            groups = group((line["mr"], line["ref"]) for line in csv.DictReader(file))
    except (OSError, UnicodeDecodeError, KeyError) as error:
        raise BenchmarkError(f"--e2e-dir {folder}: cannot read {TEST_SET} with columns mr and ref: {error}") from error
    return [one.references for one in groups]


def generated() -> Groups:
    """Generate references like the real test set's in number, length and vocabulary size."""
    draw = random.Random(0)
    vocabulary = [f"word{i}" for i in range(900)]
    weights = [1 / (i + 1) for i in range(len(vocabulary))]
    groups: list[list[str]] = [[] for _ in range(SEGMENTS)]
    for i in range(REFERENCES):
        groups[i % SEGMENTS].append(" ".join(draw.choices(vocabulary, weights, k=WORDS)) + ".")
    return groups


def measure(groups: Groups, rounds: int, texts: str) -> Findings:
    """Time both implementations; that of the packages only if Java is installed."""
    hypotheses = [references[0] for references in groups]
    actions: dict[str, Action] = {"ours": lambda _: score(hypotheses, groups, with_meteor=False)}
    if shutil.which("java") is not None:
        actions["stock"] = lambda _: stock(hypotheses, groups)
    for action in actions.values():
        action(0)  # imports, and the first read of the Java archives
    return findings(interleave(actions, rounds, "cpu", "scoring"), texts, groups)


def stock(hypotheses: Sequence[str], references: Groups) -> dict[str, float]:
    """The same scores from the packages' own classes; NIST, which they lack, from this project."""
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.rouge.rouge import Rouge
    from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

    tokenizer = PTBTokenizer()
    theirs = tokenizer.tokenize({i: [{"caption": text} for text in texts] for i, texts in enumerate(references)})
    ours = tokenizer.tokenize({i: [{"caption": text}] for i, text in enumerate(hypotheses)})
    return {
        "bleu": bleu.score(hypotheses, references),
        "nist": nist.score(hypotheses, references),
        "rouge_l": float(Rouge().compute_score(theirs, ours)[0]),
        "cider": float(Cider().compute_score(theirs, ours)[0]),
    }


def findings(seconds: Mapping[str, Sequence[float]], texts: str, groups: Groups) -> Findings:
    """Build the table.

    Args:
        seconds: times of each implementation, by round; ``stock`` may be missing.
        texts: a description of the scored texts.
        groups: the references of each input.
    """
    rows, lines = [], []
    for way, taken in seconds.items():
        time, relative = spread(taken), ratio(taken, seconds["ours"])
        rows.append(row(LABELS[way], str(time.count), with_quartiles(time), with_quartiles(relative)))
        lines += [Measurement(way, "seconds", "s", time), Measurement(way, "time relative to ours", "", relative)]
    notes = [
        note(
            f"BLEU, NIST, ROUGE-L and CIDEr of {texts}: {len(groups):,} segments, {sum(map(len, groups)):,} "
            f"references, each segment's first as its hypothesis. Wanted are at most {WANTED} s; ours took "
            f"{number(spread(seconds['ours']).median)} s."
        )
    ]
    if "stock" not in seconds:
        notes.append(note("There is no Java here: no tokens from it, and nothing to compare with."))
    header = ("scoring, all but METEOR", "times", "seconds", "relative, a round")
    return Findings(Table("benchmark_scoring", "Scoring", header, tuple(rows), tuple(notes)), tuple(lines))


# --- answers that are right or wrong ---------------------------------------------------------------------------------


def measure_answers(tasks: Sequence[Texts], rounds: int) -> tuple[Table, list[Measurement]]:
    """Time scoring one answer to each input of each task: every other one is the reference of another input."""
    actions: dict[str, Action] = {}
    found: dict[str, answers.AnswerScores] = {}
    for texts in tasks:
        known = [one.references for one in texts.groups]
        given = [references[0] for references in known]
        written = [given[(i + i % 2) % len(given)] for i in range(len(given))]
        inputs = [one.mr for one in texts.groups]
        actions[texts.task.name] = partial(_score, found, texts.task, inputs, written, known)
    taken = interleave(actions, rounds, "cpu", "scoring answers")
    rows, lines = [], []
    for texts in tasks:
        time, name = spread(taken[texts.task.name]), texts.label
        scores = found[texts.task.name].scores
        shown = ", ".join(f"{score} {number(value)}" for score, value in scores.items() if value is not None)
        rows.append(row(name, f"{len(texts.groups):,}", with_quartiles(time), shown))
        lines.append(Measurement(name, "seconds", "s", time))
    notes = (
        note(
            "Texts that the project generates, as many as the official test split has; every other answer is another "
            f"input's. Median (quartiles) of {rounds} rounds; wanted are at most {WANTED} s."
        ),
    )
    table = Table("benchmark_scoring_answers", "Scoring answers", ("task", "answers", "seconds", "scores"),
                  tuple(rows), notes)  # fmt: skip
    return table, lines


def _score(
    found: dict[str, answers.AnswerScores],
    task: TaskConfig,
    inputs: Sequence[str],
    written: Sequence[str],
    known: Groups,
    _: int,
) -> None:
    found[task.name] = answers.score(task.scorer, inputs, written, known)
