"""The Trainer's arguments, from the ``train`` group."""

from __future__ import annotations

from pathlib import Path

from transformers import TrainingArguments

from rosa.config import TrainConfig
from rosa.utils import distributed
from rosa.utils.seeding import derive


def training_arguments(config: TrainConfig, folder: Path, seed: int, updates: int) -> TrainingArguments:
    """The Trainer's own settings; a process trains on one device, however many it sees.

    Args:
        config: with precision and learning rate resolved.
        folder: where checkpoints go.
        seed: the run's.
        updates: optimizer updates of all epochs.
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
        optim="adamw_torch_fused",
        bf16=config.precision == "bf16",
        fp16=config.precision == "fp16",
        use_cpu=config.device == "cpu",
        seed=derive(seed, "dropout", distributed.rank()) % 2**32,
        ddp_find_unused_parameters=False,  # every trainable parameter of every method has a part in the loss
        ddp_broadcast_buffers=False,  # no buffer depends on the batch
        eval_strategy="epoch",
        save_strategy="no",  # CheckpointCallback decides
        logging_strategy="steps",
        logging_steps=config.log_steps,
        logging_nan_inf_filter=False,  # it hides a diverged loss, and synchronises every step
        disable_tqdm=True,
        report_to="none",
        label_names=["labels"],
        dataloader_pin_memory=config.device == "cuda",
    )
    # Alone on a machine of several GPUs, the Trainer would give each of them a batch of this size (DataParallel).
    arguments._n_gpu = min(arguments.n_gpu, 1)
    return arguments
