"""The cache of tokenized splits: a file for each, named by a hash of all that its tokens depend on."""

from __future__ import annotations

import contextlib
import hashlib
import json
import tempfile
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

_BESIDE_BACKEND = ("model_input_names", "truncation_side", "split_special_tokens")
"""Attributes of a tokenizer that its tokens depend on, and that are not in its backend."""


class TokenCache:
    """Keeps what one tokenizer makes of large splits.

    Args:
        folder: of the files, made when the first is written. Any of them may be deleted.
        tokenizer: a fast one; what a slow one makes, or one with parts in Python, is not kept, since these cannot be
            hashed.
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
        key = self._key(split, texts) if len(split) >= CACHED_ROWS and self._tokenizer.is_fast else None
        kept = self._kept(split, self._folder / f"{key}.arrow", make) if key else None
        return make(keep_in_memory=True, load_from_cache_file=False) if kept is None else kept

    def _kept(
        self, split: datasets.Dataset, file: Path, make: Callable[..., datasets.Dataset]
    ) -> datasets.Dataset | None:
        """The tokens in a file, which is written if there is none; None if it cannot be written or is broken.

        A file that is broken, a folder that cannot be written or a full disk must not stop a run.
        """
        import pyarrow

        # A ValueError, such as that of a file that could not be flushed, may also be about the rows: then tokenizing in
        # memory raises it again.
        faults = (OSError, ValueError, pyarrow.ArrowException)
        with contextlib.suppress(*faults):
            if not file.exists():
                self._folder.mkdir(parents=True, exist_ok=True)
                # In a folder of its own, as datasets leaves what it could not finish on a full disk.
                with tempfile.TemporaryDirectory(dir=self._folder) as own:
                    part = Path(own, file.name)
                    make(cache_file_name=str(part), load_from_cache_file=False)
                    part.replace(file)
            found = None
            with contextlib.suppress(*faults):
                found = make(cache_file_name=str(file), load_from_cache_file=True)
            # Arrow reads a file that ends after one of its batches as if it were whole.
            if found is not None and len(found) == len(split):
                return found
            file.unlink(missing_ok=True)
        return None

    def _key(self, split: datasets.Dataset, texts: list[str]) -> str | None:
        """The hash of all that the tokens depend on; None if the tokenizer has parts that cannot be hashed."""
        others = [name for name in split.column_names if name not in texts]
        try:
            backend = json.loads(self._tokenizer.backend_tokenizer.to_str())
        except Exception:  # tokenizers has no class for it: a part written in Python, such as RoFormer's
            return None
        # Not contents, but what the last call asked for.
        backend = {name: value for name, value in backend.items() if name not in ("truncation", "padding")}
        recipe = {
            "version": _VERSION,
            "libraries": [version(name) for name in ("tokenizers", "transformers", "datasets")],
            "tokenizer": [backend, *(getattr(self._tokenizer, name) for name in _BESIDE_BACKEND)],
            "settings": self._settings,
            "columns": [texts, others],
            "rows": hash_rows([split[name][:] for name in (*texts, *others)], []),
        }
        return hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()[:32]
