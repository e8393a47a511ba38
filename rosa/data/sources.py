"""Read a task's splits from the hub, from local files or from the generator; check and sample them.

``conf/task/`` names each task's columns, labels and files.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from rosa.config import HOLDOUT, TRAIN, DataConfig, TaskConfig
from rosa.data import files, hub, local_files, overlap, saved
from rosa.data.base import RowCollector, Split, TaskData, listing, resolved_task, shorten
from rosa.errors import DataError
from rosa.mini import text as mini_text
from rosa.utils import seeding

if TYPE_CHECKING:
    import datasets

Tables: TypeAlias = "Mapping[str, datasets.Dataset]"
"""Split -> its rows, with the hub's columns."""


def check(task: TaskConfig, data: DataConfig) -> None:
    """Check that the source can provide the task, without generating or downloading anything.

    Raises:
        DataError: the generator does not know the task or split, a folder or file is missing or cannot be read, or two
            of the user's files have the same rows.
    """
    if data.source == "mini":
        known = mini_text.splits(task.name)
        for name in task.splits:
            if name not in known:
                raise DataError(f"task={task.name} with data=mini: no split {name!r}; it has {listing(known)}")
    elif data.source == "local":
        folder, is_saved = local_folder(task, data)
        for file in () if is_saved else _local_names(task).values():
            try:
                local_files.read(folder / file)
            except DataError as error:
                raise DataError(f"data.dir={data.dir}: {error}") from error
    elif data.source == "files":
        splits, _ = files.read(task, data)
        _refuse_twins(splits, task, data)


def read(
    task: TaskConfig, data: DataConfig, seed: int, holdout: float = 0.0
) -> tuple[dict[str, Split], dict[str, Any]]:
    """Read and check all splits of a task, sample the training split to ``data.limit``, and split off the holdout.

    Args:
        task: names the columns, labels and splits.
        data: the source, and the number of training rows to keep.
        seed: the run's seed, for the sample and the holdout; generated text depends on ``data.seed`` instead.
        holdout: share of the training split's distinct texts whose rows become the split ``holdout``; 0 for none.

    Returns:
        The splits by name, and the facts about them for the record (see ``TaskData.facts``).

    Raises:
        DataError: data is missing, malformed or unreachable; the message names the place.
    """
    readers = {"hub": _read_hub, "local": _read_local, "mini": _read_mini, "files": files.read}
    splits, facts = readers[data.source](task, data)
    task = resolved_task(task, facts)
    _refuse_twins(splits, task, data)
    facts["limit"] = None
    if data.source in ("hub", "local"):
        facts["other_rows"] = _other_rows(splits, task)
    rows_read = splits[TRAIN].rows
    if 0 < data.limit < rows_read:
        kept = sample(splits[TRAIN].labels or range(rows_read), data.limit, seed, task)
        splits[TRAIN] = splits[TRAIN].take(kept)
        facts["limit"] = {"rows": data.limit, "of": rows_read, "seed": seed}
    if holdout:
        left, aside = keep_aside(splits[TRAIN], holdout, seed, task)
        splits |= {TRAIN: splits[TRAIN].take(left), HOLDOUT: splits[TRAIN].take(aside)}
    facts["splits"] = {name: split.describe(task) for name, split in splits.items()}
    if task.is_labelled:
        _count_overlap(splits, facts["splits"])
    return splits, facts


def _other_rows(splits: Mapping[str, Split], task: TaskConfig) -> dict[str, list[int]]:
    """Split -> rows read and official rows, where they differ; malformed rows that were left out do not count."""
    return {
        name: [split.rows, task.rows[name]]
        for name, split in splits.items()
        if name in task.rows and split.rows != task.rows[name]
    }


def _count_overlap(splits: Mapping[str, Split], facts: dict[str, dict[str, Any]]) -> None:
    """Add the number of rows that also occur in the training rows to each evaluation split's facts."""
    train = splits[TRAIN].texts
    others = {name: split.texts for name, split in splits.items() if name != TRAIN}
    for name, texts in others.items():
        facts[name]["in_train"] = overlap.in_train(train, texts)
    if len(train) == 1:
        inside = overlap.inside_train(train[0], {name: texts[0] for name, texts in others.items()})
        for name, count in inside.items():
            facts[name]["inside_train"] = count


