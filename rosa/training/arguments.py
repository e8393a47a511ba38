"""The stock Trainer's arguments, built from the ``train`` configuration group."""

from __future__ import annotations

from pathlib import Path

from transformers import TrainingArguments

from rosa.config import TrainConfig
from rosa.utils import distributed
from rosa.utils.seeding import derive


def training_arguments(config: TrainConfig, folder: Path, seed: int, updates: int) -> TrainingArguments:
    """Build the stock Trainer's arguments; each process trains on one device, even if more are visible.

    Args:
        config: with precision and learning rate resolved.
        folder: where checkpoints are written.
        seed: the run's seed.
        updates: number of optimizer updates in all epochs.
    """
    shortened = 0 < config.max_steps < updates
    arguments = TrainingArguments(
        output_dir=str(folder),
        num_train_epochs=config.epochs,
        max_steps=config.max_steps if shortened else -1,
        per_device_train_batch_size=config.batch_size // distributed.count(),
        per_device_eval_batch_size=config.evaluation_batch_size,
        gradient_accumulation_steps=config.accumulation,
        learning_rate=config.lr,
        lr_scheduler_type={"constant": "constant_with_warmup"}.get(config.schedule, config.schedule),
        warmup_steps=config.warmup,
        weight_decay=config.weight_decay,
        adam_beta1=config.beta1,
        adam_beta2=config.beta2,
        adam_epsilon=config.epsilon,
        max_grad_norm=config.max_grad_norm,
        label_smoothing_factor=config.label_smoothing,
        optim={"adamw": "adamw_torch_fused", "sgd": "sgd"}[config.optimizer],
        bf16=config.precision == "bf16",
        fp16=config.precision == "fp16",
        use_cpu=config.device == "cpu",
        seed=derive(seed, "dropout", distributed.rank()) % 2**32,
        ddp_find_unused_parameters=False,  # with every method, the loss depends on all trainable parameters
        ddp_broadcast_buffers=False,  # no buffer depends on the batch
        eval_strategy="epoch",
        save_strategy="no",  # CheckpointCallback decides
        logging_strategy="steps",
        logging_steps=config.log_steps,
        logging_nan_inf_filter=False,  # the filter hides a diverged loss, and synchronizes at every step
        disable_tqdm=True,
        report_to="none",
        label_names=["labels"],
        dataloader_pin_memory=config.device == "cuda",
        # From pinned memory, so that the host goes on while a batch is on its way.
        accelerator_config={"non_blocking": config.device != "cpu"},
    )
    # Otherwise a single process that sees several GPUs would train on all of them, with a batch each (DataParallel).
    arguments._n_gpu = min(arguments.n_gpu, 1)
    return arguments
