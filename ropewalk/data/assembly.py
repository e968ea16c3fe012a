"""Tokenized documents, mixed and packed: which tokens are kept, whether that is enough, and what the card says of it."""

import dataclasses
import hashlib
import io
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ropewalk.core.errors import InputError, TextError
from ropewalk.core.plan import check_length
from ropewalk.core.run import write_atomic
from ropewalk.data.histogram import described, share_at_positions_beyond
from ropewalk.data.mixing import SHORT_SHARE, Mix, choose
from ropewalk.data.packing import Pieces, pack
from ropewalk.data.reading.records import LeftOut, Source, nothing_left
from ropewalk.data.shards import SHARD_TOKENS, Documents, Shard
from ropewalk.data.stream import KEPT, SHARDS, have_labels
from ropewalk.data.tokens import Encoder

LEFT_OUT = "left_out.jsonl"


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What is made of the sources."""

    length: int
    """Tokens of a row."""
    window: int
    """The old window: what the model reads before it is tuned."""
    mix: Mix = field(default_factory=Mix)
    min_beyond: float = 0.1
    """Share of tokens at positions beyond the old window below which a mix is refused. Web mixes have 8% beyond 4k, and
    teach next to nothing of what lies there."""
    allow_short: bool = False
    """Whether such a mix is taken all the same."""
    max_broken: int = 10
    """Broken records that are left out before the work stops."""
    seed: int = 0
    """Of which documents a mix takes."""
    shard_tokens: int = SHARD_TOKENS

    def __post_init__(self) -> None:
        check_length(self.length)
        check_length(self.window)
        if self.length < 2:
            raise InputError("rows of 1 token predict nothing; give a --length of at least 2")
        if not 0.0 <= self.min_beyond <= 1.0:
            raise InputError(f"--min-beyond lies between 0 and 1, got {self.min_beyond}")
        if self.max_broken < 0 or self.seed < 0:
            raise InputError(f"--max-broken and --seed are at least 0, got {self.max_broken} and {self.seed}")

    @property
    def short(self) -> int:
        """The longest document that is short."""
        return min(self.window, self.length - 1)

    @property
    def short_limit(self) -> float:
        """The largest share of the tokens in short documents: none where the user means short ones, or rows are short."""
        meant = self.allow_short or self.length <= self.window
        return self.mix.most_short(1.0 if meant else SHORT_SHARE)


def assembled(
    folder: Path, shards: Sequence[Shard], sources: Sequence[Source], encoder: Encoder, settings: Settings
) -> dict[str, Any]:
    """Mixes and packs what was tokenized; what the card says of it. Raises `TextError` where it is too short."""
    documents = Documents(folder / SHARDS, shards)
    names = [source.name for source in sources]
    rows = [row for source in sources for row in (left.to_dict() for left in source.skipped)]
    rows += [row for shard in shards for row in shard.left_out]
    if not len(documents):
        raise TextError(
            f"there is no document in {', '.join(names)}{nothing_left([LeftOut.from_dict(row) for row in rows])}"
        )
    kept = choose(
        documents.lengths, documents.sources, names, short=settings.short, mix=settings.mix, seed=settings.seed,
        limit=settings.short_limit,
    )  # fmt: skip
    pieces = pack(kept, settings.length)
    packed = _packed(pieces, kept, settings, num_rows_without_labels=int((~have_labels(documents, pieces)).sum()))
    _check(packed, documents.lengths, settings)
    write_atomic(folder / LEFT_OUT, "".join(json.dumps(row) + "\n" for row in rows).encode())
    buffer = io.BytesIO()
    np.save(buffer, kept, allow_pickle=False)
    write_atomic(folder / KEPT, buffer.getvalue())
    return {
        "length": settings.length,
        "window": settings.window,
        "pad_id": encoder.pad_id,
        "settings": dataclasses.asdict(settings),
        "sources": _by_source(documents, kept, shards, sources),
        "kept_sha256": hashlib.sha256(buffer.getvalue()).hexdigest(),
        "all": described(documents.lengths),
        "vocabulary": encoder.vocabulary(documents.used_ids()),
        "packed": {**packed, **_limited(documents.lengths, kept, settings)},
    }


def _by_source(
    documents: Documents, kept: NDArray[np.int64], shards: Sequence[Shard], sources: Sequence[Source]
) -> list[dict[str, Any]]:
    """Lengths, what is kept, and what is left out for which reason, of each source."""
    found = []
    for index, source in enumerate(sources):
        mine = documents.sources == index
        reasons = [left.reason for left in source.skipped]
        reasons += [row["reason"] for shard in shards if shard.source == index for row in shard.left_out]
        spelled: Counter[str] = Counter()
        for shard in shards:
            spelled.update(shard.spelled if shard.source == index else {})
        found.append(
            {
                "name": source.name,
                **described(documents.lengths[mine]),
                "left_out": dict(sorted(Counter(reasons).items())),
                "spelled": dict(sorted(spelled.items())),
                "kept_documents": int((kept[mine] > 0).sum()),
                "kept_tokens": int(kept[mine].sum()),
                "share": float(kept[mine].sum() / max(1, kept.sum())),
            }
        )
    return found


def _packed(pieces: Pieces, kept: NDArray[np.int64], settings: Settings, *, num_rows_without_labels: int) -> dict[str, Any]:
    """What the rows hold, those counted that no training reads."""
    sizes = pieces[:, 3] - pieces[:, 2]
    num_rows = int(pieces[-1, 0]) + 1 if pieces.size else 0
    total = int(sizes.sum())
    return {
        "num_rows": num_rows,
        "num_rows_without_labels": num_rows_without_labels,
        "num_tokens": total,
        "num_pieces": int(sizes.size),
        "cut_documents": int((kept > settings.length).sum()),
        "padding": 1.0 - total / max(1, num_rows * settings.length),
        "short_up_to": settings.short,
        "short_share": float(kept[kept <= settings.short].sum() / max(1, total)),
        "beyond_window": share_at_positions_beyond(sizes, settings.window),
        **{key: value for key, value in described(sizes).items() if key.endswith("_beyond")},
    }


def _limited(lengths: NDArray[np.int64], kept: NDArray[np.int64], settings: Settings) -> dict[str, Any]:
    """The limit on short documents, and what it alone leaves out; stated shares leave out what they do not need."""
    alone = not settings.mix.shares and settings.mix.keep_short is None
    return {"short_limit": settings.short_limit, "over_short_limit": int((lengths - kept).sum()) if alone else 0}


def _check(packed: dict[str, Any], lengths: NDArray[np.int64], settings: Settings) -> None:
    """Raises `TextError` where there is less than a row, nothing to learn in any, or too little beyond the old window."""
    total, longest = packed["num_tokens"], int(lengths.max())
    if total < settings.length:
        raise TextError(
            f"the data have {total} tokens, less than one row of {settings.length}; hand in more, or ask for rows of at "
            f"most {total} (--length of ropewalk data, --window of tune)"
        )
    if packed["num_rows_without_labels"] == packed["num_rows"]:
        raise TextError(
            f"none of the {packed['num_rows']:,} rows of {settings.length} tokens has one to learn (the first of a row is "
            "none): there are only prompts in them; ask for longer rows, or say --prompt-loss"
        )
    if settings.length <= settings.window or settings.allow_short or packed["beyond_window"] >= settings.min_beyond:
        return
    raise TextError(
        f"{packed['beyond_window']:.1%} of the tokens lie beyond the old window of {settings.window} (the longest document "
        f"has {longest}), expected at least {settings.min_beyond:.0%}; hand in longer documents, lower --short-share, or "
        "say --allow-short"
    )
