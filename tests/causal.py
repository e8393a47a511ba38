"""A GPT-2 of a few thousand weights over a vocabulary of words, random or trained for a second, and its tokenizer."""

from __future__ import annotations

import csv
import random
from collections.abc import Sequence
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

PAD, END, UNKNOWN = 0, 1, 2
WORDS = 60
CONTEXT = 96


def build_tokenizer(words: Sequence[str] = tuple(f"w{i}" for i in range(WORDS))) -> PreTrainedTokenizerFast:
    """A tokenizer of words separated by spaces; its padding token is 0, which ``or`` would take for none."""
    vocabulary = {"<pad>": PAD, "<end>": END, "<unk>": UNKNOWN}
    vocabulary |= {word: 3 + i for i, word in enumerate(words)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "removed")
    tokenizer.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        eos_token="<end>",
        unk_token="<unk>",
        model_max_length=CONTEXT,
        clean_up_tokenization_spaces=False,
    )


def build_model(seed: int = 0, vocabulary: int = 3 + WORDS) -> GPT2LMHeadModel:
    """Random weights, large enough that no two tokens are about equally probable."""
    torch.manual_seed(seed)
    shape = GPT2Config(
        vocab_size=vocabulary,
        n_layer=2,
        n_embd=16,
        n_head=2,
        n_positions=CONTEXT,
        bos_token_id=END,
        eos_token_id=END,
        pad_token_id=PAD,
        initializer_range=0.3,
    )
    return GPT2LMHeadModel(shape).eval()


def train(model: GPT2LMHeadModel, steps: int = 150) -> GPT2LMHeadModel:
    """Teach a model to go on with a prompt's words in descending order, twice, and to stop."""
    generator = torch.Generator().manual_seed(0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    model.train()
    for _ in range(steps):
        length = int(torch.randint(2, 12, (), generator=generator))
        prompt = torch.randint(3, model.config.vocab_size, (16, length), generator=generator)
        ordered = prompt.sort(1, descending=True).values
        example = torch.cat([prompt, ordered, ordered, torch.full((16, 1), END)], 1)
        model(example, labels=example).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return model.eval()


def prompts(count: int, seed: int = 0, lengths: Sequence[int] = (1, 2, 3, 5, 9, 14, 33, 60)) -> list[str]:
    """Random words; the lengths in turn, in a random order."""
    draw = random.Random(seed)
    texts = [" ".join(f"w{draw.randrange(WORDS)}" for _ in range(lengths[i % len(lengths)])) for i in range(count)]
    draw.shuffle(texts)
    return texts


# --- a task of E2E's kind --------------------------------------------------------------------------------------------

NAMES = [f"w{i}" for i in range(40)]


def write_e2e(folder: Path) -> Path:
    """Two references of each of many MRs, over a vocabulary of words, as E2E's files; returns the folder."""
    spans = {"trainset": range(30), "devset": range(30, 35), "testset_w_refs": range(35, 40)}
    for name, span in spans.items():
        with (folder / f"{name}.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["mr", "ref"])
            for i in span:
                mr = f"name[ {NAMES[i]} ] food[ {NAMES[(i * 7) % 40]} ]"
                writer.writerow([mr, f"{NAMES[i]} serves {NAMES[(i * 7) % 40]} food ."])
                writer.writerow([mr, f"there is {NAMES[(i * 7) % 40]} food at {NAMES[i]} ."])
    return folder


def save_for_e2e(folder: Path) -> Path:
    """A random model and the tokenizer of these files, as save_pretrained writes them; returns the folder."""
    words = ["Input:", "Output:", "name[", "]", "food[", "serves", "food", ".", "there", "is", "at", *NAMES]
    tokenizer = build_tokenizer(words)
    tokenizer.backend_tokenizer.decoder = decoders.WordPiece(cleanup=False)  # joins words with blanks
    build_model(vocabulary=len(tokenizer)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
