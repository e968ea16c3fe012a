"""A server that answers slowly, wrongly or not at all: an answer in the end, or one sentence; never another prompt's."""

import threading
import time
from collections.abc import Iterator

import pytest
from completions_server import CompletionsServer, content, half_an_answer, hangs_up, slowly, status, trickles

from ropewalk.core.errors import HostError, InputError, LengthError, MachineError
from ropewalk.hosts.served import EXACT, Patience, Prompt, RefusedError, Server

QUICK = Patience(attempts=3, first_seconds=0.01, longest_seconds=0.02, answer_seconds=5.0, total_seconds=10.0)
PROMPT = Prompt(ids=(5, 6, 7))


@pytest.fixture
def served() -> Iterator[CompletionsServer]:
    with CompletionsServer(lambda ids, room: ("abc"[:room], [97, 98, 99][:room])).running() as server:
        yield server


@pytest.fixture(autouse=True)
def no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


def opened(served: CompletionsServer, patience: Patience = QUICK) -> Server:
    server = Server(served.url, patience=patience)
    server.open()
    return server


def test_a_prompt_is_sent_as_ids_and_answered_greedily(served):
    found = opened(served).complete(PROMPT, 2, EXACT)
    assert (found.text, found.ids, found.counted) == ("ab", (97, 98), True)
    (body,) = served.bodies
    assert (body["prompt"], body["max_tokens"], body["temperature"], body["model"]) == ([5, 6, 7], 2, 0, "tiny")


@pytest.mark.parametrize("tail", ["", "/", "/v1", "/v1/", "/v1/completions"])
def test_an_address_may_be_said_with_or_without_its_path(served, tail):
    server = Server(served.url + tail, patience=QUICK)
    server.open()
    assert server.complete(PROMPT, 1).text == "a"


def test_the_server_says_who_it_is(served):
    served.longest = 2048
    found = Server(served.url, patience=QUICK).open()
    assert (found.model, found.engine, found.longest, found.version) == ("tiny", "vllm", 2048, "9.9")
    served.owner = "llamacpp"
    assert Server(served.url).open().engine == "llama.cpp"
    served.owner = "somebody"
    assert Server(served.url).open().engine == "server"


@pytest.mark.parametrize(
    "fault",
    [
        status(429), status(500), status(502), status(503), hangs_up, half_an_answer, content(b"<html>busy</html>"),
        content([1, 2]), content({"choices": []}), content({"choices": [{}]}), content({"error": "no slot"}),
        content({"choices": [{"text": None}]}), content(b"[" * 100_000),
    ],
)  # fmt: skip
def test_what_passes_is_asked_again(served, fault):
    server = opened(served)
    served.faults = [fault, fault]
    assert server.complete(PROMPT, 3).text == "abc"
    assert len(served.bodies) == 3


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (status(500), "3 attempts .*status 500: overloaded"),
        (hangs_up, "3 attempts .*connection failed"),
        (content({"choices": []}), "3 attempts .*without choices"),
        (content(b"busy"), "3 attempts .*not JSON"),
    ],
)
def test_attempts_have_an_end(served, fault, words):
    server = opened(served)
    served.faults = [fault] * 9
    with pytest.raises(MachineError, match=words) as caught:
        server.complete(PROMPT, 3)
    assert "--resume" in str(caught.value)
    assert caught.value.exit_code == 3
    assert len(served.bodies) == 3


def test_a_server_that_says_when_to_come_back_is_obeyed(served):
    server = opened(served)
    served.faults = [status(429, {"Retry-After": "0.3"})]
    began = time.monotonic()
    server.complete(PROMPT, 1)
    assert time.monotonic() - began >= 0.3


def test_waiting_for_longer_than_the_limit_is_not_begun(served):
    server = opened(served)
    served.faults = [status(429, {"Retry-After": "3600"})]
    with pytest.raises(MachineError, match=r"1 attempt .*the next attempt would be in 3600 s, beyond the limit of 10 s"):
        server.complete(PROMPT, 1)


@pytest.mark.parametrize("fault", [slowly(1.0), trickles])
def test_a_slow_answer_is_given_up_and_asked_again(served, fault):
    server = opened(served, Patience(attempts=2, first_seconds=0.01, answer_seconds=0.2))
    served.faults = [fault]
    assert server.complete(PROMPT, 1).text == "a"
    served.faults = [fault, fault]
    with pytest.raises(MachineError, match="no answer within 0 s"):
        server.complete(PROMPT, 1)


