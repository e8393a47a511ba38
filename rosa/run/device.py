"""Resolve the open settings of a run on this machine: device, precision and tuned learning rate."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

from rosa.config import TUNED, Config
from rosa.errors import ConfigError
from rosa.records import selection
from rosa.records.schema import Tuning

GPU_FILES = ("nvidiactl", "dxg", "kfd", "nvmap")
"""Under ``/dev`` of a Linux with a GPU that PyTorch can use: of NVIDIA's driver, WSL, ROCm and Tegra."""


def resolve_device(config: Config) -> Config:
    """Replace ``train.device=auto`` and ``train.precision=auto`` by their values on this machine."""
    device = device_for(config.train.device)
    precision = precision_for(config.train.precision, device)
    return dataclasses.replace(config, train=dataclasses.replace(config.train, device=device, precision=precision))


def resolve(config: Config, grids: selection.Grids | None = None, command: str = "") -> tuple[Config, Tuning | None]:
    """Replace ``train.lr=tuned``, ``train.device=auto`` and ``train.precision=auto`` by their values here.

    Args:
        config: the run.
        grids: looks learning rates up; None: one for this run alone.
        command: the shell command that does the run, for the message where its learning rate cannot be chosen.

    Returns:
        The configuration that defines the run's identity, and how the learning rate was chosen.

    Raises:
        ConfigError: there is no such device.
        RecordError: the tuning runs are missing or unfinished.
    """
    config = resolve_device(config)
    if config.train.lr != TUNED:
        return config, None
    lr, tuning = (grids or selection.Grids(Path(config.results_dir))).tuned_lr(config, command)
    return dataclasses.replace(config, train=dataclasses.replace(config.train, lr=lr)), tuning


def precision_for(requested: str, device: str) -> str:
    """Resolve ``train.precision=auto`` for a device: ``bf16`` on GPUs that support it natively, else ``fp32``."""
    if requested != "auto":
        return requested
    if device != "cuda":
        return "fp32"
    import torch

    return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"


def attention_for(requested: str, device: str, precision: str) -> str:
    """Resolve ``model.attention=auto``: ``eager`` in bf16 on a CPU, else as requested.

    PyTorch's fused attention is slow there backwards (docs/measurements.md).
    """
    return "eager" if (requested, device, precision) == ("auto", "cpu", "bf16") else requested


def device_for(requested: str) -> str:
    """``cuda`` if there is a GPU and the CPU is not requested, else ``cpu``.

    Raises:
        ConfigError: ``train.device=cuda`` without a GPU.
    """
    available = requested != "cpu" and _sees_gpu()
    if requested == "cuda" and not available:
        raise ConfigError("train.device=cuda, but PyTorch sees no CUDA device; use train.device=cpu")
    return "cuda" if available else "cpu"


def _sees_gpu() -> bool:
    """Whether PyTorch sees a GPU. It takes seconds to load, and is not asked on a Linux without a GPU's driver."""
    loaded = "torch" in sys.modules
    if not loaded and sys.platform == "linux" and not any(Path("/dev", name).exists() for name in GPU_FILES):
        return False
    import torch

    return torch.cuda.is_available()
