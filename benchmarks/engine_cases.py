"""The checkpoints that the engines are run on: a plan, a control that cannot be misread, the plan off, and wrong ones.

One model (SmolLM2-135M-Instruct, trained to 8,192 tokens), one text, the same token ids for every engine. A case is written
twice: as a transformers folder, and as a float32 GGUF file dequantised tensor by tensor, metadata kept.
"""

import json
import math
import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gguf
import numpy as np

import ropewalk
from benchmarks.common import INPUTS
from examples.demo import packaged_weights, write_manual

TRAINED = 8192
MODEL = "SmolLM2-135M-Instruct"
ORIGINAL = "original_max_position_embeddings"
MAGNITUDE = 1 + 0.1 * math.log(4)
"""YaRN's factor on cos and sin at four times the length."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """One checkpoint, in both spellings."""

    name: str
    of: str
    """The case whose numbers the engine is held against: itself where the checkpoint is right."""
    method: str = ""
    """Written by `ropewalk extend` with this method, before anything is changed."""
    length: int = 16384
    config: dict[str, Any] = field(default_factory=dict)
    """What is then changed in `config.json`; under `rope_parameters` key by key, None takes a key out."""
    metadata: dict[str, Any] = field(default_factory=dict)
    """What is then changed in the GGUF file's metadata, below the architecture's prefix; None takes a key out."""


def _wrong(name: str, config: dict[str, Any], metadata: dict[str, Any]) -> Case:
    changes = {"rope_parameters": config}
    return Case(name=name, of="yarn x4", method="yarn", length=32768, config=changes, metadata=metadata)


CASES = (
    Case(name="yarn x2", of="yarn x2", method="yarn"),
    Case(name="control", of="control", method="ntk"),
    Case(name="off", of="yarn x2", config={"max_position_embeddings": 16384}, metadata={"context_length": 16384}),
    Case(name="yarn x4", of="yarn x4", method="yarn", length=32768),
    _wrong(
        "factor dropped",
        {"rope_type": "default", "factor": None, "beta_fast": None, "beta_slow": None, ORIGINAL: None},
        {"rope.scaling.type": None, "rope.scaling.factor": None, "rope.scaling.original_context_length": None},
    ),
    _wrong("attention factor dropped", {"attention_factor": 1.0}, {"rope.scaling.attn_factor": 1 / MAGNITUDE}),
    _wrong("attention factor squared", {"attention_factor": MAGNITUDE**2}, {"rope.scaling.attn_factor": MAGNITUDE}),
    _wrong("length in the wrong field", {ORIGINAL: 32768}, {"rope.scaling.original_context_length": 32768}),
)
"""In the order they are run."""


def case(name: str) -> Case:
    """The case of that name."""
    return next(one for one in CASES if one.name == name)


def inputs() -> tuple[Path, Path]:
    """The model's folder and the text, made where they are missing; both as the demo makes them."""
    model, text = INPUTS / MODEL, INPUTS / "python-manual.txt"
    if not (model / "config.json").is_file():
        ropewalk.convert(packaged_weights(), model)
    if not text.is_file():
        write_manual(text)
    return model, text


def token_ids(length: int) -> tuple[int, ...]:
    """The first `length` tokens of the text."""
    from transformers import AutoTokenizer

    from ropewalk.data.documents import read_documents

    model, text = inputs()
    (document,) = read_documents([text], AutoTokenizer.from_pretrained(model), length)
    return tuple(int(one) for one in document.ids[:length])


def positions(longest: int) -> tuple[int, ...]:
    """Sixteen probe positions: eight inside the trained window, eight beyond it, up to `longest`."""
    inside = np.linspace(TRAINED / 8, TRAINED - 64, 8)
    beyond = np.linspace(TRAINED + 64, longest - 1, 8)
    return tuple(int(one) for one in (*inside, *beyond))


def write_folder(made: Case, out: Path) -> Path:
    """The case as a transformers folder; weights by hard link."""
    model, _ = inputs()
    if (out / "config.json").is_file():
        return out
    if made.method:
        ropewalk.extend(model, made.method, length=made.length, out=out)
    else:
        shutil.copytree(model, out, copy_function=os.link)
    path = out / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    for key, value in made.config.items():
        config[key] = _merged(config[key], value) if key == "rope_parameters" else value
    # The file is a link to the source's: a new one takes its place.
    path.unlink()
    path.write_text(json.dumps(config, indent=1), encoding="utf-8")
    return out


def _merged(before: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in (before | changes).items() if value is not None}


def write_gguf(made: Case, out: Path) -> Path:
    """The case as a GGUF file in float32; the plan is put on by `ropewalk extend`, as a user would."""
    if out.is_file():
        return out
    source = rewritten(packaged_weights(), out.parent / "source.gguf", {"general.file_type": 0})
    if made.method:
        extended = out.with_suffix(".extended.gguf") if made.metadata else out
        ropewalk.extend(source, made.method, length=made.length, out=extended, force=True)
        source = extended
    if made.metadata:
        rewritten(source, out, {f"llama.{key}": value for key, value in made.metadata.items()})
    if made.method and made.metadata:
        source.unlink()
    return out


def write_quantised(made: Case, place: Path) -> Path:
    """The case as a GGUF file in its packaged four bits."""
    out = place / f"{made.name.replace(' ', '-')}.Q4_1.gguf"
    if not made.method:
        # llama.cpp's server caps a context at the file's length, so that a plan that is off must still say a longer one.
        changes = {f"llama.{key}": value for key, value in made.metadata.items()}
        return rewritten(packaged_weights(), out, changes, dequantise=False)
    if not out.is_file():
        ropewalk.extend(packaged_weights(), made.method, length=made.length, out=out)
    return out


def rewritten(source: Path, out: Path, changes: dict[str, Any], *, dequantise: bool = True) -> Path:
    """A copy of a GGUF file with metadata changed, in float32 where dequantised; staged, so that no half a file is left."""
    if out.is_file():
        return out
    reader = gguf.GGUFReader(source)
    stage = out.with_suffix(".partial")
    writer = gguf.GGUFWriter(stage, "llama")
    known = {field.name: field for field in reader.fields.values() if not field.name.startswith("GGUF.")}
    known.pop("general.architecture")
    for name, field_ in known.items():
        kind = field_.types[0]
        inner = field_.types[-1] if kind == gguf.GGUFValueType.ARRAY else None
        value = changes[name] if name in changes else field_.contents()
        if value is not None:
            writer.add_key_value(name, value, kind, inner)
    for name in changes.keys() - known.keys():
        if changes[name] is not None:
            writer.add_key_value(name, changes[name], _kind(changes[name]))
    for tensor in reader.tensors if not dequantise else ():
        writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
    for tensor in reader.tensors if dequantise else ():
        data = gguf.quants.dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
        writer.add_tensor(tensor.name, data.reshape([int(size) for size in reversed(tensor.shape)]))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    stage.rename(out)
    return out


def _kind(value: Any) -> gguf.GGUFValueType:
    kinds = {str: gguf.GGUFValueType.STRING, float: gguf.GGUFValueType.FLOAT32, int: gguf.GGUFValueType.UINT32}
    return kinds[type(value)]
