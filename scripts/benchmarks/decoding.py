"""Time decoding with the project's batching, against batches of 8 in file order padded to the limit."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from tqdm import tqdm
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from benchmarks.findings import Findings, Measurement, note, number, row, with_quartiles
from benchmarks.timing import interleave, ratio, spread
from benchmarks.workload import Workload
from rosa.config import DataConfig, DecodingConfig, LocalTaskConfig, TaskConfig
from rosa.data import e2e
from rosa.evaluation.generation.decode import decode
from rosa.report.tables.table import Table

ROUNDS = 1
PROMPTS = 630
"""Number of meaning representations in E2E's test split."""
FILE_ORDER_BATCH = 8
LIMIT = 512
"""Tokens to which the compared method pads every prompt."""
GREEDY = DecodingConfig(beams=1, no_repeat_ngram=0, no_repeat_prompt=False, max_new_tokens=96)
LAYERS, HIDDEN, HEADS, CONTEXT, VOCABULARY = 2, 64, 2, 1024, 1000
STEPS, EXAMPLES, LEARNING_RATE = 150, 16, 3e-3
TEXTS = 4000
"""Number of training pairs, for the vocabulary and the training steps."""
TASK = TaskConfig(
    name="e2e",
    kind="generation",
    texts=["meaning_representation", "human_reference"],
    metrics=["perplexity"],
    headline="perplexity",
    test="test",
    prompt="Input: {given} Output:",
    local=LocalTaskConfig(
        train="trainset.csv",
        evaluation={"validation": "devset.csv", "test": "testset_w_refs.csv"},
        texts=["mr", "ref"],
    ),
)


@dataclass(frozen=True)
class Texts:
    """The training texts, and the prompts to decode."""

    pairs: list[tuple[str, str]]
    """A training text: prompt and target."""
    prompts: list[str]
    real: bool


def benchmark(workload: Workload, rounds: int) -> Findings:
    """Decode the same prompts with both kinds of batches, with a model trained until it ends its sentences."""
    texts = read(workload.e2e_dir) if workload.e2e_dir is not None else made_up(workload.config.seed)
    tokenizer = build_tokenizer(texts)
    model = train(texts, tokenizer, workload.config.seed).to(workload.device)  # type: ignore[arg-type]
    written: dict[str, list[tuple[int, ...]]] = {}

    def ours(_: int) -> None:
        found = decode(model, tokenizer, texts.prompts, GREEDY, progress=False)
        written["ours"] = [one.tokens for one in found.continuations]

    def file_order(_: int) -> None:
        written["file order"] = in_file_order(model, tokenizer, texts.prompts)

    seconds = interleave({"ours": ours, "file order": file_order}, rounds, workload.device, "decoding")
    return findings(seconds, written, texts.real)


def in_file_order(
    model: GPT2LMHeadModel, tokenizer: PreTrainedTokenizerFast, prompts: Sequence[str]
) -> list[tuple[int, ...]]:
    """Decode with every prompt padded to the limit, in file order; a batch ends with its longest hypothesis."""
    end, padding = tokenizer.eos_token_id, tokenizer.pad_token_id
    found = []
    for start in range(0, len(prompts), FILE_ORDER_BATCH):
        batch = tokenizer(
            list(prompts[start : start + FILE_ORDER_BATCH]),
            padding="max_length",
            max_length=LIMIT,
            padding_side="left",
            return_tensors="pt",
        ).to(model.device)
        with torch.inference_mode():
            sequences = model.generate(  # type: ignore[misc]  # its mixin is typed for a protocol
                input_ids=batch["input_ids"],
                attention_mask=batch["attention_mask"],
                do_sample=False,
                max_new_tokens=GREEDY.max_new_tokens,
                eos_token_id=end,
                pad_token_id=padding,
            )
        for tokens in sequences[:, LIMIT:].tolist():
            found.append(tuple(tokens[: tokens.index(end)] if end in tokens else tokens))
    return found


