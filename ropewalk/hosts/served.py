"""A server that speaks OpenAI's protocol: one prompt in, one answer out, every failure told apart.

A prompt is token ids, which vLLM, SGLang and llama.cpp take as they are, or a text. What a server says it read is held
against what was sent: a server that cuts a prompt, or puts a token in front of it, answers another question and does not say
so. What passes (429, 5xx, a dropped connection, an answer that is none) is asked again, with an end; what does not is one
sentence. Nothing but the address given is contacted: redirects are refused and proxies are not looked for.

What was given up: streams, which would show a slow answer sooner; a connection that stays open, since a request that reads
thousands of tokens does not feel the handshake; log-probabilities of a given answer, which the protocol does not have.
The protocol: OpenAI's API reference, `POST /v1/completions`, `POST /v1/chat/completions` and `GET /v1/models`, and vLLM's
`return_token_ids`.
"""

import json
import os
import random
import socket
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from ssl import SSLCertVerificationError
from typing import Any
from urllib.parse import urlsplit

from ropewalk.core.errors import HostError, InputError, LengthError, MachineError, near

KEY = "OPENAI_API_KEY"
"""Environment variable whose value is sent as the bearer token. It is never written anywhere."""
PASSING = (408, 425, 429, 500, 502, 503, 504)
"""Statuses after which the same request may succeed."""
LARGEST_ANSWER = 64 * 1024 * 1024
"""Bytes."""
ENGINES = {"vllm": "vllm", "llamacpp": "llama.cpp", "sglang": "sglang"}
"""What servers call themselves in `owned_by`, to our names."""
EXACT: Mapping[str, Any] = {"return_token_ids": True, "repetition_penalty": 1.0}
"""Beyond the protocol, where a server takes it: ids of prompt and answer (vLLM), and no penalty from the model's own
generation config, which would bend greedy decoding."""


class RefusedError(InputError):
    """The server understood a request and refuses it."""


@dataclass(frozen=True, kw_only=True)
class Patience:
    """How long and how often one request is tried."""

    attempts: int = 6
    first_seconds: float = 0.5
    """Wait after the first failure; it doubles."""
    longest_seconds: float = 30.0
    """Of one such wait. A server's Retry-After may ask for more."""
    answer_seconds: float = 600.0
    """For one attempt, until the whole answer is there."""
    total_seconds: float = 1800.0
    """For one request, all attempts and waits."""


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """What is asked: ids, and the text that stands for them where a server takes no ids."""

    ids: tuple[int, ...]
    text: str | None = None
    """None: the ids themselves are sent."""


@dataclass(frozen=True, kw_only=True)
class Completion:
    """What a server answers."""

    text: str
    ids: tuple[int, ...] | None
    """Of the answer; None where the server does not say."""
    counted: bool
    """Whether the server said how many tokens it read, which then are as many as were sent."""


@dataclass(frozen=True, kw_only=True)
class Reply:
    """What a server answers to a message."""

    text: str
    cut: bool
    """Whether it ran into the limit of new tokens."""


@dataclass(frozen=True, kw_only=True)
class Identity:
    """Who answers."""

    model: str
    engine: str
    """`server` where it does not say."""
    longest: int | None
    """Tokens of a prompt with its answer; None where it does not say."""
    version: str | None


class _AgainError(Exception):
    """A failure that may pass. `after` is what the server asks to wait, seconds."""

    def __init__(self, reason: str, after: float | None = None) -> None:
        super().__init__(reason)
        self.after = after


