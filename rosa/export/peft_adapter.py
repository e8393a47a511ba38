"""Export to an ordinary PEFT LoRA adapter: the low-rank difference from the pretrained weights, and the head.

For each changed linear layer of the backbone, ``W_final - W_pretrained`` is truncated to the lowest rank that meets a
tolerance and saved as LoRA with a scaling of exactly 1 (``alpha = rank``). In each subspace visited, ROSA changes a
weight by ``A B - A_0 B_0``, of rank at most 2R; LoRA's change has rank at most R.
"""

from __future__ import annotations

import copy
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from rosa.adapters.base import oriented
from rosa.adapters.linalg.subspace import rounding_level
from rosa.adapters.modules import unwrapped
from rosa.adapters.targets import linear_layers
from rosa.errors import ExportError
from rosa.export.difference import Difference, compare
from rosa.export.folders import CARD, new_folder, size_of
from rosa.export.low_rank import LowRank, truncate
from rosa.utils.formatting import aligned
from rosa.utils.seeding import global_stream

if TYPE_CHECKING:
    from peft import LoraConfig, PeftModel

TOLERANCE = 1e-5
"""Default truncated share of a layer's change: a tenth of the accepted relative difference in logits."""
ADAPTER = "default"
"""PEFT's default adapter name."""
WEIGHTS = "adapter_model.safetensors"

TASKS = {
    "ForSequenceClassification": "SEQ_CLS",
    "ForTokenClassification": "TOKEN_CLS",
    "ForQuestionAnswering": "QUESTION_ANS",
    "ForCausalLM": "CAUSAL_LM",
    "LMHeadModel": "CAUSAL_LM",
    "ForConditionalGeneration": "SEQ_2_SEQ_LM",
}
"""Suffix of a transformers class name -> PEFT's task type, from which ``AutoPeftModel`` derives the class."""


@dataclass(frozen=True)
class ExportedLayer:
    """One line of the table of an export."""

    name: str
    shape: tuple[int, int]
    """(out, in)."""
    rank: int
    """0 for a layer that differs by rounding alone and is left out of the adapter."""
    dropped: float
    """Frobenius norm of the truncated part, divided by that of the change."""


@dataclass(frozen=True)
class PeftExport:
    """The result of :func:`to_peft`: the exported layers, the modules saved in full, and sizes."""

    folder: Path
    layers: tuple[ExportedLayer, ...]
    whole: tuple[str, ...]
    """Modules saved in full."""
    adapter_bytes: int
    """Size of the adapter's file."""
    full_bytes: int
    """Size of all parameters of the model, as in a plain checkpoint."""

    def table(self) -> str:
        """One line per layer, then the modules saved in full and the sizes."""
        rows = [("layer", "out x in", "rank", "dropped share")]
        rows += [(one.name, "{} x {}".format(*one.shape), str(one.rank), f"{one.dropped:.1e}") for one in self.layers]
        lines = aligned(rows)
        if self.whole:
            lines.append(f"whole: {', '.join(self.whole)}")
        share = 100 * self.adapter_bytes / self.full_bytes
        lines.append(
            f"adapter: {self.adapter_bytes:,} bytes, {share:.2f} % of the {self.full_bytes:,} of the full checkpoint"
        )
        return "\n".join(lines)


