"""Broken configs, safetensors headers and indexes: one of our sentences or a whole output, never a crash, a hang or a part.

Every case begins as a real file and is then damaged: fields replaced, removed or added anywhere in its tree, or bytes
changed, cut and repeated. A quick run does some hundred cases; `-m slow` six thousand, and four thousand GGUF files in
`test_gguf_fuzz`.
"""

import contextlib
import copy
import itertools
import json
import math
import random
import shutil
import signal
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st
from small_folders import LLAMA, safetensors_bytes

import ropewalk
from ropewalk.core.errors import RopewalkError
from ropewalk.hosts.folder import open_checkpoint

QUICK, FULL = 120, 2000
"""Cases of each of the three readers. With those of `test_gguf_fuzz` the full run has ten thousand."""
HANG_SECONDS = 20
"""A case that takes longer is stopped as a hang; the slowest takes hundredths of a second."""
INDEX = "model.safetensors.index.json"

YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64, "rope_theta": 10000.0}
TYPED = {kind: {"rope_type": "default", "rope_theta": 1e4} for kind in ("full_attention", "sliding_attention")}
CONFIGS: tuple[dict[str, Any], ...] = (
    LLAMA,
    {**LLAMA, "rope_parameters": YARN},
    {**LLAMA, "model_type": "qwen3", "rope_scaling": {"type": "yarn", **YARN}, "head_dim": 16, "use_sliding_window": True},
    {**LLAMA, "model_type": "phi3", "rope_scaling": {"type": "su", "short_factor": [1.0] * 8, "long_factor": [2.0] * 8}},
    {"model_type": "gemma3", "text_config": {**LLAMA, "model_type": "gemma3_text", "rope_parameters": TYPED}},
    {**LLAMA, "model_type": "laguna", "rope_parameters": TYPED, "layer_types": ["full_attention", "sliding_attention"]},
    {
        **LLAMA, "model_type": "deepseek_v3", "qk_rope_head_dim": 16, "qk_nope_head_dim": 16,
        "rope_parameters": {**YARN, "mscale": 1.0, "mscale_all_dim": 1.0},
    },
    {**LLAMA, "model_type": "smollm3", "no_rope_layers": [1, 0], "no_rope_layer_interval": 4},
    {**LLAMA, "model_type": "bamba", "attn_layer_indices": [1]},
    {**LLAMA, "model_type": "lfm2", "full_attn_idxs": [0]},
    {**LLAMA, "model_type": "exaone4", "sliding_window": 32, "sliding_window_pattern": 2},
    {**LLAMA, "model_type": "hunyuan_v1_dense", "rope_parameters": {"rope_type": "dynamic", "alpha": 100.0, "factor": 1.0}},
    {**LLAMA, "model_type": "minimax_m2", "rotary_dim": 8, "head_dim": 16},
    {**LLAMA, "model_type": "jetmoe", "kv_channels": 16, "num_experts_per_tok": 2},
    {**LLAMA, "model_type": "granitemoehybrid", "position_embedding_type": "rope", "layer_types": ["attention", "mamba"]},
    {**LLAMA, "model_type": "olmo_hybrid", "rope_parameters": {"rope_theta": None}},
    {**LLAMA, "model_type": "qwen3_5_text", "rope_parameters": {"mrope_section": [1, 1, 1]}, "full_attention_interval": 2},
)  # fmt: skip
KEYS = sorted({key for config in CONFIGS for key in [*config, *YARN]} | {
    "truncate", "beta_fast", "beta_slow", "attention_factor", "mscale", "low_freq_factor", "high_freq_factor", "type",
    "short_factor", "partial_rotary_factor", "ropewalk", "auto_map", "quantization_config", "layer_types", "alibi", "alpha",
    "sliding_window", "attention_chunk_size", "text_config", "full_attention", "max_window_layers",
})  # fmt: skip
JUNK: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2, 3, 7, 2**31, 2**63, 10**400, -(10**400), 0.0, -0.0, 0.5, 1e-300, 1e300, math.nan,
    math.inf, -math.inf, "", "yarn", "linear", "longrope", "llama3", "dynamic", "default", "proportional", "NaN", "\ud800",
    "x" * 5000, [], [1], [math.nan] * 8, [1.0] * 8, ["full_attention"] * 2, [["a"]], [{}], {}, {"rope_type": "yarn"},
    {"full_attention": None}, {"factor": "4"}, {"schema_version": 1}, {"schema_version": 1, "groups": {"all": 3}},
    {"a": {"a": {"a": {"a": {}}}}}, [0] * 3000,
)  # fmt: skip


def damage_tree(content: Any, draw: random.Random) -> Any:
    """The content with one to four places replaced, removed or added."""
    content = copy.deepcopy(content)
    for _ in range(draw.randint(1, 4)):
        places = [(tree, key) for tree in branches(content) for key in keys_of(tree)]
        if not places:
            return content
        tree, key = draw.choice(places)
        what = draw.random()
        if what < 0.6:
            tree[key] = copy.deepcopy(draw.choice(JUNK))
        elif what < 0.75:
            del tree[key]
        elif isinstance(tree, dict):
            tree[draw.choice(KEYS)] = copy.deepcopy(draw.choice(JUNK))
        else:
            tree.insert(key, copy.deepcopy(draw.choice(JUNK)))
    return content


def branches(content: Any) -> Iterator[Any]:
    """Every object and list inside, itself included."""
    if isinstance(content, dict | list):
        yield content
        for key in keys_of(content):
            yield from branches(content[key])


def keys_of(tree: Any) -> list[Any]:
    return list(tree) if isinstance(tree, dict) else list(range(min(len(tree), 20)))


