"""What a source is: a checkpoint folder, a config alone, a GGUF file, an adapter, or a name on a hub.

Everything that can be wrong with it is found here, before any work is done, and said in one sentence. Weights are never
read: only the headers of safetensors files, in a bounded way. Pickles are never opened, since opening one runs it.

Given up: checkpoints whose weights are spread over subfolders.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ropewalk.core.errors import SourceError, UnsupportedError
from ropewalk.core.geometry import Geometry
from ropewalk.engines import transformers
from ropewalk.engines.transformers import block
from ropewalk.hosts.folder import hub, links, weights

CONFIG, ADAPTER = "config.json", "adapter_config.json"
PLANNED = "base"
"""The folder inside an adapter folder of ours that has the base with the plan on: configuration, tokenizer, weights."""
BASE = "ropewalk_base"
"""The key of that folder's config.json: `{"source", "fingerprint", "revision", "tuning"}`, where the base came from (its
commit too, from the hub) and what its adapter was trained by."""
LARGEST_JSON = 64 * 1024 * 1024
"""Bytes of the largest JSON file that is read: tokenizers have some tens of megabytes, a config some kilobytes."""
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A source that was opened and checked."""

    path: Path
    """The folder, or the GGUF file."""
    kind: Literal["folder", "config", "gguf", "adapter"]
    """`config` is a folder without weights."""
    config: dict[str, Any]
    """The content of config.json; of a GGUF file what a converter would write, empty where it writes none; of an adapter its
    adapter_config.json, but of one of ours the base's config with the plan, its last step marked as tuned."""
    weights: tuple[str, ...]
    """Names of the weight files inside `path`, the index included."""
    quantisation: str | None
    """How the weights are quantised (`awq`, `gptq`, `fp8`, `Q4_1`), None where they are not."""

    @property
    def runs(self) -> bool:
        """Whether a live model can be made of it: a folder with weights, or an adapter that names base and positions."""
        return self.kind == "folder" or self.is_own_adapter

    @property
    def is_own_adapter(self) -> bool:
        """Whether it is an adapter folder that `ropewalk tune` wrote: it has positions of its own, and names its base."""
        return self.kind == "adapter" and BASE in self.config

    @property
    def home(self) -> Path:
        """The folder with config.json and tokenizer: of an adapter of ours its planned base, else `path`."""
        return self.path / PLANNED if self.is_own_adapter else self.path


def open_checkpoint(source: str | Path, *, weights: bool = False, revision: str | None = None) -> Checkpoint:
    """The checkpoint that `source` names; an existing path wins over a hub id.

    Of a hub id the configuration and tokenizer are fetched, of the newest commit or of `revision`, and the weights too where
    `weights` asks for them. Raises `SourceError` for what is no checkpoint or a broken one, and `UnsupportedError` for
    pickled weights.
    """
    path = Path(source).expanduser()
    if path.is_dir():
        return _open_folder(path)
    if path.is_file():
        return _open_file(path)
    if isinstance(source, str) and _HUB_ID.fullmatch(source):
        return _open_folder(hub.fetch(source, weights=weights, revision=revision))
    raise SourceError(f"{source} does not exist; expected a checkpoint folder, a GGUF file, or a hub id such as org/name")


def geometry_of(checkpoint: Checkpoint) -> Geometry:
    """What a checkpoint says of positions. Raises `UnsupportedError` for families that are not supported, by name."""
    if checkpoint.kind == "gguf":
        from ropewalk.hosts import gguf

        return gguf.geometry(gguf.read_header(checkpoint.path))
    if checkpoint.kind == "adapter" and not checkpoint.is_own_adapter:
        raise adapter_refused(checkpoint)
    return transformers.read(checkpoint.config)


def shapes(checkpoint: Checkpoint) -> dict[str, tuple[int, ...]]:
    """The shape of every tensor of a folder's safetensors files, by name."""
    found: dict[str, tuple[int, ...]] = {}
    for name in checkpoint.weights:
        if name.endswith(".safetensors"):
            found |= weights.shapes(checkpoint.path / name)
    return found


