"""A fine-tuned model for the world outside: a plain checkpoint, or an ordinary PEFT LoRA adapter.

Both take a model that ``rosa.merge`` has made plain again; :mod:`rosa.export.check` makes one from the folder of a run.
"""

from __future__ import annotations

from rosa.errors import ExportError
from rosa.export.checkpoint import to_merged
from rosa.export.peft_adapter import TOLERANCE, ExportedLayer, PeftExport, to_peft

__all__ = ["TOLERANCE", "ExportError", "ExportedLayer", "PeftExport", "to_merged", "to_peft"]
