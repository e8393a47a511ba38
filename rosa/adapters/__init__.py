"""Parameter-efficient fine-tuning methods behind one interface: attach, resample, merge.

A method is one module whose ``build(model, config, generator)`` yields an adapter for each layer it wraps, and one line
in :data:`rosa.config.registry.OWN`. Full fine-tuning wraps nothing.
"""

from __future__ import annotations

from rosa.adapters.attach import attach
from rosa.adapters.base import Adapter
from rosa.adapters.modules import Attachment, adapters, attachment, merge
from rosa.adapters.resampling import resample
from rosa.adapters.state import changing_state, load_changing_state, undecayed_names
from rosa.adapters.targets import head_names
from rosa.errors import AdapterError

__all__ = [
    "Adapter",
    "AdapterError",
    "Attachment",
    "adapters",
    "attach",
    "attachment",
    "changing_state",
    "head_names",
    "load_changing_state",
    "merge",
    "resample",
    "undecayed_names",
]
