"""Files and folders as sources: a text is one document, a file of records is many.

A folder is read recursively in the order of its names, each file once. Hidden files, links that lead out of it, second names
of a file and what is no file are not read, and named; a folder inside that cannot be listed is an error. The ending says how
a file is read: `.jsonl` and `.ndjson` by lines, `.json` as a list, `.parquet` by rows, anything else as one UTF-8 text.

Given up: compressed files, guessing at encodings, and finding copies; of a file with several hard links one is read. Tables
as CSV: nothing says how one is quoted, and a lone quote makes one field of all rows that follow.
"""

import fnmatch
import hashlib
import json
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from ropewalk.core.errors import InputError, TextError
from ropewalk.data.reading.formats import recognise
from ropewalk.data.reading.made import messages_of
from ropewalk.data.reading.parquet import check_field, read_rows
from ropewalk.data.reading.records import LeftOut, Record, UnreadableError

TABLES = (".csv", ".tsv")
LINES, COMPRESSED = (".jsonl", ".ndjson"), (".gz", ".zst", ".bz2", ".xz", ".zip", ".tar")
RECORDS = (*LINES, ".json", ".parquet")
ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")
"""With one slash as well: so a path writes two."""


@dataclass(frozen=True, kw_only=True, eq=False)
class FileSource:
    """A file, or a folder with everything below it."""

    name: str
    root: Path
    files: Sequence[str]
    """Relative to `root`, in order."""
    skipped: Sequence[LeftOut]
    field: str | None = None
    is_folder: bool = True

    def records(self, file: int = 0, number: int = 0) -> Iterator[Record | LeftOut]:
        """Everything after record `number` of file `file`."""
        for index in range(file, len(self.files)):
            yield from self._file(index, number if index == file else 0)

    def _file(self, index: int, after: int) -> Iterator[Record | LeftOut]:
        name = self.files[index]
        for number, read in _read(self.root / name, after):
            try:
                if isinstance(read, UnreadableError):
                    raise read
                content = read if isinstance(read, str) else recognise(read, self.field)
                if not content or (isinstance(content, str) and not content.strip()):
                    raise UnreadableError("empty", broken=False)
                yield Record(file=index, number=number, content=content)
            except UnreadableError as error:
                yield error.left_out(*self.place(index, number))

    def place(self, file: int, number: int) -> tuple[str, int]:
        """The file with its path, and the record's line. A text is the whole file, and has no line to name."""
        name = self.files[file]
        return str(self.root / name), number if _suffix(name) in RECORDS else 0

    def has_prompts(self) -> bool:
        """Whether any record is a conversation; texts are not opened for it."""
        records = (index for index, name in enumerate(self.files) if _suffix(name) in RECORDS)
        found = (one for index in records for one in self._file(index, 0) if isinstance(one, Record))
        return any(not isinstance(one.content, str) for one in found)

    def check(self) -> Iterator[Record | LeftOut]:
        """What is left out, and conversations. Reads everything but Parquet, of which only the fields are looked at."""
        for index, name in enumerate(self.files):
            if _suffix(name) == ".parquet":
                check_field(self.root / name, self.field)
            else:
                yield from (f for f in self._file(index, 0) if isinstance(f, LeftOut) or not isinstance(f.content, str))

    def fingerprint(self) -> list[dict[str, Any]]:
        """Size and SHA-256 of every file, and of files of records the field that is read, where the user named one."""
        found = []
        for name in self.files:
            with _told(self.root / name).open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
                field = {"field": self.field} if self.field is not None and _suffix(name) in RECORDS else {}
                found.append({"file": name, "bytes": os.fstat(file.fileno()).st_size, "sha256": digest, **field})
        return found


def open_files(text: str, *, field: str | None = None, include: Sequence[str] = ()) -> FileSource:
    """The source that `PATH` or `NAME=PATH` means. Raises `InputError` where it is missing or has nothing to read."""
    path = place_of(text)
    check_no_address(text)
    label = text.partition("=")[0] if path != Path(text) else (path.name or path.absolute().name)
    if not path.exists():
        raise InputError(f"{path} does not exist; expected a file or folder of texts, JSON lines, JSON or Parquet")
    if not (path.is_dir() or path.is_file()):
        raise InputError(f"{path} is neither a file nor a folder; save what comes out of it to a file first")
    is_folder, made = path.is_dir(), messages_of(path) if path.is_dir() else None
    if made is not None:
        files, skipped = [made.name], list[LeftOut]()
    elif path.is_dir():
        files, skipped = _walk(path, include)
    else:
        if _suffix(path.name) in COMPRESSED:
            raise InputError(f"{path} is compressed; unpack it first")
        if _suffix(path.name) in TABLES:
            raise InputError(
                f"{path} is a table, and its commas and quotes would be learned as text; write it as JSON lines or Parquet"
            )
        files, skipped, path = [path.name], [], path.parent
    if not files:
        tail = f" that fits --include {' '.join(include)}" if include else ""
        first = f"{len(skipped):,} left out, the first is {skipped[0]}" if skipped else "it is empty"
        raise InputError(f"{path} has no file to read{tail} ({first}); give another folder")
    return FileSource(name=label, root=path, files=files, skipped=skipped, field=field, is_folder=is_folder)


def check_no_address(text: str) -> None:
    """Raises `InputError` for what lies elsewhere, with `NAME=` before it or without."""
    address = next((part for part in (text, text.partition("=")[2]) if ADDRESS.match(part)), None)
    if address is not None and not Path(text).exists():
        raise InputError(
            f"{address} is an address, and only files here are read; download it and give the file, or name a data set of "
            "the hub by owner/name with --dataset of ropewalk data"
        )


