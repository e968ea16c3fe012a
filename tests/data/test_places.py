"""Where data lie: a folder is read whole and each of its files once, and a data set may have a name of the user's."""

import errno
import importlib
import json
import os
from pathlib import Path
from typing import Any

import pytest

from ropewalk.api.data import data, dataset_of
from ropewalk.core.errors import InputError
from ropewalk.data.reading.files import open_files
from ropewalk.data.reading.records import Record


def written(path: Path, *lines: str) -> Path:
    """A file with its folders."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_a_file_of_many_names_is_read_once_under_the_best(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    written(folder / "m.txt", "m")
    written(folder / "z" / "blob", '{"text": "a line"}')
    (folder / "a.txt").symlink_to("m.txt")
    (folder / "b.txt").symlink_to("a.txt")
    (folder / "lines.jsonl").symlink_to("z/blob")
    written(folder / ".kept" / "x.md", "x")
    for name in ("x1.md", "x2.md"):
        (folder / name).symlink_to(".kept/x.md")
    source = open_files(str(folder))
    assert list(source.files) == ["lines.jsonl", "m.txt", "x1.md"]
    assert [one.content for one in source.records() if isinstance(one, Record)] == ["a line", "m\n", "x\n"]
    said = {Path(left.file).name: left.detail for left in source.skipped if left.reason.startswith("another name")}
    assert said == {"a.txt": "m.txt", "b.txt": "m.txt", "blob": "lines.jsonl", "x2.md": "x1.md"}


@pytest.mark.parametrize("which", ["scandir", "stat"])
def test_a_folder_that_may_not_be_looked_into_is_an_error_and_no_gap(
    which: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Permissions do not hold for every user that runs tests: the system's own refusal is put in their place."""
    written(tmp_path / "in" / "a.txt", "a")
    closed = written(tmp_path / "in" / "closed" / "b.txt", "b").parent
    inner = getattr(os, which)

    def refuses(path: object, *args: object, **words: object) -> object:
        if str(path).startswith(str(closed)) and (which == "scandir" or str(path) != str(closed)):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return inner(path, *args, **words)

    monkeypatch.setattr(os, which, refuses)
    with pytest.raises(InputError, match=r"closed\S* cannot be looked into \(Permission denied\)"):
        open_files(str(tmp_path / "in"))


def test_two_parts_of_one_data_set_are_two_sources(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    importlib.import_module("datasets")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    for part in ("train", "test"):
        written(tmp_path / "set" / f"{part}.jsonl", *(json.dumps({"text": f"{part} {i}"}) for i in range(3)))
    place = tmp_path / "set"
    plain, first = dataset_of(f"{place}:split=train"), dataset_of(f"first={place}:split=test,documents=2")
    assert (plain.name, first.name) == (str(place), "first")
    assert [one.content for one in first.records()] == ["test 0", "test 1"]
    # Another name is not another set.
    assert first.fingerprint() == dataset_of(f"{place}:split=test,documents=2").fingerprint()
    sets = [f"{place}:split=train", f"{place}:split=test"]
    options: dict[str, Any] = {"tokenizer": tiny_checkpoint, "length": 8, "out": tmp_path / "out", "allow_short": True}
    with pytest.raises(InputError, match=r"two sources are called .*; name them, as in first="):
        data(datasets=sets, **options)
    card = data(datasets=[sets[0], f"first={sets[1]}"], mix={str(place): 1, "first": 1}, **options)
    assert [said["name"] for said in card["sources"]] == [str(place), "first"]
