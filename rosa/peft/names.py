"""Refuse names and patterns that match nothing in a model, such as misspelt ones; PEFT ignores them."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterable, Sequence
from typing import Any

from peft.tuners.tuners_utils import check_target_module_exists
from peft.utils.other import get_pattern_key
from torch import nn

from rosa.errors import AdapterError
from rosa.peft.config import TunerConfig
from rosa.utils.console import nearest
from rosa.utils.names import starred

HEADS = {"SEQ_CLS": ("classifier", "score"), "TOKEN_CLS": ("classifier", "score"), "QUESTION_ANS": ("qa_outputs",)}
"""What PEFT adds to ``modules_to_save`` for a task type, whether or not the model has it."""


def refuse_unmatched(
    model: nn.Module, config: TunerConfig, names: Sequence[str], chosen: Sequence[str], choices: Sequence[str]
) -> None:
    """Check that every name, pattern and layer index of a configuration matches something.

    Args:
        model: the model, for messages.
        config: its options; ``target_modules`` is not None.
        names: all modules but those inside adapted layers, shared modules under each of their names.
        chosen: the modules that are adapted.
        choices: the modules that can be adapted.

    Raises:
        AdapterError: one matches nothing, or has no effect; the message names it, and what comes close.
    """
    title = type(model).__name__
    if not isinstance(config.target_modules, str):
        present = set(names)
        for one in sorted(config.target_modules):
            if one not in present and not _named(names, one):
                raise AdapterError(
                    f"target_modules: {one!r} names no module of {title}{_near(one, names)}; it has: {listed(choices)}"
                )
    _refuse_layers(config, names, title)
    _refuse_exclusions(config, names, title)
    _refuse_saved(config, names, title)
    for option, patterns in config.patterns().items() if chosen else ():
        _refuse_patterns(option, list(patterns), chosen)


def _refuse_layers(config: TunerConfig, names: Sequence[str], title: str) -> None:
    """Check that ``layers_pattern`` names lists of modules, and that each of ``layers_to_transform`` has targets."""
    if config.layers_to_transform is None or isinstance(config.target_modules, str):
        return
    lists = config.layers_pattern or ()
    for one in [lists] if isinstance(lists, str) else lists:
        if not any(re.match(rf"(?:^|.*?\.){one}\.\d+\.", name) for name in names):
            found = sorted({part for name in names for part in re.findall(r"([^.]+)\.\d+\.", name)})
            raise AdapterError(
                f"layers_pattern: {one!r} names no list of modules of {title}{nearest(one, found)}; it has: "
                f"{', '.join(found) or 'none'}"
            )
    ends = {one.rpartition(".")[2] for one in config.target_modules}
    there = [name for name in names if name.rpartition(".")[2] in ends]
    asked = config.layers_to_transform
    for index in asked if isinstance(asked, (list, tuple)) else [asked]:
        if there and not in_layers(there, ends, config, index):
            numbers = sorted({int(part) for name in there for part in name.split(".") if part.isdigit()})
            found = [str(number) for number in numbers if in_layers(there, ends, config, number)]
            raise AdapterError(
                f"layers_to_transform: {index} is no layer with target modules of {title}; it has: "
                f"{', '.join(found) or 'none'}"
            )


def in_layers(names: Iterable[str], ends: Iterable[str], config: TunerConfig, layers: Any) -> list[str]:
    """The names that have one of these ends and lie in these layers, by PEFT's rules for ``layers_to_transform``."""
    probe = copy.copy(config)
    probe.target_modules, probe.exclude_modules, probe.modules_to_save = set(ends), None, None
    probe.layers_to_transform = layers
    return [name for name in names if check_target_module_exists(probe, name)]


def _refuse_exclusions(config: TunerConfig, names: Sequence[str], title: str) -> None:
    """Check that ``exclude_modules`` matches layers, and not only modules around layers, which PEFT still adapts."""
    excluded = config.exclude_modules
    above = {name[: dot.start()] for name in names for dot in re.finditer(r"\.", name)}
    for one in [excluded] if isinstance(excluded, str) else sorted(excluded or ()):
        if isinstance(excluded, str):
            found, inside = [name for name in names if re.fullmatch(one, name)], rf"({one})\..*"
        else:
            found, inside = _named(names, one), rf"(.*\.)?{re.escape(one)}\..*"
        if not found:
            raise AdapterError(f"exclude_modules: {one!r} matches no module of {title}{_near(one, names)}")
        if all(name in above for name in found):
            raise AdapterError(
                f"exclude_modules: {one!r} matches {found[0]}, but not the layers inside it, which PEFT compares by "
                f"themselves; to exclude them: exclude_modules={inside!r}"
            )


def _refuse_saved(config: TunerConfig, names: Sequence[str], title: str) -> None:
    """Check that the model has each of ``modules_to_save``, none inside another, and a head where PEFT wants one."""
    saved = list(dict.fromkeys(config.modules_to_save or ()))
    task = str(getattr(config.task_type, "value", config.task_type))
    usual = HEADS.get(task, ())
    missing = [one for one in saved if not any(name.endswith(one) for name in names)]
    children = ", ".join(dict.fromkeys(name.partition(".")[0] for name in names if name))
    for one in missing:
        if one not in usual:
            raise AdapterError(
                f"modules_to_save: {one!r} names no module of {title}{_near(one, names)}; it has: {children}"
            )
    found = {name: one for one in reversed(saved) for name in names if name.endswith(one)}
    for name, one in found.items():
        outer = next((other for other in found if name.startswith(f"{other}.")), None)
        if outer is not None:
            raise AdapterError(
                f"modules_to_save: {one!r} matches {name}, which lies in {outer}, saved as {found[outer]!r}: leave out "
                "one of them, as PEFT cannot load both again"
            )
    if missing and len(missing) == len(saved):
        raise AdapterError(
            f"task_type={task}: PEFT trains a head called {' or '.join(usual)}, which {title} does not have: name its "
            f"head in modules_to_save; it has: {children}"
        )


def _refuse_patterns(option: str, patterns: list[str], chosen: Sequence[str]) -> None:
    """Check that each pattern sets the value of a layer; PEFT takes the first that matches."""
    first = {name: get_pattern_key(patterns, name) for name in chosen}
    for pattern in patterns:
        if pattern in first.values():
            continue
        matched = [name for name in chosen if get_pattern_key([pattern], name) == pattern]
        if not matched:
            raise AdapterError(
                f"{option}: {pattern!r} matches none of the {len(chosen)} layers that are adapted"
                f"{_near(pattern, chosen)}; they are: {listed(chosen)}"
            )
        raise AdapterError(
            f"{option}: {pattern!r} has no effect, since PEFT takes the first pattern that matches a layer, here "
            f"{first[matched[0]]!r}: put {pattern!r} first"
        )


def listed(names: Iterable[str]) -> str:
    """The names, one for all that differ only in numbers."""
    return ", ".join(sorted({starred(name) for name in names})) or "none that can be adapted"


def _named(names: Iterable[str], one: str) -> list[str]:
    """The modules of this name, or with this end."""
    return [name for name in names if name == one or name.endswith(f".{one}")]


def _near(one: str, names: Iterable[str]) -> str:
    """The closest end of a name, as a question, or nothing."""
    size = one.count(".") + 1
    return nearest(one, {".".join(name.split(".")[-size:]) for name in names if name})
