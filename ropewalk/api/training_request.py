"""One tuning run as it was asked for, checked against its source before anything is made: all but its data.

A source that is not there yet has a stand-in: the configuration that the run before it will leave. So a chain is checked to
its end before its first hour.

Whoever asks for the method that a source was tuned by means the paper's transfer from s to 2s: a plan from the origin
(YaRN's s = 32 is from Llama 2, not from its s = 16). At the same length that plan is kept.
"""

import dataclasses
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ropewalk.api import provenance
from ropewalk.api.checkpoints import check_frozen, plan_to_write
from ropewalk.api.training_memory import check_fits
from ropewalk.core.errors import InputError, LengthError, near
from ropewalk.core.geometry import Geometry, Lineage
from ropewalk.core.method import Method, find
from ropewalk.core.plan import Plan, parse_length
from ropewalk.core.record import Card

DATA_OPTIONS = (
    "prompt_loss", "allow_short", "field", "short_share", "keep_short", "special_tokens", "chat_template", "max_broken",
)  # fmt: skip
"""What is passed on to the reading of files."""
LORA = (
    "lora trains attention's adapters alone, which hardly learn a longer context (LongLoRA, table 2, 32k: perplexity 11.44, "
    "with embeddings and norms 8.12, with all weights 8.08)"
)


@dataclass(frozen=True, kw_only=True)
class Request:
    """One run, checked."""

    source: str | Path
    checkpoint: Any
    settings: Any
    plan: Plan | None
    """None keeps what the source carries."""
    start: Geometry
    """What the plan departs from."""
    reads: Geometry
    """What the source says of itself."""
    device: Any
    bfloat16: bool
    merge: bool
    config: dict[str, Any]
    """For the card: every argument, defaults included."""
    notes: tuple[str, ...]
    """What the user should know before the first step."""

    @property
    def kind(self) -> str:
        """The plan's, in the words of the table of combinations."""
        if self.plan is not None:
            return self.plan.kind
        if not self.reads.varies:
            return "static"
        return "switched" if self.reads.scheme == "longrope" else "dynamic"

    @property
    def switch(self) -> int | None:
        """The longest text that a switched plan's first numbers are for."""
        if self.kind != "switched":
            return None
        return self.reads.original_length if self.plan is None else self.plan.regimes[0].longest

    @property
    def apart(self) -> bool:
        """Whether each document needs rows of its own: where others in a row would be seen, or change its numbers."""
        return self.settings.attention == "own" or self.kind == "switched"

    @property
    def method(self) -> str | None:
        """The method planned for this run, None where the source's positions are kept."""
        return None if self.plan is None else self.plan.method

    def findings(self, field: str = "tune") -> list[dict[str, str]]:
        """The notes as a card has them."""
        return [{"field": field, "severity": "note", "problem": note, "mend": ""} for note in self.notes]

    def card(self, documents: list[dict[str, Any]]) -> Card:
        """The card of a run with these documents."""
        name = Path(self.source).name
        return Card(
            verb="tune",
            model=name,
            source={
                "name": name, "kind": self.checkpoint.kind, "sha256": provenance.source_hash(self.checkpoint.path),
            },
            config=self.config,
            geometry=self.start.to_dict(),
            plans={} if self.plan is None else {self.plan.method: self.plan.to_dict()},
            documents=documents,
            seed=self.settings.seed,
            dtype="bfloat16" if self.bfloat16 else "float32",
            device=str(self.device),
            quantisation=provenance.quantisation(self.checkpoint.config),
            versions={**provenance.versions(), **provenance.versions_of("accelerate", "peft")},
            hardware=provenance.hardware(str(self.device)),
            findings=self.findings(),
        )  # fmt: skip


