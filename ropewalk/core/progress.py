"""Progress on stderr for whatever takes longer than a second, and silence where stderr is not a terminal.

A `Progress` is handed in wherever long work is done; the work calls `at(share)` as often as it likes. Work that cannot say
how far it is (loading, drawing) still shows its name and the seconds it has taken: a thread redraws the line.
"""

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

from ropewalk.core.terminal import printable


class Progress:
    """One line that is rewritten: what is being done, how much of it, and how long it will still take."""

    def __init__(self, stream: TextIO | None = None, *, patience_seconds: float = 1.0) -> None:
        self.stream = sys.stderr if stream is None else stream
        self.patience_seconds = patience_seconds
        self.shown = self.stream.isatty()
        self._label = self._words = ""
        self._began = self._drew = 0.0
        self._done = self._total = self._cost = self._share = 0.0
        self._whole_began = 0.0
        self._lock = threading.Lock()

    def plan(self, total: float) -> None:
        """How much work there is in all, in any unit; `spend` counts it off."""
        self._total, self._done, self._whole_began = total, 0.0, time.monotonic()

    @contextmanager
    def task(self, label: str, cost: float = 0.0) -> Iterator["Progress"]:
        """A named piece of work that costs `cost` of the planned total."""
        self._label, self._began, self._cost, self._share, self._words = label, time.monotonic(), cost, 0.0, ""
        stop = threading.Event()
        ticker = threading.Thread(target=self._tick, args=(stop,), daemon=True) if self.shown else None
        if ticker is not None:
            ticker.start()
        try:
            yield self
        finally:
            stop.set()
            if ticker is not None:
                ticker.join()
            self._done += cost
            self._clear()

    def _tick(self, stop: threading.Event) -> None:
        while not stop.wait(max(0.05, min(0.5, self.patience_seconds))):
            self._draw()

    def at(self, share: float, words: str = "") -> None:
        """`share` of the present task is done, 0 to 1; `words` say more of where it is."""
        self._share, self._words = share, words
        if time.monotonic() - self._drew >= 0.2:
            self._draw()

    def _draw(self) -> None:
        now = time.monotonic()
        if not self.shown or now - self._began < self.patience_seconds:
            return
        taken = spelled(now - self._began)
        text = f"{self._label}: {100 * self._share:3.0f}%, {taken}" if self._share else f"{self._label}: {taken}"
        text += f", {self._words}" if self._words else ""
        whole = min(1.0, (self._done + self._share * self._cost) / self._total) if self._total else 0.0
        if whole > 0.02:
            left = (now - self._whole_began) * (1 - whole) / whole
            text += f"   all {100 * whole:3.0f}%, about {spelled(left)} left"
        with self._lock:
            self._drew = now
            self.stream.write(f"\r\x1b[2K{printable(text[:110], lines=False)}")
            self.stream.flush()

    def say(self, line: str) -> None:
        """A line that stays, shown whether or not stderr is a terminal."""
        self._clear()
        self.stream.write(printable(line) + "\n")
        self.stream.flush()

    def _clear(self) -> None:
        if self.shown and self._drew:
            self.stream.write("\r\x1b[2K")
            self.stream.flush()
            self._drew = 0.0


def spelled(seconds: float) -> str:
    """Seconds as people say them: `12 s`, `41 min`, `3.5 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
