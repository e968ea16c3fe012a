"""`report.html` and the PNG files, made from a run folder and nothing else.

The page is one file: pictures are inside it, in the reader's light or dark; no script, no font, no address outside. It is
written for a run that goes on as well, and says so first.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from errno import EDQUOT, ENOSPC
from pathlib import Path

from ropewalk.core.errors import MachineError
from ropewalk.report.context import findings, protocols, what_was_run
from ropewalk.report.cost import cost, total_line
from ropewalk.report.facts import Facts, read_facts
from ropewalk.report.headline import factor_text, gain_text, lines, price_text, retrieval_text
from ropewalk.report.html import Html, Table, element, raw
from ropewalk.report.inside import checks, price_inside, retrieval_inside
from ropewalk.report.others import others
from ropewalk.report.plots.curves import CURVES
from ropewalk.report.plots.effective import EFFECTIVE
from ropewalk.report.plots.gain import GAIN
from ropewalk.report.plots.likelihood import LIKELIHOOD
from ropewalk.report.plots.paired import PAIRED
from ropewalk.report.plots.perplexity import PERPLEXITY
from ropewalk.report.plots.plot import Plot
from ropewalk.report.plots.price import PRICE
from ropewalk.report.plots.retrieval import RETRIEVAL
from ropewalk.report.plots.spectrum import SPECTRUM
from ropewalk.report.short_tasks import short_lines, short_section
from ropewalk.report.style import STYLE
from ropewalk.report.theme import LIGHT, drawing, new_figure, png, require_matplotlib, svg
from ropewalk.report.vector import inlined
from ropewalk.report.verdict import verdict
from ropewalk.report.words import MISSING, counted, number, tokens, with_interval

PLOTS: tuple[Plot, ...] = (LIKELIHOOD, GAIN, PRICE, EFFECTIVE, CURVES, RETRIEVAL, PAIRED, SPECTRUM, PERPLEXITY)
"""In the order of the page."""
TASKS = (EFFECTIVE, CURVES, RETRIEVAL, PAIRED)
"""Those of tasks."""


def write_report(folder: str | Path) -> Path:
    """Writes `report.html` and one PNG for each picture into a run folder; returns the path of the page.

    Raises `SourceError` where `folder` is no run folder, `InputError` where matplotlib is not installed, `MachineError`
    where the disk is full.
    """
    facts = read_facts(folder)
    require_matplotlib()
    path = Path(folder)
    drawn = {plot.name: pictures(plot, facts) for plot in PLOTS if plot.missing(facts) is None}
    for plot in PLOTS:
        if plot.name in drawn:
            _write(path / f"{plot.name}.png", drawn[plot.name][0])
        else:
            # A picture of an earlier, longer report would contradict this one.
            (path / f"{plot.name}.png").unlink(missing_ok=True)
    page = render(facts, {name: vector for name, (_, vector) in drawn.items()})
    _write(path / "report.html", page.encode("utf-8"))
    return path / "report.html"


def pictures(plot: Plot, facts: Facts) -> tuple[bytes, bytes]:
    """A plot as PNG and as SVG."""
    with drawing(LIGHT):
        figure = new_figure(*plot.size(facts), plot.title, provenance(facts), LIGHT)
        plot.draw(figure, facts, LIGHT)
        return png(figure), svg(figure)


def provenance(facts: Facts) -> str:
    """The model, its weights and the texts, in one line: what every picture carries with it."""
    card = facts.record.card
    made = f" ({card.quantisation})" if card.quantisation else ""
    texts = read(facts)
    state = "" if card.status == "done" else f" · {card.status.upper()}, unfinished"
    return f"{card.model}{made} · {card.dtype} on {card.device} · {texts} · run {card.hash}{state}"


def read(facts: Facts) -> str:
    """What was read and how far: texts, or tasks where no text was scored."""
    upto = f"to {tokens(facts.length)} tokens"
    if not facts.asked and not facts.tokens and (short := short_lines(facts)):
        num = len({line.task for line in short})
        return f"{counted(num, 'short task')} asked inside {tokens(facts.trained_length)} tokens"
    if facts.asked and not facts.tokens:
        return f"{counted(len({asked.task for asked in facts.asked}), 'task')} asked {upto}"
    return f"{counted(facts.num_documents, 'document')} read {upto}"


# --- the page ---------------------------------------------------------------------------------------------------------


def render(facts: Facts, drawn: dict[str, bytes]) -> str:
    """The whole page as text. `drawn`: SVG by the plot's name."""
    title = f"How far does {facts.record.card.model} read?"
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("title", title),
        element("style", raw(STYLE)),
    )
    sections = [
        element("header", element("h1", title), element("p", provenance(facts), class_="provenance")),
        *unfinished(facts),
        section("verdict", "Verdict", *_verdict(facts)),
        *([side_by_side(facts)] if facts.tokens or not (facts.asked or short_section(facts)) else []),
        *([section("short-tasks", "Short tasks", *short_section(facts))] if short_section(facts) else []),
        *(plot_section(plot, facts, drawn.get(plot.name)) for plot in ordered(facts) if shown(plot, facts)),
        *([section("others", "Other numbers", *others(facts))] if others(facts) else []),
        *not_shown(facts),
        section("run", "What was run", *what_was_run(facts)),
        section("cost", "What it cost", element("p", total_line(facts)), cost(facts).html()),
        section("protocols", "How each number was measured", protocols(facts)),
        section("findings", "Findings and warnings", findings(facts)),
    ]
    foot = element(
        "footer", element("p", "Made by ropewalk from card.json, measurements.jsonl and the nll arrays of this folder.")
    )
    return "<!DOCTYPE html>\n" + element("html", head, element("body", element("main", *sections), foot), lang="en") + "\n"