def to_peft(
    base: nn.Module,
    plain: nn.Module,
    folder: str | Path,
    *,
    tolerance: float = TOLERANCE,
    overwrite: bool = False,
    origin: str = "",
) -> PeftExport:
    """Write a PEFT LoRA adapter with which ``PeftModel.from_pretrained(base, folder)`` reproduces ``plain``.

    Args:
        base: the pretrained model, with the head that training started from; it is not changed.
        plain: the same model after fine-tuning and ``rosa.merge``. Either may lie in a wrapper, such as that of
            ``torch.compile``.
        folder: the target; it appears only when complete.
        tolerance: largest truncated share of each layer's change (Frobenius norm), in [0, 1). Singular values at the
            level of rounding are dropped in any case.
        overwrite: replace an earlier export in that folder.
        origin: where the weights come from, for the folder's README.

    Raises:
        ExportError: the two are not the same model, a weight is not finite, no linear layer changed, a change is not
            low-rank or cannot be stored in an adapter, or the folder cannot be used.
    """
    if not 0 <= tolerance < 1:
        raise ExportError(f"tolerance={tolerance}: expected a number in [0, 1)")
    base, plain = unwrapped(base), unwrapped(plain)
    difference = compare(base, plain)
    factors, layers = _factorize(base, plain, difference, tolerance)
    if not factors:
        raise ExportError(
            f"no linear layer of {type(plain).__name__}'s backbone changed, so there is no adapter to write; "
            "export the merged model"
        )
    wrapped = _wrap(base, _config(base, factors, difference))
    _refuse_other_wrapping(wrapped, factors)
    _fill(wrapped, base, plain, factors, difference)
    with new_folder(Path(folder), overwrite) as unfinished:
        # Changed embeddings are among modules_to_save; with peft's own detection it would query the hub.
        wrapped.save_pretrained(str(unfinished), save_embedding_layers=False)
        (unfinished / CARD).write_text(_card(base, Path(folder), tolerance, origin), encoding="utf-8")
        adapter_bytes = size_of(unfinished, WEIGHTS)
    full_bytes = sum(parameter.numel() * parameter.element_size() for parameter in plain.parameters())
    return PeftExport(Path(folder), layers, difference.whole, adapter_bytes, full_bytes)


def _factorize(
    base: nn.Module, plain: nn.Module, difference: Difference, tolerance: float
) -> tuple[dict[str, LowRank], tuple[ExportedLayer, ...]]:
    """Factors of each layer with a rank above 0, and one table line per changed layer."""
    before, after = linear_layers(base), linear_layers(plain)
    factors: dict[str, LowRank] = {}
    lines = []
    for name in difference.layers:
        pretrained = oriented(before[name], before[name].weight.detach())
        final = oriented(after[name], after[name].weight.detach())
        change = final.double() - pretrained.to(final.device).double()
        found = truncate(change, tolerance, rounding_level(pretrained))
        out_features, in_features = final.shape
        if found.rank * (out_features + in_features) >= out_features * in_features:
            raise ExportError(
                f"{name} ({out_features} x {in_features}): its change has rank {found.rank} at tolerance "
                f"{tolerance:g}, and A and B of that rank are no smaller than the weight itself. Changes are not "
                "low-rank after (IA)3, which rescales whole weights, after full fine-tuning, and after very many "
                "subspaces: export the merged model, or give a coarser tolerance"
            )
        if name in difference.biases and not found.rank:
            found = _nothing(found)  # peft stores a bias only beside factors
        if found.rank:
            factors[name] = found
        lines.append(ExportedLayer(name, (out_features, in_features), found.rank, found.dropped))
    return factors, tuple(lines)


def _nothing(found: LowRank) -> LowRank:
    """Factors of rank 1 whose product is 0."""
    return found._replace(
        left=found.left.new_zeros(found.left.shape[0], 1), right=found.right.new_zeros(1, found.right.shape[1])
    )


def _config(base: nn.Module, factors: dict[str, LowRank], difference: Difference) -> LoraConfig:
    """PEFT's configuration: the most frequent rank as ``r``, the others as ``rank_pattern``."""
    from peft import LoraConfig, TaskType

    ranks = {name: found.rank for name, found in factors.items()}
    usual = Counter(ranks.values()).most_common(1)[0][0]
    # peft prepends "(.*\.)?" to a pattern; without "^" it would also match the end of a longer name.
    others = {f"^{re.escape(name)}": rank for name, rank in ranks.items() if rank != usual}
    task = next((kind for end, kind in TASKS.items() if type(base).__name__.endswith(end)), None)
    if getattr(base, "main_input_name", "input_ids") != "input_ids":
        task = None  # peft's classes for tasks pass on input_ids, which a model of sounds or images lacks
    bare = [name for name in factors if getattr(base.get_submodule(name), "bias", None) is None]
    if difference.biases and bare:
        raise ExportError(
            f"the bias of {difference.biases[0]} changed and {bare[0]} has none: PEFT can carry biases for all layers "
            "of an adapter or for none; export the merged model"
        )
    return LoraConfig(
        task_type=None if task is None else TaskType(task),
        r=usual,
        lora_alpha=usual,
        rank_pattern=others,
        alpha_pattern=dict(others),
        # A regular expression: a list of names would also match the ends of longer names.
        target_modules="|".join(re.escape(name) for name in factors),
        modules_to_save=list(difference.whole) or None,
        lora_bias=bool(difference.biases),
        fan_in_fan_out=_stores_transposed(base, factors),
        revision=getattr(getattr(base, "config", None), "_commit_hash", None),
    )


