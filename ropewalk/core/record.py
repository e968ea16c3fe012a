"""The record of a run: one `Card`, many `Measurement` rows, and arrays of per-token NLL.

A run folder holds everything a report shows, and a report reads nothing else:

    card.json            what was asked, complete with defaults: source, plans, versions, seed, status
    measurements.jsonl   one `Measurement` a line, made from the arrays and samples when all cells are done
    samples.jsonl        one answered prompt a line
    nll/METHOD/DOC.npy   float32 [T-1]: NLL of token 1..T-1 of a document, nats; NaN where a method scores nothing
    price/METHOD/DOC.npy float32 [2, P]: inside the old window, KL to the untouched model (nats) and whether the first
                         choice agrees (0 or 1), for tokens 1..P

A number that cannot be had is null with a reason in `note`, never a silent zero. Given up: a database; JSON lines survive a
kill, can be read by anything and are small beside the arrays.
"""

import dataclasses
import hashlib
import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ropewalk.core.errors import SourceError

SCHEMA_VERSION = 1
Status = Literal["running", "interrupted", "failed", "done"]


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """One number with everything needed to judge it. Lengths and positions are tokens."""

    metric: str
    protocol: str
    """How it was measured, in one word that no other protocol shares."""
    unit: str
    value: float | None
    n: int
    """How many units the mean is over: documents, windows or answers, as the protocol says."""
    num_clusters: int
    """How many independent units the interval rests on: documents, or blocks within one."""
    num_tokens: int
    """Scored tokens."""
    model: str
    method: str
    card: str
    """Hash of the card's question: the same question has the same hash."""
    stderr: float | None = None
    ci_low: float | None = None
    ci_high: float | None = None
    reference: str | None = None
    """What a paired number is paired with: a method's label, or `none@float32`."""
    engine: str = "transformers"
    template: str | None = None
    length: int | None = None
    depth: float | None = None
    """0 at the start of the text, 1 at its end."""
    position_low: int | None = None
    position_high: int | None = None
    """Positions of the predicted tokens, low included, high excluded."""
    task: str | None = None
    seed: int | None = None
    dtype: str | None = None
    device: str | None = None
    seconds: float | None = None
    peak_bytes: int | None = None
    versions: dict[str, str] = field(default_factory=dict)
    note: str | None = None
    schema_version: int = SCHEMA_VERSION

    def __post_init__(self) -> None:
        for name in ("value", "stderr", "ci_low", "ci_high"):
            number = getattr(self, name)
            if number is not None:
                number = float(number)
                object.__setattr__(self, name, number if math.isfinite(number) else None)
        if self.value is None and not self.note:
            object.__setattr__(self, "note", "not a finite number")

    @property
    def key(self) -> tuple[Any, ...]:
        """What the number is of; two rows of one run never share it."""
        return (
            self.metric,
            self.protocol,
            self.method,
            self.reference,
            self.task,
            self.template,
            self.length,
            self.depth,
            self.position_low,
            self.position_high,
            self.seed,
            self.dtype,
            self.device,
        )

    def to_dict(self) -> dict[str, Any]:
        """The row as it stands in measurements.jsonl."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> "Measurement":
        """Back from `to_dict`; unknown keys of a later version are dropped."""
        known = {f.name for f in dataclasses.fields(cls)}
        return cls(**{key: value for key, value in content.items() if key in known})


@dataclass(kw_only=True)
class Card:
    """What a run was asked to do and with what. The report's only source of context."""

    verb: str
    """`compare` or `measure`."""
    model: str
    """A name for people; the source's last part."""
    source: dict[str, Any]
    """`name`, `kind`, `sha256` of config, tokenizer and weight headers (never of tensor data)."""
    config: dict[str, Any]
    """Every argument of the verb, defaults included."""
    geometry: dict[str, Any]
    plans: dict[str, Any]
    """Method label to `Plan.to_dict()`."""
    documents: list[dict[str, Any]]
    """`name`, `num_tokens` (of the whole text), `scored_tokens`, `sha256` of the text."""
    seed: int
    dtype: str
    device: str
    quantisation: str | None
    """What the weights went through before this run, such as `Q4_1, dequantised`; None for full precision."""
    versions: dict[str, str]
    hardware: dict[str, Any]
    status: Status = "running"
    started: str = ""
    finished: str | None = None
    files: dict[str, dict[str, str]] = field(default_factory=dict)
    """`nll/...npy` to `{"method", "document"}`: file names are reduced, these are the true names."""
    findings: list[dict[str, str]] = field(default_factory=list)
    links: list[dict[str, Any]] = field(default_factory=list)
    """Of a chain of training runs: those before the last, with what came of them."""
    schema_version: int = SCHEMA_VERSION

    @property
    def question(self) -> dict[str, Any]:
        """What was asked, in JSON types: two runs with the same question may share their cells."""
        question = {
            "source": {key: value for key, value in self.source.items() if key != "path"},
            "config": {key: value for key, value in self.config.items() if key not in ("out", "resume", "force")},
            "plans": self.plans,
            "documents": self.documents,
            "seed": self.seed,
            "dtype": self.dtype,
            "device": self.device,
        }
        content: dict[str, Any] = json.loads(json.dumps(question, sort_keys=True))
        return content

    def grows_from(self, old: "Card") -> bool:
        """Whether all of the old run's cells are cells of this one: the same question, of more methods or more haystacks.

        Cells are pure functions of what they name, so a run takes in methods and haystacks without measuring anything twice.
        More documents are another question: haystacks take the documents in turn. A sequential stop looks after shares of
        all haystacks, so their number is fixed where it is on.
        """
        (was, few), (now, many) = (_without_what_may_grow(card.question) for card in (old, self))
        plans_kept = all(many["plans"].get(label) == plan for label, plan in few["plans"].items())
        more = all(set(few[key]) <= set(many[key]) for key in ("methods", "map methods"))
        return was == now and plans_kept and more and few["haystacks"] <= many["haystacks"]

    @property
    def hash(self) -> str:
        """12 hex digits over the question."""
        return hashlib.sha256(json.dumps(self.question, sort_keys=True).encode()).hexdigest()[:12]

    def to_dict(self) -> dict[str, Any]:
        """The content of card.json."""
        return dataclasses.asdict(self) | {"hash": self.hash}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> "Card":
        """Back from `to_dict`; unknown keys of a later version are dropped."""
        known = {f.name for f in dataclasses.fields(cls)}
        return cls(**{key: value for key, value in content.items() if key in known})


