"""Typed configuration of a run, with all checks that need neither data nor model.

Each group of ``conf/`` has a dataclass here. Hydra composes YAML files into these types and refuses a misspelt key or a
value of the wrong type. ``__post_init__`` checks ranges, and :func:`check` checks conflicts between groups. Nothing
here imports torch, so a wrong configuration fails at once.
"""

from __future__ import annotations

from rosa.config.checks import is_name
from rosa.config.compose import from_hydra, register
from rosa.config.data import DataConfig, TeacherConfig
from rosa.config.decoding import DecodingConfig
from rosa.config.identity import NOT_IDENTITY, canonical, identity_hash, without_places
from rosa.config.length import check_length, unreached
from rosa.config.logger import LoggerConfig
from rosa.config.method import (
    ATTENTION,
    FullConfig,
    IA3Config,
    LoraConfig,
    MethodConfig,
    RankedConfig,
    RobustConfig,
    RosaConfig,
    TargetedConfig,
)
from rosa.config.model import MiniModelConfig, ModelConfig, PerceptronConfig
from rosa.config.registry import Look, Method, methods, register_method
from rosa.config.schema import HOLDOUT, Config, check, from_dict, to_dict
from rosa.config.task import TRAIN, LocalTaskConfig, TaskConfig
from rosa.config.train import AUTO_PRECISIONS, SAME, TUNED, TrainConfig, TuningConfig
from rosa.errors import ConfigError

__all__ = [
    "ATTENTION",
    "AUTO_PRECISIONS",
    "HOLDOUT",
    "NOT_IDENTITY",
    "SAME",
    "TRAIN",
    "TUNED",
    "Config",
    "ConfigError",
    "DataConfig",
    "DecodingConfig",
    "FullConfig",
    "IA3Config",
    "LocalTaskConfig",
    "LoggerConfig",
    "Look",
    "LoraConfig",
    "Method",
    "MethodConfig",
    "MiniModelConfig",
    "ModelConfig",
    "PerceptronConfig",
    "RankedConfig",
    "RobustConfig",
    "RosaConfig",
    "TargetedConfig",
    "TaskConfig",
    "TeacherConfig",
    "TrainConfig",
    "TuningConfig",
    "canonical",
    "check",
    "check_length",
    "from_dict",
    "from_hydra",
    "identity_hash",
    "is_name",
    "methods",
    "register",
    "register_method",
    "to_dict",
    "unreached",
    "without_places",
]
