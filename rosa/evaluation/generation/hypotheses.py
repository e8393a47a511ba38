"""Write hypotheses to a file, one line per prompt, with a JSON file of facts beside it.

``test.txt`` has the texts and ``test.txt.json`` the facts: hashes of weights, prompts and ``test.txt``, the settings,
and the numbers of truncated and empty hypotheses. During decoding, finished hypotheses are in the journal
``.test.txt.journal``, from which an interrupted decoding resumes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from rosa.config import NOT_IDENTITY, DecodingConfig, to_dict
from rosa.errors import DecodingError
from rosa.evaluation.generation.decode import decode
from rosa.evaluation.generation.journal import Journal
from rosa.utils import files


@dataclass(frozen=True)
class Written:
    """A file of hypotheses."""

    path: Path
    texts: tuple[str, ...]
    facts: dict[str, Any]
    """The content of ``path`` + ``.json``."""
    skipped: bool
    """Whether the file already existed, from the same weights, prompts and settings."""


def write(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str],
    config: DecodingConfig,
    path: Path,
    origin: Mapping[str, Any],
    overwrite: bool = False,
    progress: bool = True,
) -> Written:
    """Decode prompts to a file; resumes an interrupted call, and does nothing if the file is complete.

    Args:
        model: a causal language model, on its device.
        tokenizer: the model's.
        prompts: as for :func:`rosa.evaluation.generation.decode.decode`.
        config: how to decode.
        path: the file to write; it appears only when it is complete.
        origin: facts to add about the source of model and prompts (split, weights, epoch ...).
        overwrite: replace an existing file with other content.
        progress: show a progress bar on standard error.

    Raises:
        DecodingError: as for ``decode``; or the file has other content, cannot be written, or is being written by
            another process.
        JournalError: the journal cannot be read or written.
    """
    made_from = {
        "weights_sha256": weights_sha256(model),
        "prompts_sha256": _sha256(prompts),
        "decoding": {name: value for name, value in to_dict(config).items() if name not in NOT_IDENTITY["decoding"]},
    }
    with _locked(path):
        earlier = _earlier(path, made_from)
        if earlier is not None:
            return earlier
        if path.exists() and not overwrite:
            raise DecodingError(
                f"{path}: already exists, with other content than these weights, prompts and settings produce; choose "
                "another file, or overwrite it (--overwrite)"
            )
        journal = Journal(path.with_name(f".{path.name}.journal"))
        found = decode(model, tokenizer, prompts, config, journal, str(made_from["weights_sha256"]), progress)
        facts = {
            **origin,
            "prompts": len(prompts),
            "unended": found.unended,
            "empty": found.empty,
            "limited": found.limited,
            "warnings": found.warnings(),
            "hypotheses": {"file": path.name, "sha256": _sha256(found.texts)},
            **made_from,
            "device": model.device.type,
            "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
        }
        try:
            # Facts first: a process killed in between leaves no text file without facts, which would be refused.
            files.replace(_facts_path(path), json.dumps(facts, indent=1, ensure_ascii=False) + "\n")
            files.replace(path, _lines(found.texts))
        except OSError as error:
            raise DecodingError(f"{path}: cannot be written: {error}") from error
        journal.remove()
        return Written(path, found.texts, facts, skipped=False)


def weights_sha256(model: nn.Module) -> str:
    """SHA-256 of a model's ``state_dict``: names, types, shapes and values."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def _earlier(path: Path, made_from: Mapping[str, Any]) -> Written | None:
    """The existing file, if it is complete and was made from the same weights, prompts and settings; else None."""
    try:
        facts = json.loads(_facts_path(path).read_text(encoding="utf-8"))
        text = path.read_bytes().decode("utf-8")
        same = all(facts[name] == value for name, value in made_from.items())
        whole = hashlib.sha256(text.encode()).hexdigest() == facts["hypotheses"]["sha256"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    return Written(path, tuple(text.split("\n")[:-1]), facts, skipped=True) if same and whole else None


def _facts_path(path: Path) -> Path:
    return path.with_name(f"{path.name}.json")


def _lines(texts: Iterable[str]) -> str:
    return "".join(f"{text}\n" for text in texts)


def _sha256(texts: Iterable[str]) -> str:
    return hashlib.sha256(_lines(texts).encode()).hexdigest()


def _locked(path: Path) -> AbstractContextManager[None]:
    """A lock of the file against other processes; raises a DecodingError if it is locked."""
    return files.locked(
        path.with_name(f".{path.name}.lock"),
        DecodingError(f"{path}: another process is writing it; wait for it, or choose another file"),
        lambda error: DecodingError(f"{path}: cannot be written: {error}"),
    )
