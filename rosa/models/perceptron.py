"""The student of the regressions of ROSA's theory: a linear map, or linear layers with ReLU between them."""

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


class Perceptron(nn.Module):
    """Linear layers without bias, with ReLU between them; a single one is a linear map.

    Weights are drawn normally with variance 2 / in before a ReLU and 1 / in at the end, so that each layer hands on
    what it gets at about the same size (He et al. 2015, arXiv 1502.01852, section 2.2).

    Args:
        widths: of the input, of each hidden layer, and of the output; two or more.
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
        """Predict, and compare where labels are given.

        Args:
            features: (n, in).
            labels: (n, out).

        Returns:
            ``logits`` (n, out), named as Hugging Face's models name their output; ``loss``, the mean squared error.
        """
        hidden = features
        for layer in self.layers[:-1]:
            hidden = functional.relu(layer(hidden))
        predicted = self.layers[-1](hidden)
        if labels is None:
            return {"logits": predicted}
        return {"loss": functional.mse_loss(predicted, labels), "logits": predicted}


def load(model: ModelConfig) -> tuple[Perceptron, dict[str, Any]]:
    """The student as it is before fine-tuning, in evaluation mode, and the facts that a record keeps."""
    network = Perceptron(model.perceptron.widths, generator(model.perceptron.seed, "perceptron"))
    digest = hashlib.sha256()
    for parameter in network.parameters():
        digest.update(parameter.detach().numpy().tobytes())
    facts = {"name": model.name, "source": model.source, "path": model.path, "revision": model.revision}
    return network.eval(), {**facts, "sha256": {"weights": digest.hexdigest()}}
