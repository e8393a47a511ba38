"""Configuration of the ``method`` group; also the Python API's options: ``rosa.attach(model, rosa.RosaConfig())``."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

from rosa.config.checks import choice, patterns, plain, positive, require, typed
from rosa.errors import ConfigError

RANKS = "a whole number of at least 1, or a share of min(out, in) between 0 and 1"


def _rank(key: str, value: object) -> None:
    require(isinstance(value, (int, float)) and not isinstance(value, bool), key, value, RANKS)
    whole = isinstance(value, int) and value >= 1
    share = isinstance(value, float) and 0 < value < 1
    require(whole or share, key, value, RANKS)


SPLITS = ("one_sided", "symmetric")
SOLVERS = ("auto", "gram", "svd")
SAMPLINGS = ("random", "top", "bottom", "window")
"""Values of ROSA's ``split``, ``solver`` and ``sampling``."""

ATTENTION = ("*attention*", "*attn*")
"""Default targets: the linear layers inside attention modules, as most Hugging Face architectures name them."""


@dataclass
class MethodConfig:
    """Options of every method."""

    name: str = ""
    head: Any = "train"
    """``train`` (standard practice), ``freeze`` (as in the authors' released code), or a list of shell patterns of the
    modules and parameters to train. With ``train`` or a list, weights that the loader initialised train too."""

    NAME: ClassVar[str] = ""

    @property
    def keeps_function(self) -> bool:
        """Whether a model computes the same before and after the method is attached."""
        return True

    def check_length(self, updates: int, an_epoch: int | None) -> None:
        """Refuse options that need more updates than a training has.

        Args:
            updates: optimizer updates of the training, or an upper bound.
            an_epoch: those of one epoch, or an upper bound; None if not known.

        Raises:
            ConfigError: the message names the option and the updates.
        """

    def unreached(self, updates: int, an_epoch: int) -> list[str]:
        """Warnings of options that have no effect in a training of so many updates; arguments as above."""
        return []

    def __post_init__(self) -> None:
        self.name = self.name or self.NAME
        typed(self, "method")
        require(self.name == self.NAME, "method.name", self.name, f"{self.NAME!r} for {type(self).__name__}")
        if isinstance(self.head, tuple):
            self.head = list(self.head)
        if isinstance(self.head, list):
            named = bool(self.head) and all(isinstance(name, str) and name for name in self.head)
            require(named, "method.head", self.head, "train, freeze, or a list of at least one name")
        else:
            known = isinstance(self.head, str) and self.head in ("train", "freeze")
            require(known, "method.head", self.head, "train, freeze, or a list of at least one name")


@dataclass
class TargetedConfig(MethodConfig):
    """Options of a method that adapts the layers whose names match a pattern."""

    targets: list[str] = field(default_factory=lambda: list(ATTENTION))
    """Shell patterns (``*``, ``?``), matched case-insensitively against a module's dotted name and each of its dotted
    suffixes."""

    def __post_init__(self) -> None:
        super().__post_init__()
        several = isinstance(self.targets, (list, tuple)) and all(isinstance(t, str) and t for t in self.targets)
        require(several and bool(self.targets), "method.targets", self.targets, "a list of at least one pattern")


