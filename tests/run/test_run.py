"""Whole runs on a tiny model: what all methods share, the content of records, and failures."""

from __future__ import annotations

import dataclasses
import errno
import gc
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from transformers import TrainerCallback

from rosa import data, models, records
from rosa.adapters import attach, attachment
from rosa.adapters import rosa as rosa_method
from rosa.config import Config, RankedConfig, RosaConfig, registry
from rosa.config.registry import Method
from rosa.errors import AdapterError, BusyError, ConfigError, DivergedError, WriteError
from rosa.run import folder as folder_module
from rosa.run import pipeline, recording, run
from rosa.run.device import resolve
from rosa.training import best_index, costs, load_weights
from tests.conftest import Composer
from tests.records.declared import undeclared

METHODS = ("rosa", "lora", "robust", "ia3", "full")


class Spy(TrainerCallback):
    """Notes the learning rate of every update and the examples of every batch."""

    def __init__(self) -> None:
        self.rates: list[float] = []
        self.batches: list[list[list[int]]] = []

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.rates.append(kwargs["optimizer"].param_groups[0]["lr"])


def spied(monkeypatch: pytest.MonkeyPatch) -> Spy:
    spy = Spy()
    build = pipeline.build_trainer

    def building(*args: Any, **kwargs: Any) -> Any:
        trainer = build(*args, **kwargs)
        trainer.add_callback(spy)
        step = trainer.training_step

        def training_step(model: Any, inputs: dict[str, torch.Tensor], items: Any = None) -> torch.Tensor:
            spy.batches.append(inputs["input_ids"].tolist())
            return step(model, inputs, items)

        trainer.training_step = training_step
        return trainer

    monkeypatch.setattr(pipeline, "build_trainer", building)
    return spy


@pytest.mark.parametrize("method", METHODS)
def test_a_runs_memory_counts_nothing_of_the_run_before_it(method: str, composed: Composer) -> None:
    """A sweep does several runs in one process, and a model and its Trainer refer to each other."""
    gc.collect()
    before = living_parameters()
    run(composed(f"method={method}", "train.max_steps=2"), "command", progress=False)
    assert living_parameters() > before, "what the run leaves is what this test is about"
    costs.reset_peak_memory("cpu")
    assert living_parameters() <= before


def living_parameters() -> int:
    return sum(isinstance(found, torch.nn.Parameter) for found in gc.get_objects())


def test_every_method_sees_the_same_batches_and_head(composed: Composer, monkeypatch: pytest.MonkeyPatch) -> None:
    seen, heads = {}, {}
    load = models.load

    def loading(*args: Any) -> Any:
        loaded = load(*args)
        heads[len(heads)] = {n: p.clone() for n, p in loaded[0].named_parameters() if n.startswith("classifier")}
        return loaded

    monkeypatch.setattr(models, "load", loading)
    for method in METHODS:
        with monkeypatch.context() as patch:
            spy = spied(patch)
            run(composed(f"method={method}"), "command", progress=False)
            seen[method] = spy.batches[-18:]  # RoSA has seen the first one before, to choose its support
    assert len(seen["rosa"]) == 18
    assert seen["rosa"][:6] != seen["rosa"][6:12], "two epochs in the same order"
    assert all(batches == seen["rosa"] for batches in seen.values())
    for head in heads.values():
        for name, parameter in head.items():
            assert torch.equal(parameter, heads[0][name])


@dataclass
class ShiftedConfig(RankedConfig):
    """The configuration of a resampled method other than ROSA."""

    every: int = 1
    unit: str = "epoch"
    rewarm_steps: int = 0
    NAME: ClassVar[str] = "shifted"


def build_shifted(model: torch.nn.Module, config: ShiftedConfig, generator: torch.Generator | None) -> Any:
    """ROSA's layers, under another method's configuration."""
    yield from rosa_method.build(model, RosaConfig(rank=config.rank, targets=config.targets), generator)


