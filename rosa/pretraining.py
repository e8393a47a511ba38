"""Makes the small RoBERTa of the mini scale: a word tokenizer and a masked-language model trained on given text.

It stands in for a downloaded backbone: adapters are about fine-tuning a pretrained model, so there has to be one, also
where no hub can be reached. The text comes in as paragraphs; this module knows nothing of where they are from.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional

from rosa.config import MiniModelConfig

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast, RobertaForMaskedLM

SPECIAL_TOKENS = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")
"""In RoBERTa's order; a token's place is its number."""
START, PAD, END, UNKNOWN, MASK = range(len(SPECIAL_TOKENS))
MAX_LENGTH = 64
"""Tokens of an input at most."""

MASKED_SHARE = 0.3
"""Tokens to predict; of these 80 % are hidden, 10 % replaced and 10 % left (BERT, arXiv 1810.04805, section 3.1)."""
HIGHEST_RATE = 0.35
"""No word is hidden more often than this."""
JUDGED_SHARE = 0.4
"""Inputs that are shown without hidden words, for the model to judge word by word; the others have hidden words."""
JUDGE_WEIGHT = 5.0
"""Of the judgement's loss, a mean over tokens, beside that of the hidden words."""
DISTURBED_SHARE = 0.6
"""Judged inputs in which something is disturbed."""
EXCHANGED_SHARE = 0.3
"""Disturbed inputs in which two words change places; in the others some words make room for others."""
PAIR_SHARE = 0.8
"""Paragraphs that are read as a pair of texts; the sentences of the others are read one by one."""
EMBEDDING_SCALE = 5.0
"""The embeddings' spread at the start, in those of the other weights."""
WARMUP_SHARE = 0.1
WEIGHT_DECAY = 0.01
MAX_GRAD_NORM = 1.0
SORTED_BATCHES = 32
"""Batches that are sorted by length together, so that little of a batch is padding."""
IGNORED = -100
"""The label of a token that is not to be predicted, as PyTorch's cross entropy has it."""

VERSION = 2
"""Part of the cache's key: raise it when a change here gives other weights."""
FACTS = "pretraining.json"


def build_tokenizer(vocabulary: Sequence[str]) -> PreTrainedTokenizerFast:
    """A tokenizer of whole words in lower case, with RoBERTa's special tokens and pair format.

    One text becomes ``<s> A </s>``, two become ``<s> A </s></s> B </s>``, and the token types tell them apart.
    Words that are not in the vocabulary become ``<unk>``.

    Raises:
        ValueError: a word twice in the vocabulary, or one that is a special token.
    """
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    tokens = [*SPECIAL_TOKENS, *vocabulary]
    numbers = {token: number for number, token in enumerate(tokens)}
    if len(numbers) < len(tokens):
        twice = sorted({token for token in tokens if tokens.count(token) > 1})
        raise ValueError(f"vocabulary: expected every word once and no special token, found again: {', '.join(twice)}")
    start, _, end, unknown, mask = SPECIAL_TOKENS
    tokenizer = Tokenizer(models.WordLevel(numbers, unk_token=unknown))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{start} $A {end}",
        pair=f"{start} $A {end} {end} $B:1 {end}:1",
        special_tokens=[(start, START), (end, END)],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=start,
        cls_token=start,
        pad_token=SPECIAL_TOKENS[PAD],
        eos_token=end,
        sep_token=end,
        unk_token=unknown,
        mask_token=mask,
        model_max_length=MAX_LENGTH,
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    )


