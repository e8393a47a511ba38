"""A finished run is skipped only if its settings, data and weights are the same."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from transformers import TrainerCallback

from rosa.config import Config
from rosa.errors import ChangedRunError, InterruptedRun
from rosa.run import pipeline, run
from rosa.run.device import resolve
from rosa.run.folder import Start, begin
from tests.conftest import Composer
from tests.run.test_resume import Killed, folder_of

ROWS = [f"gj04\t{label}\t\tthe {noun} can sing {number}" for number in range(8)
        for label, noun in ((0, "cat"), (1, "dog"))]  # fmt: skip


@pytest.fixture
def cola(tmp_path: Path) -> Path:
    """A data folder with a CoLA of a few rows."""
    folder = tmp_path / "D" / "CoLA"
    folder.mkdir(parents=True)
    (folder / "train.tsv").write_text("\n".join(ROWS) + "\n")
    (folder / "dev.tsv").write_text("\n".join(ROWS[:6]) + "\n")
    return folder.parent


def done(config: Config) -> Any:
    return run(config, "command", progress=False)


def on(composed: Composer, cola: Path, *overrides: str) -> Config:
    return composed("data=local", f"data.dir={cola}", "train.epochs=1", "train.batch_size=4", *overrides)


def test_a_finished_run_is_skipped_wherever_its_files_lie(composed: Composer, cola: Path, tmp_path: Path) -> None:
    first = done(on(composed, cola))
    assert not first.skipped
    for moved in (f"data.dir={cola}/", f"data.dir={shutil.copytree(cola, tmp_path / 'moved')}"):
        again = done(on(composed, cola, moved, "train.evaluation_batch_size=2"))
        assert (again.skipped, again.folder) == (True, first.folder)
    weights = shutil.copytree(on(composed, cola).model.path, tmp_path / "model")
    assert done(on(composed, cola, f"model.path={weights}")).skipped


def test_replaced_data_are_refused_with_both_hashes(composed: Composer, cola: Path) -> None:
    first = done(on(composed, cola))
    before = first.record["data"]["splits"]["train"]["sha256"]
    written = (first.folder / "record.json").read_bytes()
    (cola / "CoLA" / "train.tsv").write_text("\n".join(ROWS[2:]) + "\n")
    with pytest.raises(ChangedRunError) as refused:
        done(on(composed, cola))
    assert f"finished with data, split train={before[:12]}, now " in str(refused.value)
    assert "Use train.force=true to replace it, or another experiment_name to keep both" in str(refused.value)
    assert (first.folder / "record.json").read_bytes() == written
    assert not done(on(composed, cola, "train.force=true")).skipped
    assert not done(on(composed, cola, "experiment_name=other")).skipped


def test_replaced_generated_data_are_refused(composed: Composer, monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the generator of a mini task had changed."""
    done(composed("train.epochs=1"))
    from rosa.data import sources
    from rosa.mini import text

    examples = text.examples
    monkeypatch.setattr(sources, "_generated", sources._generated.__wrapped__)  # as in another process
    monkeypatch.setattr(text, "examples", lambda *asked: reversed(list(examples(*asked))))
    with pytest.raises(ChangedRunError, match="data, split train="):
        done(composed("train.epochs=1"))


def test_replaced_weights_are_refused(composed: Composer, cola: Path, tmp_path: Path) -> None:
    weights = shutil.copytree(on(composed, cola).model.path, tmp_path / "model")
    first = done(on(composed, cola, f"model.path={weights}"))
    from safetensors.torch import load_file, save_file

    tensors = load_file(weights / "model.safetensors")
    save_file({name: tensor + 1 for name, tensor in tensors.items()}, weights / "model.safetensors", {"format": "pt"})
    with pytest.raises(ChangedRunError, match=r"weights, file model\.safetensors=[0-9a-f]{12}, now [0-9a-f]{12}"):
        done(on(composed, cola, f"model.path={weights}"))
    assert first.record["model"]["sha256"]


def test_a_changed_default_is_refused(composed: Composer, cola: Path) -> None:
    """A default is not in the run's hash; the record has the value that was used."""
    first = done(on(composed, cola))
    path = first.folder / "record.json"
    old = json.loads(path.read_text())
    old["config"]["train"]["beta2"] = 0.999  # the default of an earlier version
    path.write_text(json.dumps(old))
    with pytest.raises(ChangedRunError, match=r"finished with train\.beta2=0\.999, now 0\.98\. "):
        done(on(composed, cola))


