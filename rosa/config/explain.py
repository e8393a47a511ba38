"""Translate errors of Hydra and OmegaConf for users, and suggest the nearest valid name."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rosa.config.overrides import quoted, unreadable
from rosa.config.registry import methods
from rosa.errors import ConfigError, RosaError
from rosa.utils.console import nearest

OTHER_NAMES = {
    "learning_rate": "lr", "r": "rank", "lora_r": "rank", "lora_alpha": "alpha", "lora_dropout": "dropout",
    "target_modules": "targets", "num_epochs": "epochs", "num_train_epochs": "epochs", "max_epochs": "epochs",
    "per_device_train_batch_size": "batch_size", "gradient_accumulation_steps": "accumulation",
    "n_jobs": "jobs", "warmup_ratio": "warmup", "max_seq_length": "max_length", "output_dir": "results_dir",
}  # fmt: skip
"""Name of a key in other programs -> its name here."""

KINDS_OF_VALUES = {
    r"could not be converted to Integer": "a whole number",
    r"could not be converted to Float": "a number",
    r"is not a valid bool": "true or false",
    r"is not a ListConfig": "a list, such as [A,B]",
    r"Cannot convert '\w+' to string": "text",
    r"Cannot assign \w+ to Dict": "a mapping, such as {NAME: VALUE}",
}
"""Pattern of OmegaConf's message for a value of the wrong type -> the right kind of value."""


def leaf_keys(node: Any, prefix: str = "") -> list[str]:
    """Every dotted key of a composed configuration, groups and leaves."""
    keys: list[str] = []
    for key in node:
        dotted = f"{prefix}{key}"
        keys.append(dotted)
        child = node._get_node(key)
        if hasattr(child, "_get_node") and hasattr(child, "keys") and not child._is_none() and not child._is_missing():
            keys += leaf_keys(child, f"{dotted}.")
    return keys


def group_options(conf: Path) -> dict[str, list[str]]:
    """Configuration group -> its choices: the names of its YAML files, and the methods of other packages."""
    options = {
        group.relative_to(conf).as_posix(): {path.stem for path in group.glob("*.yaml")}
        for group in sorted([*conf.iterdir(), *conf.glob("hydra/*")])
        if group.is_dir()
    }
    for name, method in methods().items():
        options["method"] |= {name, *(path.stem for path in method.preset_files())}
    return {group: sorted(names) for group, names in options.items()}


def valid_keys(conf: Path, overrides: Sequence[str]) -> list[str]:
    """Every key of the configuration that the valid group choices among ``overrides`` select."""
    from hydra import compose, initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra

    options = group_options(conf)
    chosen = []
    for override in overrides:
        group, _, name = override.partition("=")
        if name in options.get(group, []) and group != "experiment":
            chosen.append(override)
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(conf.resolve()), version_base="1.3"):
        return leaf_keys(compose("config", overrides=chosen))


@contextmanager
def explained(conf: Path, overrides: Sequence[str]) -> Iterator[None]:
    """Convert errors of Hydra or OmegaConf in the block to a ConfigError with the message of :func:`explain`."""
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    try:
        yield
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(explain(error, conf, overrides)) from error
    except (YAMLError, ValueError, RecursionError) as error:
        if isinstance(error, RosaError):
            raise
        said = " ".join(line.strip() for line in str(error).splitlines())
        if "Config group override must be" in said:
            groups = group_options(conf)
            for group, _, value in (word.partition("=") for word in overrides):
                if group in groups and group != "experiment" and not re.search(r"[A-Za-z]", value.replace("null", "")):
                    raise ConfigError(f"{group}={value}: expected one of {', '.join(groups[group])}") from error
        raise ConfigError(f"a file or value of the configuration cannot be read: {said}") from error


