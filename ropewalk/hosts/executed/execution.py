"""`verify --execute`: a checkpoint in the engines that are installed, held against transformers on the same checkpoint.

Each engine runs the checkpoint and its control (`bench`). What an engine's kernels and dtype cost shows in the control; an
engine is `exact` when the checkpoint costs at most twice that. The probes must also be able to tell: the control's numbers,
taken for the checkpoint's, must be further off by a margin.

transformers is the reference and cannot be judged by itself: its oldest supported release is. A verdict without `kl_nats`
that does not say `refuses` is of an engine that was not run. Given up: an engine and its reference at the same time, which
would need twice the memory.
"""

from collections.abc import Sequence
from pathlib import Path

from ropewalk.core.errors import HostError, InputError, MachineError
from ropewalk.core.progress import Progress
from ropewalk.engines.verdicts import Divergence, Status, Verdict, chosen
from ropewalk.hosts import folder
from ropewalk.hosts.executed.bench import MOST_TOKENS, Bench, bench_of, check_kind
from ropewalk.hosts.executed.child import LONGEST_SECONDS, Answer
from ropewalk.hosts.executed.divergence import kl
from ropewalk.hosts.executed.environments import OLDEST, PACKAGES, missing, python_of

TIMES_CONTROL = 2.0
"""An engine is `exact` up to this many times the control's divergence."""
MARGIN = 5.0
"""The control, taken for the checkpoint, must be at least this many times further off than the engine is."""
ROUNDING = 1e-5
"""Nats that are nothing: what float32 in another order costs between two engines, and what hangs on single positions."""
DTYPES = {"transformers": "bfloat16", "vllm": "bfloat16", "llama.cpp": "float32"}
"""Engine to the dtype it is run in; its reference is run in the same, and serves every engine of that dtype. A GGUF file's
weights have their own."""
_MENDS = {
    "exact": "",
    "differs": "serve it with an engine that is exact, or write the plan in another spelling",
    "unsupported": "read its verdict without --execute",
}


def execute(
    path: str | Path, engines: Sequence[str] | None = None, *, progress: Progress | None = None,
    token_ids: Sequence[int] | None = None, most_tokens: int = MOST_TOKENS, limit_seconds: float = LONGEST_SECONDS,
) -> list[Verdict]:  # fmt: skip
    """A verdict for each engine with `how` = `executed`; of all engines without `engines`.

    Without `engines` one that is not installed, or that this machine gives up on, is `unsupported`, which says nothing of
    the checkpoint. Raises `InputError` for an engine that is unknown or that cannot be executed on this source,
    `SourceError` for a broken source, `UnsupportedError` for one without weights, `HostError` where transformers itself
    cannot run the checkpoint, and `MachineError` where transformers, a named engine or every engine is not installed or
    passes the limit of one run.
    """
    names = chosen(engines)
    checkpoint = folder.open_checkpoint(path, weights=True)
    check_kind(checkpoint)
    cannot = {name: why for name in names if (why := _cannot(name, checkpoint.kind))}
    _check(names, cannot, named=engines is not None, gguf=checkpoint.kind == "gguf")
    runs = [name for name in names if name not in cannot and python_of(_ran(name)) is not None]
    failures: dict[str, MachineError] = {}
    rows = {name: _not_run(name, f"not executed: {cannot.get(name) or missing(_ran(name))}") for name in names}
    if progress is not None:
        progress.plan(2 * len(runs) + 2 * len({DTYPES[name] for name in runs}))
    with bench_of(
        checkpoint, token_ids=token_ids, most_tokens=most_tokens, limit_seconds=limit_seconds, progress=progress
    ) as bench:
        for name in runs:
            try:
                rows[name] = _row(bench, name)
            except MachineError as error:
                failures[name] = error
                rows[name] = _not_run(name, f"not executed: {error}")
    if failures and (engines is not None or len(failures) == len(runs)):
        raise next(iter(failures.values()))
    return [rows[name] for name in names]


def _ran(engine: str) -> str:
    """What is run for an engine: transformers, which is the reference, is judged by its oldest supported release."""
    return OLDEST if engine == "transformers" else engine


