"""Engines by checkpoints: what each engine really computes, held against transformers at the same plan.

    python -m benchmarks.engines [--engines vllm,llama.cpp,transformers-oldest] [--longest 9984] [--part cases|caches|needle]

- `cases`: mean KL to the reference at sixteen positions, for the plan, the control, the plan off, and four wrong
  checkpoints of a plan of four times the length.
- `caches`: the plan with a key-value cache of fewer bits, against the same reference.
- `needle`: whether a code planted beyond the trained window is given back word for word, with the plan and without.

`make engines FULL=1` runs all of them. Answers are kept in `runs/engines`; a run that was stopped goes on from there.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import write
from benchmarks.engine_cases import CASES, TRAINED, case, inputs, positions, token_ids, write_quantised
from benchmarks.engine_runs import DTYPES, MARGIN, NUM_INSIDE, ROUNDING, TIMES_CONTROL, Runs
from ropewalk.core.errors import HostError
from ropewalk.hosts.executed import Probe, probe, python_of

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


def cache_rows(runs: Runs, engine: str) -> list[dict[str, Any]]:
    """A row for each type of key-value cache; one that the engine does not have here is said with its own words."""
    rows = []
    for cache in CACHES.get(engine, ()):
        try:
            divergence = runs.divergence(engine, "yarn x2", cache=cache)
        except HostError as error:
            rows.append({"engine": engine, "case": "yarn x2", "cache": cache, "kl_mean": None, "note": str(error)})
            continue
        beyond, inside = float(divergence[NUM_INSIDE:].mean()), float(divergence[:NUM_INSIDE].mean())
        rows.append(
            {"engine": engine, "case": "yarn x2", "cache": cache, "kl_mean": float(divergence.mean()),
             "kl_inside": inside, "kl_beyond": beyond}
        )  # fmt: skip
    return rows


def needle_rows(runs: Runs, engine: str) -> list[dict[str, Any]]:
    """Whether a code planted beyond the window is found, with the plan on and off."""
    prompt, answer, position = haystack(len(runs.ids))
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
        said = probe(engine, asked)
        say(f"{engine} {said.version}, needle, {name}: {sum(said.seconds.values()):.0f} s")
        rows.append(
            {"engine": engine, "version": said.version, "case": name, "needle_at": position, "prompt": len(prompt),
             "weights": "Q4_1" if quantised else DTYPES[engine], "found": said.generated[0] == answer}
        )  # fmt: skip
    return rows


def haystack(longest: int) -> tuple[tuple[int, ...], tuple[int, ...], int]:
    """A prompt of `longest` tokens at most, the answer that continues it, and where the needle lies: beyond the window."""
    from transformers import AutoTokenizer

    from ropewalk.data.tasks.needle import build

    model, _ = inputs()
    filler = np.array(token_ids(longest + 4096), dtype=np.int64)
    depth = (TRAINED + 512) / longest
    tokenizer, nothing = AutoTokenizer.from_pretrained(model), np.zeros(0, dtype=np.int64)
    made = build(tokenizer, filler, length=longest, depths=(depth,), seed=0, prefix=nothing)
    (question,) = made.questions
    assert question.position > TRAINED
    prompt = tuple(int(one) for one in (*made.context, *question.question))
    return prompt, tuple(int(one) for one in question.answer), question.position


PARTS = {"cases": case_rows, "caches": cache_rows, "needle": needle_rows}


def main() -> int:
    """Runs the parts and writes their table; exit code 1 where a checkpoint is not as it must be."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engines", default=",".join(DTYPES))
    parser.add_argument("--longest", type=int, default=9984)
    parser.add_argument("--part", choices=tuple(PARTS))
    args = parser.parse_args()
    runs = Runs(Path("runs/engines"), token_ids(args.longest), positions(args.longest), say)
    failed = False
    for part, make in PARTS.items():
        if args.part not in (None, part):
            continue
        rows: list[dict[str, Any]] = []
        for engine in args.engines.split(","):
            if python_of(engine) is None:
                sys.exit(f"{engine} is not set up here; run make engines")
            rows += make(runs, engine)
        failed |= any(row.get("as_it_must_be") is False for row in rows)
        print(write(f"engines-{part}", "python -m benchmarks.engines " + " ".join(sys.argv[1:]), rows))
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
