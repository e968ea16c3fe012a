"""vLLM answers: every prompt whole, in branch order, with its prefix cache on; the cache is emptied before each run.

Branch order is what a prefix cache is for: all questions of a context follow one another, and a longer context follows the
one that it begins with. All prompts are handed over at once, so that vLLM may batch them as it likes. Read in vLLM 0.32: the
cache holds whole blocks, so a small block repeats fewer tokens for each question.
"""

import os
from typing import Any

from serving import Job, Run, serve  # type: ignore[import-not-found]


def load(job: Job) -> tuple[str, Run]:
    """The engine in this process."""
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    import vllm  # type: ignore[import-not-found]

    engine = vllm.LLM(
        model=job["checkpoint"], dtype=job["dtype"], max_model_len=job["max_length"], skip_tokenizer_init=True,
        enable_prefix_caching=True, seed=0, disable_log_stats=True, **job["settings"],
    )  # fmt: skip
    return f"vllm {vllm.__version__}", lambda stacks: run(engine, stacks)


def run(engine: Any, stacks: list[dict[str, Any]]) -> list[Any]:
    """The answers as token ids."""
    import vllm

    if not engine.reset_prefix_cache():
        raise RuntimeError("vLLM did not empty its prefix cache")
    asked = [
        (stack["context"][: stack["cuts"][one["stage"]]] + one["ids"], one) for stack in stacks for one in stack["questions"]
    ]
    settings = [vllm.SamplingParams(temperature=0.0, detokenize=False, max_tokens=one["num_new"]) for _, one in asked]
    found = engine.generate([{"prompt_token_ids": ids} for ids, _ in asked], settings, use_tqdm=False)
    return [list(one.outputs[0].token_ids) for one in found]


if __name__ == "__main__":
    serve(load)
