"""GGUF files taken apart, damaged in one to four places, and put together again."""

import random
import struct
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ropewalk.hosts.gguf import read_header
from ropewalk.hosts.gguf.header import MAGIC

NUMBERS = (0, 1, 2, 3, 31, 64, 255, 4096, 2**16, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**62, 2**63, 2**64 - 1)
FLOATS = (0.0, -0.0, 1.0, -1.0, 0.5, 4.0, 1e-30, 1e30, 3.4e38, float("nan"), float("inf"), -float("inf"))
TEXTS = (b"", b"yarn", b"linear", b"longrope", b"none", b"llama", b"gemma3", b"\xff\xfe", b"x" * 4000, b"[" * 3000, b"{}")
BLOCKS = (b"null", b'{"schema_version": 1}', b'{"schema_version": 1, "groups": {"all": 3}, "method": 1}', b"[[[[")
KEYS = (
    "context_length", "block_count", "rope.freq_base", "rope.dimension_count", "rope.scaling.type", "rope.scaling.factor",
    "rope.scaling.attn_factor", "rope.scaling.original_context_length", "rope.scaling.yarn_log_multiplier",
    "rope.freq_base_swa", "attention.sliding_window", "attention.sliding_window_pattern", "attention.head_count",
    "attention.head_count_kv", "attention.key_length", "attention.key_length_mla", "attention.value_length",
    "embedding_length", "feed_forward_length", "expert_count", "full_attention_interval", "attention.temperature_scale",
    "attention.layer_norm_rms_epsilon", "vocab_size",
)  # fmt: skip
GENERAL = ("general.architecture", "general.alignment", "general.file_type", "split.count", "ropewalk.block")
FACTORS = ("rope_freqs.weight", "rope_factors_long.weight", "rope_factors_short.weight")
LONG_LIST = 4096
"""Bytes of a key beyond which it is a token list, which costs time and decides nothing."""


@dataclass(frozen=True, kw_only=True)
class Parts:
    """A GGUF file in pieces."""

    architecture: str
    keys: tuple[tuple[str, bytes], ...]
    """Name, and type and value as in the file."""
    tensors: tuple[tuple[str, tuple[int, ...], int, bytes], ...]
    """Name, dimensions with the fastest first, type, data."""


def text(data: bytes) -> bytes:
    return struct.pack("<Q", len(data)) + data


def take_apart(path: Path, *, columns: int | None = None) -> Parts:
    """A real file's pieces without its token lists; `columns` cuts each dimension down to so many, data included."""
    header, keys, tensors = read_header(path), [], []
    with path.open("rb") as file:
        for name, (begin, end) in header.spans.items():
            if end - begin <= LONG_LIST:
                file.seek(begin)
                keys.append((name, file.read(end - begin)[8 + len(name.encode()) :]))
        for tensor in header.tensors.values():
            dims, size = tensor.shape[::-1], tensor.num_bytes
            if columns is not None:
                cut = tuple(min(dim, columns) for dim in dims)
                size = size * _count(cut) // _count(dims)
                dims = cut
            file.seek(tensor.offset)
            tensors.append((tensor.name, dims, tensor.type, file.read(size)))
    return Parts(architecture=header.architecture, keys=tuple(keys), tensors=tuple(tensors))


def _count(dims: tuple[int, ...]) -> int:
    product = 1
    for dim in dims:
        product *= dim
    return product


def put_together(parts: Parts, draw: random.Random | None = None) -> bytes:
    """The file; with `draw`, sometimes with counts, offsets or a version that are not its own."""
    version, num_tensors, num_keys = 3, len(parts.tensors), len(parts.keys)
    odd = draw.random() if draw is not None else 1.0
    if draw is not None and odd < 0.06:
        version, num_tensors, num_keys = _one_replaced((version, num_tensors, num_keys), draw)
    pieces = [MAGIC, struct.pack("<IQQ", version & 0xFFFFFFFF, num_tensors, num_keys)]
    pieces += [text(name.encode("utf-8", "surrogateescape")) + value for name, value in parts.keys]
    offset, data = 0, b""
    for name, dims, kind, content in parts.tensors:
        at = draw.choice(NUMBERS) if draw is not None and odd > 0.97 else offset
        pieces.append(text(name.encode()) + struct.pack(f"<I{len(dims)}Q", len(dims), *dims) + struct.pack("<IQ", kind, at))
        padded = content + b"\0" * (-len(content) % 32)
        data, offset = data + padded, offset + len(padded)
    head = b"".join(pieces)
    return head + b"\0" * (-len(head) % 32) + data


