"""Load a run's model and tokenizer from the hub, a folder, an installed package, or the project itself."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn
from transformers import (
    CONFIG_NAME,
    MODEL_FOR_MASKED_LM_MAPPING,
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from rosa.config import ModelConfig, TaskConfig
from rosa.errors import ModelError
from rosa.utils import files
from rosa.utils.hub import is_commit, why_refused, why_unreachable
from rosa.utils.names import PRETRAINING
from rosa.utils.seeding import derive, global_stream

PADDING = "<|pad|>"
"""The padding token added to a language model that lacks one."""

WITHOUT_NETWORK = (
    ". Without a network use a model that you have (model=folder model.path=DIR, as save_pretrained writes it), "
    "model=minilm (an installed package), or the mini scale (model=mini-roberta)"
)
"""The end of the message of a run whose model is not in the hub's cache."""


def locate(model: ModelConfig) -> tuple[str, dict[str, Any]]:
    """The name or folder to pass to ``from_pretrained``, and its options.

    Raises:
        ModelError: the folder or package is missing, or the model is not in the cache and the hub is unreachable.
    """
    if model.source == "hub":
        return model.path, _revision(model)
    if model.source == "package":
        within = files.package_folder(model.path)
        if within is None:
            package = model.path.partition("/")[0]
            raise ModelError(f"model.path={model.path}: the package {package} is not installed; see requirements.txt")
        folder = within
    else:
        folder = Path(model.path)
    if not (folder / "config.json").is_file():
        if not folder.is_dir():
            raise ModelError(f"model.path={model.path}: no such folder; expected one written by save_pretrained")
        holds = ", ".join(sorted(p.name for p in folder.iterdir())[:10]) or "nothing"
        raise ModelError(f"model.path={model.path}: expected config.json in {folder}; found: {holds}")
    return str(folder), {"local_files_only": True}


def _revision(model: ModelConfig) -> dict[str, Any]:
    """The options of ``from_pretrained`` that name the commit of a model on the hub.

    A branch, or no revision, is resolved once, so that the weights and the tokenizer are of one commit.

    Raises:
        ModelError: the hub cannot be reached and the cache does not have it, or the hub refuses it, or gives another
            commit than the pinned one.
    """
    import huggingface_hub

    found = huggingface_hub.try_to_load_from_cache(model.path, CONFIG_NAME, revision=model.revision or None)
    cached = Path(found).parent.name if isinstance(found, str) else ""
    unreachable = why_unreachable()
    if unreachable and not cached:
        raise ModelError(
            f"model.path={model.path}: not in the hub's cache on this machine, and {unreachable}{WITHOUT_NETWORK}"
        )
    if unreachable:
        return {"revision": cached, "local_files_only": True}
    if cached and cached == model.revision:
        return {"revision": cached}
    wanted = f"model.path={model.path}" + (f" model.revision={model.revision}" if model.revision else "")
    try:
        commit = huggingface_hub.HfApi().model_info(model.path, revision=model.revision or None).sha
    except Exception as error:  # the hub's client raises its own, the HTTP library's and OS errors
        raise ModelError(f"{wanted}: cannot be loaded from the hub: {why_refused(error)}") from error
    if is_commit(model.revision) and commit != model.revision:
        raise ModelError(f"{wanted}: the hub returned commit {commit}; another commit may have other weights")
    return {"revision": commit}


