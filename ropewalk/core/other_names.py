"""What the field calls options that have another name here, or none.

Near spellings lead astray where a word is a different one: `--lr` is no misspelt `--dir`. The table has what users of
transformers, TRL, axolotl and LLaMA-Factory type; a name counts only where ours is known in that place, so that a value such
as `bf16` or an option of another verb is not met by it.

Given up: completeness. What is not here falls to the nearest spellings.
"""

from collections.abc import Iterable

OTHERS = {
    "learning-rate": ("lr",),
    "steps": ("max-steps", "num-steps", "max-iters", "num-iters", "iters", "train-steps", "total-steps"),
    "batch-size": ("per-device-train-batch-size", "micro-batch-size", "train-batch-size", "mbs", "bs"),
    "accumulate": (
        "gradient-accumulation-steps", "gradient-accumulation", "accumulation-steps", "grad-accum", "grad-accum-steps",
    ),
    "out": ("output-dir", "output", "out-dir", "output-path", "save-dir", "save-path"),
    "length": (
        "max-length", "max-seq-length", "max-seq-len", "seq-length", "seq-len", "sequence-length", "sequence-len",
        "context-length", "context-len", "ctx-len", "ctx", "context", "max-position-embeddings", "max-model-len",
        "model-max-length", "block-size", "cutoff-len", "target-length",
    ),
    "data": ("dataset", "datasets", "train-file", "train-data", "dataset-name", "data-path", "data-dir", "train", "texts"),
    "method": ("rope-scaling", "rope-type", "scaling", "scaling-type"),
    "schedule": ("lr-scheduler-type", "lr-scheduler", "scheduler"),
    "warmup-steps": ("warmup", "num-warmup-steps"),
    "weight-decay": ("wd",),
    "beta1": ("adam-beta1",),
    "beta2": ("adam-beta2",),
    "max-grad-norm": ("grad-clip", "gradient-clipping", "clip-grad", "grad-norm", "clip-grad-norm"),
    "rank": ("lora-r", "lora-rank"),
    "alpha": ("lora-alpha",),
    "dropout": ("lora-dropout",),
    "attention": ("attn",),
    "offload": ("activation-offloading",),
    "checkpoint-every": ("gradient-checkpointing", "activation-checkpointing", "use-gradient-checkpointing"),
    "save-every": ("save-steps", "save-interval"),
    "validate": ("eval-file", "eval-dataset", "validation-file", "eval-data", "val-file", "eval"),
    "validate-every": ("eval-steps", "eval-every", "eval-interval"),
    "resume": ("resume-from-checkpoint", "continue"),
    "push-to-hub": ("hub-model-id",),
    "preset": ("config", "yaml", "config-file"),
    "text": ("input", "text-file", "input-file"),
    "dtype": ("torch-dtype", "precision", "mixed-precision"),
    "seed": ("random-seed", "data-seed"),
    "tokenizer": ("model", "model-name-or-path", "model-path", "tokenizer-path", "tokenizer-name"),
}  # fmt: skip
"""Our name to those of others."""
IN_WORDS = {
    ("bf16",): ("dtype", "is {ours} bfloat16 here"),
    ("fp32",): ("dtype", "is {ours} float32 here"),
    ("fp16", "half"): ("learning-rate", "is not offered, since gradients vanish in float16; train in bfloat16 or float32"),
    ("epochs", "num-epochs", "num-train-epochs", "epoch"): (
        "steps", "is counted in {ours} here; before the first step a line says how many epochs they are",
    ),
    ("warmup-ratio",): ("warmup-steps", "is counted in {ours} here"),
    ("lora", "use-lora", "peft", "use-peft", "adapter"): ("recipe", "is {ours} longlora here, or lora"),
    ("qlora", "load-in-4bit", "4bit"): ("recipe", "is {ours} qlora here"),
    ("wandb", "use-wandb", "wandb-project"): ("report-to", "is {ours} wandb here"),
    ("tensorboard",): ("report-to", "is {ours} tensorboard here"),
    ("optim", "optimizer"): (
        "learning-rate", "is not offered here: the optimizer is AdamW, and another is given in Python, as arguments of tune",
    ),
    ("fsdp", "deepspeed", "zero", "zero-stage"): (
        "learning-rate", "is not offered: parameters in shards are not; several processes are started with torchrun",
    ),
    ("packing", "pack", "sample-packing"): ("batch-size", "needs no word: documents are packed, and never see each other"),
    ("model", "model-name-or-path", "model-name", "model-path", "model-id", "base-model", "checkpoint-path"): (
        "lineage", "has no name here: the model is the first word behind the verb",
    ),
}  # fmt: skip
"""Names of others to what has to be known for them to count, and what there is to say; `{ours}` is our name."""


def other_name(name: str, known: Iterable[str]) -> str | None:
    """What there is to say of another's name for one of `known`, in the spelling of those; None where it is no such name."""
    ours = {_bare(one): one for one in known}
    bare = _bare(name)
    for mine, theirs in OTHERS.items():
        if bare in theirs and mine in ours:
            return f"{name} is {ours[mine]} here"
    for names, (mine, words) in IN_WORDS.items():
        if bare in names and mine in ours:
            return f"{name} {words.format(ours=ours[mine])}"
    return None


def _bare(name: str) -> str:
    """A name of the command line, of a file or of Python, without its dress."""
    return name.lstrip("-").replace("_", "-").lower()
