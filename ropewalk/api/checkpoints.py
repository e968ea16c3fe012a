"""Verbs that make or open a checkpoint: convert, extend, load; and a plan on a live model: apply, read_back."""

import json
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

from ropewalk.api import provenance
from ropewalk.api.plans import geometry
from ropewalk.api.verdict_words import notes as engine_notes
from ropewalk.api.verification import verify
from ropewalk.core.errors import HostError, InputError, MethodError, SourceError
from ropewalk.core.geometry import Finding, Geometry, Lineage
from ropewalk.core.method import Method, check_stretch, find
from ropewalk.core.plan import Plan, parse_length
from ropewalk.core.progress import Progress
from ropewalk.core.record import Card
from ropewalk.engines.transformers.transfer import PLAN

NOT_WRITTEN = ("none", "crop")
"""Methods that change no checkpoint."""


def need(extra: str, *packages: str) -> None:
    """Raises `InputError` where an extra's packages are not installed, before any work is done."""
    from importlib.util import find_spec

    missing = [name for name in packages if find_spec(name) is None]
    if missing:
        raise InputError(
            f"this needs {' and '.join(missing)}; install them with pip install '.[{extra}]' in a checkout of ropewalk"
        )


def convert(
    source: str | Path, out: str | Path, *, dtype: str = "float32", force: bool = False,
    progress: Progress | None = None,
) -> Card:  # fmt: skip
    """A transformers folder from a GGUF file, tensor by tensor, RoPE scaling kept.

    Raises `SourceError` (broken file), `UnsupportedError` (architecture), `OutputError`, `MachineError`.
    """
    need("hf", "torch", "transformers", "gguf", "safetensors")
    from ropewalk.hosts import gguf

    notes = gguf.convert(source, out, dtype=dtype, force=force, progress=progress)
    return _card("convert", source, out, {"dtype": dtype, "force": force}, geometry(out), {}, notes)


def plan_to_write(
    source: str | Path, method: str | Method, *, length: int | str, lineage: Lineage | None = None, freeze: bool = False,
    **options: Any,
) -> tuple[Plan, Geometry]:  # fmt: skip
    """The plan that `extend` would write, and the geometry it is for, with everything there is to say of the source.

    With `freeze` a plan whose numbers depend on the length of the text is the static one for `length`. Raises `MethodError`
    for methods that change no checkpoint, `LengthError` where the length is not above the trained one, `SourceError` for an
    error in the config that would be carried on into what is written.
    """
    from ropewalk.engines.transformers.replaced import replaced
    from ropewalk.hosts import folder

    made = method if isinstance(method, Method) else find(method, options)
    if made.id in NOT_WRITTEN:
        raise MethodError(f"{made.id} changes nothing in a checkpoint; give a method that extends, such as yarn")
    checkpoint = folder.open_checkpoint(source)
    found = folder.geometry_of(checkpoint)
    found = found if lineage is None else found.with_lineage(lineage)
    found, tokens = _told(checkpoint, found), parse_length(length)
    check_stretch(found, tokens)
    plan = made.plan(found, tokens)
    if checkpoint.kind != "gguf":
        if lineage is None:
            found = _transferred(checkpoint.config, found, made.name, tokens)
        lost = replaced(checkpoint.config, plan, from_origin=found.from_origin)
        found = replace(found, findings=(*found.findings, *lost))
    return (plan.at(tokens) if freeze else plan), found


def _transferred(config: Any, found: Geometry, method: str, length: int) -> Geometry:
    """The geometry with a note where `tune` would plan from the origin, and this plan is from where the model stands."""
    from ropewalk.engines.transformers import block, transfer

    carried = block.find(config)
    known = None if carried is None or found.lineage != "trained" else transfer.of_block(carried)
    if known is None or known.method != method:
        return found
    return replace(found, findings=(*found.findings, known.by_others(length)))


def _told(checkpoint: Any, found: Geometry) -> Geometry:
    """The geometry with the source's errors and warnings. Raises `SourceError` at one that may not be carried on."""
    from ropewalk.engines import obstacles

    said = found.findings if checkpoint.kind == "gguf" else obstacles.told(checkpoint.config, found)
    wrong = obstacles.obstacle(found, said)
    if wrong is not None:
        raise SourceError(obstacles.refusal(checkpoint.config, wrong))
    return replace(found, findings=said)


def check_frozen(plan: Plan) -> None:
    """Raises `HostError` for a dynamic plan: a folder or a launch line says one set of numbers, or two regimes."""
    if plan.kind == "dynamic":
        raise HostError(
            f"{plan.method} has other numbers for every length of text, and each engine would compute something else from "
            f"them; say --freeze (freeze=True in Python) to write those for {plan.length} tokens"
        )