class Server:
    """A server at an address, asked by any number of threads."""

    def __init__(self, url: str, *, patience: Patience | None = None, seed: int = 0) -> None:
        """Raises `InputError` for an address or a key that cannot be used; contacts nobody."""
        self.url, self._host, self._port, self._path, self._secure = _address(url)
        self.patience = patience or Patience()
        self.model = ""
        self._key = os.environ.get(KEY, "").strip()
        if self._key and not (self._key.isascii() and self._key.isprintable()):
            raise InputError(f"the value of {KEY} has characters that no key has; set it anew")
        self._jitter = random.Random(seed)
        self._closed = threading.Event()
        self._sockets: set[socket.socket] = set()
        self._lock = threading.Lock()

    # --- what is asked ------------------------------------------------------------------------------------------------

    def open(self, model: str | None = None) -> Identity:
        """Who answers, and which model is asked from now on. A server that does not list its models must be told.

        Raises `InputError` where the model is not served or cannot be chosen, `MachineError` where nobody answers.
        """
        try:
            listed = _models(self._asked("GET", "/models", None, attempts=min(3, self.patience.attempts)))
        except RefusedError as error:
            if model is None:
                raise InputError(f"{error}; it lists no models, so say --served-model NAME") from error
            listed = []
        self.model = _chosen(model, [str(one["id"]) for one in listed], self.url)
        mine = next((one for one in listed if one["id"] == self.model), {})
        meta = mine.get("meta")
        longest = mine.get("max_model_len") or (meta.get("n_ctx") if isinstance(meta, dict) else None)
        owner = str(mine.get("owned_by") or "")
        return Identity(
            model=self.model,
            engine=ENGINES.get(owner, "server"),
            longest=longest if isinstance(longest, int) else None,
            version=self._version() if owner == "vllm" else None,
        )

    def complete(self, prompt: Prompt, num_new: int, extra: Mapping[str, Any] | None = None) -> Completion:
        """The greedy continuation of a prompt by at most `num_new` tokens.

        Raises `RefusedError` where the server refuses it, `HostError` where it read other tokens than were sent,
        `LengthError` where it left the answer no room, and `MachineError` where it gives no answer in the end.
        """
        body = {
            "model": self.model, "prompt": list(prompt.ids) if prompt.text is None else prompt.text,
            "max_tokens": num_new, "temperature": 0, "n": 1, "stream": False, **(extra or {}),
        }  # fmt: skip
        try:
            content = self._asked("POST", "/completions", body, reads=_answer)
        except RefusedError as error:
            raise RefusedError(f"{error} (a prompt of {len(prompt.ids)} tokens with {num_new} more to write)") from None
        choice = content["choices"][0]
        counted = _check_read(prompt, content, choice, self.url)
        _check_room(num_new, content, choice, self.url)
        ids = choice.get("token_ids")
        return Completion(text=choice["text"], ids=tuple(ids) if isinstance(ids, list) else None, counted=counted)

    def chat(self, prompt: str, num_new: int, options: Mapping[str, Any]) -> Reply:
        """The answer to one message, written by the server's own chat template; `options` are of sampling.

        Raises `RefusedError` where the server refuses it, and `MachineError` where it gives no answer in the end.
        """
        body = {
            "model": self.model, "messages": [{"role": "user", "content": prompt}], "max_tokens": num_new, "n": 1,
            "stream": False, **options,
        }  # fmt: skip
        choice = self._asked("POST", "/chat/completions", body, reads=_message)["choices"][0]
        return Reply(text=choice["message"]["content"] or "", cut=choice.get("finish_reason") == "length")

    def close(self) -> None:
        """Ends every request, waiting ones too; whoever waits for one gets a `MachineError`."""
        self._closed.set()
        with self._lock:
            for open_socket in self._sockets:
                with suppress(OSError):
                    open_socket.shutdown(socket.SHUT_RDWR)

    # --- how it is asked ----------------------------------------------------------------------------------------------

    def _asked(
        self, method: str, path: str, body: Mapping[str, Any] | None, *, reads: Any = None, attempts: int | None = None
    ) -> dict[str, Any]:
        """The object that answers a request, tried again while that can help."""
        began, attempts = time.monotonic(), attempts or self.patience.attempts
        for attempt in range(attempts):
            if self._closed.is_set():
                raise MachineError("the run was stopped")
            try:
                content = self._once(method, self._path + path, body, began)
                return content if reads is None else reads(content)
            except _AgainError as again:
                reason, wait = str(again), self._wait(attempt, again.after)
            if time.monotonic() - began + wait > self.patience.total_seconds:
                reason += (
                    f"; the next attempt would be in {wait:.0f} s, beyond the limit of {self.patience.total_seconds:.0f} s"
                )
                break
            if attempt + 1 < attempts:
                self._closed.wait(wait)
        tried = f"{attempt + 1} attempts" if attempt else "1 attempt"
        raise MachineError(f"{self.url} gave no answer in {tried} ({reason}); see to the server and run again with --resume")

    def _wait(self, attempt: int, after: float | None) -> float:
        """Seconds before the next attempt: doubling, and spread, so that many do not come back at once."""
        spread = 0.5 + 0.5 * self._jitter.random()
        if after is not None:
            return after + self.patience.first_seconds * spread
        return min(self.patience.longest_seconds, self.patience.first_seconds * 2.0**attempt) * spread

    def _once(self, method: str, path: str, body: Mapping[str, Any] | None, began: float) -> dict[str, Any]:
        """One attempt. Raises `_AgainError`, `InputError` or a subclass."""
        left = self.patience.total_seconds - (time.monotonic() - began)
        limit = max(0.01, min(self.patience.answer_seconds, left))
        try:
            with self._connection(limit) as (connection, opened):
                data = None if body is None else json.dumps(body).encode()
                connection.request(method, path, data, self._headers())
                with connection.getresponse() as response:
                    content = _read(opened, response, time.monotonic() + limit)
        except TimeoutError:
            raise _AgainError(f"no answer within {limit:.0f} s") from None
        except SSLCertVerificationError as error:
            raise InputError(f"{self.url} has a certificate that is not trusted here ({error.verify_message})") from error
        except (OSError, HTTPException) as error:
            raise _AgainError(f"the connection failed ({str(error) or type(error).__name__})") from error
        return self._judged(response, content, path)

    def _judged(self, response: HTTPResponse, content: bytes, path: str) -> dict[str, Any]:
        """The object of an answer whose status is 200; every other status as its error."""
        status, words = response.status, self._words(content)
        if status in PASSING:
            raise _AgainError(f"status {status}{words}", _retry_after(response.headers.get("Retry-After")))
        if status in (401, 403):
            known = f"the key in {KEY} is not accepted" if self._key else f"it wants a key; set {KEY}"
            raise InputError(f"{self.url} refuses us with status {status}: {known}")
        if 300 <= status < 400:
            to = response.headers.get("Location", "another address")
            raise InputError(f"{self.url} answers that it is at {to:.200}, and is not followed there; give that address")
        if status == 404 and path.endswith("/completions"):
            raise RefusedError(
                f"{self.url} knows no completions, or no model {self.model!r} (status 404{words}); see its /models"
            )
        if status != 200:
            raise RefusedError(f"{self.url} refuses the request with status {status}{words}")
        try:
            found = json.loads(content)
        except (ValueError, RecursionError):
            raise _AgainError(f"an answer that is not JSON ({content[:60]!r})") from None
        if not isinstance(found, dict):
            raise _AgainError(f"an answer that is no JSON object ({content[:60]!r})")
        return found

    @contextmanager
    def _connection(self, limit: float) -> Iterator[tuple[HTTPConnection, socket.socket]]:
        """An open connection that `close` can end."""
        kind = HTTPSConnection if self._secure else HTTPConnection
        connection = kind(self._host, self._port, timeout=limit)
        connection.connect()
        opened: socket.socket = connection.sock
        with self._lock:
            self._sockets.add(opened)
        try:
            if self._closed.is_set():
                raise MachineError("the run was stopped")
            yield connection, opened
        finally:
            with self._lock:
                self._sockets.discard(opened)
            connection.close()
            opened.close()

    def _headers(self) -> dict[str, str]:
        headers = {"Content-Type": "application/json", "Accept": "application/json", "Connection": "close"}
        return headers | ({"Authorization": f"Bearer {self._key}"} if self._key else {})

    def _version(self) -> str | None:
        """vLLM's own word on its version, which stands beside the protocol's paths; nothing hangs on it."""
        with suppress(InputError, _AgainError, KeyError):
            return str(self._once("GET", self._path.removesuffix("/v1") + "/version", None, time.monotonic())["version"])
        return None

    def _words(self, content: bytes) -> str:
        """What a server says of an error, short, on one line, and without the key."""
        text = content[:2000].decode("utf-8", "replace")
        with suppress(ValueError, RecursionError, AttributeError):
            found = json.loads(content)
            inner = found.get("error", found)
            text = str(inner.get("message", inner) if isinstance(inner, dict) else inner)
        text = " ".join(text.split())[:300]
        text = text.replace(self._key, "***") if self._key else text
        return f": {text}" if text else ""


