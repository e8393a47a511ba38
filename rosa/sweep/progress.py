"""The live overview of a sweep: finished runs by outcome, the total, elapsed time and expected end."""

from __future__ import annotations

import sys
import time
from collections import Counter
from datetime import datetime, timedelta

from tqdm import tqdm

STATUSES = ("done", "elsewhere", "skipped", "failed", "interrupted", "not started")
"""The possible outcomes of a sweep's run; ``elsewhere``: another process did it in the meantime."""
LOG_SECONDS = 60.0
"""Seconds between two drawings if the output is no terminal, where each drawing is a line of a log."""
WITHOUT_WORK = ("elsewhere", "skipped", "not started")


def counted(counts: Counter[str], always: tuple[str, ...] = ()) -> str:
    """Format counts as ``3 done, 1 failed``; zero counts are left out, except those named in ``always``."""
    return ", ".join(f"{counts[name]} {name}" for name in STATUSES if counts[name] or name in always)


def expected_seconds(worked: int, left: int, seconds: float) -> float | None:
    """Expected seconds for the ``left`` runs, given ``worked`` runs in ``seconds``; None while unknown.

    Runs that were finished earlier are skipped at once and must not be counted in ``worked``.
    """
    return left * seconds / worked if worked else None


def duration(seconds: float) -> str:
    """``1:02:03``, or ``02:03`` under an hour."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes:02d}:{rest:02d}"


class Overview:
    """Draws a progress line at the bottom of the screen; other output goes above it.

    Args:
        total: number of runs in the sweep.
    """

    def __init__(self, total: int) -> None:
        self.counts: Counter[str] = Counter()
        self._total = total
        self._start = time.perf_counter()
        self._every = 0.0 if sys.stderr.isatty() else LOG_SECONDS
        self._drawn = self._start
        # Redrawn only by show(): tqdm's own interval depends on how fast runs end.
        self._bar = tqdm(
            total=total,
            dynamic_ncols=True,
            bar_format="{n_fmt}/{total_fmt} |{bar:20}| {desc}",
            miniters=total + 1,
            delay=1e-9,
        )

    @property
    def seconds(self) -> float:
        """Seconds since the sweep began."""
        return time.perf_counter() - self._start

    def ended(self, status: str, line: str = "") -> None:
        """Count one ended run, and print ``line`` unless it is empty."""
        self.counts[status] += 1
        if line:
            self._bar.write(line)
        self._bar.update(1)

    def show(self, running: int, waiting: int) -> None:
        """Redraw the line.

        Args:
            running: number of runs in progress in this sweep.
            waiting: number of runs in progress in other processes.
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
        """Draw the line a last time, and leave it on the screen."""
        self.show(0, 0)
        self._bar.close()
