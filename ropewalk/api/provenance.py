"""Where a result comes from: versions, hardware, and a hash of the source that reads no tensor data."""

import hashlib
import os
import platform
import struct
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGES = ("ropewalk", "torch", "transformers", "tokenizers", "numpy")
HASHED = ("config.json", "tokenizer.json", "tokenizer_config.json", "tokenizer.model", "vocab.json", "merges.txt")


def versions() -> dict[str, str]:
    """Versions of what computes the numbers."""
    return {"python": platform.python_version(), **versions_of(*PACKAGES)}


def versions_of(*packages: str) -> dict[str, str]:
    """Versions of the packages that are installed."""
    found = {}
    for name in packages:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def hardware(device: str) -> dict[str, Any]:
    """Processor, cores, memory, and the GPU where one is used."""
    found: dict[str, Any] = {"processor": _processor(), "cores": os.cpu_count(), "memory_bytes": _memory()}
    if device.startswith("cuda"):
        import torch

        found["gpu"] = torch.cuda.get_device_name(device)
    return found


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def _memory() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return None


def source_hash(folder: Path) -> str:
    """SHA-256 over config, tokenizer and the headers of the weight files; of an adapter over its base's config too."""
    digest = hashlib.sha256()
    for path in sorted([*folder.iterdir(), *folder.glob("base/config.json")]):
        if path.name in HASHED:
            digest.update(path.name.encode() + path.read_bytes())
        elif path.suffix == ".safetensors":
            with path.open("rb") as file:
                (size,) = struct.unpack("<Q", file.read(8))
                digest.update(path.name.encode() + file.read(size))
    return digest.hexdigest()


def handed_in(path: str | Path) -> dict[str, str]:
    """A file that the user handed in for tasks: its name and its SHA-256, or a package's name and version."""
    given = Path(path)
    if given.is_file():
        return {"name": given.name, "sha256": hashlib.sha256(given.read_bytes()).hexdigest()}
    return {"name": str(path), **versions_of("lm_eval")}


def quantisation(config: Mapping[str, Any]) -> str | None:
    """What the weights went through, in words; None for weights that were never quantised."""
    block = config.get("ropewalk")
    origin = block.get("converted_from") if isinstance(block, Mapping) else None
    if isinstance(origin, Mapping) and origin.get("quantisation"):
        return f"{origin['quantisation']}, dequantised"
    section = config.get("quantization_config")
    if isinstance(section, Mapping):
        return str(section.get("quant_method", "quantised"))
    return None
