"""Read data sets that ``datasets`` saved to disk, and name the damaged file where one cannot be read.

``DatasetDict.save_to_disk`` writes ``dataset_dict.json``, which lists the splits, and a folder for each split, with
``state.json``, ``dataset_info.json`` and Arrow files. ``Dataset.save_to_disk`` writes one such folder.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rosa.config import TRAIN
from rosa.data import local_files
from rosa.data.base import listing, shorten
from rosa.errors import DataError
from rosa.utils.files import parse_json

if TYPE_CHECKING:
    import datasets

MARK = "dataset_dict.json"
"""File that ``DatasetDict.save_to_disk`` writes first."""
STATE = "state.json"
INFO = "dataset_info.json"
_STATE_TYPES: dict[str, tuple[type, ...]] = {
    "_data_files": (list,), "_fingerprint": (str,), "_format_columns": (list, type(None)), "_format_kwargs": (dict,),
    "_format_type": (str, type(None)), "_output_all_columns": (bool,), "_split": (str, type(None)),
}  # fmt: skip


def is_whole(folder: Path) -> bool:
    """Whether a folder holds the splits of a saved data set, saved together or one by one under their names."""
    return (folder / MARK).is_file() or (folder / TRAIN / STATE).is_file()


def refuse_single(folder: Path, splits: Sequence[str]) -> None:
    """Refuse a folder that ``Dataset.save_to_disk`` wrote: one split does not make a task.

    Raises:
        DataError: it is such a folder; the message says what is expected.
    """
    if not (folder / STATE).is_file():
        return
    if is_whole(folder.parent):
        raise DataError(f"{folder}: is one split of a saved data set; expected {folder.parent}, which holds all splits")
    names = ", ".join(f"{name!r}: ..." for name in splits)
    raise DataError(
        f"{folder}: is one split, saved by Dataset.save_to_disk; expected a folder with the splits {listing(splits)}, "
        f"saved by DatasetDict({{{names}}}).save_to_disk or each in a folder of its name"
    )


def load(folder: Path) -> dict[str, datasets.Dataset]:
    """The splits of a saved data set.

    Raises:
        DataError: it is damaged; the message names the file.
    """
    return {name: _load_split(folder / name) for name in _names(folder)}


def _names(folder: Path) -> list[str]:
    mark = folder / MARK
    if not mark.is_file():
        return sorted(state.parent.name for state in folder.glob(f"*/{STATE}"))
    names = _object(mark).get("splits")
    if not isinstance(names, list) or not all(map(_is_name, names)):
        raise _damaged(mark, f"splits is {shorten(names)}, expected a list of names")
    return names


def _is_name(value: Any) -> bool:
    """Whether a value can be the name of a file: not a path, and of at most 255 bytes."""
    try:
        return isinstance(value, str) and value == Path(value).name and "\0" not in value and len(value.encode()) <= 255
    except UnicodeEncodeError:  # half of a surrogate pair
        return False


def _load_split(folder: Path) -> datasets.Dataset:
    import datasets

    try:
        found = datasets.Dataset.load_from_disk(folder).with_format(None)
        found.data.validate(full=True)
    except Exception as error:  # `datasets` and Arrow raise nearly any type
        raise _fault(folder) from error
    return found


def _fault(folder: Path) -> DataError:
    """Which file of a split that cannot be loaded is damaged."""
    import datasets
    import pyarrow

    try:
        state = _object(folder / STATE)
        for key, types in _STATE_TYPES.items():
            if not isinstance(state.get(key), types):
                return _damaged(folder / STATE, f"{key} is {shorten(state.get(key))}")
        info = _object(folder / INFO)
    except DataError as error:
        return error
    for entry in state["_data_files"]:
        if not isinstance(entry, dict) or not _is_name(entry.get("filename")):
            return _damaged(folder / STATE, f"_data_files has {shorten(entry)}, expected the name of a file")
        path = folder / entry["filename"]
        try:
            with pyarrow.memory_map(str(path)) as source:
                pyarrow.ipc.open_stream(source).read_all().validate(full=True)
        except Exception:  # whatever Arrow raises
            return _damaged(path, "not a whole Arrow file" if path.is_file() else "missing")
    try:
        datasets.DatasetInfo.from_dict(info)
    except Exception:  # whatever `datasets` raises
        return _damaged(folder / INFO, "does not describe a data set")
    return _damaged(folder, f"its files, {STATE}, {INFO} and the data, do not fit each other")


def _object(path: Path) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        DataError: there is none.
    """
    if not path.is_file():
        raise _damaged(path, "missing")
    text = local_files.decode(local_files.read(path), path)
    try:
        found = parse_json(text, DataError)
    except DataError as error:
        raise _damaged(path, str(error)) from error
    if not isinstance(found, dict):
        raise _damaged(path, f"expected a JSON object, found {shorten(found)}")
    return found


def _damaged(path: Path, what: str) -> DataError:
    return DataError(f"{path}: {what}; the data set is damaged, or saving it was interrupted: save it again")