def hashes(task: TaskConfig, data: DataConfig) -> dict[str, str]:
    """SHA-256 of each split, as :func:`read` has it in the facts, without reading rows where files are hashed whole.

    Empty for the hub, whose data a commit names, and for vectors, which the settings determine.

    Raises:
        DataError: the data cannot be read.
    """
    if data.source == "hub" or task.kind == "vector_regression":
        return {}
    if data.source == "files":
        paths = {name: local_files.expanded(data.files[name]) for name in task.splits}
        return {name: hashlib.sha256(local_files.read(path)).hexdigest() for name, path in paths.items()}
    if data.source == "local":
        folder, is_saved = local_folder(task, data)
        if not is_saved:
            named = _local_names(task)
            return {name: hashlib.sha256(local_files.read(folder / file)).hexdigest() for name, file in named.items()}
    splits, _ = (_read_local if data.source == "local" else _read_mini)(task, data)
    return {name: split.sha256 for name, split in splits.items()}


def sample(labels: Sequence[float], limit: int, seed: int, task: TaskConfig) -> list[int]:
    """Draw ``limit`` row numbers without replacement, in ascending order, with at least one row of each class.

    The rows are the first ``limit`` of a random permutation. If those lack a class, its first row in the permutation
    replaces the last row drawn. So the sample is uniform unless a class would be lost.

    Raises:
        DataError: ``limit`` is less than the number of classes.
    """
    order = np.random.default_rng(seeding.derive(seed, "data.limit")).permutation(len(labels))
    needed: np.ndarray = np.empty(0, dtype=order.dtype)
    if task.kind == "classification":
        classes, first = np.unique(np.asarray(labels)[order], return_index=True)
        if limit < len(classes):
            raise DataError(
                f"data.limit={limit}: expected at least {len(classes)}, one row for each class of {task.name}"
            )
        needed = order[first]
    others = order[~np.isin(order, needed)]
    return sorted(int(row) for row in np.concatenate([needed, others[: limit - len(needed)]]))


def keep_aside(split: Split, share: float, seed: int, task: TaskConfig) -> tuple[list[int], list[int]]:
    """Split off a share of the rows as a holdout; rows with equal texts go to the same side.

    For text generation, rows with equal input texts go to the same side, so that no meaning representation is on both.

    Returns:
        The row numbers that remain, and those of the holdout, each in ascending order.

    Raises:
        DataError: one of the two would be empty.
    """
    from sklearn.model_selection import GroupShuffleSplit

    deciding = split.texts if task.is_labelled else split.texts[:1]
    texts = [tuple(text.strip() for text in row) for row in zip(*deciding, strict=True)]
    numbers = {text: number for number, text in enumerate(dict.fromkeys(texts))}
    # scikit-learn accepts seeds of 32 bits.
    drawing = GroupShuffleSplit(n_splits=1, test_size=share, random_state=seeding.derive(seed, "data.holdout") % 2**32)
    try:
        left, aside = next(drawing.split(texts, groups=[numbers[text] for text in texts]))
    except ValueError as error:
        raise DataError(
            f"data.holdout={share}: cannot split {len(numbers)} different training texts: {error}"
        ) from error
    return left.tolist(), aside.tolist()


def evaluated(splits: Mapping[str, Split], task: TaskConfig) -> list[str]:
    """Names of the splits that are scored after each epoch, the holdout first."""
    return [*([HOLDOUT] if HOLDOUT in splits else []), *task.evaluation]


def _read_hub(task: TaskConfig, data: DataConfig) -> tuple[dict[str, Split], dict[str, Any]]:
    name = data.name or task.name
    found, commit = hub.fetch(data.path, name, data.revision)
    found = carved(found, task.hub.carve, f"{data.path} {name}")
    splits = _from_datasets(found, task, f"{data.path} {name}", skip_malformed=None)
    return splits, {"source": "hub", "path": data.path, "name": name, "revision": commit}


