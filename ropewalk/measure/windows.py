"""Which tokens are read and which are scored, for every likelihood protocol, as plain numbers.

| protocol | what is read | what is scored |
| --- | --- | --- |
| `prefix` | the first N tokens, once | every token but the first |
| `crop-window` | `trained_length` tokens that end at e | the last 512 of them |
| `by-length` | the first e tokens, a forward of its own for each e | the last 512 of them |
| `disjoint` | windows of W tokens side by side | all but the first of each |
| `sliding-press` | a window of W tokens every S (arXiv:2108.12409) | the last S of each; the first window whole |
| `yarn-truncate` | the first N tokens for each N of a grid | every token but the first, each N again |

A `Window` reads ids[begin:end] and scores the predicted tokens low..end-1. Token 0 of what is read is never predicted.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from ropewalk.core.errors import LengthError

TARGETS = 512
"""Tokens scored at the end of a crop window (the issue's and the papers' habit of half a thousand)."""


@dataclass(frozen=True, kw_only=True)
class Window:
    """Token positions in a document: [begin, end) is read, [low, end) is scored."""

    begin: int
    low: int
    end: int

    @property
    def num_scored(self) -> int:
        """Scored tokens."""
        return self.end - self.low


def crop_windows(trained_length: int, length: int, num_windows: int, *, targets: int = TARGETS) -> list[Window]:
    """Windows of `trained_length` tokens whose ends are spread evenly over (trained_length, length].

    Each scores its last `targets` tokens; fewer where windows would overlap in what they score, or would score more than a
    quarter of what they read.
    Raises `LengthError` where there is nothing beyond the trained length.
    """
    beyond = length - trained_length
    if beyond < 1:
        raise LengthError(f"length {length} is not above the trained length {trained_length}, so there is nothing to crop")
    num_windows = max(1, min(num_windows, beyond))
    scored = max(1, min(targets, beyond // num_windows, trained_length // 4))
    ends = [trained_length + (beyond * (index + 1)) // num_windows for index in range(num_windows)]
    return [Window(begin=end - trained_length, low=end - scored, end=end) for end in ends]


def length_windows(trained_length: int, length: int, num_windows: int, *, targets: int = TARGETS) -> list[Window]:
    """For plans that depend on the length: the same ends as the crop windows, and two inside the trained length.

    What is read begins at 0: each window is a text of its own length.
    """
    outside = crop_windows(trained_length, length, num_windows, targets=targets)
    inside = []
    for end in (trained_length // 2, trained_length):
        if end >= 2:
            inside.append(Window(begin=0, low=max(1, end - min(targets, end - 1)), end=end))
    return inside + [Window(begin=0, low=w.low, end=w.end) for w in outside]


def disjoint_windows(length: int, window: int) -> list[Window]:
    """Windows side by side; the last may be shorter, and is left out where it has no second token."""
    _check_window(length, window)
    windows = [Window(begin=b, low=b + 1, end=min(b + window, length)) for b in range(0, length, window)]
    return [w for w in windows if w.num_scored > 0]


def sliding_windows(length: int, window: int, stride: int) -> list[Window]:
    """Press et al.'s sliding window: after the first, each window scores only the `stride` tokens that are new to it."""
    _check_window(length, window)
    if not 1 <= stride <= window:
        raise LengthError(f"the stride must lie between 1 and the window of {window} tokens, got {stride}")
    windows = [Window(begin=0, low=1, end=min(window, length))]
    while windows[-1].end < length:
        end = min(windows[-1].end + stride, length)
        windows.append(Window(begin=max(0, end - window), low=windows[-1].end, end=end))
    return windows


def truncated_windows(length: int, num_points: int) -> list[Window]:
    """YaRN's figure as its repository runs it: one window from the start for each of `num_points` even lengths."""
    ends = [length * (index + 1) // num_points for index in range(num_points)]
    return [Window(begin=0, low=1, end=end) for end in ends if end >= 2]


def _check_window(length: int, window: int) -> None:
    if window < 2:
        raise LengthError(f"a window has at least 2 tokens, got {window}")
    if length < 2:
        raise LengthError(f"a text has at least 2 tokens, got {length}")


def effort(length: int) -> float:
    """Relative cost of one forward: linear and attention parts meet at about 6k tokens for a small model."""
    return length * (1.0 + length / 6144.0)


def windows_effort(windows: Iterable[Window]) -> float:
    """Relative cost of reading each window."""
    return sum(effort(w.end - w.begin) for w in windows)
