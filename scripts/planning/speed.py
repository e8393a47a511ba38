"""How fast a GPU trains, from measured steps."""

from __future__ import annotations

from dataclasses import dataclass

from planning import PlanError
from planning.work import Operations, keyed, of_example
from rosa.config import FullConfig, IA3Config, LoraConfig, MethodConfig, ModelConfig, RosaConfig

EXAMPLES, TOKENS, RANK = 32, 128, 8
"""The measured step: a batch of RoBERTa-base's shape."""
PRECISIONS = ("fp32", "bf16")
MEASURED: dict[str, dict[str, tuple[float, float]]] = {
    "H200": {
        "rosa": (48.2, 56.6),
        "lora": (48.8, 57.7),
        "ia3": (43.4, 34.6),
        "full": (59.6, 45.3),
    }
}
"""GPU -> method -> milliseconds of the measured step in each of ``PRECISIONS``, as in docs/measurements.md; LoRA's are
the faster implementation's."""
RESAMPLE: dict[str, tuple[float, float]] = {"H200": (0.39, 0.41)}
"""GPU -> seconds of a resample of all layers in each of ``PRECISIONS``, as there."""
METHODS: dict[str, MethodConfig] = {
    "rosa": RosaConfig(rank=RANK),
    "lora": LoraConfig(rank=RANK),
    "ia3": IA3Config(),
    "full": FullConfig(),
}
SHAPE = ModelConfig(name="roberta-base", source="hub", path="FacebookAI/roberta-base")


@dataclass(frozen=True)
class Speed:
    """The speed of one method in one precision."""

    rate: float
    """Operations a second in training steps."""
    factorization: float
    """Operations a second in factorizations."""
    block: float = 0.0
    """Seconds a step of one of the model's blocks, if the time of a step is that of launching its kernels; 0 if not
    measured."""


def known(gpu: str) -> str:
    """The name of a measured GPU.

    Raises:
        PlanError: it was not measured.
    """
    found = next((name for name in MEASURED if name.lower() == gpu.lower().removeprefix("nvidia ")), None)
    if found is None:
        raise PlanError(f"gpu={gpu}: measured are {', '.join(MEASURED)}; for another give its rate, rate=TFLOPS")
    return found


def measured(gpu: str, method: str, precision: str) -> Speed:
    """The speed of the measured step; a method that was not measured counts as LoRA.

    Args:
        gpu: a key of ``MEASURED``.
        method: a method's name.
        precision: ``auto`` is bf16; fp16 counts as bf16.
    """
    name = method if method in METHODS else "lora"
    column = PRECISIONS.index("fp32" if precision == "fp32" else "bf16")
    one, rosa = (_operations(key) for key in (name, "rosa"))
    seconds = MEASURED[gpu][name][column] / 1000
    return Speed(
        rate=EXAMPLES * one.step / seconds,
        factorization=rosa.factorization / RESAMPLE[gpu][column],
        block=seconds / one.layers,
    )


def _operations(method: str) -> Operations:
    return of_example(keyed(SHAPE), keyed(METHODS[method]), True, TOKENS)