def _address(url: str) -> tuple[str, str, int | None, str, bool]:
    """An address as said, host, port, path before the endpoint, and whether it is encrypted."""
    said = url.strip().rstrip("/").removesuffix("/completions")
    try:
        parts = urlsplit(said)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise InputError(f"the server's address {url!r} cannot be read ({error}); it looks like http://host:8000") from None
    if parts.scheme not in ("http", "https") or not host:
        raise InputError(f"the server's address looks like http://host:8000 or https://host/v1, got {url!r}")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise InputError(f"the server's address carries more than host and path; a key is read from {KEY}")
    path = parts.path or "/v1"
    if not path.isascii() or any(letter <= " " or letter == "\x7f" for letter in said):
        raise InputError(f"the server's address {url!r} has characters that no address has; it looks like http://host:8000")
    return f"{parts.scheme}://{parts.netloc}{path}", host, port, path, parts.scheme == "https"


def _read(opened: socket.socket, response: HTTPResponse, deadline: float) -> bytes:
    """A whole answer before a moment of the monotonic clock. A slow trickle is a slow answer too."""
    parts: list[bytes] = []
    size = 0
    while size <= LARGEST_ANSWER:
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        opened.settimeout(left)
        part = response.read1(65536)
        if not part:
            return b"".join(parts)
        parts.append(part)
        size += len(part)
    raise _AgainError(f"an answer of more than {LARGEST_ANSWER} bytes")


