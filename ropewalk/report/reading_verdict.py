"""The verdict on tasks, in words: what each effective length supports, and what the run does not say at all.

A length is a claim only where it is certified; what is refused is said with its reason, and a family's length is never said
without the task of it that falls short.
"""

from collections.abc import Iterable

from ropewalk.report.effective import Reading, parts
from ropewalk.report.facts import BASELINES, Facts
from ropewalk.report.inside import difference, not_asked, priced, said
from ropewalk.report.plots.effective import every, rank
from ropewalk.report.scores import Asked, first_protocols
from ropewalk.report.words import judged, listed, tokens, with_interval

FAMILIES = {
    "retrieval": "finding what is written somewhere",
    "tracing": "following what depends on what",
    "aggregation": "counting over the whole text",
    "association": "finding what is meant but not worded alike",
    "conversation": "telling alike requests apart",
}
"""The families of tasks there are, and what each is about."""
NAMED = 3
"""Claims in the first sentence; the others follow."""


def first_protocol(facts: Facts) -> list[Reading]:
    """The effective lengths that sentences speak of: each task under its first protocol."""
    found = [r for r in every(facts) if r.row.metric == "effective_length"]
    best = {r.members: min(rank(q.row.protocol) for q in found if q.members == r.members) for r in found}
    return [r for r in found if rank(r.row.protocol) == best[r.members]]


def claims(found: Iterable[Reading]) -> list[Reading]:
    """Certified lengths, families in the place of their tasks, tasks that fall short of their family beside it."""
    certified = [r for r in found if r.value]
    families = {r.family: r for r in certified if r.is_family}
    return [
        r for r in certified if r.is_family or r.family not in families or (r.value or 0) < (families[r.family].value or 0)
    ]


def claim(one: Reading) -> str:
    """One certified length: `at least 16,384 tokens on needle`, with its interval."""
    return f"{one.said.split(' (')[0]} tokens {one.interval} on {one.plain}"


def reading_line(facts: Facts) -> str:
    """How far each method is shown to read, in one sentence; why there is no such number where there is none."""
    found = first_protocol(facts)
    if not found:
        return ""
    alike: dict[str, list[str]] = {}
    for label in [*facts.extensions, *(b for b in BASELINES if b in facts.labels)]:
        mine = sorted(claims(r for r in found if r.method == label), key=lambda r: -(r.value or 0))
        if mine:
            more = f" and {len(mine) - NAMED} more, below" if len(mine) > NAMED else ""
            name = {"none": "the untouched model", "crop": "cropping"}.get(label, label)
            alike.setdefault(f"{listed([claim(r) for r in mine[:NAMED]])}{more}", []).append(name)
    if alike:
        return f"Certified to read: {'; '.join(f'{listed(names)} to {text}' for text, names in alike.items())}."
    reasons = list(dict.fromkeys(r.reason for r in found if r.value is None))
    if not reasons:
        return f"No method is certified to read even the shortest tested texts ({found[0].shortest} tokens)."
    more = " (the other reasons stand in the table)" if len(reasons) > 1 else ""
    return f"No effective length: {reasons[0]}{more}."


def reads(facts: Facts, label: str) -> list[str]:
    """A method's sentences: what is certified, what is not, what is refused and why."""
    mine = [r for r in first_protocol(facts) if r.method == label]
    texts = []
    certified = [r for r in mine if r.value]
    # What the first sentence says of a baseline is not said again.
    if certified and (label not in BASELINES or len(claims(mine)) > NAMED):
        texts.append(f"It is certified to read {'; '.join(_certified(r, mine) for r in claims(mine))}.")
    low = [r for r in mine if r.value == 0]
    if low:
        texts.append(f"Not certified even at {low[0].shortest} tokens: {listed([r.plain for r in low])}.")
    shared = shared_refusals(facts)
    texts += [
        f"No claim on {listed(t)}: {reason}." for reason, t in _refused(mine).items() if (reason, tuple(t)) not in shared
    ]
    return texts


def shared_refusals(facts: Facts) -> list[tuple[str, tuple[str, ...]]]:
    """Reasons that hold for every method alike, with the tasks: said once."""
    found = first_protocol(facts)
    by_method = [
        {(reason, tuple(titles)) for reason, titles in _refused([r for r in found if r.method == label]).items()}
        for label in dict.fromkeys(r.method for r in found)
    ]
    return sorted(set.intersection(*by_method)) if by_method else []


