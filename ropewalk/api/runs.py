"""Verbs that measure: compare, measure, report."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ropewalk.api.checkpoints import need
from ropewalk.api.maps import SHORTEST_HAYSTACK, Tasks, map_lengths, split_tasks
from ropewalk.api.plans import geometry
from ropewalk.api.short_tasks import ShortTasks
from ropewalk.core.errors import InputError, LengthError, MethodError
from ropewalk.core.geometry import Geometry, Lineage
from ropewalk.core.method import check_stretch, find
from ropewalk.core.output import called, check_kept, check_out, run_verb
from ropewalk.core.plan import Plan, parse_length
from ropewalk.core.progress import Progress
from ropewalk.core.record import Measurement

BASELINES = ("none", "crop")
REPORTED = ("compare", "measure")
"""Verbs whose folders have a report."""
SERVED = "served"
"""The label of what a server computes."""
LARGEST_SEED = 2**32 - 1
MOST = 1000
"""Of anything that is counted out; beyond it a number is taken for a slip of the finger."""


def split_methods(given: str | Iterable[str]) -> list[str]:
    """Method specs from repeated flags and lists: separated by `;` where an option contains a comma, else by `,`."""
    specs: list[str] = []
    for item in [given] if isinstance(given, str) else given:
        parts = item.split(";") if ";" in item else item.split(",")
        if ";" not in item and any("=" in part and ":" not in part for part in parts):
            # One method with several options, or a list that cannot be told from one.
            if "," in item.partition(":")[0]:
                raise MethodError(f"{item!r} is ambiguous; separate methods by ';' where an option contains a comma")
            parts = [item]
        specs += [part.strip() for part in parts if part.strip()]
    return list(dict.fromkeys(specs))


def make_plans(found: Geometry, specs: Sequence[str], length: int) -> dict[str, Plan]:
    """Label to plan; the baselines first, always."""
    labels = [*BASELINES, *(spec for spec in specs if spec not in BASELINES)]
    return {label: find(label).plan(found, length) for label in labels}


def check_numbers(*, seed: int, **counts: int) -> None:
    """Raises `InputError` unless the seed and each count can be meant."""
    if not 0 <= seed <= LARGEST_SEED:
        raise InputError(f"a seed lies between 0 and {LARGEST_SEED}, got {seed}")
    for name, value in counts.items():
        if not 1 <= value <= MOST:
            raise InputError(f"the number of {name.replace('_', ' ')} lies between 1 and {MOST}, got {value}")


def compare(
    source: str | Path,
    *,
    methods: str | Iterable[str],
    length: int | str,
    text: Sequence[str | Path],
    out: str | Path,
    device: str = "auto",
    dtype: str = "auto",
    lineage: Lineage | None = None,
    seed: int = 0,
    crop_windows: int = 8,
    control_tokens: int = 4096,
    retrieval: str | Iterable[str] | None = None,
    lengths: Sequence[int | str] | None = None,
    depths: int = 5,
    haystacks: int = 1,
    modes: Sequence[str] = ("fixed",),
    protocols: Sequence[str] = (),
    force: bool = False,
    resume: bool = False,
    progress: Progress | None = None,
) -> list[Measurement]:
    """Carries each plan onto the model in turn, measures, and leaves a run folder with its report.

    `none` and `crop` are always carried. `retrieval` names the methods of the retrieval map (default: none, crop, and yarn
    or else the last method; an empty list for no map), `lengths` its lengths (default: half the trained length and all);
    a quarter and a half of the window are asked too, for the price inside it.
    `protocols` adds likelihood protocols as in `measure`.

    Raises `InputError`s before any folder is made, `MachineError` where the machine gives up: then `resume` goes on.
    """
    check_numbers(seed=seed, crop_windows=crop_windows, depths=depths, haystacks=haystacks)
    tokens = parse_length(length)
    specs = split_methods(methods)
    found = geometry(source, lineage=lineage)
    check_stretch(found, tokens)
    if not [spec for spec in specs if spec not in BASELINES]:
        raise MethodError("compare needs a method beside none and crop, which are always carried; say --methods pi,ntk,yarn")
    plans = make_plans(found, specs, tokens)
    chosen = _map_methods(list(plans), retrieval)
    asked = bool(lengths) or bool(retrieval) or tuple(modes) != ("fixed",)
    grid = [parse_length(n) for n in lengths] if lengths else _map_lengths(found, tokens)
    notes: list[str] = []
    if chosen and not grid:
        if asked:
            raise LengthError(
                f"a retrieval map needs a length of at least {SHORTEST_HAYSTACK} tokens, got {tokens}; "
                "name shorter ones with --lengths, or leave the map out with --retrieval off"
            )
        notes.append(f"no retrieval map: {tokens} tokens are too few for a haystack (--lengths asks for shorter ones)")
        chosen = []
    if max(grid, default=0) > tokens:
        raise LengthError(f"the map has a length of {max(grid)}, beyond the {tokens} that the plans are for; leave it out")
    from ropewalk.measure.probes import split_protocols
    from ropewalk.measure.settings import DISJOINT, SLIDING, TRUNCATE, Settings

    windowed, probes = split_protocols(protocols, (DISJOINT, SLIDING, TRUNCATE))
    asked_map = Tasks(
        names=("needle",), lengths=tuple(sorted(set(grid))), window=found.window_length, depths=depths, samples=haystacks,
        modes=tuple(modes),
    )  # fmt: skip
    settings = Settings(
        length=tokens,
        crop_windows=crop_windows,
        control_tokens=control_tokens,
        protocols=windowed,
        probes=probes,
        map=asked_map.settings(chosen, tokens) if chosen else None,
        seed=seed,
    )
    return run_measurement(
        "compare", source, text, out, found, plans, settings,
        device=device, dtype=dtype, force=force, resume=resume, progress=progress, notes=notes,
    )  # fmt: skip


def _map_lengths(found: Geometry, tokens: int) -> list[int]:
    """Half the trained length and the whole length, where they are long enough for a haystack."""
    return [n for n in (found.window_length // 2, tokens) if n >= SHORTEST_HAYSTACK]


def _map_methods(labels: list[str], retrieval: str | Iterable[str] | None) -> list[str]:
    if retrieval is None:
        last = "yarn" if "yarn" in labels else labels[-1]
        return [*BASELINES, last]
    chosen = split_methods(retrieval)
    unknown = [label for label in chosen if label not in labels]
    if unknown:
        raise MethodError(f"the map names {unknown[0]!r}, which is not among the methods {', '.join(labels)}")
    return chosen


def measure(
    source: str | Path,
    *,
    out: str | Path,
    text: Sequence[str | Path] = (),
    length: int | str | None = None,
    method: str | None = None,
    tasks: str | Iterable[str] = (),
    short_tasks: str | Iterable[str] | ShortTasks = (),
    lengths: Sequence[int | str] | None = None,
    depths: int = 11,
    samples: int = 5,
    modes: Sequence[str] = ("fixed",),
    scoring: str = "auto",
    template: str = "raw",
    stop_early: bool = False,
    handed_in: Mapping[str, str | Path] | None = None,
    protocols: Sequence[str] = (),
    window: int | None = None,
    stride: int = 256,
    device: str = "auto",
    dtype: str = "auto",
    lineage: Lineage | None = None,
    seed: int = 0,
    control_tokens: int = 0,
    server: str | None = None,
    served_model: str | None = None,
    concurrency: int = 4,
    timeout: float = 600.0,
    base_run: str | Path | None = None,
    force: bool = False,
    resume: bool = False,
    progress: Progress | None = None,
) -> list[Measurement]:
    """How far a checkpoint reads, as it is or with a method on: likelihood of `text` at every position, and `tasks`.

    Without tasks the likelihood alone is measured, and `text` is needed. `length` is the plan's; without a method it is
    how much of each text is scored. With a method the untouched model is measured beside it, so that the price inside the
    window is there, and with tasks `crop` too. `lengths` are the map's (default: the grid 2^k, 3*2^(k-1) from a quarter of
    the trained length to `length`; a quarter and a half of the window are always among them), `samples` its haystacks for
    each length. `handed_in` names files for the tasks that need them: `questions`, `conversations`, `templates`.
    `protocols` adds `disjoint`, `sliding-press` (with `window` and `stride`), `yarn-truncate`, and with options after a
    colon `longppl`, `repeated-text`, `byod-sensitivity` and `sensitivity-by-distance` to `prefix`.

    `short_tasks` are tasks that lm-eval asks inside the old window, by its names (`hellaswag,arc_easy`), or a `ShortTasks`
    with a folder of task files, a few-shot count and a limit. The method's scores are paired with the untouched model's.

    With the address of a `server` the tasks are answered by what it serves (`served_model`, where it serves several):
    `concurrency` questions at once, `timeout` seconds for each answer. Of `source` config and tokenizer are read. `base_run`
    is the run folder of the untouched model whose short score an effective length is held against.

    Raises as `compare` does.
    """
    from ropewalk.measure.probes import split_protocols
    from ropewalk.measure.settings import DISJOINT, SLIDING, TRUNCATE, Settings

    check_numbers(seed=seed, depths=depths, samples=samples, concurrency=concurrency)
    windowed, probes = split_protocols(protocols, (DISJOINT, SLIDING, TRUNCATE))
    found, names = geometry(source, lineage=lineage), split_tasks(tasks)
    if method == "crop":
        raise MethodError("crop is a baseline; with --tasks it is always measured")
    specs = [method] if method not in (None, "none") else []
    in_short = ShortTasks.of(short_tasks)
    short = in_short.settings()
    grid = map_lengths(found, names, lengths, length)
    alone = short is not None and not names and not text
    tokens = found.window_length if alone and length is None and not specs else _tokens(grid, length, alone=alone)
    served = _served(
        server, names, timeout=timeout, options={"served_model": served_model, "base_run": base_run},
        given={"--method": method, "--protocol": protocols, "--control-tokens": control_tokens, "--short-tasks": short,
               "--device": device != "auto", "--dtype": dtype != "auto"},
    )  # fmt: skip
    # At or below the trained length there is nothing to crop.
    labels = [SERVED if served else "none", *(["crop"] if names and tokens > found.window_length else []), *specs]
    plans = {label: find("none" if label == SERVED else label).plan(found, tokens) for label in labels}
    asked = Tasks(
        names=names, lengths=grid, window=found.window_length, depths=depths, samples=samples, modes=tuple(modes),
        scoring=scoring, template=template, stop_early=stop_early, handed_in=handed_in or {},
    )  # fmt: skip
    chosen = asked.settings(labels, tokens)
    if served is not None and chosen is not None:
        chosen = replace(chosen, untouched=SERVED, base="none" if base_run else SERVED)
    settings = Settings(
        length=tokens, control_tokens=control_tokens, protocols=windowed, probes=probes, protocol_window=window,
        protocol_stride=stride, map=chosen, seed=seed, short=short,
    )  # fmt: skip
    return run_measurement(
        "measure", source, text, out, found, plans, settings, sources=asked.sources(), handed_in=asked.handed_files(),
        served=None if served is None else {**served, "concurrency": concurrency}, notes=_all_inside(found, tokens),
        read=[path for path in (*asked.handed_in.values(), in_short.path, base_run) if path],
        device=device, dtype=dtype, force=force, resume=resume, progress=progress,
    )  # fmt: skip


def _all_inside(found: Geometry, tokens: int) -> list[str]:
    """What a stretched model is told whose trained window holds everything, so that nothing is beyond it."""
    if tokens > found.window_length or found.original_length >= found.window_length:
        return []
    return [
        f"all {tokens:,} tokens are inside the {found.window_length:,} this model was trained for; --lineage runtime counts "
        f"what is beyond the {found.original_length:,} of its origin, and crops to those"
    ]


def _tokens(grid: Sequence[int], length: int | str | None, *, alone: bool) -> int:
    """The length of the plan, and how much of a text is scored; `alone` are short tasks, which need the former only."""
    if length is None and not grid:
        why = "a method is planned for a length" if alone else "a likelihood needs to know how much of each text to score"
        raise LengthError(f"{why}; say --length")
    tokens = parse_length(length) if length is not None else max(grid)
    if tokens < 2:
        raise LengthError(f"a likelihood needs at least 2 tokens, got {tokens}")
    if max(grid, default=0) > tokens:
        raise LengthError(f"the map has a length of {max(grid)}, beyond the {tokens} that the plan is for; leave it out")
    return tokens


def _served(
    url: str | None, names: Sequence[str], *, timeout: float, options: dict[str, Any], given: Mapping[str, Any]
) -> dict[str, Any] | None:
    """What a run against a server needs beside its tasks; None without one. Raises `InputError`."""
    if not 0 < timeout < float("inf"):
        raise InputError(f"a timeout is a number of seconds above 0, got {timeout}")
    if url is None:
        if any(options.values()):
            raise InputError("--served-model and --base-run are of a server; give its address with --server")
        return None
    _check_served(names, given)
    return {"url": url, "timeout": timeout, **options}


def _check_served(names: Sequence[str], given: Mapping[str, Any]) -> None:
    """Raises `InputError` for what cannot be asked of a server."""
    if not names:
        raise InputError("a server gives no likelihood of a text; name --tasks")
    for option, value in given.items():
        if value:
            raise InputError(
                f"{option} has no meaning for a server, which computes what it was started with; leave it out "
                "(ropewalk extend --flags prints the launch line of a method)"
            )


def run_measurement(
    verb: str, source: str | Path, text: Sequence[str | Path], out: str | Path, found: Geometry, plans: dict[str, Plan],
    settings: Any, *, device: str, dtype: str, force: bool, resume: bool, progress: Progress | None,
    notes: Sequence[str] = (), sources: Mapping[str, Any] | None = None,
    handed_in: Mapping[str, Mapping[str, str]] | None = None, served: Mapping[str, Any] | None = None,
    read: Sequence[str | Path] = (),
) -> list[Measurement]:  # fmt: skip
    """What compare and measure share: open, check, measure, derive the rows, and draw the report where matplotlib is.

    `read` is what is read beside source and texts.
    """
    if not isinstance(source, str | Path):
        raise InputError(
            f"{verb} reads a checkpoint folder or a hub id, got a {type(source).__name__}; "
            "save the model and give its folder"
        )
    need("hf", "torch", "transformers", "safetensors")
    check_out(out, force=force, resume=resume, verb=verb)
    if not resume:
        check_kept(out, [source, *text, *read])
    from ropewalk.api.running import Job

    kind: Callable[..., Job] = Job
    if served is not None:
        from ropewalk.api.serving import ServedJob

        kind = ServedJob
    job = kind(
        verb=verb, source=source, text=text, out=out, geometry=found, plans=plans, settings=settings,
        device=device, dtype=dtype, force=force, resume=resume, progress=progress or Progress(), notes=tuple(notes),
        sources=dict(sources or {}), handed_in=handed_in or {}, **(served or {}),
    )  # fmt: skip
    rows = job.run()
    if find_spec("matplotlib") is not None:
        with job.progress.task("drawing the report"):
            report(out)
    return rows


def report(folder: str | Path) -> Path:
    """Draws report.html and the PNG files of a run folder anew, from what is in it; the path of the HTML file."""
    _check_reported(Path(folder))
    need("report", "matplotlib")
    from ropewalk.report import write_report

    return write_report(Path(folder))


def _check_reported(folder: Path) -> None:
    """Raises `InputError` for a run folder in which nothing was measured: its page would be empty, amid what it holds."""
    verb = run_verb(folder)
    if verb in (None, *REPORTED):
        return
    way = f"ropewalk measure {folder} --text FILE --length 16k --out DIR makes one" if verb == "tune" else "give its folder"
    raise InputError(f"{folder} is the folder of {called(verb)}, and a report is drawn of a compare or measure run; {way}")


def table(folder: str | Path) -> str:
    """The headline table of a run folder, for a terminal."""
    from ropewalk.core.record import Record
    from ropewalk.report import terminal_table

    return terminal_table(Record.read(folder))
