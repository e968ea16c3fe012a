"""One run of measure against a server: the prompts are made here, and whatever is served answers them.

The source is the folder of what is served; of it only config and tokenizer are read. What a server computes cannot be read
back, so the rows say `served` and no method, and an effective length is held against the untouched model of an earlier run
(`--base-run`) wherever something speaks for a stretch. Only ever imported by a running verb.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ropewalk.api.running import Job
from ropewalk.core.errors import InputError, LengthError
from ropewalk.core.record import Card, Measurement
from ropewalk.core.run import Run
from ropewalk.data.documents import Document
from ropewalk.data.tasks.encoding import encode
from ropewalk.hosts import folder, live
from ropewalk.hosts.served import Identity, Patience, Server
from ropewalk.measure.base import read_base
from ropewalk.measure.map_rows import Base, MapRows
from ropewalk.measure.maps import Prompts, cells, outstanding, rehearsed, run_map
from ropewalk.measure.rows import Facts, Rows
from ropewalk.measure.served import ServedReader, find_manner, rehearse

NO_LIKELIHOOD = "a server gives no likelihood of a text: the texts are filler for haystacks, and there are no such rows"
OWN_SHORT = "s0 is the served model's own short score; nothing says that it is stretched"


@dataclasses.dataclass(frozen=True, kw_only=True)
class ServedJob(Job):
    """Everything a run against a server was asked for."""

    url: str
    served_model: str | None
    concurrency: int
    base_run: str | Path | None
    timeout: float
    """For one answer, seconds."""

    def run(self) -> list[Measurement]:
        """Measures what is missing and returns all rows. The run folder is made only after every input was checked."""
        checkpoint = folder.open_checkpoint(self.source)
        if checkpoint.kind != "folder":
            raise InputError(
                f"{self.source} is a {checkpoint.kind}; give the folder with the config and the tokenizer of what is served"
            )
        patience = Patience(answer_seconds=self.timeout, total_seconds=3 * self.timeout)
        server = Server(self.url, patience=patience, seed=self.settings.seed)
        try:
            return self._asked(checkpoint, server)
        finally:
            server.close()

    def _asked(self, checkpoint: Any, server: Server) -> list[Measurement]:
        with self.progress.task("reading the texts"):
            tokenizer = live.load_tokenizer(checkpoint.path)
            documents = self._documents(tokenizer)
        return self._with_room(tokenizer, documents)._served(checkpoint, server, tokenizer, documents)

    def _served(self, checkpoint: Any, server: Server, tokenizer: Any, documents: list[Document]) -> list[Measurement]:
        assert self.settings.map is not None
        prompts = self._prompts(tokenizer, documents)
        with self.progress.task(f"asking {server.url} who it is"):
            identity = server.open(self.served_model)
            _check_longest(self.settings.map.lengths[-1], identity, server)
            head = prompts.encoder.head
            manner = find_manner(server, tokenizer, np.concatenate([head, encode(tokenizer, "One, two, three.\n")]))
        keep_last = {label: int(plan.options["keep_last"]) for label, plan in self.plans.items() if plan.method == "crop"}
        reader = ServedReader(
            server, tokenizer, manner, keep_last=keep_last, concurrency=self.concurrency, engine=identity.engine
        )
        try:
            with self.progress.task("checking the inputs"):
                self._rehearse_all(prompts, reader)
                base = self._base(prompts, identity)
            card = self._served_card(checkpoint, prompts.documents, server, identity)
            run = Run.open(self.out, card, force=self.force, resume=self.resume, progress=self.progress)
            return self._measured(reader, prompts, base, run)
        finally:
            reader.close()

    def _measured(self, reader: ServedReader, prompts: Prompts, base: Base, run: Run) -> list[Measurement]:
        """All cells, then the rows; what is finished stays whatever happens."""
        self.progress.plan(outstanding(prompts.settings, run))
        try:
            run_map(reader, prompts, run, self.progress, base=base.samples)
        except BaseException as error:
            run.save_card("interrupted" if isinstance(error, KeyboardInterrupt) else "failed")
            raise
        card = run.card
        facts = Facts(
            model=card.model, card=card.hash, seed=card.seed, dtype=card.dtype, device=card.device,
            versions=card.versions, quantisation=card.quantisation,
        )  # fmt: skip
        rows = Rows(run, self.settings, self.geometry.window_length, facts, [])
        run.write_measurements(MapRows(rows, prompts.settings, run.samples(), base).all())
        run.save_card("done")
        return run.measurements()

    def _rehearse_all(self, prompts: Prompts, reader: ServedReader) -> None:
        """Builds what can be refused; where a server takes text alone every prompt, since each may lack a text."""
        asked = prompts.settings
        for cell in rehearsed(asked, len(prompts.documents)) if reader.manner.by_ids else cells(asked):
            rehearse(cell, prompts.build(cell), reader)

    def _base(self, prompts: Prompts, identity: Identity) -> Base:
        """Where s0 comes from: an earlier run, or the served model itself where nothing speaks for a stretch."""
        if self.base_run is not None:
            return read_base(self.base_run, prompts)
        found, longest = self.geometry, prompts.settings.lengths[-1]
        why = ""
        if found.lineage not in ("plain", "trained"):
            why = "the source carries a stretch"
        elif longest > found.trained_length:
            why = f"it is asked beyond the {found.trained_length} tokens that its source was trained to"
        elif identity.longest is not None and identity.longest > max(found.trained_length, found.declared_length):
            why = f"the server takes {identity.longest} tokens, more than its source was trained to"
        if not why:
            return Base(note=OWN_SHORT)
        return Base(
            refused=f"s0 must be the untouched model's short score, and {why}; measure the untouched model with the same "
            "tasks, and give its folder with --base-run"
        )

    def _served_card(
        self, checkpoint: Any, documents: Sequence[Document], server: Server, identity: Identity
    ) -> Card:  # fmt: skip
        """The card. The address and the number of requests at once are no part of the question."""
        card = self._card(checkpoint, documents, "as served", "server")
        for document in card.documents:
            document["scored_tokens"] = 0
        card.config |= {"served_model": identity.model, "base_run": None if self.base_run is None else str(self.base_run)}
        card.versions |= {identity.engine: identity.version} if identity.version else {}
        card.hardware = {"server": server.url, "engine": identity.engine, "requests_at_once": self.concurrency}
        card.findings += [
            {"field": self.verb, "severity": "note", "problem": said, "mend": ""}
            for said in (NO_LIKELIHOOD, *_said_of(checkpoint.config, "crop" in self.plans, self.geometry.from_origin))
        ]
        return card


def _check_longest(length: int, identity: Identity, server: Server) -> None:
    """Raises `LengthError` where the server says that it takes less."""
    if identity.longest is not None and length > identity.longest:
        raise LengthError(
            f"{server.url} takes {identity.longest} tokens, and the map has a length of {length}; start it with a longer "
            "context, or give smaller --lengths"
        )


def _said_of(config: Mapping[str, Any], crops: bool, stretched: bool) -> list[str]:
    """What the card says of the served model, as far as its source tells it."""
    block = config.get("ropewalk")
    method = block.get("method") if isinstance(block, Mapping) else None
    said = [f"the source carries {method}; that the server computes it is not read back here"] if method else []
    if crops and stretched:
        said.append("crop is the served model with its stretch on, shown the last tokens: not the model as it was trained")
    return said
