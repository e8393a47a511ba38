"""The page of claims as a reader meets it: the table of claims, the studies, texts, regression, and the answers."""

from __future__ import annotations

import re
from typing import Any

import pytest
import scipy.stats

from rosa.config import FullConfig, IA3Config, LoraConfig, RosaConfig
from rosa.records import find
from rosa.report.claims import answers
from rosa.report.claims.coverage import DECAYED, STUDIES, repeated, studies_table, where_run
from rosa.report.claims.coverage import section as coverage
from rosa.report.claims.methods import EXPERIMENT, WITH_LARGER, below_words, tasks_table
from rosa.report.claims.overview import CLAIMS, anchor, overview
from rosa.report.claims.page import page
from rosa.report.claims.regression import regression_table
from rosa.report.claims.reviewers import fluctuation_table
from rosa.report.claims.section import ClaimsTable, Section
from rosa.report.claims.texts import course
from rosa.report.claims.verdicts import Difference
from rosa.report.grouping import compare
from rosa.report.significance import Paired
from rosa.report.tables.table import Cell, Table
from tests.conftest import ROOT
from tests.report.synthetic_records import TEXT_SCORES, config, record, written
from tests.report.test_claims import lines
from tests.report.test_claims_costs import benchmark, curve, row

# --- the table of claims ---------------------------------------------------------------------------------------------


def claimed(name: str, header: tuple[str, ...], *rows: tuple[str, ...], each: str = "") -> Table:
    """A table of claims with these cells; the differences of each line's tasks or ranks are those that it shows."""
    lines = tuple(tuple(map(Cell, cells)) for cells in rows)
    found = [
        [None if cell == "—" else Difference("", "", False, Paired("", (float(cell.split()[0]),))) for cell in cells]
        for cells in (line[1:-1] if each else () for line in rows)
    ]
    return ClaimsTable(name, "", (*header, "Verdict"), lines, (), found=tuple(map(tuple, found)), each=each)


def rows_of(text: str) -> dict[str, list[str]]:
    """Claim -> its other cells, of a Markdown table."""
    grid = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("| ")]
    return {cells[0]: cells[1:] for cells in grid[2:]}


def test_a_claim_has_one_row_with_the_numbers_of_every_section() -> None:
    on_tasks = claimed(
        "claims",
        ("Claim", "A", "B", "C"),
        ("ROSA is better than LoRA on most GLUE tasks", "+1.0 (n=3)", "-1.0 (n=3)", "—", "open (2 of 3 tasks run)"),
        ("A new subspace each epoch is better than the first one kept", "-1.0", "-2.0", "+3.0", "contradicted"),
        each="tasks",
    )
    in_texts = claimed(
        "claims-texts-x",
        ("Claim", "BLEU", "NIST"),
        ("ROSA is better than LoRA", "-2.9† ± 2.0 (2.6, n=3)", "+1.0", "contradicted"),
    )
    ranks = claimed(
        "claims-by-rank-cola",
        ("Claim", "r=1", "r=2", "r=8"),
        (
            "A new subspace each epoch is better than the first one kept, for most ranks",
            "-1.0 ± 2.0",
            "—",
            "+3.0",
            "open",
        ),
        ("One every second epoch is better than the first one kept, for most ranks", "—", "—", "+1.0", "open"),
        ("ROSA is better than LoRA, for most ranks", "—", "+2.0", "+1.0", "open (2 of 3 ranks run)"),
        ("Resampling, of another part", "—", "—", "—", "not run"),
        each="ranks",
    )
    small = claimed("claims-rank-cola", ("Claim", "Difference"), ("Rank limits LoRA: a", "—", "not run"))
    sizes = claimed("claims-costs", ("Claim", "Found"), ("Once merged, a model", "0.9 (a r=1) to 1.1 (b)", "supported"))
    text = overview([
        Section("On GLUE's tasks", [on_tasks], "GLUE, m (1M)"),
        Section("Texts", [in_texts], "E2E, g (2M)"),
        Section("Rank", [small, ranks], "CoLA, m (1M)"),
        Section("Time, memory", [sizes]),
    ])  # fmt: skip
    found = rows_of(text)
    glue = "[GLUE, m (1M)](#on-glues-tasks)"
    assert found["ROSA beats LoRA on most GLUE tasks"][1:] == [f"{glue} ahead on 1 of 2 tasks", "open"]
    assert found["ROSA beats LoRA on generated texts (E2E)"][1:] == [
        "[E2E, g (2M)](#texts) BLEU -2.9† ± 2.0", "contradicted",
    ]  # fmt: skip
    assert found["Resampling helps"][1:] == [
        f"{glue} ahead on 1 of 3 tasks; [CoLA, m (1M)](#rank) ahead on 2 of 3 comparisons", "1 contradicted, 2 open",
    ]  # fmt: skip
    assert found["ROSA beats LoRA for most ranks"][1:] == ["[CoLA, m (1M)](#rank) ahead on 2 of 2 ranks", "open"]
    assert found["Rank limits LoRA"][1:] == ["—", "not run"]
    assert found["No latency once merged"][1:] == ["[Time, memory](#time-memory) 0.9 to 1.1", "supported"]
    assert "ROSA forgets no more than LoRA" not in found, "no section has it"