def adapter_refused(checkpoint: Checkpoint) -> UnsupportedError:
    """Why an adapter alone is of no use, and what to do."""
    if checkpoint.is_own_adapter:
        return UnsupportedError(
            f"{checkpoint.path} is an adapter, and this needs whole weights, which are written by "
            f"ropewalk tune {checkpoint.path} --merge --out DIR"
        )
    base = checkpoint.config.get("base_model_name_or_path") or "a base model that it does not name"
    return UnsupportedError(
        f"{checkpoint.path} is a PEFT adapter for {base}, which has no positions of its own; merge it into its base and "
        "give the merged folder"
    )


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file. Raises `SourceError` where it is missing, broken, huge or no object."""
    try:
        size = path.stat().st_size
        content = json.loads(path.read_text(encoding="utf-8")) if size <= LARGEST_JSON else None
    except (ValueError, RecursionError) as error:
        raise SourceError(f"{path} is not JSON ({error}); restore it from where the checkpoint came from") from error
    except OSError as error:
        raise SourceError(f"{path} cannot be read ({error.strerror or error})") from error
    if size > LARGEST_JSON:
        raise SourceError(f"{path} has {size} bytes, which is too much for a JSON file of a checkpoint")
    if not isinstance(content, dict):
        raise SourceError(f"{path} holds a JSON {type(content).__name__}, expected an object")
    return content


def _open_file(path: Path) -> Checkpoint:
    if path.suffix.lower() != ".gguf":
        raise SourceError(f"{path} is a file but not a GGUF file; give the checkpoint's folder")
    from ropewalk.hosts import gguf

    header = gguf.read_header(path)
    return Checkpoint(
        path=path,
        kind="gguf",
        # A file that has no folder form still has positions: `geometry_of` reads them from its metadata.
        config=gguf.config_of(header) if gguf.is_convertible(header) else {},
        weights=(path.name,),
        quantisation=gguf.quantisation_of(header),
    )


def _open_folder(path: Path) -> Checkpoint:
    if not (path / CONFIG).is_file():
        if (path / ADAPTER).is_file():
            return _open_adapter(path)
        raise SourceError(f"{path} is not a checkpoint: it has no {CONFIG}; {_instead(path)}")
    links.check_links(path)
    config = read_json(path / CONFIG)
    names = weights.names_in(path)
    return Checkpoint(
        path=path,
        kind="folder" if names else "config",
        config=config,
        weights=names,
        quantisation=_quantisation(config),
    )


def _open_adapter(path: Path) -> Checkpoint:
    """PEFT's files; the positions are in the planned base, where `ropewalk tune` wrote one."""
    # Weights of the base are opened by `base_of` alone, which follows no link.
    links.check_links(path, unread=path / PLANNED)
    config = read_json(path / ADAPTER)
    if (path / PLANNED / CONFIG).is_file():
        planned = read_json(path / PLANNED / CONFIG)
        named = planned.get(BASE)
        if isinstance(named, Mapping) and isinstance(named.get("tuning"), Mapping):
            config = block.marked(planned, named["tuning"])
    return Checkpoint(path=path, kind="adapter", config=config, weights=(), quantisation=None)


def _instead(path: Path) -> str:
    """What may have been meant."""
    inside = sorted(file.name for file in path.glob("*.gguf"))
    if inside:
        return f"give the file itself, {path / inside[0]}"
    below = sorted(file.parent.name for file in path.glob(f"*/{CONFIG}"))
    if below:
        return f"did you mean {path / below[0]}?"
    return "expected a folder that save_pretrained wrote"


def _quantisation(config: Mapping[str, Any]) -> str | None:
    text = config.get("text_config")
    for place in (config, text if isinstance(text, Mapping) else {}):
        section = place.get("quantization_config")
        if isinstance(section, Mapping):
            return str(section.get("quant_method", "unknown"))
    return None
