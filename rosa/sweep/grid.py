"""The cells of a sweep and their configurations; cells that choose the same files share one composition."""

from __future__ import annotations

import copy
import functools
import itertools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rosa.config import Config, from_hydra
from rosa.errors import ConfigError
from rosa.sweep.jobs import Job, Request, command

if TYPE_CHECKING:
    from omegaconf import DictConfig

EXPERIMENT = "experiment"
"""The configuration group of the sweeps' files."""
SINGLE = re.compile(r"[A-Za-z_]\w*(\.\w+)*")
"""The key of a single value: no prefix such as ``+``, no package."""
OF_HYDRA = "${hydra:"
"""The start of an interpolation of Hydra's own settings, whose values differ from cell to cell."""
REPEATED = ("hydra.searchpath", "hydra.job.env_set", "hydra.job.env_copy")
"""Hydra settings that change a run's configuration or process, so that the run's command repeats them."""


def parse(words: Sequence[str], config_loader: Any = None) -> list[Any]:
    """Parse overrides by Hydra's grammar; those with ``glob`` need Hydra's configuration loader."""
    from hydra.core.override_parser.overrides_parser import OverridesParser

    return OverridesParser.create(config_loader).parse_overrides(list(words))


def typed(overrides: Any) -> list[str]:
    """Overrides in Hydra's part of a configuration (``hydra.overrides``) as they were typed: ``${...}`` stays."""
    from omegaconf import OmegaConf

    words = OmegaConf.to_container(overrides, resolve=False)
    return [str(word) for word in words] if isinstance(words, list) else []


def values(override: Any) -> list[str]:
    """``key=value`` for each value of an override.

    Raises:
        ConfigError: an interval, which has no values to list.
    """
    from hydra.core.override_parser.types import ValueType

    key = override.get_key_element()
    if override.is_interval_sweep():
        raise ConfigError(
            f"{override.input_line}: a grid has no intervals; list the values, key=1,2,3, or choose a sweeper that "
            "searches, such as hydra/sweeper=optuna"
        )
    if not override.is_sweep_override():
        return [f"{key}={override.get_value_element_as_str()}"]
    found = list(override.sweep_string_iterator())
    if override.value_type == ValueType.GLOB_CHOICE_SWEEP:  # schemas are registered in the group, but are not files
        found = [name for name in found if name != "schema" and not name.endswith("_schema")]
    if not found:
        raise ConfigError(f"{override.input_line}: no value: nothing matches")
    return [f"{key}={value}" for value in found]


def cells(
    params: Mapping[str, Any],
    words: Sequence[str],
    config_loader: Any = None,
    where: Mapping[str, Mapping[str, Any]] | None = None,
) -> list[list[str]]:
    """The overrides of each cell of a grid.

    As in Hydra's own sweeper, the parameters of a file come first, then the command's; the last value of a key holds.

    Args:
        params: ``hydra.sweeper.params``.
        words: the command's overrides.
        config_loader: Hydra's, for ``glob``.
        where: ``hydra.sweeper.where``, other parameters for some cells by a condition, such as
            ``{"method=full task=cola,rte": {"train.lr": "1e-5,1e-4"}}``; of several that hold, the last.

    Raises:
        ConfigError: a condition is on a key whose values depend on conditions.
    """
    swept = [f"{key}={value}" for key, value in params.items()]
    axes = {one.get_key_element(): values(one) for one in parse([*swept, *words], config_loader)}
    given = {one.get_key_element() for one in parse(words, config_loader)}
    cases = [(_conditions(text), others) for text, others in (where or {}).items()]
    varying = {key for _, others in cases for key in others} - given
    held = [key for key in axes if key not in varying]
    for conditions, _ in cases:
        for key in sorted(conditions.keys() & varying):
            raise ConfigError(
                f"hydra.sweeper.where: a condition on {key}, whose values depend on conditions themselves; use "
                f"{', '.join(held)}"
            )
    found: list[list[str]] = []
    for cell in itertools.product(*(axes[key] for key in held)):
        own = axes | dict(zip(held, ([word] for word in cell), strict=True))
        for conditions, others in cases:
            if all(any(word in cell for word in accepted) for accepted in conditions.values()):
                own |= {
                    key: values(*parse([f"{key}={value}"], config_loader))
                    for key, value in others.items()
                    if key in varying
                }
        found += map(list, itertools.product(*own.values()))
    return found