def damage_bytes(raw: bytes, draw: random.Random) -> bytes:
    """The bytes with one to four places changed, cut out, repeated or filled."""
    content = bytearray(raw)
    for _ in range(draw.randint(1, 4)):
        at = draw.randrange(len(content) + 1)
        until = min(len(content), at + draw.choice((1, 1, 2, 8, 100)))
        piece = bytes(draw.randrange(256) for _ in range(draw.randint(1, 8)))
        content[at:until] = draw.choice((b"", piece, bytes(content[at:until]) * 2, b"[" * 3000, b"9" * 500, b"\xff\x00"))
    return bytes(content)


def config_case(draw: random.Random) -> dict[str, bytes]:
    content = damage_tree(draw.choice(CONFIGS), draw)
    raw = json.dumps(content).encode()
    return {"config.json": damage_bytes(raw, draw) if draw.random() < 0.2 else raw}


HEADER = {
    "__metadata__": {"format": "pt"},
    "a": {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]},
    "b": {"dtype": "BF16", "shape": [8], "data_offsets": [16, 32]},
    "c": {"dtype": "U8", "shape": [], "data_offsets": [32, 33]},
}


def header_case(draw: random.Random) -> dict[str, bytes]:
    raw = json.dumps(damage_tree(HEADER, draw) if draw.random() < 0.6 else HEADER).encode()
    length = draw.choice((len(raw), len(raw), len(raw), len(raw) - 1, len(raw) + 1, 0, 2**40, 2**63, 2**64 - 1))
    whole = struct.pack("<Q", length) + raw + bytes(33)
    return {"model.safetensors": damage_bytes(whole, draw) if draw.random() < 0.5 else whole}


SHARDS = {f"model-0000{i}-of-00002.safetensors": safetensors_bytes(8, "ab"[i - 1]) for i in (1, 2)}
WEIGHTS = {"metadata": {"total_size": 16}, "weight_map": dict(zip("ab", SHARDS, strict=True))}


def index_case(draw: random.Random) -> dict[str, bytes]:
    content = damage_tree(WEIGHTS, draw) if draw.random() < 0.8 else copy.deepcopy(WEIGHTS)
    hostile = (
        "../secret.safetensors",
        "/etc/passwd",
        "",
        ".",
        "sub/x.safetensors",
        "model.safetensors",
        "config.json",
        "a\0b",
    )
    if isinstance(content, dict) and isinstance(content.get("weight_map"), dict) and draw.random() < 0.4:
        content["weight_map"][draw.choice("abc")] = draw.choice((*hostile, *SHARDS))
    raw = json.dumps(content).encode()
    files = {INDEX: damage_bytes(raw, draw) if draw.random() < 0.3 else raw, **SHARDS}
    if draw.random() < 0.2:
        del files[draw.choice(sorted(SHARDS))]
    return files


CASES: dict[str, Callable[[random.Random], dict[str, bytes]]] = {
    "config": config_case,
    "header": header_case,
    "index": index_case,
}


class Hang(BaseException):
    """No error of ours or of Python's: nothing may catch it on the way."""


def stop(*_: object) -> None:
    raise Hang


def try_case(files: dict[str, bytes], work: Path) -> bool:
    """Whether the damaged folder was extended; the caller sees anything but our own errors as a crash."""
    folder, out = work / "in", work / "out"
    folder.mkdir()
    for name, content in {"config.json": json.dumps(LLAMA).encode(), **files}.items():
        (folder / name).write_bytes(content)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    try:
        try:
            ropewalk.extend(folder, "yarn", length=4096, out=out, lineage="runtime")
            extended = True
        except RopewalkError as error:
            said = str(error)
            assert said
            assert "\n" not in said
            extended = False
        # Wrong or not, it is judged, or refused in words.
        with contextlib.suppress(RopewalkError):
            ropewalk.verify(folder).to_dict()
        assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
        assert [path.name for path in work.iterdir() if path.name.startswith(".")] == []
        assert out.exists() == extended
        if extended:
            written = open_checkpoint(out)
            assert sorted(written.weights) == sorted(open_checkpoint(folder).weights)
            assert ropewalk.geometry(out).trained_length == 4096
        return extended
    finally:
        shutil.rmtree(out, ignore_errors=True)
        shutil.rmtree(folder)


def fuzz(name: str, cases: int, tmp_path: Path) -> int:
    """Runs that many cases of one reader; how many folders were extended all the same."""
    numbers, extended = itertools.count(), []

    @settings(
        max_examples=cases, deadline=None, database=None, derandomize=True, phases=(Phase.explicit, Phase.generate),
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(seed=st.integers(0, 2**64 - 1))
    @example(seed=0)
    def run(seed: int) -> None:
        work = tmp_path / str(next(numbers))
        work.mkdir()
        signal.setitimer(signal.ITIMER_REAL, HANG_SECONDS)
        try:
            extended.append(try_case(CASES[name](random.Random(seed)), work))
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0.0)
        work.rmdir()

    held = signal.signal(signal.SIGALRM, stop)
    try:
        run()
    finally:
        signal.signal(signal.SIGALRM, held)
    print(f"{len(extended)} damaged cases of {name}: {sum(extended)} extended all the same, no crash")
    assert len(extended) >= cases
    return sum(extended)


@pytest.mark.parametrize("name", CASES)
def test_some_hundred_cases(name: str, tmp_path: Path) -> None:
    done = fuzz(name, QUICK, tmp_path)
    # Neither may everything be refused, nor everything pass: then the cases would damage nothing that is read.
    assert 0 < done < QUICK


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_two_thousand_cases(name: str, tmp_path: Path) -> None:
    assert 0 < fuzz(name, FULL, tmp_path) < FULL
