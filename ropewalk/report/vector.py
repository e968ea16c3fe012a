"""A picture as a part of the page: matplotlib's SVG, taken apart and written again as short as it can be.

Drawn once, it shows in light, dark and on paper, since a theme's colours become the page's CSS variables. Letters are text
and not outlines, numbers end at a hundredth of a point, and what nobody refers to (names of groups, metadata, comments) is
left out: the page of five tasks is a sixth of what it is with each picture in it twice, light and dark, as an image.

Every element, attribute and letter is escaped here, so what a user named cannot break out, and an element that is not known
is a mistake of ours. Given up: letters that look the same on every machine. They are placed by DejaVu Sans, which is wide,
so another font leaves room and does not run over.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import fields
from xml.etree import ElementTree

from ropewalk.report.html import Html, attributes, join
from ropewalk.report.theme import LIGHT, Theme

ELEMENTS = ("svg", "g", "defs", "clipPath", "pattern", "path", "rect", "use", "image", "text", "tspan")
LEFT_OUT = ("metadata", "style")
PAGES_OWN = ("font-family", "stroke-linejoin: round", "stroke-linecap: butt")
"""Beginnings of declarations that the page's style sheet says for all pictures."""
NUMBER = re.compile(r"-?\d+\.\d{3,}(?:e-?\d+)?")
REFERENCE = re.compile(r"(?<=url\(#)[^)]+")
"""The id inside `url(#id)`; a colour begins with # too."""


def inlined(drawn: bytes, name: str, alt: str, theme: Theme = LIGHT) -> Html:
    """An SVG file drawn in `theme` as an element of the page; `name` keeps the ids of two pictures apart."""
    root = ElementTree.fromstring(drawn)
    ids = {old: f"{name}-{index + 1}" for index, old in enumerate(dict.fromkeys(_references(root)))}
    inside = join(_written(child, ids, colours(theme)) for child in root)
    width, height = (float(part) for part in root.attrib["viewBox"].split()[2:])
    # A point is a 72th of an inch, a pixel of the page a 96th.
    head = {"viewBox": f"0 0 {width:g} {height:g}", "width": f"{width / 0.75:.0f}", "role": "img", "aria-label": alt}
    return Html(f"<svg{attributes(head)}>{inside}</svg>")


def colours(theme: Theme) -> Mapping[str, str]:
    """The CSS variable of each of a theme's colours. No two colours of a theme are equal, and pictures use them for nothing
    else."""
    return {getattr(theme, field.name): f"var(--{field.name})" for field in fields(Theme) if field.name != "name"}


def _references(root: ElementTree.Element) -> Iterator[str]:
    """Every id that an element of the picture refers to."""
    for element in root.iter():
        for key, value in element.attrib.items():
            if key.endswith("href") and value.startswith("#"):
                yield value[1:]
            yield from REFERENCE.findall(value)


def _written(element: ElementTree.Element, ids: Mapping[str, str], named: Mapping[str, str]) -> Html:
    tag = element.tag.rpartition("}")[2]
    if tag in LEFT_OUT:
        return Html("")
    assert tag in ELEMENTS, tag
    found = {key.rpartition("}")[2]: value for key, value in element.attrib.items()}
    head = {key: short for key, value in found.items() if (short := _attribute(key, value, ids, named))}
    text = element.text or "" if tag in ("text", "tspan") else ""
    children = [_written(child, ids, named) for child in element]
    if tag in ("g", "defs") and not any(children):
        return Html("")
    if tag == "g" and not head:
        return join(children)
    return Html(f"<{tag}{attributes(head)}>{join([text, *children])}</{tag}>")


def _attribute(key: str, value: str, ids: Mapping[str, str], named: Mapping[str, str]) -> str:
    """An attribute's value in short; empty where it says nothing."""
    if key == "id":
        return ids.get(value, "")
    if key == "href" and value.startswith("data:"):
        return value
    if key == "href":
        return f"#{ids[value.removeprefix('#')]}"
    value = REFERENCE.sub(lambda found: ids[found[0]], value)
    if key == "style":
        return _style(value, named)
    if key == "transform":
        # Scales need their digits; an angle of 0 turns nothing.
        return re.sub(r"rotate\(-?0 [^)]*\)", "", _rounded(value, 4)).strip()
    value = _rounded(value, 2)
    return re.sub(r"\s*([A-Za-z])\s*", r"\1", value).strip() if key == "d" else value


def _style(value: str, named: Mapping[str, str]) -> str:
    parts = [part.strip() for part in value.split(";")]
    kept = [part.replace(": ", ":", 1) for part in parts if part and not part.startswith(PAGES_OWN)]
    for colour, variable in named.items():
        kept = [part.replace(colour, variable) for part in kept]
    return _rounded(";".join(kept), 2)


def _rounded(text: str, digits: int) -> str:
    """Numbers with `digits` decimals at most."""

    def short(found: re.Match[str]) -> str:
        said = f"{float(found[0]):.{digits}f}".rstrip("0").rstrip(".")
        return "0" if said == "-0" else said

    return NUMBER.sub(short, text)