def build_model(mini: MiniModelConfig, vocabulary_size: int) -> RobertaForMaskedLM:
    """A RoBERTa of the configured shape with random weights drawn from ``mini.seed``; PyTorch's own state stays."""
    from transformers import RobertaConfig, RobertaForMaskedLM

    shape = RobertaConfig(
        vocab_size=vocabulary_size,
        hidden_size=mini.hidden,
        num_hidden_layers=mini.layers,
        num_attention_heads=mini.heads,
        intermediate_size=mini.intermediate,
        # RoBERTa numbers positions from the padding token's number plus one.
        max_position_embeddings=MAX_LENGTH + PAD + 1,
        type_vocab_size=2,
        bos_token_id=START,
        pad_token_id=PAD,
        eos_token_id=END,
        # A model this small and trained for so few steps does not overfit; dropout would only slow it.
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        classifier_dropout=0.1,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(mini.seed)
        model = RobertaForMaskedLM(shape)
        with torch.no_grad():
            compare_texts(model)
        return model


def compare_texts(model: RobertaForMaskedLM) -> None:
    """Let half of the first layer's heads start as comparisons: a word looks for itself in the other text.

    A word that finds itself there is cancelled, one that does not is left over. A product of query and key weights near
    the identity, and one of value and output weights near its negative, are what pretrained vision transformers have
    and small ones gain by starting with (mimetic initialization, Trockman and Kolter, arXiv 2305.09828, abstract). Here
    they look across the two texts; found from random weights, that would take more steps than this model is trained
    for.
    """
    embeddings = model.roberta.embeddings
    layer: Any = model.roberta.encoder.layer[0].attention  # transformers leaves the attributes of its modules untyped
    width, half = model.config.hidden_size, model.config.hidden_size // 2
    # Small embeddings would forget what they start as within a few steps.
    embeddings.word_embeddings.weight.mul_(EMBEDDING_SCALE)
    text = torch.randn(width)
    # As large as a word's embedding, and opposite in the two texts; a place says less than a word.
    spread = model.config.initializer_range * EMBEDDING_SCALE
    embeddings.token_type_embeddings.weight.copy_(torch.stack((text, -text)) * spread)
    embeddings.position_embeddings.weight.mul_(0.5 * EMBEDDING_SCALE)
    direction = text / text.norm()
    seeking = torch.randn(half, width) * (2 / width) ** 0.5
    layer.self.query.weight[:half] = seeking
    # The mirror turns one text into the other, so that a word attends across and not to itself.
    layer.self.key.weight[:half] = seeking - 2 * torch.outer(seeking @ direction, direction)
    told = torch.linalg.qr(torch.randn(width, half)).Q
    layer.self.value.weight[:half] = told.T
    layer.output.dense.weight[:, :half] = -told


def token_types(batch: torch.Tensor) -> torch.Tensor:
    """The type of each token of a batch (rows, length), as the tokenizer gives it: 1 in the second text, or 0."""
    ends = (batch == END).cumsum(1)
    # Two ends stand between the texts, and belong to the first one.
    return ((ends - (batch == END).long() >= 2) & (batch != PAD)).long()


def inputs(
    paragraphs: Sequence[Sequence[str]], tokenizer: PreTrainedTokenizerFast, generator: torch.Generator
) -> list[list[int]]:
    """Token numbers: of a paragraph cut into a pair of texts (with ``PAIR_SHARE``), or of each of its sentences."""
    alone: list[str] = []
    pairs: list[tuple[str, str]] = []
    for sentences in paragraphs:
        if len(sentences) > 1 and torch.rand((), generator=generator) < PAIR_SHARE:
            cut = int(torch.randint(1, len(sentences), (), generator=generator))
            pairs.append((" ".join(sentences[:cut]), " ".join(sentences[cut:])))
        else:
            alone += sentences
    encoded: list[list[int]] = []
    for texts in (alone, pairs):
        if texts:
            encoded += tokenizer(texts, truncation=True, max_length=MAX_LENGTH)["input_ids"]
    return encoded


def batches(encoded: Sequence[list[int]], size: int, generator: torch.Generator) -> Iterator[torch.Tensor]:
    """Endless batches (size, longest of the batch) in random order, each of inputs of about one length."""
    while True:
        order = torch.randperm(len(encoded), generator=generator).tolist()
        for start in range(0, len(order), size * SORTED_BATCHES):
            chunk = sorted(order[start : start + size * SORTED_BATCHES], key=lambda i: len(encoded[i]))
            groups = [chunk[i : i + size] for i in range(0, len(chunk), size)]
            for i in torch.randperm(len(groups), generator=generator).tolist():
                rows = [torch.tensor(encoded[j]) for j in groups[i]]
                yield torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=PAD)