def _conditions(text: str) -> dict[str, list[str]]:
    """The ``key=value`` of which a cell must have one, by key, from ``task=cola,rte method=full``."""
    return {one.get_key_element(): values(one) for one in parse(text.split())}


def by_experiment(words: Sequence[str], config_loader: Any = None) -> list[list[str]]:
    """The overrides of each experiment: a sweep over experiments is the sweeps of their files, one after the other."""
    parsed = parse(words, config_loader)
    swept = [one for one in parsed if one.key_or_group == EXPERIMENT and one.is_sweep_override()]
    if not swept:
        return [list(words)]
    others = [str(one.input_line) for one in parsed if one is not swept[-1]]
    return [[experiment, *others] for experiment in values(swept[-1])]


def fixed(words: Sequence[str], config_loader: Any = None) -> list[str]:
    """The overrides that all cells share."""
    return [str(one.input_line) for one in parse(words, config_loader) if not one.is_sweep_override()]


class Composer:
    """Composes the configurations of cells.

    For each cell Hydra reads the files, merges them and parses the overrides again, a fifth of a second. But cells that
    choose the same files differ in single values only. So the choices are composed once, and the values are set in a
    copy, which is how Hydra applies them too. Where that could differ from what Hydra does, Hydra composes the cell.

    Args:
        load: from overrides to what Hydra composes, with its own part (``hydra``).
    """

    def __init__(self, load: Callable[[list[str]], DictConfig]) -> None:
        self._load = load
        self._groups: set[str] = set()
        self._bases: dict[tuple[str, ...], tuple[DictConfig, DictConfig] | None] = {}

    def know(self, composed: DictConfig) -> None:
        """Learn from a composition which keys choose files; without this call, an extra one is made to learn it."""
        self._groups |= set(composed.hydra.runtime.choices)

    def __call__(self, overrides: Sequence[str], number: int = 0) -> tuple[Config, DictConfig]:
        """The configuration of a cell, and Hydra's part of it.

        Args:
            overrides: of the cell, without sweeps.
            number: its place in the sweep (``hydra.job.num``).

        Raises:
            ConfigError, HydraException, OmegaConfBaseException: the configuration is invalid.
        """
        return self._quick(overrides) or self._whole(overrides, number)

    def _whole(self, overrides: Sequence[str], number: int) -> tuple[Config, DictConfig]:
        from hydra.core.hydra_config import HydraConfig
        from omegaconf import open_dict

        composed = self._load(list(overrides))
        with open_dict(composed.hydra.job):
            composed.hydra.job.num = composed.hydra.job.id = number
        HydraConfig.instance().set_config(composed)
        return from_hydra(without_hydra(composed)), composed.hydra

    def _quick(self, overrides: Sequence[str]) -> tuple[Config, DictConfig] | None:
        """As ``__call__``; None if Hydra has to compose the cell itself, or to report an error in it."""
        from hydra.errors import HydraException
        from omegaconf import OmegaConf
        from omegaconf.errors import OmegaConfBaseException

        try:
            parsed = [_parsed(word) for word in overrides]
            base, single = self._base(overrides, parsed)
            if base is None:
                return None
            config = copy.deepcopy(base[0])
            for one in single:
                OmegaConf.update(config, one.key_or_group, one.value(), merge=True)
            return from_hydra(config), base[1]
        except (HydraException, OmegaConfBaseException, ConfigError):
            return None

    def _base(
        self, overrides: Sequence[str], parsed: Sequence[Any]
    ) -> tuple[tuple[DictConfig, DictConfig] | None, list[Any]]:
        """The configuration composed from the files that a cell chooses, and the overrides of single values."""
        while True:
            single = [one for one in parsed if self._is_single(one, parsed)]
            chosen = tuple(word for word, one in zip(overrides, parsed, strict=True) if one not in single)
            if chosen not in self._bases:
                self._bases[chosen] = self._composed(chosen)
            base = self._bases[chosen]
            groups = set(base[1].runtime.choices) if base else set()
            if groups <= self._groups:
                return base, single
            self._groups |= groups

    def _composed(self, chosen: Sequence[str]) -> tuple[DictConfig, DictConfig] | None:
        from omegaconf import OmegaConf

        composed = self._load(list(chosen))
        own = without_hydra(composed)
        return None if OF_HYDRA in OmegaConf.to_yaml(own) else (own, composed.hydra)

    def _is_single(self, one: Any, parsed: Sequence[Any]) -> bool:
        """Whether an override sets a single value, independently of all others (its key may still not exist)."""
        key = one.get_key_element()
        if not SINGLE.fullmatch(key) or key.startswith("hydra.") or key in self._groups or OF_HYDRA in one.input_line:
            return False
        # Hydra applies files before values; a mapping, train={lr: 1}, is a value even if its key also chooses files.
        files = [two for two in parsed if two.key_or_group in self._groups and not isinstance(two.value(), dict)]
        others = [two.key_or_group for two in parsed if two is not one and two not in files]
        return not any(f"{other}.".startswith(f"{key}.") or f"{key}.".startswith(f"{other}.") for other in others)


