"""The environment in a record: versions, device and commit, and no name of a user or machine."""

from __future__ import annotations

import json
import re
import subprocess
from importlib.metadata import version
from pathlib import Path

import torch

from rosa.records import environment


def test_the_environment_states_versions_and_no_names(monkeypatch):
    monkeypatch.setenv("USER", "some-user-name")
    monkeypatch.setenv("A_TOKEN", "some-secret-token")
    facts = environment.environment("cpu")
    text = json.dumps(facts)
    assert facts["packages"]["torch"] == version("torch")
    assert facts["packages"]["transformers"] == version("transformers")
    assert facts["threads"] == torch.get_num_threads()
    assert "some-user-name" not in text
    assert "some-secret-token" not in text
    assert str(Path.home()) not in text
    assert Path("/etc/hostname").read_text().strip() not in re.findall(r"[\w.-]+", text)


def test_the_device_is_the_one_that_computes(monkeypatch):
    """A run on the CPU of a machine with a GPU is a CPU's run, with a CPU's times."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Some GPU")
    assert (environment.environment("cpu")["device"], environment.environment("cpu")["cuda"]) == ("cpu", None)
    assert environment.environment("cuda")["device"] == "Some GPU"


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
    done = subprocess.run(["git", *identity, *arguments], cwd=folder, check=True, capture_output=True, text=True)
    return done.stdout.strip()


def test_the_commit_and_what_makes_a_checkout_dirty(tmp_path):
    module = tmp_path / "rosa" / "module.py"
    module.parent.mkdir()
    module.write_text("1\n")
    nowhere = {"commit": None, "dirty": None}
    assert environment.git_state(module) == nowhere  # no repository
    git(tmp_path, "init")
    assert environment.git_state(module) == nowhere  # no commit
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-m", "first")
    commit = git(tmp_path, "rev-parse", "HEAD")
    assert environment.git_state(module) == {"commit": commit, "dirty": False}

    results = tmp_path / "results"
    results.mkdir()
    (results / "record.json").write_text("{}")
    assert environment.git_state(module)["dirty"] is False  # what runs write is no change of the code
    added = tmp_path / "rosa" / "new.py"
    added.write_text("2\n")
    assert environment.git_state(module)["dirty"] is True  # a new module is
    assert environment.git_state(added) == nowhere  # and is itself not in the repository, like an installed package
    added.unlink()
    module.write_text("3\n")
    assert environment.git_state(module) == {"commit": commit, "dirty": True}


def test_a_hook_of_another_repository_does_not_mislead(tmp_path, monkeypatch):
    for name in ("mine", "other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "module.py").write_text(name)
        git(tmp_path / name, "init")
        git(tmp_path / name, "add", ".")
        git(tmp_path / name, "commit", "-m", name)
    commit = git(tmp_path / "mine", "rev-parse", "HEAD")
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "other" / ".git"))
    assert environment.git_state(tmp_path / "mine" / "module.py")["commit"] == commit


def test_no_git_is_no_error(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert environment.git_state(Path(environment.__file__)) == {"commit": None, "dirty": None}
