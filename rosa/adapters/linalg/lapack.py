"""LAPACK routines called without Python's global interpreter lock (GIL), so that threads run in parallel.

SciPy's Python functions (``scipy.linalg.lapack``) hold the GIL while a routine runs: two threads would factorize two
layers one after the other. ``scipy.linalg.cython_lapack`` exports the same routines as C functions with their
signatures; a call through ctypes releases the GIL.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.linalg import cython_lapack

from rosa.errors import InterfaceError

Argument = bytes | int | float | np.ndarray


class Routine:
    """A LAPACK routine with the types of its arguments, which Fortran takes by reference.

    Raises:
        InterfaceError: this version of SciPy lacks it, or has it with types that are not known here (such as 64-bit
            whole numbers).
    """

    def __init__(self, name: str) -> None:
        try:
            capsule = cython_lapack.__pyx_capi__[name]
            signature = _of_capsule("PyCapsule_GetName", ctypes.c_char_p, ctypes.py_object)(capsule)
            # A signature reads "void (char *, int *, __pyx_t_5scipy_6linalg_13cython_lapack_d *, int *)".
            listed = signature.decode().removeprefix("void (").removesuffix(")").split(", ")
            self._types = tuple(_TYPES[kind.removesuffix(" *").removeprefix(_PREFIX)] for kind in listed)
        except (AttributeError, KeyError, UnicodeDecodeError) as error:
            raise InterfaceError(f"{name} of scipy.linalg.cython_lapack has another interface: {error!r}") from error
        address = _of_capsule("PyCapsule_GetPointer", ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)
        self._name = name
        self._call = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * len(listed))(address(capsule, signature))

    def __call__(self, *arguments: Argument) -> int:
        """Call the routine.

        Args:
            arguments: in LAPACK's order, without the final ``info``; outputs are arrays in Fortran order.

        Returns:
            LAPACK's ``info``: 0 on success.

        Raises:
            AssertionError: a wrong number of arguments, or an array of the wrong dtype or order.
        """
        info = np.zeros(1, dtype=np.intc)
        given = (*arguments, info)
        if len(given) != len(self._types):
            raise AssertionError(f"{self._name}: {len(arguments)} arguments, expected {len(self._types) - 1}")
        # Bound to a name, so that the arrays outlive the call.
        arrays = [self._as_array(i, *pair) for i, pair in enumerate(zip(given, self._types, strict=True))]
        self._call(*(array.ctypes.data for array in arrays))
        return int(info[0])

    def with_work(self, *arguments: Argument) -> int:
        """Call a routine that ends in ``work, lwork, info`` with the workspace size that it reports as optimal.

        Args:
            arguments: as in a call, without ``work`` and ``lwork``.
        """
        asked = np.zeros(1)
        self(*arguments, asked, -1)
        size = int(asked[0])
        return self(*arguments, np.empty(size), size)

    def _as_array(self, position: int, argument: Argument, dtype: np.dtype) -> np.ndarray:
        array = argument if isinstance(argument, np.ndarray) else np.array(argument, dtype=dtype)
        if array.dtype != dtype or not array.flags.f_contiguous:
            raise AssertionError(
                f"{self._name}, argument {position}: an array of {array.dtype}, strides {array.strides}; "
                f"expected {dtype} in Fortran order"
            )
        return array


routine = functools.cache(Routine)
"""The routine of this name, cached; double precision only: ``routine("dsytrd")``."""

_PREFIX = "__pyx_t_5scipy_6linalg_13cython_lapack_"
_TYPES = {"char": np.dtype("S1"), "int": np.dtype(np.intc), "d": np.dtype(np.float64)}


def _of_capsule(name: str, result: Any, *arguments: Any) -> Callable[..., Any]:
    return ctypes.PYFUNCTYPE(result, *arguments)((name, ctypes.pythonapi))
