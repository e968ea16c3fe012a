"""A completions server on loopback that answers by a function, and fails in the ways that servers do."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answering = Callable[[list[int], int], tuple[str, list[int]]]
"""Prompt ids and room -> text and ids of the answer."""
Fault = Callable[["Handler"], None]
"""Answers one request itself."""


class CompletionsServer:
    """What is served, how it fails next, and what it was asked."""

    def __init__(
        self, answering: Answering, *, name: str = "tiny", encode: Callable[[str], list[int]] | None = None
    ) -> None:
        self.answering, self.name, self.encode = answering, name, encode
        self.faults: list[Fault | None] = []
        """What the next completions meet, in their order; None lets one pass."""
        self.bodies: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        self.owner: str | None = "vllm"
        self.longest: int | None = None
        self.no_room = False
        """Whether an answer that is shorter than asked was cut for lack of room."""
        self.lists_models = self.takes_ids = self.gives_ids = self.counts = self.takes_extra = True
        self.adds = 0
        """Tokens put in front of each prompt."""
        self.cuts_to: int | None = None
        """Tokens of a prompt that are read, the rest is dropped silently."""
        self.refuses_beyond: int | None = None
        self.seconds = 0.0
        self.at_once = self.most_at_once = 0
        self.lock = threading.Lock()
        self.url = ""

    @contextmanager
    def running(self) -> Iterator["CompletionsServer"]:
        handler = type("Bound", (Handler,), {"served": self})
        http = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        http.daemon_threads = True
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        self.url = f"http://127.0.0.1:{http.server_address[1]}"
        try:
            yield self
        finally:
            http.shutdown()
            http.server_close()
            thread.join()

    @property
    def prompts(self) -> list[Any]:
        """What was asked, the trial at the beginning included."""
        return [body["prompt"] for body in self.bodies]


class Handler(BaseHTTPRequestHandler):
    served: CompletionsServer
    body: dict[str, Any]

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def give(self, status: int, content: Any, headers: dict[str, str] | None = None) -> None:
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(data))} | (headers or {})).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def do_GET(self) -> None:
        served = self.served
        if self.path == "/version":
            self.give(200, {"version": "9.9"})
        elif self.path == "/v1/models" and served.lists_models:
            one = {"id": served.name, "object": "model", "owned_by": served.owner, "max_model_len": served.longest}
            self.give(200, {"object": "list", "data": [one]})
        else:
            self.give(404, {"detail": "Not Found"})

    def do_POST(self) -> None:
        served = self.served
        self.body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with served.lock:
            served.bodies.append(self.body)
            served.keys.append(self.headers.get("Authorization"))
            fault = served.faults.pop(0) if served.faults else None
        try:
            time.sleep(served.seconds)
            (fault or Handler.answer)(self)
        except (BrokenPipeError, ConnectionResetError):
            pass

    def answer(self) -> None:
        served = self.served
        if self.path == "/v1/chat/completions":
            return self.answer_message()
        prompt = self.body["prompt"]
        extra = "return_token_ids" in self.body
        if self.body["model"] != served.name:
            return self.give(404, {"error": {"message": f"The model {self.body['model']} does not exist."}})
        if (isinstance(prompt, list) and not served.takes_ids) or (extra and not served.takes_extra):
            return self.give(400, {"error": {"message": "unknown kind of request"}})
        ids = list(prompt) if isinstance(prompt, list) else (served.encode or (lambda text: [ord(c) for c in text]))(prompt)
        if served.refuses_beyond is not None and len(ids) + self.body["max_tokens"] > served.refuses_beyond:
            return self.give(400, {"error": {"message": f"maximum context length is {served.refuses_beyond} tokens"}})
        read = [0] * served.adds + ids[-served.cuts_to :] if served.cuts_to else [0] * served.adds + ids
        room = self.body["max_tokens"]
        # Counted while it is worked on: an answer is with its reader before this thread goes on.
        with served.lock:
            served.at_once += 1
            served.most_at_once = max(served.most_at_once, served.at_once)
        try:
            text, new = served.answering(read, room)
        finally:
            with served.lock:
                served.at_once -= 1
        choice: dict[str, Any] = {
            "index": 0,
            "text": text,
            "finish_reason": "length" if served.no_room or len(new) == room else "stop",
        }
        if extra and served.gives_ids:
            choice |= {"token_ids": new, "prompt_token_ids": read}
        content: dict[str, Any] = {"object": "text_completion", "choices": [choice]}
        if served.counts:
            content["usage"] = {"prompt_tokens": len(read), "completion_tokens": len(new)}
        return self.give(200, content)

    def answer_message(self) -> None:
        """A chat completion: the message's text, spelled as `encode` does, to the same function."""
        served, words = self.served, self.body["messages"][0]["content"]
        if self.body["model"] != served.name:
            return self.give(404, {"error": {"message": f"The model {self.body['model']} does not exist."}})
        read = (served.encode or (lambda text: [ord(c) for c in text]))(words)
        if served.refuses_beyond is not None and len(read) > served.refuses_beyond:
            return self.give(400, {"error": {"message": f"maximum context length is {served.refuses_beyond} tokens"}})
        text, _ = served.answering(read, self.body["max_tokens"])
        choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
        return self.give(200, {"object": "chat.completion", "choices": [choice]})


# --- faults -----------------------------------------------------------------------------------------------------------


def status(code: int, headers: dict[str, str] | None = None, words: str = "overloaded") -> Fault:
    return lambda handler: handler.give(code, {"error": {"message": words}}, headers)


def content(what: Any) -> Fault:
    return lambda handler: handler.give(200, what)


def hangs_up(handler: Handler) -> None:
    handler.close_connection = True
    handler.connection.close()


def half_an_answer(handler: Handler) -> None:
    handler.give(200, b'{"choices": [{"te', {"Content-Length": "500"})
    handler.close_connection = True


def slowly(seconds: float) -> Fault:
    def wait(handler: Handler) -> None:
        time.sleep(seconds)
        handler.answer()

    return wait


def trickles(handler: Handler) -> None:
    """One byte at a time, for ever."""
    handler.send_response(200)
    handler.end_headers()
    for _ in range(200):
        handler.wfile.write(b" ")
        handler.wfile.flush()
        time.sleep(0.02)
