"""The live overview of a sweep: how many of how many, what became of them, elapsed, and when it is expected to end."""

from __future__ import annotations

import sys
import time
from collections import Counter
from datetime import datetime, timedelta

from tqdm import tqdm

STATUSES = ("done", "elsewhere", "skipped", "failed", "interrupted", "not started")
"""What becomes of a run of a sweep; ``elsewhere``: another process did it in the meantime."""
LOG_SECONDS = 60.0
"""Between two drawings where nobody watches, and each is a line of a log."""
WITHOUT_WORK = ("elsewhere", "skipped", "not started")


def counted(counts: Counter[str], always: tuple[str, ...] = ()) -> str:
    """``3 done, 1 failed``: what there is any of, and what is asked for always."""
    return ", ".join(f"{counts[name]} {name}" for name in STATUSES if counts[name] or name in always)


def expected_seconds(worked: int, left: int, seconds: float) -> float | None:
    """How much longer a sweep takes that has done ``worked`` runs in ``seconds``, or None while that is unknown.

    Runs that were finished before come in a burst at the start, and say nothing about those that are not.
    """
    return left * seconds / worked if worked else None


def duration(seconds: float) -> str:
    """``1:02:03``, or ``02:03`` under an hour."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes:02d}:{rest:02d}"


class Overview:
    """Draws a line at the end of the screen; what is written goes above it.

    Args:
        total: the sweep's runs.
    """

    def __init__(self, total: int) -> None:
        self.counts: Counter[str] = Counter()
        self._total = total
        self._start = time.perf_counter()
        self._every = 0.0 if sys.stderr.isatty() else LOG_SECONDS
        self._drawn = self._start
        # Drawn here only: how often tqdm does it by itself depends on how fast runs end.
        self._bar = tqdm(
            total=total,
            dynamic_ncols=True,
            bar_format="{n_fmt}/{total_fmt} |{bar:20}| {desc}",
            miniters=total + 1,
            delay=1e-9,
        )

    @property
    def seconds(self) -> float:
        """Since the sweep began."""
        return time.perf_counter() - self._start

    def ended(self, status: str, line: str = "") -> None:
        """One run has ended; ``line`` is written if there is one."""
        self.counts[status] += 1
        if line:
            self._bar.write(line)
        self._bar.update(1)

    def show(self, running: int, waiting: int) -> None:
        """Draw it as it is now.

        Args:
            running: runs that are being done.
            waiting: runs that other processes are doing.
        """
        worked = sum(count for status, count in self.counts.items() if status not in WITHOUT_WORK)
        parts = [counted(self.counts), f"{running} running" if running else ""]
        parts += [f"{waiting} with other processes" if waiting else "", f"{duration(self.seconds)} elapsed"]
        left = expected_seconds(worked, self._total - sum(self.counts.values()), self.seconds)
        if left is not None:
            end = datetime.now() + timedelta(seconds=left)
            parts.append(f"about {duration(left)} left (until {end:%H:%M})")
        self._bar.set_description_str(", ".join(filter(None, parts)), refresh=False)
        now = time.perf_counter()
        if now - self._drawn >= self._every:
            self._drawn = now
            self._bar.refresh()

    def close(self) -> None:
        """Draw it once more, and leave it."""
        self.show(0, 0)
        self._bar.close()
