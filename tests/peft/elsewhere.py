"""Programs in processes that have imported what takes longest, but neither PEFT nor this project."""

from __future__ import annotations

import os
from pathlib import Path

from tests.commands import Ended, begin_in, server

LIBRARIES = ("torch.distributed.tensor", "transformers.modeling_utils", "accelerate", "scipy.optimize")


def python(code: str, folder: Path, *words: object) -> Ended:
    """Run code in such a process, which finds modules in ``folder`` first."""
    program = folder / "program.py"
    program.write_text(f"import sys\nassert not {{'peft', 'rosa'}} & set(sys.modules)\n{code}")
    return begin_in(server(*LIBRARIES), [program, *words], folder, os.environ, {}).end()
