"""The software and hardware that a run used, for its record."""

from __future__ import annotations

import functools
import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path

import torch

from rosa.records.schema import Checkout, Environment

PACKAGES = (
    "torch",
    "transformers",
    "datasets",
    "evaluate",
    "accelerate",
    "tokenizers",
    "safetensors",
    "loralib",
    "peft",
    "numpy",
    "scipy",
    "scikit-learn",
    "hydra-core",
    "wandb",
)
"""Distributions whose version a record states."""

CODE = ("rosa", "scripts", "conf", "experiments", "pyproject.toml")
"""Paths from the project's root that can change a run's result; changes of other files do not make a checkout dirty."""


def environment(device: str) -> Environment:
    """The software and hardware of this process, without names of the user or the machine.

    Args:
        device: the device of the run, ``cpu`` or ``cuda``; a run on the CPU of a GPU machine is recorded as a CPU run.
    """
    on_cuda = device == "cuda"
    return {
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in PACKAGES},
        "system": f"{platform.system()} {platform.machine()}",
        "cpu": _cpu_model(),
        "cpu_count": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name() if on_cuda else "cpu",
        "cuda": torch.version.cuda if on_cuda else None,
        **git_state(Path(__file__)),
    }


@functools.cache
def _version(distribution: str) -> str | None:
    """The installed version, looked up once: a process does not change what it has imported."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def _cpu_model() -> str | None:
    """The processor's model name from Linux, or else from Python's platform module."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or None


def git_state(file: Path) -> Checkout:
    """The commit of the checkout that a file belongs to.

    Returns:
        ``commit``: of the checkout, and ``dirty``: whether anything in ``CODE`` differs from it. Both are None where
        there is no git, no commit, or where the repository around the file does not track it, as for a package
        installed in a virtual environment inside a checkout.
    """
    folder = file.resolve().parent
    tracked = _git(folder, "ls-files", "--error-unmatch", "--", file.name)
    found = None if tracked is None else _git(folder, "rev-parse", "--show-toplevel", "--verify", "HEAD")
    if found is None:
        return {"commit": None, "dirty": None}
    root, _, commit = found.rpartition("\n")
    changes = _git(Path(root), "status", "--porcelain", "--", *CODE)
    return {"commit": commit, "dirty": None if changes is None else bool(changes)}


def _git(folder: Path, *arguments: str) -> str | None:
    """The output of a git command; None if it fails."""
    # Inside a hook, GIT_DIR and similar variables would point git at the hook's repository, not the folder's.
    variables = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    # Without this, a killed `git status` could leave a lock that blocks the user's next commit.
    variables["GIT_OPTIONAL_LOCKS"] = "0"
    command = ["git", "-C", str(folder), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True, env=variables)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
