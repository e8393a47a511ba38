"""The configuration of the ``model`` group, and its checks."""

from __future__ import annotations

from dataclasses import dataclass, field

from rosa.config.checks import choice, positive, require

ATTENTION_KINDS = ("auto", "eager", "sdpa", "flash_attention_2", "flex_attention")


@dataclass
class MiniModelConfig:
    """Shape and pretraining of the small model that the project makes itself (used by ``source: mini``)."""

    layers: int = 4
    hidden: int = 128
    heads: int = 4
    intermediate: int = 512
    sentences: int = 20000
    """Sentences of generated text to pretrain on."""
    steps: int = 1500
    batch_size: int = 64
    lr: float = 1e-3
    seed: int = 0
    architecture: str = "roberta"
    """``roberta``, for the GLUE tasks, or ``gpt2``, for E2E."""
    vocabulary: int = 2000
    """Tokens at most, the 256 bytes and the two special ones among them (gpt2; roberta knows the grammar's words)."""
    context: int = 256
    """Tokens of an input at most (gpt2)."""
    text: str = ""
    """A file to pretrain on in place of generated text (gpt2): the references of an E2E CSV, or a line a paragraph."""

    def __post_init__(self) -> None:
        numbers = ("layers", "hidden", "heads", "intermediate", "sentences", "steps", "batch_size", "lr", "context")
        for key in numbers:
            positive(f"model.mini.{key}", getattr(self, key))
        require(self.hidden % self.heads == 0, "model.mini.hidden", self.hidden, f"a multiple of heads={self.heads}")
        choice("model.mini.architecture", self.architecture, ("roberta", "gpt2"))
        require(self.vocabulary >= 258, "model.mini.vocabulary", self.vocabulary, "at least 258: each byte is a token")
        if self.architecture == "roberta":
            require(not self.text, "model.mini.text", self.text, "a text of one's own for architecture=gpt2 alone")


@dataclass
class PerceptronConfig:
    """Shape of the linear map or multilayer perceptron of a regression (used by ``source: perceptron``)."""

    widths: list[int] = field(default_factory=list)
    """Of the input, of each hidden layer, and of the output: two widths are a linear map."""
    seed: int = 0
    """Of the weights before fine-tuning: the same for every run seed, as a pretrained model's are."""

    def __post_init__(self) -> None:
        for width in self.widths:
            positive("model.perceptron.widths", width)


@dataclass
class ModelConfig:
    """Which backbone, and where its weights come from."""

    name: str = ""
    source: str = "hub"
    """``hub``, ``folder`` (as ``save_pretrained`` writes), ``package`` (an installed package's folder), ``mini`` or
    ``perceptron`` (drawn on the spot)."""
    path: str = ""
    """Hub name, folder, or ``package/folder``; empty for ``mini`` and ``perceptron``."""
    revision: str = ""
    """Commit of the hub's repository; empty elsewhere."""
    dtype: str = "float32"
    """Of the frozen weights: ``float32`` or ``bfloat16``; trainable parameters are float32 always."""
    attention: str = "auto"
    """How attention is computed: ``auto`` is transformers' choice for the architecture, which is ``sdpa`` where it has
    that; or ``eager``, ``sdpa``, ``flash_attention_2``, ``flex_attention``."""
    head: str = "saved"
    """``saved``: the classifier's head is what the weights hold, and drawn where they hold none; ``fresh``: drawn."""
    mini: MiniModelConfig = field(default_factory=MiniModelConfig)
    perceptron: PerceptronConfig = field(default_factory=PerceptronConfig)

    def __post_init__(self) -> None:
        choice("model.source", self.source, ("hub", "folder", "package", "mini", "perceptron"))
        choice("model.dtype", self.dtype, ("float32", "bfloat16"))
        choice("model.attention", self.attention, ATTENTION_KINDS)
        choice("model.head", self.head, ("saved", "fresh"))
        if self.source == "perceptron":
            widths = self.perceptron.widths
            require(len(widths) >= 2, "model.perceptron.widths", widths, "at least two: of the input and of the output")
            for key, only in (("dtype", "float32"), ("attention", "auto"), ("head", "saved")):
                choice(f"model.{key}", getattr(self, key), (only,))
        elif self.source != "mini":
            require(bool(self.path), "model.path", self.path, f"a path for model.source={self.source}")
        require(bool(self.name), "model.name", self.name, "a short name, used in tables and folders")
