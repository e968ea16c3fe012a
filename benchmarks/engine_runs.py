"""One engine on one case, run once and kept: an answer is named after everything that it depends on."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.engine_cases import Case, case, write_folder, write_gguf
from ropewalk.hosts.executed import Probe, kl, probe, python_of, wire

DTYPES = {"transformers-oldest": "bfloat16", "llama.cpp": "float32", "vllm": "bfloat16"}
"""Engine to the dtype it is run in, and the reference with it. llama.cpp's files are float32; the others are quicker so."""
TIMES_CONTROL = 2.0
"""An engine is `exact` up to this many times the control's mean divergence."""
MARGIN = 10.0
"""A wrong checkpoint, and a plan that is off, are at least this many times further off than the control."""
ROUNDING = 1e-5
"""Nats that float32 in another order costs between engines; the mildest wrong checkpoint costs ten thousand times that."""
NUM_INSIDE = 8
"""Probe positions inside the trained window; they come first."""
SOURCES = sorted(Path(wire.__file__).parent.glob("*_probe.py"))
"""What an answer depends on besides what is asked."""


class Runs:
    """Answers in a folder; what is there is not run again."""

    def __init__(self, place: Path, ids: tuple[int, ...], positions: tuple[int, ...], say: Callable[[str], None]) -> None:
        self.place, self.ids, self.positions, self.say = place, ids, positions, say
        place.mkdir(parents=True, exist_ok=True)

    def checkpoint(self, engine: str, made: Case) -> Path:
        """The case in the engine's spelling."""
        stem = made.name.replace(" ", "-")
        if engine == "llama.cpp":
            return write_gguf(made, self.place / f"{stem}.gguf")
        return write_folder(made, self.place / stem)

    def rows(self, engine: str, name: str, dtype: str, cache: str = "") -> tuple[Any, dict[str, Any]]:
        """Log-probabilities [num_positions, vocabulary] and what is known of the run."""
        checkpoint = self.checkpoint(engine, case(name))
        stored = self.place / f"{self.key(engine, name, dtype, cache)}.npz"
        if stored.is_file():
            with np.load(stored) as content:
                return content["rows"], json.loads(str(content["facts"]))
        answer = probe(
            engine, Probe(checkpoint=checkpoint, token_ids=self.ids, positions=self.positions, dtype=dtype, cache=cache)
        )
        facts = {"engine": engine, "version": answer.version, "case": name, "dtype": dtype, "cache": cache,
                 "seconds": sum(answer.seconds.values()), "cpu_seconds": answer.cpu_seconds}  # fmt: skip
        cost = f"{facts['seconds']:.0f} s, {answer.cpu_seconds:.0f} s of CPU"
        self.say(f"{engine} {answer.version}, {name}, {dtype} {cache}: {cost}")
        np.savez(stored, rows=answer.log_probabilities, facts=json.dumps(facts))
        return answer.log_probabilities, facts

    def continued(self, engine: str, name: str, asked: Probe) -> tuple[tuple[int, ...], dict[str, Any]]:
        """What an engine goes on with behind the one prompt that is asked, and what is known of the run."""
        prompt = hashlib.sha256(json.dumps([asked.prompts, asked.num_new, asked.checkpoint.name]).encode()).hexdigest()[:16]
        stored = self.place / f"{self.key(engine, name, asked.dtype, asked.cache)}-{prompt}.json"
        if not stored.is_file():
            answer = probe(engine, asked)
            facts = {"version": answer.version, "seconds": sum(answer.seconds.values()), "cpu_seconds": answer.cpu_seconds}
            self.say(f"{engine} {answer.version}, {name}, a prompt: {facts['seconds']:.0f} s")
            stored.write_text(json.dumps({"said": answer.generated[0], "facts": facts}), encoding="utf-8")
        content = json.loads(stored.read_text(encoding="utf-8"))
        return tuple(content["said"]), content["facts"]

    def key(self, engine: str, name: str, dtype: str, cache: str) -> str:
        """What an answer is called: a hash of everything that it depends on."""
        sources = [path.read_text(encoding="utf-8") for path in SOURCES]
        parts = [str(python_of(engine)), repr(case(name)), dtype, cache, self.ids, self.positions, sources]
        return f"{engine}-{hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]}"

    def divergence(self, engine: str, name: str, *, against: str = "", cache: str = "") -> Any:
        """KL at each position of an engine on a case to the reference, by default on the case it is meant to be."""
        dtype = DTYPES[engine]
        rows, _ = self.rows(engine, name, dtype, cache)
        reference, _ = self.rows("transformers", against or case(name).of, dtype)
        return kl(reference, rows)
