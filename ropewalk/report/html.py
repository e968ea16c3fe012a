"""HTML in which escaping cannot be forgotten: a child that is not `Html` is text, and text is escaped.

Given up: a template engine, which would be a dependency for one page.
"""

import html
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

VOID = ("meta", "br")


class Html(str):
    """Text that is markup already. Made by the functions below, and by nothing else."""

    __slots__ = ()


def element(name: str, /, *children: str, **named: str) -> Html:
    """`<name ...>children</name>`. An underscore at the end of an attribute's name is dropped (`class_`)."""
    head = attributes({key.rstrip("_").replace("_", "-"): value for key, value in named.items()})
    if name in VOID:
        return Html(f"<{name}{head}>")
    return Html(f"<{name}{head}>{join(children)}</{name}>")


def attributes(content: Mapping[str, str]) -> Html:
    """` key="value"` for each, escaped."""
    return Html("".join(f' {key}="{_escaped(value)}"' for key, value in content.items()))


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
