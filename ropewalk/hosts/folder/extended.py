"""Writes a folder that carries a plan: the same weights, another config, lengths raised everywhere they are written.

The whole change is in config.json and in the tokenizer's length, so weights are hard links where the file system allows and
copies where it does not, and quantised checkpoints are extended as they are. The folder is staged and renamed: a run that
is killed leaves nothing under the final name.

Given up: code files and pickles are not carried over, nor the model card, which speaks of another model.
"""

import errno
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ropewalk.core.errors import UnsupportedError
from ropewalk.core.geometry import Geometry
from ropewalk.core.plan import Plan
from ropewalk.engines import transformers
from ropewalk.hosts.folder.checkpoint import CONFIG, Checkpoint, adapter_refused, read_json
from ropewalk.hosts.staging import check_out, staged

TOKENIZER = "tokenizer_config.json"
CARRIED = (".json", ".jinja", ".txt", ".model", ".tiktoken")
"""Endings of files beside the weights that a model is used with: tokenizer, generation config, chat template, processor."""
CARRIED_NAMES = ("LICENSE", "NOTICE", "USE_POLICY")
LEFT = (CONFIG, TOKENIZER, "trainer_state.json", "training_args.json", "adapter_config.json", "card.json")
"""Files that are written anew, or that tell of a run and not of the model."""
TEMPLATES = "additional_chat_templates"
NO_LINK = (errno.EXDEV, errno.EPERM, errno.EACCES, errno.EMLINK, errno.ENOTSUP, errno.ENOSYS, errno.EOPNOTSUPP)
"""Errors by which a file system says that it makes no hard links here."""


def write_extended(
    checkpoint: Checkpoint, plan: Plan, out: str | Path, *, force: bool = False, geometry: Geometry | None = None
) -> list[str]:
    """Writes `checkpoint` with `plan` to the folder `out`; returns notes for the user, one sentence each.

    `geometry` is what the plan was made from, where the user said more than the config does. Everything is checked before
    a folder is made. Raises `HostError` for a plan that a config cannot say, `UnsupportedError` for a GGUF file or an
    adapter, `OutputError` for an output folder that exists, `MachineError` where the disk is full.
    """
    if checkpoint.kind == "gguf":
        raise UnsupportedError(
            f"{checkpoint.path} is a GGUF file, and extend writes transformers folders; run ropewalk convert on it first"
        )
    if checkpoint.kind == "adapter":
        raise adapter_refused(checkpoint)
    check_out(out, force=force, sources=[checkpoint.path])
    config = transformers.spell(checkpoint.config, plan, geometry=geometry)
    tokenizer, notes = _tokenizer(checkpoint.path, plan.length)
    files = _carried(checkpoint)
    with staged(out, force=force, sources=[checkpoint.path]) as stage:
        linked = [_place(checkpoint.path / name, stage / name) for name in checkpoint.weights]
        for name in files:
            shutil.copyfile(checkpoint.path / name, _parent_made(stage / name))
        _write_json(stage / CONFIG, config)
        if tokenizer is not None:
            _write_json(stage / TOKENIZER, tokenizer)
    return [*_weight_notes(checkpoint, linked), *notes, *_config_notes(config, plan)]


def _tokenizer(folder: Path, length: int) -> tuple[dict[str, Any] | None, list[str]]:
    """The tokenizer's config with its length raised, and a note where that was needed."""
    if not (folder / TOKENIZER).is_file():
        return None, []
    content = read_json(folder / TOKENIZER)
    known = content.get("model_max_length")
    # Tokenizers without a limit carry an absurdly large number, which is kept.
    if isinstance(known, int | float) and not isinstance(known, bool) and known < length:
        content["model_max_length"] = length
        return content, [f"model_max_length of the tokenizer is raised from {int(known)} to {length}"]
    return content, []


def _carried(checkpoint: Checkpoint) -> list[str]:
    """Files that are copied as they are, relative to the folder."""
    names = [
        file.name
        for file in checkpoint.path.iterdir()
        if file.is_file()
        and not file.name.startswith(".")
        and not file.name.endswith(".index.json")
        and (file.suffix in CARRIED or file.name.startswith(CARRIED_NAMES))
        and file.name not in (*LEFT, *checkpoint.weights)
    ]
    templates = checkpoint.path / TEMPLATES
    inner = [f"{TEMPLATES}/{file.name}" for file in templates.glob("*.jinja")] if templates.is_dir() else []
    return sorted(names + inner)


def _place(source: Path, target: Path) -> bool:
    """Hard-links a file, or copies it where that cannot be done; whether it was linked."""
    try:
        # A hub cache holds links: the file itself is what must not vanish.
        os.link(os.path.realpath(source), target)
    except OSError as error:
        if error.errno not in NO_LINK:
            raise
        shutil.copyfile(source, target)
        return False
    return True


def _parent_made(path: Path) -> Path:
    path.parent.mkdir(exist_ok=True)
    return path


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _weight_notes(checkpoint: Checkpoint, linked: list[bool]) -> list[str]:
    notes = []
    if not linked:
        notes.append("the source has no weights, so only the configuration was written")
    elif any(linked):
        notes.append("weights are hard links to the source and take no room; change neither in place")
    if checkpoint.quantisation is not None:
        notes.append(f"weights stay quantised as they were ({checkpoint.quantisation})")
    return notes


def _config_notes(config: Mapping[str, Any], plan: Plan) -> list[str]:
    text = config.get("text_config", config)
    declared = text["max_position_embeddings"] if "max_position_embeddings" in text else config["max_position_embeddings"]
    if declared >= plan.length:
        return []
    return [
        f"max_position_embeddings is {declared}, not {plan.length}: with linear scaling vLLM and SGLang multiply it by the "
        "factor themselves"
    ]
