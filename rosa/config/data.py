"""Configuration of the ``data`` group."""

from __future__ import annotations

from dataclasses import dataclass, field

from rosa.config.checks import choice, hub_name, not_negative, require, whole_positive

FILES = ("train", "validation", "test")
"""Splits of ``data=files``; each is also the key of its file."""
VECTORS = ("teacher", "diabetes")
"""Sources of the examples of a vector regression."""
SOURCES = ("hub", "local", "files", *VECTORS, "mini")
"""All sources."""
DIABETES_WIDTHS = (11, 1)
"""Width of the features (ten measurements and a constant 1) and of the label of ``data=diabetes``."""


@dataclass
class TeacherConfig:
    """Difference between the model that labels vector regression data and the trained one (``source: teacher``)."""

    rank: int = 24
    """Rank of the difference in each layer's weight."""

    def __post_init__(self) -> None:
        whole_positive("data.teacher.rank", self.rank)


@dataclass
class DataConfig:
    """Source of the examples, and their number."""

    source: str = "mini"
    """``hub``, ``local`` (GLUE or E2E in ``data.dir``), ``files`` (one per split), ``diabetes`` (vectors, with
    scikit-learn), or generated: ``mini`` (texts) or ``teacher`` (vectors)."""
    dir: str = ""
    """Folder that contains the tasks' folders (``local``)."""
    train: str = ""
    """File of the training split (``files``): .csv, .tsv, .json or .jsonl (an object per line), or .parquet, with the
    columns ``task.texts`` and ``task.label``."""
    validation: str = ""
    """File of the validation split (``files``)."""
    test: str = ""
    """File of the test split (``files``)."""
    limit: int = 0
    """Maximum number of training rows, sampled with the run's seed; 0 uses all."""
    holdout: float = 0.1
    """Share of the training split's distinct texts (of E2E: inputs), after ``limit``, that ``selection=holdout`` holds
    out with all of their rows, drawn with the run's seed."""
    path: str = ""
    """The dataset's name on the hub."""
    name: str = ""
    """The dataset's configuration on the hub; empty for the task's name."""
    revision: str = ""
    """The dataset's commit on the hub."""
    skip_malformed: bool = False
    """Skip malformed rows of local files and count them in the record, instead of stopping with an error."""
    train_size: int = 1000
    """Training rows of generated data, and of ``diabetes``; for ``e2e`` inputs, each with several references."""
    evaluation_size: int = 500
    """Rows of each evaluation split of generated data, and of ``diabetes``."""
    seed: int = 0
    """Seed of generated data, and of the splits of ``diabetes``; the same for every run seed unless ``per_seed``."""
    per_seed: bool = False
    """Draw generated text (``mini``), or the splits of ``diabetes``, anew for each run seed: with the sum of
    ``data.seed`` and the run's seed."""
    teacher: TeacherConfig = field(default_factory=TeacherConfig)

    def __post_init__(self) -> None:
        choice("data.source", self.source, SOURCES)
        not_negative("data.limit", self.limit)
        require(0 < self.holdout < 1, "data.holdout", self.holdout, "a share in (0, 1)")
        whole_positive("data.train_size", self.train_size)
        whole_positive("data.evaluation_size", self.evaluation_size)
        if self.source in VECTORS:
            rows = f"0 for data.source={self.source}: data.train_size sets the rows"
            require(not self.limit, "data.limit", self.limit, rows)
        if self.source not in ("mini", "diabetes"):
            require(not self.per_seed, "data.per_seed", self.per_seed, f"false for data.source={self.source}")
        if self.source == "local":
            require(bool(self.dir), "data.dir", self.dir, "the folder of the data, as in data=local data.dir=DIR")
        if self.source == "hub":
            hub_name("data.path", self.path, "for a folder on this machine use data=local data.dir=DIR")
        if self.source != "files":
            for split, file in self.files.items():
                require(False, f"data.{split}", file, f"no file with data.source={self.source}; use data=files")

    @property
    def files(self) -> dict[str, str]:
        """Split -> its file, for the splits that have one."""
        return {split: file for split in FILES if (file := getattr(self, split))}