@dataclass
class RankedConfig(TargetedConfig):
    """Options of a method whose adapters have a rank."""

    rank: Any = 8
    """Rank R of each adapter: an int, or a float in (0, 1), a share of min(out, in)."""
    rank_pattern: dict[str, Any] = field(default_factory=dict)
    """Pattern (as in ``targets``) -> rank of the layers that match it; if several match, the last one applies."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.rank = plain(self.rank)
        _rank("method.rank", self.rank)
        patterns("method.rank_pattern", self.rank_pattern)
        self.rank_pattern = {pattern: plain(rank) for pattern, rank in self.rank_pattern.items()}
        for pattern, rank in self.rank_pattern.items():
            _rank(f"method.rank_pattern.{pattern}", rank)


@dataclass
class RosaConfig(RankedConfig):
    """ROSA: train each weight in a random subspace of its singular vectors, and resample the subspace periodically.

    Source: arXiv 2407.07802, section 3 and algorithm 1; ``factorization`` covers the ablations of its section 5. PiSSA
    (arXiv 2404.02948) is ``sampling=top split=symmetric every=0``; merge-and-restart LoRA (ReLoRA, arXiv 2307.05695)
    is ``factorization=random_add``.
    """

    factorization: str = "svd_equal"
    """How a weight W is factorized into W_f + A B. ``svd_equal``: A B is the sum of the sampled singular triplets, and
    W_f = W - A B. ``svd_add``: the same A B with W_f = W, which changes the model's function. ``random_add``: A = 0,
    B random, W_f = W. ``random_orthogonal``: B is a random orthonormal basis of a subspace of the input space,
    A = W B^T, and W_f = W - A B."""
    split: str = "one_sided"
    """Where the singular values S go (svd factorizations): ``one_sided``, A = U S and B = V^T; ``symmetric``,
    A = U S^(1/2) and B = S^(1/2) V^T."""
    solver: str = "auto"
    """How singular vectors are computed (svd factorizations): ``gram``, as eigenvectors of the smaller Gram matrix;
    ``svd``, by a full SVD; or ``auto``."""
    every: int = 2
    """Resampling period in ``unit``; 0 never resamples (SVD initialisation only)."""
    unit: str = "epoch"
    """Unit of ``every``: ``epoch`` or ``step`` (optimizer update)."""
    sampling: str = "random"
    """Which singular triplets are chosen: a ``random`` subset without replacement, the ``top`` or ``bottom`` ones, or a
    random contiguous block (``window``)."""
    train: str = "ab"
    """Which of A and B are trained: ``ab``, ``a`` or ``b``."""
    optimizer_state: str = "reset"
    """What resampling does to the optimizer state of A and B: ``reset``, ``keep``, or ``prune``, which zeroes every
    moment at the entries with the largest 90 % of first moments."""
    rewarm_steps: int = 0
    """Updates after a resample in which the learning rate of A and B rises linearly to that of the schedule."""

    NAME: ClassVar[str] = "rosa"

    def __post_init__(self) -> None:
        super().__post_init__()
        choice("method.factorization", self.factorization, ("svd_equal", "svd_add", "random_add", "random_orthogonal"))
        choice("method.split", self.split, SPLITS)
        choice("method.solver", self.solver, SOLVERS)
        require(self.every >= 0, "method.every", self.every, "a whole number of at least 0")
        choice("method.unit", self.unit, ("epoch", "step"))
        choice("method.sampling", self.sampling, SAMPLINGS)
        choice("method.train", self.train, ("ab", "a", "b"))
        choice("method.optimizer_state", self.optimizer_state, ("reset", "keep", "prune"))
        require(self.rewarm_steps >= 0, "method.rewarm_steps", self.rewarm_steps, "a whole number of at least 0")
        self._check_together()

    @property
    def has_triplets(self) -> bool:
        """Whether A B consists of singular triplets of the weight."""
        return self.factorization.startswith("svd")

    @property
    def keeps_function(self) -> bool:
        """All factorizations but ``svd_add``, which adds the drawn triplets to the weights."""
        return self.factorization != "svd_add"

    def check_length(self, updates: int, an_epoch: int | None) -> None:
        """Refuse a ramp of the learning rate that the next resample cuts off; arguments as of the base class."""
        if self.rewarm_steps and self.unit == "epoch" and an_epoch is not None:
            period = self.every * an_epoch
            expected = f"fewer updates than the {period} between two resamples"
            require(self.rewarm_steps < period, "method.rewarm_steps", self.rewarm_steps, expected)

    def unreached(self, updates: int, an_epoch: int) -> list[str]:
        """A warning of a first resample that comes after the training; arguments as of the base class."""
        period = self.every * (an_epoch if self.unit == "epoch" else 1)
        if not self.every or period < updates:
            return []
        return [
            f"method.every={self.every} with method.unit={self.unit}: the training has {updates} updates and the first "
            f"resample would come after {period}, so the subspace stays the first one, as with method.every=0"
        ]

    def _check_together(self) -> None:
        if not self.has_triplets:
            for name, default in (("sampling", "random"), ("split", "one_sided"), ("solver", "auto")):
                expected = f"{default!r}, since method.factorization={self.factorization} uses no singular triplets"
                require(getattr(self, name) == default, f"method.{name}", getattr(self, name), expected)
        if self.rewarm_steps:
            require(self.every > 0, "method.rewarm_steps", self.rewarm_steps, "0, since method.every=0 never resamples")
            fits = self.unit == "epoch" or self.rewarm_steps < self.every
            require(fits, "method.rewarm_steps", self.rewarm_steps, f"fewer than method.every={self.every} steps")


@dataclass
class LoraConfig(RankedConfig):
    """LoRA (arXiv 2106.09685) through ``loralib``: W stays frozen, and (alpha / rank) B A is added to it."""

    alpha: float = 16.0
    """The update is scaled by alpha / rank."""
    dropout: float = 0.0
    """Dropout probability of the adapter's input, in [0, 1)."""

    NAME: ClassVar[str] = "lora"

    def __post_init__(self) -> None:
        super().__post_init__()
        positive("method.alpha", self.alpha)
        require(0 <= self.dropout < 1, "method.dropout", self.dropout, "a number in [0, 1)")