def _without_what_may_grow(question: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """A question in two: what makes it another one, and what may grow."""
    config = dict(question["config"])
    asked = dict(config.get("map") or {})
    grows: dict[str, Any] = {
        "plans": question["plans"],
        "methods": config.pop("methods", []),
        "map methods": asked.pop("methods", []),
        "haystacks": 0 if asked.get("stop_early") else asked.pop("num_haystacks", 0),
    }
    return {**question, "plans": None, "config": {**config, "map": asked}}, grows


def safe_name(name: str) -> str:
    """`name` reduced to [A-Za-z0-9._-] with a short hash of the true name, so that two names never share a file."""
    # A file name that is not UTF-8 reaches us as lone surrogates.
    digest = hashlib.sha256(name.encode(errors="surrogateescape")).hexdigest()[:6]
    reduced = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.")[:60]
    return f"{reduced or 'unnamed'}-{digest}"


@dataclass(frozen=True, kw_only=True)
class Record:
    """A run folder, read."""

    path: Path
    card: Card
    measurements: list[Measurement]
    samples: list[dict[str, Any]]

    @classmethod
    def read(cls, path: str | Path) -> "Record":
        """Raises `SourceError` where `path` is no run folder. A half-written last line is left out."""
        folder = Path(path)
        try:
            content = json.loads((folder / "card.json").read_text(encoding="utf-8"))
            card = Card.from_dict(content)
        except (OSError, ValueError, TypeError, AttributeError) as error:
            raise SourceError(
                f"{folder} is not a run folder: {error}; expected the card.json that compare and measure write"
            ) from error
        lines = read_lines(folder / "measurements.jsonl")
        try:
            rows = [Measurement.from_dict(row) for row in lines]
        except TypeError as error:
            raise SourceError(f"{folder / 'measurements.jsonl'} has a row that is no measurement ({error})") from error
        return cls(path=folder, card=card, measurements=rows, samples=list(read_lines(folder / "samples.jsonl")))

    def arrays(self, method: str, kind: str = "nll") -> dict[str, NDArray[np.float32]]:
        """Arrays of a method by document name, for the documents it has finished: `nll` [T-1] or `price` [2, P]."""
        arrays: dict[str, NDArray[np.float32]] = {}
        for name, what in self.card.files.items():
            file = self.path / name
            if name.startswith(f"{kind}/") and what["method"] == method and file.is_file():
                arrays[what["document"]] = read_array(file)
        return arrays

    def rows(self, metric: str, **fields: Any) -> list[Measurement]:
        """The rows of a metric whose fields have the values given."""
        return [
            row
            for row in self.measurements
            if row.metric == metric and all(getattr(row, key) == value for key, value in fields.items())
        ]


def read_array(path: Path) -> NDArray[np.float32]:
    """An array of a run folder. Raises `SourceError` where the file is not what a run writes."""
    try:
        array = np.load(path, allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise SourceError(f"{path} is not an array ({error}); remove it and run again with --resume") from error
    return np.asarray(array, dtype=np.float32)


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The objects of a JSON-lines file; nothing where it does not exist; stops before a half-written last line."""
    if not path.is_file():
        return
    with path.open("rb") as lines:
        for line in lines:
            if not line.endswith(b"\n"):
                return
            try:
                content = json.loads(line)
            except ValueError as error:
                raise SourceError(f"{path} has a broken line ({error}); expected one JSON object a line") from error
            if not isinstance(content, dict):
                raise SourceError(f"{path} has a line that is no JSON object but {content!r:.40}")
            yield content