@pytest.mark.parametrize("error", [False, True])
def test_who_is_ahead_is_counted_by_scores_and_not_by_their_signs(error: bool) -> None:
    """ROSA is behind full fine-tuning, within a tenth of its 0.5 on one task of two, and ahead of LoRA on one."""
    found = []
    for task, behind, ahead in (("cola", 0.02, 0.0001), ("rte", 0.2, -0.1)):
        for method, shift in ((FullConfig(), 0.0), (RosaConfig(every=1), -behind), (LoraConfig(), -behind - ahead)):
            found += row(method, [0.5 + (-shift if error else shift)] * 2, task=task)
    for run in found:
        run["config"]["task"]["lower_is_better"] = error
        run["metrics"]["selection"]["rule"] = "lowest" if error else "highest"
    table = rows_of(overview([Section("A", [tasks_table(compare(found, EXPERIMENT))], "s")]))
    assert table["ROSA is close to full fine-tuning"][1] == "[s](#a) within the margin on 1 of 2 tasks"
    assert table["ROSA beats LoRA on most GLUE tasks"][1] == "[s](#a) ahead on 1 of 2 tasks", "by less than is shown"


@pytest.mark.slow
def test_every_line_of_the_committed_page_is_in_the_table_of_claims_and_every_link_has_its_heading() -> None:
    text = (ROOT / "docs" / "claims.md").read_text(encoding="utf-8")
    first, *rest = text.split("\n## ")
    assert set(rows_of(first)) == {claim.words for claim in CLAIMS}, "each claim of the papers has lines"
    anchors = {anchor(part.splitlines()[0]) for part in rest}
    assert {link.split(")")[0] for link in first.split("](#")[1:]} <= anchors
    assert "\\`" not in text, "a backtick that is not markup"


# --- the studies -----------------------------------------------------------------------------------------------------


def test_a_study_says_what_it_took_and_what_was_not_run() -> None:
    found = row(LoraConfig(rank=8), [0.4, 0.5], experiment="evidence_rank")
    found += row(RosaConfig(every=1, rank=1), [0.4], experiment="evidence_rank")
    found += row(LoraConfig(rank=8), [0.4], experiment="evidence_rank_tune")
    for run in found:
        run["environment"] |= {"device": "cpu", "cpu": "Some CPU"}
    found[0]["environment"]["device"] = "A GPU"
    table = lines(studies_table(found))
    assert table["evidence_rank"] == [
        "evidence_rank", "3 + 1", "0.3 + 0.1", "A GPU (1), Some CPU (2)",
        "STS-B, rank 2, rank 32, every second epoch, never",
    ]  # fmt: skip
    assert table["evidence_e2e"][1:4] == ["0 + 0", "0.0 + 0.0", "—"]


def test_how_many_runs_were_on_gpus_is_what_their_records_say() -> None:
    assert where_run(row(LoraConfig(), [0.4], experiment="other")) == "None of the studies has a run."
    found = row(LoraConfig(), [0.4] * 4, experiment="evidence_rank")
    for run, device in zip(found, ("A GPU", "cpu", "Another", "cpu"), strict=True):
        run["environment"]["device"] = device
    (unknown,) = row(LoraConfig(), [0.4], experiment="evidence_rank_tune")
    found += [unknown | {"environment": {}}]
    assert where_run(found).startswith(
        "Of the 5 runs, tuning included, 2 were on GPUs (0.2 hours), 2 were on CPUs (0.2 hours), "
        "1 were on machines that were not recorded (0.1 hours);"
    )