def _one_replaced(values: tuple[int, ...], draw: random.Random) -> tuple[int, ...]:
    place = draw.randrange(len(values))
    return tuple(draw.choice(NUMBERS) if index == place else value for index, value in enumerate(values))


def damaged(parts: Parts, draw: random.Random) -> bytes:
    """The file with one to four keys, tensors or bytes that are wrong."""
    for _ in range(draw.choice((1, 1, 1, 2, 4))):
        parts = _damage_key(parts, draw) if draw.random() < 0.75 else _damage_tensor(parts, draw)
    raw = put_together(parts, draw)
    return _damage_bytes(raw, draw) if draw.random() < 0.15 else raw


def _damage_key(parts: Parts, draw: random.Random) -> Parts:
    keys = list(parts.keys)
    what = draw.random()
    if what < 0.12:
        del keys[draw.randrange(len(keys))]
    elif what < 0.15:
        keys.append(draw.choice(keys))
    else:
        name = f"{parts.architecture}.{draw.choice(KEYS)}" if draw.random() < 0.85 else draw.choice(GENERAL)
        value = _block(draw) if name == "ropewalk.block" and draw.random() < 0.7 else _value(draw)
        keys = [(key, value if key == name else old) for key, old in keys]
        if name not in dict(keys):
            keys.append((name, value))
    return replace(parts, keys=tuple(keys))


def _value(draw: random.Random) -> bytes:
    """A type and a value that may or may not be the key's."""
    what = draw.random()
    if what < 0.35:
        return struct.pack("<II", 4, draw.choice(NUMBERS) & 0xFFFFFFFF)
    if what < 0.6:
        return struct.pack("<If", 6, draw.choice(FLOATS))
    if what < 0.75:
        return struct.pack("<I", 8) + text(draw.choice(TEXTS))
    if what < 0.85:
        count = draw.choice((0, 1, 2, 8, 100))
        return struct.pack("<IIQ", 9, draw.choice((4, 5, 7)), count) + bytes(draw.randrange(256) for _ in range(4 * count))
    kind, code = draw.choice(((10, "<Q"), (11, "<q"), (12, "<d"), (7, "<B"), (0, "<B"), (5, "<i")))
    value: Any = draw.choice(FLOATS) if code == "<d" else draw.choice(NUMBERS) % 128
    return struct.pack("<I", kind) + struct.pack(code, value)


def _block(draw: random.Random) -> bytes:
    return struct.pack("<I", 8) + text(draw.choice(BLOCKS))


def _damage_tensor(parts: Parts, draw: random.Random) -> Parts:
    tensors = list(parts.tensors)
    what, place = draw.random(), draw.randrange(len(tensors))
    name, dims, kind, data = tensors[place]
    if what < 0.2:
        del tensors[place]
    elif what < 0.3:
        tensors.append(tensors[place])
    elif what < 0.55:
        tensors[place] = (name, _one_replaced(dims, draw), kind, data)
    elif what < 0.7:
        tensors[place] = (name, dims, draw.choice((0, 1, 2, 3, 4, 8, 14, 26, 30, 39, 99, 2**31)), data)
    elif what < 0.8:
        tensors[place] = (draw.choice((*FACTORS, "", "\0", "../x", "blk.0.attn_q.weight")), dims, kind, data)
    else:
        size = draw.choice((1, 8, 16, 32, 64))
        content = struct.pack("<f", draw.choice(FLOATS)) * size
        tensors.append((draw.choice(FACTORS), (size,), 0, content))
    return replace(parts, tensors=tuple(tensors)) if tensors else parts


def _damage_bytes(raw: bytes, draw: random.Random) -> bytes:
    content = bytearray(raw)
    for _ in range(draw.randint(1, 4)):
        # Mostly where the header is.
        at = draw.randrange(min(len(content), 4096) if draw.random() < 0.8 else len(content))
        until = min(len(content), at + draw.choice((1, 1, 2, 8, 200, 100_000)))
        piece = bytes(draw.randrange(256) for _ in range(draw.randint(1, 8)))
        content[at:until] = draw.choice((b"", piece, bytes(content[at:until]) * 2, b"\xff" * 8, b"\0" * 64))
        content = content or bytearray(b"\0")
    return bytes(content)
