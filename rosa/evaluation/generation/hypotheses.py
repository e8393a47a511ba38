"""A file of hypotheses, one line a prompt, and beside it what it was made from.

``test.txt`` holds the texts and ``test.txt.json`` the facts: hashes of weights and prompts, the settings, how many
hypotheses were cut off or are empty, and the hash of ``test.txt`` itself. While they are made there is a journal,
``.test.txt.journal``, from which an interrupted decoding goes on.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from filelock import FileLock, Timeout
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
    """What ``path`` + ``.json`` holds."""
    skipped: bool
    """It was there already, made from the same weights, prompts and settings."""


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
    """Decode prompts into a file; go on where that was interrupted, and do nothing where it is done.

    Args:
        model: a causal language model, on its device.
        tokenizer: the model's.
        prompts: see :func:`rosa.evaluation.generation.decode.decode`.
        config: how to decode.
        path: of the file; it appears once it is whole.
        origin: what the facts say about where model and prompts come from (split, weights, epoch ...).
        overwrite: replace a file that holds something else.
        progress: draw a bar on standard error.

    Raises:
        DecodingError: the prompts, the tokenizer or the model do not serve, the file holds something else, or another
            process is writing it.
        JournalError: the journal cannot be used.
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
                f"{path}: exists, and was made from other weights, prompts or settings, or by something else; name "
                "another file, or have it overwritten (--overwrite)"
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
            # In this order a process killed in between leaves nothing that looks like a file of somebody else's.
            files.replace(_facts_path(path), json.dumps(facts, indent=1, ensure_ascii=False) + "\n")
            files.replace(path, _lines(found.texts))
        except OSError as error:
            raise DecodingError(f"{path}: cannot be written: {error}") from error
        journal.remove()
        return Written(path, found.texts, facts, skipped=False)


def weights_sha256(model: nn.Module) -> str:
    """A hash of every parameter and buffer that a checkpoint keeps: names, types, shapes and values."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def _earlier(path: Path, made_from: Mapping[str, Any]) -> Written | None:
    """A whole file that was made from the same, if that is what is there."""
    try:
        facts = json.loads(_facts_path(path).read_text(encoding="utf-8"))
        text = path.read_bytes().decode("utf-8")
        same = all(facts[name] == value for name, value in made_from.items())
        whole = hashlib.sha256(text.encode()).hexdigest() == facts["hypotheses"]["sha256"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return Written(path, tuple(text.split("\n")[:-1]), facts, skipped=True) if same and whole else None


def _facts_path(path: Path) -> Path:
    return path.with_name(f"{path.name}.json")


def _lines(texts: Iterable[str]) -> str:
    return "".join(f"{text}\n" for text in texts)


def _sha256(texts: Iterable[str]) -> str:
    return hashlib.sha256(_lines(texts).encode()).hexdigest()


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Keep other processes from the file meanwhile."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path.with_name(f".{path.name}.lock"), timeout=0)
        lock.acquire()
    except Timeout as error:
        raise DecodingError(f"{path}: another process is decoding into it") from error
    except OSError as error:
        raise DecodingError(f"{path}: cannot be written: {error}") from error
    with lock:
        yield
