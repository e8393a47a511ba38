"""Time decoding with the project's batching, against batches of 8 in file order padded to the limit.

The tasks are E2E and those of RoSA's paper: ViGGO, SQL and GSM8K.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from tqdm import tqdm
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from benchmarks.findings import Findings, Measurement, note, number, row, with_quartiles
from benchmarks.texts import TASKS, Texts, of_task
from benchmarks.timing import Spread, interleave, ratio, spread
from benchmarks.workload import Workload
from rosa.config import DecodingConfig
from rosa.evaluation.generation.decode import decode
from rosa.report.tables.table import Table

ROUNDS = 1
FILE_ORDER_BATCH = 8
LIMIT = 512
"""Tokens to which the compared method pads every prompt."""
WANTED = 5
"""How many times as fast is wanted."""
GREEDY = DecodingConfig(beams=1, no_repeat_ngram=0, no_repeat_prompt=False, max_new_tokens=96)
LAYERS, HIDDEN, HEADS, CONTEXT, VOCABULARY = 2, 64, 2, 1024, 1000
STEPS, EXAMPLES, LEARNING_RATE = 150, 16, 3e-3
TEXTS = 4000
"""Number of training pairs, for the vocabulary and the training steps."""


@dataclass(frozen=True)
class Decoded:
    """One task's prompts, decoded with both kinds of batches."""

    seconds: Mapping[str, Sequence[float]]
    """The time of each decoding of all prompts, by case."""
    written: Mapping[str, Sequence[tuple[int, ...]]]
    """The hypotheses' tokens, by case, in the order of the prompts."""
    prompts: Sequence[int]
    """The number of tokens of each prompt."""
    real: bool
    """Whether the texts are the official ones."""

    @property
    def gain(self) -> Spread:
        """How many times as fast the project's batches are."""
        return ratio(self.seconds["file order"], self.seconds["ours"])

    @property
    def same(self) -> int:
        """The number of hypotheses that are equal."""
        return sum(one == other for one, other in zip(self.written["ours"], self.written["file order"], strict=True))


def benchmark(workload: Workload, rounds: int) -> Findings:
    """Decode each task's prompts with both kinds of batches, with a model trained until it ends its sentences."""
    return findings({task: decoded(of_task(task, workload, TEXTS), workload, rounds) for task in TASKS})


def decoded(texts: Texts, workload: Workload, rounds: int) -> Decoded:
    """Train a model on the texts of a task, and decode its prompts."""
    tokenizer = build_tokenizer(texts)
    model = train(texts, tokenizer, workload.config.seed).to(workload.device)  # type: ignore[arg-type]
    written: dict[str, list[tuple[int, ...]]] = {}

    def ours(_: int) -> None:
        found = decode(model, tokenizer, texts.prompts, GREEDY, progress=False)
        written["ours"] = [one.tokens for one in found.continuations]

    def file_order(_: int) -> None:
        written["file order"] = in_file_order(model, tokenizer, texts.prompts)

    actions = {"ours": ours, "file order": file_order}
    seconds = interleave(actions, rounds, workload.device, f"decoding {texts.label}")
    lengths = [len(ids) for ids in tokenizer(texts.prompts)["input_ids"]]
    return Decoded(seconds, written, lengths, texts.real)


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


def findings(found: Mapping[str, Decoded]) -> Findings:
    """Build the table, two rows a task.

    Args:
        found: by task, a key of :data:`benchmarks.texts.TASKS`.
    """
    labels = {
        "ours": f"by length, batches of {GREEDY.batch_size}, padded to their longest",
        "file order": f"file order, batches of {FILE_ORDER_BATCH}, padded to {LIMIT}",
    }
    rows, lines = [], []
    for task, one in found.items():
        count, label = len(one.written["ours"]), TASKS[task]
        for case, batches in labels.items():
            taken = spread(one.seconds[case])
            gain = with_quartiles(one.gain) if case == "ours" else "1"
            rows.append(row(label, batches, with_quartiles(taken), number(count / taken.median), gain))
            lines.append(Measurement(f"{label}: {case}", "all prompts", "s", taken))
        lines += [
            Measurement(f"{label}: ours", "times as fast", "", one.gain),
            Measurement(f"{label}: ours", "hypotheses that are the same", "", one.same),
        ]
    notes = [note(f"At least {WANTED} times as fast is wanted.")]
    for task, one in found.items():
        source = "the official test split" if one.real else "generated by the project"
        notes.append(
            note(
                f"{TASKS[task]}: {len(one.prompts):,} prompts, {source}, of {_lengths(one.prompts)} tokens; hypotheses "
                f"of {_lengths([len(tokens) for tokens in one.written['ours']])}, {one.same:,} of them equal both ways."
            )
        )
    notes.append(
        note(
            f"Greedy. For each task a GPT-2 of {LAYERS} layers and {HIDDEN} dimensions, trained for {STEPS} steps, "
            "since one of random weights ends no sentence. Lengths: median, and the longest."
        )
    )
    header = ("task", "batches", "time, s", "prompts/s", "times as fast")
    return Findings(Table("benchmark_decoding", "Decoding", header, tuple(rows), tuple(notes)), tuple(lines))


def _lengths(values: Sequence[int]) -> str:
    ordered = sorted(values)
    return f"{ordered[len(ordered) // 2]} ({ordered[-1]})"


# --- the model -------------------------------------------------------------------------------------------------------


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