def _retry_after(value: str | None) -> float | None:
    """Seconds that a Retry-After header asks for; a date counts from now."""
    if value is None:
        return None
    with suppress(ValueError):
        return max(0.0, float(value)) if float(value) < float("inf") else None
    with suppress(ValueError, TypeError):
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    return None


def _models(content: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The models of a listing; none where it is no listing."""
    found = content.get("data")
    return [one for one in found if isinstance(one, dict) and "id" in one] if isinstance(found, list) else []


def _chosen(model: str | None, names: Sequence[str], url: str) -> str:
    """The model to ask."""
    if model is None:
        if len(names) == 1:
            return names[0]
        listed = f"serves {len(names)} models ({', '.join(names[:5])})" if names else "lists no model"
        raise InputError(f"{url} {listed}; say which with --served-model NAME")
    if names and model not in names:
        raise InputError(f"{url} does not serve {model!r}; {near(model, names)}")
    return model


def _answer(content: dict[str, Any]) -> dict[str, Any]:
    """A completion as it must be. Raises `_AgainError` for anything else."""
    choices = content.get("choices")
    if not isinstance(choices, list) or not choices:
        error = content.get("error")
        raise _AgainError(f"an answer without choices{f' ({str(error)[:200]})' if error else ''}")
    if not isinstance(choices[0], dict) or not isinstance(choices[0].get("text"), str):
        raise _AgainError("a choice without text")
    return content


def _message(content: dict[str, Any]) -> dict[str, Any]:
    """A chat completion as it must be; a message without content is one that says nothing. Raises `_AgainError`."""
    choices = content.get("choices")
    first = choices[0] if isinstance(choices, list) and choices else None
    message = first.get("message") if isinstance(first, dict) else None
    if not first or not isinstance(message, dict) or not isinstance(message.get("content"), str | None):
        error = content.get("error")
        raise _AgainError(f"an answer without a message{f' ({str(error)[:200]})' if error else ''}")
    return {**content, "choices": [{**first, "message": {"content": message.get("content")}}]}


def _usage(content: Mapping[str, Any], name: str) -> int | None:
    """A count of tokens; 0 stands for a server that does not count."""
    usage = content.get("usage")
    number = usage.get(name) if isinstance(usage, dict) else None
    return number if isinstance(number, int) and not isinstance(number, bool) and number > 0 else None


def _check_read(prompt: Prompt, content: Mapping[str, Any], choice: Mapping[str, Any], url: str) -> bool:
    """Whether the server counted what it read. Raises `HostError` where that is not what was sent."""
    sent, read = len(prompt.ids), _usage(content, "prompt_tokens")
    if read is not None and read != sent:
        what = "cuts prompts silently" if read < sent else "puts tokens in front of prompts"
        raise HostError(
            f"{url} read {read} tokens of a prompt of {sent}: it {what}, so its answers are to other questions; "
            "start it with a longer context or without what it adds, or give smaller --lengths"
        )
    ids = choice.get("prompt_token_ids")
    if isinstance(ids, list) and tuple(ids) != prompt.ids:
        place = next((i for i, (a, b) in enumerate(zip(ids, prompt.ids, strict=False)) if a != b), min(len(ids), sent))
        raise HostError(f"{url} read other tokens than were sent, from token {place} on; give the tokenizer it serves with")
    return read is not None or isinstance(ids, list)


def _check_room(num_new: int, content: Mapping[str, Any], choice: Mapping[str, Any], url: str) -> None:
    """Raises `LengthError` where an answer was cut before it had the tokens that were asked for."""
    written = _usage(content, "completion_tokens")
    if choice.get("finish_reason") == "length" and written is not None and written < num_new:
        raise LengthError(
            f"{url} cut an answer after {written} of {num_new} tokens for lack of room; start it with a longer context, "
            "or give smaller --lengths"
        )