def load(
    model: ModelConfig, task: TaskConfig, seed: int
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase, dict[str, Any]]:
    """Load a task's model and tokenizer: a sequence classifier or regressor, or a causal language model.

    The head of a classifier is loaded or newly initialized (``model.head``); initial weights depend only on the seed,
    so that every method starts from the same ones. A language model whose tokenizer lacks its own padding token gets
    one (:func:`add_padding`).

    Args:
        model: with ``path`` set (for ``source: mini``, to the pretrained folder).
        task: its labels become the model's.
        seed: the run's seed.

    Returns:
        The model in evaluation mode, the tokenizer, and the model's entry in the run's record.

    Raises:
        ModelError: the model cannot be loaded or does not fit the task.
    """
    place, options = locate(model)
    described: dict[str, Any] = {"dtype": getattr(torch, model.dtype)}
    if model.attention != "auto":
        described["attn_implementation"] = model.attention
    kind: Any = AutoModelForCausalLM
    if task.is_labelled:
        kind = AutoModelForSequenceClassification
        labels = task.labels or ["score"]
        described["num_labels"] = len(labels)
        described["id2label"] = dict(enumerate(labels))
        described["label2id"] = {label: i for i, label in enumerate(labels)}
        described["problem_type"] = "regression" if task.kind == "regression" else "single_label_classification"
    what = f"model {model.name} ({place})"
    try:
        tokenizer = AutoTokenizer.from_pretrained(place, **options)
        with global_stream(derive(seed, "head")):
            network, drawn = _network(kind, place, {**described, **options}, fresh_head=model.head == "fresh")
    except (OSError, ValueError, KeyError, ImportError, RuntimeError, SafetensorError) as error:
        advice = "" if model.attention in ("auto", "eager") else "; model.attention=auto lets transformers choose"
        reason = why_refused(error) if model.source == "hub" else str(error)
        raise ModelError(f"{what} cannot be loaded for task={task.name}: {reason}{advice}") from error
    if len(tokenizer) <= len(tokenizer.all_special_ids):
        # Without tokenizer files, transformers builds a tokenizer that has only special tokens.
        raise ModelError(f"{what}: no tokenizer; save it beside the weights (tokenizer.save_pretrained)")
    facts: dict[str, Any] = {"name": model.name, "source": model.source, "path": model.path}
    facts["revision"] = options.get("revision", model.revision)
    facts["attention"] = network.config._attn_implementation
    facts["drawn"] = drawn
    weights = sorted(Path(place).glob("*.safetensors")) if model.source != "hub" else []
    facts["sha256"] = {path.name: files.sha256(path) for path in weights}
    made = Path(place) / PRETRAINING
    if made.is_file():
        facts["pretraining"] = json.loads(made.read_text(encoding="utf-8"))
    if task.kind == "generation":
        refuse_encoder(network.config, model, task)
        if tokenizer.eos_token_id is None:
            raise ModelError(f"{what}: its tokenizer has no end token (eos_token), which text generation needs")
        if not _is_causal(network):
            raise ModelError(
                f"{what}: {type(network).__name__} is not a causal language model: its logits depend on later tokens"
            )
        facts["padding_added"] = tokenizer.pad_token_id in (None, tokenizer.eos_token_id)
        if facts["padding_added"]:
            add_padding(network, tokenizer)
    elif tokenizer.pad_token is None:
        raise ModelError(f"{what}: its tokenizer has no padding token (pad_token), which batches need")
    else:
        network.config.pad_token_id = tokenizer.pad_token_id  # decoder classifiers locate the last token by it
    return network.eval(), tokenizer, facts


def skeleton(model: ModelConfig, task: TaskConfig) -> PreTrainedModel | None:
    """A pretrained model's layers without values, on the meta device; None if its configuration is not on this machine.

    Raises:
        ModelError: it is an encoder, and the task generates text.
    """
    options: dict[str, Any] = {"revision": model.revision or None} if model.source == "hub" else {}
    place = model.path if model.source == "hub" else locate(model)[0]
    kind: Any = AutoModelForSequenceClassification if task.is_labelled else AutoModelForCausalLM
    try:
        shape = AutoConfig.from_pretrained(place, local_files_only=True, **options)
    except (OSError, ValueError, KeyError):
        return None
    if task.kind == "generation":
        refuse_encoder(shape, model, task)
    try:
        with torch.device("meta"):
            return kind.from_config(shape)
    except (ValueError, KeyError, ImportError, RuntimeError, NotImplementedError):
        return None  # loading it says why


def refuse_encoder(shape: PreTrainedConfig, model: ModelConfig, task: TaskConfig) -> None:
    """Refuse a model that fills masks for a task that generates text.

    Raises:
        ModelError: the message names models that generate.
    """
    decodes = any(getattr(shape, name, False) for name in ("is_decoder", "is_encoder_decoder", "causal"))
    if type(shape) in MODEL_FOR_MASKED_LM_MAPPING and not decodes:
        raise ModelError(
            f"model={model.name} with task={task.name}: the model is an encoder ({shape.model_type}), and the task "
            "generates text, which needs a causal language model; use model=gpt2 or model=mini-gpt2"
        )


