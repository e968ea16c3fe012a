"""llama.cpp's own answer, through its server inside the process: one request for each probe position, the prefix kept.

The server answers with the probabilities of the whole vocabulary when it is asked for as many as there are tokens, before
any sampling setting touches them. It hands a probability that underflows as the lowest float: such a token counts as not
said. Loopback port chosen by the system.
"""

from typing import Any

import numpy as np
from wire import Clock, Job, answer_of  # type: ignore[import-not-found]

LARGEST_VOCABULARY = 1 << 20
UNDERFLOW = -1e30


def probe(job: Job) -> dict[str, Any]:
    """Log-probabilities of the next token at the positions, and greedy continuations of the prompts."""
    import xllamacpp  # type: ignore[import-not-found]

    clock = Clock()
    server = xllamacpp.Server(_parameters(job))
    clock.lap("load")
    rows = [_row(server, job["token_ids"][: position + 1]) for position in job["positions"]]
    clock.lap("probe")
    generated = [_continue(server, prompt, job["num_new"]) for prompt in job["prompts"]]
    clock.lap("generate")
    table = np.stack(rows) if rows else np.zeros((0, 0), dtype=np.float32)
    answer: dict[str, Any] = answer_of(xllamacpp.__version__, table, generated, clock.seconds)
    return answer


def _parameters(job: Job) -> Any:
    import xllamacpp

    made = xllamacpp.CommonParams()
    made.model.path = job["checkpoint"]
    made.n_ctx, made.n_parallel, made.port, made.hostnames = job["max_length"], 1, 0, ["127.0.0.1"]
    made.cpuparams.n_threads = made.cpuparams_batch.n_threads = job["threads"]
    kind = getattr(xllamacpp.ggml_type, f"GGML_TYPE_{job['cache'].upper()}")
    made.cache_type_k = made.cache_type_v = kind
    made.n_gpu_layers, made.cache_ram_mib, made.n_ctx_checkpoints = 0, 0, 0
    made.warmup = made.fit_params = made.ctx_shift = False
    made.offline = True
    return made


def _run(server: Any, prompt: list[int], num_new: int, num_stated: int) -> Any:
    request = {"prompt": prompt, "max_tokens": num_new, "temperature": 0.0, "ignore_eos": True, "cache_prompt": True}
    answer = server.handle_completions({**request, "logprobs": num_stated})
    if "choices" not in answer:
        raise RuntimeError(f"llama.cpp's server answered {answer}")
    return answer["choices"][0]["logprobs"]["content"]


def _row(server: Any, prompt: list[int]) -> Any:
    (content,) = _run(server, prompt, 1, LARGEST_VOCABULARY)
    stated = {one["id"]: one["logprob"] for one in content["top_logprobs"] if one["logprob"] > UNDERFLOW}
    row = np.full(len(content["top_logprobs"]), -np.inf, dtype=np.float32)
    row[list(stated)] = list(stated.values())
    return row


def _continue(server: Any, prompt: list[int], num_new: int) -> list[int]:
    return [int(one["id"]) for one in _run(server, prompt, num_new, 1)]