def _certified(one: Reading, mine: list[Reading]) -> str:
    text = claim(one)
    if one.ruler not in ("none", tokens(one.value or 0)) and one.ruler != "–":
        text += f" (by RULER's rule {one.ruler})"
    short = [r for r in mine if r.family == one.family and not r.is_family and (r.value or 0) < (one.value or 0)]
    if one.is_family and short:
        text += f", though {listed([r.plain for r in short])} alone {'falls' if len(short) == 1 else 'fall'} short of it"
    return text


def _refused(mine: list[Reading]) -> dict[str, list[str]]:
    """Titles by reason."""
    found: dict[str, list[str]] = {}
    for one in mine:
        if one.value is None:
            found.setdefault(one.reason, []).append(one.plain)
    return found


def gains(facts: Facts, label: str) -> list[str]:
    """What a method finds more than cropping at the longest length, on identical prompts."""
    said_of: dict[str, list[str]] = {"above": [], "below": [], "undecided": []}
    for asked in first_protocols(facts.asked):
        length = asked.lengths()[-1]
        row = difference(facts, asked, length, label, "crop")
        if row is None or row.value is None or length <= facts.trained_length:
            continue
        said_of[judged(row)].append(f"{asked.task} at {tokens(length)} tokens {said(row)}")
    words = {
        "above": "On identical prompts it finds more than cropping",
        "below": "On identical prompts it finds less than cropping",
        "undecided": "Not told apart from cropping",
    }
    return [f"{words[word]}: {'; '.join(found)}." for word, found in said_of.items() if found]


def never_answers(facts: Facts) -> list[str]:
    """Tasks that no method answers, and what its choices show instead."""
    found = []
    for asked in first_protocols(facts.asked):
        if asked.never and asked.lengths("choice"):
            found.append(f"{asked.task} ({_choices(facts, asked)})")
    if not found:
        return []
    return [
        f"Exact answers are hardly ever given on {listed(found)}; choices compare methods there, but certify nothing, as "
        "chance alone is right some of the time."
    ]


def _choices(facts: Facts, asked: Asked) -> str:
    length = asked.lengths("choice")[-1]
    rows = [(label, asked.at(label, length, "choice")) for label in facts.labels]
    parts = [f"{label} {with_interval(row, 2)}" for label, row in rows if row is not None]
    return f"the true one is the likeliest candidate at {tokens(length)} tokens: {', '.join(parts)}"


def unsaid(facts: Facts) -> list[str]:
    """What this run does not say, however good its numbers."""
    if not facts.asked:
        return []
    found = [r for r in every(facts) if r.row.metric == "effective_length"]
    known = {r.family for r in found if r.family}
    other = [f"{name} ({what})" for name, what in FAMILIES.items() if name not in known]
    texts = (
        [f"Nothing on {listed(other)}: no task of {'it' if len(other) == 1 else 'them'} was asked."]
        if known and other
        else []
    )
    if any(r.value is not None for r in found):
        # Where nothing is certified at all, the first sentence has the reason.
        texts += [f"No claim on {listed(titles)} by any method: {reason}." for reason, titles in shared_refusals(facts)]
    texts += never_answers(facts)
    other_short = {part for r in found for part in parts(r.row) if part.startswith("s0 is ")}
    texts += [f"In the effective lengths {part}." for part in sorted(other_short)]
    if facts.extensions and not priced(facts):
        texts.append("Nothing on the price inside the window in likelihood, which was not measured.")
    if facts.extensions and facts.window_known and not_asked(facts):
        texts.append(not_asked(facts))
    if not facts.window_known:
        texts.append("The server does not say what its model was trained to, so nothing here counts as beyond.")
    engines = sorted({r.engine for r in facts.record.measurements if r.task and r.engine != "transformers"})
    if engines:
        texts.append(f"The answers are those of {listed(engines)}: its weights, kernels and template are not ours to check.")
    spoken = list(dict.fromkeys(one.protocol for one in first_protocols(facts.asked)))
    if len(spoken) < len({one.protocol for one in facts.asked}):
        texts.append(f"The sentences are of {listed(spoken)}; what was asked in other ways stands in the tables.")
    templates = sorted({r.template for r in facts.record.measurements if r.template})
    asked_in = f" in the template {listed(templates)}" if templates else ""
    between = "A length between two of the tested ones is not certified. " if any(r.value for r in found) else ""
    texts.append(
        f"{between}All is of this model, these wordings{asked_in} and seed "
        f"{facts.record.card.seed}; a task of the same family in other words may come out otherwise."
    )
    return texts