def _cannot(engine: str, kind: str) -> str:
    """Why an engine cannot be executed on a source of this kind, whatever is installed; empty if it can."""
    if engine not in PACKAGES:
        return "ropewalk has no probe for it"
    if engine == "llama.cpp" and kind != "gguf":
        return "it reads GGUF files, and this is a folder"
    return "it does not read GGUF files" if engine != "llama.cpp" and kind == "gguf" else ""


def _check(names: Sequence[str], cannot: dict[str, str], *, named: bool, gguf: bool) -> None:
    """Raises `InputError` for a named engine that cannot be executed here, and `MachineError` for what is not installed."""
    if named and cannot:
        name, why = next(iter(cannot.items()))
        raise InputError(
            f"{name} cannot be executed on this source: {why}; leave it out of --engines, or leave --execute out"
        )
    if python_of("transformers") is None:
        raise MachineError(missing("transformers"))
    absent = [name for name in names if name not in cannot and python_of(_ran(name)) is None]
    if absent and (named or len(absent) + len(cannot) == len(names)):
        # Of several that are missing, the one that people serve with.
        raise MachineError(missing(_ran("vllm" if "vllm" in absent and not gguf else absent[0])))


def _row(bench: Bench, engine: str) -> Verdict:
    """One engine's verdict."""
    ran, dtype = _ran(engine), DTYPES[engine]
    try:
        own = bench.ask(ran, bench.engine.checkpoint, dtype)
    except HostError as error:
        return _refused(bench, engine, error)
    try:
        control = bench.ask(ran, bench.engine.control, dtype)
    except HostError as error:
        return _not_run(engine, f"executed without a verdict: it runs the checkpoint and not its control ({error})")
    reference, moved = bench.references(dtype)
    found = Divergence(
        checkpoint=_mean(reference, own),
        control=_mean(moved, control),
        swapped=_mean(reference, control),
        num_positions=len(bench.positions),
        num_tokens=len(bench.ids),
    )
    status, reason = judge(found.checkpoint, found.control, found.swapped)
    weights = "weights as in the file, cache float32" if bench.engine != bench.reference else dtype
    return Verdict(
        engine=engine,
        version=f"{own.version}, {weights}, against transformers {reference.version}",
        status=status,
        reason=f"{reason}; {found.num_positions} positions of {found.num_tokens} tokens",
        mend=_MENDS[status],
        how="executed",
        kl_nats=found,
    )


def _refused(bench: Bench, engine: str, error: HostError) -> Verdict:
    """A refusal is the checkpoint's only where the control runs; else the engine runs nothing of this model here."""
    try:
        bench.ask(_ran(engine), bench.engine.control, DTYPES[engine])
    except HostError:
        return _not_run(engine, f"executed without a verdict: it runs neither the checkpoint nor its control here ({error})")
    mend = "write the config anew with ropewalk extend, or ropewalk verify PATH --fix --out DIR"
    return Verdict(engine=engine, version="", status="refuses", reason=str(error), mend=mend, how="executed")


def judge(own: float, control: float, apart: float) -> tuple[Status, str]:
    """Status and reason from three mean divergences in nats: the checkpoint's, the control's, and the control's numbers
    taken for the checkpoint's."""
    said = f"mean KL to transformers {own:.1e} nats, control {control:.1e}"
    if own > max(TIMES_CONTROL * control, ROUNDING):
        return "differs", f"{said}: more than {TIMES_CONTROL:g} times the control"
    if apart < MARGIN * max(own, ROUNDING):
        return "unsupported", f"{said}; the probes cannot tell the checkpoint from its control ({apart:.1e})"
    return "exact", f"{said}; the control taken for the checkpoint is {apart:.1e} off"


def _mean(reference: Answer, engine: Answer) -> float:
    return float(kl(reference.log_probabilities, engine.log_probabilities).mean())


def _not_run(engine: str, reason: str) -> Verdict:
    mend = "read its verdict without --execute"
    return Verdict(engine=engine, version="", status="unsupported", reason=reason, mend=mend, how="executed")
