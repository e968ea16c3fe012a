"""RULER's tasks as lm-eval makes them: the same prompts through lm-eval's `generate_until` and ours, and both scorers.

    pip install --no-deps --target runs/peers/ruler wonderwords==3.0.1
    python -m benchmarks.ruler [--lengths 1k,2k,4k] [--prompts 10] [--tasks ID,...] [--dtype bfloat16]

The five tasks that need no network. lm-eval always builds 500 samples for each length; the first `--prompts` of each are
answered. What is told:

- the time to build: lm-eval's samples, and as many of ours as are answered;
- the time of each prompt, both from its text to its answer, one after the other on the same loaded model, taking turns at
  going first: the same budget, greedy, the same end token. lm-eval's batch size is 1, its default; with `--batch N` it also
  answers all prompts in batches of N, and that is told beside;
- what the two scorers make of the same generated texts, both ways' texts, and each prompt whose two texts score differently,
  with how close the call was where they part (`flips.py`).

Ours reads a foreign prompt as a haystack of one question, its last token: neither side shares anything between prompts.
"""

import argparse
import json
import os
import random
import statistics
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.common import INPUTS, write
from benchmarks.flips import parted
from benchmarks.retrieval_map import length

TASKS = {
    "niah_single_1": "niah-single-1", "niah_multikey_2": "niah-multikey-2", "ruler_vt": "variable-tracking",
    "ruler_fwe": "frequent-words", "ruler_cwe": "common-words",
}  # fmt: skip
"""lm-eval's task to ours."""
PACKAGES = Path("runs/peers/ruler")


def built(args: argparse.Namespace) -> tuple[list[Any], dict[str, Any]]:
    """The requests that are answered, made by lm-eval, and what building took."""
    import numpy as np
    from lm_eval.tasks import TaskManager  # type: ignore[import-not-found]

    # lm-eval draws from the global states, and seeds them so.
    random.seed(0)
    np.random.seed(1234)
    manager = TaskManager(metadata={"pretrained": str(args.model), "max_seq_lengths": list(args.lengths)})
    requests, seconds, num = [], {}, 0
    for name in args.tasks:
        began = time.perf_counter()
        task = manager.load([name])["tasks"][name]
        seconds[name] = time.perf_counter() - began
        where = [doc["max_length"] for doc in task.eval_docs]
        num += len(where)
        chosen = [index for size in args.lengths for index in firsts(where, size, args.prompts)]
        task.build_all_requests(samples=chosen)
        requests += [(name, task, one) for one in task.instances]
    mine = own_build(args)
    told = {
        "lm_eval_samples": num, "lm_eval_seconds": sum(seconds.values()), "lm_eval_seconds_by_task": seconds,
        "answered": len(requests), "unused": num - len(requests), "ours_samples": mine[0], "ours_seconds": mine[1],
    }  # fmt: skip
    return requests, told


def firsts(values: list[int], value: int, num: int) -> list[int]:
    """Where the first `num` of a value stand."""
    return [index for index, one in enumerate(values) if one == value][:num]


def own_build(args: argparse.Namespace) -> tuple[int, float]:
    """How many haystacks of our tasks, the same tasks and lengths, are made in how many seconds."""
    import numpy as np
    from transformers import AutoTokenizer

    from ropewalk.data.tasks.encoding import EMPTY, Encoder
    from ropewalk.data.tasks.task import Ask, find_task

    tokenizer, num = AutoTokenizer.from_pretrained(args.model), 0
    began = time.perf_counter()
    for name in args.tasks:
        task = find_task(TASKS[name])
        for size in args.lengths:
            encoder = Encoder(tokenizer=tokenizer, prefix=EMPTY)
            for seed in range(args.prompts):
                depths = (float(np.linspace(0, 1, args.prompts)[seed]),) if task.plants else ()
                task.build(Ask(encoder=encoder, lengths=(size,), depths=depths, seed=seed))
                num += 1
    return num, time.perf_counter() - began