def stopped(config: Config) -> None:
    """Do a run until its first epoch's checkpoint is written."""

    class Stop(TrainerCallback):
        def on_epoch_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            control.should_save = True

        def on_save(self, *_: Any, **__: Any) -> None:
            raise InterruptedRun("stopped")

    build = pipeline.build_trainer
    with pytest.MonkeyPatch.context() as patched:

        def stopping(*given: Any, **named: Any) -> Any:
            trainer = build(*given, **named)
            trainer.add_callback(Stop())
            return trainer

        patched.setattr(pipeline, "build_trainer", stopping)
        with pytest.raises(InterruptedRun):
            done(config)


def test_a_stopped_run_does_not_go_on_with_other_data(composed: Composer, cola: Path) -> None:
    stopped(on(composed, cola, "train.epochs=3"))
    (cola / "CoLA" / "train.tsv").write_text("\n".join(ROWS[2:]) + "\n")
    with pytest.raises(ChangedRunError, match="this run was begun with data, split train="):
        done(on(composed, cola, "train.epochs=3"))


def begun(config: Config) -> Start:
    """The state in which a run would start now."""
    with ExitStack() as held:
        return begin(resolve(config)[0], None, "command", folder_of(config), held)


def killed_while_it_clears(config: Config, removals: int, backwards: bool) -> bool:
    """Force a run, and kill it before it removes one entry more of its folder; False: there were not so many."""
    left = removals
    with pytest.MonkeyPatch.context() as patched:

        def mortal(remove: Callable[..., None]) -> Callable[..., None]:
            def removing(path: Path, *given: Any, **named: Any) -> None:
                nonlocal left
                if path.parent == folder_of(config):
                    left -= 1
                    if left < 0:
                        raise Killed
                remove(path, *given, **named)

            return removing

        entries = Path.iterdir
        patched.setattr(Path, "iterdir", lambda folder: iter(sorted(entries(folder), reverse=backwards)))
        patched.setattr(Path, "unlink", mortal(Path.unlink))
        patched.setattr(shutil, "rmtree", mortal(shutil.rmtree))
        try:
            begun(dataclasses.replace(config, train=dataclasses.replace(config.train, force=True)))
        except Killed:
            return True
    return False


@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize("finished", [False, True])
def test_a_run_that_is_killed_while_it_is_forced_leaves_nothing_to_go_on_with(
    finished: bool, backwards: bool, composed: Composer, cola: Path, tmp_path: Path
) -> None:
    """After any number of removals, in any order of the folder's entries, without force and on these data or others."""
    config = on(composed, cola, "train.epochs=2", "train.keep=both")
    (done if finished else stopped)(config)
    folder, kept, others = folder_of(config), tmp_path / "kept", "\n".join(ROWS[2:]) + "\n"
    (folder / "test.best.txt").write_text("the texts of these weights\n")
    folder.rename(kept)
    entries = {path.name for path in kept.iterdir()} - {".lock"}
    assert {"record.json", "best.safetensors", "last.safetensors" if finished else "checkpoints"} <= entries
    for removals in range(len(entries)):
        for text in ("\n".join(ROWS) + "\n", others):
            shutil.rmtree(folder, ignore_errors=True)
            shutil.copytree(kept, folder)
            assert killed_while_it_clears(config, removals, backwards)
            (cola / "CoLA" / "train.tsv").write_text(text)
            try:
                start = begun(config)
            except ChangedRunError:
                assert text == others
                continue
            left = {path.name for path in folder.iterdir()} - {".lock"}
            if start.done:
                assert (left, text != others) == (entries, True)
            elif start.checkpoint:
                assert text != others
            elif removals > int(not finished):  # the record is gone
                assert (left, start.trained) == ({"record.json"}, False)
    assert not killed_while_it_clears(config, len(entries), backwards)


def test_what_changes_no_result_is_no_difference(composed: Composer, cola: Path) -> None:
    config = on(composed, cola)
    done(config)
    train = dataclasses.replace(config.train, log_steps=7, threads=1, keep="none")
    assert done(dataclasses.replace(config, train=train)).skipped


def test_a_run_that_was_finished_in_another_precision_is_pointed_out(
    composed: Composer, cola: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As if ``auto`` had been bf16 on the machine that did the run."""
    first = done(on(composed, cola, "train.precision=bf16"))
    with caplog.at_level("INFO", "rosa"):
        assert not done(on(composed, cola)).skipped
    assert "train.precision=auto is fp32 here" in caplog.text
    assert f"train.precision=bf16 takes {first.folder}, which is done" in caplog.text
    caplog.clear()
    assert done(on(composed, cola)).skipped
    assert "train.precision" not in caplog.text
