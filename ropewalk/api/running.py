"""One run of compare or measure, from an opened source to its rows. Imports torch: only ever imported by a running verb."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from ropewalk.api import provenance
from ropewalk.core.errors import InputError
from ropewalk.core.geometry import Geometry
from ropewalk.core.plan import Plan
from ropewalk.core.progress import Progress
from ropewalk.core.record import Card, Measurement
from ropewalk.core.run import Run
from ropewalk.data.documents import Document, read_documents
from ropewalk.hosts import folder, live
from ropewalk.measure.comparison import Subject, build_haystack, haystack_specs, run_cells
from ropewalk.measure.protocols import protocol_rows, run_protocols, windows_of
from ropewalk.measure.rows import Facts, Rows
from ropewalk.measure.settings import CROP, Settings


@dataclasses.dataclass(frozen=True, kw_only=True)
class Job:
    """Everything a run was asked for."""

    verb: str
    source: str | Path
    text: Sequence[str | Path]
    out: str | Path
    geometry: Geometry
    plans: Mapping[str, Plan]
    settings: Settings
    device: str
    dtype: str
    force: bool
    resume: bool
    progress: Progress
    notes: tuple[str, ...] = ()
    """What the user should know of how the question was read."""

    def run(self) -> list[Measurement]:
        """Measures what is missing and returns all rows. The run folder is made only after every input was checked."""
        checkpoint = folder.open_checkpoint(self.source, weights=True)
        if checkpoint.kind != "folder":
            raise InputError(
                f"{self.source} is a {checkpoint.kind} and cannot be run; give a folder with safetensors weights"
                + (" (ropewalk convert makes one)" if checkpoint.kind == "gguf" else "")
            )
        device = live.choose_device(self.device)
        chosen, reason = live.choose_dtype(device)
        if self.dtype != "auto":
            chosen, reason = parse_dtype(self.dtype), "as asked"
        self.progress.say(f"device {device}, {reason if self.dtype == 'auto' else f'{self.dtype}, {reason}'}")
        with self.progress.task("reading the texts"):
            # Before the weights, which may take minutes, what a text can be refused for.
            documents = read_documents(self.text, live.load_tokenizer(checkpoint.path), self.settings.length)
        with self.progress.task("loading the model"):
            model, tokenizer = live.load(checkpoint.path, dtype=chosen, device=device)
        subject = Subject(
            model=model,
            tokenizer=tokenizer,
            plans=self.plans,
            geometry=self.geometry,
            reload=None if chosen == torch.float32 else self._reload(checkpoint.path, device),
        )
        with self.progress.task("checking the inputs"):
            self._rehearse(subject, documents)
        card = self._card(checkpoint, documents, str(chosen).removeprefix("torch."), str(device))
        for note in self.notes:
            self.progress.say(note)
        run = Run.open(self.out, card, force=self.force, resume=self.resume)
        try:
            rows = self._measure(subject, documents, run)
        except KeyboardInterrupt:
            run.save_card("interrupted")
            raise
        except Exception:
            run.save_card("failed")
            raise
        return rows

    def _rehearse(self, subject: Subject, documents: Sequence[Document]) -> None:
        """Everything that can be refused, tried before a folder is made: carrying each plan, windows, haystacks."""
        settings = self.settings
        for label in self.plans:
            for length in {min(subject.window, settings.length), settings.length}:
                with subject.put_on(label, length):
                    pass
        for protocol in settings.protocols:
            windows_of(protocol, settings, subject.window)
        specs = {(spec.length, spec.index, spec.depths): spec for spec in haystack_specs(subject, settings)}
        for spec in specs.values():
            build_haystack(subject, documents[0], spec, settings)

    def _measure(self, subject: Subject, documents: list[Document], run: Run) -> list[Measurement]:
        run_cells(subject, documents, self.settings, run, self.progress)
        run_protocols(subject, documents, self.settings, run, self.progress)
        card = run.card
        facts = Facts(
            model=card.model, card=card.hash, seed=card.seed, dtype=card.dtype, device=card.device,
            versions=card.versions, quantisation=card.quantisation,
        )  # fmt: skip
        by_length = [label for label in self.plans if label != CROP and subject.by_length(label)]
        with self.progress.task("making the rows"):
            rows = Rows(run, self.settings, subject.window, facts, by_length)
            run.write_measurements([*rows.all(), *protocol_rows(rows)])
        run.save_card("done")
        return run.measurements()

    @staticmethod
    def _reload(path: Path, device: torch.device) -> Callable[[], Any]:
        def reload() -> Any:
            return live.load(path, dtype=torch.float32, device=device)[0]

        return reload

    def _card(self, checkpoint: Any, documents: Sequence[Document], dtype: str, device: str) -> Card:
        name = Path(self.source).name or Path(self.source).resolve().name
        return Card(
            verb=self.verb,
            model=name,
            source={"name": name, "kind": checkpoint.kind, "sha256": provenance.source_hash(checkpoint.path)},
            config={
                **dataclasses.asdict(self.settings),
                "source": str(self.source),
                "text": [str(path) for path in self.text],
                "methods": list(self.plans),
                "asked_device": self.device,
                "asked_dtype": self.dtype,
            },
            geometry=self.geometry.to_dict(),
            plans={label: plan.to_dict() for label, plan in self.plans.items()},
            documents=[
                {
                    "name": d.name,
                    "num_tokens": d.num_tokens,
                    "scored_tokens": self.settings.length - 1,
                    "sha256": d.sha256,
                }
                for d in documents
            ],
            seed=self.settings.seed,
            dtype=dtype,
            device=device,
            quantisation=provenance.quantisation(checkpoint.config),
            versions=provenance.versions(),
            hardware=provenance.hardware(device) | {"threads": torch.get_num_threads()},
            findings=[
                *(finding.to_dict() for finding in self.geometry.findings),
                *({"field": self.verb, "severity": "note", "problem": note, "mend": ""} for note in self.notes),
            ],
        )


def parse_dtype(name: str) -> torch.dtype:
    """The torch dtype of a name. Raises `InputError`."""
    known = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    if name not in known:
        raise InputError(f"unknown dtype {name!r}; known are auto, {', '.join(known)}")
    return known[name]
