"""vLLM's own answer: one request for each probe position, its prefix taken from the cache of the one before.

Eager, in one process (no child of a child), without its tokenizer: token ids in, log-probabilities of the whole vocabulary
out. Read in vLLM 0.32: `logprobs=-1` asks for the whole vocabulary, before any sampling setting touches it.
"""

import os
from typing import Any

import numpy as np
from wire import Clock, Job, answer_of  # type: ignore[import-not-found]


def probe(job: Job) -> dict[str, Any]:
    """Log-probabilities of the next token at the positions, and greedy continuations of the prompts."""
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    import vllm  # type: ignore[import-not-found]

    clock = Clock()
    engine = vllm.LLM(
        model=job["checkpoint"], dtype=job["dtype"], kv_cache_dtype=job["cache"], max_model_len=job["max_length"],
        skip_tokenizer_init=True, enforce_eager=True, max_num_batched_tokens=4096, max_num_seqs=1,
        enable_prefix_caching=True, max_logprobs=-1, seed=0, disable_log_stats=True,
    )  # fmt: skip
    clock.lap("load")
    rows = [_row(engine, job["token_ids"][: position + 1]) for position in job["positions"]]
    clock.lap("probe")
    generated = [_continue(engine, prompt, job["num_new"]) for prompt in job["prompts"]]
    clock.lap("generate")
    table = np.stack(rows) if rows else np.zeros((0, 0), dtype=np.float32)
    answer: dict[str, Any] = answer_of(vllm.__version__, table, generated, clock.seconds)
    return answer


def _run(engine: Any, prompt: list[int], **settings: Any) -> Any:
    import vllm

    sampling = vllm.SamplingParams(temperature=0.0, detokenize=False, ignore_eos=True, **settings)
    return engine.generate([{"prompt_token_ids": prompt}], sampling, use_tqdm=False)[0].outputs[0]


def _row(engine: Any, prompt: list[int]) -> Any:
    stated = _run(engine, prompt, max_tokens=1, logprobs=-1).logprobs[0]
    row = np.full(max(stated) + 1, -np.inf, dtype=np.float32)
    row[list(stated)] = [one.logprob for one in stated.values()]
    return row


def _continue(engine: Any, prompt: list[int], num_new: int) -> list[int]:
    return list(_run(engine, prompt, max_tokens=num_new).token_ids)