def place_of(text: str) -> Path:
    """Where `PATH` or `NAME=PATH` lies; a path that has such a name wins."""
    name, _, rest = text.partition("=")
    return Path(rest) if name and rest and not Path(text).exists() else Path(text)


def check_options(sources: Sequence[FileSource], *, num_datasets: int, include: Sequence[str] = ()) -> None:
    """Raises `InputError` for an option that none of the sources obeys."""
    if include and not any(source.is_folder for source in sources):
        raise InputError("--include chooses files of folders, and no folder is given; leave it out, or give the folder")
    field = next((source.field for source in sources if source.field is not None), None)
    if field is None or num_datasets:
        return
    if not any(_suffix(name) in RECORDS for source in sources for name in source.files):
        raise InputError(
            f"--field {field} names a field of records, and there are only texts; leave it out, or give JSON lines, JSON or "
            "Parquet"
        )


def _walk(root: Path, include: Sequence[str]) -> tuple[list[str], list[LeftOut]]:
    files: list[str] = []
    skipped: list[LeftOut] = []
    real = Path(os.path.realpath(root))
    for folder, folders, names in os.walk(root, onerror=_unlisted):
        folders.sort()
        for name in [*names, *(inside for inside in folders if (Path(folder) / inside).is_symlink())]:
            path = Path(folder) / name
            try:
                reason = _why_not(path, path.relative_to(root).as_posix(), real, include)
            except OSError as error:
                _unlisted(error)
            if reason is None:
                files.append(path.relative_to(root).as_posix())
            else:
                skipped.append(LeftOut(file=str(path), number=0, reason=reason))
        skipped += [LeftOut(file=str(Path(folder) / f), number=0, reason="hidden") for f in folders if f.startswith(".")]
        folders[:] = [inside for inside in folders if not inside.startswith(".")]
    once, twice = _once(root, files)
    return once, sorted([*skipped, *twice], key=lambda left: left.file)


def _unlisted(error: OSError) -> NoReturn:
    raise InputError(
        f"{error.filename} cannot be looked into ({error.strerror}), so its files would be missing; give yourself the right "
        "to read it, or name the folders beside it one by one"
    ) from error


def _once(root: Path, files: Sequence[str]) -> tuple[list[str], list[LeftOut]]:
    """Each file under one name: one whose ending says how it is read, else its own, else the first."""
    taken: dict[tuple[int, int], str] = {}
    twice: list[LeftOut] = []
    for name in sorted(files, key=lambda name: (_suffix(name) not in RECORDS, (root / name).is_symlink(), name)):
        there = (root / name).stat()
        first = taken.setdefault((there.st_dev, there.st_ino), name)
        if first != name:
            twice.append(
                LeftOut(file=str(root / name), number=0, reason="another name of a file that is read", detail=first)
            )
    return sorted(taken.values()), twice


def _why_not(path: Path, relative: str, real: Path, include: Sequence[str]) -> str | None:
    """Why a file of a folder is not read; None where it is."""
    if path.name.startswith("."):
        return "hidden"
    if not Path(os.path.realpath(path)).is_relative_to(real):
        return "a link that leads out of the folder"
    if not path.is_file():
        return "a link to a folder" if path.is_dir() else "not a file"
    if include and not any(fnmatch.fnmatch(relative, pattern) for pattern in include):
        return "not asked for by --include"
    suffix = _suffix(path.name)
    return "compressed" if suffix in COMPRESSED else "a table (CSV)" if suffix in TABLES else None


def _suffix(name: str) -> str:
    return Path(name).suffix.lower()


def _told(path: Path) -> Path:
    """The path itself, if it can be read."""
    if not path.is_file() or not os.access(path, os.R_OK):
        raise TextError(f"{path} cannot be read any more; put it back, or start anew with --force")
    return path


def _read(path: Path, after: int) -> Iterator[tuple[int, Any]]:
    """Numbers and contents: a text, a record, or the reason why it is neither."""
    suffix = _suffix(path.name)
    if suffix == ".parquet":
        yield from read_rows(_told(path), after)
    elif suffix == ".json":
        yield from _whole(path, after)
    elif suffix in LINES:
        yield from _lines(path, after)
    elif after == 0:
        yield 1, _text(_told(path).read_bytes())


def _text(content: bytes) -> str | UnreadableError:
    """A file that is one text. UTF-16 of plain letters without its mark is UTF-8 too, with a NUL beside each letter."""
    place = content.find(b"\0")
    return _decoded(content) if place < 0 else UnreadableError("not UTF-8", f"a NUL, byte {place}: UTF-16, or no text")


def _decoded(content: bytes) -> str | UnreadableError:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        return UnreadableError("not UTF-8", f"byte {error.start}")


def _lines(path: Path, after: int) -> Iterator[tuple[int, Any]]:
    with _told(path).open("rb") as file:
        for number, line in enumerate(file, start=1):
            if number > after and line.strip():
                yield number, _parsed(_decoded(line))


def _parsed(text: str | UnreadableError) -> Any:
    if isinstance(text, UnreadableError):
        return text
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        return UnreadableError("broken JSON", f"{error.msg} at character {error.pos}")
    except (ValueError, RecursionError) as error:
        return UnreadableError("broken JSON", str(error)[:120])


def _whole(path: Path, after: int) -> Iterator[tuple[int, Any]]:
    """A list of records, one record, or lines of them under the wrong name."""
    found = _parsed(_decoded(_told(path).read_bytes()))
    if isinstance(found, UnreadableError):
        yield from _lines(path, after)
        return
    for number, record in enumerate(found if isinstance(found, list) else [found], start=1):
        if number > after:
            yield number, record
