"""Rows of a Parquet file, a few hundred at a time. pyarrow is imported only where such a file is given."""

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ropewalk.core.errors import InputError, TextError
from ropewalk.data.reading.formats import MEND, TRANSLATION, has_known, listed

ROWS = 256
"""Rows held at once."""


def _open(path: Path) -> Any:
    if find_spec("pyarrow") is None:
        raise InputError(
            f"{path} is a Parquet file and needs pyarrow; install it with pip install '.[data]' in a checkout of ropewalk"
        )
    import pyarrow as arrow
    import pyarrow.parquet as parquet

    try:
        return parquet.ParquetFile(path)
    except (arrow.ArrowException, OSError) as error:
        first = str(error).partition("\n")[0]
        raise TextError(f"{path} cannot be read as Parquet ({first}); give a whole file or leave it out") from error


def check_field(path: Path, field: str | None) -> None:
    """Raises `InputError` where the file does not have the field, or none that is known."""
    file = _open(path)
    names = list(file.schema_arrow.names)
    file.close()
    if field is not None and field not in names:
        raise InputError(f"{path} has no field {field!r}; it has {listed(names)}")
    if field is None and not has_known(names) and TRANSLATION not in names:
        raise InputError(f"{path} has no field that is known, it has {listed(names)}; {MEND}")


def _batches(file: Any, path: Path) -> Iterator[Any]:
    """The file's rows, some hundred at a time. Raises `TextError` where it is damaged inside."""
    import pyarrow as arrow

    try:
        yield from file.iter_batches(batch_size=ROWS)
    except (arrow.ArrowException, OSError) as error:
        first = str(error).partition("\n")[0]
        raise TextError(f"{path} is damaged and cannot be read to its end ({first}); give a whole file") from error


def read_rows(path: Path, after: int) -> Iterator[tuple[int, Any]]:
    """Number and record of each row after number `after`."""
    file = _open(path)
    number = 0
    try:
        for batch in _batches(file, path):
            if number + batch.num_rows > after:
                yield from ((number + 1 + i, row) for i, row in enumerate(batch.to_pylist()) if number + 1 + i > after)
            number += batch.num_rows
    finally:
        file.close()
