"""A capability-lifted SmolLM2: the same model with a small LoRA that has learned to answer, at short length only.

    python -m experiments.lifted [--out runs/lifted] [--steps 120] [--resume]

A 135M model fails many tasks at any length, so they cannot tell how far it reads. A LoRA trained at short length on the
tasks' `train` split lifts the capability and leaves positions alone: every prompt is far inside the window, and base and
frequencies are frozen. Words and wordings of the two splits are disjoint, and the text the prompts hide in is not the one
that is measured. What is measured of the lifted model is about the lifted model: its folder's name says so in every row.

Plain PEFT; nothing but LoRA matrices is trained, the loss is on the answers' tokens. A step is a function of its number, so
a killed run goes on with the same parameters. The merged model is written to OUT/SmolLM2-135M-lifted.
"""

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from examples.demo import model_folder
from ropewalk.data.documents import tokenize
from ropewalk.data.tasks.encoding import Encoder, Ids
from ropewalk.data.tasks.task import Ask, find_task

TASKS = (
    "needle", "passkey", "niah-multikey-1", "niah-multikey-2", "niah-multivalue", "variable-tracking", "key-value",
    "lines-words", "lines-index", "association",
)  # fmt: skip
"""Tasks trained on. Aggregation and conversation are left out, so that some tasks stay unseen in kind."""
LENGTHS = (384, 512, 768, 1024)
RANK, ALPHA, RATE, WARM_UP, ACCUMULATE = 16, 32, 3e-4, 20, 4
TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
SAVE_EVERY = 20


def filler(tokenizer: Any) -> Ids:
    """Text to hide things in: the standard library's sources. The measured text is Python's manual."""
    folder = Path(json.__file__).parent.parent
    names = sorted(path for path in folder.glob("*.py") if path.stat().st_size > 20_000)
    return tokenize("\n\n".join(path.read_text(encoding="utf-8") for path in names), tokenizer, "stdlib").ids


def example(encoder: Encoder, text: Ids, step: int, part: int) -> tuple[Ids, Ids]:
    """Ids of one haystack followed by every question with its answer, and the labels: -100 but for the answers."""
    rng = np.random.default_rng([step, part])
    while True:
        task, length = find_task(str(rng.choice(TASKS))), int(rng.choice(LENGTHS))
        depths = tuple(sorted(rng.random(3))) if task.plants else ()
        start = int(rng.integers(0, text.size - 8192))
        ask = Ask(
            encoder=encoder, lengths=(length,), depths=depths, seed=step * ACCUMULATE + part, split="train",
            filler=text[start : start + 8192],
        )  # fmt: skip
        try:
            stack = task.build(ask)
        except ValueError:
            # This length is too small for this task: draw again.
            continue
        pieces, labels = [stack.context], [np.full(stack.context.size, -100)]
        for question in stack.questions:
            pieces += [question.question, question.answer]
            labels += [np.full(question.question.size, -100), question.answer]
        return np.concatenate(pieces), np.concatenate(labels).astype(np.int64)


def lora(model: Any) -> Any:
    """The model with untrained LoRA matrices on every linear layer of every block."""
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(r=RANK, lora_alpha=ALPHA, lora_dropout=0.0, target_modules=TARGETS, task_type="CAUSAL_LM")
    torch.manual_seed(0)
    return get_peft_model(model, config)


def loss_of(model: Any, ids: Ids, labels: Ids) -> torch.Tensor:
    """Mean NLL of the answers' tokens; the head runs over their rows alone."""
    hidden = model.get_base_model().model(input_ids=torch.from_numpy(ids)[None], use_cache=False).last_hidden_state[0]
    asked = np.flatnonzero(labels[1:] != -100)
    logits = model.get_base_model().lm_head(hidden[asked]).float()
    return torch.nn.functional.cross_entropy(logits, torch.from_numpy(labels[1:][asked]))


