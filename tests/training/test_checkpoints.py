"""Checkpoints that are used, and those that are refused: torn files, another backbone, code in a pickle."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import pickle
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import BertConfig, BertForSequenceClassification, GPT2Config, GPT2LMHeadModel

from rosa import attach, records
from rosa.adapters.state import changing_names, changing_state, frozen_hash
from rosa.config import Config, FullConfig, IA3Config, LoraConfig, RobustConfig, RosaConfig
from rosa.errors import AdapterError, CheckpointError, InterruptedRun, WriteError
from rosa.run import pipeline, run
from rosa.run.earlier import CHECKPOINTS
from rosa.training import find_checkpoint, manifest, trainer
from rosa.training.checkpoints import keep_newest, load_weights, save_weights
from tests.conftest import Composer, composer
from tests.run.test_resume import KillAt, Killed, StopAfter, folder_of, results

pytestmark = pytest.mark.slow


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def flip(path: Path) -> None:
    """Flip one bit in the middle; the size and, for most files, the format stay valid."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


TEARS: list[Callable[[Path], None]] = [cut, empty, flip, Path.unlink]


@dataclasses.dataclass
class Half:
    """A run killed at step 9 of 18, with its checkpoints of steps 6 and 8, and one that was left alone."""

    config: Config
    whole: dict[str, Any]

    @property
    def checkpoints(self) -> Path:
        return folder_of(self.config) / CHECKPOINTS

    def copy(self, folder: Path) -> Half:
        shutil.copytree(self.config.results_dir, folder)
        return Half(dataclasses.replace(self.config, results_dir=str(folder)), self.whole)


@pytest.fixture(scope="module")
def half(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Half:
    folder = tmp_path_factory.mktemp("half")
    config = composer(folder, tiny_model)("method=rosa", "method.rank=4", "method.every=1", "train.save_steps=2")
    whole = run(dataclasses.replace(config, results_dir=str(folder / "whole")), "command", progress=False).record
    build = pipeline.build_trainer

    def killed(*args: Any, **kwargs: Any) -> Any:
        trainer = build(*args, **kwargs)
        trainer.add_callback(KillAt(9))
        return trainer

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline, "build_trainer", killed)
        with pytest.raises(Killed):
            run(config, "command", progress=False)
    return Half(config, whole)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def warned(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.message for record in caplog.records if record.name == "rosa.training.checkpoints"]


# --- torn files ------------------------------------------------------------------------------------------------------


