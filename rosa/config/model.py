"""Configuration of the ``model`` group."""

from __future__ import annotations

from dataclasses import dataclass, field

from rosa.config.checks import choice, hub_name, positive, require, whole_positive

CORPORA = ("restaurants", "answers")
"""The generated texts for a small GPT-2 (:data:`rosa.mini.text.CORPORA`)."""
ATTENTION_KINDS = ("auto", "eager", "sdpa", "flash_attention_2", "flex_attention")


@dataclass
class MiniModelConfig:
    """Shape and pretraining of the small models that the project pretrains itself (``source: mini``)."""

    layers: int = 4
    hidden: int = 128
    heads: int = 4
    intermediate: int = 512
    sentences: int = 20000
    """Sentences of generated text for pretraining."""
    steps: int = 1500
    batch_size: int = 64
    lr: float = 1e-3
    seed: int = 0
    architecture: str = "roberta"
    """``roberta`` for GLUE, ``gpt2`` for E2E."""
    vocabulary: int = 2000
    """Maximum vocabulary size, including the 256 bytes and two special tokens (gpt2 only; roberta's vocabulary is the
    grammar's words)."""
    context: int = 256
    """Maximum length of an input in tokens (gpt2)."""
    corpus: str = "restaurants"
    """Generated text to pretrain on (gpt2): ``restaurants`` for E2E, ``answers`` for tasks with one right answer."""
    text: str = ""
    """File to pretrain on instead of generated text (gpt2): an E2E CSV, whose references are used, or plain text with a
    paragraph per line."""
    glue: str = ""
    """GLUE's download, whose training sentences, without labels, are added to ``text``'s paragraphs."""

    def __post_init__(self) -> None:
        numbers = ("layers", "hidden", "heads", "intermediate", "sentences", "steps", "batch_size", "context")
        for key in numbers:
            whole_positive(f"model.mini.{key}", getattr(self, key))
        positive("model.mini.lr", self.lr)
        require(self.hidden % self.heads == 0, "model.mini.hidden", self.hidden, f"a multiple of heads={self.heads}")
        choice("model.mini.architecture", self.architecture, ("roberta", "gpt2"))
        choice("model.mini.corpus", self.corpus, CORPORA)
        bytes_and_special = "at least 258: 256 bytes and two special tokens"
        require(self.vocabulary >= 258, "model.mini.vocabulary", self.vocabulary, bytes_and_special)
        if self.architecture == "roberta":
            require(not self.text, "model.mini.text", self.text, "no file with model.mini.architecture=roberta")
        require(bool(self.text) or not self.glue, "model.mini.glue", self.glue, "none without model.mini.text")
        if self.architecture == "roberta" or self.text:
            why = "with model.mini.text" if self.text else "with model.mini.architecture=roberta"
            require(self.corpus == CORPORA[0], "model.mini.corpus", self.corpus, f"{CORPORA[0]}, the default, {why}")


@dataclass
class PerceptronConfig:
    """Shape of the linear map or multilayer perceptron for vector regression (``source: perceptron``)."""

    widths: list[int] = field(default_factory=list)
    """Widths of the input, each hidden layer and the output; two widths make a linear map."""
    seed: int = 0
    """Seed of the weights before fine-tuning, which are the same for every run seed, as pretrained weights are."""

    def __post_init__(self) -> None:
        for width in self.widths:
            whole_positive("model.perceptron.widths", width)


@dataclass
class ModelConfig:
    """The pretrained model and the source of its weights."""

    name: str = ""
    """Short name for tables and folders."""
    source: str = "hub"
    """``hub``, ``folder`` (written by ``save_pretrained``), ``package`` (folder of an installed package), ``mini``
    (pretrained by the project) or ``perceptron`` (random weights)."""
    path: str = ""
    """Hub name, folder, or ``package/folder``; empty for ``mini`` and ``perceptron``."""
    revision: str = ""
    """Commit on the hub; empty for other sources."""
    dtype: str = "float32"
    """Type of the frozen weights: ``float32`` or ``bfloat16``. Trainable parameters are always float32."""
    attention: str = "auto"
    """Attention implementation: ``auto`` (``eager`` in bf16 on a CPU, where it is faster; else transformers' default,
    ``sdpa`` if the architecture supports it), ``eager``, ``sdpa``, ``flash_attention_2`` or ``flex_attention``."""
    head: str = "saved"
    """``saved``: keep the classifier's head of the pretrained weights, if they have one; ``fresh``: always
    initialise a new head."""
    mini: MiniModelConfig = field(default_factory=MiniModelConfig)
    perceptron: PerceptronConfig = field(default_factory=PerceptronConfig)

    def __post_init__(self) -> None:
        choice("model.source", self.source, ("hub", "folder", "package", "mini", "perceptron"))
        choice("model.dtype", self.dtype, ("float32", "bfloat16"))
        choice("model.attention", self.attention, ATTENTION_KINDS)
        choice("model.head", self.head, ("saved", "fresh"))
        if self.source == "perceptron":
            widths = self.perceptron.widths
            require(len(widths) >= 2, "model.perceptron.widths", widths, "at least two widths, for input and output")
            for key, only in (("dtype", "float32"), ("attention", "auto"), ("head", "saved")):
                choice(f"model.{key}", getattr(self, key), (only,))
        elif self.source != "mini":
            require(bool(self.path), "model.path", self.path, f"a path, which model.source={self.source} needs")
            if self.source == "hub":
                hub_name("model.path", self.path, "for a folder on this machine use model=folder model.path=DIR")
        require(bool(self.name), "model.name", self.name, "a short name for tables and folders")
