"""How fast a GPU trains, from measured steps."""

from __future__ import annotations

from dataclasses import dataclass

from planning import PlanError
from planning.work import Operations, keyed, of_example
from rosa.config import FullConfig, IA3Config, LoraConfig, MethodConfig, ModelConfig, RobustConfig, RosaConfig

EXAMPLES, TOKENS, RANK = 32, 128, 8
"""The measured step: a batch of RoBERTa-base's shape."""
PRECISIONS = ("fp32", "bf16")
MEASURED: dict[str, dict[str, dict[str, float]]] = {
    "H200": {
        "fp32": {"rosa": 48.2, "lora": 52.6, "ia3": 43.4, "full": 59.6},
        "bf16": {"rosa": 56.6, "lora": 58.4, "ia3": 34.6, "full": 45.3},
    },
    "H100": {
        "fp32": {"rosa": 52.1, "lora": 54.5, "ia3": 48.1, "full": 66.6, "robust": 112},
    },
}
"""GPU -> precision -> method -> milliseconds of the measured step, as in docs/measurements.md; LoRA's are
loralib's, with which runs are made."""
RESAMPLE: dict[str, dict[str, float]] = {"H200": {"fp32": 0.39, "bf16": 0.41}, "H100": {"fp32": 0.446}}
"""GPU -> precision -> seconds of a resample of all layers, as there."""
TO_LORA = {"robust": 1.92}
"""Method -> its step's time relative to LoRA's on the H100, as there, for GPUs on which it was not measured."""
METHODS: dict[str, MethodConfig] = {
    "rosa": RosaConfig(rank=RANK),
    "lora": LoraConfig(rank=RANK),
    "robust": RobustConfig(rank=RANK // 2, density=RANK // 2 * 2 / 768),  # as many parameters as at the rank
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
    forward: float = 0.0
    """Those of a forward pass alone, by its share of the operations."""


def known(gpu: str) -> str:
    """The name of a measured GPU.

    Raises:
        PlanError: it was not measured.
    """
    found = next((name for name in MEASURED if name.lower() == gpu.lower().removeprefix("nvidia ")), None)
    if found is None:
        raise PlanError(f"gpu={gpu}: measured are {', '.join(MEASURED)}; for another give its rate, rate=TFLOPS")
    return found


def column(gpu: str, precision: str) -> str:
    """The measured precision that a run's stands for: ``auto`` and fp16 count as bf16.

    Raises:
        PlanError: nothing was measured in it on this GPU.
    """
    name = "fp32" if precision == "fp32" else "bf16"
    if name not in MEASURED[gpu]:
        raise PlanError(
            f"gpu={gpu} train.precision={precision}: steps there were measured in {', '.join(MEASURED[gpu])} only; add "
            f"train.precision={next(iter(MEASURED[gpu]))}, or give a rate, rate=TFLOPS"
        )
    return name


def stands_for(gpu: str, method: str, precision: str) -> str:
    """The method whose measured step a method's time is reckoned from: itself, or LoRA."""
    return method if method in MEASURED[gpu][column(gpu, precision)] else "lora"


def measured(gpu: str, method: str, precision: str) -> Speed:
    """The speed of the measured step.

    A method that was not measured takes LoRA's time, times ``TO_LORA`` where that is known.

    Args:
        gpu: a key of ``MEASURED``.
        method: a method's name.
        precision: see :func:`column`.

    Raises:
        PlanError: as for :func:`column`.
    """
    own = column(gpu, precision)
    found = stands_for(gpu, method, precision)
    seconds = MEASURED[gpu][own][found] / 1000 * (TO_LORA.get(method, 1.0) if found != method else 1.0)
    one, rosa = (_operations(key) for key in (method if method in METHODS else "lora", "rosa"))
    block = seconds / one.layers
    return Speed(
        rate=EXAMPLES * one.step / seconds,
        factorization=rosa.factorization / RESAMPLE[gpu][own],
        block=block,
        forward=block * one.forward / one.step,
    )


def _operations(method: str) -> Operations:
    return of_example(keyed(SHAPE), keyed(METHODS[method]), True, TOKENS)
