"""Plans without a new folder: launch lines for running engines, and the smallest sufficient factor for each request."""

import shlex
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ropewalk.api.checkpoints import check_frozen, plan_to_write
from ropewalk.core.errors import InputError, LengthError, UnsupportedError, near
from ropewalk.core.geometry import Geometry, Lineage
from ropewalk.core.method import Method, find
from ropewalk.core.plan import Plan, parse_length
from ropewalk.core.progress import Progress
from ropewalk.engines.computed import Computed, Launch
from ropewalk.engines.transformers.transfer import PLAN
from ropewalk.engines.verdicts import Verdict

MOST_PROFILES = 16
LARGEST_FACTOR = 1024.0


def launch_line(
    source: str | Path, method: str | Method, *, length: int | str, engine: str, lineage: Lineage | None = None,
    freeze: bool = False, **options: Any,
) -> tuple[Launch, Verdict]:  # fmt: skip
    """The arguments with which a running engine computes the plan from the unchanged checkpoint, and the proof.

    The verdict is what the engine's reader makes of the checkpoint under that line. Errors and warnings of the source are
    among what the line says. Raises as `extend` does, and `HostError` where no line says the plan.
    """
    from ropewalk.engines import launch
    from ropewalk.hosts import folder

    if engine not in launch.WRITERS:
        raise InputError(f"no launch line is known for {engine!r}; {near(engine, launch.WRITERS)}")
    plan, found = plan_to_write(source, method, length=length, lineage=lineage, freeze=freeze, **options)
    check_frozen(plan)
    checkpoint = folder.open_checkpoint(source)
    if checkpoint.kind == "gguf":
        return _for_gguf(checkpoint, plan, found, engine)
    line = launch.launch(checkpoint.config, plan, engine, geometry=found)
    tokenizer = folder.tokenizer_config(checkpoint.path)
    verdict = _judge(checkpoint.config, plan, line, engine, tokenizer)
    return replace(line, says=(*line.says, *source_words(found))), verdict


def source_words(found: Geometry) -> list[str]:
    """The errors and warnings of a source that is extended, and notes on its plan, a sentence each."""
    said = [f for f in found.findings if f.severity != "note" or f.field == PLAN]
    return [f"{f.severity}: {f.field}: {f.problem}; {f.mend}" for f in said]


def _judge(config: Any, plan: Plan, line: Launch, engine: str, tokenizer: Any) -> Verdict:
    from ropewalk.engines import launch, verdicts
    from ropewalk.engines.llamacpp import flags
    from ropewalk.engines.reference import completed

    if engine == "llama.cpp":
        metadata, factors = flags.file_of(config)

        def compute(length: int) -> Computed:
            return flags.compute_flags(metadata, factors, line.arguments, length=length)
    else:
        seen, module = launch.apply_launch(config, line, engine), verdicts.ENGINES[engine]()

        def compute(length: int) -> Computed:
            computed: Computed = module.compute(seen, length=length, tokenizer_config=tokenizer)
            return computed

    return verdicts.judge(compute, completed(config, plan))


def _for_gguf(checkpoint: Any, plan: Plan, found: Geometry, engine: str) -> tuple[Launch, Verdict]:
    """Flags over a GGUF file: only llama.cpp loads it."""
    from ropewalk.engines import launch, transformers, verdicts
    from ropewalk.engines.llamacpp import flags
    from ropewalk.engines.reference import completed
    from ropewalk.hosts import gguf
    from ropewalk.hosts.gguf.positions import factors_of, with_block

    if engine != "llama.cpp":
        raise InputError(f"{checkpoint.path} is a GGUF file, which {engine} does not serve; give the transformers folder")
    header = gguf.read_header(checkpoint.path)
    if not checkpoint.config:
        raise UnsupportedError(
            f"no launch line is known for GGUF files of {header.architecture}; write the plan into the file: "
            "ropewalk extend MODEL.gguf --out NEW.gguf"
        )
    config, factors = with_block(checkpoint.config, header), factors_of(header)
    spelled = transformers.spell(config, plan, geometry=found)
    line = launch.llamacpp_launch(header.metadata, spelled, plan)
    verdict = verdicts.judge(
        lambda length: flags.compute_flags(header.metadata, factors, line.arguments, length=length), completed(config, plan)
    )
    return line, verdict


def quoted(line: Launch) -> str:
    """The arguments as one types them: into a shell, those of transformers between the parentheses of a Python call."""
    return ", ".join(line.arguments) if line.engine == "transformers" else shlex.join(line.arguments)


def line_document(line: Launch, verdict: Verdict) -> dict[str, Any]:
    """The document of `extend --flags --json`."""
    return {
        "engine": line.engine,
        "arguments": list(line.arguments),
        "says": list(line.says),
        "verdict": verdict.to_dict(),
    }