@dataclass
class RobustConfig(RankedConfig):
    """RoSA, robust adaptation (arXiv 2401.04679): a low-rank and a sparse update of each weight, trained together.

    Not ROSA, random subspace adaptation, which is ``RosaConfig``.
    """

    alpha: float = 16.0
    """The low-rank update is scaled by alpha / rank; the sparse one is not scaled."""
    dropout: float = 0.0
    """Dropout on the low-rank part's input, in [0, 1)."""
    density: float = 0.006
    """Share of a weight's entries that the sparse part trains, in (0, 1): ``int(density * entries)`` a layer."""
    density_pattern: dict[str, float] = field(default_factory=dict)
    """Pattern (as in ``targets``) -> density of the layers that match it; if several match, the last one applies."""
    lr_sparse: float = 2 / 7
    """The sparse values' learning rate over ``train.lr``. The authors train them at 2e-4 beside 7e-4."""
    schedule: str = "joint"
    """``joint``: both parts from the start, the support from a first pass; ``warmup``: the low-rank part alone for
    ``warmup_steps``, then the support is chosen, then both; ``sparse_only``: the paper's SpA; ``low_rank_only``:
    LoRA."""
    warmup_steps: int = 64
    """For ``schedule=warmup``: updates before the support is chosen."""
    restart: bool = False
    """For ``schedule=warmup``: start over with the support that was chosen, as the authors recommend."""
    score: str = "gradient_squared"
    """The support is where the score of the whole weight's gradient is largest: ``gradient_squared``, the mean of its
    square, or ``gradient_magnitude``, that of its absolute value, over the collected updates."""
    collect_steps: int = 1
    """Updates whose gradients are scored."""
    support: str = ""
    """A file with the support (``support.safetensors`` of another run); empty to choose it."""

    NAME: ClassVar[str] = "robust"

    def __post_init__(self) -> None:
        super().__post_init__()
        positive("method.alpha", self.alpha)
        require(0 <= self.dropout < 1, "method.dropout", self.dropout, "a number in [0, 1)")
        _density("method.density", self.density)
        patterns("method.density_pattern", self.density_pattern)
        self.density_pattern = {pattern: plain(density) for pattern, density in self.density_pattern.items()}
        for pattern, density in self.density_pattern.items():
            _density(f"method.density_pattern.{pattern}", density)
        positive("method.lr_sparse", self.lr_sparse)
        choice("method.schedule", self.schedule, ("joint", "warmup", "sparse_only", "low_rank_only"))
        choice("method.score", self.score, ("gradient_squared", "gradient_magnitude"))
        for key, least in (("warmup_steps", 1), ("collect_steps", 1)):
            value = getattr(self, key)
            require(value >= least, f"method.{key}", value, f"a whole number of at least {least}")
        if self.schedule != "warmup":
            require(not self.restart, "method.restart", self.restart, "false: only schedule=warmup starts over")
        if self.schedule in ("warmup", "low_rank_only"):
            expected = f"none: method.schedule={self.schedule} " + (
                "chooses one" if self.sparse else "has no sparse part"
            )
            require(not self.support, "method.support", self.support, expected)

    @property
    def low_rank(self) -> bool:
        """Whether there is a low-rank part."""
        return self.schedule != "sparse_only"

    @property
    def sparse(self) -> bool:
        """Whether there is a sparse part."""
        return self.schedule != "low_rank_only"

    @property
    def chooses(self) -> bool:
        """Whether the support is chosen during training."""
        return self.sparse and not self.support

    @property
    def updates_to_choose(self) -> int:
        """Updates until the support is chosen, where it is."""
        return self.collect_steps + (self.warmup_steps if self.schedule == "warmup" else 0)

    def check_length(self, updates: int, an_epoch: int | None) -> None:
        """Refuse a training that is over before the support is chosen; arguments as of the base class."""
        if self.chooses:
            self.check_choice(updates)

    def check_choice(self, updates: int, prefix: str = "method.") -> None:
        """Refuse a choice of the support that takes as many updates as the training has.

        Args:
            updates: of the training.
            prefix: of the options in the message.

        Raises:
            ConfigError: the message names the options and the updates.
        """
        keys, together = f"{prefix}collect_steps={self.collect_steps}", ""
        if self.schedule == "warmup":
            keys, together = f"{prefix}warmup_steps={self.warmup_steps} and {keys}", "together "
        if self.updates_to_choose >= updates:
            raise ConfigError(f"{keys}: expected {together}fewer updates than the training's {updates}")


def _density(key: str, value: object) -> None:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    require(number and 0 < float(str(value)) < 1, key, value, "a share of the weight's entries, between 0 and 1")


@dataclass
class IA3Config(MethodConfig):
    """(IA)3 (arXiv 2205.05638): learned vectors, initialised to 1, that scale activations."""

    variant: str = "paper"
    """``paper``: scale keys, values and the feed-forward's inner activations; ``attention_inputs``: scale the inputs of
    all linear layers of attention, as in the ROSA authors' released code."""

    NAME: ClassVar[str] = "ia3"

    def __post_init__(self) -> None:
        super().__post_init__()
        choice("method.variant", self.variant, ("paper", "attention_inputs"))


@dataclass
class FullConfig(MethodConfig):
    """Full fine-tuning: every parameter trains."""

    NAME: ClassVar[str] = "full"

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.head == "train", "method.head", self.head, "'train', since full fine-tuning trains everything")
