"""Engines by checkpoints: what each engine really computes, held against transformers at the same plan.

    python -m benchmarks.engines [--engines vllm,llama.cpp,transformers-oldest] [--longest 9984] [--part cases|caches|needle]

- `cases`: mean KL to the reference at sixteen positions, for the plan, the control, the plan off, and four wrong
  checkpoints of a plan of four times the length.
- `caches`: the plan, and the plan off, with a key-value cache of fewer bits, against the same reference and against the same
  engine with a full one.
- `needle`: whether a code planted beyond the trained window, which transformers gives back with the plan and not without
  it, is given back word for word, with the plan and without.

`make engines FULL=1` runs all of them. Answers are kept in `runs/engines`; a run that was stopped goes on from there. Rows
of engines that are not named stay in the result files as they were.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import RESULTS, write
from benchmarks.engine_cases import CASES, TRAINED, case, inputs, positions, token_ids, write_quantised
from benchmarks.engine_runs import DTYPES, MARGIN, NUM_INSIDE, ROUNDING, TIMES_CONTROL, Runs
from ropewalk.core.errors import HostError
from ropewalk.hosts.executed import Probe, kl, python_of

CACHES = {"llama.cpp": ("f16", "q8_0", "q4_0"), "vllm": ("fp8", "fp8_e5m2")}
"""Engine to its key-value cache types of fewer bits, in its own spelling."""
RIGHT = ("yarn x2", "control", "yarn x4")


def say(line: str) -> None:
    """Progress."""
    print(line, file=sys.stderr, flush=True)


def case_rows(runs: Runs, engine: str) -> list[dict[str, Any]]:
    """A row for each checkpoint."""
    control = float(runs.divergence(engine, "control").mean())
    return [_row(runs, engine, made.name, control) for made in CASES]


def _row(runs: Runs, engine: str, name: str, control: float) -> dict[str, Any]:
    divergence = runs.divergence(engine, name)
    mean = float(divergence.mean())
    limit = max(TIMES_CONTROL * control, ROUNDING) if name in RIGHT else MARGIN * max(control, ROUNDING)
    _, facts = runs.rows(engine, name, DTYPES[engine])
    return {
        **facts,
        "reference": case(name).of,
        "kl_mean": mean,
        "kl_inside": float(divergence[:NUM_INSIDE].mean()),
        "kl_beyond": float(divergence[NUM_INSIDE:].mean()),
        "kl_max": float(divergence.max()),
        "times_control": mean / control if control else None,
        "as_it_must_be": mean <= limit if name in RIGHT else mean >= limit,
    }


def cache_rows(runs: Runs, engine: str, names: Sequence[str] = ("yarn x2", "off")) -> list[dict[str, Any]]:
    """A row for each type of key-value cache; one that the engine does not have here is said with its own words.

    Of the stretched model and, for comparison, of the untouched one: `kl_own_*` is the divergence to the same engine with
    the cache in full precision, which needs no reference; beyond its window the untouched model is compared with itself.
    """
    rows = []
    for name, cache in ((name, cache) for name in names for cache in CACHES.get(engine, ())):
        row: dict[str, Any] = {"engine": engine, "case": name, "cache": cache}
        try:
            own = kl(runs.rows(engine, name, DTYPES[engine])[0], runs.rows(engine, name, DTYPES[engine], cache)[0])
            row |= {"kl_own_inside": float(own[:NUM_INSIDE].mean()), "kl_own_beyond": float(own[NUM_INSIDE:].mean())}
            if name == "yarn x2":
                divergence = runs.divergence(engine, name, cache=cache)
                row |= {
                    "kl_mean": float(divergence.mean()),
                    "kl_inside": float(divergence[:NUM_INSIDE].mean()),
                    "kl_beyond": float(divergence[NUM_INSIDE:].mean()),
                }
        except HostError as error:
            row |= {"kl_mean": None, "note": str(error)}
        rows.append(row)
    return rows


def needle_rows(runs: Runs, engine: str) -> list[dict[str, Any]]:
    """Whether a code planted beyond the window is found, with the plan on and off."""
    prompt, answer, position = kept_haystack(runs.place, len(runs.ids))
    rows = []
    for name in ("yarn x2", "off"):
        quantised = engine == "llama.cpp"
        checkpoint = write_quantised(case(name), runs.place) if quantised else runs.checkpoint(engine, case(name))
        asked = Probe(
            checkpoint=checkpoint,
            prompts=(prompt,),
            num_new=len(answer),
            dtype=DTYPES[engine],
            cache="f16" if quantised else "",
        )
        said, facts = runs.continued(engine, name, asked)
        rows.append(
            {"engine": engine, "case": name, "needle_at": position, "prompt": len(prompt),
             "weights": "Q4_1" if quantised else DTYPES[engine], **facts, "found": said == answer}
        )  # fmt: skip
    return rows


def kept_haystack(place: Path, longest: int) -> tuple[tuple[int, ...], tuple[int, ...], int]:
    """`haystack`, chosen once and kept beside the answers: all engines get the same prompt."""
    file = place / f"needle-{longest}.json"
    if not file.is_file():
        file.write_text(json.dumps(haystack(longest)), encoding="utf-8")
    prompt, answer, position = json.loads(file.read_text(encoding="utf-8"))
    return tuple(prompt), tuple(answer), int(position)


def haystack(longest: int) -> tuple[tuple[int, ...], tuple[int, ...], int]:
    """A prompt of `longest` tokens at most, the answer that continues it, and where the needle lies: beyond the window.

    The needle is one of several that transformers gives back with the plan and not without it: one that is found either
    way, or neither way, would say nothing of an engine. Raises `SystemExit` where a few haystacks hold no such needle.
    """
    import torch
    from transformers import AutoTokenizer

    import ropewalk
    from ropewalk.data.tasks.encoding import Encoder
    from ropewalk.data.tasks.task import Ask, find_task
    from ropewalk.hosts import live
    from ropewalk.measure.answering.local import answer_all
    from ropewalk.measure.forward import Forward

    source, _ = inputs()
    filler = np.array(token_ids(longest + 4096), dtype=np.int64)
    depths = tuple((TRAINED + 64 + 160 * index) / longest for index in range((longest - TRAINED - 400) // 160))
    tokenizer = AutoTokenizer.from_pretrained(source)
    encoder = Encoder(tokenizer=tokenizer, prefix=np.zeros(0, dtype=np.int64))
    model, _ = live.load(source, dtype=torch.bfloat16, device=torch.device("cpu"))
    forward, plan = Forward(model), ropewalk.plan(str(source), "yarn", length=2 * TRAINED)
    for seed in range(4):
        made = find_task("needle").build(Ask(encoder=encoder, lengths=(longest,), depths=depths, seed=seed, filler=filler))
        with live.apply(model, plan):
            told = answer_all(forward, tokenizer, made)
        for question, on, off in zip(made.questions, told, answer_all(forward, tokenizer, made), strict=True):
            if on.exact and not off.exact and question.position is not None and question.position > TRAINED:
                prompt = tuple(int(one) for one in (*made.context, *question.question))
                return prompt, tuple(int(one) for one in question.answer), question.position
    raise SystemExit("no needle of four haystacks tells the plan from no plan; give another text")


def with_others(part: str, rows: list[dict[str, Any]], engines: Sequence[str]) -> list[dict[str, Any]]:
    """The new rows, dated, behind those of engines that were not run this time."""
    path = RESULTS / f"engines-{part}.json"
    before = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {"rows": [], "date": ""}
    kept = [{"date": before["date"], **row} for row in before["rows"] if row["engine"] not in engines]
    return kept + [{"date": datetime.now(UTC).date().isoformat(), **row} for row in rows]


PARTS = {"cases": case_rows, "caches": cache_rows, "needle": needle_rows}


def main() -> int:
    """Runs the parts and writes their table; exit code 1 where a checkpoint is not as it must be."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engines", default=",".join(DTYPES))
    parser.add_argument("--longest", type=int, default=9984)
    parser.add_argument("--part", choices=tuple(PARTS))
    parser.add_argument("--stretched-only", action="store_true", help="of the caches, leave the untouched model out")
    args = parser.parse_args()
    runs = Runs(Path("runs/engines"), token_ids(args.longest), positions(args.longest), say)
    failed = False
    for part, make in PARTS.items():
        if args.part not in (None, part):
            continue
        rows: list[dict[str, Any]] = []
        engines = args.engines.split(",")
        for engine in engines:
            if python_of(engine) is None:
                sys.exit(f"{engine} is not set up here; run make engines")
            short = part == "caches" and args.stretched_only
            rows += cache_rows(runs, engine, ("yarn x2",)) if short else make(runs, engine)
        failed |= any(row.get("as_it_must_be") is False for row in rows)
        command = "python -m benchmarks.engines " + " ".join(sys.argv[1:])
        print(write(f"engines-{part}", command, with_others(part, rows, engines)))
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
