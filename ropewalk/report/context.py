"""What a reader needs to judge the numbers: what was run on what, how each protocol measures, and what went wrong."""

import json
from collections.abc import Mapping
from typing import Any

from ropewalk.report.effective import LIKELIHOOD
from ropewalk.report.facts import Facts
from ropewalk.report.html import Html, Table, element
from ropewalk.report.words import MISSING, tokens

PROTOCOLS = {
    "prefix": "One forward over the text; every token but the first is scored with all that comes before it.",
    "crop-window": (
        "The untouched model reads windows of its trained length whose ends are spread evenly beyond it, and the last "
        "tokens of each window are scored; paired numbers use exactly these tokens."
    ),
    "by-length": (
        "Frequencies of this plan depend on the length of the text, so each length has a forward of its own over all the "
        "text up to it, and its last tokens are scored."
    ),
    "disjoint": "The text is cut into windows side by side; every token of a window but the first is scored.",
    "sliding-press": (
        "A window slides by a stride; after the first window only the tokens that are new to it are scored (Press et al.)."
    ),
    "yarn-truncate": (
        "The text is cut after N tokens for each N of a grid and read anew; the mean of window means and the token-weighted "
        "mean are both written, as they differ."
    ),
    "longppl": (
        "Perplexity of the key tokens alone: those that an evaluator predicts much better with all the text before them "
        "than with its last tokens only (LongPPL)."
    ),
    "repeated-text": (
        "A text that repeats its first stretch is read beside the text as it goes on; a model that uses far text scores "
        "better on the repeated one, at the same positions (Su)."
    ),
    "byod-sensitivity": (
        "The first two of a passage's last three sentences are replaced by another passage's; the Jensen-Shannon divergence "
        "of the next-token distributions over the last sentence (BYOD)."
    ),
    "sensitivity-by-distance": (
        "One early sentence of the long text is replaced; the divergence is read at the first sentence that begins at least "
        "as many tokens later as the length column says."
    ),
    "multikey-branch": (
        "Several keys are hidden in one text; each question is asked on the same prefilled cache, and an answer is right "
        "when every one of its tokens is the model's first choice."
    ),
    "multikey-grow": (
        "Several keys are hidden in one text that grows, and it is asked at each length as it does; the number of keys "
        "grows with the length, and the axis is the distance back to the key."
    ),
    "single-key": "One key is hidden in one text and asked for.",
    "one-question": "A text with one question about all of it; an answer is right as the rule of its task says.",
    "stand-alone": (
        "The same questions as prompts that share nothing, each read from its start: how often an answer differs from that "
        "on the shared cache is rounding."
    ),
    "lm-eval": (
        "lm-eval asks its own prompts and scores the answers by its own rules, on the live model with the plan on; prompts "
        "longer than the old window are cut from the left. Intervals are over the task's documents."
    ),
    "no-context": "The same questions without the text: what is answered here was guessed.",
}


def what_was_run(facts: Facts) -> list[Html]:
    """Model, machine, texts, command and plans."""
    card = facts.record.card
    peaks = [row.peak_bytes for row in facts.record.measurements if row.peak_bytes]
    pairs = {
        "model": card.model,
        "source": _flat(card.source),
        "weights": card.quantisation or "as stored, not quantised",
        "computed in": f"{card.dtype} on {card.device}",
        "hardware": _flat(card.hardware),
        "most memory held": f"{max(peaks) / 10**9:.2f} GB" if peaks else MISSING,
        "versions": _flat(card.versions),
        "trained length": f"{tokens(facts.trained_length)} tokens" if facts.window_known else "not known",
        "lineage": str(card.geometry.get("lineage", MISSING)),
        "scheme": str(card.geometry.get("scheme", MISSING)),
        "seed": str(card.seed),
        "started, finished": f"{card.started or MISSING}, {card.finished or MISSING}",
        "status": card.status,
        "run hash": card.hash,
    }
    facts_table = Table(columns=["what", "value"], rows=[[key, value] for key, value in pairs.items()])
    config = Table(columns=["argument", "value"], rows=[[key, _said(value)] for key, value in sorted(card.config.items())])
    return [
        facts_table.html(),
        element("h3", "Documents"),
        documents(facts).html(),
        element("h3", f"Arguments of {card.verb}, defaults included"),
        config.html(),
        element("h3", "Plans"),
        plans(facts).html(),
    ]


def documents(facts: Facts) -> Table:
    """The texts, with their tokens and hashes."""
    rows = []
    for document in facts.record.card.documents:
        counts = [document.get(key) for key in ("num_tokens", "scored_tokens")]
        sizes = [tokens(count) if isinstance(count, int) else MISSING for count in counts]
        rows.append([str(document.get("name", MISSING)), *sizes, str(document.get("sha256", MISSING))[:12]])
    return Table(columns=["document", "tokens", "read", "sha256"], rows=rows)


def plans(facts: Facts) -> Table:
    """Every plan with its complete options."""
    rows = []
    for label, plan in facts.plans.items():
        factor = facts.factor(label)
        shown = MISSING if factor is None else f"{factor:g}"
        rows.append(
            [
                label,
                str(plan.get("kind", MISSING)),
                shown,
                _said(plan.get("length")),
                _flat(plan.get("options", {})) or "none",
            ]
        )
    return Table(columns=["method", "kind", "factor", "length", "options"], rows=rows)


def protocols(facts: Facts) -> Html:
    """One sentence for each protocol of this run."""
    present = dict.fromkeys(row.protocol for row in facts.record.measurements)
    terms = []
    for name in present:
        sentence = PROTOCOLS.get(name, "This version of the report has no sentence for this protocol.")
        terms += [element("dt", name), element("dd", sentence)]
    return element("dl", *terms) if terms else element("p", "No row has been written yet.", class_="absent")


def findings(facts: Facts) -> Html:
    """What the checkpoint's owner should know, and every row without a number whose reason stands nowhere else."""
    card = facts.record.card
    rows = [[f.get("severity", "note"), f.get("field", ""), f.get("problem", ""), f.get("mend", "")] for f in card.findings]
    rows += [
        ["no number", f"{row.method}: {row.metric}, {row.protocol}", row.note or "", ""]
        for row in facts.record.measurements
        if row.value is None and row.metric not in ("effective_length", *LIKELIHOOD)
    ]
    if facts.within_document:
        problem = "intervals are within-document: they speak of the texts that were read, not of texts like them"
        rows.append(["note", "documents", problem, "give five documents or more"])
    if not facts.same_documents:
        rows.append(["warning", "documents", "the methods have no document in common yet", "resume the run"])
    if not rows:
        return element("p", "None.", class_="absent")
    return Table(columns=["severity", "of", "problem", "what to do"], rows=[[str(c) for c in row] for row in rows]).html()


def _said(value: Any) -> str:
    if value is None:
        return MISSING
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def _flat(content: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {_said(value)}" for key, value in content.items())