def ours(forward: Any, tokenizer: Any, text: str, references: list[str], budget: int) -> tuple[str, float]:
    """The text generated after a prompt, and its score."""
    from ropewalk.measure.answering.local import answer_all

    answer = answer_all(forward, tokenizer, foreign(tokenizer, text, references, budget), scoring="generate")[0]
    return str(answer.text), answer.found


def foreign(tokenizer: Any, text: str, references: list[str], budget: int) -> Any:
    """A prompt of others as a haystack whose question is its last token; one token is forced, as lm-eval forces none."""
    import numpy as np

    from ropewalk.data.tasks.encoding import EMPTY, encode
    from ropewalk.data.tasks.task import Haystack, Question

    ids = np.asarray(tokenizer(text)["input_ids"], dtype=np.int64)
    first = encode(tokenizer, f" {references[0]}")[:1]
    question = Question(key="", references=tuple(references), question=ids[-1:], answer=first, budget=budget)
    return Haystack(context=ids[:-1], questions=(question,), lengths=(ids.size + budget,), seed=0, head=EMPTY)


def raced(args: argparse.Namespace, requests: list[Any], model: Any, tokenizer: Any) -> Iterator[dict[str, Any]]:
    """Each prompt both ways, with seconds, texts and four scores."""
    from lm_eval.models.huggingface import HFLM  # type: ignore[import-not-found]

    from ropewalk.data.tasks.scoring import score
    from ropewalk.measure.forward import Forward

    forward, peer = Forward(model), HFLM(pretrained=model, tokenizer=tokenizer, batch_size=1)
    for index, (name, task, request) in enumerate([requests[0], *requests]):
        text, settings = request.args
        references, budget = list(request.doc["outputs"]), int(settings["max_gen_toks"])
        assert peer.tok_encode(text) == tokenizer(text)["input_ids"], "the two encode a prompt differently"
        said: dict[str, str] = {}
        seconds: dict[str, float] = {}
        for who in ("ours", "peer") if index % 2 else ("peer", "ours"):
            began = time.perf_counter()
            if who == "ours":
                said[who] = ours(forward, tokenizer, text, references, budget)[0]
            else:
                said[who] = peer.generate_until([request], disable_tqdm=True)[0]
            seconds[who] = time.perf_counter() - began
        # The first prompt is read twice, and its first reading is the warm-up.
        if index:
            size = int(request.doc["max_length"])
            yield {
                "task": name, "length": size, "index": int(request.doc["index"]), "seconds": seconds, "said": said,
                "by_ours": {who: score("all", one, references) for who, one in said.items()},
                "by_peer": {who: task.process_results(request.doc, [one])[str(size)] for who, one in said.items()},
            }  # fmt: skip
            print(
                f"  {index} of {len(requests)}: ours {seconds['ours']:.1f} s, lm-eval {seconds['peer']:.1f} s",
                file=sys.stderr,
            )


def batched(args: argparse.Namespace, requests: list[Any], model: Any, tokenizer: Any) -> float:
    """Seconds that lm-eval takes for all prompts in batches, as it groups and pads them."""
    from lm_eval.models.huggingface import HFLM

    peer = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=args.batch)
    began = time.perf_counter()
    peer.generate_until([request for *_, request in requests], disable_tqdm=True)
    return time.perf_counter() - began


def differences(args: argparse.Namespace, model: Any, tokenizer: Any, requests: list[Any], rows: list[Any]) -> list[Any]:
    """Prompts whose two texts score differently, with the call where they part."""
    import numpy as np

    import ropewalk
    from ropewalk.data.tasks.encoding import encode

    differ = [
        (request, row) for (*_, request), row in zip(requests, rows, strict=True)
        if row["by_ours"]["ours"] != row["by_ours"]["peer"]
    ]  # fmt: skip
    exact = ropewalk.load(args.model, dtype="float32", device="cpu")[0] if differ else None
    told = []
    for request, row in differ:
        mine, other = (encode(tokenizer, row["said"][who]).tolist() for who in ("ours", "peer"))
        at = next((i for i, (a, b) in enumerate(zip(mine, other, strict=False)) if a != b), None)
        about = {key: row[key] for key in ("task", "length", "index", "said")} | {"scores": row["by_ours"], "at": at}
        if at is not None:
            prompt = np.asarray(tokenizer(request.args[0])["input_ids"] + mine[:at], dtype=np.int64)
            about |= parted(model, exact, prompt, mine[at], other[at])
        told.append(about)
    return told


