"""The contenders of the benchmarks: the same model under each method, and its training step."""

from __future__ import annotations

import warnings

import torch
from torch import nn

from benchmarks import BenchmarkError
from benchmarks.workload import Batch
from rosa.adapters import attach, head_names
from rosa.adapters.targets import target_layers
from rosa.config import Config, FullConfig, IA3Config, LoraConfig, MethodConfig, RosaConfig
from rosa.config.registry import label
from rosa.utils.seeding import generator

RANK = 8
ALPHA = 16
LEARNING_RATE = 1e-6
"""Small, so that no method diverges; a step takes the same time at any rate."""

PEFT = "peft"
METHODS: dict[str, MethodConfig] = {
    "rosa": RosaConfig(rank=RANK),
    "lora": LoraConfig(rank=RANK, alpha=ALPHA),
    "ia3": IA3Config(),
    "full": FullConfig(),
}
LABELS = {
    "rosa": label("rosa"),
    "lora": f"{label('lora')} (loralib)",
    PEFT: f"{label('lora')} (peft)",
    "ia3": label("ia3"),
    "full": label("full"),
}
"""The contenders, in the order of a table's rows."""
LORAS = ("lora", PEFT)


class Contender:
    """A model under one method, and its training step.

    Args:
        name: a key of ``LABELS``.
        model: a plain model, which is changed in place.
        config: a resolved run's: precision, optimizer, clipping, seed.

    Raises:
        BenchmarkError: peft is not installed.
    """

    def __init__(self, name: str, model: nn.Module, config: Config) -> None:
        if name == PEFT:
            self.model = with_peft_lora(model)
        else:
            self.model = attach(model, METHODS[name], generator=generator(config.seed, "adapter"), verbose=False)
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

    def update(self, batch: Batch) -> None:
        """A training step up to the optimizer's update; the gradients are kept."""
        bf16 = self._train.precision == "bf16"
        with torch.autocast(self._train.device, dtype=torch.bfloat16, enabled=bf16):
            loss = self.model(**batch).loss
        loss.backward()
        if self._train.max_grad_norm:
            torch.nn.utils.clip_grad_norm_(self._trainable, self._train.max_grad_norm)
        self.optimizer.step()

    def step(self, batch: Batch) -> None:
        """A training step: forward, backward, clipping, update, clearing of the gradients."""
        self.update(batch)
        self.optimizer.zero_grad()


def with_peft_lora(model: nn.Module) -> nn.Module:
    """LoRA of the peft library on the layers that ours adapts, at the same rank, with the head trained.

    Raises:
        BenchmarkError: peft is not installed.
    """
    try:
        import peft
    except ImportError as error:
        raise BenchmarkError("peft is not installed; pip install -r requirements.txt") from error
    targets = list(target_layers(model, LoraConfig().targets))
    head = head_names(model)
    settings = peft.LoraConfig(r=RANK, lora_alpha=ALPHA, lora_dropout=0.0, bias="none", target_modules=targets)
    with warnings.catch_warnings():
        # peft asks the model for an attribute that transformers is about to rename.
        warnings.simplefilter("ignore", FutureWarning)
        wrapped = peft.get_peft_model(model, settings)
    parameters = dict(model.named_parameters())
    for name in head:
        parameters[name].requires_grad_(True)
    return wrapped
