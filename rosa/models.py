"""Backbone, head and tokenizer of a run, from the hub, a folder, an installed package, or the project itself."""

from __future__ import annotations

import hashlib
import importlib.util
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from rosa.config import ModelConfig, TaskConfig
from rosa.hub import why_unreachable
from rosa.seeding import derive, global_stream


class ModelError(ValueError):
    """A model that cannot be had or does not fit the task; the message says where it was looked for."""


def locate(model: ModelConfig) -> tuple[str, dict[str, Any]]:
    """Where ``from_pretrained`` finds a model, and the options that it needs there.

    Raises:
        ModelError: no such folder or package, or a hub that cannot be reached.
    """
    if model.source == "hub":
        unreachable = why_unreachable()
        options: dict[str, Any] = {"revision": model.revision} if model.revision else {}
        if unreachable:
            try:
                AutoConfig.from_pretrained(model.path, local_files_only=True, **options)
            except (OSError, ValueError) as error:
                raise ModelError(
                    f"model.path={model.path}: not in the hub's cache on this machine, and {unreachable}. Without a "
                    "network use a model that you have (model=folder model.path=DIR, as save_pretrained writes it), "
                    "model=minilm (an installed package), or the mini scale (model=mini-roberta)"
                ) from error
            options["local_files_only"] = True
        return model.path, options
    if model.source == "package":
        package, _, inner = model.path.partition("/")
        spec = importlib.util.find_spec(package)
        if spec is None or not spec.submodule_search_locations:
            raise ModelError(f"model.path={model.path}: the package {package} is not installed; see requirements.txt")
        folder = Path(spec.submodule_search_locations[0]) / inner
    else:
        folder = Path(model.path)
    if not (folder / "config.json").is_file():
        holds = ", ".join(sorted(p.name for p in folder.iterdir())[:10]) if folder.is_dir() else "no such folder"
        raise ModelError(f"model.path={model.path}: expected config.json in {folder}; found: {holds}")
    return str(folder), {"local_files_only": True}


def load(
    model: ModelConfig, task: TaskConfig, seed: int
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase, dict[str, Any]]:
    """A sequence classifier (or regressor) with a freshly drawn head, and its tokenizer.

    The head depends on the seed alone, so that every method starts from the same one.

    Args:
        model: with ``path`` set (for ``source: mini``, to the pretrained folder).
        task: its labels become the model's.
        seed: the run's.

    Returns:
        The model in evaluation mode, the tokenizer, and the facts that a record keeps.

    Raises:
        ModelError: it cannot be had, or is no classifier.
    """
    place, options = locate(model)
    labels = task.labels or ["score"]
    described = {
        "num_labels": len(labels),
        "id2label": dict(enumerate(labels)),
        "label2id": {label: i for i, label in enumerate(labels)},
        "problem_type": "regression" if task.kind == "regression" else "single_label_classification",
        "dtype": getattr(torch, model.dtype),
        "attn_implementation": "sdpa",
    }
    try:
        tokenizer = AutoTokenizer.from_pretrained(place, **options)
        with global_stream(derive(seed, "head")):
            network = AutoModelForSequenceClassification.from_pretrained(place, **described, **options)
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(f"model {model.name} ({place}) cannot serve {task.name}: {error}") from error
    if tokenizer.pad_token is None:
        raise ModelError(f"model {model.name} ({place}): its tokenizer has no padding token, which batches need")
    facts: dict[str, Any] = {"name": model.name, "source": model.source, "path": model.path, "revision": model.revision}
    weights = sorted(Path(place).glob("*.safetensors")) if model.source != "hub" else []
    facts["sha256"] = {path.name: _sha256(path) for path in weights}
    return network.eval(), tokenizer, facts


def length_limit(requested: int, model: PreTrainedModel) -> int:
    """``train.max_length``, or the model's own limit if that is lower.

    RoBERTa numbers positions from its padding index on, which costs it two of its position embeddings.
    """
    positions = getattr(model.config, "max_position_embeddings", requested)
    offset = model.config.pad_token_id + 1 if model.config.model_type in ("roberta", "xlm-roberta", "camembert") else 0
    return min(requested, positions - offset)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