def summary(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """For each task and length: medians, the ratio, how often ours was slower, and the mean scores."""
    told = []
    for key in dict.fromkeys((row["task"], row["length"]) for row in rows):
        some = [row for row in rows if (row["task"], row["length"]) == key]
        ratios = [row["seconds"]["peer"] / row["seconds"]["ours"] for row in some]
        told.append({
            "task": key[0], "length": key[1], "n": len(some),
            "seconds": {who: statistics.median(row["seconds"][who] for row in some) for who in ("ours", "peer")},
            "ratio": statistics.median(ratios), "lowest_ratio": min(ratios), "slower": sum(ratio < 1 for ratio in ratios),
            "score": {who: statistics.mean(row["by_ours"][who] for row in some) for who in ("ours", "peer")},
        })  # fmt: skip
    return told


def measured(args: argparse.Namespace) -> dict[str, Any]:
    """Everything."""
    import torch

    import ropewalk

    torch.set_num_threads(args.threads)
    requests, building = built(args)
    model, tokenizer = ropewalk.load(args.model, dtype=args.dtype, device="cpu")
    rows = list(raced(args, requests, model, tokenizer))
    total = {who: sum(row["seconds"][who] for row in rows) for who in ("ours", "peer")}
    batch = {"batch": args.batch, "peer_batched_seconds": batched(args, requests, model, tokenizer)} if args.batch else {}
    return {
        "dtype": args.dtype,
        "what": f"RULER, {len(args.tasks)} tasks, {args.prompts} prompts at each of {len(args.lengths)} lengths",
        "building": building,
        "seconds": total, "ratio": total["peer"] / total["ours"], **batch,
        "slower": sum(row["seconds"]["ours"] > row["seconds"]["peer"] for row in rows), "num_prompts": len(rows),
        "by_task": summary(rows),
        "scorers_differ": [row for row in rows if row["by_ours"] != row["by_peer"]],
        "texts_differ": sum(row["said"]["ours"].strip() != row["said"]["peer"].strip() for row in rows),
        "scores_differ": differences(args, model, tokenizer, requests, rows),
        "goal": "no prompt slower, the unused samples not built, the same scores of the same texts",
    }  # fmt: skip


def main() -> None:
    """One result file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--packages", type=Path, default=PACKAGES, help="where wonderwords is")
    parser.add_argument("--model", type=Path, default=INPUTS / "SmolLM2-135M-Instruct")
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--tasks", default=",".join(TASKS))
    parser.add_argument("--lengths", default="1k,2k,4k")
    parser.add_argument("--prompts", type=int, default=10)
    parser.add_argument("--batch", type=int, default=0, help="also lm-eval in batches of this many prompts")
    parser.add_argument("--threads", type=int, default=int(os.environ.get("OMP_NUM_THREADS", os.cpu_count() or 1)))
    args = parser.parse_args()
    given = (
        f"--dtype {args.dtype} --lengths {args.lengths} --prompts {args.prompts}"
        + (f" --tasks {args.tasks}" if args.tasks != ",".join(TASKS) else "")
        + (f" --batch {args.batch}" if args.batch else "")
    )
    args.tasks, args.lengths = args.tasks.split(","), tuple(length(text) for text in args.lengths.split(","))
    # Behind what is installed here.
    sys.path.append(str(args.packages.absolute()))
    os.environ["HF_HUB_OFFLINE"] = "1"
    found = measured(args)
    stem = f"ruler-{args.dtype}-{len(args.tasks)}x{args.prompts}-{args.lengths[-1]}"
    path = write(stem, f"python -m benchmarks.ruler {given}", [found])
    print(json.dumps({key: value for key, value in found.items() if key != "by_task"}, indent=1))
    print(f"written: {path}")


if __name__ == "__main__":
    main()