@functools.cache
def _parsed(word: str) -> Any:
    return parse([word])[0]


def without_hydra(composed: DictConfig) -> DictConfig:
    """A run's configuration without Hydra's part."""
    from omegaconf import flag_override

    own = copy.deepcopy(composed)
    with flag_override(own, ["struct", "readonly"], [False, False]):
        del own["hydra"]
    return own


def job(overrides: Sequence[str], config: Config, hydra: Any, options: Sequence[str], number: int = 0) -> Job:
    """The job of a cell.

    Args:
        overrides: of the cell.
        config: its configuration.
        hydra: Hydra's part.
        options: those of the command; see :func:`options`.
        number: its place in the sweep.
    """
    own = [word for word in overrides if not word.startswith("hydra")]
    environment = {str(name): str(value) for name, value in hydra.job.env_set.items()}
    return Job(config, command(own, options), number=number, environment=environment)


def options(hydra: Any, conf: Path) -> list[str]:
    """The options that a run's command needs besides its own overrides, from Hydra's part of its configuration.

    Args:
        hydra: Hydra's part.
        conf: the project's folder of configuration groups.
    """
    paths = {source.provider: source.path for source in hydra.runtime.config_sources}
    found = []
    if Path(paths["main"]).resolve() != conf.resolve():
        found.append(f"--config-path={paths['main']}")
    if hydra.job.config_name != "config":
        found.append(f"--config-name={hydra.job.config_name}")
    if "command-line" in paths:
        found.append(f"--config-dir={paths['command-line']}")
    return [*found, *(word for word in typed(hydra.overrides.hydra) if word.lstrip("+").startswith(REPEATED))]


# --- outside of Hydra's own application ------------------------------------------------------------------------------


@contextmanager
def _composer(conf: Path) -> Iterator[None]:
    from hydra import initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra

    try:
        with initialize_config_dir(str(conf.resolve()), version_base="1.3"):
            yield
    finally:
        GlobalHydra.instance().clear()


def expand(conf: Path, asked: Request) -> Iterator[tuple[Job, int]]:
    """Compose the run of each cell of a sweep: the values of the experiment's file and those of the command.

    Args:
        conf: the folder of the configuration groups.
        asked: the command's arguments.

    Yields:
        The job, and the number of all jobs of its experiment.

    Raises:
        ConfigError, HydraException, OmegaConfBaseException: the configuration of a run is invalid.
    """
    from hydra import compose
    from hydra.core.global_hydra import GlobalHydra

    folder = f"--config-dir={Path(asked.config_dir).resolve()}" if asked.config_dir else ""
    searched = [f"hydra.searchpath=[file://{folder.partition('=')[2]}]"] if folder else []
    load = partial(compose, "config", return_hydra_config=True)
    with _composer(conf):
        loader = GlobalHydra.instance().config_loader()
        composer = Composer(lambda words: load([*words, *searched]))
        for words in by_experiment(asked.overrides, loader):
            shared = load([*fixed(words, loader), *searched])
            composer.know(shared)
            sweeper = shared.hydra.sweeper
            made = cells(sweeper.params or {}, words, loader, sweeper.get("where"))
            for number, cell in enumerate(made):
                config, hydra = composer(cell, number)
                yield job(cell, config, hydra, [folder] if folder else [], number), len(made)
