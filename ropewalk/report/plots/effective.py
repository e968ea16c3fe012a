"""Effective lengths: for every task, family and method the certified tokens, what is not ruled out, or why there is none."""

from typing import Any

from ropewalk.report.effective import LIKELIHOOD, THRESHOLD, Reading, readings
from ropewalk.report.facts import Facts
from ropewalk.report.html import Table
from ropewalk.report.plots.plot import Plot, legend_below, length_axis, method_name
from ropewalk.report.scores import PROTOCOLS
from ropewalk.report.theme import Theme, printable, strokes
from ropewalk.report.words import MISSING, counted, cut, listed

TITLE = 36
"""Letters of a task's name."""
GRID = 3
"""Lengths of a map from which on a refused effective length is worth a place beside likelihoods."""
MOST = 36
"""Lines drawn; families come before their tasks, and what is left stands in the table."""


class _Effective(Plot):
    """A line from the certified length to the longest that is not ruled out."""

    name = "effective-length"
    title = "How far it is shown to read: effective lengths"
    tabled = True

    def missing(self, facts: Facts) -> str | None:
        found = every(facts)
        if not found and too_few(facts):
            asked = counted(facts.num_asked_lengths, "length")
            return f"tasks were asked at {asked}, too few for an effective length; give more with --lengths"
        if not found:
            return "no task was asked"
        if all(r.value is None for r in found):
            return "no effective length can be had from this run, for the reasons in the table"
        return None

    def size(self, facts: Facts) -> tuple[float, float]:
        found = lines(facts)
        return (9.2, 1.75 + 0.23 * len(found) + 0.16 * len({r.title for r in found}))

    def draw(self, figure: Any, facts: Facts, theme: Theme) -> None:
        axes = figure.subplots()
        found, y = lines(facts), 0.0
        titles: list[tuple[float, str]] = []
        lengths = grid(facts)
        for index, one in enumerate(found):
            if index and one.title != found[index - 1].title:
                y += 1.7
            elif index:
                y += 1.0
            if not titles or titles[-1][1] != one.title:
                titles.append((y, one.title))
            draw_reading(axes, one, y, lengths, strokes(facts.labels, theme)[one.method], theme)
        length_axis(axes, facts, lengths, theme)
        # Room for the words beside the lines.
        axes.set_xlim(right=max(lengths) * 2 ** (0.42 * len(_span(lengths))))
        axes.set_yticks([place for place, _ in titles], [cut(printable(name), TITLE) for _, name in titles])
        axes.set_ylim(y + 0.8, -0.8)
        axes.grid(axis="y", visible=False)
        axes.set_xlabel("length (tokens)")
        labels = [label for label in facts.labels if any(r.method == label for r in found)]
        legend_below(figure, _handles(labels, facts, theme), [method_name(n) for n in labels])

    def caption(self, facts: Facts) -> str:
        text = (
            "Each mark is certified: at this length and at every shorter tested one, the lower 95% bound of the score is at "
            f"least {THRESHOLD:.0%} of the untouched model's short score. The line ends at the longest length that the data "
            "do not rule out. An arrow says at least: the longest tested length is certified. An open square is not "
            "certified even at the shortest tested length. The grid is 2^k and 3*2^(k-1); nothing between two of its "
            "lengths was tested."
        )
        drawn = lines(facts)
        if any(r.row.metric in LIKELIHOOD for r in drawn):
            text += (
                " From the likelihood, against cropping on the same tokens: safe is the longest up to which reading all is "
                "nowhere worse by more than a margin, use the longest at which it is better."
            )
        gone = list(dict.fromkeys(r.title for r in every(facts) if r not in drawn))
        return text + (f" Not drawn, in the table: {listed(gone)}." if gone else "")

    def alt(self, facts: Facts) -> str:
        return f"Effective lengths: {'; '.join(f'{r.title}, {r.method}: {r.said}' for r in lines(facts))}."

    def numbers(self, facts: Facts) -> Table:
        rows = []
        for one in every(facts):
            note = one.reason if one.value is None else "" if one.worst == MISSING else f"worst depth at {one.worst}"
            certified = one.said if one.value is None or one.value == 0 else f"{one.said.split(' (')[0]} {one.interval}"
            if one.row.metric != "effective_length" and one.value is not None:
                note = one.reason
            counted = f"{one.row.n} in {one.row.num_clusters}" if one.row.n else MISSING
            rows.append([one.title, one.method, certified, one.short_score, one.point, one.ruler, counted, note])
        columns = [
            "task or family", "method", "certified tokens", "s0, untouched, short", "point estimates alone", "RULER's rule",
            "answers in haystacks", "why, or where it is weakest",
        ]  # fmt: skip
        caption = "Effective length in tokens: certified [certified, longest not ruled out]"
        return Table(columns=columns, rows=rows, caption=caption)