def request(
    source: str | Path, *, length: int | str, method: str | Method | None = None, steps: int | None = None,
    window: int | str | None = None, stages: Sequence[tuple[int, int]] | str | None = None, lineage: Lineage | None = None,
    freeze: bool = False, device: str = "auto", dtype: str = "auto", merge: bool = False, stand_in: bool = False,
    more: Mapping[str, Any] | None = None, rows_known: bool = True, **settings: Any,
) -> Request:  # fmt: skip
    """What `tune` was asked for, checked. `more` goes onto the card as it is; a `stand_in` has no weights yet. Without
    `rows_known` the rows are an example of what is looked for: whether they fit into memory is then the question.

    Raises `InputError` and its kind for what cannot run, `HostError` for a plan that no config says.
    """
    from ropewalk.hosts import folder, live
    from ropewalk.tune import combinations, recipes

    tokens = parse_length(length)
    checkpoint = folder.open_checkpoint(source, weights=not stand_in)
    if not stand_in:
        _check_trainable(source, checkpoint)
    reads = folder.geometry_of(checkpoint)
    chosen = _settings(tokens, _stages(reads, tokens, steps, window, stages, settings), settings)
    if rows_known:
        _check_jumps(chosen, reads)
    recipes.refuse(chosen.recipe)
    plan, start, notes = _planned(source, checkpoint, reads, method, tokens, lineage=lineage, freeze=freeze)
    folder.check_start(checkpoint, plan, length=tokens, geometry=start)
    notes += _notes(chosen, stretched=plan is not None or reads.lineage == "runtime")
    target = live.choose_device(device)
    _check_machine(chosen, start, target)
    half = _bfloat16(dtype, target)
    optimizer = dict((more or {}).get("arguments", {})).get("optim")
    if rows_known:
        check_fits(checkpoint.config, chosen, target, bfloat16=half, optimizer=optimizer)
    made = Request(
        source=source, checkpoint=checkpoint, settings=chosen, plan=plan, start=start, reads=reads, device=target,
        bfloat16=half, merge=merge,
        notes=(*notes, *_unused(chosen, settings, merge=merge), *_unplanned(method, lineage, freeze=freeze)),
        config={**chosen.to_dict(), "source": str(source), "merge": merge, "lineage": lineage, **(more or {})},
    )  # fmt: skip
    # What the data have to do with is checked again when they are read, which may take an hour.
    combinations.check(chosen, plan=made.kind, switch=made.switch, merge=merge)
    _check_model(checkpoint.path, chosen)
    return made


def options_of(run: Mapping[str, Any]) -> dict[str, Any]:
    """A preset's or a command line's words for one run as `tune` takes them: data options apart, a curriculum as stages."""
    said = {key: value for key, value in run.items() if key not in DATA_OPTIONS}
    if "curriculum" in said:
        said["stages"] = said.pop("curriculum")
    options = {key: run[key] for key in DATA_OPTIONS if key in run}
    return {**said, "data_options": {**options, **said.get("data_options", {})}} if options else said


def known_settings() -> set[str]:
    """Names of the settings that a run takes beside the arguments of `request`."""
    from ropewalk.tune.settings import Settings

    return {field.name for field in dataclasses.fields(Settings)} - {"length", "stages"}


def _check_trainable(source: str | Path, checkpoint: Any) -> None:
    if checkpoint.is_own_adapter:
        raise InputError(
            f"{source} is an adapter folder, and training begins from whole weights; write them first with ropewalk tune "
            f"{source} --merge --out NEW"
        )
    if checkpoint.kind != "folder" or checkpoint.quantisation is not None:
        what = {"adapter": "a PEFT adapter", "config": "a config without weights", "gguf": "a GGUF file"}
        raise InputError(
            f"{source} is {checkpoint.quantisation or what.get(checkpoint.kind, checkpoint.kind)} and cannot be trained; "
            "give a folder with unquantised safetensors weights"
        )


def _settings(length: int, stages: Any, settings: Mapping[str, Any]) -> Any:
    from ropewalk.tune.settings import Settings

    known = known_settings()
    for name in settings:
        if name not in known:
            raise InputError(f"tune takes no setting {name!r}; {near(name, known)}")
    return Settings(length=length, stages=stages, **settings)


