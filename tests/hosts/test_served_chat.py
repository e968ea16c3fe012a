"""A server asked by message: what it says, what it refuses, and what is asked again, with an end."""

from collections.abc import Iterator
from typing import Any

import pytest
from completions_server import CompletionsServer, content, half_an_answer, hangs_up, slowly, status, trickles

from ropewalk.core.errors import MachineError
from ropewalk.hosts.served import Patience, RefusedError, Reply, Server

QUICK = Patience(attempts=3, first_seconds=0.01, longest_seconds=0.02, answer_seconds=0.3, total_seconds=20.0)


@pytest.fixture
def served() -> Iterator[CompletionsServer]:
    with CompletionsServer(lambda ids, room: ("".join(map(chr, ids))[::-1], [])).running() as running:
        yield running


def asking(served: CompletionsServer) -> Server:
    server = Server(served.url, patience=QUICK)
    server.open()
    return server


def test_a_message_is_answered(served: CompletionsServer) -> None:
    assert asking(served).chat("abc", 7, {"temperature": 0.5, "seed": 3}) == Reply(text="cba", cut=False)
    (body,) = served.bodies
    assert body["messages"] == [{"role": "user", "content": "abc"}]
    assert (body["model"], body["max_tokens"], body["temperature"], body["seed"]) == ("tiny", 7, 0.5, 3)


def answer(**choice: Any) -> Any:
    return content({"choices": [{"message": {"content": "so"}, "finish_reason": "stop", **choice}]})


def test_an_answer_that_is_cut_or_empty_is_told(served: CompletionsServer) -> None:
    served.faults = [answer(finish_reason="length"), answer(message={"content": None}), answer(message={})]
    server = asking(served)
    assert server.chat("a", 7, {}) == Reply(text="so", cut=True)
    assert [server.chat("a", 7, {}).text for _ in range(2)] == ["", ""]


@pytest.mark.parametrize(
    "fault",
    [
        status(429), status(500), status(503), hangs_up, half_an_answer, slowly(0.5), trickles, content(b"<html>"),
        content({"choices": []}), content({"choices": [None]}), content({"choices": [{"text": "so"}]}),
        content({"choices": [{"message": {"content": 3}}]}), content({"error": "busy"}),
    ],
)  # fmt: skip
def test_what_may_pass_is_asked_again_and_given_up_in_the_end(served: CompletionsServer, fault: Any) -> None:
    server = asking(served)
    served.faults = [fault, fault]
    assert server.chat("abc", 7, {}).text == "cba"
    served.faults = [fault] * 9
    with pytest.raises(MachineError, match=r"gave no answer in 3 attempts .*--resume"):
        server.chat("abc", 7, {})


def test_a_message_that_is_refused_is_not_asked_again(served: CompletionsServer) -> None:
    server = asking(served)
    served.refuses_beyond = 2
    with pytest.raises(RefusedError, match="maximum context length is 2 tokens"):
        server.chat("abc", 7, {})
    assert len(served.bodies) == 1
