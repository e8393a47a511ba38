"""Mirror a run in Weights & Biases (W&B); a failure there does not affect the run.

The record on disk is authoritative. W&B gets a copy of the numbers for its charts, and of the record, from which
``rosa.report.wandb_records`` makes the same tables. So any error inside W&B becomes one warning, after which the
tracker does nothing.

W&B is imported only when a run starts with it.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import logging
import os
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rosa.config import Config, to_dict
from rosa.errors import ConfigError

logger = logging.getLogger(__name__)

STEP = "step"
"""The key of the optimizer updates made so far: the x-axis of every chart."""

TIMEOUT_SECONDS = 30
"""The longest that a run waits for W&B to start, and for the upload of what is left at its end."""

OFFLINE = "wandb/offline-run-*"
"""Within a run's folder: the files of its offline sessions, a folder each."""

TAG_LENGTH = 64
"""W&B refuses a longer tag, and the run with it."""


class Tracker:
    """Sends a run's numbers to W&B, or nowhere.

    Use :func:`start` to make one; ``Tracker(mode="disabled")`` does nothing.

    Attributes:
        id: the run's id in W&B; None without a W&B run.
        mode: ``offline``, ``online`` or ``disabled``.
    """

    def __init__(self, mode: str, run: Any = None) -> None:
        self.mode = mode
        self.id: str | None = None if run is None else run.id
        self._run = run

    def log(self, values: dict[str, float], step: int, number: int | None = None) -> None:
        """Add a point to each chart.

        Args:
            values: name -> number.
            step: optimizer updates made so far. It may go back, as it does when a run resumes at a checkpoint.
            number: index of the point within the run, ascending from 0. W&B keeps one point for each number, so a
                session may send all points again: lost ones are filled in, and none is duplicated.
        """
        with self._one_warning("logging"):
            if self._run is not None:
                # W&B drops points whose step counter goes back, so its counter is `number`, and our step is a value.
                self._run.log({**values, STEP: step}, step=number, commit=True)

    def summary(self, values: dict[str, Any]) -> None:
        """Set the values that W&B shows for the run as a whole."""
        with self._one_warning("writing the summary"):
            if self._run is not None:
                self._run.summary.update(values)

    def keep(self, path: Path) -> None:
        """Upload a copy of a file as it is now, under its own name."""
        with self._one_warning(f"keeping {path.name}"):
            if self._run is not None:
                # Copied into W&B's own folder, so an offline run can be moved and uploaded as a whole.
                copy = Path(self._run.dir, path.name)
                shutil.copyfile(path, copy)
                self._run.save(str(copy), base_path=self._run.dir, policy="now", glob=False)

    def finish(self, exit_code: int = 0) -> None:
        """End the W&B run; an exit code other than 0 marks it as failed."""
        with self._one_warning("finishing"):
            if self._run is not None:
                self._run.finish(exit_code=exit_code)
        self._run = None

    @contextlib.contextmanager
    def _one_warning(self, action: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            self._run = None
            _give_up(action, error)


def start(config: Config, folder: Path, run_id: str, resume: bool, whole: bool = False) -> Tracker:
    """Start or resume the W&B run of a training run.

    Args:
        config: of the run; its ``logger`` is overridden by ``WANDB_MODE`` and ``WANDB_DISABLED`` in the
            environment.
        folder: of the run; W&B's files go into its ``wandb`` folder.
        run_id: the run's identity, for example ``default/minilm/cola/rosa-1f2e3d4c/0``. The same identity is the same
            run in W&B.
        resume: resume the W&B run if it exists.
        whole: this session sends every point of the run again; the offline files of earlier sessions, which may lack
            or repeat points, are removed.

    Returns:
        A tracker, which does nothing if W&B is disabled or could not be started.
    """
    mode = _mode(config)
    if mode == "disabled":
        return Tracker(mode)
    earlier = list(folder.glob(OFFLINE)) if whole else []
    try:
        run = _init(config, mode, folder, run_id, resume)
    except Exception as error:
        _give_up("starting", error)
        return Tracker("disabled")
    for session in earlier:
        shutil.rmtree(session, ignore_errors=True)
    _say_where(run, mode)
    return Tracker(mode, run)


def load_early(config: Config) -> None:
    """Import W&B, if the run uses it, before PyTorch and transformers are: it takes a quarter of the time then.

    Each run loads W&B's package ``launch``, in whose many pydantic models every field's description is looked for in
    all modules that are loaded by then.
    """
    if _mode(config) != "disabled":
        with contextlib.suppress(Exception):  # start() says what is wrong with W&B
            importlib.import_module("wandb.sdk.launch")


def wandb_id(run_id: str) -> str:
    """The W&B id of a run's identity: the same in every process, and free of the characters that W&B refuses."""
    return hashlib.sha256(run_id.encode()).hexdigest()[:16]


def _mode(config: Config) -> str:
    # WANDB_DISABLED is read by the Hugging Face Trainer; W&B itself ignores it.
    off = os.environ.get("WANDB_DISABLED", "").lower() in ("1", "on", "true", "yes")
    if off or not config.logger.enabled:
        return "disabled"
    mode = os.environ.get("WANDB_MODE") or config.logger.mode
    return {"dryrun": "offline", "run": "online"}.get(mode, mode)


def _init(config: Config, mode: str, folder: Path, run_id: str, resume: bool) -> Any:
    # Even offline, W&B sends usage statistics to its server, and where the network drops packets a
    # process waits ten seconds for that at its end.
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")

    import wandb

    wandb.setup(settings=wandb.Settings(silent=True, console="off"))
    if mode == "online" and wandb.run is None and not wandb.login(prompt=False):
        raise ConfigError("there is no API key: run `wandb login` once, or use logger.mode=offline")
    run = wandb.init(
        project=config.logger.project,
        entity=config.logger.entity or None,
        id=wandb_id(run_id),
        name=run_id.removeprefix(f"{config.experiment_name}/"),
        group=config.experiment_name,
        tags=[name[:TAG_LENGTH] for name in (config.model.name, config.task.name, config.method.name)],
        job_type="train",
        config=to_dict(config),
        dir=folder,
        mode=mode,  # type: ignore[arg-type]  # WANDB_MODE may hold anything; W&B reports an invalid value
        resume="allow" if resume else None,
        # Leave W&B runs that other code has open in this process unchanged.
        reinit="create_new",
        settings=wandb.Settings(
            silent=True,
            console="off",
            init_timeout=TIMEOUT_SECONDS,
            finish_timeout=TIMEOUT_SECONDS,
            # The record has the commit and the versions; W&B would add the names of the user and of the machine.
            disable_git=True,
            disable_code=True,
            x_disable_meta=True,
            x_save_requirements=False,
        ),
    )
    run.define_metric(STEP)
    run.define_metric("*", step_metric=STEP)
    return run


def _say_where(run: Any, mode: str) -> None:
    if mode == "offline":
        # One folder for each start of the run; together they hold the whole run.
        folder = Path(run.dir).parent.parent
        logger.info("W&B: offline run %s; to upload it: wandb sync %s/offline-run-*", run.id, shlex.quote(str(folder)))
    else:
        logger.info("W&B: %s", run.url)


def _give_up(action: str, error: Exception) -> None:
    """Warn once, and reset W&B, so the next run of this process does not fail as well."""
    logger.warning("W&B failed while %s (%s: %s): this run goes on without it", action, type(error).__name__, error)
    # All runs of a process share one background service; a dead or hanging one is replaced only after a teardown.
    with contextlib.suppress(Exception):
        import wandb

        wandb.teardown()