def _stores_transposed(base: nn.Module, names: dict[str, LowRank]) -> bool:
    """Whether an adapted layer stores its weight as (in, out); peft has one setting and corrects it per layer."""
    return any(not isinstance(base.get_submodule(name), nn.Linear) for name in names)


def _wrap(base: nn.Module, config: LoraConfig) -> PeftModel:
    """PEFT's model around a copy of ``base`` that shares its weights, so that ``base`` is not changed."""
    from peft import get_peft_model

    twins: dict[int, Any] = {id(buffer): buffer for buffer in base.buffers()}
    for parameter in base.parameters():
        twins[id(parameter)] = nn.Parameter(parameter.detach(), requires_grad=False)
    names = copy.copy(config.modules_to_save)
    with global_stream(0):  # peft's random factors are overwritten later
        try:
            wrapped = get_peft_model(copy.deepcopy(base, twins), config)
        except ValueError as error:
            raise ExportError(f"peft cannot adapt {type(base).__name__}: {error}") from error
    # For a classifier peft adds the usual names of a head here, and would add them again at each loading.
    config.modules_to_save = names
    return wrapped


def _refuse_other_wrapping(wrapped: PeftModel, factors: dict[str, LowRank]) -> None:
    """Refuse if peft adapts other layers: it skips one whose name contains that of a module saved in full."""
    from peft.tuners.lora import LoraLayer

    inner: Any = wrapped.base_model.model
    found = {name for name, module in inner.named_modules() if isinstance(module, LoraLayer)}
    if found != factors.keys():
        raise ExportError(
            f"peft would adapt {len(found)} layers instead of {len(factors)}; it mistakes "
            f"{', '.join(sorted(found ^ factors.keys()))} for another module. Export the merged model"
        )


@torch.no_grad()
def _fill(
    wrapped: PeftModel, base: nn.Module, plain: nn.Module, factors: dict[str, LowRank], difference: Difference
) -> None:
    """Copy the factors and the fine-tuned biases and modules into PEFT's model."""
    inner: Any = wrapped.base_model.model
    for name, found in factors.items():
        layer: Any = inner.get_submodule(name)
        layer.lora_A[ADAPTER].weight.copy_(found.right)
        layer.lora_B[ADAPTER].weight.copy_(found.left)
        if difference.biases:
            layer.lora_B[ADAPTER].bias.copy_(_bias(plain, name).double() - _bias(base, name).double())
    for name in difference.whole:
        inner.get_submodule(name).modules_to_save[ADAPTER].load_state_dict(plain.get_submodule(name).state_dict())


def _bias(model: nn.Module, name: str) -> Tensor:
    return model.get_parameter(f"{name}.bias")


def _card(base: nn.Module, folder: Path, tolerance: float, origin: str) -> str:
    kind = type(base).__name__
    source = getattr(base, "name_or_path", "") or "the pretrained model"
    config: Any = getattr(base, "config", None)
    labels = f", num_labels={config.num_labels}" if kind.endswith("ForSequenceClassification") else ""
    return (
        "---\nlibrary_name: peft\n---\n\n"
        f"# {folder.name}\n\n"
        f"A LoRA adapter for {kind} over `{source}`: the difference between the fine-tuned and the pretrained weights, "
        f"of which at most a share of {tolerance:g} is left out in each layer (Frobenius norm). {origin}\n\n"
        "```python\n"
        "from peft import PeftModel\n"
        f"from transformers import {kind}\n\n"
        f'base = {kind}.from_pretrained("{source}"{labels})\n'
        f'model = PeftModel.from_pretrained(base, "{folder.name}")\n'
        "```\n"
    )
