"""Export a fine-tuned model as a plain Hugging Face checkpoint or as an ordinary PEFT LoRA adapter.

Both take a model after ``rosa.merge``; :mod:`rosa.export.check` scores an export against the record of its run.
"""

from __future__ import annotations

from rosa.errors import ExportError
from rosa.export.checkpoint import to_merged
from rosa.export.peft_adapter import TOLERANCE, ExportedLayer, PeftExport, to_peft

__all__ = ["TOLERANCE", "ExportError", "ExportedLayer", "PeftExport", "to_merged", "to_peft"]