def masking_rates(encoded: Sequence[list[int]], vocabulary_size: int) -> torch.Tensor:
    """The probability of each token (vocabulary_size,) to be hidden: ``MASKED_SHARE`` of the text as a whole.

    Rates fall with the square root of a word's frequency. Drawn evenly, half of the hidden tokens would be determiners
    and full stops, and a model this small spends its whole training on these before it looks at who did what.
    """
    counts = torch.bincount(torch.cat([torch.tensor(row) for row in encoded]), minlength=vocabulary_size).double()
    counts[: len(SPECIAL_TOKENS)] = 0
    rates = torch.where(counts > 0, counts.clamp(min=1).rsqrt(), 0.0)
    rates *= MASKED_SHARE * counts.sum() / (rates * counts).sum()
    return rates.clamp(max=HIGHEST_RATE).float()


def mask_tokens(
    batch: torch.Tensor, rates: torch.Tensor, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Inputs with some tokens hidden, and the labels: the hidden tokens' numbers, ``IGNORED`` elsewhere."""
    chosen = torch.rand(batch.shape, generator=generator) < rates[batch]
    labels = torch.where(chosen, batch, IGNORED)
    fate = torch.rand(batch.shape, generator=generator)
    random_words = torch.randint(len(SPECIAL_TOKENS), len(rates), batch.shape, generator=generator)
    hidden = torch.where(chosen & (fate < 0.8), MASK, batch)
    hidden = torch.where(chosen & (fate >= 0.9), random_words, hidden)
    return hidden, labels


class Substitutes:
    """The words that a text has between the same two neighbours: what could stand in a word's place.

    They make plausible corruptions for replaced token detection, as ELECTRA's generator network does (arXiv 2003.10555,
    abstract), and cost no second network.
    """

    def __init__(self, encoded: Sequence[list[int]], vocabulary_size: int) -> None:
        self._size = vocabulary_size
        text = torch.tensor([number for row in encoded for number in row])
        # Where one input ends and the next one starts there are special tokens only, which nobody asks for.
        around = self._key(text[:-2], text[2:])
        order = around.argsort(stable=True)
        self._around, self._words = around[order], text[1:-1][order]

    def _key(self, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        return left * self._size + right

    def draw(self, left: torch.Tensor, right: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """A word (n,) for each pair of neighbours (n,), as often as the text has it there."""
        key = self._key(left, right)
        first, behind = torch.searchsorted(self._around, key), torch.searchsorted(self._around, key, right=True)
        return self._words[first + (torch.rand(len(key), generator=generator) * (behind - first)).long()]


def disturb(
    batch: torch.Tensor, rates: torch.Tensor, substitutes: Substitutes, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Inputs of which some are disturbed, and (rows, length) which of their words are not those that were written.

    Two words change places, or some make room for others that the text has between the same neighbours: from a single
    one to all, as a great difference is what the model learns to see first. Words that change places are drawn by their
    masking rates, so mostly among those that say who did what. In a pair it is the second text that is disturbed, so
    that the first one tells what it should say.
    """
    ends = (batch == END).cumsum(1)
    weights = rates[batch] * ((ends == 2) | (ends.amax(1, keepdim=True) < 2))
    places = torch.multinomial(weights + torch.finfo(rates.dtype).tiny, 2, generator=generator)
    exchanged = torch.where(
        (weights.gather(1, places) > 0).all(1, keepdim=True),
        batch.scatter(1, places, batch.gather(1, places).flip(1)),
        batch,
    )
    share = torch.rand((len(batch), 1), generator=generator)
    row, place = ((torch.rand(batch.shape, generator=generator) < share) & (weights > 0)).nonzero(as_tuple=True)
    replaced = batch.clone()
    replaced[row, place] = substitutes.draw(batch[row, place - 1], batch[row, place + 1], generator)
    fate = torch.rand((len(batch), 1), generator=generator)
    disturbed = torch.where(fate < DISTURBED_SHARE, replaced, batch)
    disturbed = torch.where(fate < DISTURBED_SHARE * EXCHANGED_SHARE, exchanged, disturbed)
    return disturbed, disturbed != batch


def learning_rate_factor(step: int, steps: int) -> float:
    """Linear rise over the warm-up, then half a cosine down to 0."""
    warmup = max(1, round(WARMUP_SHARE * steps))
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))


def pretrain_roberta(
    paragraphs: Sequence[Sequence[str]],
    vocabulary: Sequence[str],
    mini: MiniModelConfig,
    folder: Path,
    device: str = "cpu",
) -> dict[str, float]:
    """Train a RoBERTa by masked language modelling, and save it with its tokenizer as a folder.

    Beside the hidden words, the model learns to tell the words that were exchanged or replaced from those that were
    written: a model this small is slow to learn from hidden words alone who did what, and whether a second text says so
    too. The layer that judges this is thrown away.

    The folder appears whole or not at all. It is what ``AutoModel*.from_pretrained`` and
    ``AutoTokenizer.from_pretrained`` read. The same arguments give the same weights on the same machine.

    Args:
        paragraphs: each a list of sentences, which are sometimes seen together.
        vocabulary: words, in lower case, that become tokens.
        mini: shape and training of the model.
        folder: where to save; must not exist.
        device: where to train.

    Returns:
        The facts that are also saved beside the model: ``parameters``, ``steps``, ``loss`` (mean masked-token cross
        entropy, in nats, of the last tenth of the steps), ``right`` (the share of judged inputs that were judged
        rightly, likewise) and ``seconds``.

    Raises:
        ValueError: no paragraphs, or a vocabulary that :func:`build_tokenizer` refuses.
        FileExistsError: the folder is there already.
    """
    from tqdm.auto import tqdm

    if not paragraphs:
        raise ValueError("paragraphs: expected at least one")
    if folder.exists():
        raise FileExistsError(f"{folder} is there already; a model is saved to a new folder only")
    begun = time.perf_counter()
    threads = torch.get_num_threads()
    # Matrices this small gain nothing from threads, and sums in one order give the same weights on any machine's cores.
    torch.set_num_threads(1)
    tokenizer = build_tokenizer(vocabulary)
    model = build_model(mini, len(tokenizer)).train()
    # Starts at 0, and draws nothing from the global generator.
    judge = torch.nn.utils.skip_init(torch.nn.Linear, mini.hidden, 1)
    torch.nn.init.zeros_(judge.weight)
    torch.nn.init.zeros_(judge.bias)
    trained = torch.nn.ModuleList([model, judge]).to(device)
    generator = torch.Generator().manual_seed(mini.seed)
    encoded = inputs(paragraphs, tokenizer, generator)
    rates = masking_rates(encoded, len(tokenizer))
    substitutes = Substitutes(encoded, len(tokenizer))
    counts = torch.bincount(torch.tensor([number for row in encoded for number in row]), minlength=len(tokenizer))
    with torch.no_grad():
        # How frequent a word is among the hidden ones is known: to start from it saves the model some hundred steps.
        model.lm_head.bias.copy_((counts * rates + 1).log())
    stream = batches(encoded, mini.batch_size, generator)
    # Norms and biases keep their size, as in every BERT.
    weights = [p for p in trained.parameters() if p.dim() > 1]
    others = [p for p in trained.parameters() if p.dim() <= 1]
    optimizer = torch.optim.AdamW(
        [{"params": weights, "weight_decay": WEIGHT_DECAY}, {"params": others, "weight_decay": 0.0}],
        lr=mini.lr,
        betas=(0.9, 0.98),
        fused=True,
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: learning_rate_factor(step, mini.steps))
    losses: list[float] = []
    right, judged_inputs = [], []
    for _ in (bar := tqdm(range(mini.steps), desc="pretraining the mini RoBERTa", unit="step")):
        batch = next(stream)
        is_judged = torch.rand(len(batch), generator=generator) < JUDGED_SHARE
        disturbed, wrong = disturb(batch, rates, substitutes, generator)
        # The first token answers for the whole input.
        wrong[:, 0] = wrong.any(1)
        hidden, labels = mask_tokens(batch, rates, generator)
        labels = torch.where(is_judged[:, None], IGNORED, labels)
        shown = torch.where(is_judged[:, None], disturbed, hidden)
        chosen = labels != IGNORED
        states = model.roberta(
            shown.to(device),
            attention_mask=(batch != PAD).long().to(device),
            token_type_ids=token_types(batch).to(device),
        ).last_hidden_state
        predicted = model.lm_head(states[chosen.to(device)])
        # A tiny batch can have no token to predict, and a mean over none is not a number.
        word_loss = functional.cross_entropy(predicted, labels[chosen].to(device), reduction="sum")
        word_loss = word_loss / max(1, int(chosen.sum()))
        judged_tokens = is_judged[:, None] & (batch != PAD)
        judged = judge(states[judged_tokens.to(device)]).squeeze(1)
        judge_loss = functional.binary_cross_entropy_with_logits(
            judged, wrong[judged_tokens].float().to(device), reduction="sum"
        )
        loss = word_loss + JUDGE_WEIGHT * judge_loss / max(1, int(judged_tokens.sum()))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained.parameters(), MAX_GRAD_NORM)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        losses.append(word_loss.item())
        of_whole = batch[judged_tokens] == START
        right.append(int(((judged > 0).cpu() == wrong[judged_tokens])[of_whole].sum()))
        judged_inputs.append(int(is_judged.sum()))
        bar.set_postfix(loss=f"{losses[-1]:.3f}", refresh=False)
    tenth = max(1, mini.steps // 10)
    facts = {
        "parameters": sum(p.numel() for p in model.parameters()),
        "steps": mini.steps,
        "loss": sum(losses[-tenth:]) / tenth,
        "right": sum(right[-tenth:]) / max(1, sum(judged_inputs[-tenth:])),
        "seconds": time.perf_counter() - begun,
    }
    torch.set_num_threads(threads)
    _save_whole(model, tokenizer, facts, folder)
    return facts


def _save_whole(
    model: RobertaForMaskedLM, tokenizer: PreTrainedTokenizerFast, facts: dict[str, float], folder: Path
) -> None:
    """Write to a temporary folder beside the final one, which then gets its name in one step."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
    try:
        model.save_pretrained(temporary)
        tokenizer.save_pretrained(temporary)
        (temporary / FACTS).write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
        # mkdtemp makes a private folder; a cache may be shared.
        temporary.chmod(0o755)
        temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def cache_key(paragraphs: Sequence[Sequence[str]], vocabulary: Sequence[str], mini: MiniModelConfig) -> str:
    """Sixteen hexadecimal digits that name a model: its shape, training, text, words, and this module's version."""
    recipe = json.dumps(
        [VERSION, dataclasses.asdict(mini), list(vocabulary), [list(p) for p in paragraphs]], sort_keys=True
    )
    return hashlib.sha256(recipe.encode()).hexdigest()[:16]


def cached_roberta(
    paragraphs: Sequence[Sequence[str]],
    vocabulary: Sequence[str],
    mini: MiniModelConfig,
    cache_dir: Path,
    device: str = "cpu",
) -> Path:
    """The folder of a pretrained RoBERTa; trained on the first call, found on every later one.

    Two processes that need the same model at once train it once: the second one waits. A folder that is not whole
    (someone copied half of it, or a disk was full) is replaced.

    Raises:
        ValueError: as :func:`pretrain_roberta`.
    """
    from filelock import FileLock

    folder = cache_dir / f"mini-roberta-{cache_key(paragraphs, vocabulary, mini)}"
    if _is_whole(folder):
        return folder
    cache_dir.mkdir(parents=True, exist_ok=True)
    # The system lets go of the lock when its holder dies.
    with FileLock(folder.with_suffix(".lock")):
        if not _is_whole(folder):
            # Whoever left these behind is dead, or it would hold the lock.
            for broken in (*cache_dir.glob(f".{folder.name}.*"), *cache_dir.glob(folder.name)):
                shutil.rmtree(broken)
            pretrain_roberta(paragraphs, vocabulary, mini, folder, device)
    return folder


def _is_whole(folder: Path) -> bool:
    needed = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", FACTS)
    return all((folder / name).is_file() for name in needed)
