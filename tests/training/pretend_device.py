"""A pretend accelerator for machines without one: a device of its own whose numbers are computed on the CPU.

As on CUDA, an operation that mixes its tensors with the CPU's raises, and ``torch.autocast`` lowers the precision of
matrix products. What would make the host wait for a real device (reading a number, a copy that is not asynchronous, a
result whose shape depends on numbers) is counted in :data:`waits`, with the line of the project that asked for it.

It takes PyTorch's one place for a device from outside (PrivateUse1), for the rest of the process: use it in a process
of its own. It does not pretend to be asynchronous, has no memory of its own to measure, and knows one device.
"""

from __future__ import annotations

import collections
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map
from torch.utils.backend_registration import _DummyBackendModule, _setup_privateuseone_for_python_backend

NAME = "pretend"
WAITING = {"_local_scalar_dense", "nonzero", "masked_select", "is_nonzero", "equal", "unique_dim", "_unique2"}
"""Operators whose result the host must see before it can go on."""
LOWERED = ("linear", "matmul", "addmm", "mm", "bmm", "baddbmm", "scaled_dot_product_attention", "einsum")
"""Operators that autocast gives lower-precision inputs, of those that the tests' models call."""
RAISED = ("layer_norm", "softmax.int", "log_softmax.int", "cross_entropy_loss", "nll_loss", "mse_loss")
"""Operators that autocast gives float32 inputs."""

waits: collections.Counter[str] = collections.Counter()
"""Waits, while they are counted, by what they were and the innermost line that is not PyTorch's."""
_counting = False


class _Backend(_DummyBackendModule):
    """The device's module (``torch.pretend``): functions that PyTorch calls and its dummy module lacks."""

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16, torch.float16]

    def get_rng_state(self, device: Any = None) -> Tensor:
        return torch.get_rng_state()

    def set_rng_state(self, state: Tensor, device: Any = None) -> None:
        """The numbers are drawn by the CPU's generator, which is restored by itself."""

    def set_device(self, device: Any) -> None:
        """The number of devices: 1."""

    def synchronize(self, device: Any = None) -> None:
        _note("synchronize")

    def empty_cache(self) -> None:
        """There is none."""

    def manual_seed(self, seed: int) -> None:
        """See :meth:`set_rng_state`."""


class PretendTensor(Tensor):
    """A tensor of the pretend device; ``held`` is the CPU tensor with its numbers."""

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor) -> PretendTensor:
        shell = Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls,
            held.size(),
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            device=torch.device(NAME, 0),
        )
        shell.held = held
        return shell

    def tolist(self) -> Any:
        _note("tolist")
        return self.held.tolist()

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Saved as the numbers that it holds, and loaded onto the CPU, as a checkpoint is."""
        return self.held.__reduce_ex__(protocol)

    def __repr__(self, *, tensor_contents: Any = None) -> str:
        return f"PretendTensor({self.held})"

    @classmethod
    def __torch_dispatch__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _compute(function, args, kwargs or {})


class _Operators(TorchDispatchMode):
    """Operators that make tensors on the device, which have none of its tensors among their arguments."""

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _compute(function, args, kwargs or {})


class _Constructor(TorchFunctionMode):
    """``torch.tensor`` on the device, and lists as indices there, which are made behind the dispatcher's back.

    Both are copied from the host, which waits.
    """

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if function is torch.tensor and _is_pretend(kwargs.get("device")):
            _note("torch.tensor(..., device=...)")
            return PretendTensor(function(*args, **{**kwargs, "device": None}))
        if function is Tensor.__getitem__ and isinstance(args[0], PretendTensor):
            return function(args[0], _index(args[1]))
        return function(*args, **kwargs)


def _index(index: Any) -> Any:
    """An index whose lists are tensors on the CPU."""
    if isinstance(index, tuple):
        return tuple(map(_index, index))
    if isinstance(index, list):
        _note("a list as an index")
        return torch.tensor(index)
    return index


@contextmanager
def available() -> Iterator[None]:
    """While this holds, tensors can be made on the device."""
    with _Constructor(), _Operators():
        yield


@contextmanager
def counting() -> Iterator[None]:
    """Count waits while this holds."""
    before = _counting
    count(True)
    try:
        yield
    finally:
        count(before)


def count(on: bool) -> None:
    """Count waits from now on, or no longer."""
    global _counting
    _counting = on


def _note(what: str) -> None:
    if _counting:
        frames = [f for f in traceback.extract_stack() if "/torch/" not in f.filename and f.filename != __file__]
        file = Path(frames[-1].filename)
        waits[f"{what} at {file.parent.name}/{file.name}:{frames[-1].lineno}"] += 1


def _is_pretend(device: Any) -> bool:
    return device is not None and torch.device(device).type == NAME


def _compute(function: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """Run an operator on the tensors that are held, and give its results the device they would be on."""
    name = function._schema.name.partition("::")[2]
    if name == "to":  # in inference mode, it arrives as it was called
        with _Operators():
            return function.decompose(*args, **kwargs)
    flat = [*_leaves(args), *_leaves(kwargs.values())]
    ours = [value for value in flat if isinstance(value, PretendTensor)]
    if name in ("_to_copy", "copy_"):
        return _copy(function, name, args, kwargs)
    if ours and name in WAITING:
        _note(name)
    _refuse_mixed(name, args, flat, ours)
    target = kwargs.get("device")
    on_device = _is_pretend(target) if target is not None else bool(ours)
    if target is not None:
        kwargs = {**kwargs, "device": torch.device("cpu")}
    if kwargs.get("pin_memory"):
        kwargs = {**kwargs, "pin_memory": False}
    result = function(*map(_held, args), **{key: _held(value) for key, value in kwargs.items()})
    if not on_device:
        return result
    shells = {id(value.held): value for value in ours}  # an operator in place gives back the tensor it was given
    return _shell(result, shells)


def _leaves(values: Iterable[Any]) -> Iterator[Any]:
    """The arguments of an operator, those in lists one by one."""
    for value in values:
        if isinstance(value, (list, tuple)):
            yield from _leaves(value)
        else:
            yield value


def _copy(function: Any, name: str, args: Any, kwargs: dict[str, Any]) -> Any:
    """A copy within a device or between two, in place or not."""
    if name == "copy_":
        into, source = args[0], args[1]
        asynchronous = bool(args[2] if len(args) > 2 else kwargs.get("non_blocking"))
        _note_transfer(source, isinstance(into, PretendTensor), asynchronous)
        function(_held(into), _held(source))
        return into
    source, target = args[0], kwargs.get("device")
    on_device = _is_pretend(target) if target is not None else isinstance(source, PretendTensor)
    _note_transfer(source, on_device, bool(kwargs.get("non_blocking")))
    settings = {key: value for key, value in kwargs.items() if key not in ("device", "non_blocking", "pin_memory")}
    result = function(_held(source), **settings)
    return PretendTensor(result) if on_device else result


def _note_transfer(source: Any, to_device: bool, asynchronous: bool) -> None:
    if isinstance(source, PretendTensor) != to_device and not asynchronous:
        _note("copy to the device" if to_device else "copy to the host")


def _refuse_mixed(name: str, args: Any, flat: list[Any], ours: list[PretendTensor]) -> None:
    """Refuse a CPU tensor beside one of the device; as CUDA does, let single numbers and CPU indices pass."""
    indices = args[1] if name.startswith("index") and len(args) > 1 and isinstance(args[1], (list, tuple)) else ()
    if ours and any(isinstance(index, Tensor) and index.dtype == torch.bool for index in indices):
        _note("boolean index")
    passing = {id(index) for index in indices}
    strangers = [v for v in flat if isinstance(v, Tensor) and not isinstance(v, PretendTensor) and v.dim()]
    strangers = [value for value in strangers if id(value) not in passing]
    if ours and strangers:
        raise RuntimeError(f"Expected all tensors to be on the same device, but found cpu and {NAME}:0 in {name}")


def _held(value: Any) -> Any:
    """An argument with the tensors that are held in place of the device's."""
    if isinstance(value, PretendTensor):
        return value.held
    return type(value)(map(_held, value)) if isinstance(value, (list, tuple)) else value