def _stages(
    reads: Geometry, length: int, steps: int | None, window: Any, stages: Any, settings: Mapping[str, Any]
) -> tuple[Any, ...]:
    """The stages that were asked for; training short takes rows of what the source reads now."""
    from ropewalk.tune.settings import Settings, Stage

    if stages is not None:
        if steps is not None or window is not None:
            raise InputError("a curriculum says the steps and rows of each stage; leave --steps and --window out")
        pairs = _curriculum(stages) if isinstance(stages, str) else stages
        return tuple(Stage(window=one, steps=many) for one, many in pairs)
    if steps is None:
        raise InputError("a run needs a number of steps; give --steps, such as 400")
    if window is None:
        short = settings.get("positions", "full") != "full"
        rows = min(length, reads.trained_length) if short else length
        if settings.get("recipe") == "prefix":
            # The prefix takes the first positions, and the text ends at the length.
            rows = max(2, length - settings.get("num_virtual_tokens", Settings.num_virtual_tokens))
    else:
        rows = parse_length(window)
    return (Stage(window=rows, steps=steps),)


def _check_jumps(settings: Any, reads: Geometry) -> None:
    """Raises `InputError` for positions that would be the text's own in every row."""
    if settings.positions == "full":
        return
    if settings.positions == "pose" and settings.chunks == 1:
        raise InputError(
            "pose moves every chunk of a row but the first, and with --chunks 1 there is no other, so each position would "
            "stay the text's own; give --chunks of at least 2"
        )
    if min(stage.window for stage in settings.stages) == settings.length:
        shorter = reads.original_length if reads.original_length < settings.length else max(2, settings.length // 2)
        raise InputError(
            f"{settings.positions} spreads the positions of short rows up to the length, and these rows are as long as "
            f"that, {settings.length} tokens, so each position would stay the text's own; give a shorter --window, such as "
            f"{shorter}, or leave --positions out"
        )


def _curriculum(text: str) -> list[tuple[int, int]]:
    stages = []
    for part in text.split(","):
        window, colon, steps = part.partition(":")
        if not colon or not steps.strip().isdecimal():
            raise InputError(f"a curriculum is rows and steps of each stage, such as 4k:100,16k:50, got {part!r}")
        stages.append((parse_length(window), int(steps)))
    return stages


def _planned(
    source: str | Path, checkpoint: Any, reads: Geometry, method: str | Method | None, tokens: int, *,
    lineage: Lineage | None, freeze: bool,
) -> tuple[Plan | None, Geometry, list[str]]:  # fmt: skip
    """The plan of a run, what it departs from, and what there is to say about that."""
    from ropewalk.engines.transformers import block, transfer

    carried = None if checkpoint.kind == "gguf" else block.find(checkpoint.config)
    if method is None:
        _check_kept(carried, reads, tokens)
        return None, reads, []
    made = method if isinstance(method, Method) else find(method)
    notes: list[str] = []
    if lineage is None and carried is not None and reads.lineage == "trained" and carried["method"] == made.name:
        if tokens == carried["length"]:
            _check_same(carried, made)
            return None, reads, [f"the source was tuned by {made.name} for {tokens} tokens, and that plan is kept"]
        if tokens > carried["length"]:
            lineage = "runtime"
            known = transfer.of_block(carried)
            notes = [] if known is None else [known.by_tune(tokens, made.options())]
    plan, start = plan_to_write(source, made, length=tokens, lineage=lineage, freeze=freeze)
    check_frozen(plan)
    if freeze and made.plan(start, tokens).kind == "static":
        notes = [*notes, f"freeze does nothing to {made.name}, whose numbers are the same for every text"]
    return plan, start, notes


def _check_same(carried: Any, made: Method) -> None:
    """Raises `InputError` where the method at the length that a source was tuned for is asked for with other options."""
    was, now = dict(carried["options"]), made.options()
    other = [name for name in sorted(was.keys() | now.keys()) if was.get(name) != now.get(name)]
    if other:
        old, new = (", ".join(f"{name}={options.get(name)}" for name in other) for options in (was, now))
        raise InputError(
            f"the source was tuned by {made.name} for {carried['length']} tokens with {old}, and {new} is asked for; give "
            "--lineage runtime to train another plan from its origin, or leave these options as they were"
        )


def _check_kept(carried: Any, reads: Geometry, tokens: int) -> None:
    """Raises `LengthError` where a training below the length of an untrained stretch would be recorded as one at it."""
    if carried is not None and reads.lineage == "runtime" and tokens < carried["length"]:
        raise LengthError(
            f"the source carries an untrained plan for {carried['length']} tokens, and a training at {tokens} would be "
            f"recorded as one at that length; give --length {carried['length']}, with --window {tokens} for shorter rows"
        )


def _notes(settings: Any, *, stretched: bool) -> list[str]:
    """What is learned less than the plan promises, where there is a stretch that nobody has trained yet."""
    if not stretched:
        return []
    notes = [LORA + "; --recipe longlora trains those too"] if settings.recipe == "lora" else []
    longest = max(stage.window for stage in settings.stages)
    if settings.positions == "full" and longest < settings.length:
        notes.append(
            f"rows hold at most {longest} tokens, so no position beyond that is trained under the plan for "
            f"{settings.length}; --positions pose trains them on short rows"
        )
    return notes


def _unused(settings: Any, given: Mapping[str, Any], *, merge: bool) -> list[str]:
    """Settings that were given and do nothing beside the others."""
    given = {**given, "merge": True} if merge else given
    adapters = settings.recipe not in ("full", "prefix", "ia3")
    needed = {
        "chunks": (settings.positions == "pose", "positions pose"),
        "group": (settings.attention == "s2", "attention s2"),
        "pattern": (settings.attention == "s2", "attention s2"),
        "wrap": (settings.attention == "s2", "attention s2"),
        "rank": (adapters, "a recipe whose adapters have it, such as longlora"),
        "alpha": (adapters and settings.recipe not in ("vera", "oft"), "a recipe whose adapters have it, such as longlora"),
        "dropout": (adapters, "a recipe whose adapters have it, such as longlora"),
        "num_virtual_tokens": (settings.recipe == "prefix", "recipe prefix"),
        "merge": (settings.recipe != "full", "a recipe that leaves an adapter; full writes whole weights anyway"),
    }
    told = [f"{name} does nothing without {what}" for name, (used, what) in needed.items() if name in given and not used]
    if settings.positions != "full" and any(stage.window == settings.length for stage in settings.stages):
        told.append(
            f"{settings.positions} moves nothing in the stage of rows of {settings.length}, as long as the length is"
        )
    return told


def _unplanned(method: Any, lineage: Any, *, freeze: bool) -> list[str]:
    """Words about a plan where none is made."""
    said = [name for name, given in (("lineage", lineage), ("freeze", freeze)) if given]
    return [] if method is not None else [f"{name} does nothing without a method, which it is about" for name in said]


def _check_machine(settings: Any, found: Geometry, device: Any) -> None:
    """What shows only with the model or the device, before anything is made."""
    from ropewalk.tune.arguments import check_device

    check_device(device, num_processes=int(os.environ.get("WORLD_SIZE", "1")))
    if settings.offload and device.type == "cpu":
        raise InputError("activations are offloaded from a device, and this trains on the processor; leave --offload out")
    check_windows(found, settings.attention, max(stage.window for stage in settings.stages))


def check_windows(found: Geometry, attention: str, row: int) -> None:
    """Raises `InputError` where layers see fewer tokens than a row has, with an attention that has no such windows."""
    narrow = [group for group in found.groups if group.window is not None and group.window < row]
    if narrow and attention != "own":
        raise InputError(
            f"layers of group {narrow[0].label} see {narrow[0].window} tokens, fewer than a row of {row}, which "
            "segments cannot keep apart; say --attention own and give one document in a row"
        )


def _check_model(path: Path, settings: Any) -> None:
    """Raises `UnsupportedError` for what only the model's own layers show, on one without weights."""
    from ropewalk.hosts import live
    from ropewalk.tune.attention import StageAttention
    from ropewalk.tune.prefix_shape import check_prefix
    from ropewalk.tune.recipes import attention_modules

    model = live.skeleton(path)
    with StageAttention(model, settings):
        pass
    if settings.recipe == "prefix":
        check_prefix(model, settings)
    elif settings.recipe != "full":
        attention_modules(model)


def _bfloat16(dtype: str, device: Any) -> bool:
    from ropewalk.hosts import live

    if dtype not in ("auto", "float32", "bfloat16"):
        raise InputError(f"unknown dtype {dtype!r} to train in; {near(dtype, ['auto', 'float32', 'bfloat16'])}")
    return dtype == "bfloat16" or (dtype == "auto" and str(live.choose_dtype(device)[0]) == "torch.bfloat16")