def carved(found: Tables, sizes: Mapping[str, int], place: str) -> dict[str, datasets.Dataset]:
    """The splits of a dataset, with those that it lacks taken from the end of its training split.

    Raises:
        DataError: the training split has too few rows.
    """
    splits = dict(found)
    for name, size in sizes.items():
        if name not in found:
            rows = len(splits[TRAIN])
            if not 0 < size < rows:
                raise DataError(f"{place}: task.hub.carve.{name}={size}: expected 1 to {rows - 1} of the training rows")
            splits[name] = splits[TRAIN].select(range(rows - size, rows))
            splits[TRAIN] = splits[TRAIN].select(range(rows - size))
    return splits


def _read_mini(task: TaskConfig, data: DataConfig) -> tuple[dict[str, Split], dict[str, Any]]:
    splits = {}
    for name in task.splits:
        size = data.train_size if name == TRAIN else data.evaluation_size
        rows = RowCollector(task, f"mini {task.name}, split {name}", ", row ", None)
        for number, row in enumerate(_generated(task.name, name, size, data.seed)):
            rows.add(number, [row[column] for column in task.texts], row.get("label"))
        splits[name] = rows.finish()
    return splits, {"source": "mini", "seed": data.seed}


@functools.lru_cache(maxsize=64)  # a sweep's worker reads the same rows once for each method
def _generated(task: str, split: str, size: int, seed: int) -> tuple[Mapping[str, Any], ...]:
    return tuple(mini_text.examples(task, split, size, seed))


def _read_local(task: TaskConfig, data: DataConfig) -> tuple[dict[str, Split], dict[str, Any]]:
    folder, is_saved = local_folder(task, data)
    if is_saved:
        return _read_saved(folder, task, data, named=folder != _root(data))
    named = _local_names(task)
    splits = {name: local_files.read_split(folder, file, task, data.skip_malformed) for name, file in named.items()}
    return splits, {"source": "local", "format": "csv" if task.kind == "generation" else "tsv"}


def local_folder(task: TaskConfig, data: DataConfig) -> tuple[Path, bool]:
    """The folder of a task under ``data.dir``, and whether ``datasets`` saved it.

    Raises:
        DataError: there is none, or it is a single saved split.
    """
    root = _root(data)
    for folder in (root / task.name, root):
        if saved.is_whole(folder):
            return folder, True
        saved.refuse_single(folder, task.splits)
    folder = root / task.local.folder
    if not folder.is_dir():
        held = listing(sorted(entry.name for entry in root.iterdir()))
        hint = f"; set data.dir to the folder that contains {task.local.folder}" * (root.name == task.local.folder)
        raise DataError(
            f"data.dir={data.dir}: expected the folder {task.local.folder} of the official download, or a dataset "
            f"written by `save_to_disk`, here or in {task.name}; it contains {held}{hint}"
        )
    return folder, False


def _local_names(task: TaskConfig) -> dict[str, str]:
    """The file of each split in the task's folder."""
    named = {TRAIN: task.local.train}
    for name in task.splits[1:]:
        if name not in task.local.evaluation:
            known = listing(list(task.local.evaluation))
            raise DataError(f"task.local.evaluation names no file for the split {name!r}; it has the splits {known}")
        named[name] = task.local.evaluation[name]
    return named


def _root(data: DataConfig) -> Path:
    root = local_files.expanded(data.dir)
    try:
        found = root.is_dir()
    except OSError as error:  # a name that is too long, or a folder that may not be entered
        raise DataError(f"data.dir={shorten(data.dir)}: {error.strerror}") from error
    if not found:
        raise DataError(f"data.dir={data.dir}: no such folder")
    return root


def _read_saved(
    folder: Path, task: TaskConfig, data: DataConfig, named: bool
) -> tuple[dict[str, Split], dict[str, Any]]:
    """Read a dataset that ``datasets`` saved.

    Args:
        folder: of the dataset.
        task: as for :func:`read`.
        data: as for :func:`read`.
        named: whether the folder's name is the task's; if not, the labels must tell that the data are the task's.
    """
    found = saved.load(folder)
    if not named and task.is_labelled:
        _refuse_other_task(found, task, folder)
    splits = _from_datasets(found, task, str(folder), data.skip_malformed)
    return splits, {"source": "local", "format": "datasets"}


