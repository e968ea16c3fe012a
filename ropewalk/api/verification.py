"""The verb that proves: what each engine would compute from a checkpoint, the traps in it, and a copy without them."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ropewalk.core.errors import PlanError, RopewalkError, SourceError, UnsupportedError
from ropewalk.core.geometry import Finding
from ropewalk.core.output import check_kept
from ropewalk.core.plan import Plan
from ropewalk.core.progress import Progress
from ropewalk.engines.computed import Computed
from ropewalk.engines.mending import Mended
from ropewalk.engines.verdicts import ENGINES, Compute, Verification

LIMIT_SECONDS = 1800.0
"""Longest that one run of one engine may take."""
LARGEST_PLAN = 16 * 1024 * 1024
"""Bytes of the largest plan file that is read; a plan has some kilobytes."""


def verify(
    path: str | Path, engines: str | Sequence[str] | None = None, against: str | Path | Plan | None = None, *,
    execute: bool = False, limit_seconds: float = LIMIT_SECONDS, progress: Progress | None = None,
) -> Verification:  # fmt: skip
    """What each engine would compute from a checkpoint, against one reference. No weight is read without `execute`.

    `engines` are names, or one text with commas; all four without. `against` is a plan, a file of `Plan.to_dict()`, or
    another checkpoint; else the reference is the checkpoint's own block, else what the newest supported transformers
    computes. A config that is wrong is an error finding; raises `SourceError` only where there is no checkpoint to judge,
    `InputError` for an unknown engine, and `PlanError` for a reference of another model.

    With `execute` the engines that are installed run the checkpoint, each run at most `limit_seconds`, and an executed
    verdict takes the place of the read one (`api.executing`). Raises besides `UnsupportedError` where there are no weights,
    `HostError` where transformers cannot run it, and `MachineError` where a named engine, or every one, is not installed.
    """
    from ropewalk.engines import verdicts

    names = [name.strip() for name in engines.split(",")] if isinstance(engines, str) else engines
    chosen = None if names is None else verdicts.chosen(names)
    checkpoint = _open(path)
    read = _read(checkpoint, chosen, against)
    if not execute:
        return read
    from ropewalk.api.executing import executed

    return executed(path, checkpoint, read, chosen, limit_seconds=limit_seconds, progress=progress)


def _read(checkpoint: Any, chosen: Sequence[str] | None, against: str | Path | Plan | None) -> Verification:
    """What the engines' readers say, no engine run."""
    from ropewalk.hosts import folder

    reference, source = _reference(against)
    if checkpoint.kind == "adapter" and not checkpoint.is_own_adapter:
        raise folder.adapter_refused(checkpoint)
    if checkpoint.kind == "gguf":
        return _verify_gguf(checkpoint, chosen, reference, source)
    tokenizer, facts = folder.tokenizer_config(checkpoint.home), folder.gather(checkpoint.home, checkpoint.weights)
    read = _judged(checkpoint.config, chosen, reference, source, tokenizer, facts)
    if not checkpoint.is_own_adapter:
        return read
    return replace(read, findings=(*read.findings, *folder.adapter_findings(checkpoint)))


def _judged(
    config: Mapping[str, Any], engines: Sequence[str] | None, reference: Plan | None, source: str, tokenizer: Any, facts: Any
) -> Verification:
    from ropewalk.engines import verdicts
    from ropewalk.engines.findings import findings

    found = findings(config, tokenizer_config=tokenizer, facts=facts)
    judged = verdicts.verify(
        config, reference=reference, source=source, engines=engines, tokenizer_config=tokenizer, findings=found
    )  # fmt: skip
    # What stops an engine at load was found without it too, and there with its own mend.
    mends = {finding.problem: finding.mend for finding in found}
    return replace(judged, verdicts=tuple(replace(one, mend=mends.get(one.reason, one.mend)) for one in judged.verdicts))


def _open(path: str | Path) -> Any:
    """The checkpoint, also where its weights are pickles: a config needs no weights to be judged."""
    from ropewalk.hosts import folder

    try:
        return folder.open_checkpoint(path)
    except UnsupportedError:
        config = Path(path) / "config.json"
        if not config.is_file():
            raise
        return folder.Checkpoint(
            path=Path(path), kind="config", config=folder.read_json(config), weights=(), quantisation=None
        )  # fmt: skip


