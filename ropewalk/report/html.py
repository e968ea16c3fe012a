"""HTML in which escaping cannot be forgotten: a child that is not `Html` is text, and text is escaped.

Given up: a template engine, which would be a dependency for one page.
"""

import html
from base64 import b64encode
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

VOID = ("meta", "img", "source", "br")


class Html(str):
    """Text that is markup already. Made by the functions below, and by nothing else."""

    __slots__ = ()


def element(name: str, /, *children: str, **attributes: str) -> Html:
    """`<name ...>children</name>`. An underscore at the end of an attribute's name is dropped (`class_`)."""
    head = "".join(f' {key.rstrip("_").replace("_", "-")}="{_escaped(value)}"' for key, value in attributes.items())
    if name in VOID:
        return Html(f"<{name}{head}>")
    return Html(f"<{name}{head}>{join(children)}</{name}>")


def join(parts: Iterable[str]) -> Html:
    """Children one after the other, each escaped unless it is markup."""
    return Html("".join(part if isinstance(part, Html) else _escaped(part) for part in parts))


def raw(text: str) -> Html:
    """Markup that we wrote ourselves, such as the style sheet. Never for anything a user named."""
    return Html(text)


def _escaped(text: str) -> str:
    # A zero byte or an unpaired surrogate is no character of an HTML document.
    clean = text.replace("\x00", "\N{REPLACEMENT CHARACTER}").encode("utf-8", "replace").decode("utf-8")
    return html.escape(clean, quote=True)


@dataclass(frozen=True, kw_only=True)
class Table:
    """Rows of text under column headings; the first column names the row."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str = ""

    def html(self) -> Html:
        """The table, in a box that scrolls sideways where the page is narrow."""
        head = element("tr", *(element("th", column, scope="col") for column in self.columns))
        body = [
            element("tr", element("th", row[0], scope="row"), *(element("td", cell) for cell in row[1:]))
            for row in self.rows
        ]
        caption = [element("caption", self.caption)] if self.caption else []
        table = element("table", *caption, element("thead", head), element("tbody", *body))
        return element("div", table, class_="scroll", tabindex="0", role="region", aria_label=self.caption or "table")


def picture(light: bytes, dark: bytes, alt: str) -> Html:
    """An SVG inside the page, in the reader's colours; paper is always light."""
    address = "data:image/svg+xml;base64,"
    screen = element("source", srcset=address + b64encode(dark).decode(), media="screen and (prefers-color-scheme: dark)")
    return element("picture", screen, element("img", src=address + b64encode(light).decode(), alt=alt))
