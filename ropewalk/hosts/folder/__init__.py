"""Checkpoints on disk: open and check them, read their geometry, write extended ones. No torch, no transformers."""

from ropewalk.hosts.folder.adapter import base_of, check_mergeable, name_base
from ropewalk.hosts.folder.adapter import findings as adapter_findings
from ropewalk.hosts.folder.checkpoint import Checkpoint, adapter_refused, geometry_of, open_checkpoint, read_json, shapes
from ropewalk.hosts.folder.extended import write_extended
from ropewalk.hosts.folder.facts import gather, tokenizer_config
from ropewalk.hosts.folder.mended import write_mended
from ropewalk.hosts.folder.shared import check_shared, write_shared
from ropewalk.hosts.folder.tuned import check_start, write_end, write_merged, write_start

__all__ = [
    "Checkpoint",
    "adapter_findings",
    "adapter_refused",
    "base_of",
    "check_mergeable",
    "check_shared",
    "check_start",
    "gather",
    "geometry_of",
    "name_base",
    "open_checkpoint",
    "read_json",
    "shapes",
    "tokenizer_config",
    "write_end",
    "write_extended",
    "write_mended",
    "write_merged",
    "write_shared",
    "write_start",
]