def test_every_name_of_a_command_is_that_of_an_experiment() -> None:
    """Also where the records of several files bear the name of a study that has no file."""
    names = [name for cells in lines(studies_table([])).values() for name in cells[0].split(", ")]
    assert {*names} == {name for study in STUDIES for name in study.files}
    assert [name for name in names if not (ROOT / "experiments" / f"{name}.yaml").is_file()] == []
    text = coverage([]).markdown() + overview([])
    assert len(re.findall(r"experiment=NAME", text)) == 2, (
        "to train and to plan; the names are in the table below alone"
    )
    assert "\\`" not in text


def test_where_ia3_decayed_is_told() -> None:
    found = [*row(IA3Config(), [0.4]), *row(IA3Config(), [0.4], task="rte"), *row(LoraConfig(), [0.4], task="mrpc")]
    found[1]["environment"]["commit"] = found[2]["environment"]["commit"] = DECAYED[0] + "0" * 33
    (told,) = (part for part in coverage(found).parts if "weight decay" in str(part))
    assert str(told).endswith("`evidence_glue` (RTE).")


def test_one_cell_has_its_command_and_its_committed_score() -> None:
    made = row(RosaConfig(every=1, rank=8), [0.4, 0.123456789], experiment="rank_frequency")
    made[1]["identity"]["seed"], made[0]["identity"]["seed"] = 1, 2
    made[1]["command"] = "python scripts/train.py seed=1 jobs=2"
    made[1]["model"]["attention"] = "sdpa"
    made[1]["environment"] |= {"device": "cpu", "cpu": "Some CPU", "threads": 2}
    (told,) = repeated([*made, *row(RosaConfig(every=1, rank=1), [0.5], experiment="rank_frequency")])
    assert "`python scripts/train.py seed=1 model.attention=sdpa` took 6.0 minutes (Some CPU, 2 threads)," in told
    assert "Matthews correlation of 0.123456789 on validation." in told
    assert repeated(row(LoraConfig(), [0.5], experiment="rank_frequency")) == []


# --- texts -----------------------------------------------------------------------------------------------------------


def text_runs() -> list[dict[str, Any]]:
    """LoRA and ROSA on texts, three seeds: ROSA's perplexity is lower after the first epoch, then higher."""
    found = []
    for method, first, last, after in ((LoraConfig(), 7.0, 5.0, 5.2), (RosaConfig(every=1), 6.5, 5.1, 5.4)):
        for seed, noise in enumerate((0.0, 0.1, -0.1), start=1):
            run = written(record(config("e2e", method, seed=seed, experiment=WITH_LARGER)), last + noise, TEXT_SCORES)
            steps = ((1.0, first + noise * seed), (2.0, last + noise))
            run["history"] = [{"epoch": e, "step": 1, "validation": {"perplexity": value}} for e, value in steps]
            run["diagnostics"] = {"forgetting": {"loss": "next token", "before": 5.0, "after": after + noise * noise}}
            found.append(run)
    found[3]["diagnostics"]["forgetting"]["after"] += 0.03
    return found


def test_texts_tell_who_was_ahead_when_and_what_was_forgotten() -> None:
    made = course(compare(text_runs(), WITH_LARGER))
    why = next(part for part in made if isinstance(part, str))
    assert "is -0.50 after epoch 1, +0.10 after epoch 2: ROSA is ahead after 1 of the 2 epochs (1)." in why
    (table,) = (part for part in made if isinstance(part, Table))
    by = [0.23, 0.2, 0.2]
    low, high = scipy.stats.ttest_1samp(by, 0).confidence_interval()
    assert lines(table)["ROSA forgets no more than LoRA"] == [
        "0.207", "0.417", f"+{sum(by) / 3:.3f} ± {(high - low) / 2:.3f}", "3", "contradicted",
    ]  # fmt: skip
    assert "a margin of 10% of LoRA's rise, here 0.021," in table.notes[0][0].text
    assert course(compare(text_runs()[:3], WITH_LARGER)) == [], "ROSA was not run"


@pytest.mark.parametrize(
    ("more", "verdict"), [(-0.01, "supported"), (0.01, "supported"), (0.0207, "open"), (0.04, "contradicted")]
)
def test_forgetting_as_much_is_no_more(more: float, verdict: str) -> None:
    """LoRA's loss rises by 0.207, so that the margin is 0.0207."""
    found = text_runs()
    for lora, rosa, noise in zip(found[:3], found[3:], (-0.001, 0.0, 0.001), strict=True):
        rise = lora["diagnostics"]["forgetting"]["after"] + more + noise
        rosa["diagnostics"]["forgetting"]["after"] = rise
    (table,) = (part for part in course(compare(found, WITH_LARGER)) if isinstance(part, Table))
    assert lines(table)["ROSA forgets no more than LoRA"][-1] == verdict


