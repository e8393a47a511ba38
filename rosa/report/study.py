"""One experiment as all of its tables, figures and pages see it: its records are grouped and compared once."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

from rosa.records import Record, Rule
from rosa.records.baselines import Found
from rosa.report.comparison import Comparison, Words
from rosa.report.grouping import at_epoch, by_model, compare, own_rule, tuning_experiments


class Study:
    """The records of one experiment.

    Args:
        found: all records, because other experiments tell whether this one is a learning-rate grid.
        experiment: its name.
        rule: epoch selection rule; None: the experiment's own.
        baselines: records of baselines; those of the runs' own data are shown below the methods.
        words: options with which the records were found.

    Raises:
        ReportError: the experiment has no records.
        rosa.records.RecordError: ``rule`` is neither ``best`` nor ``last``.
    """

    def __init__(
        self,
        found: Sequence[Record],
        experiment: str,
        rule: Rule | None = None,
        baselines: Found | None = None,
        words: Words | None = None,
    ) -> None:
        self.name = experiment
        self.by_model = by_model(found, experiment)
        """Model -> its records."""
        self.runs = [run for run in found if run["identity"]["experiment"] == experiment]
        self.rule = rule or own_rule(self.runs, experiment)
        self.is_grid = experiment in tuning_experiments(found)
        """Whether runs took their learning rates from it."""
        self._baselines = baselines
        self._words = words

    @cached_property
    def models(self) -> dict[str, Comparison]:
        """The comparison of each model's runs."""
        return {model: self.compare(runs) for model, runs in self.by_model.items()}

    @cached_property
    def whole(self) -> Comparison:
        """The comparison of all models; the rows of several are labelled with their models."""
        if len(self.by_model) == 1:
            return next(iter(self.models.values()))
        return self.compare(self.runs)

    def at(self, rule: Rule) -> Comparison:
        """The comparison of all models by another epoch selection rule."""
        return self.whole if rule == self.rule else at_epoch(self.whole, rule)

    def compare(self, runs: Sequence[Record]) -> Comparison:
        """The comparison of some of the runs."""
        return compare(runs, self.name, self.rule, self._baselines, self._words)
