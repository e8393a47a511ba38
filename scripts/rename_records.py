#!/usr/bin/env python
"""Move records to the names that their settings have now, and take paths of development data out of them; once.

python scripts/rename_records.py [--results results]
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from rosa import records
from rosa.config import from_dict, identity_hash
from rosa.utils.console import run_command

PLACE = "DIR"


def main() -> None:
    """Move the folders of every record under ``runs/`` and ``records/``."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--results", type=Path, default=Path("results"))
    results = options.parse_args().results
    moved = 0
    for tree in ("runs", "records"):
        for path in sorted((results / tree).glob(f"*/*/*/*/*/{records.RECORD}")):
            record = records.read(path)
            if tree == "records":
                record = without_paths(record, record["config"]["data"]["dir"])
            record["identity"]["hash"] = identity_hash(from_dict(record["config"]))
            name = f"{record['identity']['method']}-{record['identity']['hash']}"
            folder = path.parent.parent.parent / name / path.parent.name
            if folder != path.parent:
                folder.parent.mkdir(exist_ok=True)
                path.parent.rename(folder)
                moved += 1
                if not any(path.parent.parent.iterdir()):
                    path.parent.parent.rmdir()
            records.write(folder, record)
    print(f"{moved} runs have new names")


def without_paths(node: Any, place: str) -> Any:
    """The same values with ``place`` in commands and configuration called DIR; the rest is left as it is."""
    if not place:
        return node
    changed = dict(node)
    changed["command"] = node["command"].replace(place, PLACE)
    config = changed["config"] = dict(node["config"])
    config["data"] = config["data"] | {"dir": PLACE}
    if config["model"]["mini"].get("text"):
        text = config["model"]["mini"]["text"].replace(place, PLACE)
        config["model"] = config["model"] | {"mini": config["model"]["mini"] | {"text": text}}
    return changed


if __name__ == "__main__":
    sys.exit(run_command(main))
