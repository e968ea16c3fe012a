"""transformers' own answer: one forward pass over all tokens, logits at the probe positions only.

Runs in the environment of the transformers release that is asked. The reference of every comparison is the newest supported
release through this file, in the engine's dtype.
"""

from typing import Any

import numpy as np
from wire import Clock, Job, answer_of  # type: ignore[import-not-found]


def probe(job: Job) -> dict[str, Any]:
    """Log-probabilities of the next token at the positions, and greedy continuations of the prompts."""
    import torch
    import transformers

    torch.set_num_threads(job["threads"])
    clock = Clock()
    model = transformers.AutoModelForCausalLM.from_pretrained(
        job["checkpoint"], dtype=getattr(torch, job["dtype"]), attn_implementation="sdpa", local_files_only=True,
        use_safetensors=True, trust_remote_code=False,
    )  # fmt: skip
    model.eval()
    clock.lap("load")
    with torch.inference_mode():
        rows = _rows(model, job)
        clock.lap("probe")
        generated = [_continue(model, prompt, job["num_new"]) for prompt in job["prompts"]]
        clock.lap("generate")
    answer: dict[str, Any] = answer_of(transformers.__version__, rows, generated, clock.seconds)
    return answer


def _rows(model: Any, job: Job) -> Any:
    import torch

    if not job["positions"]:
        return np.zeros((0, 0), dtype=np.float32)
    ids = torch.tensor(job["token_ids"][: max(job["positions"]) + 1])
    logits = model(input_ids=ids[None], logits_to_keep=torch.tensor(job["positions"]), use_cache=False).logits[0]
    return torch.log_softmax(logits.float(), dim=-1).numpy()


def _continue(model: Any, prompt: list[int], num_new: int) -> list[int]:
    """Greedy, by hand: a generation config may carry settings of its own."""
    import torch

    out: list[int] = []
    ids, cache = torch.tensor(prompt), None
    while len(out) < num_new:
        step = model(input_ids=ids[None], past_key_values=cache, use_cache=True, logits_to_keep=1)
        cache = step.past_key_values
        out.append(int(step.logits[0, -1].argmax()))
        ids = torch.tensor(out[-1:])
    return out
