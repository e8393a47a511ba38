"""Records like those of runs, made without any run, for the tests of records, tables and figures."""

from __future__ import annotations

import random
from typing import Any

from rosa import records
from rosa.config import (
    Config,
    DataConfig,
    FullConfig,
    IA3Config,
    LoggerConfig,
    LoraConfig,
    MethodConfig,
    ModelConfig,
    RosaConfig,
    TaskConfig,
    TrainConfig,
    TuningConfig,
)

METRICS = {
    "mrpc": ["accuracy", "f1"],
    "qqp": ["accuracy", "f1"],
    "cola": ["matthews_correlation"],
    "stsb": ["pearson", "spearmanr"],
}
METHODS = (FullConfig(), LoraConfig(), IA3Config(), RosaConfig())

ENVIRONMENT: dict[str, Any] = {
    "commit": "0123456789abcdef",
    "dirty": False,
    "python": "3.11.7",
    "packages": {"torch": "2.8.0"},
    "system": "Linux x86_64",
    "cpu": "a processor",
    "cpu_count": 2,
    "threads": 1,
    "device": "cpu",
    "cuda": None,
}


def config(
    task: str = "cola",
    method: MethodConfig | None = None,
    lr: float | str = 1e-3,
    seed: int = 0,
    experiment: str = "glue",
    results_dir: str = "results",
    model: ModelConfig | None = None,
    data: DataConfig | None = None,
    **train: Any,
) -> Config:
    """The configuration of one run; ``train`` holds further training settings."""
    metrics = METRICS.get(task, ["accuracy"])
    splits = ["validation_matched", "validation_mismatched"] if task == "mnli" else ["validation"]
    labels: dict[str, Any] = {"labels": ["no", "yes"]}
    if task == "stsb":
        labels = {"kind": "regression", "label_range": [0.0, 5.0]}
    return Config(
        model=model or ModelConfig(name="mini-roberta", source="mini"),
        task=TaskConfig(task, texts=["a"], metrics=metrics, headline=metrics[0], evaluation=splits, **labels),
        method=method or RosaConfig(),
        train=TrainConfig(lr=lr, tuning=TuningConfig("tuning", "cola", 0), **train),
        data=data or DataConfig(),
        logger=LoggerConfig(),
        seed=seed,
        experiment_name=experiment,
        results_dir=results_dir,
    )


def record(settings: Config, best: float | None = None, status: str = "done", **changes: Any) -> dict[str, Any]:
    """A record with headline ``best`` at the best epoch of the first split; the other numbers follow from a seed."""
    made = records.new(settings, f"python scripts/train.py task={settings.task.name} seed={settings.seed}")
    generator = random.Random(str(made["identity"]))
    made |= {
        "started": "2026-01-01T00:00:00+00:00",
        "status": status,
        "params": {"trainable": 147456, "head": 33282, "total": 1_000_000},
        "environment": dict(ENVIRONMENT),
        "data": {
            "source": settings.data.source,
            "splits": {s: {"rows": 100, "sha256": s} for s in ("train", *settings.task.evaluation)},
        },
        "model": {
            "name": settings.model.name,
            "source": settings.model.source,
            "path": settings.model.path,
            "revision": "",
            "sha256": {"model.safetensors": "ab" * 32},
            "attention": "sdpa",
        },
    }
    if status == "done":
        made["finished"] = "2026-01-01T01:00:00+00:00"
        split, headline = settings.task.evaluation[0], settings.task.headline
        epochs = {
            rule: {
                "epoch": float(epoch),
                "step": 10 * epoch,
                **{
                    name: {metric: generator.random() for metric in settings.task.metrics} | {"loss": 0.5}
                    for name in settings.task.evaluation
                },
            }
            for rule, epoch in (("best", 1), ("last", 2))
        }
        if best is not None:
            epochs["best"][split][headline] = best
        made["metrics"] = epochs | {"selection": {"split": split, "metric": headline, "rule": "highest"}}
    if status == "failed":
        made["error"] = {"type": "RuntimeError", "message": "out of memory", "traceback": ""}
    return made | changes


TEXT_SCORES = {"bleu": 0.65, "nist": 8.5, "meteor": 0.45, "rouge_l": 0.68, "cider": 2.25}


def written(made: dict[str, Any], perplexity: float, scores: dict[str, float | None] | None = None) -> dict[str, Any]:
    """The record of a finished run as one of a task that writes texts, headline perplexity; ``scores`` of the texts."""
    made["config"]["task"] |= {
        "kind": "generation",
        "metrics": ["perplexity", "bits_per_token"],
        "headline": "perplexity",
        "lower_is_better": True,
        "test": "test",
    }
    made["generation"] = {
        "split": "test",
        "weights": "best",
        "epoch": 1.0,
        "decoding": {"beams": 5, "length_penalty": 1.0, "no_repeat_ngram": 4},
        "prompts": 630,
        "unended": 2,
        "empty": 0,
        "limited": 0,
        "segments": 630,
        "references": 4693,
        "warnings": [],
        "hypotheses": {"file": "test.txt", "sha256": "ab" * 32},
        "scores": TEXT_SCORES | (scores or {}),
        "scorer": {
            "tokenizer": "PTB",
            "versions": {"sacrebleu": "2.5"},
            "options": {"lowercase": "True"},
            "missing": {},
        },
    }
    if made["status"] == "done":
        made["metrics"] = {
            rule: {"epoch": 1.0, "step": 10, "validation": {"perplexity": value, "bits_per_token": 1.0, "loss": 0.5}}
            for rule, value in (("best", perplexity), ("last", perplexity + 1))
        }
        made["metrics"]["selection"] = {"split": "validation", "metric": "perplexity", "rule": "lowest"}
    return made


def costs(seconds_per_step: float, resamples: bool = False) -> dict[str, Any]:
    """The costs that a run on a CPU records."""
    return {
        "steps": 100,
        "examples": 1600,
        "tokens": 16000,
        "seconds_total": 120 * seconds_per_step,
        "seconds_in_steps": 100 * seconds_per_step,
        "seconds_per_step_mean": seconds_per_step,
        "tokens_per_second": 160 / seconds_per_step,
        "resamples": 2 if resamples else 0,
        "seconds_in_resamples": 0.5 if resamples else 0.0,
        "evaluations": 2,
        "seconds_in_evaluations": 1.0,
        "host_peak_reset": True,
        "seconds_per_step_median": seconds_per_step,
        "seconds_per_resample_median": 0.25 if resamples else None,
        "examples_per_second": 16 / seconds_per_step,
        "weights_bytes": 3 * 2**20,
        "gradients_bytes": 2**20,
        "optimizer_state_bytes": 2 * 2**20,
        "device_bytes": None,
        "host_bytes": 600 * 2**20,
        "first_of_process": True,
    }