def extend(
    source: str | Path, method: str | Method, *, length: int | str, out: str | Path, lineage: Lineage | None = None,
    freeze: bool = False, force: bool = False, copy: bool = False, progress: Progress | None = None, **options: Any,
) -> Card:  # fmt: skip
    """Writes a checkpoint that stock transformers loads with the plan on, or a GGUF file from one. No weight is read.

    Weights are hard links or share blocks where the file system can, else they are copied, as they are with `copy`; the
    tensor data of a GGUF file are copied. A dynamic plan goes into a folder with `freeze`: its numbers for `length`; into a
    GGUF file it always goes so. The card says what each engine computes from what was written, and the errors and warnings
    of the source that do not stand in the way. Raises `SourceError`, `UnsupportedError`, `MethodError`, `LengthError`,
    `OutputError`, and `HostError` where no spelling says the plan faithfully.
    """
    from ropewalk.hosts import folder

    made, found = plan_to_write(source, method, length=length, lineage=lineage, freeze=freeze, **options)
    checkpoint = folder.open_checkpoint(source, weights=True)
    if checkpoint.kind == "gguf":
        from ropewalk.hosts import gguf

        notes = gguf.write_patched(checkpoint.path, made, out, force=force, geometry=found, progress=progress)
    else:
        check_frozen(made)
        notes = folder.write_extended(checkpoint, made, out, force=force, geometry=found, copy=copy, progress=progress)
    written = verify(out)
    config = {"method": made.method, "length": made.length, "lineage": lineage, "force": force, "copy": copy}
    card = _card(
        "extend", source, out, {**config, "freeze": freeze}, found, {made.method: made.to_dict()},
        [*notes, *engine_notes(written)],
    )  # fmt: skip
    planned = [finding.to_dict() for finding in found.findings if finding.field == PLAN]
    return replace(card, findings=[*card.findings, *planned, *_beside(found, written.findings)])


def _beside(source: Geometry, written: Sequence[Finding]) -> list[dict[str, str]]:
    """Findings for the card: those of what was written, then the source's errors and warnings that are no more in it."""
    there = {(finding.field, finding.problem) for finding in written}
    gone = [f for f in source.findings if f.severity != "note" and (f.field, f.problem) not in there]
    return [f.to_dict() for f in written] + [replace(f, field=f"source: {f.field}").to_dict() for f in gone]


def _card(
    verb: str, source: str | Path, out: str | Path, config: dict[str, Any], found: Geometry, plans: dict[str, Any],
    notes: list[str],
) -> Card:  # fmt: skip
    written = Path(out) / "config.json"
    content = json.loads(written.read_text(encoding="utf-8")) if written.is_file() else {}
    return Card(
        verb=verb,
        model=Path(out).name,
        source={"name": Path(source).name, "kind": verb},
        config={**config, "source": str(source), "out": str(out)},
        geometry=found.to_dict(),
        plans=plans,
        documents=[],
        seed=0,
        dtype=str(content.get("dtype", "")),
        device="none",
        quantisation=provenance.quantisation(content),
        versions=provenance.versions(),
        hardware={},
        status="done",
        findings=[{"field": verb, "severity": "note", "problem": note, "mend": ""} for note in notes],
    )


def load(path: str | Path, **options: Any) -> tuple[Any, Any]:
    """(model, tokenizer) of a folder, with the plan it carries on, read back and compared.

    Options: `dtype` and `device` (`auto` by default), `attention`. Raises `SourceError`, `UnsupportedError`, `HostError`.
    """
    need("hf", "torch", "transformers", "safetensors")
    from ropewalk.hosts import folder, live

    checkpoint = folder.open_checkpoint(path, weights=True)
    if checkpoint.kind == "gguf":
        raise InputError(f"{path} is a GGUF file; make a transformers folder of it first with ropewalk convert")
    if not checkpoint.runs:
        raise InputError(f"{path} holds no weights to load (it is a {checkpoint.kind}); give a folder with weights")
    return live.load(checkpoint.path, **options)


def apply(model: Any, plan: Plan) -> AbstractContextManager[Any]:
    """Puts a static plan on a live transformers model for a `with` block, and takes it off again.

    What the model really uses is read back and compared before the block begins. Raises `HostError`, `PlanError`.
    """
    need("hf", "torch", "transformers")
    from ropewalk.hosts import live

    return live.apply(model, plan)


def read_back(model: Any) -> Plan:
    """What a live model really uses: every frequency buffer, cos/sin factor and attention module's scaling, as a plan."""
    need("hf", "torch", "transformers")
    from ropewalk.hosts import live

    return live.read_back(model)