def _shell(value: Any, shells: Mapping[int, PretendTensor]) -> Any:
    """A result as tensors of the device: those that hold it already, by the ids of what they hold, or new ones."""
    if isinstance(value, (list, tuple)):
        return type(value)(_shell(one, shells) for one in value)
    if not isinstance(value, Tensor) or isinstance(value, PretendTensor):
        return value
    return shells[id(value)] if id(value) in shells else PretendTensor(value)


def _autocast_rule(
    operator: Callable[..., Any], dtype: Callable[[], torch.dtype], takes: Callable[[Tensor], bool]
) -> Callable[..., Any]:
    """An operator whose floating-point tensors are cast to a type first, as autocast does."""

    def cast(value: Any) -> Any:
        return value.to(dtype()) if isinstance(value, Tensor) and value.is_floating_point() and takes(value) else value

    def call(*args: Any, **kwargs: Any) -> Any:
        with torch.autocast(NAME, enabled=False):
            return operator(*tree_map(cast, args), **tree_map(cast, kwargs))

    return call


def _operator(name: str) -> tuple[str, Callable[..., Any]]:
    packet, _, overload = name.partition(".")
    return f"aten::{name}", getattr(getattr(torch.ops.aten, packet), overload or "default")


def register() -> list[Any]:
    """Register the device with PyTorch, for the rest of the process.

    Returns:
        What must stay alive as long as the device is used.
    """
    # A model that is moved keeps its Parameter objects, tied ones too, as between the CPU and CUDA.
    torch.__future__.set_swap_module_params_on_conversion(True)
    _setup_privateuseone_for_python_backend(NAME, backend_module=_Backend())
    through = torch.library.Library("_", "IMPL")
    through.fallback(torch.library.fallthrough_kernel, "AutocastPrivateUse1")
    rules = torch.library.Library("aten", "IMPL")
    for name in LOWERED:
        full, operator = _operator(name)
        lowered = _autocast_rule(operator, lambda: torch.get_autocast_dtype(NAME), lambda t: t.dtype != torch.float64)
        rules.impl(full, lowered, "AutocastPrivateUse1")
    low = (torch.bfloat16, torch.float16)
    for name in RAISED:
        full, operator = _operator(name)
        raised = _autocast_rule(operator, lambda: torch.float32, lambda t: t.dtype in low)
        rules.impl(full, raised, "AutocastPrivateUse1")
    return [through, rules]
