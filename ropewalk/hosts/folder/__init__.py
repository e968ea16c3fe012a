"""Checkpoints on disk: open and check them, read their geometry, write extended ones. No torch, no transformers."""

from ropewalk.hosts.folder.checkpoint import Checkpoint, geometry_of, open_checkpoint
from ropewalk.hosts.folder.extended import write_extended

__all__ = ["Checkpoint", "geometry_of", "open_checkpoint", "write_extended"]
