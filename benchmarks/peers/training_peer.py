"""Training steps the peer's way: HF Trainer as it comes, HF Trainer with checkpointing, or TRL's SFTTrainer, on given ids.

    PYTHON training_peer.py < JOB     one line of JSON; then a step for each line on stdin; each answers with one line

It imports nothing of ours, so that a peer's environment needs its own packages alone. `who` is `hf`, `hf-checkpointed`,
`trl` or `trl-packed`; the last takes documents and packs them itself (best fit decreasing, its default). Everything is the
peer's default but what makes the runs comparable: the ids, the seed, float32 or bfloat16 as asked, AdamW without decay, a
constant rate, one row a step, the CPU.

Steps wait for a line on stdin, so that peers take turns: the callback that waits comes before a step and its seconds are not
counted. What the packed peer gives its attention is told: whether a mask came, its shape and bytes, and which function.
"""

import json
import sys
import tempfile
from importlib.metadata import version
from typing import Any

from turns import answers, turns


def model_of(job: dict[str, Any]) -> Any:
    """The checkpoint, its first layers alone where that is asked."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(job["model"])
    if job.get("num_layers"):
        config.num_hidden_layers = job["num_layers"]
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_pretrained(job["model"], config=config, dtype=torch.float32)


def arguments(job: dict[str, Any], out: str) -> dict[str, Any]:
    """What every peer is told alike."""
    return {
        "output_dir": out, "max_steps": job["steps"], "per_device_train_batch_size": 1, "use_cpu": True,
        "bf16": job["bfloat16"], "learning_rate": 1e-5, "lr_scheduler_type": "constant", "weight_decay": 0.0,
        "adam_beta1": 0.9, "adam_beta2": 0.95, "max_grad_norm": 1.0, "seed": 0, "logging_steps": 1, "save_strategy": "no",
        "report_to": [], "disable_tqdm": True, "dataloader_num_workers": 0,
    }  # fmt: skip


SEEN: dict[str, Any] = {}


def look_at_attention() -> None:
    """Notes what the sdpa function of transformers is given, once."""
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    stock = ALL_ATTENTION_FUNCTIONS["sdpa"]

    def noted(module: Any, query: Any, key: Any, value: Any, attention_mask: Any, *args: Any, **kwargs: Any) -> Any:
        if not SEEN:
            mask = attention_mask
            SEEN["attention"] = "sdpa"
            SEEN["mask"] = None if mask is None else [list(mask.shape), str(mask.dtype), mask.numel() * mask.element_size()]
        return stock(module, query, key, value, attention_mask, *args, **kwargs)

    ALL_ATTENTION_FUNCTIONS.register("sdpa", noted)


def hf_trainer(job: dict[str, Any], say: Any, out: str, *, checkpointed: bool) -> Any:
    """transformers.Trainer with rows as they are."""
    import torch
    from transformers import PrinterCallback, Trainer, TrainingArguments

    rows = [{"input_ids": torch.tensor(ids), "labels": torch.tensor(ids)} for ids in job["rows"]]
    args = TrainingArguments(**arguments(job, out), gradient_checkpointing=checkpointed)
    trainer = Trainer(model=model_of(job), args=args, train_dataset=rows, callbacks=[turns(job, say, SEEN)])
    # In the order given, as ours.
    trainer._get_train_sampler = lambda *a, **k: torch.utils.data.SequentialSampler(rows)
    trainer.remove_callback(PrinterCallback)
    return trainer


def trl_trainer(job: dict[str, Any], say: Any, out: str, *, packed: bool) -> Any:
    """TRL's SFTTrainer: checkpointing and its head without whole logits are its defaults."""
    import torch
    from datasets import Dataset
    from transformers import AutoTokenizer, PrinterCallback
    from trl import SFTConfig, SFTTrainer

    data = Dataset.from_dict({"input_ids": job["documents"] if packed else job["rows"]})
    args = SFTConfig(**arguments(job, out), max_length=job["length"], packing=packed)
    trainer = SFTTrainer(
        model=model_of(job), args=args, train_dataset=data, processing_class=AutoTokenizer.from_pretrained(job["model"]),
        callbacks=[turns(job, say, SEEN)],
    )  # fmt: skip
    if packed:
        # What it packed, so that ours takes the same rows.
        SEEN_ROWS.extend({"ids": row["input_ids"], "sizes": row["seq_lengths"]} for row in trainer.train_dataset)
    trainer._get_train_sampler = lambda *a, **k: torch.utils.data.SequentialSampler(trainer.train_dataset)
    trainer.remove_callback(PrinterCallback)
    return trainer


SEEN_ROWS: list[dict[str, Any]] = []


def main(say: Any) -> None:
    """Reads the job, says what it is, and trains step by step."""
    job = json.loads(sys.stdin.readline())
    import torch
    import transformers

    torch.set_num_threads(job["threads"])
    transformers.logging.set_verbosity_error()
    who = job["who"]
    with tempfile.TemporaryDirectory() as out:
        if who.startswith("trl"):
            if who == "trl-packed":
                look_at_attention()
            trainer = trl_trainer(job, say, out, packed=who == "trl-packed")
        else:
            trainer = hf_trainer(job, say, out, checkpointed=who == "hf-checkpointed")
        names = ("torch", "transformers", "accelerate", *(("trl",) if who.startswith("trl") else ()))
        say(
            version={name: version(name) for name in names}, rows=SEEN_ROWS,
            model_attention=trainer.model.config._attn_implementation,
        )  # fmt: skip
        trainer.train()


if __name__ == "__main__":
    main(answers())
