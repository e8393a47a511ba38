"""The cache of pretrained models: folders written atomically, and once even if several processes need them."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rosa.errors import ModelError
from rosa.utils import files
from rosa.utils.names import PRETRAINING

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast


def key(recipe: Any) -> str:
    """The cache key of a model: sixteen hexadecimal digits of a hash of its recipe as JSON."""
    return hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()[:16]


def save_whole(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, facts: Mapping[str, Any], folder: Path
) -> None:
    """Write to a temporary folder beside the final one, then rename it atomically; the model moves to the CPU.

    Raises:
        OutputError: it cannot be written.
    """
    with files.writing(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
        try:
            model.cpu().save_pretrained(temporary)
            tokenizer.save_pretrained(temporary)
            (temporary / PRETRAINING).write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
            # mkdtemp makes a private folder, but a cache may be shared.
            temporary.chmod(0o755)
            temporary.rename(folder)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def refuse_existing(folder: Path) -> None:
    """Refuse an existing folder, before any work is done for it.

    Raises:
        ModelError: the folder is there already.
    """
    if folder.exists():
        raise ModelError(f"{folder} is there already; a model is saved to a new folder only")


def cached(folder: Path, make: Callable[[Path], object]) -> Path:
    """Return the folder; if it is missing or incomplete, ``make`` writes it first.

    If two processes need the same model at once, the second waits for the first. An incomplete folder (a partial copy,
    a full disk) is replaced.

    Raises:
        OutputError: nothing can be written there; ``make`` is not called.
    """
    from filelock import FileLock

    if _is_whole(folder):
        return folder
    lock = FileLock(folder.with_suffix(".lock"))
    with files.writing(folder.parent):
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    try:
        if not _is_whole(folder):
            # Left by a process that died; a living one would hold the lock, which the system releases at its death.
            for broken in (*folder.parent.glob(f".{folder.name}.*"), *folder.parent.glob(folder.name)):
                shutil.rmtree(broken)
            make(folder)
    finally:
        lock.release()
    return folder


def noted(recipe: Any, cache_dir: Path, find: Callable[[], Path]) -> Path:
    """The cached folder for a recipe: from a note in the cache, or else by ``find``, whose answer is noted.

    The key of a folder includes the pretraining text, which takes long to generate; its recipe is known at once.

    Args:
        recipe: everything that determines the folder, including a hash of the generator's code; JSON-serializable.
        cache_dir: where the folders and the notes are.
        find: returns the folder, after making it where it is missing.
    """
    note = cache_dir / f"{key(recipe)}.folder"
    with contextlib.suppress(OSError, UnicodeDecodeError):
        name = note.read_text(encoding="utf-8").strip()
        if re.fullmatch(r"[\w-]+", name) and _is_whole(cache_dir / name):
            return cache_dir / name
    folder = find()
    with contextlib.suppress(OSError):  # a cache that others share may be read-only
        files.replace(note, f"{folder.name}\n")
    return folder


def _is_whole(folder: Path) -> bool:
    needed = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", PRETRAINING)
    return all((folder / name).is_file() for name in needed)
