"""`inspect --probe`: where the untouched model stops reading, measured."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ropewalk.api.checkpoints import need
from ropewalk.api.plans import geometry
from ropewalk.core.errors import InputError, LengthError
from ropewalk.core.plan import parse_length
from ropewalk.core.progress import Progress

if TYPE_CHECKING:
    from ropewalk.measure.knee import Knee


def probe(
    source: str | Path,
    *,
    text: Sequence[str | Path],
    length: int | str | None = None,
    device: str = "auto",
    dtype: str = "auto",
    progress: Progress | None = None,
) -> "Knee":
    """The knee of a checkpoint as it is, up to `length` (default: twice what it says it reads) of each text.

    Raises `InputError`s where the source cannot be run, or a text is too short; `MachineError` where memory is.
    """
    found = geometry(source)
    longest = parse_length(length) if length is not None else 2 * found.trained_length
    need("hf", "torch", "transformers", "safetensors")
    from ropewalk.measure.knee import SHORTEST

    if longest < SHORTEST:
        raise LengthError(f"a probe needs at least {SHORTEST} tokens, got {longest}; give a larger --length")
    from ropewalk.api.running import parse_dtype
    from ropewalk.data.documents import read_documents
    from ropewalk.hosts import folder, live
    from ropewalk.measure.forward import Forward
    from ropewalk.measure.knee import lengths
    from ropewalk.measure.knee import probe as measured
    from ropewalk.measure.memory import ANEW, out_of_memory_is_told

    checkpoint = folder.open_checkpoint(source, weights=True)
    if not checkpoint.runs:
        raise InputError(f"{source} is a {checkpoint.kind} and cannot be run; give a folder with safetensors weights")
    progress = progress or Progress()
    target = live.choose_device(device)
    chosen = live.choose_dtype(target)[0] if dtype == "auto" else parse_dtype(dtype)
    with progress.task("reading the texts"):
        documents = read_documents(text, live.load_tokenizer(checkpoint.path), lengths(longest)[-1])
    with progress.task("loading the model"):
        model, _ = live.load(checkpoint.path, dtype=chosen, device=target)
    with out_of_memory_is_told(longest, ANEW):
        return measured(Forward(model), documents, longest, progress)
