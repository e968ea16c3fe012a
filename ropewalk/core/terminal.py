"""Text for a terminal: what names and files of others say is shown, and never obeyed.

A file may be named so that printing its name sets the title of a window, hides a line or turns the writing direction. All
characters that Python does not call printable (controls, direction marks, half surrogates of names that are no UTF-8) are
shown as their escapes. Given up: joiners of some scripts are such characters too, and are shown as escapes.
"""


def printable(text: str, *, lines: bool = True) -> str:
    """The text with escapes for whatever a terminal would obey; line ends stay where there may be `lines`."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or (lines and c == "\n") else ascii(c)[1:-1] for c in text)
