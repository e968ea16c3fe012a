"""Data sets of the Hugging Face hub, streamed: nothing but what is read is downloaded, and only where the user names one.

The revision is settled at the start, and a run does not go on with another one: name it to be safe. Given up: sets that need
code of their own to be read.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Any

from ropewalk.core.errors import InputError, MachineError, near
from ropewalk.core.network import of_a_network
from ropewalk.data.reading.files import check_no_address
from ropewalk.data.reading.formats import recognise
from ropewalk.data.reading.records import LeftOut, Record, UnreadableError

LOOK = 1000
"""Records in which the first document is looked for."""
OPTIONS = ("config", "split", "revision", "documents")


@dataclass(frozen=True, kw_only=True, eq=False)
class HubSource:
    """One split of a data set, or a local folder that `datasets` reads as one."""

    name: str
    config: str | None
    split: str
    revision: str | None
    documents: int | None
    """How many records are read; all where none is said."""
    field: str | None = None
    skipped: Sequence[LeftOut] = ()
    id: str = ""
    """What the hub calls it, where `name` is another one."""

    @property
    def files(self) -> list[str]:
        """The set itself is the only file."""
        return [self.id or self.name]

    def check(self) -> Iterator[LeftOut]:
        """The first record alone: everything else would have to be downloaded."""
        for found in islice(self.records(0, 0), 1):
            if isinstance(found, LeftOut):
                yield found

    def place(self, file: int, number: int) -> tuple[str, int]:
        """A set has no path; its records are numbered."""
        return self.files[file], number

    def has_prompts(self) -> bool:
        """As the first record says: a set has one kind, and looking further is downloading. Nothing says no before it."""
        for count, found in enumerate(self.records(0, 0), start=1):
            if isinstance(found, Record):
                return not isinstance(found.content, str)
            if count == LOOK:
                return True
        return False

    def records(self, file: int = 0, number: int = 0) -> Iterator[Record | LeftOut]:
        """Everything after record `number`."""
        if file > 0:
            return
        last = None if self.documents is None else max(0, self.documents - number)
        for count, row in enumerate(islice(self._rows(number), last), start=number + 1):
            try:
                content = recognise(row, self.field)
                if not content or (isinstance(content, str) and not content.strip()):
                    raise UnreadableError("empty", broken=False)
                yield Record(file=0, number=count, content=content)
            except UnreadableError as error:
                yield error.left_out(self.files[0], count)

    def _rows(self, number: int) -> Iterator[Any]:
        """Everything after row `number`. Raises `MachineError` where it breaks off, whatever the reason."""
        rows = iter(self._open().skip(number))
        while True:
            try:
                row = next(rows)
            except StopIteration:
                return
            except Exception as error:
                # Network, hub and file formats fail here in classes of four libraries.
                first = str(error).strip().partition("\n")[0][:200] or type(error).__name__
                raise MachineError(
                    f"the data set {self.files[0]} broke off ({first}); mend the network and run again with --resume"
                ) from error
            yield row

    def _open(self) -> Any:
        from datasets import load_dataset

        try:
            return load_dataset(self.files[0], self.config, split=self.split, revision=self.revision, streaming=True)
        except (ValueError, OSError, RuntimeError) as error:
            first = str(error).strip().partition("\n")[0]
            raise InputError(
                f"the data set {self.files[0]} cannot be opened ({first}); check its name, config and split, and the network"
            ) from error

    def fingerprint(self) -> list[dict[str, Any]]:
        """What was asked of the hub."""
        said = {"config": self.config, "split": self.split, "revision": self.revision, "documents": self.documents}
        # What is named by nobody is not said, so that folders of before it was go on.
        return [{"file": self.files[0], **said, **({} if self.field is None else {"field": self.field})}]


def open_dataset(text: str, *, field: str | None = None) -> HubSource:
    """The source that `NAME:config=C,split=S,revision=R,documents=N` means. Asks the hub for the revision."""
    if find_spec("datasets") is None:
        raise InputError(
            "data sets of the hub need datasets; install it with pip install '.[data]' in a checkout of ropewalk"
        )
    check_no_address(text)
    name, _, rest = text.partition(":")
    options: dict[str, str] = {}
    for part in filter(None, rest.split(",")):
        key, _, value = part.partition("=")
        if key not in OPTIONS or not value:
            raise InputError(f"a data set takes no option {part!r}; {near(key, OPTIONS)}, each as key=value")
        options[key] = value
    documents = options.get("documents")
    if documents is not None and (not documents.isdigit() or int(documents) == 0):
        raise InputError(f"documents of a data set is a number of at least 1, got {documents!r}")
    return HubSource(
        name=name,
        config=options.get("config"),
        split=options.get("split", "train"),
        revision=options.get("revision") or (None if Path(name).exists() else _newest(name)),
        documents=int(documents) if documents else None,
        field=field,
    )


def _newest(name: str) -> str:
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled, RepositoryNotFoundError

    try:
        return str(HfApi().dataset_info(name, timeout=20).sha)
    except (RepositoryNotFoundError, HFValidationError) as error:
        raise InputError(f"there is no data set {name} on the hub; expected its name as owner/name") from error
    except (HfHubHTTPError, OfflineModeIsEnabled, OSError) as error:
        first = str(error).strip().partition("\n")[0]
        raise MachineError(f"the hub cannot be asked for {name} ({first}); mend the network and run again") from error
    except Exception as error:
        if not of_a_network(error):
            raise
        raise MachineError(
            f"the hub cannot be asked for {name} ({type(error).__name__}); mend the network and run again"
        ) from error