def _network(kind: Any, place: str, settings: Mapping[str, Any], fresh_head: bool) -> tuple[PreTrainedModel, list[str]]:
    """Load a model.

    Args:
        kind: the ``Auto`` class.
        place: a folder, or a name on the hub.
        settings: keyword arguments of ``from_pretrained``.
        fresh_head: initialize the parameters outside the backbone even if the checkpoint has them.

    Returns:
        The model, and the names of the parameters that were initialized instead of loaded.

    Raises:
        ModelError: a saved weight's shape differs from the model's.
    """
    network, found = kind.from_pretrained(place, output_loading_info=True, ignore_mismatched_sizes=True, **settings)
    drawn = set(found["missing_keys"])
    if fresh_head:
        backbone = {id(parameter) for parameter in network.base_model.parameters()}
        head = [name for name, parameter in network.named_parameters() if id(parameter) not in backbone]
        _draw(network, head)
        drawn.update(head)
    for name, saved, wanted in sorted(found["mismatched_keys"]):
        if name not in drawn:
            raise ModelError(
                f"{name} is {tuple(saved)} in the weights and {tuple(wanted)} in the model; if it is in the head, "
                "model.head=fresh initializes one of the task's shape"
            )
    return network, sorted(drawn)


def _draw(model: PreTrainedModel, parameters: Iterable[str]) -> None:
    """Initialize parameters as transformers does for missing weights; the parameters of a module together."""
    for module_name in dict.fromkeys(name.rpartition(".")[0] for name in parameters):
        module = model.get_submodule(module_name)
        for parameter in module.parameters(recurse=False):
            parameter._is_hf_initialized = False  # type: ignore[attr-defined]  # transformers' mark of a loaded one
        model._init_weights(module)


def add_padding(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Add a padding token distinct from the end token to a language model and its tokenizer, in place.

    Its embedding is the mean of all others, so its logit is the mean of the other logits. By Jensen's inequality, its
    probability is then at most one over the vocabulary size at each position, and the perplexity changes by a factor of
    at most 1 + 1 / size.
    """
    tokenizer.add_special_tokens({"pad_token": PADDING})
    if len(tokenizer) > model.config.vocab_size:
        loaded = [_marks(layer) for layer in _embeddings(model)]
        model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
        for layer, marks in zip(_embeddings(model), loaded, strict=True):
            for name, parameter in layer.named_parameters():
                # The new layers hold the loaded weights: without the mark they would count as a head, and train.
                parameter._is_hf_initialized = marks.get(name, False)
    with torch.no_grad():
        for layer in _embeddings(model):
            weight: Any = layer.weight
            others = torch.arange(len(weight)) != tokenizer.pad_token_id
            weight[tokenizer.pad_token_id] = weight[others].double().mean(0).to(weight.dtype)
    model.config.pad_token_id = tokenizer.pad_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id


def _embeddings(model: PreTrainedModel) -> tuple[Any, Any]:
    return model.get_input_embeddings(), model.get_output_embeddings()


def _marks(layer: nn.Module) -> dict[str, bool]:
    """Whether transformers has loaded each parameter of a layer from a checkpoint, by name."""
    return {name: getattr(parameter, "_is_hf_initialized", False) for name, parameter in layer.named_parameters()}


def _is_causal(model: PreTrainedModel) -> bool:
    """Whether logits are independent of later tokens. Encoders, whose are not, load without a warning."""
    model.eval()
    with torch.no_grad():
        first, second = model(torch.tensor([[0, 1], [0, 2]])).logits[:, 0]
    return torch.allclose(first, second, atol=1e-5)


def length_limit(requested: int, model: PreTrainedModel) -> int:
    """``train.max_length``, or the model's own limit if that is lower.

    In RoBERTa and its relatives positions start after their padding index, which leaves the embeddings up to it unused.
    """
    positions = getattr(model.config, "max_position_embeddings", requested)
    embeddings = (module for name, module in model.named_modules() if name.endswith("position_embeddings"))
    unused = max(
        (one.padding_idx + 1 for one in embeddings if getattr(one, "padding_idx", None) is not None), default=0
    )
    return min(requested, positions - unused)
