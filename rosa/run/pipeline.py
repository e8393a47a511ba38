"""One run, from a configuration to a record: :func:`run`, read from top to bottom."""

from __future__ import annotations

import warnings
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import torch

from rosa import records
from rosa.config import Config, check_length
from rosa.errors import AdapterError, CheckpointError, DivergedError, InterruptedRun
from rosa.records import Record
from rosa.records.schema import Tuning
from rosa.run import build, memory, mini_model, recording, test_split
from rosa.run.device import resolve
from rosa.run.earlier import CHECKPOINTS, note_other_precision
from rosa.run.folder import begin
from rosa.run.prepare import check_requests, check_shares
from rosa.training import build_trainer, costs
from rosa.training.signals import stop_signals
from rosa.utils import distributed
from rosa.utils.console import silence_transformers

SAME_EVERYWHERE = (InterruptedRun, DivergedError, AdapterError, CheckpointError)
"""Errors that every process of a run raises at the same point."""


@dataclass(frozen=True)
class Outcome:
    """The result of :func:`run`."""

    record: Record
    folder: Path
    skipped: bool
    """True if the run was finished before, and nothing was done."""


def run(config: Config, command: str, progress: bool = True, tuning: Tuning | None = None) -> Outcome:
    """Train and evaluate one configuration; resume it where it stopped, or skip it if it is finished.

    If a launcher started several processes for the run, each calls this; only the main process writes the record.

    Args:
        config: the run; ``train.lr=tuned`` and the ``auto`` settings are resolved here.
        command: the shell command that repeats it, for the record.
        progress: draw a progress bar and print the table of adapted layers.
        tuning: how the learning rate was chosen, where the caller has looked it up.

    Raises:
        ConfigError, DataError, ModelError, AdapterError: the request cannot be carried out; nothing has been
            downloaded or pretrained. There is a record only if the data had to be read, or the hub asked, to know it.
        BusyError: another process is working on this run.
        InterruptedRun: stopped by a signal, after a checkpoint; the same call resumes it.
        OutOfMemoryError: memory was not enough; the message names the override to try.
        Exception: whatever stopped the run; its record says ``failed`` and why.
    """
    precision = config.train.precision
    config, found = resolve(config, command=command)
    tuning = tuning or found
    check_shares(config)
    if precision == "auto" and distributed.is_main():
        note_other_precision(config)
    folder = records.folder(config)
    with distributed.joined(config.train.device, SAME_EVERYWHERE), ExitStack() as held:
        distributed.from_main(lambda: check_requests([config]))
        start = distributed.from_main(lambda: begin(config, tuning, command, folder, held))
        record = start.record
        if start.done:
            return Outcome(record, folder, skipped=True)
        progress = progress and distributed.is_main()
        if config.train.threads:
            torch.set_num_threads(config.train.threads)  # before the record is told how many there are
        with recording.kept(config, folder, start) as tracker, memory.explained(config):
            _set_up_process(config)
            texts = None if start.trained else distributed.together(lambda: _read(config))
            model = distributed.from_main(lambda: mini_model.located(config))
            whole = build.complete(config, model, texts)
            if not start.trained:
                with stop_signals(handed_on=distributed.launched()) as stop:
                    parts = distributed.together(lambda: build.gather(whole, texts))
                    distributed.together(lambda: build.attach_method(whole, parts, record, progress))
                    trainer = build_trainer(
                        parts,
                        config.train,
                        config.seed,
                        folder / CHECKPOINTS,
                        recording.callbacks(config, parts.model, folder, record, tracker, progress),
                        stop_requested=lambda: distributed.any_of(stop.requested()),
                    )
                    trainer.train(resume_from_checkpoint=str(start.checkpoint) if start.checkpoint else None)
                    record.update(
                        distributed.from_main(lambda: recording.conclude(whole, folder, record, trainer, parts))
                    )
            distributed.leave()  # only the main process decodes the test split
            if config.task.test and distributed.is_main():
                test_split.score(whole, folder, record, progress)
    return Outcome(record, folder, skipped=False)


def _read(config: Config) -> build.Texts | None:
    """The texts of a run, of which there are enough for its settings; see :func:`rosa.run.build.read`."""
    texts = build.read(config)
    if texts is not None:
        check_length(config.train, config.method, len(texts.train))
    return texts


def _set_up_process(config: Config) -> None:
    """Reset the peak memory, and silence the output of other libraries."""
    silence_transformers()
    # The Trainer still uses a name that PyTorch has deprecated.
    warnings.filterwarnings("ignore", "`broadcast_buffers` is deprecated", FutureWarning)
    costs.reset_peak_memory(config.train.device)
