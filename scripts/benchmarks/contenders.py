"""The contenders of the benchmarks: the same model under each method, and its training step."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor, UntypedStorage, nn

from benchmarks import BenchmarkError
from benchmarks.timing import seconds
from benchmarks.workload import Batch
from rosa.adapters import adapters, attach, head_names, merge
from rosa.adapters.base import SupportedAdapter
from rosa.adapters.targets import target_layers, weight_shape
from rosa.config import Config, FullConfig, IA3Config, LoraConfig, MethodConfig, RobustConfig, RosaConfig
from rosa.config.registry import label
from rosa.training.costs import checkpoint_bytes
from rosa.utils.seeding import generator

RANK = 8
"""The rank in every benchmark that does not vary it."""
LEARNING_RATE = 1e-6
"""Learning rate: small, so that no method diverges; the time of a step does not depend on it."""

PEFT, DORA = "peft", "dora"
LABELS = {
    "rosa": label("rosa"),
    "lora": f"{label('lora')} (loralib)",
    PEFT: f"{label('lora')} (peft)",
    DORA: "DoRA (peft)",
    "robust": label("robust"),
    "ia3": label("ia3"),
    "full": label("full"),
}
"""The contenders, in the order of a table's rows."""
LORAS = ("lora", PEFT)
WANTED = {"fp32": 0.95, "bf16": 0.97}
"""The most that ROSA's time may be, relative to the faster LoRA's."""
PARTS = ("forward", "backward", "optimizer")
"""The parts of a training step; clipping, and clearing the gradients, are parts of ``optimizer``."""
RANKED = ("rosa", "lora", PEFT, DORA, "robust")
"""The contenders that have a rank; for RoSA, that of the LoRA with as many parameters."""


def own_method(name: str, rank: int, model: nn.Module) -> MethodConfig:
    """The configuration of one of the project's own methods for a plain model; alpha is twice the rank."""
    if name == "rosa":
        return RosaConfig(rank=rank)
    if name == "lora":
        return LoraConfig(rank=rank, alpha=2 * rank)
    if name == "robust":
        return half_sparse(model, rank)
    return {"ia3": IA3Config(), "full": FullConfig()}[name]


def half_sparse(model: nn.Module, rank: int) -> RobustConfig:
    """RoSA with as many parameters in each layer as a pair of factors of this rank, ``rank (out + in)``.

    Half of them, rounded down to a whole rank, are low-rank; the others are sparse entries.

    Args:
        model: plain.
        rank: at least 2.
    """
    low = rank // 2
    densities = {}
    for name, layer in target_layers(model, RobustConfig().targets).items():
        out, into = weight_shape(layer)
        entries = min((rank - low) * (out + into), out * into - 1)  # a density is below 1
        densities[name] = (entries + 0.5) / (out * into)  # RoSA rounds density * out * in down
    return RobustConfig(rank=low, alpha=2 * low, density_pattern=densities)


def choose_at_random(model: nn.Module, seed: int) -> None:
    """Choose the entries of RoSA's sparse parts at random, where training would choose them by their gradients."""
    stream = generator(seed, "support")
    for _, adapter in adapters(model):
        if isinstance(adapter, SupportedAdapter) and adapter.index is not None:
            places = torch.randperm(adapter.shape[0] * adapter.shape[1], generator=stream)
            adapter.choose(places[: len(adapter.index)].sort().values.to(adapter.index))


