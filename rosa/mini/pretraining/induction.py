"""Lets a small GPT-2 start with heads that copy, which it would take long to find from random weights."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from transformers import GPT2LMHeadModel

EMBEDDING_SCALE = 5.0
"""The embeddings' spread at the start, in that of the other weights: smaller ones forget what they start as."""
SHARPNESS = 2.0
"""Gain of the constructed heads' queries and of their keys."""
CONFIDENCE = 4.0
"""Gain of what the copying heads say over what is known of the token that they stand at."""


def induce(model: GPT2LMHeadModel) -> None:
    """Let half of the heads of the first two layers start as an induction circuit.

    In the first layer they look at the token before (places are waves, and turning these by a step leads from a place
    to the one before it) and note it; in the second they look for a place whose note is the token that they stand at,
    and predict the token of that place: what followed last time follows again. Transformers come to have such pairs of
    heads in training (In-context Learning and Induction Heads, arXiv 2209.11895), and a small model learns faster from
    weights that look as if trained (mimetic initialization, arXiv 2305.09828). A model of one layer stays as it is.
    """
    body: Any = model.transformer  # transformers leaves the attributes of its modules untyped
    if len(body.h) < 2:
        return
    width, heads = model.config.n_embd, model.config.n_head
    size = width // heads
    places = size // 2 * 2
    constructed = heads // 2 * size
    spread = model.config.initializer_range * EMBEDDING_SCALE

    # Places and tokens start in dimensions of their own.
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
    """Places (count, width) as cosines and sines of random frequencies, and the matrix that turns each a step back."""
    frequencies = torch.rand(width // 2) * math.pi
    angles = torch.arange(count)[:, None] * frequencies
    waves = torch.cat((angles.cos(), angles.sin()), dim=1) * math.sqrt(2)
    cosine, sine = frequencies.cos().diag(), frequencies.sin().diag()
    return waves, torch.cat((torch.cat((cosine, -sine), dim=1), torch.cat((sine, cosine), dim=1)))


def subspace(width: int, spared: int, dimensions: int) -> torch.Tensor:
    """Random orthonormal columns (width, dimensions) that leave the first ``spared`` rows at 0."""
    basis = torch.zeros(width, dimensions)
    basis[spared:] = torch.linalg.qr(torch.randn(width - spared, dimensions)).Q
    return basis