# --- regression, baselines, answers ----------------------------------------------------------------------------------


def test_regression_is_compared_at_its_largest_rank_and_the_lower_error_is_better() -> None:
    def runs(method: Any, errors: list[float]) -> list[dict[str, Any]]:
        made = row(method, [0.5] * len(errors), experiment="regression_linear")
        for run, error in zip(made, errors, strict=True):
            run["metrics"]["best"]["validation"]["mse"] = error
        return made

    found = [
        *runs(FullConfig(), [0.01, 0.02]),
        *runs(LoraConfig(rank=1), [0.9, 0.9]),
        *runs(LoraConfig(rank=8), [0.30, 0.32]),
        *runs(RosaConfig(every=1, rank=8), [0.10, 0.1201]),
    ]
    (cells,) = lines(regression_table({"regression_linear": compare(found, "regression_linear")})).values()
    assert (cells[:3], cells[-2:]) == (["0.0150", "0.3100", "0.1101"], ["2", "supported"])
    assert cells[3].startswith("-0.2000 ± ")


def test_rows_below_a_baseline_are_named() -> None:
    assert below_words(compare(row(LoraConfig(), [0.4]), EXPERIMENT)) == [], "there is no baseline"


@pytest.mark.parametrize(("spread", "ahead"), [(0.0401, 1), (0.0399, 0)])
def test_deviations_that_look_equal_in_the_table_are_still_compared(spread: float, ahead: int) -> None:
    found = [*row(LoraConfig(), [0.4, 0.4 + spread]), *row(RosaConfig(every=1), [0.3, 0.34])]
    study = compare(found, EXPERIMENT)
    assert {cells[0] for cells in lines(fluctuation_table(study)).values()} == {"2.8 (n=2)"}
    assert answers.fluctuation(study) == f"ROSA's deviation is smaller than LoRA's on {ahead} of 1 tasks."


def test_the_reviewers_questions_have_answers_from_the_tables(tmp_path: Any) -> None:
    found = [
        *curve(row(FullConfig(), [0.50, 0.52]), [0.5], [0.5]),
        *curve(row(LoraConfig(), [0.40, 0.50]), [0.1], [0.1]),
        *curve(row(RosaConfig(every=1), [0.40, 0.43]), [0.5], [0.6]),
    ]
    study = compare(found, EXPERIMENT)
    assert answers.convergence(study).endswith(
        "ROSA on 1 of 1 tasks, LoRA on 0 of 1 tasks, full fine-tuning on 1 of 1 tasks."
    )
    assert answers.fluctuation(study) == (
        "ROSA's deviation is smaller than LoRA's on 1 of 1 tasks and smaller than full fine-tuning's on 0 of 1 tasks."
    )
    measured = benchmark(
        tmp_path,
        "wide: ROSA r=8,step,s,0.5",
        "wide: Full,step,s,1.0",
        "wide: ROSA r=8,step relative to LoRA (peft) r=8,,0.9",
        "wide: ROSA r=8,checkpoint,byte,200",
        "wide: LoRA (loralib) r=8,checkpoint,byte,100",
        "wide: Full,checkpoint,byte,800",
    )
    assert "0.250 times the bytes of full fine-tuning's, and 2.00 times those of LoRA's" in answers.storage(measured)
    assert "takes 0.500 of full fine-tuning's time, and 0.900 of the faster LoRA's" in answers.storage(measured)
    assert answers.storage([]) == ""


@pytest.mark.slow
def test_the_readme_says_what_the_page_says() -> None:
    """Of the numbers in its words, those that other records would change."""
    found, _ = find(ROOT / "results", None, "alone")
    text = " ".join(page(found).split())
    readme = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    assert "a random orthonormal basis was 4.2 ± 11.2 above singular vectors" in readme
    assert "-4.2 ± 11.2" in text
    assert "ROSA was 2.9 ± 2.0 BLEU below LoRA" in readme
    assert "-2.9 ± 2.0" in text
    scores = rows_of((ROOT / "results/tables/evidence_e2e.md").read_text(encoding="utf-8"))
    assert "full fine-tuning reached 60.2 BLEU, LoRA 56.4, RoSA 54.3, ROSA 53.5, (IA)³ 37.5:" in readme
    shown = {
        "Full": "60.2",
        "LoRA r=8": "56.4",
        "RoSA (robust) r=4 d=2.6%": "54.3",
        "ROSA r=8, every 1 epoch": "53.5",
        "(IA)3": "37.5",
    }
    assert all(bleu in scores[method][0] for method, bleu in shown.items())
