"""A card and a row with every required field, for tests that change one."""

from typing import Any

from ropewalk.core.record import Card, Measurement


def make_card(**changes: Any) -> Card:
    fields: dict[str, Any] = {
        "verb": "compare",
        "model": "tiny",
        "source": {"name": "tiny", "kind": "folder", "sha256": "00"},
        "config": {"length": 512, "methods": ("none", "crop", "pi"), "text": ["a.txt"], "out": "here"},
        "geometry": {},
        "plans": {"pi": {"factor": 8.0}},
        "documents": [{"name": "a.txt", "num_tokens": 600}],
        "seed": 0,
        "dtype": "float32",
        "device": "cpu",
        "quantisation": None,
        "versions": {},
        "hardware": {},
    }
    return Card(**{**fields, **changes})


def make_row(**changes: Any) -> Measurement:
    fields: dict[str, Any] = {
        "metric": "nll", "protocol": "prefix", "unit": "nats/token", "value": 3.5, "n": 1, "num_clusters": 1,
        "num_tokens": 9, "model": "tiny", "method": "pi", "card": "abc",
    }  # fmt: skip
    return Measurement(**{**fields, **changes})
