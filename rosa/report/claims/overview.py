"""The claims of the papers, one row each: where a paper makes it, what was found in which study, and the verdict."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from rosa.report import formatting
from rosa.report.claims.section import Claimed, ClaimsTable, Line, Section, verdict
from rosa.report.claims.verdicts import NOT_RUN, Difference
from rosa.report.tables.markdown import grid, markdown_text, paragraph

ROSA, THEOREM, ROSA_PARTS, ROBUST = "ROSA, abstract", "ROSA, theorem", "ROSA, section 5", "RoSA, section 5"
REVIEWS, OURS = "reviews of ROSA", "ours"


@dataclass(frozen=True)
class PaperClaim:
    """A claim, and the lines of the sections' tables that are about it."""

    words: str
    source: str
    lines: tuple[str, ...]
    """Patterns of the lines' first cells."""


CLAIMS = (
    PaperClaim("ROSA beats LoRA on most GLUE tasks", ROSA, ("ROSA is better than LoRA on most GLUE tasks",)),
    PaperClaim("ROSA beats LoRA on generated texts (E2E)", ROSA, ("ROSA is better than LoRA",)),
    PaperClaim("ROSA is close to full fine-tuning", ROSA, ("ROSA is as good as full fine-tuning",)),
    PaperClaim("For comparison: LoRA is close to it", OURS, ("LoRA is as good as full fine-tuning",)),
    PaperClaim("ROSA beats (IA)3", ROSA, ("ROSA is better than (IA)3",)),
    PaperClaim("ROSA is more expressive than LoRA", THEOREM, ("ROSA's error is lower than LoRA's*",)),
    PaperClaim("No more memory than LoRA", ROSA, ("ROSA's weights, gradients*", "ROSA's peak memory*")),
    PaperClaim("As fast as LoRA", REVIEWS, ("ROSA's training step takes no longer than that of the faster LoRA",)),
    PaperClaim("Faster than full fine-tuning", REVIEWS, ("ROSA's training step takes less time*",)),
    PaperClaim("No latency once merged", ROSA, ("Once merged*",)),
    PaperClaim("No more to store than LoRA", REVIEWS, ("ROSA's checkpoint takes no more bytes*",)),
    PaperClaim("Random triplets are as good as others", ROSA_PARTS, ("Random triplets*",)),
    PaperClaim("The SVD initialisation helps", ROSA_PARTS, ("SVD initialisation*", "The SVD initialisation alone*")),
    PaperClaim("Orthogonality helps", ROSA_PARTS, ("Orthogonality*",)),
    PaperClaim(
        "Resampling helps",
        ROSA_PARTS,
        ("A new subspace each epoch*", "One every second epoch*", "Resampling*"),
    ),
    PaperClaim("Rank does not limit ROSA", THEOREM, ("Rank does not limit ROSA*",)),
    PaperClaim("Rank limits LoRA", THEOREM, ("Rank limits LoRA*",)),
    PaperClaim("Rank speeds ROSA up", THEOREM, ("Rank speeds ROSA up*",)),
    PaperClaim(
        "ROSA beats LoRA for most ranks",
        OURS,
        ("ROSA is better than LoRA, for most ranks", "ROSA is better than LoRA at rank 2"),
    ),
    PaperClaim("RoSA beats LoRA at one budget", ROBUST, ("RoSA (robust adaptation) is better than LoRA*",)),
    PaperClaim("RoSA beats its sparse part alone", ROBUST, ("RoSA is better than its sparse part*",)),
    PaperClaim("RoSA is close to full fine-tuning", ROBUST, ("RoSA is as good as full fine-tuning",)),
    PaperClaim("ROSA forgets no more than LoRA", OURS, ("ROSA forgets*",)),
)


def overview(sections: Sequence[Section]) -> str:
    """The table as Markdown, and its notes; a claim that no section has is left out."""
    texts = [["Claim", "Source", "Found", "Verdict"]]
    for claim in CLAIMS:
        found = [
            (section, lines)
            for section in sections
            if (lines := [line for line in section.claims if _about(claim, line.cells)])
        ]
        verdicts = Counter(verdict(line.cells) for _, lines in found for line in lines)
        if not verdicts:
            continue
        run = [entry for section, lines in found for entry in _evidence(section, lines)]
        texts.append([markdown_text(claim.words), claim.source, "; ".join(run) or formatting.MISSING, _named(verdicts)])
    note = (
        "Source: the abstract, the theorem ([theory.md](theory.md)), or the section about such experiments, of the "
        "paper; *reviews of ROSA*: those of its [ICLR submission](https://openreview.net/forum?id=cgCKm5DOnu); "
        "*ours*: asked by this project. Found: the difference of two scores, ± half a 95% interval; or on how many "
        "tasks, ranks or comparisons the mean is better (*ahead*) or, where it is enough to be as good, behind by no "
        "more than a margin (*within the margin*), whether significantly or not; or the ratio of two costs. Each link "
        "leads to the section with all numbers, and begins with the name of the study, whose commands are under [what "
        "was run](#what-was-run-and-what-was-cut). Several verdicts of one claim are counted."
    )
    return "\n".join([*grid(texts), "", paragraph(note), ""])


def _about(claim: PaperClaim, line: Line) -> bool:
    return any(fnmatchcase(line[0].text, pattern) for pattern in claim.lines)


def _evidence(section: Section, lines: Sequence[Claimed]) -> list[str]:
    """What one section found: a number of a line, or of several lines how many are ahead."""
    known = [line for line in lines if verdict(line.cells) != NOT_RUN]
    if not known:
        return []
    where = f"[{section.study or section.heading}](#{anchor(section.heading)})"
    if len(known) == 1 or not section.study:
        return [f"{where} {' and '.join(map(_number, known))}"]
    return [f"{where} {_ahead([one for line in known for one in line.found], 'comparisons')}"]


def _number(line: Claimed) -> str:
    """What a line found: on how many of its tasks or ranks the row is ahead, or else its number.

    That is of its column of differences or, without one, of its first.
    """
    table, cells, found = line
    if isinstance(table, ClaimsTable) and table.each:
        return _ahead(found, table.each)
    place = table.header.index("Difference") if "Difference" in table.header else 1
    number = re.sub(r" \([^)]*\)", "", cells[place].text)
    return markdown_text(f"{table.header[1]} {number}" if table.name.startswith("claims-texts") else number)


def _ahead(found: Sequence[Difference | None], what: str) -> str:
    """On how many tasks, or what else there is a difference on, the row is better on average, up to its margin."""
    known = [one for one in found if one is not None]
    where = "within the margin" if any(one.paired.margin for one in known) else "ahead"
    return f"{where} on {sum(one.ahead for one in known)} of {len(known)} {what}"


def _named(verdicts: Counter[str]) -> str:
    """One verdict, or several with their counts; what was not run counts where nothing else is there."""
    known = {name: count for name, count in verdicts.items() if name != NOT_RUN} or dict(verdicts)
    if len(known) == 1:
        return next(iter(known))
    return ", ".join(f"{count} {name}" for name, count in sorted(known.items()))


def anchor(heading: str) -> str:
    """The link target that GitHub gives a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
