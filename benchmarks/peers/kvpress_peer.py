"""kvpress answers: its pipeline reads each context once and asks all of its questions.

The pipeline is given token ids where it would tokenise text, which is after its `preprocess`: so the prompts are the very
same, and its tokenisation costs it nothing. No press: nothing is compressed. Read in kvpress 0.5.5: each call makes a cache
of its own, so what one length has read does not serve the next.
"""

import importlib.metadata
from typing import Any

from serving import Job, Run, serve  # type: ignore[import-not-found]


def load(job: Job) -> tuple[str, Run]:
    """The pipeline on the checkpoint."""
    import kvpress  # type: ignore[import-not-found]
    import torch
    import transformers

    torch.set_num_threads(job["threads"])
    model = transformers.AutoModelForCausalLM.from_pretrained(job["checkpoint"], dtype=getattr(torch, job["dtype"]))
    tokenizer = transformers.AutoTokenizer.from_pretrained(job["checkpoint"])
    pipeline = kvpress.KVPressTextGenerationPipeline(model=model, tokenizer=tokenizer)
    names = ("kvpress", "transformers", "torch")
    return ", ".join(f"{name} {importlib.metadata.version(name)}" for name in names), lambda stacks: run(pipeline, stacks)


def run(pipeline: Any, stacks: list[dict[str, Any]]) -> list[Any]:
    """The answers as text, one call for each context."""
    import torch

    said: list[Any] = []
    for stack in stacks:
        for stage, cut in enumerate(stack["cuts"]):
            questions = [one for one in stack["questions"] if one["stage"] == stage]
            given = {
                "context_ids": torch.tensor(stack["context"][:cut])[None],
                "questions_ids": [torch.tensor(one["ids"])[None] for one in questions],
            }
            said += pipeline.forward(given, max_new_tokens=max(one["num_new"] for one in questions), press=None)
    return said


if __name__ == "__main__":
    serve(load)