def _reference(against: str | Path | Plan | None) -> tuple[Plan | None, str]:
    """The reference that the user gave, and where it comes from in words."""
    from ropewalk.engines.reference import reference_of

    if against is None or isinstance(against, Plan):
        return against, "" if against is None else "the plan that was given"
    path = Path(against)
    if path.is_dir() or path.suffix.lower() == ".gguf" or not path.exists():
        return _reference_in(_open(against)), str(against)
    content = _plan_file(path)
    if "groups" not in content and "model_type" in content:
        return reference_of(content), str(against)
    try:
        return _usable(Plan.from_dict(content)), str(against)
    except RopewalkError as error:
        raise PlanError(f"{path} is no plan: {error}; give what extend --dry-run --json prints, or a checkpoint") from error


def _usable(plan: Plan) -> Plan:
    """The plan, if a dynamic one can be planned from again: its geometry comes from a file that anybody may have edited."""
    try:
        for length in (plan.original_length, plan.length):
            plan.at(length)
    except RopewalkError:
        raise
    except (AssertionError, ArithmeticError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise PlanError(f"the geometry of this {plan.kind} plan cannot be planned from ({error!r:.80})") from error
    return plan


def _reference_in(checkpoint: Any) -> Plan:
    """What another checkpoint is to compute."""
    from ropewalk.engines.reference import reference_of
    from ropewalk.hosts import gguf

    if checkpoint.kind == "gguf" and not checkpoint.config:
        return gguf.reference(gguf.read_header(checkpoint.path))
    return reference_of(checkpoint.config)


def _plan_file(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8") if path.stat().st_size <= LARGEST_PLAN else ""
        content = json.loads(text)
    except (OSError, ValueError, RecursionError) as error:
        raise SourceError(f"{path} cannot be read as a plan ({error}); give what extend --dry-run --json prints") from error
    if not isinstance(content, dict):
        raise SourceError(f"{path} holds a JSON {type(content).__name__}; give what extend --dry-run --json prints")
    return content


def _verify_gguf(
    checkpoint: Any, engines: Sequence[str] | None, reference: Plan | None, source: str
) -> Verification:  # fmt: skip
    """A GGUF file: llama.cpp reads it; the others read folders, and what they make of a GGUF file is not judged."""
    from ropewalk.engines import llamacpp, verdicts
    from ropewalk.engines.findings import findings
    from ropewalk.engines.transformers import block
    from ropewalk.hosts import gguf
    from ropewalk.hosts.gguf.positions import factors_of, reading_of, with_block

    header = gguf.read_header(checkpoint.path)
    factors = factors_of(header)

    def compute(length: int) -> Computed:
        return llamacpp.compute_metadata(header.metadata, length=length, factors=factors)

    def elsewhere(name: str) -> Compute:
        reason = "this is a GGUF file, which loses its scaling in this engine's reader or is not read at all"
        return lambda length: Computed(
            engine=name, versions=ENGINES[name]().VERSIONS, groups={}, max_length=None, unsupported=reason
        )  # fmt: skip

    computing = {name: compute if name == llamacpp.NAME else elsewhere(name) for name in ENGINES}
    if not gguf.is_convertible(header):
        return gguf.verify(header, engines, computing, reference=reference, source=source)
    config = with_block(checkpoint.config, header)
    found = findings(config)
    found += [
        Finding(field="rope.scaling", severity="warning", problem=note, mend="ropewalk extend MODEL.gguf --out NEW.gguf")
        for note in reading_of(header).notes
    ]
    return verdicts.verify(
        config,
        reference=reference,
        source=source or ("" if block.find(config) else "what the metadata of the file says"),
        engines=engines,
        findings=found,
        computing=computing,
    )


def fix(
    path: str | Path,
    out: str | Path,
    *,
    engines: str | Sequence[str] | None = None,
    against: str | Path | Plan | None = None,
    force: bool = False,
    **executing: Any,
) -> tuple[Mended | None, Verification]:
    """Writes a copy of a checkpoint folder without the traps that have one way out, and verifies the copy.

    The copy is judged against the reference of the source. Where the config cannot be read nothing is written: None, and
    the verification of the source. `executing` is what `verify` takes for executing the copy. Raises as `verify` does, and
    `OutputError` for an output that exists.
    """
    from ropewalk.engines.reference import reference_of
    from ropewalk.hosts import folder

    if isinstance(against, str | Path):
        check_kept(out, [against])
    before = verify(path, engines, against)
    reference = before.reference
    if reference is None:
        return None, before
    mended = folder.write_mended(_open(path), out, force=force)
    if against is None:
        # A mended length is what the copy is held to, not the one that was wrong.
        reference = replace(reference, length=max(reference.length, reference_of(mended.config).length))
    return mended, replace(verify(out, engines, reference, **executing), source=before.source)