def _refuse_other_task(found: Tables, task: TaskConfig, folder: Path) -> None:
    """Raise if the labels do not identify the task: class numbers without names, or whole numbers for a regression.

    Columns alone fit several tasks. Names that are not the task's are refused when the columns are checked.
    """
    table = found.get(TRAIN)
    if table is None or task.label not in table.column_names:
        return
    feature = table.features[task.label]
    known = hasattr(feature, "names")
    if task.kind == "regression":
        known = str(getattr(feature, "dtype", "")).startswith("float")
    if not known:
        raise DataError(
            f"{folder}: nothing says that this is {task.name}: its labels are {shorten(feature)}; move it to the "
            f"folder {folder / task.name}, whose name says so"
        )


def _from_datasets(found: Tables, task: TaskConfig, place: str, skip_malformed: bool | None) -> dict[str, Split]:
    """The task's splits of a dataset that has the hub's columns and labels."""
    splits = {}
    for name in task.splits:
        wanted = [*task.texts, *([task.label] if task.is_labelled else [])]
        columns = columns_of(found, name, wanted, place)
        if task.is_labelled:
            _check_names(found[name], task, f"{place}, split {name}")
        rows = RowCollector(task, f"{place}, split {name}", ", row ", skip_malformed)
        for number, values in enumerate(zip(*columns, strict=True)):
            rows.add(number, values[: len(task.texts)], values[-1] if task.is_labelled else None)
        splits[name] = rows.finish()
    return splits


def columns_of(found: Tables, split: str, wanted: Sequence[str], place: str) -> list[list[Any]]:
    """The values of columns of a split.

    Args:
        found: the splits.
        split: name of one.
        wanted: names of columns.
        place: of the data set, for messages.

    Raises:
        DataError: there is no such split or column, or it cannot be read.
    """
    if split not in found:
        raise DataError(f"{place}: no split {split!r}; it has {listing(list(found))}")
    table = found[split]
    for column in wanted:
        if column not in table.column_names:
            raise DataError(f"{place}, split {split}: no column {column!r}; it has {listing(table.column_names)}")
    try:
        return [table[column][:] for column in wanted]
    except Exception as error:  # of `datasets`, which converts values while they are read, or of Arrow
        raise DataError(
            f"{place}, split {split}: the columns {listing(wanted)} cannot be read; they hold no texts and labels, or "
            "the files are damaged"
        ) from error


def _check_names(table: datasets.Dataset, task: TaskConfig, place: str) -> None:
    """Raise if the labels' names are not the task's."""
    # Class numbers depend on the order of the names: WNLI and RTE have the same two names in opposite order.
    names = getattr(table.features[task.label], "names", None)
    if names is not None and list(names) != list(task.labels):
        raise DataError(f"{place}: its labels are {shorten(names)}; expected {shorten(task.labels)}, in this order")


def _refuse_twins(splits: Mapping[str, Split], task: TaskConfig, data: DataConfig) -> None:
    """Raise if two splits have the same content, as a copied file would: a score on it would be meaningless."""
    seen: dict[str, str] = {}
    for name, split in splits.items():
        twin = seen.setdefault(split.sha256, name)
        if twin != name:
            both = (
                [f"data.{each}={data.files[each]}" for each in (twin, name)] if data.source == "files" else [data.dir]
            )
            place = f" ({' and '.join(both)})" if any(both) else ""
            raise DataError(
                f"{task.name}: the splits {twin!r} and {name!r} have the same rows{place}; expected different data"
            )


def load(task: TaskConfig, data: DataConfig, seed: int, holdout: float = 0.0) -> TaskData:
    """Load the training split and all evaluation splits of a task; arguments and errors as for :func:`read`."""
    splits, facts = read(task, data, seed, holdout)
    task = resolved_task(task, facts)
    return TaskData(
        train=splits[TRAIN].dataset(task),
        evaluation={name: splits[name].dataset(task) for name in evaluated(splits, task)},
        facts=facts,
    )
