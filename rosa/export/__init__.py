"""Export a fine-tuned model: a plain Hugging Face checkpoint, an ordinary PEFT LoRA adapter, or RoSA's sparse change.

The first two take a model after ``rosa.merge``; :mod:`rosa.export.check` scores one against the record of its run.
"""

from __future__ import annotations

from rosa.errors import ExportError
from rosa.export.checkpoint import to_merged
from rosa.export.peft_adapter import TOLERANCE, ExportedLayer, PeftExport, to_peft
from rosa.export.sparse import refuse_sparse_part, to_sparse

__all__ = [
    "TOLERANCE",
    "ExportError",
    "ExportedLayer",
    "PeftExport",
    "refuse_sparse_part",
    "to_merged",
    "to_peft",
    "to_sparse",
]