def test_another_method_is_resampled_because_its_adapters_can_be(
    composed: Composer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(registry._registered, "shifted", Method(ShiftedConfig, build_shifted, "Shifted"))
    config = dataclasses.replace(composed("method=lora"), method=ShiftedConfig(rank=4))
    record = run(config, "command", progress=False).record
    assert [event["step"] for event in record["resamples"]] == [6, 12]
    assert all(event["resample_layers"] == len(record["adapted"]) > 0 for event in record["resamples"])


def test_seeds_change_batches_head_and_subspace_and_zero_is_one_of_them(
    composed: Composer, monkeypatch: pytest.MonkeyPatch
) -> None:
    first: dict[int, tuple[Any, ...]] = {}
    for seed in (0, 1, 0):
        with monkeypatch.context() as patch:
            spy = spied(patch)
            record = run(composed(f"seed={seed}", "train.force=true"), "command", progress=False).record
        outcome = (spy.batches, record["history"])
        assert first.setdefault(seed, outcome) == outcome, "the same seed gave another run"
    assert first[0] != first[1]


def test_learning_rate_is_the_schedule_whatever_is_resampled(
    composed: Composer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Six updates an epoch, three epochs: warm-up over ceil(6 % of 18) = 2 updates, then linear to 0 after the 18th."""
    spy = spied(monkeypatch)
    record = run(composed("method.every=1", "train.lr=0.01"), "command", progress=False).record
    expected = [0.01 * min(step / 2, (18 - step) / 16) for step in range(18)]
    assert spy.rates == pytest.approx(expected)
    assert [event["step"] for event in record["resamples"]] == [6, 12]
    assert [evaluation["epoch"] for evaluation in record["history"]] == [1, 2, 3]
    assert spy.rates[-1] > 0, "an update at learning rate 0 trains nothing"


def test_batches_are_padded_to_their_own_longest_example(composed: Composer, monkeypatch: pytest.MonkeyPatch) -> None:
    spy = spied(monkeypatch)
    config = composed("task=mnli")
    run(config, "command", progress=False)
    pad = models.load(config.model, config.task, 0)[1].pad_token_id
    widths = set()
    for batch in spy.batches:
        longest = max(sum(token != pad for token in row) for row in batch)
        assert all(len(row) == longest for row in batch)
        widths.add(longest)
    assert len(widths) > 1


@pytest.mark.parametrize("method", METHODS)
def test_record_tells_all(method: str, composed: Composer) -> None:
    config = composed(f"method={method}", "task=mnli", "train.log_steps=1", "train.accumulation=2")
    outcome = run(config, "the command", progress=False)
    record = records.read(outcome.folder / "record.json")
    assert undeclared(record) == []
    assert record["status"] == "done"
    assert record["command"] == "the command"
    assert record["error"] is None
    assert record["config"]["train"]["precision"] == "fp32"
    assert len(record["training"]) == 9
    for evaluation in (*record["history"], record["metrics"]["best"], record["metrics"]["last"]):
        for split in ("validation_matched", "validation_mismatched"):
            assert 0 <= evaluation[split]["accuracy"] <= 1
    scores = [evaluation["validation_matched"]["accuracy"] for evaluation in record["history"]]
    assert record["metrics"]["best"]["validation_matched"]["accuracy"] == max(scores)
    assert record["metrics"]["last"] == record["history"][-1]
    assert record["data"]["splits"]["train"]["rows"] == 96
    assert record["model"]["sha256"]
    assert record["costs"]["steps"] == 9
    assert record["costs"]["examples"] == 3 * 96
    counted = dict.fromkeys(("weights", "gradients", "optimizer_state"))
    for name in counted:
        counted[name] = record["costs"][f"{name}_bytes"]
        assert counted[name] > 0
    trainable = record["params"]["trainable"] + record["params"]["head"]
    assert counted["gradients"] == 4 * trainable
    # Adam keeps two moments of each trainable parameter and a step count of each tensor.
    assert 2 * 4 * trainable <= counted["optimizer_state"] <= 2 * 4 * trainable + 8 * 200
    assert record["costs"]["checkpoint_bytes"] >= 4 * trainable
    assert record["costs"]["memory_mean_bytes"] <= record["costs"]["memory_max_bytes"]
    assert 0 < record["costs"]["seconds_without_evaluations"] < record["costs"]["seconds_total"]
    assert 0 < record["costs"]["seconds_in_loading"] < record["costs"]["seconds_in_steps"]


def test_environment_is_that_of_the_device_which_trains(composed: Composer, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = recording.environment.environment
    monkeypatch.setattr(
        recording.environment, "environment", lambda device: whole(device) | {"device": f"asked {device}"}
    )
    record = run(composed("method=lora", "train.epochs=1"), "command", progress=False).record
    assert (record["environment"]["device"], record["environment"]["processes"]) == ("asked cpu", 1)


def test_each_run_of_a_process_records_the_threads_that_it_trained_with(
    composed: Composer, monkeypatch: pytest.MonkeyPatch
) -> None:
    train, trained_with = pipeline.build_trainer, []

    def building(*args: Any, **kwargs: Any) -> Any:
        trained_with.append(torch.get_num_threads())
        return train(*args, **kwargs)

    monkeypatch.setattr(pipeline, "build_trainer", building)
    before = torch.get_num_threads()
    try:
        asked = [composed("method=lora", "train.max_steps=1", f"seed={n}", f"train.threads={n}") for n in (3, 2)]
        runs = [run(config, "command", progress=False) for config in asked]
    finally:
        torch.set_num_threads(before)
    assert trained_with == [3, 2]
    assert [found.record["environment"]["threads"] for found in runs] == trained_with


def test_kept_weights_reload_to_the_recorded_scores(composed: Composer) -> None:
    """The weights of the best and of the last epoch, loaded into a fresh model, predict what the record says."""
    config = composed("method=rosa", "method.every=1", "train.lr=0.02")
    outcome = run(config, "command", progress=False)
    loaded = data.load(config.task, config.data, config.seed)
    for rule in ("best", "last"):
        # Another seed draws another head and subspace: both must come from the file.
        model, tokenizer, _ = models.load(config.model, config.task, seed=99)
        attach(model, config.method, verbose=False)
        load_weights(model, outcome.folder / f"{rule}.safetensors")
        tokens = data.tokenize(loaded, tokenizer, 128)
        right = 0
        for row in tokens.evaluation["validation"]:
            logits = model(input_ids=torch.tensor([row["input_ids"]])).logits
            right += int(logits.argmax()) == row["label"]
        # CoLA's headline is Matthews' correlation; compare by what both predict through a recorded loss instead.
        loss = torch.tensor(
            [
                float(
                    torch.nn.functional.cross_entropy(
                        model(input_ids=torch.tensor([row["input_ids"]])).logits, torch.tensor([row["label"]])
                    ).detach()
                )
                for row in tokens.evaluation["validation"]
            ]
        ).mean()
        assert float(loss) == pytest.approx(outcome.record["metrics"][rule]["validation"]["loss"], rel=1e-4)


def test_summary_shows_every_metric_of_every_split(composed: Composer) -> None:
    from rosa.records.summary import summary

    record = run(composed("task=mrpc"), "command", progress=False).record
    text = summary(record | {"warnings": ["all 32 predictions are class 1"]})
    best = record["metrics"]["best"]["validation"]
    for metric in ("accuracy", "f1"):
        (line,) = (line for line in text.splitlines() if f" {metric} " in line)
        assert f"{100 * best[metric]:.1f}" in line
    assert f"{record['params']['trainable']:,} parameters" in text
    assert text.endswith("warning: all 32 predictions are class 1")


def test_finished_run_is_skipped_until_forced(composed: Composer) -> None:
    first = run(composed(), "command", progress=False)
    written = (first.folder / "record.json").stat().st_mtime_ns
    again = run(composed(), "command", progress=False)
    assert again.skipped
    assert (first.folder / "record.json").stat().st_mtime_ns == written
    forced = run(composed("train.force=true"), "command", progress=False)
    assert not forced.skipped
    assert forced.folder == first.folder
    assert forced.record["metrics"] == first.record["metrics"]


def test_force_holds_once_for_a_job_that_is_put_back_into_the_queue(
    composed: Composer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise a run longer than its job's time limit would start over each time."""
    config = composed("method=lora", "train.epochs=1", "train.force=true")
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    assert not run(config, "command", progress=False).skipped
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    assert run(config, "command", progress=False).skipped
    monkeypatch.setenv("SLURM_JOB_ID", "8")  # another request, whose first start ended before it came to the run
    assert not run(config, "command", progress=False).skipped
    monkeypatch.delenv("SLURM_RESTART_COUNT")  # the same command again within one job
    assert not run(config, "command", progress=False).skipped


def test_second_process_leaves_a_running_run_alone(composed: Composer) -> None:
    from filelock import FileLock

    config = composed()
    folder = records.folder(resolve(config)[0])
    folder.mkdir(parents=True)
    with FileLock(folder / ".lock"), pytest.raises(BusyError, match="another process"):
        run(config, "command", progress=False)


def test_limit_keeps_evaluation_whole_and_depends_on_the_seed(composed: Composer) -> None:
    shas = set()
    for seed in (0, 1):
        record = run(composed("data.limit=20", f"seed={seed}"), "command", progress=False).record
        assert record["data"]["splits"]["train"]["rows"] == 20
        assert record["data"]["splits"]["validation"]["rows"] == 32
        shas.add(json.dumps(record["history"]))
    assert len(shas) == 2


def test_best_is_the_first_of_the_highest_and_undefined_loses() -> None:
    nan = float("nan")
    assert best_index([0.1, 0.5, 0.5]) == 1
    assert best_index([nan, -1.0, nan]) == 1
    assert best_index([nan, nan]) == 0
    assert best_index([-0.2, nan, 0.0]) == 2


def test_no_secret_of_the_environment_is_in_any_file(
    composed: Composer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    names = ("WANDB_API_KEY", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "AWS_SECRET_ACCESS_KEY", "GITHUB_TOKEN", "MY_OWN")
    secrets = {name: f"secret{number}".ljust(40, "x") for number, name in enumerate(names)}
    monkeypatch.delenv("WANDB_MODE", raising=False)
    for name, value in secrets.items():
        monkeypatch.setenv(name, value)
    config = composed("logger=wandb", "train.epochs=1", "train.max_steps=2")
    run(config, "command", progress=True)
    failing = dataclasses.replace(config, seed=1, train=dataclasses.replace(config.train, lr=1e30))
    with pytest.raises(DivergedError):
        run(failing, "command", progress=True)
    import wandb

    wandb.teardown()
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    copies = [path for path in files if path.name == records.RECORD and "wandb" in path.parts]
    assert sorted(json.loads(path.read_text())["status"] for path in copies) == ["done", "failed"]
    for path in copies:
        assert path.read_bytes() == (path.parents[3] / records.RECORD).read_bytes()
    written = b"".join(path.read_bytes() for path in files) + "".join(capfd.readouterr()).encode()
    assert {name for name, value in secrets.items() if value.encode() in written} == set()


def test_wandb_file_mirrors_the_run(composed: Composer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Offline: metrics, learning rates, resamples and costs are in W&B's own file, as the record has them."""
    from tests.records.test_tracking import history_of, name_of, offline_files, records_of

    for name in ("WANDB_MODE", "WANDB_DISABLED"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    config = composed("logger=wandb", "train.log_steps=2", "method.every=1")
    outcome = run(config, "command", progress=False)
    assert outcome.record["wandb"]["mode"] == "offline"
    (path,) = offline_files(outcome.folder)
    rows = history_of(path)
    accuracy = {
        row["step"]: row["eval_validation_matthews_correlation"] for row in rows if "eval_validation_loss" in row
    }
    assert accuracy == {e["step"]: e["validation"]["matthews_correlation"] for e in outcome.record["history"]}
    rates = {row["step"]: row["learning_rate"] for row in rows if "learning_rate" in row}
    assert rates == {entry["step"]: entry["learning_rate"] for entry in outcome.record["training"]}
    assert [row["step"] for row in rows if "resample_layers" in row] == [6, 12]
    summary: dict[str, Any] = {}
    for entry in records_of(path):
        if entry.WhichOneof("record_type") == "summary":
            summary.update({name_of(item): json.loads(item.value_json) for item in entry.summary.update})
    assert summary["best/validation/matthews_correlation"] == records.score(outcome.record, "best")
    assert summary["costs/seconds_per_step_median"] == outcome.record["costs"]["seconds_per_step_median"]
    assert summary["params/trainable"] == outcome.record["params"]["trainable"]


# --- what goes wrong -------------------------------------------------------------------------------------------------


def failed(config: Config, kind: type[Exception], match: str) -> dict[str, Any]:
    with pytest.raises(kind, match=match):
        run(config, "command", progress=False)
    record = records.read(records.folder(resolve(config)[0]) / "record.json")
    assert record["status"] == "failed"
    assert record["error"]["type"] == kind.__name__
    assert "Traceback" in record["error"]["traceback"]
    return record


def test_diverged_loss_stops_the_run_and_names_step_and_layer(
    composed: Composer, monkeypatch: pytest.MonkeyPatch
) -> None:
    build = pipeline.build_trainer

    def poisoned(*args: Any, **kwargs: Any) -> Any:
        trainer = build(*args, **kwargs)

        class Poison(TrainerCallback):
            def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
                if state.global_step == 4:
                    model = kwargs["model"]
                    model.roberta.encoder.layer[1].attention.self.query.A.data.fill_(float("nan"))

        trainer.add_callback(Poison())
        return trainer

    monkeypatch.setattr(pipeline, "build_trainer", poisoned)
    where = r"the output of \S+layer\.1\.attention\.self\.query is the first that is not"
    record = failed(composed(), DivergedError, rf"loss is not finite at step 5 \({where}\): \S+query\.A: ")
    assert "weight norm nan" in record["error"]["message"]
    monkeypatch.setattr(pipeline, "build_trainer", build)
    assert run(composed(), "command", progress=False).record["status"] == "done", "a failed run can be asked for again"


@pytest.mark.parametrize("other", [("method=lora",), ("method.rank=4",), ("method.sampling=top",)], ids=str)
def test_checkpoint_of_another_method_or_rank_is_refused(
    other: tuple[str, ...], composed: Composer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def keep_checkpoints(path: Path, **options: Any) -> None:
        if Path(path).name != folder_module.CHECKPOINTS:
            shutil.rmtree(path)

    class Module:
        rmtree = staticmethod(keep_checkpoints)

    monkeypatch.setattr(recording, "shutil", Module)
    theirs = run(composed(*other), "command", progress=False)
    config = composed("method.rank=8")
    mine = records.folder(resolve(config)[0])
    records.write(mine, records.new(resolve(config)[0], "command"))  # without one, the checkpoints would be removed
    shutil.copytree(theirs.folder / folder_module.CHECKPOINTS, mine / folder_module.CHECKPOINTS)
    failed(config, AdapterError, "checkpoint of another method or rank")


def test_model_without_the_expected_head_is_refused(composed: Composer, tmp_path: Path) -> None:
    from transformers import AutoTokenizer, CLIPTextConfig, CLIPTextModel

    folder = tmp_path / "headless"
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    CLIPTextModel(CLIPTextConfig(vocab_size=400, **shape)).save_pretrained(folder)
    AutoTokenizer.from_pretrained(composed().model.path).save_pretrained(folder)
    failed(composed(f"model.path={folder}"), models.ModelError, "cannot be loaded for task=cola")


@pytest.mark.parametrize(("group", "kind"), [("data=hub", data.DataError), ("model=roberta-base", models.ModelError)])
def test_without_a_network_the_hub_fails_at_once_and_says_what_to_do(
    group: str, kind: type[Exception], composed: Composer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path)
    # The fixture's own path names a folder; the hub's name is what is wanted here.
    name = ["model.path=FacebookAI/roberta-base"] if group.startswith("model") else []
    failed(composed(group, *name), kind, "mini")


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left"), SafetensorError("I/O error: No space left")])
def test_full_disk_is_reported_and_no_record_is_torn(
    error: Exception, composed: Composer, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rosa.training import checkpoints

    def no_space(*args: Any, **kwargs: Any) -> None:
        raise error

    monkeypatch.setattr(checkpoints, "save_file", no_space)
    record = failed(composed(), WriteError, r"safetensors: cannot be written: .*No space left")
    assert record["history"], "what was known before the disk filled is kept"


def test_results_folder_that_cannot_be_written_is_named(composed: Composer, tmp_path: Path) -> None:
    """A file in place of the folder; permissions would not stop root."""
    (tmp_path / "file").write_text("")
    with pytest.raises(records.RecordError, match="file.*cannot write in the run's folder .results_dir"):
        run(composed(f"results_dir={tmp_path / 'file'}"), "command", progress=False)


def test_tuned_learning_rate_without_tuning_runs_says_how_to_make_them(composed: Composer) -> None:
    with pytest.raises(records.RecordError, match=r"train\.py -m experiment=tune_me"):
        run(composed("train.lr=tuned", "train.tuning.experiment=tune_me"), "command", progress=False)


def test_tuned_learning_rate_is_the_winner_and_the_record_tells_the_grid(composed: Composer) -> None:
    scores = {}
    for lr in (1e-5, 1e-2):
        record = run(composed("experiment_name=tune", f"train.lr={lr}"), "command", progress=False).record
        scores[lr] = records.score(record)
    tuned = run(composed("train.lr=tuned", "train.tuning.experiment=tune", "seed=1"), "command", progress=False).record
    winner = max(sorted(scores), key=lambda lr: scores[lr])
    assert tuned["config"]["train"]["lr"] == winner
    assert {row["lr"]: row["score"] for row in tuned["tuning"]["grid"]} == scores


def test_a_learning_rate_that_was_the_only_one_is_warned_of(composed: Composer) -> None:
    """One cell of a grid was run; then another failed, which is no choice either; then one more is done."""

    def warned(seed: int) -> list[str]:
        config = composed("train.lr=tuned", "train.tuning.experiment=tune", "train.max_steps=1", f"seed={seed}")
        return [text for text in run(config, "command", progress=False).record["warnings"] if "tuned" in text]

    cells = [composed("experiment_name=tune", f"train.lr={lr}", "train.max_steps=1") for lr in (1e-5, 1e-4, 1e-3)]
    run(cells[0], "command", progress=False)
    said = "train.lr=tuned had no choice: 1e-05 is the only learning rate of tune that has a result for this method"
    assert [text[: len(said)] for text in warned(seed=1)] == [said]
    killed = records.new(resolve(cells[1])[0], "command") | {"status": "failed", "finished": records.now()}
    killed["error"] = {"type": "KilledProcess", "message": "killed", "traceback": ""}
    records.write(records.folder(resolve(cells[1])[0]), killed)
    assert [text[: len(said)] for text in warned(seed=2)] == [said]
    run(cells[2], "command", progress=False)
    assert warned(seed=3) == []


def test_bfloat16_backbone_trains_with_float32_factors(composed: Composer) -> None:
    config = composed("model.dtype=bfloat16", "train.precision=bf16")
    outcome = run(config, "command", progress=False)
    state = load_file(outcome.folder / "last.safetensors")
    kinds = {name: tensor.dtype for name, tensor in state.items()}
    assert {kind for name, kind in kinds.items() if name.endswith((".A", ".B"))} == {torch.float32}
    assert {kind for name, kind in kinds.items() if name.endswith("base.weight")} == {torch.bfloat16}


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("model.dtype=bfloat16", "train.precision=fp32"), "use train.precision=bf16"),
        (("model.dtype=bfloat16", "method=full"), "full fine-tuning"),
        (("train.precision=fp16",), "needs a GPU"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(
    overrides: tuple[str, ...], message: str, composed: Composer
) -> None:
    with pytest.raises(ConfigError, match=message):
        composed(*overrides)


def test_attachment_is_counted_as_the_record_says(composed: Composer) -> None:
    config = composed("method=lora", "method.rank=2")
    record = run(config, "command", progress=False).record
    model, _, _ = models.load(config.model, config.task, 0)
    attach(model, config.method, verbose=False)
    done = attachment(model)
    assert done is not None
    # Two layers with four attention linears of 32 x 32, each with two factors of 2 x 32.
    assert record["params"]["trainable"] == done.trainable_parameters == 2 * 4 * 2 * 2 * 32
    assert record["params"]["head"] == sum(p.numel() for n, p in model.named_parameters() if n.startswith("classifier"))


def test_a_compiled_run_scores_as_a_plain_one(composed: Composer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Through resamples; without the code generator, which would take a minute."""
    asked: list[dict[str, Any]] = []
    compile_in_place = torch.nn.Module.compile

    def traced(model: torch.nn.Module, **options: Any) -> None:
        asked.append(options)
        compile_in_place(model, backend="eager", **options)

    monkeypatch.setattr(torch.nn.Module, "compile", traced)
    overrides = ("task=cola", "method=rosa_each_epoch", "train.epochs=2", "train.keep=none")
    plain = run(composed(*overrides), "command", progress=False).record
    assert asked == []
    compiled = run(composed(*overrides, "train.compile=true"), "command", progress=False).record
    assert asked == [{"dynamic": True}]
    assert compiled["identity"]["hash"] != plain["identity"]["hash"]
    for one, other in zip(compiled["training"], plain["training"], strict=True):
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-3)
    torch._dynamo.reset()