def every(facts: Facts) -> list[Reading]:
    """Every length that the run certifies or refuses, methods in the order shown.

    A map of one or two lengths beside likelihoods, as `compare` makes by itself, asks for no effective length: a refusal
    says nothing there that its shares do not say. A number is shown however few the lengths.
    """
    found = [r for r in readings(facts.record.measurements) if not (r.refused and too_few(facts))]
    order = {label: i for i, label in enumerate(facts.labels)}
    tasks = [asked.task for asked in facts.asked]
    first = {r.family: min([tasks.index(m) for q in found if q.family == r.family for m in q.members if m in tasks] or [99])
             for r in found}  # fmt: skip
    found.sort(key=lambda r: (r.row.metric != "effective_length", first[r.family]))
    places = {name: i for i, name in enumerate(dict.fromkeys(r.title for r in found))}
    return sorted(found, key=lambda r: (places[r.title], order.get(r.method, 99)))


def too_few(facts: Facts) -> bool:
    """Whether tasks were asked at so few lengths, beside likelihoods, that no effective length was looked for."""
    return bool(facts.asked) and bool(facts.tokens) and facts.num_asked_lengths < GRID


def lines(facts: Facts) -> list[Reading]:
    """What is drawn: each task under its first protocol, as many as there is room for."""
    firsts = {members: min(rank(r.row.protocol) for r in every(facts) if r.members == members)
              for members in {r.members for r in every(facts)}}  # fmt: skip
    found = [r for r in every(facts) if rank(r.row.protocol) == firsts[r.members]]
    kept: list[Reading] = []
    for name in dict.fromkeys(r.title for r in found):
        here = [r for r in found if r.title == name]
        if len(kept) + len(here) <= MOST:
            kept += here
    return kept


def rank(protocol: str) -> int:
    """The place of a protocol among those of a map."""
    return PROTOCOLS.index(protocol) if protocol in PROTOCOLS else len(PROTOCOLS)


def grid(facts: Facts) -> list[int]:
    """The lengths of the axis: those asked, and those certified."""
    found = {length for asked in facts.asked for length in asked.lengths()}
    found |= {n for r in every(facts) for n in (r.value, r.high) if n}
    return sorted(found) or [facts.length]


def _span(lengths: list[int]) -> range:
    """Doublings from the shortest to the longest length."""
    return range(max(1, round(max(lengths) / min(lengths)).bit_length()))


def draw_reading(axes: Any, one: Reading, y: float, lengths: list[int], stroke: Any, theme: Theme) -> None:
    """One line: a mark, what is not ruled out, and the number in words."""
    start = min(lengths)
    if one.value is None:
        axes.plot([start], [y], marker="x", markersize=5, color=stroke.colour, linestyle="none")
        text, at = f"{one.said}: {_short(one.reason.partition('; ')[0])}", start
    else:
        value, at = one.value or start, max(one.value or start, one.high or start)
        axes.plot([start, value], [y, y], color=stroke.colour, linewidth=1.0, alpha=0.35 if one.value else 0.0)
        axes.plot([value, at], [y, y], color=stroke.colour, linewidth=3.4, alpha=0.45, solid_capstyle="butt")
        hollow = {} if one.value else {"markerfacecolor": theme.surface}
        marker = ">" if one.censored else "s" if not one.value else stroke.marker
        axes.plot([value], [y], marker=marker, markersize=6.2, color=stroke.colour, linestyle="none", **hollow)
        text = one.said
    axes.annotate(
        printable(text.replace("\N{MINUS SIGN}", "-")), (at, y), xytext=(9, 0), textcoords="offset points", va="center",
        fontsize=7.6, color=theme.ink if one.value else theme.muted,
    )  # fmt: skip


def _short(reason: str) -> str:
    """A reason as a picture has room for it; the whole stands in the table."""
    known = {
        "not above a guess": "not solved even at short length",
        "cannot certify": "too few answers",
        "was not measured at the shortest": "the untouched model was not measured",
        "needs every length of the grid": "lengths of the grid are missing",
    }
    return next(
        (words for part, words in known.items() if part in reason), reason if len(reason) < 48 else f"{reason[:45]}..."
    )


def _handles(labels: list[str], facts: Facts, theme: Theme) -> list[Any]:
    from matplotlib.lines import Line2D

    found = strokes(facts.labels, theme)
    return [Line2D([], [], color=found[n].colour, marker=found[n].marker, linewidth=2.4, alpha=0.9) for n in labels]


EFFECTIVE: Plot = _Effective()
