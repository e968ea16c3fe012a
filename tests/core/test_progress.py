"""Progress on a terminal, and silence elsewhere."""

import io
import time

from ropewalk.core.progress import Progress


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def test_nothing_is_drawn_where_nobody_looks():
    stream = io.StringIO()
    progress = Progress(stream, patience_seconds=0.0)
    with progress.task("reading", 1.0):
        progress.at(0.5)
    assert stream.getvalue() == ""


def test_a_share_is_drawn_and_wiped():
    stream = Terminal()
    progress = Progress(stream, patience_seconds=0.0)
    progress.plan(2.0)
    with progress.task("reading", 1.0):
        progress.at(0.5)
        assert "reading:  50%" in stream.getvalue()
        assert "all  25%" in stream.getvalue()
    assert stream.getvalue().endswith("\r\x1b[2K")


def test_work_that_cannot_say_how_far_it_is_still_shows_that_it_lives():
    stream = Terminal()
    with Progress(stream, patience_seconds=0.01).task("loading the model"):
        deadline = time.monotonic() + 5.0
        while "loading the model" not in stream.getvalue() and time.monotonic() < deadline:
            time.sleep(0.01)
    assert "loading the model: 0 s" in stream.getvalue()


def test_short_work_shows_nothing():
    stream = Terminal()
    with Progress(stream, patience_seconds=60.0).task("short"):
        pass
    assert stream.getvalue() == ""


def test_a_line_that_stays():
    stream = io.StringIO()
    Progress(stream).say("device cpu")
    assert stream.getvalue() == "device cpu\n"
