"""Where a writer of training data comes from: a model on this machine, a server, or a function of the user's.

A local model is loaded as everywhere (`hosts.live`), its prompt is put into its chat template where it has one, and it
decodes with `generate`: greedily at temperature 0, else drawn from a generator of the prompt's seed. A server gets the
prompt as a message and the same settings; what passes is asked again there, with an end.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ropewalk.api import provenance
from ropewalk.core.errors import InputError
from ropewalk.data.making.settings import UnwrittenError, Writing, Written


@dataclass(frozen=True, kw_only=True)
class Decoding:
    """How a writer writes."""

    temperature: float = 0.0
    """0 takes the likeliest token always."""
    top_p: float = 1.0
    answer_tokens: int = 128
    """Of one reply, at most."""

    def __post_init__(self) -> None:
        if not 0.0 <= self.temperature <= 10.0 or not 0.0 < self.top_p <= 1.0:
            raise InputError(
                f"--temperature lies between 0 and 10 and --top-p above 0 and up to 1, got {self.temperature} and "
                f"{self.top_p}"
            )
        if not 1 <= self.answer_tokens <= 65536:
            raise InputError(f"--answer-tokens lies between 1 and 65536, got {self.answer_tokens}")

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        return {"temperature": self.temperature, "top_p": self.top_p, "answer_tokens": self.answer_tokens}


@contextmanager
def opened(
    writer: str | Path | Callable[[str, int], Written | str], decoding: Decoding, *, served_model: str | None = None,
    concurrency: int = 1, timeout: float = 600.0, device: str = "auto", dtype: str = "auto", seed: int = 0,
) -> Iterator[Writing]:  # fmt: skip
    """The writer that a folder, hub id, server address or function means.

    Raises `InputError` and its kin, and `MachineError` where a server does not answer.
    """
    if concurrency < 1 or timeout <= 0:
        raise InputError(f"--concurrency is at least 1 and --timeout above 0, got {concurrency} and {timeout}")
    if callable(writer):
        yield Writing(write=writer, identity={"kind": "function", "model": getattr(writer, "__name__", "?")})
        return
    if str(writer).startswith(("http://", "https://")):
        from ropewalk.hosts.served import Patience, Server

        server = Server(str(writer), patience=Patience(answer_seconds=timeout, total_seconds=3 * timeout), seed=seed)
        try:
            yield _served(server, served_model, decoding, concurrency)
        finally:
            server.close()
        return
    if served_model is not None or concurrency != 1:
        raise InputError(f"--served-model and --concurrency are of servers, and {writer} is a model; leave them out")
    yield _local(writer, decoding, device, dtype)


def _served(server: Any, model: str | None, decoding: Decoding, concurrency: int) -> Writing:
    from ropewalk.hosts.served import RefusedError

    identity = server.open(model)

    def write(prompt: str, seed: int) -> Written:
        options = {"temperature": decoding.temperature, "top_p": decoding.top_p, "seed": seed}
        try:
            reply = server.chat(prompt, decoding.answer_tokens, options)
        except RefusedError as error:
            raise UnwrittenError(str(error)) from error
        return Written(text=reply.text, cut=reply.cut)

    return Writing(
        write=write,
        identity={"kind": "server", "model": identity.model, "engine": identity.engine, **decoding.to_dict()},
        longest=identity.longest,
        at_once=concurrency,
    )


def _local(source: str | Path, decoding: Decoding, device: str, dtype: str) -> Writing:
    from transformers import GenerationConfig

    from ropewalk.hosts import folder, live

    checkpoint = folder.open_checkpoint(source, weights=True)
    if checkpoint.kind == "gguf":
        raise InputError(f"{source} is a GGUF file; serve it and give the server's address as --writer, or convert it")
    model, tokenizer = live.load(checkpoint.path, device=device, dtype=dtype)
    longest, ends = live.geometry_of(model).window_length, _ends(model, tokenizer)
    # What a model's own config says of decoding (a penalty, a temperature) fills whatever is not said, and would bend it.
    model.generation_config = GenerationConfig()
    identity = {
        "kind": "local", "model": checkpoint.path.name, "sha256": provenance.source_hash(checkpoint.path),
        "dtype": str(model.dtype).removeprefix("torch."), **decoding.to_dict(),
    }  # fmt: skip

    def write(prompt: str, seed: int) -> Written:
        ids = _encoded(tokenizer, prompt)
        if ids.shape[1] + decoding.answer_tokens > longest:
            raise UnwrittenError(
                f"a prompt of {ids.shape[1]} tokens with {decoding.answer_tokens} to write, and it reads {longest}"
            )
        return _generated(model, tokenizer, ids, ends, decoding, seed)

    return Writing(write=write, identity=identity, longest=longest)


def _encoded(tokenizer: Any, prompt: str) -> Any:
    """[1, num_tokens]: the prompt as a message, or as it is where the model knows no messages."""
    if getattr(tokenizer, "chat_template", None):
        messages = [{"role": "user", "content": prompt}]
        text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        return tokenizer(text, add_special_tokens=False, return_tensors="pt")["input_ids"]
    return tokenizer(prompt, return_tensors="pt")["input_ids"]


def _ends(model: Any, tokenizer: Any) -> list[int]:
    """The tokens at which a reply ends."""
    own = getattr(model.generation_config, "eos_token_id", None)
    ends = tokenizer.eos_token_id if own is None else own
    return [] if ends is None else [ends] if isinstance(ends, int) else list(ends)


def _generated(model: Any, tokenizer: Any, ids: Any, ends: list[int], decoding: Decoding, seed: int) -> Written:
    """One reply. The generator that it draws from is put back."""
    import torch
    from transformers import GenerationConfig

    drawn = {"do_sample": True, "temperature": decoding.temperature, "top_p": decoding.top_p, "top_k": 0}
    config = GenerationConfig(
        max_new_tokens=decoding.answer_tokens, eos_token_id=ends or None, pad_token_id=ends[0] if ends else 0,
        **(drawn if decoding.temperature else {"do_sample": False}),
    )  # fmt: skip
    ids = ids.to(model.device)
    with torch.random.fork_rng(devices=[model.device] if model.device.type == "cuda" else []), torch.inference_mode():
        torch.manual_seed(seed)
        said = model.generate(ids, attention_mask=torch.ones_like(ids), generation_config=config)[0, ids.shape[1] :].tolist()
    cut = not any(token in ends for token in said)
    return Written(text=tokenizer.decode(said, skip_special_tokens=True), cut=cut)
