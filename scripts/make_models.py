"""Write docs/models.md: which architectures ROSA and RoSA through PEFT work with, from probes of tiny random models.

Usage: python scripts/make_models.py [NAME ...] [--out FILE]
"""

from __future__ import annotations

import argparse
import copy
import sys
import tempfile
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import from_clone  # noqa: F401  # finds rosa
import peft
import torch
import transformers
from torch import Tensor, nn

import rosa
import rosa.peft
from rosa.adapters import support
from rosa.adapters.collect import Collector
from rosa.errors import RosaError
from rosa.utils import files
from rosa.utils.console import run_command
from rosa.utils.seeding import generator

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "models.md"

TEXT: dict[str, Any] = {
    "vocab_size": 40, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "max_position_embeddings": 40, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
GROUPED = {**TEXT, "num_key_value_heads": 2}
SEQUENCES: dict[str, Any] = {
    "vocab_size": 40, "d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4,
    "decoder_attention_heads": 4, "encoder_ffn_dim": 48, "decoder_ffn_dim": 48, "pad_token_id": 0, "bos_token_id": 1,
    "eos_token_id": 2, "decoder_start_token_id": 1,
}  # fmt: skip


@dataclass(frozen=True)
class Architecture:
    """A tiny model of one architecture."""

    model: str
    """Name of the class in transformers."""
    config: dict[str, Any]
    inputs: str = "text"
    note: str = ""


ARCHITECTURES = {
    "Llama": Architecture("LlamaForCausalLM", GROUPED),
    "Qwen2": Architecture("Qwen2ForCausalLM", GROUPED),
    "Mistral": Architecture("MistralForCausalLM", GROUPED),
    "Gemma": Architecture("GemmaForCausalLM", {**GROUPED, "head_dim": 8}),
    "GPT-NeoX": Architecture("GPTNeoXForCausalLM", TEXT, note="query, key and value are one layer"),
    "Falcon": Architecture("FalconForCausalLM", {**TEXT, "ffn_hidden_size": 48}, note="likewise"),
    "Phi": Architecture("PhiForCausalLM", GROUPED),
    "OPT": Architecture("OPTForCausalLM", {**TEXT, "ffn_dim": 48, "word_embed_proj_dim": 32}),
    "GPT-2": Architecture(
        "GPT2LMHeadModel", {"vocab_size": 40, "n_embd": 32, "n_layer": 2, "n_head": 4}, note="layers are `Conv1D`"
    ),
    "T5": Architecture(
        "T5ForConditionalGeneration",
        {
            **{"vocab_size": 40, "d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4},
            "decoder_start_token_id": 0,
            "pad_token_id": 0,
            "eos_token_id": 1,
        },
    ),
    "BART": Architecture("BartForConditionalGeneration", {**SEQUENCES, "forced_eos_token_id": 2}),
    "BERT": Architecture("BertForSequenceClassification", TEXT, "classes"),
    "RoBERTa": Architecture("RobertaForSequenceClassification", TEXT, "classes"),
    "DeBERTa-v2": Architecture("DebertaV2ForSequenceClassification", TEXT, "classes"),
    "ALBERT": Architecture(
        "AlbertForSequenceClassification",
        {**TEXT, "embedding_size": 16},
        "classes",
        "all layers are one, adapted once",
    ),
    "ViT": Architecture(
        "ViTForImageClassification",
        {
            **{k: TEXT[k] for k in ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")},
            "image_size": 8,
            "patch_size": 4,
        },
        "image",
    ),
    "Whisper": Architecture(
        "WhisperForConditionalGeneration",
        {
            **SEQUENCES,
            "num_mel_bins": 8,
            "max_source_positions": 10,
            "max_target_positions": 20,
            "suppress_tokens": None,
            "begin_suppress_tokens": None,
        },
        "sound",
    ),
    "Mixtral": Architecture(
        "MixtralForCausalLM",
        {**GROUPED, "num_local_experts": 4, "num_experts_per_tok": 2},
        note="experts are one tensor, which is not adapted",
    ),
}


def build(one: Architecture, seed: int = 0) -> nn.Module:
    """The model with random weights, large enough that nothing is about 0, and without dropout."""
    kind = getattr(transformers, one.model)
    config = kind.config_class(**one.config)
    for name in vars(config):
        if "drop" in name and isinstance(getattr(config, name), float):
            setattr(config, name, 0.0)
    torch.manual_seed(seed)
    model = kind(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model.eval()


def batch(one: Architecture) -> dict[str, Tensor]:
    """A batch of four examples as the architecture takes them."""
    stream = torch.Generator().manual_seed(0)
    tokens = torch.randint(3, 40, (4, 7), generator=stream)
    classes = torch.randint(2, (4,), generator=stream)
    if one.inputs == "image":
        return {"pixel_values": torch.randn(4, 3, 8, 8, generator=stream), "labels": classes}
    if one.inputs == "sound":
        return {"input_features": torch.randn(4, 8, 20, generator=stream), "labels": tokens}
    return {"input_ids": tokens, "labels": classes if one.inputs == "classes" else tokens}


@torch.no_grad()
def outputs(model: nn.Module, one: Architecture) -> Tensor:
    """Logits of the batch."""
    return model(**batch(one)).logits


def train(model: nn.Module, one: Architecture, steps: int = 2) -> None:
    """A few updates, in evaluation mode."""
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    for _ in range(steps):
        optimizer.zero_grad()
        model(**batch(one)).loss.backward()
        optimizer.step()


def difference(actual: Tensor, expected: Tensor) -> float:
    """Largest difference over the largest value."""
    return float((actual.double() - expected.double()).abs().max() / expected.double().abs().max())


PROBES = {
    "ROSA": ("attach", "step", "resample", "base", "merge", "load", "LoRA"),
    "RoSA": ("attach", "places", "step", "base", "merge", "load"),
}
"""By method: ROSA is random subspace adaptation, RoSA robust adaptation."""
WHAT = {
    "attach": "the outputs stay where adapters are added (1e-5)",
    "step": "updates move every factor, and nothing frozen",
    "resample": "the outputs stay where a new subspace is drawn (1e-5)",
    "places": "the places of the sparse values are chosen from the gradients of every adapted weight; the outputs stay",
    "base": "`disable_adapter()` and `unload()` give the pretrained outputs bit for bit",
    "merge": "`merge_and_unload()` keeps the outputs (1e-5) and gives the original classes",
    "load": "a saved adapter loads to equal outputs, bit for bit",
    "LoRA": "the adapter saved `as_lora` has equal outputs (1e-4)",
}


@dataclass
class Row:
    """What was found of one architecture."""

    name: str
    note: str
    method: str = "ROSA"
    targets: str = "unknown"
    results: dict[str, str] = field(default_factory=dict)
    reason: str = ""
    """Why a probe did not run or failed."""


def probe(name: str, method: str = "ROSA") -> Row:
    """Probe one architecture; a probe that could not run has no result."""
    one = ARCHITECTURES[name]
    row = Row(name, one.note, method)
    try:
        plain = build(one)
        expected = outputs(plain, one)
    except Exception as error:  # whatever another version of transformers raises
        row.reason = f"no tiny model: {type(error).__name__}: {error}"
        return row
    try:
        _probe(one, plain, expected, row)
    except Exception as error:  # a failed probe is a result, and the later ones stay unknown
        row.reason = f"{type(error).__name__}: {error}".partition("\n")[0]
        row.results[next(each for each in PROBES[method] if each not in row.results)] = "fails"
    return row


def _probe(one: Architecture, plain: nn.Module, expected: Tensor, row: Row) -> None:
    def found(name: str, good: bool) -> None:
        row.results[name] = "yes" if good else "no"

    torch.manual_seed(0)
    head: dict[str, Any] = {"modules_to_save": ["classifier"]} if one.inputs in ("classes", "image") else {}
    made = {"ROSA": rosa.peft.RosaConfig(r=1, **head), "RoSA": rosa.peft.RobustConfig(r=1, density=0.05, **head)}
    model: Any = peft.get_peft_model(copy.deepcopy(plain), made[row.method]).eval()
    names = dict.fromkeys(_short(name) for name in model.targeted_module_names)
    row.targets = ", ".join(f"`{name}`" for name in names)
    found("attach", difference(outputs(model, one), expected) <= 1e-5)
    if row.method == "RoSA":
        found("places", _chosen(model, one) and difference(outputs(model, one), expected) <= 1e-5)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    train(model, one)
    moved = {name for name, parameter in model.named_parameters() if not torch.equal(parameter, before[name])}
    found("step", moved == {name for name, parameter in model.named_parameters() if parameter.requires_grad})
    trained = outputs(model, one)
    if row.method == "ROSA":
        rosa.resample(model, generator=generator(0, "resample"))
        found("resample", difference(outputs(model, one), trained) <= 1e-5)
        train(model, one)
        trained = outputs(model, one)
    with model.disable_adapter():
        disabled = outputs(model, one)
    found(
        "base", torch.equal(disabled, expected) and torch.equal(outputs(copy.deepcopy(model).unload(), one), expected)
    )
    merged = copy.deepcopy(model).merge_and_unload()
    classes = [[type(module) for module in each.modules()] for each in (merged, plain)]
    found("merge", difference(outputs(merged, one), trained) <= 1e-5 and classes[0] == classes[1])
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        loaded = peft.PeftModel.from_pretrained(copy.deepcopy(plain), folder).eval()
        found("load", torch.equal(outputs(loaded, one), trained))
        if row.method == "RoSA":
            return
        rosa.peft.save_as_lora(model, f"{folder}/lora")
        loaded = peft.PeftModel.from_pretrained(copy.deepcopy(plain), f"{folder}/lora").eval()
        found("LoRA", difference(outputs(loaded, one), trained) <= 1e-4)


def _chosen(model: nn.Module, one: Architecture) -> bool:
    """Choose the sparse positions from one batch, and return whether each layer's are those of its largest scores."""
    collector = Collector(support.supported(model), "gradient_squared")
    collector.start()
    model(**batch(one)).loss.backward()
    collector.end_update()
    scores = {name: score.flatten() for name, score in collector.scores.items()}
    support.choose(model, collector.scores)
    collector.stop()
    model.zero_grad()
    good = []
    for name, adapter in support.supported(model).items():
        assert adapter.index is not None
        inside = torch.zeros(len(scores[name]), dtype=torch.bool)
        inside[adapter.index.long()] = True
        good.append(bool(scores[name][inside].min() >= scores[name][~inside].max()))
    return bool(good) and all(good)


def _short(name: str) -> str:
    """A layer's name from the last number on."""
    parts = name.split(".")
    numbers = [i for i, part in enumerate(parts) if part.isdigit()]
    return ".".join(parts[numbers[-1] + 1 :] if numbers else parts)


def page(rows: Sequence[Row]) -> str:
    """The page docs/models.md, from the results of the probes."""
    lines = [
        "# Architectures",
        "",
        "ROSA (random subspace adaptation) and RoSA (robust adaptation, low-rank plus sparse) through PEFT",
        "([peft.md](peft.md)) on a tiny random model of each, with their default targets. Written by",
        "`python scripts/make_models.py`; *unknown* where a probe could not run.",
        "",
        f"peft {peft.__version__}, transformers {transformers.__version__}, torch {torch.__version__}, on the CPU.",
        "",
        *(f"- **{name}**: {what}" for name, what in WHAT.items()),
    ]
    for method, probes in PROBES.items():
        own = [row for row in rows if row.method == method]
        if not own:
            continue
        targets = " default targets |" if method == "ROSA" else ""
        lines += [
            "",
            f"## {method}",
            "",
            f"| architecture |{targets} " + " | ".join(probes) + " |",
            "| --- |" + (" --- |" if targets else "") + " --- |" * len(probes),
        ]
        for row in own:
            cells = [*([row.targets] if targets else []), *(row.results.get(name, "unknown") for name in probes)]
            label = f"{row.name} ({row.note})" if row.note else row.name
            lines.append(f"| {label} | " + " | ".join(cells) + " |")
    reasons = [f"- {row.method}, {row.name}: {row.reason}" for row in rows if row.reason]
    return "\n".join([*lines, *(["", "What did not run:", "", *reasons] if reasons else []), ""])


def main() -> None:
    """Probe the named architectures, or all of them and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(ARCHITECTURES)}; by default all")
    parser.add_argument(
        "--out", type=Path, help="the page to write (default: docs/models.md; with NAMEs none, since it has them all)"
    )
    asked = parser.parse_args()
    unknown = [name for name in asked.names if name not in ARCHITECTURES]
    if unknown:
        raise RosaError(f"{unknown[0]!r}: expected some of {', '.join(ARCHITECTURES)}")
    out = asked.out or (None if asked.names else PAGE)
    if out:
        files.refuse_unwritable_file(out, "--out ")
    warnings.simplefilter("ignore")
    transformers.utils.logging.set_verbosity_error()
    torch.set_num_threads(1)
    rows = []
    for method in PROBES:
        for name in asked.names or ARCHITECTURES:
            rows.append(probe(name, method))
            print(method, name, rows[-1].results, rows[-1].reason, flush=True)
    if out:
        files.write(out, page(rows))


if __name__ == "__main__":
    sys.exit(run_command(main))