def ordered(facts: Facts) -> list[Plot]:
    """The pictures in the order of the page: tasks first where no text was scored."""
    return sorted(PLOTS, key=lambda plot: plot not in TASKS) if facts.asked and not facts.tokens else list(PLOTS)


def shown(plot: Plot, facts: Facts) -> bool:
    """Whether a picture has a section of its own."""
    return plot.missing(facts) is None or (plot.tabled and bool(plot.numbers(facts).rows))


def not_shown(facts: Facts) -> list[Html]:
    """What the page could hold and this run has not, with the reasons, in one place."""
    gone = [plot for plot in PLOTS if not shown(plot, facts)]
    if not gone:
        return []
    terms = [
        part for p in gone for part in (element("dt", p.title, id=p.name), element("dd", f"Not shown: {p.missing(facts)}."))
    ]
    return [section("absent", "Not in this run", element("dl", *terms))]


def side_by_side(facts: Facts) -> Html:
    """The headline table."""
    note = element("p", headline_note(facts), class_="note")
    return section("headline", "The methods side by side", headline(facts).html(), note)


def section(name: str, heading: str, *children: str) -> Html:
    """A part of the page under its own heading."""
    return element(
        "section", element("h2", heading, id=f"{name}-heading"), *children, id=name, aria_labelledby=f"{name}-heading"
    )


def unfinished(facts: Facts) -> list[Html]:
    """The banner of a run that has not ended."""
    card = facts.record.card
    if card.status == "done":
        return []
    # The control has arrays too, but is no method of the run.
    asked = [name for name, what in card.files.items() if name.startswith("nll/") and what["method"] in card.plans]
    done = sum(1 for name in asked if (facts.record.path / name).is_file())
    total = len(card.plans) * len(card.documents)
    what = {"running": "is still running", "interrupted": "was interrupted", "failed": "failed"}.get(
        card.status, card.status
    )
    rest = "" if card.status == "running" else " Run it again with --resume to have the rest."
    text = (
        f"Unfinished: this run {what}. {done} of {total} method-and-document cells are on disk; this page shows what is "
        f"there. Rows with intervals are written when the run ends.{rest}"
    )
    return [element("p", text, class_="banner", role="status")]


