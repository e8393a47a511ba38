#!/usr/bin/env python
"""Check the pinned versions against the known vulnerabilities of the Python Packaging Advisory Database.

python scripts/audit.py [--pins constraints.txt]

Asks the package index, through pip-audit in an environment of its own (.venv-audit). Exit status: 0 where nothing is
known, 1 where something is, 2 where that cannot be told: the index cannot be asked, or the pins cannot be read.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import venv
from pathlib import Path
from typing import Any

import from_clone  # noqa: F401  # finds rosa

from rosa.errors import RosaError
from rosa.utils.console import first_line, run_command

ROOT = Path(__file__).resolve().parent.parent
TOOL = "pip-audit==2.10.1"
UNREACHABLE = re.compile(
    r"connection|name resolution|timed out|max retries|unreachable|no route|from versions: none|error [45]\d\d",
    re.IGNORECASE,
)
"""Signs in the output of pip and pip-audit that there is no index, or that it did not answer."""


def installed(folder: Path) -> Path:
    """The ``pip-audit`` of an environment, which is made if it is not there.

    Raises:
        RosaError: the package index cannot be asked.
    """
    program = folder / "bin" / "pip-audit"
    if not program.exists():
        venv.create(folder, with_pip=False, clear=True)  # the pip at hand installs into it
        pip = [sys.executable, "-m", "pip", "--python", str(folder / "bin" / "python")]
        words = ["--quiet", "--disable-pip-version-check", "--retries", "1", "install", TOOL]
        done = subprocess.run([*pip, *words], capture_output=True, text=True, check=False)
        if done.returncode:
            raise failure(f"{TOOL} cannot be installed", done.stderr)
    return program


def vulnerabilities(program: Path, pins: Path) -> list[dict[str, Any]]:
    """Every pinned package with a known vulnerability, as pip-audit reports it.

    Raises:
        RosaError: the index cannot be asked, or pip-audit ends without a report.
    """
    options = [
        "--requirement",
        str(pins),
        "--no-deps",
        "--disable-pip",
        "--progress-spinner",
        "off",
        "--format",
        "json",
    ]
    done = subprocess.run([str(program), *options], capture_output=True, text=True, check=False)
    try:
        packages = json.loads(done.stdout)["dependencies"]
    except (ValueError, KeyError) as error:
        what = f"the vulnerabilities of the pins are not known: {TOOL} ended with {done.returncode}"
        raise failure(what, done.stderr) from error
    return [package for package in packages if package.get("vulns")]


def failure(what: str, output: str) -> RosaError:
    """The error for a tool that failed, with the last line of its output, and whether the index was out of reach."""
    lines = [line for line in output.strip().splitlines() if line.strip()]
    why = first_line("", lines[-1].strip()) if lines else "no answer"
    if not lines or UNREACHABLE.search(output):
        return RosaError(f"{what}: the package index cannot be asked ({why}); run it where there is one")
    return RosaError(f"{what}: {why}")


def main() -> int:
    """Print the known vulnerabilities of the pinned versions."""
    options = argparse.ArgumentParser(description="Check the pinned versions against known vulnerabilities.")
    options.add_argument("--pins", type=Path, default=ROOT / "constraints.txt", help="default: constraints.txt")
    pins: Path = options.parse_args().pins
    try:
        pinned = pins.read_text(encoding="utf-8")
    except OSError as error:
        raise RosaError(f"--pins {pins}: {error.strerror}; expected a file of pinned versions") from error
    found = vulnerabilities(installed(ROOT / ".venv-audit"), pins)
    for package in found:
        for known in package["vulns"]:
            fixed = ", ".join(known["fix_versions"]) or "no version"
            print(f"{package['name']} {package['version']}: {known['id']}, fixed in {fixed}")
    count = sum("==" in line for line in pinned.splitlines())
    print(f"{count} pins in {pins.name}, {len(found)} with known vulnerabilities")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(run_command(main))
