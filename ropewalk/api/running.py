"""One run of compare or measure, from an opened source to its rows. Imports torch: only ever imported by a running verb."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import torch

from ropewalk.api import provenance
from ropewalk.core.errors import InputError
from ropewalk.core.geometry import Geometry
from ropewalk.core.output import say_beginning
from ropewalk.core.plan import Plan
from ropewalk.core.progress import Progress
from ropewalk.core.record import Card, Measurement
from ropewalk.core.run import Run
from ropewalk.data.documents import Document, read_documents
from ropewalk.hosts import folder, live
from ropewalk.measure.comparison import Subject, outstanding_cells, run_cells
from ropewalk.measure.harness import Harness
from ropewalk.measure.map_rows import MapRows
from ropewalk.measure.maps import Prompts, cells, outstanding, rehearsed, run_map, without_room
from ropewalk.measure.memory import out_of_memory_is_told
from ropewalk.measure.protocols import check_protocols, outstanding_protocols, protocol_rows, run_protocols
from ropewalk.measure.readers import LocalReader
from ropewalk.measure.rows import Facts, Rows
from ropewalk.measure.settings import CROP, Settings
from ropewalk.measure.short_rows import short_rows
from ropewalk.measure.short_tasks import check_short, run_short


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
    sources: dict[str, Any] = dataclasses.field(default_factory=dict)
    """What the user handed in for the tasks."""
    handed_in: Mapping[str, Mapping[str, str]] = dataclasses.field(default_factory=dict)
    """The files of `sources`, by kind: name and SHA-256."""

    def run(self) -> list[Measurement]:
        """Measures what is missing and returns all rows. The run folder is made only after every input was checked."""
        checkpoint = folder.open_checkpoint(self.source, weights=True)
        if not checkpoint.runs:
            raise InputError(
                f"{self.source} is a {checkpoint.kind} and cannot be run; give a folder with safetensors weights"
                + (" (ropewalk convert makes one)" if checkpoint.kind == "gguf" else "")
            )
        device = live.choose_device(self.device)
        chosen, reason = live.choose_dtype(device)
        if self.dtype != "auto":
            chosen, reason = parse_dtype(self.dtype), "as asked"
        if self.settings.map is not None:
            # In half precision a branch and its stand-alone prompt round differently; how often that matters is counted.
            asked = dataclasses.replace(self.settings.map, check_branches=chosen != torch.float32)
            settled = dataclasses.replace(self, settings=dataclasses.replace(self.settings, map=asked))
            return settled._run(checkpoint, device, chosen, reason)
        return self._run(checkpoint, device, chosen, reason)

    @cached_property
    def harness(self) -> Harness | None:
        """The short tasks with their data; None where none was asked."""
        return None if self.settings.short is None else Harness(self.settings.short, self.settings.seed)

    def _run(self, checkpoint: Any, device: torch.device, chosen: torch.dtype, reason: str) -> list[Measurement]:
        self.progress.say(f"device {device}, {reason if self.dtype == 'auto' else f'{self.dtype}, {reason}'}")
        with self.progress.task("reading the texts"):
            # Before the weights, which may take minutes, what a text can be refused for.
            tokenizer = live.load_tokenizer(checkpoint.path)
            documents = self._documents(tokenizer)
        return self._with_room(tokenizer, documents)._read(checkpoint, documents, device, chosen, reason)

    def _with_room(self, tokenizer: Any, documents: Sequence[Document]) -> Self:
        """The job without the lengths that nobody named and that leave a task no room, each said in a note."""
        asked = self.settings.map
        if asked is None:
            return self
        gone = without_room(self._prompts(tokenizer, documents))
        notes = [f"{task} has no room in {length} tokens, so its price is not measured there" for task, length in gone]
        lengths = tuple(n for n in asked.lengths if {(task, n) for task in asked.tasks} - {*gone})
        settled = dataclasses.replace(asked, lengths=lengths, no_room=gone)
        return dataclasses.replace(
            self, settings=dataclasses.replace(self.settings, map=settled), notes=(*self.notes, *notes)
        )

    def _read(
        self, checkpoint: Any, documents: list[Document], device: torch.device, chosen: torch.dtype, reason: str
    ) -> list[Measurement]:
        with self.progress.task("loading the short tasks"):
            # Found and fetched before the weights; the property keeps them.
            _ = self.harness
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
        if self.resume:
            say_beginning(self.out, self.progress)
        run = Run.open(self.out, card, force=self.force, resume=self.resume, progress=self.progress)
        try:
            rows = self._measure(subject, documents, run)
        except KeyboardInterrupt:
            run.save_card("interrupted")
            raise
        except Exception:
            run.save_card("failed")
            raise
        return rows

    def _documents(self, tokenizer: Any) -> list[Document]:
        """The texts; tasks that need none may go without."""
        if not self.text and (self.settings.map is not None or self.settings.short is not None):
            return []
        return read_documents(self.text, tokenizer, self.settings.length)

    def _rehearse(self, subject: Subject, documents: Sequence[Document]) -> None:
        """Everything that can be refused, tried before a folder is made: carrying each plan, windows, haystacks."""
        settings = self.settings
        for label in self.plans:
            for length in {min(subject.window, settings.length), settings.length}:
                with subject.put_on(label, length):
                    pass
        check_protocols(subject, documents, settings)
        if settings.short is not None:
            check_short(subject)
        if settings.map is not None:
            prompts, reader = self._prompts(subject.tokenizer, documents), LocalReader(subject)
            for cell in cells(settings.map):
                reader.check(cell)
            for cell in rehearsed(settings.map, len(documents)):
                prompts.build(cell)

    def _measure(self, subject: Subject, documents: list[Document], run: Run) -> list[Measurement]:
        asked = self.settings.map
        total = sum(cost for _, cost in outstanding_cells(subject, documents, self.settings, run))
        total += outstanding_protocols(subject, documents, self.settings, run)
        self.progress.plan(total + (0.0 if asked is None else outstanding(asked, run)))
        with out_of_memory_is_told(self.settings.length):
            run_cells(subject, documents, self.settings, run, self.progress)
            if asked is not None:
                run_map(LocalReader(subject), self._prompts(subject.tokenizer, documents), run, self.progress)
            run_protocols(subject, documents, self.settings, run, self.progress)
            if self.harness is not None:
                run_short(subject, self.harness, run, self.progress)
        card = run.card
        facts = Facts(
            model=card.model, card=card.hash, seed=card.seed, dtype=card.dtype, device=card.device,
            versions=card.versions, quantisation=card.quantisation,
        )  # fmt: skip
        by_length = [label for label in self.plans if label != CROP and subject.by_length(label)]
        with self.progress.task("making the rows"):
            rows = Rows(run, self.settings, subject.window, facts, by_length)
            mapped = [] if asked is None else MapRows(rows, asked, run.samples()).all()
            short = [] if self.harness is None else short_rows(rows, self.harness.members, list(self.harness.tasks))
            run.write_measurements([*rows.all(), *mapped, *protocol_rows(rows), *short])
        run.save_card("done")
        return run.measurements()

    def _prompts(self, tokenizer: Any, documents: Sequence[Document]) -> Prompts:
        assert self.settings.map is not None
        return Prompts(
            tokenizer=tokenizer, documents=documents, settings=self.settings.map, sources=self.sources,
            seed=self.settings.seed,
        )  # fmt: skip

    @staticmethod
    def _reload(path: Path, device: torch.device) -> Callable[[], Any]:
        def reload() -> Any:
            return live.load(path, dtype=torch.float32, device=device)[0]

        return reload

    def _settings(self) -> dict[str, Any]:
        """The settings as the card has them: a run without short tasks asks what it asked before there were any."""
        settings = dataclasses.asdict(self.settings)
        return settings if settings["short"] is not None else {k: v for k, v in settings.items() if k != "short"}

    def _card(self, checkpoint: Any, documents: Sequence[Document], dtype: str, device: str) -> Card:
        name = Path(self.source).name or Path(self.source).resolve().name
        return Card(
            verb=self.verb,
            model=name,
            source={"name": name, "kind": checkpoint.kind, "sha256": provenance.source_hash(checkpoint.path)},
            config={
                **self._settings(),
                "source": str(self.source),
                "text": [str(path) for path in self.text],
                "methods": list(self.plans),
                "asked_device": self.device,
                "asked_dtype": self.dtype,
                # A run without files asks what it asked before they were noted.
                **({"handed_in": {kind: dict(file) for kind, file in self.handed_in.items()}} if self.handed_in else {}),
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
            versions=provenance.versions() | ({} if self.harness is None else self.harness.versions()),
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
