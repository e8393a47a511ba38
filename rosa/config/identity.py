"""The identity of a run: which settings count, and the hash that names them."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from typing import Any

from rosa.config.schema import Config

NOT_IDENTITY = {
    "": ("seed", "experiment_name", "results_dir", "cache_dir", "jobs", "logger"),
    "task": ("local", "rows"),
    "data": ("dir", "train", "validation", "test"),
    "train": (
        "tuning", "device", "threads", "log_steps", "save_steps", "keep", "force", "fail_fast", "evaluation_batch_size",
        "forgetting",
    ),
    "decoding": ("batch_size",),
}  # fmt: skip
"""Keys that are not hashed: they do not change a run's result, name the place of files, or are in the folder's name
already. The content of files does change a result, so a finished run is skipped only if the hashes of its data and
weights are those in its record."""


def identity_hash(config: Config) -> str:
    """Hash of a run's settings: eight hexadecimal digits, part of the run's folder name.

    Only values that differ from the dataclasses' defaults are hashed. So a new option whose default is the old
    behaviour does not change the hashes of earlier runs. 1 and 1.0 are one value; the order of a user's keys counts.
    """
    text = json.dumps(_different_from_default(config), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def canonical(value: Any) -> Any:
    """A setting's value as lists, numbers and texts; equal settings get equal values (1 and 1.0 are equal)."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, Mapping):
        return [[key, canonical(inner)] for key, inner in value.items()]
    return [canonical(inner) for inner in value] if isinstance(value, (list, tuple)) else value


def without_places(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings by dotted key, without the places of the model's folder and of its pretraining text.

    ``model.path`` is kept for models of the hub and of packages, where it is a name; of ``model.mini.text`` and
    ``model.mini.glue``, only whether there is one.
    """
    kept = dict(settings)
    if kept.get("model.source") == "folder":
        kept.pop("model.path", None)
    for key, what in (("model.mini.text", "a file"), ("model.mini.glue", "a folder")):
        if kept.get(key):
            kept[key] = what
    return kept


def _different_from_default(config: Config) -> dict[str, Any]:
    flat = without_places({"model.source": config.model.source} | _flat(config, ""))
    if config.model.source == type(config.model).source:
        del flat["model.source"]
    return flat


def default_of(setting: dataclasses.Field[Any]) -> Any:
    """The default of a dataclass's field, from its factory if it has one; ``dataclasses.MISSING`` without a default."""
    return setting.default if setting.default_factory is dataclasses.MISSING else setting.default_factory()


def _flat(node: Any, prefix: str) -> dict[str, Any]:
    """The values that count and differ from their defaults, by dotted key."""
    kept: dict[str, Any] = {}
    for f in dataclasses.fields(node):
        if f.name in NOT_IDENTITY.get(prefix.rstrip("."), ()):
            continue
        value = getattr(node, f.name)
        if dataclasses.is_dataclass(value):
            kept |= _flat(value, f"{prefix}{f.name}.")
            continue
        if canonical(value) != canonical(default_of(f)):
            kept[f"{prefix}{f.name}"] = canonical(value)
    return kept
