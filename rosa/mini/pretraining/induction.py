"""Initialize induction heads in a small GPT-2, which would take long to form from random weights."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from transformers import GPT2LMHeadModel

EMBEDDING_SCALE = 5.0
"""Initial standard deviation of the embeddings, as a multiple of the other weights'; a few updates would erase smaller
ones."""
SHARPNESS = 2.0
"""Gain of the constructed heads' queries and of their keys."""
CONFIDENCE = 4.0
"""Gain of the copying heads' output relative to the embedding of the current token."""


def induce(model: GPT2LMHeadModel) -> None:
    """Initialize half of the heads of the first two layers as an induction circuit, in place.

    Heads of the first layer attend to the previous token and copy it (position embeddings are sinusoids, and a rotation
    by one step maps a position to the previous one). Heads of the second layer attend to positions whose previous token
    equals the current token, and predict the token there. Transformers form such pairs of heads in training (In-context
    Learning and Induction Heads, arXiv 2209.11895), and a small model learns faster from weights that resemble trained
    ones (mimetic initialization, arXiv 2305.09828). A model of one layer is left unchanged.
    """
    body: Any = model.transformer  # untyped in transformers
    if len(body.h) < 2:
        return
    width, heads = model.config.n_embd, model.config.n_head
    size = width // heads
    places = size // 2 * 2
    constructed = heads // 2 * size
    spread = model.config.initializer_range * EMBEDDING_SCALE

    # Position and token embeddings start in separate dimensions.
    body.wte.weight.mul_(EMBEDDING_SCALE)[:, :places] = 0
    waves, back = turning_waves(len(body.wpe.weight), places)
    body.wpe.weight.zero_()[:, :places] = waves * spread
    told, noted = (subspace(width, places, constructed) for _ in range(2))

    first, second = body.h[0].attn, body.h[1].attn
    query, key, value = first.c_attn.weight.split(width, dim=1)
    for weight in (query, key):
        weight[:, :constructed] = 0
    for head in range(heads // 2):
        dimensions = slice(head * size, head * size + places)
        query[:places, dimensions] = SHARPNESS * back
        key[:places, dimensions] = SHARPNESS * torch.eye(places)
    value[:, :constructed] = told
    first.c_proj.weight[:constructed] = spread * noted.T

    query, key, value = second.c_attn.weight.split(width, dim=1)
    query[:, :constructed] = SHARPNESS * told
    key[:, :constructed] = SHARPNESS * noted
    value[:, :constructed] = told
    second.c_proj.weight[:constructed] = CONFIDENCE * spread * told.T


def turning_waves(count: int, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Positions (count, width) as sinusoids of random frequencies, and the matrix that rotates each one step back."""
    frequencies = torch.rand(width // 2) * math.pi
    angles = torch.arange(count)[:, None] * frequencies
    waves = torch.cat((angles.cos(), angles.sin()), dim=1) * math.sqrt(2)
    cosine, sine = frequencies.cos().diag(), frequencies.sin().diag()
    return waves, torch.cat((torch.cat((cosine, -sine), dim=1), torch.cat((sine, cosine), dim=1)))


def subspace(width: int, spared: int, dimensions: int) -> torch.Tensor:
    """Random orthonormal columns (width, dimensions) whose first ``spared`` rows are 0."""
    basis = torch.zeros(width, dimensions)
    basis[spared:] = torch.linalg.qr(torch.randn(width - spared, dimensions)).Q
    return basis
