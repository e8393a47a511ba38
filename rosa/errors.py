"""Every error that the project raises on purpose, under one root.

A message names the value, its place (key, file and line, layer) and what is accepted. Commands print it without a
traceback (:func:`rosa.utils.console.run_command`). Programming errors are assertions instead.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar


class RosaError(Exception):
    """Root of the project's errors."""

    exit_status: ClassVar[int] = 2
    """Exit status of a command that ends with this error: 2 for an invalid request, 1 for a failed run."""


# --- the request is wrong --------------------------------------------------------------------------------------------


class ConfigError(RosaError, ValueError):
    """A configuration value cannot be used; the message names the key, the value and what would be right."""


class DataError(RosaError, ValueError):
    """Data cannot be used; the message names the file and line, or the data set and split, and what to do."""


class ModelError(RosaError, ValueError):
    """A model cannot be loaded or does not fit the task; the message names the location."""


class AdapterError(RosaError, ValueError):
    """A model or layer cannot be adapted as asked; the message names the layer and what would be right."""


class DecodingError(RosaError, ValueError):
    """Texts cannot be decoded as asked; the message names the option or file."""


class JournalError(RosaError, ValueError):
    """The journal of an interrupted decoding cannot be read or written; the message names the file and line."""


class ScoringError(RosaError, ValueError):
    """Texts or predictions cannot be scored; the message names the file and line, the segment or the shape."""


class ChangedRunError(RosaError, ValueError):
    """An earlier run of the same name had other settings, data or weights; the message has both values."""


class RecordError(RosaError, ValueError):
    """A record cannot be written, read or used; the message names the file or run and what is wrong."""

    path: Path | None = None
    """The record's file, set by :func:`rosa.records.locate`."""


class CheckpointError(RosaError, ValueError):
    """A checkpoint or file of weights cannot be used; the message names the file and what is wrong with it."""


class ReportError(RosaError, ValueError):
    """A table or figure cannot be made from the records; the message names the experiment or file."""


class SamplesError(RosaError, ValueError):
    """Texts of two runs cannot be shown side by side; the message names the run."""


class OutputError(RosaError):
    """A file that was asked for cannot be written; the message names it."""


class ExportError(RosaError, ValueError):
    """Weights cannot be exported as asked; the message names the layer, file or folder and what would be right."""


class DependencyError(RosaError, ImportError):
    """An optional package is missing or too old; the message names it and how to install it."""


# --- the work failed -------------------------------------------------------------------------------------------------


class WriteError(OutputError):
    """A run cannot write its weights or a checkpoint; the message names the file."""

    exit_status = 1


class FactorizationError(AdapterError):
    """A weight is not finite or its singular vectors cannot be computed; the message names the layer."""

    exit_status = 1


class ConvergenceError(RosaError, ArithmeticError):
    """A LAPACK routine did not converge; the caller falls back on another solver."""

    exit_status = 1


class InterfaceError(ConvergenceError):
    """A LAPACK routine cannot be called in the way that this project knows; the caller falls back likewise."""


class DivergedError(RosaError, RuntimeError):
    """The training loss, a gradient, a trained weight or a model's output is not finite."""

    exit_status = 1


class OutOfMemoryError(RosaError, RuntimeError):
    """A run needs more memory than there is; the message says what was asked for and which override to try."""

    exit_status = 1


class FailedRun(RosaError, RuntimeError):  # noqa: N818 - what failed is a run
    """A run of a search or of a launcher's job failed; the message says why and how to repeat it."""

    exit_status = 1


class InterruptedRun(RosaError, RuntimeError):  # noqa: N818 - an interruption is not a mistake
    """Training was stopped by a signal, after a checkpoint; the same command resumes it."""

    exit_status = 1
    signal: int | None = None
    """Number of the signal, where it is known."""


class StartOver(RosaError, RuntimeError):  # noqa: N818 - a request is not a mistake
    """A callback asks for the training to start again from its first update, with the model as the callback left it."""

    exit_status = 1


class BusyError(RosaError, RuntimeError):
    """Another process is working on the same run."""

    exit_status = 1


class ProcessesError(RosaError, RuntimeError):
    """The processes of a run cannot be set up, or one of them failed where all must succeed."""

    exit_status = 1


class JavaError(RosaError, RuntimeError):
    """Java is missing, failed or gave no answer in time; the message says which."""

    exit_status = 1