def test_nobody_there(served):
    server = Server("http://127.0.0.1:9", patience=QUICK)
    with pytest.raises(MachineError, match="connection failed"):
        server.open()


def test_a_prompt_that_is_cut_silently_is_an_error_with_both_numbers(served):
    server = opened(served)
    served.cuts_to = 2
    with pytest.raises(HostError, match="read 2 tokens of a prompt of 3: it cuts prompts silently"):
        server.complete(PROMPT, 1)


def test_a_token_put_in_front_is_an_error_with_both_numbers(served):
    server = opened(served)
    served.adds = 1
    with pytest.raises(HostError, match="read 4 tokens of a prompt of 3: it puts tokens in front"):
        server.complete(PROMPT, 1)


def test_other_tokens_of_the_same_number_are_an_error(served):
    server = opened(served)
    served.cuts_to, served.adds = 2, 1
    with pytest.raises(HostError, match="other tokens than were sent, from token 0 on"):
        server.complete(PROMPT, 1, EXACT)


def test_a_server_that_does_not_count_is_known(served):
    server = opened(served)
    served.counts = served.gives_ids = False
    assert server.complete(PROMPT, 1, EXACT).counted is False


def test_an_answer_without_room_is_an_error(served):
    server = opened(served)
    assert server.complete(PROMPT, 9).text == "abc"
    served.no_room = True
    with pytest.raises(LengthError, match="cut an answer after 3 of 9 tokens for lack of room"):
        server.complete(PROMPT, 9)


def test_a_prompt_beyond_the_window_is_refused_once(served):
    server = opened(served)
    served.refuses_beyond = 4
    with pytest.raises(RefusedError, match=r"status 400: maximum context length is 4 tokens \(a prompt of 3 tokens with 2"):
        server.complete(PROMPT, 2)
    assert len(served.bodies) == 1


def test_a_model_that_is_not_served(served):
    with pytest.raises(InputError, match="does not serve 'tinny'; did you mean tiny"):
        Server(served.url, patience=QUICK).open("tinny")
    served.lists_models = False
    with pytest.raises(InputError, match="--served-model NAME"):
        Server(served.url, patience=QUICK).open()
    server = Server(served.url, patience=QUICK)
    server.open("tinny")
    with pytest.raises(RefusedError, match="no model 'tinny'"):
        server.complete(PROMPT, 1)
    assert len(served.bodies) == 1


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (status(401), "wants a key; set OPENAI_API_KEY"),
        (status(307, {"Location": "http://127.0.0.1:1/v1"}), "it is at http://127.0.0.1:1/v1, and is not followed"),
        (status(422), "status 422: overloaded"),
    ],
)
def test_what_does_not_pass_is_not_asked_again(served, fault, words):
    server = opened(served)
    served.faults = [fault]
    with pytest.raises(InputError, match=words):
        server.complete(PROMPT, 1)
    assert len(served.bodies) == 1


def test_the_key_is_sent_and_never_said(served, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-very-secret")
    server = opened(served)
    served.faults = [status(400, words="bad key sk-very-secret")]
    with pytest.raises(RefusedError) as caught:
        server.complete(PROMPT, 1)
    assert served.keys == ["Bearer sk-very-secret"]
    assert "secret" not in str(caught.value)
    assert "***" in str(caught.value)


def test_a_key_with_a_line_break_inside_is_refused_unsaid(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-a\r\nb")
    with pytest.raises(InputError, match="OPENAI_API_KEY has characters") as caught:
        Server("http://127.0.0.1:1")
    assert "sk-a" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "127.0.0.1:8000",
        "ftp://host",
        "http://",
        "http://host:port",
        "http://me:word@host",
        "http://host/v1?key=1",
        "",
        "http://host/a b",
    ],
)
def test_an_address_that_cannot_be_used_is_refused(url):
    with pytest.raises(InputError, match="address"):
        Server(url)


def test_closing_ends_a_request_that_waits(served):
    server = opened(served, Patience(attempts=1))
    served.faults = [slowly(3.0)]
    errors: list[BaseException] = []

    def ask() -> None:
        try:
            server.complete(PROMPT, 1)
        except MachineError as error:
            errors.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    while not served.bodies:
        time.sleep(0.01)
    server.close()
    thread.join(timeout=2.0)
    assert not thread.is_alive()
    assert len(errors) == 1
