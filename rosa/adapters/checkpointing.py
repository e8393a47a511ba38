"""Reentrant gradient checkpointing of a model whose inputs are frozen.

Reentrant checkpointing (``use_reentrant=True``) runs a block without a graph, and gives its output a gradient only if
one of its inputs requires one. With frozen embeddings no input of the first blocks does, so the factors of these blocks
would get no gradient. transformers solves this for token embeddings only, not for images, sound or a second input.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor, nn

FUNCTION = "_gradient_checkpointing_func"
"""transformers' attribute with which a module runs its blocks; set when gradient checkpointing is switched on."""


class WithGradient:
    """A reentrant checkpoint function that gives the first input of a block a gradient if no input has one."""

    def __init__(self, function: functools.partial[Any]) -> None:
        self.function = function

    def __call__(self, block: Any, *inputs: Any, **options: Any) -> Any:
        """Run the block as ``function`` does."""
        if torch.is_grad_enabled() and not any(isinstance(x, Tensor) and x.requires_grad for x in inputs):
            first = next((i for i, x in enumerate(inputs) if isinstance(x, Tensor) and x.is_floating_point()), None)
            if first is not None:
                inputs = (*inputs[:first], inputs[first].detach().requires_grad_(), *inputs[first + 1 :])
        return self.function(block, *inputs, **options)


def support_checkpointing(model: nn.Module) -> None:
    """Make reentrant checkpointing compute the gradient of every factor, whether it is switched on before or after.

    A second call for the same model changes nothing.
    """
    if _before_forward in model._forward_pre_hooks.values():
        return
    if any(hasattr(module, "gradient_checkpointing") for module in model.modules()):
        model.register_forward_pre_hook(_before_forward)


def end_support(model: nn.Module) -> None:
    """Undo :func:`support_checkpointing` in this model and in those that it contains."""
    for module in model.modules():
        hooks = module._forward_pre_hooks
        for key in [key for key, hook in hooks.items() if hook is _before_forward]:
            del hooks[key]
        function = vars(module).get(FUNCTION)
        if isinstance(function, WithGradient):
            setattr(module, FUNCTION, function.function)


def _before_forward(model: nn.Module, _: Any) -> None:
    """Replace a training model's reentrant checkpoint functions, which transformers sets after construction."""
    if not model.training or not torch.is_grad_enabled():
        return
    for module in model.modules():
        function = vars(module).get(FUNCTION)
        if isinstance(function, functools.partial) and function.keywords.get("use_reentrant"):
            setattr(module, FUNCTION, WithGradient(function))