def findings(seconds: dict[str, list[float]], written: dict[str, list[tuple[int, ...]]], real: bool) -> Findings:
    """Build the table.

    Args:
        seconds: the time of each decoding of all prompts, by case.
        written: the hypotheses' tokens, by case, in the order of the prompts.
        real: whether the prompts are those of E2E's test split.
    """
    count = len(written["ours"])
    labels = {
        "ours": f"by length, batches of {GREEDY.batch_size}, padded to their longest",
        "file order": f"file order, batches of {FILE_ORDER_BATCH}, padded to {LIMIT}",
    }
    rows, lines = [], []
    for case, label in labels.items():
        taken = spread(seconds[case])
        rows.append(row(label, with_quartiles(taken), number(count / taken.median)))
        lines.append(Measurement(case, "all prompts", "s", taken))
    gain = ratio(seconds["file order"], seconds["ours"])
    same = sum(one == other for one, other in zip(written["ours"], written["file order"], strict=True))
    tokens = sorted(len(one) for one in written["ours"])
    lines += [
        Measurement("ours", "times as fast", "", gain),
        Measurement("ours", "hypotheses that are the same", "", same),
    ]
    source = "the meaning representations of E2E's test split" if real else "generated ones of E2E's shape"
    notes = (
        note(f"{with_quartiles(gain)} times as fast (at least 3 is wanted), {same} of {count} hypotheses equal."),
        note(
            f"{count} prompts, {source}; greedy; hypotheses of {tokens[len(tokens) // 2]} tokens (median; longest "
            f"{tokens[-1]}). A GPT-2 of {LAYERS} layers and {HIDDEN} dimensions, trained for {STEPS} steps, since one "
            "of random weights ends no sentence."
        ),
    )
    header = ("batches", "time, s", "prompts/s")
    return Findings(Table("benchmark_decoding", "Decoding", header, tuple(rows), notes), tuple(lines))


# --- texts and model -------------------------------------------------------------------------------------------------


def read(folder: Path) -> Texts:
    """Read E2E's official files.

    Raises:
        DataError: a file is missing or malformed.
    """
    loaded = e2e.load(TASK, DataConfig(source="local", dir=str(folder), limit=TEXTS), seed=0)
    pairs = [(e2e.prompt(TASK, pair["mr"]), f" {pair['ref']}") for pair in loaded.train]
    return Texts(pairs, [e2e.prompt(TASK, group.mr) for group in loaded.groups["test"]], real=True)


def made_up(seed: int) -> Texts:
    """Generate meaning representations of three to eight slots, as in E2E, and plain sentences about them."""
    draw = random.Random(seed)
    values = {
        "eatType": ("pub", "restaurant", "coffee shop"),
        "food": ("French", "Italian", "Chinese", "English", "Indian", "Fast food"),
        "priceRange": ("cheap", "high", "less than £20", "£20-25", "more than £30"),
        "customer rating": ("low", "high", "1 out of 5", "3 out of 5", "5 out of 5"),
        "area": ("riverside", "city centre"),
        "familyFriendly": ("yes", "no"),
        "near": ("Café Rouge", "Burger King", "The Bakers", "Crowne Plaza Hotel"),
    }
    names = ("The Eagle", "The Mill", "Blue Spice", "The Wrestlers", "Giraffe", "The Rice Boat", "Zizzi")

    def pair() -> tuple[str, str]:
        chosen = {"name": draw.choice(names)}
        chosen |= {slot: draw.choice(values[slot]) for slot in sorted(draw.sample(list(values), draw.randint(2, 7)))}
        mr = ", ".join(f"{slot}[{value}]" for slot, value in chosen.items())
        said = [f"its {slot} is {value}" for slot, value in chosen.items() if slot != "name"]
        return e2e.prompt(TASK, mr), f" {chosen['name']}: {', and '.join(said)}."

    return Texts([pair() for _ in range(TEXTS)], [pair()[0] for _ in range(PROMPTS)], real=False)


def build_tokenizer(texts: Texts) -> PreTrainedTokenizerFast:
    """Train a byte-pair tokenizer on the training texts."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=["<|end|>", "<|pad|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator((prompt + target for prompt, target in texts.pairs), trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|end|>", pad_token="<|pad|>")


def train(texts: Texts, tokenizer: PreTrainedTokenizerFast, seed: int) -> GPT2LMHeadModel:
    """Train a small GPT-2 until it ends its sentences."""
    torch.manual_seed(seed)
    draw = random.Random(seed)
    end, padding = tokenizer.eos_token_id, tokenizer.pad_token_id
    shape = GPT2Config(
        vocab_size=len(tokenizer),
        n_layer=LAYERS,
        n_embd=HIDDEN,
        n_head=HEADS,
        n_positions=CONTEXT,
        bos_token_id=end,
        eos_token_id=end,
        pad_token_id=padding,
    )
    model = GPT2LMHeadModel(shape)
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE)
    for _ in tqdm(range(STEPS), desc="a model to decode with", unit="step", dynamic_ncols=True):
        chosen = draw.sample(texts.pairs, EXAMPLES)
        examples = [[*tokenizer(prompt + target)["input_ids"], end] for prompt, target in chosen]
        width = max(map(len, examples))
        ids = torch.tensor([[*example, *[padding] * (width - len(example))] for example in examples])
        mask = ids != padding
        model(ids, attention_mask=mask.long(), labels=ids.masked_fill(~mask, -100)).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return model.eval()
