"""scripts/slurm_cluster.sh: what it forbids the system while it installs packages is allowed again, however it ends."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from functools import partial
from pathlib import Path

import pytest

from tests.conftest import ROOT

POLICY = "/usr/sbin/policy-rc.d"
"""While it is there, no package of the system may start a daemon."""
ENDS = {
    "update fails": ("exit 100", "", 100),
    "installation fails": ("", "exit 100", 100),
    "interrupted": ("", "kill -INT $PPID; sleep 0.1", 130),
    "terminated": ("", "kill -TERM $PPID; sleep 0.1", 143),
    "installed": ("", "", 9),
}
"""What ``apt-get update`` and ``apt-get install`` do, and the script's exit status; after them it goes no further."""


@pytest.mark.parametrize("before", [None, "of the system's administrator"])
@pytest.mark.parametrize("end", ENDS)
def test_daemons_may_be_started_again(end: str, before: str | None, tmp_path: Path) -> None:
    update, install, status = ENDS[end]
    policy, tools = tmp_path / "policy-rc.d", tmp_path / "bin"
    tools.mkdir()
    for name in ("sh", "rm", "chmod", "sleep"):  # and no slurmctld, even where there is one
        (tools / name).symlink_to(str(shutil.which(name)))
    kept = policy if before else tmp_path / "nothing"
    stubs = {
        "id": "echo 0",
        "apt-get": f'test -e {policy} || exit 8\ncase "$1" in update) {update or ":"};; *) {install or ":"};; esac',
        "mktemp": "exit 9",
    }
    for name, body in stubs.items():
        (tools / name).write_text(f"#!/bin/sh\n{body}\n")
        (tools / name).chmod(0o755)
    if before:
        policy.write_text(before)
    text = (ROOT / "scripts" / "slurm_cluster.sh").read_text()
    assert POLICY in text
    script = tmp_path / "slurm_cluster.sh"
    script.write_text(text.replace(POLICY, str(policy)))
    ended = subprocess.run(
        ["sh", script, "run", "true"],
        env={**os.environ, "PATH": str(tools)},
        capture_output=True,
        text=True,
        timeout=60,
        # Where these tests run in the background, their processes do not hear SIGINT, unless this is undone.
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    )
    # Where the administrator's policy is in force, the script sets no traps, and the shell ends by the signal.
    expected = {130: -2, 143: -15}.get(status, status) if before else status
    assert ended.returncode == expected, ended.stderr
    assert policy.exists() == (kept == policy)
    assert not before or policy.read_text() == before
