"""What somebody else named is shown on a terminal, and not obeyed by it."""

import io
from pathlib import Path

import pytest
from command import Command

from ropewalk.core.progress import Progress
from ropewalk.core.terminal import printable
from ropewalk.data.reading.records import LeftOut

TITLE = "a\x1b]0;owned\x07.jsonl"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (TITLE, r"a\x1b]0;owned\x07.jsonl"), ("über 文", "über 文"), ("a\nb", "a\nb"), ("a\rb", r"a\rb"),
        ("\u202etxt", r"\u202etxt"), ("\udce9", r"\udce9"), ("\x9b2J", r"\x9b2J"),
    ],
)  # fmt: skip
def test_what_a_terminal_would_obey_is_shown(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_a_name_has_no_line_of_its_own() -> None:
    assert str(LeftOut(file="a\nropewalk: all is well", number=3, reason="is broken", detail="\x1b[2K")) == (
        r"a\nropewalk: all is well line 3: is broken (\x1b[2K)"
    )


def test_a_line_that_stays_is_shown() -> None:
    stream = io.StringIO()
    Progress(stream).say(TITLE)
    assert stream.getvalue() == r"a\x1b]0;owned\x07.jsonl" + "\n"


@pytest.mark.parametrize("content", ['{"text": 5}\n' * 20, '{"text": "Words that are read."}\n' * 20 + '{"text": 5}\n'])
def test_a_file_with_a_name_for_terminals(content: str, tmp_path: Path, tiny_checkpoint: Path, command: Command) -> None:
    """Named in a refusal, and as a source of what was read."""
    texts = tmp_path / "texts"
    texts.mkdir()
    (texts / TITLE).write_text(content)
    said = command("data", texts / TITLE, "--tokenizer", tiny_checkpoint, "--length", "48", "--out", tmp_path / "out")
    assert r"a\x1b]0;owned\x07" in said.err
    assert "\x1b" not in said.err + said.out
    gone = command(
        "data", texts / f"gone{TITLE}", "--tokenizer", tiny_checkpoint, "--length", "48", "--out", tmp_path / "no"
    )
    assert gone.code == 2
    assert "\x1b" not in gone.err
