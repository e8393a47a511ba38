"""Failed allocations, told from other errors without loading PyTorch."""

from __future__ import annotations

ALLOCATORS = ("DefaultCPUAllocator", "not enough memory", "out of memory")
"""Parts of the messages of RuntimeErrors that PyTorch and CUDA raise if they cannot allocate memory."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an allocation failed, in Python, NumPy or PyTorch, on the CPU or a GPU."""
    if isinstance(error, MemoryError) or "OutOfMemoryError" in {kind.__name__ for kind in type(error).__mro__}:
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in ALLOCATORS)