def _verdict(facts: Facts) -> list[Html]:
    sentences = verdict(facts)
    whole = [s for s in sentences if not s.subject]
    leads = [element("p", s.text, class_="lead" if i == 0 else "second") for i, s in enumerate(whole)]
    items = [
        element("li", element("strong", s.subject), *(element("p", part) for part in s.parts))
        for s in sentences
        if s.subject
    ]
    return [*leads, *([element("ul", *items)] if items else [])]


def headline(facts: Facts) -> Table:
    """The headline table."""
    length = facts.retrieval_length
    columns = [
        "method",
        "factor",
        "NLL inside",
        "NLL beyond, same tokens",
        "NLL beyond, all tokens",
        "net gain over crop",
        "price inside",
    ]
    columns += [f"retrieval at {tokens(length)}"] if length is not None else []
    timed = any(line.seconds for line in lines(facts))
    rows = []
    for line in lines(facts):
        inside = with_interval(line.inside_row) if line.inside_row is not None else number(line.inside)
        if line.cropped and line.inside is None:
            inside = "as none"
        row = [
            line.label,
            factor_text(line),
            inside,
            number(line.beyond),
            with_interval(line.beyond_all),
            gain_text(line),
            price_text(line),
        ]
        row += [retrieval_text(line)] if length is not None else []
        row += [MISSING if not line.seconds else f"{line.seconds:,.0f}"] if timed else []
        # The interval under its value: side by side the table would not fit the page.
        rows.append([cell.replace(" [", "\n[") for cell in row])
    return Table(
        columns=[*columns, *(["seconds"] if timed else [])],
        rows=rows,
        caption="Likelihood in nats per token; 95% intervals in brackets",
    )


def headline_note(facts: Facts) -> str:
    """How to read the headline table."""
    text = f"Inside: the first {tokens(facts.trained_length)} tokens. "
    if "crop" in facts.tokens:
        text += (
            "Same tokens: the targets that crop scored, so that methods can be compared; their difference to crop is the "
            "net gain. "
        )
    else:
        text += "No crop in this run: beyond is the mean over all tokens there. "
    gains = [row for label in facts.labels if (row := facts.net_gain(label)) is not None]
    if any(row.note and "within-document" in row.note for row in gains):
        text += (
            f"Intervals are within-document ({counted(gains[0].num_clusters, 'block')}): they say how sure the number is "
            "for this text, not for other texts. "
        )
    elif gains:
        text += f"Intervals are over {counted(gains[0].num_clusters, 'document')}. "
    return text.strip()


def plot_section(plot: Plot, facts: Facts, drawn: bytes | None) -> Html:
    """A picture with its caption and its numbers, or the reason why there is none."""
    reason = plot.missing(facts)
    numbers = plot.numbers(facts).html()
    beside = price_inside(facts) if plot is EFFECTIVE else []
    if plot is PRICE and not shown(EFFECTIVE, facts):
        beside = retrieval_inside(facts)
    if reason is not None or drawn is None:
        return section(plot.name, plot.title, element("p", f"No picture: {reason}.", class_="absent"), numbers, *beside)
    figure = element(
        "figure",
        element("div", inlined(drawn, plot.name, plot.alt(facts)), class_="picture"),
        element("figcaption", plot.caption(facts)),
    )
    if not plot.tabled:
        numbers = element("details", element("summary", "The numbers"), numbers)
    more = element("details", element("summary", "Checks of the answers"), *checks(facts)) if plot is PAIRED else ""
    return section(plot.name, plot.title, figure, numbers, *beside, *([more] if more and checks(facts) else []))


# --- files ------------------------------------------------------------------------------------------------------------


@contextmanager
def _full_disk_is_told(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in (ENOSPC, EDQUOT):
            raise MachineError(
                f"the disk is full while writing {path.name}; free some space and make the report again"
            ) from error
        raise


def _write(path: Path, content: bytes) -> None:
    """`content` under `path`, whole or not at all."""
    stage = path.with_name(f".{path.name}.part")
    with _full_disk_is_told(path):
        try:
            stage.write_bytes(content)
            os.replace(stage, path)
        finally:
            stage.unlink(missing_ok=True)
