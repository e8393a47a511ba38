"""The configuration of the ``data`` group, and its checks."""

from __future__ import annotations

from dataclasses import dataclass, field

from rosa.config.checks import choice, not_negative, positive, require

FILES = ("train", "validation", "test")
"""The splits that ``data=files`` can have, and the keys that name their files."""


@dataclass
class TeacherConfig:
    """How the model that labels a regression's data differs from the one that learns (used by ``source: teacher``)."""

    rank: int = 24
    """Rank of the difference in each layer's weight."""

    def __post_init__(self) -> None:
        positive("data.teacher.rank", self.rank)


@dataclass
class DataConfig:
    """Where the examples come from, and how many of them."""

    source: str = "mini"
    """``hub``, ``local`` (``data.dir``), ``files`` (one for each split), or generated: ``mini`` (texts) or ``teacher``
    (vectors)."""
    dir: str = ""
    """The folder that holds the tasks' folders (``local``)."""
    train: str = ""
    """The training split's file (``files``); its ending says the format: csv, tsv, json or jsonl (an object a line), or
    parquet. The columns are ``task.texts`` and ``task.label``."""
    validation: str = ""
    """The validation split's file (``files``)."""
    test: str = ""
    """The test split's file (``files``)."""
    limit: int = 0
    """At most this many training rows, sampled with the run's seed; 0 takes all."""
    holdout: float = 0.1
    """Share of the training rows, of those that ``limit`` leaves, that ``selection=holdout`` keeps aside, drawn with
    the run's seed."""
    path: str = ""
    """Hub name of the data set."""
    name: str = ""
    """The hub's name of the task within the data set."""
    revision: str = ""
    """Commit of the hub's data set."""
    skip_malformed: bool = False
    """Leave out malformed rows of local files, and count them in the record, where the default stops with an error."""
    train_size: int = 1000
    """Training rows, where they are made on the spot."""
    evaluation_size: int = 500
    """Rows of each evaluation split, where they are made on the spot."""
    seed: int = 0
    """Seed of what is made on the spot: the same data for every run seed, as with a real data set."""
    teacher: TeacherConfig = field(default_factory=TeacherConfig)

    def __post_init__(self) -> None:
        choice("data.source", self.source, ("hub", "local", "files", "mini", "teacher"))
        not_negative("data.limit", self.limit)
        require(0 < self.holdout < 1, "data.holdout", self.holdout, "a share in (0, 1)")
        positive("data.train_size", self.train_size)
        positive("data.evaluation_size", self.evaluation_size)
        if self.source == "teacher":
            require(
                not self.limit, "data.limit", self.limit, "0 for data.source=teacher: data.train_size sets the rows"
            )
        if self.source == "local":
            require(bool(self.dir), "data.dir", self.dir, "the folder of the data: data=local data.dir=DIR")
        if self.source == "hub":
            require(bool(self.path), "data.path", self.path, "the hub's name of the data set")
        if self.source != "files":
            for split, file in self.files.items():
                require(False, f"data.{split}", file, f"no file with data.source={self.source}; data=files reads it")

    @property
    def files(self) -> dict[str, str]:
        """The files that are named, by split."""
        return {split: file for split in FILES if (file := getattr(self, split))}
