"""The student network of the regression tasks from ROSA's theory: a linear map or a ReLU network."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from rosa.config import ModelConfig
from rosa.utils.seeding import generator

PRETRAINING_UPDATES = 50
PRETRAINING_RATE = 3e-3
"""Updates and learning rate of :func:`pretrain`."""


class Perceptron(nn.Module):
    """Linear layers without bias, with ReLU between them; a single layer is a linear map.

    Weights are normal with variance 2 / in before a ReLU and 1 / in in the last layer, which keeps the scale of the
    activations about constant (He et al. 2015, arXiv 1502.01852, section 2.2).

    Args:
        widths: widths of the input, of each hidden layer, and of the output; at least two.
        stream: CPU generator of the weights.
    """

    def __init__(self, widths: Sequence[int], stream: torch.Generator) -> None:
        super().__init__()
        pairs = list(itertools.pairwise(widths))
        layers = [nn.Linear(inner, outer, bias=False) for inner, outer in pairs]
        for layer in layers[:-1]:
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu", generator=stream)
        nn.init.kaiming_normal_(layers[-1].weight, nonlinearity="linear", generator=stream)
        self.layers = nn.ModuleList(layers)

    def forward(self, features: Tensor, labels: Tensor | None = None) -> dict[str, Tensor]:
        """Predict and, if labels are given, compute the loss.

        Args:
            features: (n, in).
            labels: (n, out).

        Returns:
            ``logits`` (n, out), named as in Hugging Face models; with labels also ``loss``, the mean squared error.
        """
        hidden = features
        for layer in self.layers[:-1]:
            hidden = functional.relu(layer(hidden))
        predicted = self.layers[-1](hidden)
        if labels is None:
            return {"logits": predicted}
        return {"loss": functional.mse_loss(predicted, labels), "logits": predicted}


def pretrain(network: Perceptron, features: Tensor, labels: Tensor) -> None:
    """Fit a network to features (n, in) and labels (n, out): a few updates of Adam, each on all rows.

    Few, because a network of thousands of weights soon knows some hundred noisy labels by heart.
    """
    optimizer = torch.optim.Adam(network.parameters(), lr=PRETRAINING_RATE)
    for _ in range(PRETRAINING_UPDATES):
        optimizer.zero_grad()
        network(features, labels)["loss"].backward()
        optimizer.step()
    optimizer.zero_grad()  # leaves no gradients


def load(model: ModelConfig, rows: tuple[Tensor, Tensor] | None = None) -> tuple[Perceptron, dict[str, Any]]:
    """Build the student before fine-tuning, in evaluation mode, and its entry in the run's record.

    Args:
        model: shape and seed.
        rows: features (n, in) and labels (n, out) to pretrain on; None leaves the weights random.
    """
    network = Perceptron(model.perceptron.widths, generator(model.perceptron.seed, "perceptron"))
    if rows is not None:
        pretrain(network, *rows)
    digest = hashlib.sha256()
    for parameter in network.parameters():
        digest.update(parameter.detach().numpy().tobytes())
    facts = {"name": model.name, "source": model.source, "path": model.path, "revision": model.revision}
    return network.eval(), {**facts, "sha256": {"weights": digest.hexdigest()}}
