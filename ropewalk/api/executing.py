"""Executed verdicts in the place of read ones: one verdict for each engine, and both are kept.

Reading holds an engine against the reference at every length; executing holds it against transformers on the checkpoint as
it is, up to some ten thousand tokens. So an executed `exact` says that the engine computes what transformers computes: it
is `exact` against the reference only where transformers is, where no limit of length was read that is too short, and where
the reference is one set of numbers for every length. An executed `differs` or `refuses` needs no such care. Where the two
contradict, the executed one wins and the read one is in its `read`, with its release.

Given up: judging by execution an engine that is not executed conclusively; the read verdict stays and says why.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ropewalk.core.plan import Plan
from ropewalk.core.progress import Progress
from ropewalk.engines.verdicts import Verdict, Verification

STOCK = "transformers"


def executed(
    path: str | Path, checkpoint: Any, read: Verification, engines: Sequence[str] | None, *, limit_seconds: float,
    progress: Progress | None,
) -> Verification:  # fmt: skip
    """`read` with every engine executed that can be; `checkpoint` is `path`, opened without its weights.

    Raises what `hosts.executed.execute` raises.
    """
    from ropewalk.hosts.executed import execute

    stock = _stock(checkpoint, read)
    ran = execute(path, engines, progress=progress, limit_seconds=limit_seconds)
    by_engine = {verdict.engine: verdict for verdict in ran}
    verdicts = [combined(verdict, by_engine[verdict.engine], stock, read.reference) for verdict in read.verdicts]
    return replace(read, verdicts=tuple(verdicts))


def _stock(checkpoint: Any, read: Verification) -> Verdict:
    """What transformers computes of the checkpoint, or of the folder that a GGUF file becomes, against the reference."""
    from ropewalk.engines import verdicts
    from ropewalk.hosts import gguf
    from ropewalk.hosts.gguf.positions import with_block

    config = checkpoint.config
    if checkpoint.kind == "gguf":
        config = with_block(config, gguf.read_header(checkpoint.path))
    return verdicts.verify(config, reference=read.reference, engines=[STOCK]).verdicts[0]


def combined(read: Verdict, ran: Verdict, stock: Verdict, reference: Plan | None) -> Verdict:
    """One engine's verdict from what was read and what was run; `stock` is the read verdict of transformers."""
    if ran.status == "unsupported":
        said = "; ".join(text for text in (read.reason, ran.reason) if text)
        return replace(read, reason=said, kl_nats=ran.kl_nats)
    verdict = replace(
        read, version=ran.version or read.version, status=ran.status, reason=ran.reason, mend=ran.mend, how="executed",
        kl_nats=ran.kl_nats, read=read,
    )  # fmt: skip
    if ran.status != "exact":
        return verdict
    if stock.status != "exact":
        reason = f"it computes what {STOCK} computes, and that {_off(stock)} ({ran.reason})"
        return replace(verdict, status=stock.status, reason=reason, mend=read.mend or stock.mend)
    why = _beyond(read, reference)
    if why:
        return replace(verdict, status=read.status, reason=f"{read.reason} ({why}: {ran.reason})", mend=read.mend)
    return verdict


def _off(stock: Verdict) -> str:
    words = {"differs": "differs from the reference", "refuses": "is refused", "unsupported": "could not be read"}
    return f"{words[stock.status]}: {stock.reason}"


def _beyond(read: Verdict, reference: Plan | None) -> str:
    """Why an execution does not disprove what was read; empty where it does."""
    if read.status not in ("differs", "refuses") or reference is None:
        return ""
    if read.max_length is not None and read.max_length < reference.length:
        return "its numbers, executed, are exact"
    if reference.kind != "static":
        return "executed at one length it is exact"
    return ""
