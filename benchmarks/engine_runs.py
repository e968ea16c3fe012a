"""One engine on one case, run once and kept: an answer is named after everything that it depends on."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.engine_cases import Case, case, write_folder, write_gguf
from ropewalk.hosts.executed import Probe, kl, probe

DTYPES = {"transformers-oldest": "float32", "llama.cpp": "float32", "vllm": "bfloat16"}
"""Engine to the dtype it is run in, and the reference with it."""


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
        key = json.dumps([engine, name, dtype, cache, self.ids, self.positions])
        stored = self.place / f"{hashlib.sha256(key.encode()).hexdigest()[:16]}.npz"
        if stored.is_file():
            with np.load(stored) as content:
                return content["rows"], json.loads(str(content["facts"]))
        answer = probe(
            engine, Probe(checkpoint=checkpoint, token_ids=self.ids, positions=self.positions, dtype=dtype, cache=cache)
        )
        facts = {"engine": engine, "version": answer.version, "case": name, "dtype": dtype, "seconds": answer.seconds}
        self.say(f"{engine} {answer.version}, {name}, {dtype}: {sum(answer.seconds.values()):.0f} s")
        np.savez(stored, rows=answer.log_probabilities, facts=json.dumps(facts))
        return answer.log_probabilities, facts

    def divergence(self, engine: str, name: str, *, against: str = "", cache: str = "") -> Any:
        """KL at each position of an engine on a case to the reference, by default on the case it is meant to be."""
        dtype = DTYPES[engine]
        rows, _ = self.rows(engine, name, dtype, cache)
        reference, _ = self.rows("transformers", against or case(name).of, dtype)
        return kl(reference, rows)