@dataclass(frozen=True, kw_only=True)
class Profile:
    """One deployment of the same weights: for requests that its factor just suffices for."""

    factor: float
    """The stretch, over the length the plan departs from; 1 is the model as it is."""
    shortest_request: int
    """Requests from this many tokens on need at least this factor."""
    longest_request: int
    """And up to this many it suffices."""
    plan: Plan | None
    """None for the model as it is."""
    price_nll: float | None = None
    """What it costs inside the old window, nats per token; None where it was not measured."""
    price_low: float | None = None
    price_high: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """The profile as `--json` shows it."""
        return {
            "factor": self.factor,
            "shortest_request": self.shortest_request,
            "longest_request": self.longest_request,
            "length": self.longest_request,
            "price_nll": self.price_nll,
            "price_ci_low": self.price_low,
            "price_ci_high": self.price_high,
        }


def parse_factors(text: str) -> list[float]:
    """Factors as people write them, `1,2,4`, sorted. Raises `InputError`."""
    try:
        factors = sorted({float(part) for part in text.split(",")})
    except ValueError as error:
        raise InputError(f"profiles are factors such as 1,2,4, got {text!r}") from error
    if not 1 <= len(factors) <= MOST_PROFILES or not all(1.0 <= factor <= LARGEST_FACTOR for factor in factors):
        raise InputError(f"profiles are 1 to {MOST_PROFILES} factors from 1 to {LARGEST_FACTOR:g}, got {text!r}")
    return factors


def profiles(
    source: str | Path, method: str | Method, *, length: int | str, factors: str | Sequence[float],
    lineage: Lineage | None = None, **options: Any,
) -> list[Profile]:  # fmt: skip
    """The smallest sufficient factor for each request length up to `length`, of those given.

    Raises `LengthError` where the largest factor does not reach, and as `extend` does.
    """
    made = method if isinstance(method, Method) else find(method, options)
    plan, found = plan_to_write(source, made, length=length, lineage=lineage)
    chosen = parse_factors(factors if isinstance(factors, str) else ",".join(map(str, factors)))
    start = found.start_length
    if chosen[-1] * start < plan.length:
        raise LengthError(
            f"the largest profile reads {int(chosen[-1] * start)} tokens of {plan.length}; add a factor of "
            f"{plan.length / start:g} or more"
        )
    rows: list[Profile] = []
    for factor in chosen:
        longest, shortest = int(factor * start), rows[-1].longest_request + 1 if rows else 1
        planned = None if factor == 1.0 else made.plan(found, longest)
        rows.append(Profile(factor=factor, shortest_request=shortest, longest_request=longest, plan=planned))
        if longest >= parse_length(length):
            break
    return rows


def priced(
    source: str | Path, rows: Sequence[Profile], *, text: Sequence[str | Path], out: str | Path | None = None,
    device: str = "auto", dtype: str = "auto", lineage: Lineage | None = None, seed: int = 0, force: bool = False,
    resume: bool = False, progress: Progress | None = None,
) -> list[Profile]:  # fmt: skip
    """The profiles with what each costs inside the old window, measured on texts of at least that window.

    The difference of mean NLL to the untouched model on the same tokens. `out` keeps the run folder. Raises as `measure`.
    """
    from ropewalk.api.plans import geometry
    from ropewalk.api.runs import make_plans, run_measurement
    from ropewalk.measure.settings import Settings

    found = geometry(source, lineage=lineage)
    window = found.window_length
    plans = {"none": make_plans(found, [], window)["none"]}
    plans |= {f"factor {row.factor:g}": row.plan for row in rows if row.plan is not None}
    with tempfile.TemporaryDirectory(prefix="ropewalk-") as folder:
        measured = run_measurement(
            "measure", source, text, out or Path(folder) / "run", found, plans,
            Settings(length=window, control_tokens=0, seed=seed),
            device=device, dtype=dtype, force=force, resume=resume, progress=progress,
        )  # fmt: skip
    prices = {row.method: row for row in measured if row.metric == "price_nll"}
    return [_with_price(row, prices.get(f"factor {row.factor:g}")) for row in rows]


def _with_price(row: Profile, price: Any) -> Profile:
    if row.plan is None:
        return replace(row, price_nll=0.0)
    if price is None:
        return row
    return replace(row, price_nll=price.value, price_low=price.ci_low, price_high=price.ci_high)


def profile_table(rows: Sequence[Profile]) -> str:
    """The profiles for a terminal."""
    lines = [f"{'factor':>7}  {'requests, tokens':>19}  {'launch length':>13}  price inside the window, nats/token"]
    for row in rows:
        price = "not measured; give --text" if row.price_nll is None else f"{row.price_nll:+.4f}"
        if row.price_low is not None and row.price_high is not None:
            price += f" ({row.price_low:+.4f} to {row.price_high:+.4f})"
        span = f"{row.shortest_request} to {row.longest_request}"
        lines.append(f"{row.factor:>7g}  {span:>19}  {row.longest_request:>13}  {price}")
    return "\n".join(lines)
