"""Writes a folder that carries a plan: the same weights, another config, lengths raised everywhere they are written.

The whole change is in config.json and in the tokenizer's length, so weights are hard links where the file system allows,
else shared blocks, else copies, and quantised checkpoints are extended as they are. The folder is staged and renamed: a run
that is killed leaves nothing under the final name.

Given up: code files and pickles are not carried over, nor the model card, which speaks of another model.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ropewalk.core.errors import UnsupportedError
from ropewalk.core.geometry import Geometry
from ropewalk.core.plan import Plan
from ropewalk.core.progress import Progress
from ropewalk.engines.coverage import widest
from ropewalk.hosts.folder.checkpoint import CONFIG, Checkpoint, adapter_refused, geometry_of, read_json
from ropewalk.hosts.folder.files import GENERATION, TOKENIZER, Placed, copy_carried, place, write_json
from ropewalk.hosts.staging import check_out, staged


def write_extended(
    checkpoint: Checkpoint, plan: Plan, out: str | Path, *, force: bool = False, geometry: Geometry | None = None,
    copy: bool = False, progress: Progress | None = None,
) -> list[str]:  # fmt: skip
    """Writes `checkpoint` with `plan` to the folder `out`; returns notes for the user, one sentence each.

    `geometry` is what the plan was made from, where the user said more than the config does; `copy` asks for copies of the
    weights where links would do. Everything is checked before a folder is made. Raises `HostError` for a plan that a config
    cannot say, `UnsupportedError` for a GGUF file or an adapter, `OutputError` for an output folder that exists,
    `MachineError` where the disk is full.
    """
    if checkpoint.kind == "gguf":
        raise UnsupportedError(
            f"{checkpoint.path} is a GGUF file, and extend writes transformers folders; run ropewalk convert on it first"
        )
    if checkpoint.kind == "adapter":
        raise adapter_refused(checkpoint)
    check_out(out, force=force, sources=[checkpoint.path])
    config = widest(checkpoint.config, plan, geometry=geometry)
    tokenizer, notes = _tokenizer(checkpoint.path, plan.length)
    generation, raised = _generation(checkpoint, plan.length)
    notes += raised + _leave_code(config)
    with staged(out, force=force, sources=[checkpoint.path], progress=progress) as stage:
        placed = {name: place(checkpoint.path / name, stage / name, copy=copy) for name in checkpoint.weights}
        copy_carried(checkpoint, stage)
        write_json(stage / CONFIG, config)
        if tokenizer is not None:
            write_json(stage / TOKENIZER, tokenizer)
        if generation is not None:
            write_json(stage / GENERATION, generation)
    return [*_weight_notes(checkpoint, placed, asked=copy), *notes, *_config_notes(config, plan)]


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


def _generation(checkpoint: Checkpoint, length: int) -> tuple[dict[str, Any] | None, list[str]]:
    """The generation config with `max_length` raised, or None where it is not the old length: then it was chosen."""
    if not (checkpoint.path / GENERATION).is_file():
        return None, []
    content, old = read_json(checkpoint.path / GENERATION), geometry_of(checkpoint).declared_length
    if content.get("max_length") != old or old >= length:
        return None, []
    note = f"max_length of {GENERATION}, the old length, is raised from {old} to {length}"
    return {**content, "max_length": length}, [note]


def _leave_code(config: dict[str, Any]) -> list[str]:
    """Takes the names of code files out of the new config, in place, since those files are never run nor carried over."""
    named = config.pop("auto_map", None)
    if named is None:
        return []
    return [
        "config.json names code of its own (auto_map), which was neither read nor run: the plan holds for the stock class "
        f"of {config['model_type']}, and the names are left out"
    ]


def _weight_notes(checkpoint: Checkpoint, placed: Mapping[str, Placed], *, asked: bool) -> list[str]:
    notes = []
    ways = set(placed.values())
    if not ways:
        notes.append("the source has no weights, so only the configuration was written")
    if "link" in ways:
        notes.append("weights are hard links to the source and take no room; change neither in place")
    if "reflink" in ways:
        notes.append("weights share their blocks with the source until either is changed, and take no room")
    if "copy" in ways:
        num_bytes = sum((checkpoint.path / name).stat().st_size for name, way in placed.items() if way == "copy")
        why = "as asked" if asked else "since the file system makes no links there"
        notes.append(f"weights were copied, {num_bytes} bytes, {why}")
    if checkpoint.quantisation is not None:
        notes.append(f"weights stay quantised as they were ({checkpoint.quantisation})")
    return notes


def _config_notes(config: Mapping[str, Any], plan: Plan) -> list[str]:
    text = config.get("text_config")
    text = text if isinstance(text, Mapping) else config
    declared = text["max_position_embeddings"] if "max_position_embeddings" in text else config["max_position_embeddings"]
    section = text["rope_parameters"].get("full_attention", text["rope_parameters"])
    if section["rope_type"] == "llama3" and plan.method != "llama3":
        return [
            f"{plan.method} is written as llama3 with all frequencies in its slow band, which divides them alike: more "
            "engines read that exactly than linear"
        ]
    if declared >= plan.length:
        return []
    return [
        f"max_position_embeddings is {declared}, not {plan.length}: with linear scaling vLLM and SGLang multiply it by the "
        "factor themselves"
    ]