class Contender:
    """A model under one method, and its training step.

    Args:
        name: a key of ``LABELS``.
        model: a plain model, which is changed in place.
        config: the resolved configuration of a run: precision, optimizer, clipping, seed.
        rank: the rank, for methods that have one.
        method: the method's configuration; by default :func:`own_method`'s.

    Raises:
        BenchmarkError: peft is not installed.
    """

    def __init__(
        self, name: str, model: nn.Module, config: Config, rank: int = RANK, method: MethodConfig | None = None
    ) -> None:
        self.name = name
        self._is_of_peft = name in (PEFT, DORA)
        if self._is_of_peft:
            self.model = with_peft(model, rank, dora=name == DORA)
        else:
            stream = generator(config.seed, "adapter")
            self.model = attach(model, method or own_method(name, rank, model), generator=stream, verbose=False)
            choose_at_random(self.model, config.seed)
        self.model.train()
        self._train = config.train
        self._trainable = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        self.optimizer = torch.optim.AdamW(
            self._trainable,
            lr=LEARNING_RATE,
            betas=(config.train.beta1, config.train.beta2),
            eps=config.train.epsilon,
            weight_decay=config.train.weight_decay,
            fused=True,
        )

    @property
    def trainable_parameters(self) -> int:
        """The number of trainable parameters, including the head's."""
        return sum(parameter.numel() for parameter in self._trainable)

    def forward(self, batch: Batch) -> Tensor:
        """The loss, in the run's precision."""
        bf16 = self._train.precision == "bf16"
        with torch.autocast(self._train.device, dtype=torch.bfloat16, enabled=bf16):
            return self.model(**batch).loss

    def optimize(self) -> None:
        """Clip the gradients and update the trainable parameters."""
        if self._train.max_grad_norm:
            torch.nn.utils.clip_grad_norm_(self._trainable, self._train.max_grad_norm)
        self.optimizer.step()

    def update(self, batch: Batch) -> None:
        """A training step up to the optimizer's update; the gradients are kept."""
        self.forward(batch).backward()
        self.optimize()

    def finish(self) -> None:
        """What follows the backward pass: clipping, update, clearing of the gradients."""
        self.optimize()
        self.optimizer.zero_grad()

    def step(self, batch: Batch) -> None:
        """A training step: forward, backward, clipping, update, clearing of the gradients."""
        self.forward(batch).backward()
        self.finish()

    def step_in_parts(self, batch: Batch) -> dict[str, float]:
        """A training step; returns the seconds of each of ``PARTS``. On a GPU it synchronizes after each part."""
        device, losses = self._train.device, []
        taken = (
            seconds(lambda: losses.append(self.forward(batch)), device),
            seconds(lambda: losses[0].backward(), device),
            seconds(self.finish, device),
        )
        return dict(zip(PARTS, taken, strict=True))

    def saved_bytes(self, batch: Batch) -> int:
        """Bytes, without parameters, that a forward pass keeps for the backward pass; each storage is counted once."""
        weights = {tensor.untyped_storage().data_ptr() for tensor in (*self.model.parameters(), *self.model.buffers())}
        kept: dict[int, UntypedStorage] = {}

        def keep(tensor: Tensor) -> None:
            # The storage alone, as there is no backward pass: a graph that holds its own outputs is never freed.
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in weights:
                kept[storage.data_ptr()] = storage

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda nothing: nothing):
            loss = self.forward(batch)
        del loss
        return sum(storage.nbytes() for storage in kept.values())

    def checkpoint_bytes(self) -> int:
        """Bytes of the tensors of a checkpoint; of peft's methods, of what is trained."""
        if self._is_of_peft:
            return sum(parameter.numel() * parameter.element_size() for parameter in self._trainable)
        return checkpoint_bytes(self.model)

    def merged(self) -> nn.Module:
        """The plain model that the trained one is merged into, in place."""
        model: Any = self.model
        return model.merge_and_unload() if self._is_of_peft else merge(model)


def with_peft(model: nn.Module, rank: int, dora: bool) -> nn.Module:
    """LoRA or DoRA of the peft library on the same layers as this project's methods, with the head trained.

    Raises:
        BenchmarkError: peft is not installed.
    """
    try:
        import peft
    except ImportError as error:
        raise BenchmarkError("peft is not installed; pip install -r requirements.txt") from error
    targets = list(target_layers(model, LoraConfig().targets))
    head = head_names(model)
    settings = peft.LoraConfig(
        r=rank, lora_alpha=2 * rank, lora_dropout=0.0, bias="none", target_modules=targets, use_dora=dora
    )
    with warnings.catch_warnings():
        # peft asks the model for an attribute that transformers is about to rename.
        warnings.simplefilter("ignore", FutureWarning)
        wrapped = peft.get_peft_model(model, settings)
    parameters = dict(model.named_parameters())
    for name in head:
        parameters[name].requires_grad_(True)
    return wrapped
