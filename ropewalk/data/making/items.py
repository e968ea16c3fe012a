"""From drafts to conversations: which are kept, what is counted, and each item as a line that `data` and `tune` read.

Drafts may be finished in any order; what is made of them here goes by the order of the spans, so the same drafts give the
same bytes. A question that was asked already is dropped here, since only here all of them are seen.
"""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ropewalk.data.making.agreement import words
from ropewalk.data.making.contexts import Contexts, Piece
from ropewalk.data.making.drafts import KEPT, Json
from ropewalk.data.making.texts import Span

SCHEMA_VERSION = 1
ALREADY = "question: asked already"


def judged(drafts: Iterable[Json]) -> list[Json]:
    """The drafts in the order of their spans, questions that were asked before dropped."""
    found, asked = [], set()
    for draft in sorted(drafts, key=lambda each: int(each["index"])):
        items = []
        for item in draft["items"]:
            key = tuple(words(item["question"] or ""))
            again = item["verdict"] == KEPT and key in asked
            items.append({**item, "verdict": ALREADY} if again else item)
            asked |= {key} if item["verdict"] == KEPT else set()
        found.append({**draft, "items": items})
    return found


def lines(drafts: Iterable[Json], contexts: Contexts, said: Mapping[str, Any]) -> Iterator[str]:
    """Each kept item as a JSON line with its provenance; `said` is the same for all."""
    for draft in drafts:
        low, high = draft["span"]["characters"]
        for item in draft["items"]:
            if item["verdict"] == KEPT:
                yield json.dumps(_item(draft, item, contexts, Span(text=draft["place"], low=low, high=high), said)) + "\n"


def _item(draft: Json, item: Json, contexts: Contexts, span: Span, said: Mapping[str, Any]) -> dict[str, Any]:
    pieces = [
        Piece(text=piece["document"], low=piece["characters"][0], high=piece["characters"][1])
        for piece in item["context"]["pieces"]
    ]
    messages = contexts.conversation(pieces, span, item["question"], item["answer"])
    return {
        "messages": [{"role": message.role, "content": message.content} for message in messages],
        "provenance": {
            "schema_version": SCHEMA_VERSION,
            "kind": item["kind"],
            "document": draft["document"],
            "span": draft["span"],
            "context": item["context"],
            **said,
            "seed": item["seed"],
            "check": {
                "verdict": item["verdict"], "f1": item["f1"], "checked_tokens": item["checked_tokens"],
                "replies": item["replies"],
            },
        },
    }  # fmt: skip


def counted(drafts: Iterable[Json]) -> dict[str, Any]:
    """By kind of item: how many were tried, kept, and dropped for which reason; and the lengths of what is kept."""
    kinds: dict[str, Counter[str]] = {}
    lengths, checked = [], []
    for draft in drafts:
        for item in draft["items"]:
            kinds.setdefault(item["kind"], Counter())[item["verdict"]] += 1
            if item["verdict"] == KEPT:
                lengths.append(int(item["context"]["num_tokens"]))
                checked.append(int(item["checked_tokens"]))
    found: dict[str, Any] = {"kinds": {}}
    for kind, verdicts in sorted(kinds.items()):
        dropped = {reason: count for reason, count in sorted(verdicts.items()) if reason != KEPT}
        found["kinds"][kind] = {"tried": verdicts.total(), "kept": verdicts[KEPT], "dropped": dropped}
    found["num_kept"] = len(lengths)
    found["num_tokens"] = sum(lengths)
    found["shortest"], found["longest"] = (min(lengths), max(lengths)) if lengths else (0, 0)
    found["fewest_checked_tokens"] = min(checked, default=0)
    return found
