"""The cache of tokenized splits: a file for each, named by a hash of all that its tokens depend on."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rosa.data.base import hash_rows

if TYPE_CHECKING:
    import datasets
    from transformers import PreTrainedTokenizerBase

CACHED_ROWS = 20_000
"""Splits with fewer rows are tokenized by each run: that takes about a second, and as long as reading a cached file."""

_VERSION = 1
"""Part of the name of a file: raise it when a change in ``rosa.data.tokenization`` gives other tokens."""


class TokenCache:
    """Keeps what one tokenizer makes of large splits.

    Args:
        folder: of the files, made when the first is written. Any of them may be deleted.
        tokenizer: a fast one; what a slow one makes is not kept, since its contents cannot be hashed.
        settings: everything else that the tokens depend on, beside the rows: limit, template; JSON-serializable.
    """

    def __init__(self, folder: Path, tokenizer: PreTrainedTokenizerBase, settings: Any) -> None:
        self._folder, self._tokenizer, self._settings = folder, tokenizer, settings

    def get(self, split: datasets.Dataset, texts: list[str], make: Callable[..., datasets.Dataset]) -> datasets.Dataset:
        """The tokens of a split: from its file, or else by ``make``, which also writes it.

        Args:
            split: has the text columns, and perhaps labels.
            texts: the names of the text columns.
            make: calls ``split.map`` with the keyword arguments that it is given, which say where the result is kept.
        """
        import pyarrow

        if len(split) >= CACHED_ROWS and self._tokenizer.is_fast:
            file = self._folder / f"{self._key(split, texts)}.arrow"
            # A file that is broken (a full disk), or a folder that cannot be written, must not stop a run.
            with contextlib.suppress(OSError):
                self._folder.mkdir(parents=True, exist_ok=True)
                try:
                    return make(cache_file_name=str(file), load_from_cache_file=True)
                except (OSError, pyarrow.ArrowException):
                    file.unlink(missing_ok=True)
        return make(keep_in_memory=True, load_from_cache_file=False)

    def _key(self, split: datasets.Dataset, texts: list[str]) -> str:
        others = [name for name in split.column_names if name not in texts]
        backend = json.loads(self._tokenizer.backend_tokenizer.to_str())
        # Not contents, but what the last call asked for.
        backend = {name: value for name, value in backend.items() if name not in ("truncation", "padding")}
        recipe = {
            "version": _VERSION,
            "libraries": [version(name) for name in ("tokenizers", "transformers", "datasets")],
            "tokenizer": [backend, self._tokenizer.model_input_names, self._tokenizer.truncation_side],
            "settings": self._settings,
            "columns": [texts, others],
            "rows": hash_rows([split[name][:] for name in (*texts, *others)], []),
        }
        return hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()[:32]
