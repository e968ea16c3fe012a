"""A run folder while it is being written: cells, atomic files, resume after a kill.

A *cell* is the unit of work and of loss: one method on one document, one method on one haystack. Its result is on disk
before the next begins: arrays by write-and-rename, lines by one append that ends in a newline. `resume` cuts a half-written
last line, refuses a folder that answers another question, and skips the cells that are there. A question that grows by
methods or haystacks is no other one.
"""

import io
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from errno import EDQUOT, EIO, ENOSPC
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ropewalk.core.errors import MachineError, OutputError
from ropewalk.core.output import CARD, check_out, remove
from ropewalk.core.progress import Progress
from ropewalk.core.record import Card, Measurement, read_array, read_lines, safe_name


@contextmanager
def full_disk_is_told(path: Path) -> Iterator[None]:
    """Turns "no space left" and a disk that fails into `MachineError` with the way out."""
    try:
        yield
    except OSError as error:
        if error.errno in (ENOSPC, EDQUOT):
            raise MachineError(
                f"the disk is full while writing {path.name}; free some space and run again with --resume"
            ) from error
        if error.errno == EIO:
            raise MachineError(f"the disk failed while writing {path.name}; mend it and run again with --resume") from error
        raise


def card_of(folder: Path) -> Card | None:
    """The card of a run folder; None where there is none that can be read."""
    try:
        return Card.from_dict(json.loads((folder / CARD).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError, AttributeError):
        return None


def write_card(folder: Path, card: Card) -> None:
    """`card` as a run folder's card.json."""
    write_atomic(folder / CARD, (json.dumps(card.to_dict(), indent=1) + "\n").encode())


def write_atomic(path: Path, content: bytes) -> None:
    """`content` under `path`, whole or not at all."""
    stage = path.with_name(f".{path.name}.part")
    with full_disk_is_told(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with stage.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            stage.replace(path)
        finally:
            stage.unlink(missing_ok=True)


class Run:
    """One run folder, open for writing."""

    def __init__(self, path: Path, card: Card) -> None:
        self.path = path
        self.card = card

    @classmethod
    def open(
        cls, out: str | Path, card: Card, *, force: bool = False, resume: bool = False, progress: Progress | None = None
    ) -> "Run":  # fmt: skip
        """Starts a run folder for `card`, or goes on with the one that is there. What `force` removes is said before.

        Raises `OutputError` where the folder exists without `force` or `resume`, or answers another question than `card`.
        """
        path = check_out(out, force=force, resume=resume, verb=card.verb)
        if resume and (path / CARD).is_file():
            return cls._resumed(path, card)
        if force:
            remove(path, progress)
        try:
            with full_disk_is_told(path):
                path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"{path} cannot be made ({error.strerror}); give another --out") from error
        card.started = card.started or datetime.now(UTC).isoformat(timespec="seconds")
        run = cls(path, card)
        run.save_card()
        return run

    @classmethod
    def _resumed(cls, path: Path, card: Card) -> "Run":
        try:
            old = Card.from_dict(json.loads((path / CARD).read_text(encoding="utf-8")))
            was, now, grows = old.question, card.question, card.grows_from(old)
        except (ValueError, TypeError, AttributeError) as error:
            raise OutputError(
                f"{path}/card.json cannot be read ({error}); give another --out, or remove that folder"
            ) from error
        if was != now and not grows:
            # The config holds everything else, so it is opened up: "text" says more than "config".
            flat = [{**question.pop("config"), **question} for question in (was, now)]
            changed = sorted(key for key in flat[0].keys() | flat[1].keys() if flat[0].get(key) != flat[1].get(key))
            raise OutputError(
                f"{path} answers another question (it differs in {', '.join(changed)}); "
                "repeat the first command with --resume, or give another --out"
            )
        if old.versions != card.versions:
            names = sorted(k for k in {*old.versions, *card.versions} if old.versions.get(k) != card.versions.get(k))
            changes = ", ".join(f"{k} {old.versions.get(k)} -> {card.versions.get(k)}" for k in names)
            raise OutputError(
                f"{path} was begun with other versions ({changes}), and one run is not mixed from two; "
                "install the first ones, or start anew with --force"
            )
        card.started, card.files, card.links = old.started, old.files, old.links
        run = cls(path, card)
        for name in ("measurements.jsonl", "samples.jsonl", "cells.jsonl"):
            run._cut_half_line(path / name)
        for stage in path.rglob(".*.part"):
            stage.unlink()
        run.save_card()
        return run

    @staticmethod
    def _cut_half_line(path: Path) -> None:
        if not path.is_file():
            return
        content = path.read_bytes()
        whole = content[: content.rfind(b"\n") + 1]
        if whole != content:
            write_atomic(path, whole)

    def save_card(self, status: str | None = None) -> None:
        """Writes card.json, with a new status where one is given."""
        if status is not None:
            self.card.status = status  # type: ignore[assignment]
            done = status != "running"
            self.card.finished = datetime.now(UTC).isoformat(timespec="seconds") if done else None
        write_card(self.path, self.card)

    # --- arrays ---------------------------------------------------------------------------------------------------

    def array_file(self, kind: str, method: str, document: str) -> str:
        """Where a cell's array lives, relative to the folder; the card learns the true names."""
        name = f"{kind}/{safe_name(method)}/{safe_name(document)}.npy"
        if name not in self.card.files:
            self.card.files[name] = {"method": method, "document": document}
        return name

    def has(self, kind: str, method: str, document: str) -> bool:
        """Whether this array of a cell is on disk and not empty."""
        path = self.path / self.array_file(kind, method, document)
        return path.is_file() and path.stat().st_size > 0

    def load(self, kind: str, method: str, document: str) -> NDArray[np.float32]:
        """An array of a finished cell, float32."""
        return read_array(self.path / self.array_file(kind, method, document))

    def save(self, kind: str, method: str, document: str, array: NDArray[np.float32]) -> None:
        """Puts an array of a finished cell on disk, the card first so that no array is nameless."""
        name = self.array_file(kind, method, document)
        self.save_card()
        buffer = io.BytesIO()
        np.save(buffer, np.asarray(array, dtype=np.float32), allow_pickle=False)
        write_atomic(self.path / name, buffer.getvalue())

    def note_cell(self, method: str, document: str, seconds: float, peak_bytes: int | None) -> None:
        """What a finished cell cost; kept beside the arrays for the rows' `seconds` and `peak_bytes`."""
        self.append("cells.jsonl", [{"method": method, "document": document, "seconds": seconds, "peak_bytes": peak_bytes}])

    def cells(self) -> list[dict[str, Any]]:
        """What the finished cells cost."""
        return list(read_lines(self.path / "cells.jsonl"))

    # --- lines ----------------------------------------------------------------------------------------------------

    def append(self, name: str, rows: Iterable[Mapping[str, Any]]) -> None:
        """Appends JSON lines to a file of the run in one write."""
        text = "".join(json.dumps(row, allow_nan=False) + "\n" for row in rows)
        with full_disk_is_told(self.path / name), (self.path / name).open("a", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())

    def rewrite(self, name: str, rows: Iterable[Mapping[str, Any]]) -> None:
        """Puts JSON lines in place of a file of the run, whole or not at all."""
        text = "".join(json.dumps(row, allow_nan=False) + "\n" for row in rows)
        write_atomic(self.path / name, text.encode())

    def measurements(self) -> list[Measurement]:
        """The rows that are there."""
        return [Measurement.from_dict(row) for row in read_lines(self.path / "measurements.jsonl")]

    def samples(self) -> list[dict[str, Any]]:
        """The answered prompts that are there."""
        return list(read_lines(self.path / "samples.jsonl"))

    def write_measurements(self, rows: Iterable[Measurement]) -> None:
        """All rows in one step, made from what the cells left on disk: a resumed run ends with an unbroken one's rows."""
        unique = {row.key: row for row in rows}
        text = "".join(json.dumps(row.to_dict(), allow_nan=False) + "\n" for row in unique.values())
        write_atomic(self.path / "measurements.jsonl", text.encode())
