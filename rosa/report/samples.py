"""A Markdown page of generated texts: each row's output for the same inputs, beside the references."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from rosa import records
from rosa.config import Config, from_dict
from rosa.errors import SamplesError
from rosa.records import Record, Rule
from rosa.report.grouping import compare, own_rule
from rosa.report.tables.markdown import markdown_text

REFERENCES = 3
"""Largest number of references shown per input."""


class Group(Protocol):
    """An input of the evaluated split and its references."""

    @property
    def mr(self) -> str:
        """The input, a meaning representation."""

    @property
    def references(self) -> Sequence[str]:
        """The human-written texts."""


GroupReader = Callable[[Config, str], tuple[Sequence[Group], str]]
"""Reads the inputs of a run's split, with the SHA-256 that a record has of the split; passed in, because this package
reads records and no data sets."""


def page(
    results_dir: Path,
    found: Sequence[Record],
    experiment: str,
    rule: Rule | None,
    seed: int,
    number: int,
    command: str,
    read_groups: GroupReader,
) -> str:
    """Markdown: inputs, references, and the text of each row of the experiment's table.

    The inputs are spread evenly over the split, so that they are not hand-picked.

    Args:
        results_dir: folder of ``runs/``, which has the texts.
        found: its records.
        experiment: its name.
        rule: epoch selection rule, ``best`` or ``last``; None: the experiment's own.
        seed: seed of the runs.
        number: number of inputs.
        command: the shell command that makes the page.
        read_groups: reads the inputs of a run's split.

    Raises:
        SamplesError: no run of this seed generated texts, the runs' inputs differ, a file of texts is missing or
            changed, or the data are no longer those of the runs.
        ReportError, RecordError, DataError, ConfigError: records or data that cannot be used.
    """
    if number < 1:
        raise SamplesError(f"--number {number}: expected at least 1")
    rule = rule or own_rule(found, experiment)
    written = _written(found, experiment, rule, seed)
    first = next(iter(written.values()))
    config, split = from_dict(first["config"]), first["generation"]["split"]
    groups, digest = read_groups(config, split)
    if digest != _data(first):
        raise SamplesError(
            f"{experiment}: the {split} split has changed since the runs: its sha256 is {digest}, expected "
            f"{_data(first)}"
        )
    texts = {label: _texts(results_dir, run, len(groups)) for label, run in written.items()}
    number = min(number, len(groups))
    chosen = [place * len(groups) // number for place in range(number)]
    lines = [
        f"# {experiment}: texts of the {split} split",
        "",
        f"{number} of {len(groups)} inputs, evenly spread over the split; seed {seed}, {rule} epoch, the learning rate "
        f"that the table shows. Made by `{command}`.",
        "",
        *_sources(written),
    ]
    for place in chosen:
        group = groups[place]
        lines += ["", f"## {place + 1}. {markdown_text(group.mr)}", ""]
        lines += [f"- {markdown_text(text)}" for text in group.references[:REFERENCES]]
        lines[-1] += f" *(of {len(group.references)} references)*"
        lines += ["", *(f"- **{label}**: {markdown_text(own[place]) or '*(empty)*'}" for label, own in texts.items())]
    return "\n".join(lines) + "\n"


def _written(found: Sequence[Record], experiment: str, rule: Rule, seed: int) -> dict[str, Record]:
    """Row label -> its run that generated texts with the weights of the rule's epoch."""
    shown: list[tuple[str, Record]] = []
    for row in compare(found, experiment, rule).rows:
        for result in row.results.values():
            run = result.selected.scored.get(seed)
            if run is not None and run.get("generation", {}).get("weights") == rule:
                shown.append((row.label, run))
    if not shown:
        raise SamplesError(f"{experiment}: no finished run of seed {seed} has decoded texts of the {rule} epoch")
    of_what = {(run["identity"]["task"], run["generation"]["split"], _data(run)) for _, run in shown}
    if len(of_what) > 1:
        raise SamplesError(f"{experiment}: its runs decoded different inputs: {sorted(of_what)}")
    return dict(shown)


def _data(run: Record) -> str:
    return str(run["data"]["splits"][run["generation"]["split"]]["sha256"])


def _texts(results_dir: Path, run: Record, wanted: int) -> Sequence[str]:
    kept = run["generation"]["hypotheses"]
    path = records.run_folder(results_dir, run["identity"]) / kept["file"]
    try:
        content = path.read_bytes()
    except OSError as error:
        raise SamplesError(f"{path}: cannot be read ({error}); repeat the run: {run['command']}") from error
    if hashlib.sha256(content).hexdigest() != kept["sha256"]:
        raise SamplesError(
            f"{path}: changed since the run (its sha256 is not the record's); repeat the run: {run['command']}"
        )
    texts = content.decode("utf-8").split("\n")[:-1]
    if len(texts) != wanted:
        raise SamplesError(
            f"{path}: {len(texts)} texts, but the split has {wanted} inputs; repeat the run: {run['command']}"
        )
    return texts


def _sources(written: Mapping[str, Record]) -> list[str]:
    return [f"- {label}: `{run['command']}`" for label, run in written.items()]
