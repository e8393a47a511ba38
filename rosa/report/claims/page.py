"""The whole page: a summary of the verdicts, then the sections.

Every number on the page comes from records, and from the benchmark's table; ``scripts/make_claims.py`` updates it when
there are more.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

from rosa.records import Record
from rosa.records.baselines import Found
from rosa.report.benchmarked import Line
from rosa.report.claims import ablations, changes, costs, coverage, methods, ranks, reviewers
from rosa.report.claims.rates import rates_table
from rosa.report.claims.section import Section
from rosa.report.claims.verdicts import CONTRADICTED, NOT_RUN, OPEN, SUPPORTED
from rosa.report.comparison import Comparison, compare
from rosa.report.tables.markdown import paragraph

TITLE = "The papers' claims, and what was found"
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
        Section("Do the tuned rates hold on other seeds?", (rates_table(study),)),
        changes.section(study),
        *answered,
        costs.section(study, lines),
        reviewers.section(study, lines),
        coverage.section(study, found),
        *([Section("What has no records yet", [f"{'; '.join(missing)}."])] if missing else []),
    ]
    return "\n".join([f"# {TITLE}\n", _summary(sections), *(section.markdown() for section in sections)])


def _summary(sections: Sequence[Section]) -> str:
    """How the page came about, and the claims that are decided."""
    every = [(words, verdict, section.heading) for section in sections for words, verdict in section.verdicts]
    counts = Counter(verdict for _, verdict, _ in every)
    main, decision, _ = every[0]
    others = f", and {counts[NOT_RUN]} not run" if counts[NOT_RUN] else ""
    made = (
        "Made by `python scripts/make_claims.py` from the committed records and the benchmark's table. Of its "
        f"{len(every)} claims {counts[SUPPORTED]} are supported, {counts[CONTRADICTED]} contradicted, {counts[OPEN]} "
        f"open, as so few seeds decide only large differences{others}. The main one, {main}, is {decision}."
    )
    decided = [
        f"- {wanted.capitalize()}: {words} (*{heading}*)"
        for wanted in (SUPPORTED, CONTRADICTED)
        for words, verdict, heading in every
        if verdict == wanted
    ]
    return "\n".join([paragraph(made) + "\n", *decided, ""])