def explain(error: BaseException, conf: Path, overrides: Sequence[str]) -> str:
    """The message for an error that Hydra or OmegaConf raised while composing.

    Args:
        error: the error.
        conf: the folder of the configuration groups.
        overrides: the command's arguments.
    """
    text = str(error)
    reason = f"{text} {error.__cause__ or ''}"
    options = group_options(conf)
    choice = re.search(r"Could not find '([\w/]+)/([^'/]+)'", text)
    if choice and choice.group(1) in options and not choice.group(1).startswith("hydra/"):
        group, name = choice.groups()
        suggestion = nearest(name, options[group]) or "."
        others = "; another model: model=hub model.path=OWNER/NAME or model=folder model.path=DIR, with model.name=NAME"
        shown = [option for option in options[group] if group != "experiment" or not option.endswith("_base")]
        listed = f"Available: {', '.join(shown)}{others if group == 'model' else ''}"
        return f"{group}={name}: no such {group}{suggestion} {listed}"
    if choice and choice.group(1).startswith("hydra/"):
        group, name = choice.groups()
        there = re.search(r"Available options in '[^']+':\s*(.*?)\s*Config search path", text, re.DOTALL)
        available = (there.group(1) if there else "").split()
        hint = nearest(name, available) or "; it is a plugin of Hydra's that is not installed."
        return f"{group}={name}: no such {group}{hint} Available: {', '.join(available)}"
    null = re.search(r"([\w.]+)' is not Optional", reason)
    if null:
        return f"{null.group(1)}=null: expected a value"
    wrong = _wrong_type(text, reason)
    if wrong:
        return wrong
    unknown = re.search(r"Could not override '([^']+)'", text) or re.search(r"full_key: (\S+)", reason)
    if unknown and re.search(r"not in struct|Key '[^']+' not in|No match in the defaults list", reason):
        key = unknown.group(1)
        keys = valid_keys(conf, overrides)
        if key not in keys:
            group, dot, leaf = key.rpartition(".")
            siblings = [k.rpartition(".")[2] for k in keys if k.rpartition(".")[0] == group]
            owners = _methods_with(leaf) if group == "method" else []
            if owners:
                return f"{key}: no such key; {leaf} belongs to {', '.join(owners)}"
            meant = [k for k in keys if k.rpartition(".")[2] == OTHER_NAMES.get(leaf, leaf)]
            suggestion = f"; did you mean {min(meant, key=len)}?" if meant else ""
            suggestion = suggestion or nearest(leaf, siblings).replace("mean ", f"mean {group}{dot}")
            suggestion = suggestion or nearest(key, keys)
            return f"{key}: no such key{suggestion or (f'; {group} has: ' + ', '.join(siblings) if siblings else '')}"
    word = unreadable(overrides)
    ambiguous = re.search(r"Ambiguous value for argument '(.*)'$", text.partition("\n")[0])
    if word is not None or ambiguous:
        word = word or (ambiguous.group(1) if ambiguous else "")
        key, _, value = word.partition("=")
        if value and not value.startswith(("[", "{")):
            several = f"several values of {key} are a sweep, which -m does; for one, " if ambiguous else ""
            return f"{word}: {several}quote the value, and the quotes from the shell: {quoted(word)}"
        if word and not value:
            return f"{word}: expected KEY=VALUE"
    lines = [line.strip() for line in reason.splitlines() if line.strip()]
    said = [line for line in lines if not re.match(r"(full_key|object_type|reference_type)[:=]", line)]
    where = re.search(r"full_key: (\S+)", reason)
    prefix = f"{where.group(1)}: " if where and where.group(1) not in said[0] else ""
    return prefix + " ".join(dict.fromkeys(said))


def _methods_with(option: str) -> list[str]:
    """The methods that have an option, as they are chosen."""
    return [
        f"method={name}"
        for name, method in methods().items()
        if option in {item.name for item in dataclasses.fields(method.config)}
    ]


def _wrong_type(text: str, reason: str) -> str:
    """The message for a value of another type than its key's; empty for any other error.

    Args:
        text: Hydra's or OmegaConf's message.
        reason: the same, followed by that of the error's cause.
    """
    kind = next((kind for pattern, kind in KINDS_OF_VALUES.items() if re.search(pattern, reason)), "")
    override = re.match(r"Error merging override (.+)", text)  # of the command; other values are those of a file
    key, value = (re.search(pattern, reason) for pattern in (r"full_key: (\S+)", r"Value ('.*') (?:of type|is not)"))
    found = override.group(1) if override else key.group(1) if key else ""
    if not kind or not found:
        return ""
    return f"{found}{f'={value.group(1)}' if value and not override else ''}: expected {kind}"
