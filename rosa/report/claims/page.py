"""The whole page: what is compared, the claims in one table, then the sections.

Every number on the page comes from records, and from the benchmark's table; ``scripts/make_claims.py`` updates it when
there are more.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

from rosa.records import Record
from rosa.records.baselines import Found
from rosa.report.benchmarked import Line
from rosa.report.claims import ablations, changes, costs, coverage, methods, ranks, regression, reviewers
from rosa.report.claims.overview import overview
from rosa.report.claims.rates import rates_table
from rosa.report.claims.section import Section, verdict
from rosa.report.claims.verdicts import CONTRADICTED, NOT_RUN, OPEN, SUPPORTED
from rosa.report.comparison import Comparison
from rosa.report.grouping import compare
from rosa.report.tables.markdown import paragraph

TITLE = "The papers' claims, and what was found"
METHODS = (
    "**The methods.** *ROSA* ([random subspace adaptation](https://arxiv.org/abs/2407.07802)) trains `r` randomly "
    "drawn singular triplets of each weight and freezes the rest; now and then it merges them and draws others. "
    "*LoRA* adds a trained matrix of rank `r` to each frozen weight; *(IA)3* trains factors of activations; *full* "
    "trains all. *RoSA* with a small o ([robust adaptation](https://arxiv.org/abs/2401.04679)) is another method: it "
    "adds a matrix of low rank and a sparse one."
)
MODELS = (
    "**The models.** *minilm* is a real pretrained encoder (MiniLM, of sentence embeddings); *mini-gpt2* and "
    "*small-gpt2* are small GPT-2s that this project pretrains. All are far smaller than the papers' RoBERTa, GPT-2 "
    "and LLaMA2-7B, and nothing here is a statement about those."
)
OPTIONAL: dict[str, tuple[Callable[[Comparison], Section], str]] = {
    methods.ON_TEXTS: (methods.texts_section, "the same claims on generated texts (E2E NLG)"),
    methods.WITH_LARGER: (methods.texts_section, "the same with a model of more parameters"),
    ablations.EXPERIMENT: (
        ablations.section,
        "which triplets, SVD initialisation, orthogonality and resampling, at rates tuned for each",
    ),
    ranks.EXPERIMENT: (ranks.section, "rank trades memory for speed of convergence, and not for expressiveness"),
}
"""Experiment -> its section, and what it answers, for the page without its records."""


def page(found: Sequence[Record], lines: Sequence[Line] = (), baselines: Found | None = None) -> str:
    """The Markdown page.

    Args:
        found: records, those of the study among them.
        lines: measurements of the benchmark; without them the claims about time and storage are not run.
        baselines: their records; without them scores are measured from 0 and not from a constant answer's.

    Raises:
        ReportError: the study has no records, or a claim fits several rows of an experiment.
    """
    study = compare(found, methods.EXPERIMENT, baselines=baselines)
    known = {run["identity"]["experiment"] for run in found}
    answered = [
        make(compare(found, name, baselines=baselines)) for name, (make, _) in OPTIONAL.items() if name in known
    ]
    missing = [f"`{name}` ({words}): {NOT_RUN}" for name, (_, words) in OPTIONAL.items() if name not in known]
    sections = [
        methods.tasks_section(study),
        *answered,
        *regression.section(found),
        changes.section(study, compare(found, ablations.EXPERIMENT) if ablations.EXPERIMENT in known else None),
        Section("Do the tuned rates hold on other seeds?", (rates_table(study),)),
        costs.section(study, lines),
        reviewers.section(study, lines),
        coverage.section(found),
        *([Section("What has no records yet", [f"{'; '.join(missing)}."])] if missing else []),
    ]
    return "\n".join([f"# {TITLE}\n", _summary(sections), *(section.markdown() for section in sections)])


def _summary(sections: Sequence[Section]) -> str:
    """What is compared, how the page came about, and the claims in one table."""
    every = [verdict(line) for section in sections for _, line, _ in section.claims]
    counts = Counter(every)
    others = f", and {counts[NOT_RUN]} not run" if counts[NOT_RUN] else ""
    main = sections[0].claims[0].cells
    made = (
        "Made by `python scripts/make_claims.py` from the committed records and the benchmark's table. Each claim is "
        f"tested by one comparison or several, {len(every)} in all: {counts[SUPPORTED]} {SUPPORTED}, "
        f"{counts[CONTRADICTED]} {CONTRADICTED}, {counts[OPEN]} {OPEN}{others}. *Open* means, of scores, that too few "
        "differences are significant for either verdict (so few seeds show only large ones) and, of costs, that the "
        f"claim holds in some cases and not in others. The main claim, {main[0].text}, is {verdict(main)}."
    )
    return "\n".join([*(paragraph(each) + "\n" for each in (METHODS, MODELS, made)), overview(sections)])