class Training:
    """LoRA matrices and Adam's moments, saved together."""

    def __init__(self, model: Any, folder: Path, steps: int) -> None:
        self.model, self.folder, self.steps = model, folder, steps
        self.trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self.optimizer = torch.optim.AdamW(self.trained.values(), lr=RATE, weight_decay=0.0)
        self.step = 0

    def save(self) -> None:
        """One safetensors file, whole or not at all."""
        tensors = {f"lora.{name}": p.detach().clone() for name, p in self.trained.items()}
        for name, p in self.trained.items():
            for key, value in self.optimizer.state[p].items():
                tensors[f"adam.{key}.{name}"] = value.detach().clone()
        part = self.folder / "state.part"
        save_file(tensors, part, metadata={"step": str(self.step)})
        part.replace(self.folder / "state.safetensors")
        (self.folder / "step.json").write_text(json.dumps({"step": self.step}))

    def load(self) -> None:
        """Goes on where `save` left off."""
        tensors = load_file(self.folder / "state.safetensors")
        self.step = json.loads((self.folder / "step.json").read_text())["step"]
        for name, p in self.trained.items():
            p.data.copy_(tensors[f"lora.{name}"])
            keys = ("step", "exp_avg", "exp_avg_sq")
            self.optimizer.state[p] = {key: tensors[f"adam.{key}.{name}"].clone() for key in keys}

    def run(self, encoder: Encoder, text: Ids) -> None:
        """The steps that are missing, with a line of progress each."""
        log = self.folder / "loss.jsonl"
        while self.step < self.steps:
            began, total = time.monotonic(), 0.0
            share = min(1.0, (self.step + 1) / WARM_UP) * (1.0 - self.step / self.steps)
            for group in self.optimizer.param_groups:
                group["lr"] = RATE * share
            for part in range(ACCUMULATE):
                loss = loss_of(self.model, *example(encoder, text, self.step, part)) / ACCUMULATE
                torch.autograd.backward(loss)
                total += float(loss)
            self.optimizer.step()
            self.optimizer.zero_grad()
            self.step += 1
            seconds = time.monotonic() - began
            with log.open("a") as file:
                file.write(json.dumps({"step": self.step, "loss": total, "seconds": round(seconds, 2)}) + "\n")
            print(f"step {self.step}/{self.steps}: loss {total:.3f}, {seconds:.1f} s", file=sys.stderr, flush=True)
            if self.step % SAVE_EVERY == 0 or self.step == self.steps:
                self.save()


def merge(trained: Training, source: Path, out: Path) -> None:
    """Adds the LoRA's product onto float32 weights and writes a folder that is a source like any other."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    whole = lora(AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32))
    own = dict(whole.named_parameters())
    for name, p in trained.trained.items():
        own[name].data.copy_(p.data)
    whole.merge_and_unload().save_pretrained(out)
    AutoTokenizer.from_pretrained(source).save_pretrained(out)


def main() -> int:
    """Trains what is missing, merges, names the folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/lifted"))
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument("--resume", action="store_true", help="go on with a training that is there")
    args = parser.parse_args()
    from transformers import AutoModelForCausalLM, AutoTokenizer

    if args.out.exists() and not args.resume:
        parser.error(f"{args.out} exists; say --resume to go on, or give another --out")
    source = model_folder(Path("runs/inputs"))
    args.out.mkdir(parents=True, exist_ok=True)
    tokenizer = AutoTokenizer.from_pretrained(source)
    encoder = Encoder(tokenizer=tokenizer, prefix=tokenize("a b c", tokenizer, "").prefix)
    training = Training(lora(AutoModelForCausalLM.from_pretrained(source, dtype=torch.bfloat16)), args.out, args.steps)
    if args.resume and (args.out / "state.safetensors").is_file():
        training.load()
    training.run(encoder, filler(tokenizer))
    folder = args.out / "SmolLM2-135M-lifted"
    merge(training, source, folder)
    print(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