def test_every_tear_of_every_file_is_noticed(half: Half, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert names(half.checkpoints) == ["checkpoint-6", "checkpoint-8"]
    files = names(half.checkpoints / "checkpoint-8")
    assert {"changed.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json"} <= set(files)
    for name in files:
        for number, tear in enumerate(TEARS):
            folder = tmp_path / f"{name}-{number}"
            shutil.copytree(half.checkpoints, folder)
            tear(folder / "checkpoint-8" / name)
            caplog.clear()
            assert find_checkpoint(folder) == folder / "checkpoint-6", (name, tear)
            assert names(folder) == ["checkpoint-6"]
            (warning,) = warned(caplog)
            assert re.fullmatch(rf".*checkpoint-8 is torn \(.*{re.escape(name)}.*\): trying checkpoint-6", warning)


def test_a_whole_checkpoint_is_used_without_a_word(half: Half, tmp_path: Path, caplog: Any) -> None:
    shutil.copytree(half.checkpoints, tmp_path / "copy")
    assert find_checkpoint(tmp_path / "copy") == tmp_path / "copy" / "checkpoint-8"
    assert warned(caplog) == []


def test_a_run_goes_on_from_the_checkpoint_before_a_torn_one(half: Half, tmp_path: Path, caplog: Any) -> None:
    copy = half.copy(tmp_path / "copy")
    cut(copy.checkpoints / "checkpoint-8" / "optimizer.pt")
    assert results(run(copy.config, "command", progress=False).record) == results(half.whole)
    assert len(warned(caplog)) == 1


def test_a_run_whose_checkpoints_are_all_torn_starts_over(half: Half, tmp_path: Path, caplog: Any) -> None:
    copy = half.copy(tmp_path / "copy")
    flip(copy.checkpoints / "checkpoint-6" / "changed.safetensors")
    (copy.checkpoints / "checkpoint-8" / manifest.MANIFEST).unlink()
    assert results(run(copy.config, "command", progress=False).record) == results(half.whole)
    assert [line.rpartition(": ")[2] for line in warned(caplog)] == ["trying checkpoint-6", "starting over"]


def test_what_is_no_checkpoint_is_left_alone(tmp_path: Path) -> None:
    for name in ("checkpoint-x", "checkpoint-7.bak", "notes"):
        (tmp_path / name).mkdir()
    (tmp_path / "checkpoint-3").touch()
    assert find_checkpoint(tmp_path) is None
    assert len(names(tmp_path)) == 4


@pytest.mark.parametrize("text", ["", "[]", "null", '{"files": {"a": 1}}', "\xff", "[" * 100_000, '{"files": {}}'])
def test_a_manifest_of_another_kind_is_torn(text: str, tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    (tmp_path / manifest.MANIFEST).write_text(text, encoding="latin-1")
    assert manifest.problem(tmp_path) is not None


PASSING = [errno.ESTALE, errno.EIO, errno.EACCES, errno.EMFILE, errno.ENOMEM, errno.ETIMEDOUT]


def whole_ones(folder: Path) -> Path:
    for step in (8, 9):
        checkpoint = folder / f"checkpoint-{step}"
        checkpoint.mkdir()
        (checkpoint / "optimizer.pt").write_text(f"state {step}")
        manifest.seal(checkpoint)
    return folder


def passing_error(number: int, where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error of the system that says nothing about what is in the file ``where``."""
    for owner, name in ((Path, "open"), (Path, "stat"), (Path, "read_text"), (os, "scandir")):
        true = getattr(owner, name)

        def failing(path: Any, *given: Any, true: Any = true, **named: Any) -> Any:
            if not isinstance(path, int) and Path(path).name == where:
                raise OSError(number, os.strerror(number), str(path))
            return true(path, *given, **named)

        monkeypatch.setattr(owner, name, failing)


@pytest.mark.parametrize("where", ["optimizer.pt", manifest.MANIFEST, "checkpoints"])
@pytest.mark.parametrize("number", PASSING, ids=errno.errorcode.get)
def test_what_cannot_be_read_now_is_not_torn(number: int, where: str, tmp_path: Path, caplog: Any) -> None:
    """A moment later it may be whole again: it is refused, and nothing is removed, also when the next one is saved."""
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    whole_ones(folder)
    with pytest.MonkeyPatch.context() as patch:
        passing_error(number, where, patch)
        with pytest.raises(CheckpointError, match=r"cannot be read \(.*\); nothing was removed\. Run it again"):
            find_checkpoint(folder)
        keep_newest(folder)
    assert "older checkpoints are kept" in caplog.text
    assert names(folder) == ["checkpoint-8", "checkpoint-9"]
    assert find_checkpoint(folder) == folder / "checkpoint-9"


# --- writing ---------------------------------------------------------------------------------------------------------


def test_the_newest_whole_checkpoint_is_kept_until_the_next_is_written(tmp_path: Path) -> None:
    """Also beside a newer one that was not written to its end, and where steps have more digits than others."""

    def write(step: int, whole: bool) -> None:
        folder = tmp_path / f"checkpoint-{step}"
        folder.mkdir()
        (folder / "optimizer.pt").write_text(f"state {step}")
        if whole:
            manifest.seal(folder)

    for step, whole, kept in [(8, True, 8), (9, True, 9), (10, True, 10), (11, False, 10), (12, True, 12)]:
        write(step, whole)
        keep_newest(tmp_path)
        assert names(tmp_path) == [f"checkpoint-{kept}"]


@pytest.mark.parametrize(("updates", "saved"), [(8, [4, 6]), (12, [4, 6, 8])])
def test_a_checkpoint_is_written_when_one_is_due_but_not_after_the_last_update(
    updates: int, saved: list[int], composed: Composer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Six updates an epoch; the last one of all is within an epoch, or its last."""
    written = []
    seal = manifest.seal

    def sealed(folder: Path) -> None:
        seal(folder)
        written.append(int(folder.name.rpartition("-")[2]))

    monkeypatch.setattr(manifest, "seal", sealed)
    config = composed(f"train.max_steps={updates}", "train.save_steps=4")
    assert run(config, "command", progress=False).record["costs"]["steps"] == updates
    assert written == saved


FILES = {
    "rosa": ["changed.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json",
             "progress.json", "manifest.json", "subspace.safetensors"],
    "robust": ["support_pending.safetensors"],
}  # fmt: skip


def short(composed: Composer, method: str) -> Config:
    """A run of four updates with a checkpoint after each; RoSA scores the first two."""
    asked = {"robust": ["method.collect_steps=2"]}.get(method, [])
    size = ["data.train_size=32", "data.evaluation_size=8", "train.batch_size=8", "train.epochs=1"]
    return composed(f"method={method}", "method.rank=2", "train.save_steps=1", *size, *asked)


@pytest.mark.parametrize(("method", "name"), [(method, name) for method, names in FILES.items() for name in names])
def test_a_file_of_a_checkpoint_that_cannot_be_written_ends_in_an_error_that_names_it(
    method: str, name: str, composed: Composer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder in the file's place stops every way to write, and the system's administrator too."""
    config = short(composed, method)
    kept = trainer.keep_newest

    def in_the_way(folder: Path) -> None:
        kept(folder)
        (folder / "checkpoint-1" / name).mkdir(parents=True)

    monkeypatch.setattr(trainer, "keep_newest", in_the_way)
    with pytest.raises(WriteError, match="checkpoint-1.*: cannot be written: "):
        run(config, "command", progress=False)
    assert find_checkpoint(folder_of(config) / CHECKPOINTS) is None


@pytest.mark.parametrize(
    ("method", "name"),
    [("robust", "support.safetensors"), ("rosa", "best.safetensors"), ("rosa", "last.safetensors")],
)
def test_a_file_of_a_run_that_cannot_be_written_ends_in_an_error_that_names_it(
    method: str, name: str, composed: Composer
) -> None:
    config = short(composed, method)
    (folder_of(config) / name).mkdir(parents=True)
    records.write(folder_of(config), records.new(config, "command"))  # without one, the folder would be cleared
    with pytest.raises(WriteError, match=f"{name}: cannot be written: "):
        run(config, "command", progress=False)


@pytest.mark.parametrize("kind", [FullConfig, LoraConfig, IA3Config, RosaConfig, RobustConfig])
def test_weights_outlive_each_new_option_of_their_method(kind: type, tmp_path: Path) -> None:
    """An option that their file lacks had its default; one that the file has and this version lacks is refused."""
    path, options = tmp_path / "best.safetensors", {"rank": 2, "density": 0.5}
    config = kind(**{name: value for name, value in options.items() if hasattr(kind(), name)})
    model, other = (attach(tiny_bert(seed), config, verbose=False) for seed in (0, 1))
    save_weights(model, path)
    tensors, saved = load_file(path), dataclasses.asdict(config)
    for option in saved.keys() - {"name"}:
        older = {"method": json.dumps({key: value for key, value in saved.items() if key != option})}
        save_file(tensors, path, metadata=older)
        if saved[option] == getattr(kind(), option):
            load_weights(other, path)
            assert all(torch.equal(tensor, tensors[name]) for name, tensor in changing_state(other).items())
        else:
            with pytest.raises(
                AdapterError, match=rf"another method or rank: {option}={getattr(kind(), option)} \(now "
            ):
                load_weights(other, path)
    save_file(tensors, path, metadata={"method": json.dumps(saved | {"gone": 1})})
    with pytest.raises(AdapterError, match=r"another method or rank: gone=1 \(now None\)"):
        load_weights(other, path)


# --- another backbone ------------------------------------------------------------------------------------------------


def test_another_backbone_is_refused_with_both_hashes(half: Half, tmp_path: Path, tiny_model: Path) -> None:
    """After the run was killed, one number of a frozen embedding in the model's folder changed."""
    copy = half.copy(tmp_path / "copy")
    other = tmp_path / "model"
    shutil.copytree(tiny_model, other)
    weights = load_file(other / "model.safetensors")
    (name,) = [name for name in weights if name.endswith("word_embeddings.weight")]
    weights[name][0, 0] += 1
    save_file(weights, other / "model.safetensors", metadata={"format": "pt"})
    model = dataclasses.replace(copy.config.model, path=str(other))
    shutil.move(folder_of(copy.config), folder_of(dataclasses.replace(copy.config, model=model)))
    # The record of a model of the hub has no hashes of files, which would be compared first.
    path = folder_of(dataclasses.replace(copy.config, model=model)) / records.RECORD
    record = json.loads(path.read_text())
    path.write_text(json.dumps(record | {"model": record["model"] | {"sha256": {}}}))
    with pytest.raises(CheckpointError, match=r"checkpoint-8: .*sha256 was (\w{64}), those .* have (?!\1)\w{64}"):
        run(dataclasses.replace(copy.config, model=model), "command", progress=False)


def tiny_bert(seed: int = 0) -> torch.nn.Module:
    torch.manual_seed(seed)
    shape = BertConfig(
        vocab_size=20, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        max_position_embeddings=8,
    )  # fmt: skip
    return BertForSequenceClassification(shape)


@pytest.mark.parametrize("method", [RosaConfig(rank=2), LoraConfig(rank=2), IA3Config()])
def test_the_hash_is_of_the_frozen_weights_alone(method: Any) -> None:
    model = attach(tiny_bert(), method, verbose=False)
    before = frozen_hash(model)
    changing = set(changing_names(model))
    state = model.state_dict()
    assert changing < state.keys()
    with torch.no_grad():
        for name in changing:
            state[name].fill_(1)
        assert frozen_hash(model) == before
        for name in state.keys() - changing:
            kept = state[name].clone()
            state[name].view(-1)[-1] += 1
            assert frozen_hash(model) != before, name
            state[name].copy_(kept)
        assert frozen_hash(model) == before


def test_a_weight_tied_to_a_trained_one_is_not_frozen() -> None:
    """GPT-2's output layer is its embeddings, under a second name in the state."""
    shape = GPT2Config(vocab_size=9, n_positions=8, n_embd=8, n_layer=1, n_head=2)
    model = attach(GPT2LMHeadModel(shape), FullConfig(), verbose=False)
    before = frozen_hash(model)
    with torch.no_grad():
        model.transformer.wte.weight.add_(1)
    assert frozen_hash(model) == before


def test_the_hash_of_bfloat16_weights_is_of_their_bits() -> None:
    hashes = {dtype: frozen_hash(attach(tiny_bert().to(dtype), LoraConfig(rank=2), verbose=False))
              for dtype in (torch.float32, torch.bfloat16)}  # fmt: skip
    assert len(set(hashes.values())) == 2
    assert frozen_hash(attach(tiny_bert(), FullConfig(), verbose=False)) not in hashes.values()


# --- content that no Trainer of this project has written -------------------------------------------------------------


class Bomb:
    """A pickle that creates a file when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (os.mkdir, (str(self.path),))


@pytest.mark.parametrize("name", ["optimizer.pt", "scheduler.pt", "rng_state.pth"])
def test_a_pickle_that_runs_code_is_refused(name: str, half: Half, tmp_path: Path) -> None:
    """A checkpoint with a valid manifest, as anyone with write access could make it."""
    copy = half.copy(tmp_path / "copy")
    checkpoint = copy.checkpoints / "checkpoint-8"
    torch.save(Bomb(tmp_path / "exploded"), checkpoint / name)
    manifest.seal(checkpoint)
    with pytest.raises(CheckpointError, match="checkpoint-8"):
        run(copy.config, "command", progress=False)
    assert not (tmp_path / "exploded").exists()
    pickle.loads(pickle.dumps(Bomb(tmp_path / "exploded")))
    assert (tmp_path / "exploded").exists(), "the bomb was a dud"


NO_JSON = [b"", b"\0" * 64]
"""To a reader of another format, text that is JSON is no other than these."""
NO_STATE = [*NO_JSON, b"{}", b"[]", b'{"backbone": 1}', b"\xff\xfe", b"[" * 100_000]


@pytest.mark.parametrize(
    ("name", "content"),
    [(name, content) for name in ("progress.json", "trainer_state.json") for content in NO_STATE]
    + [(name, content) for name in ("changed.safetensors", "optimizer.pt") for content in NO_JSON],
)
def test_other_content_under_a_right_manifest_is_refused(name: str, content: bytes, half: Half, tmp_path: Path) -> None:
    copy = half.copy(tmp_path / "copy")
    checkpoint = copy.checkpoints / "checkpoint-8"
    (checkpoint / name).write_bytes(content)
    manifest.seal(checkpoint)
    with pytest.raises((CheckpointError, AdapterError), match="checkpoint-8"):
        run(copy.config, "command", progress=False)


def of_other_layers(path: Path) -> None:
    save_file({f"other.{name}": tensor for name, tensor in load_file(path).items()}, path)


def of_another_rank(path: Path) -> None:
    save_file({name: tensor[..., :-1].contiguous() for name, tensor in load_file(path).items()}, path)


@pytest.mark.parametrize("spoil", [empty, cut, of_other_layers, of_another_rank])
def test_the_start_of_a_subspace_that_is_not_this_runs_is_refused(
    spoil: Callable[[Path], None], half: Half, tmp_path: Path
) -> None:
    copy = half.copy(tmp_path / "copy")
    spoil(copy.checkpoints / "checkpoint-8" / "subspace.safetensors")
    manifest.seal(copy.checkpoints / "checkpoint-8")
    with pytest.raises(CheckpointError, match="checkpoint-8/subspace.safetensors: not a checkpoint of this run"):
        run(copy.config, "command", progress=False)


def test_scores_of_a_support_that_are_not_this_runs_are_refused(
    composed: Composer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped after the first of the two updates that are scored."""
    config = short(composed, "robust")
    build = pipeline.build_trainer

    def stopping(*args: Any, **kwargs: Any) -> Any:
        made = build(*args, **kwargs)
        made.callback_handler.callbacks.insert(0, StopAfter(1))
        return made

    with monkeypatch.context() as patch:
        patch.setattr(pipeline, "build_trainer", stopping)
        with pytest.raises(InterruptedRun):
            run(config, "command", progress=False)
    checkpoint = folder_of(config) / CHECKPOINTS / "checkpoint-1"
    saved = (checkpoint / "support_pending.safetensors").read_bytes()
    for spoil in (empty, cut, of_other_layers):
        (checkpoint / "support_pending.safetensors").write_bytes(saved)
        spoil(checkpoint / "support_pending.safetensors")
        manifest.seal(checkpoint)
        with pytest.raises(CheckpointError, match="support_pending.safetensors: not a checkpoint of this run"):
            run(config, "command", progress=False)
