"""A result goes to the hub where that was asked for, and nothing else of the run does. The hub is a server of this test."""

import base64
import json
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from huggingface_hub import close_session, constants
from small import Tune
from tiny import write_tiny_checkpoint
from transformers import TrainerCallback

import ropewalk
from ropewalk.core.errors import InputError, MachineError
from ropewalk.core.progress import Progress
from ropewalk.data.reading.hub import open_dataset
from ropewalk.hosts.folder import base_of, open_checkpoint


class Hub:
    """What the hub's API answers, and what it was told."""

    def __init__(self) -> None:
        self.status = 200
        self.made: list[dict[str, Any]] = []
        self.files: dict[str, bytes] = {}
        self.tokens: set[str | None] = set()

    def answer(self, path: str, body: bytes) -> dict[str, Any]:
        if path == "/api/repos/create":
            self.made.append(json.loads(body))
            return {"url": "http://127.0.0.1/me/model", "id": "me/model"}
        if path == "/api/validate-yaml":
            return {"errors": [], "warnings": []}
        if "/preupload/" in path:
            files = json.loads(body)["files"]
            return {"files": [{"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in files]}
        assert "/commit/" in path, path
        for line in body.decode().splitlines():
            told = json.loads(line)
            if told["key"] == "file":
                self.files[told["value"]["path"]] = base64.b64decode(told["value"]["content"])
        return {"commitUrl": "http://127.0.0.1/me/model/commit/1", "commitOid": "1" * 40, "pullRequestUrl": None}


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    told = Hub()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            told.tokens.add(self.headers.get("authorization"))
            if "chunked" in self.headers.get("transfer-encoding", ""):
                body = b"".join(iter(self.chunk, b""))
            else:
                body = self.rfile.read(int(self.headers.get("content-length", 0)))
            content = json.dumps(told.answer(self.path, body) if told.status == 200 else {"error": "no"}).encode()
            self.send_response(told.status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def chunk(self) -> bytes:
            size = int(self.rfile.readline(), 16)
            content = self.rfile.read(size)
            self.rfile.readline()
            return content

        def do_GET(self) -> None:
            self.send_error(404)

        def log_message(self, *_: Any) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setattr("huggingface_hub.hf_api.ENDPOINT", constants.ENDPOINT, raising=False)
    close_session()
    yield told
    close_session()
    server.shutdown()
    thread.join()
    server.server_close()


ASKED = {"push_to_hub": True, "hub_model_id": "me/model", "hub_token": "hf_secret", "hub_private_repo": True}


def test_the_result_is_pushed_at_the_end_and_no_token_is_kept(hub: Hub, tune: Tune, tmp_path: Path) -> None:
    out = tmp_path / "out"
    tune(out, steps=1, arguments=ASKED)
    assert hub.made[0]["name"] == "model"
    assert (hub.made[0].get("visibility") or hub.made[0].get("private")) in ("private", True)
    assert hub.tokens == {"Bearer hf_secret"}
    assert set(hub.files) == {path.name for path in out.iterdir() if path.is_file()} - {"card.json", "log.jsonl"}
    assert hub.files["model.safetensors"] == (out / "model.safetensors").read_bytes()
    assert "hf_secret" not in "".join(path.read_text() for path in out.glob("*.json*"))


def test_a_hub_that_is_not_reached_costs_nothing(
    hub: Hub, tune: Tune, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ropewalk.tune.hub import Upload

    out, push = tmp_path / "out", Upload.push

    def failing(upload: Upload, folder: Path, start: Path) -> None:
        hub.status = 500
        push(upload, folder, start)

    waits: list[float] = []
    with monkeypatch.context() as patch:
        patch.setattr(Upload, "push", failing)
        # The client asks again after 1, 2, 4, 8 and 8 seconds; all of its requests are made here, and none is waited for.
        patch.setattr("huggingface_hub.utils._http.time", SimpleNamespace(**{**vars(time), "sleep": waits.append}))
        with pytest.raises(MachineError, match=r"status 500.*--resume"):
            tune(out, steps=2, arguments=ASKED)
    assert len(waits) > 1
    hub.status = 200
    written = (out / "model.safetensors").read_bytes()
    assert not hub.files
    assert tune(out, steps=2, arguments=ASKED, resume=True).status == "done"
    assert hub.files["model.safetensors"] == written
    assert len((out / "log.jsonl").read_text().splitlines()) == 2


def test_a_hub_where_nobody_listens_is_told_and_costs_nothing(
    hub: Hub, tune: Tune, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client's own errors of a connection are of no class of Python's."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        nobody = f"http://127.0.0.1:{free.getsockname()[1]}"
    monkeypatch.setattr(constants, "ENDPOINT", nobody)
    monkeypatch.setattr("huggingface_hub.hf_api.ENDPOINT", nobody, raising=False)
    monkeypatch.setattr("huggingface_hub.utils._http.time", SimpleNamespace(**{**vars(time), "sleep": lambda _: None}))
    with pytest.raises(MachineError, match=r"the hub was not reached for me/model .*--resume"):
        tune(tmp_path / "out", steps=1, arguments=ASKED)
    with pytest.raises(MachineError, match="cannot be asked for owner/set"):
        open_dataset("owner/set")


class Leaving(TrainerCallback):
    """Somebody puts files into the folder while the run goes on."""

    def __init__(self, out: Path) -> None:
        self.out = out

    def on_train_end(self, *_: Any, **__: Any) -> None:
        for name in ("measured/samples.jsonl", "measured/config.json", "base/notes.json", "secrets.json", "old.safetensors"):
            (self.out / name).parent.mkdir(exist_ok=True)
            (self.out / name).write_text("private")


@pytest.mark.parametrize("recipe", ["full", "longlora"])
def test_what_somebody_put_beside_the_model_stays_here(
    recipe: str, hub: Hub, hub_id: str, tune: Tune, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    tune(out, start=hub_id, recipe=recipe, steps=1, arguments=ASKED, callbacks=[Leaving(out)])
    assert (out / "measured" / "samples.jsonl").is_file()
    assert b"private" not in hub.files.values()
    weights = {"full": {"model.safetensors", "config.json"}, "longlora": {"adapter_model.safetensors", "base/config.json"}}
    assert weights[recipe] < set(hub.files)
    assert any(name.endswith("tokenizer.json") for name in hub.files)


@pytest.mark.parametrize("recipe", ["full", "longlora"])
def test_a_finished_run_is_uploaded_as_a_fresh_one_is(
    recipe: str, hub: Hub, hub_id: str, tune: Tune, tmp_path: Path
) -> None:
    """An upload is no part of a run's question, so it may be asked for when the run is done and its states are gone."""
    fresh, out = tmp_path / "fresh", tmp_path / "out"
    tune(fresh, start=hub_id, recipe=recipe, steps=1, arguments=ASKED)
    first, hub.files = dict(hub.files), {}
    tune(out, start=hub_id, recipe=recipe, steps=1)
    (out / "notes.json").write_text("private")
    assert not hub.files
    words = StringIO()
    card = tune(out, start=hub_id, recipe=recipe, steps=1, arguments=ASKED, resume=True, progress=Progress(words))
    assert card.status == "done"
    assert len(hub.made) == 2
    assert hub.files == first
    assert "is finished, and nothing trains" in words.getvalue()
    assert not (out / "state").exists()


def test_a_finished_chain_uploads_its_last_result_alone(hub: Hub, tune: Tune, tmp_path: Path) -> None:
    runs = [{"steps": 1}, {"steps": 1, "method": None}]
    tune(tmp_path / "out", runs=runs)
    # The folders below may go when the chain is done.
    shutil.rmtree(tmp_path / "out" / "chain" / "1")
    tune(tmp_path / "out", runs=runs, arguments=ASKED, resume=True)
    assert len(hub.made) == 1
    assert hub.files["model.safetensors"] == (tmp_path / "out" / "model.safetensors").read_bytes()
    assert {"config.json", "tokenizer.json", "tokenizer_config.json"} < set(hub.files)


def test_a_hub_that_refuses_says_so_before_the_training(hub: Hub, tune: Tune, tmp_path: Path) -> None:
    hub.status = 403
    with pytest.raises(InputError, match=r"me/model \(status 403\)"):
        tune(tmp_path / "out", arguments=ASKED)
    assert (tmp_path / "out" / "log.jsonl").exists() is False


@pytest.mark.parametrize(
    ("changes", "words"), [({"hub_model_id": None}, "give hub_model_id"), ({"hub_token": None}, "needs a token")]
)
def test_what_an_upload_lacks_is_said_before_a_folder_is_made(
    changes: dict[str, Any], words: str, hub: Hub, tune: Tune, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    with pytest.raises(InputError, match=words):
        tune(tmp_path / "out", arguments={**ASKED, **changes})
    assert not (tmp_path / "out").exists()


def test_no_upload_where_the_user_stays_offline(tune: Tune, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="HF_HUB_OFFLINE"):
        tune(tmp_path / "out", arguments=ASKED)


def test_nothing_is_pushed_unless_asked(hub: Hub, tune: Tune, tmp_path: Path) -> None:
    tune(tmp_path / "out", steps=1)
    assert not hub.made
    assert not hub.files


@pytest.fixture
def hub_id(tied: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The tiny model under a name of the hub, in a folder as its cache makes them."""
    snapshots = tmp_path / "cache" / "snapshots"
    shutil.copytree(tied, snapshots / ("a" * 40))

    def fetch(name: str, *, weights: bool, revision: str | None) -> Path:
        newest = max(snapshots.iterdir()).name
        return snapshots / (revision or newest)

    monkeypatch.setattr("ropewalk.hosts.folder.hub.fetch", fetch)
    return "org/base"


def test_an_adapter_is_pushed_without_its_base_and_loads_elsewhere(
    hub: Hub, hub_id: str, tune: Tune, tied: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    tune(out, start=hub_id, recipe="longlora", steps=2, save_every=1, arguments=ASKED)
    assert "adapter_model.safetensors" in hub.files
    assert "base/config.json" in hub.files
    assert "README.md" in hub.files
    assert not [name for name in hub.files if name.startswith("base/") and "safetensors" in name]
    text = b"".join(content for name, content in hub.files.items() if not name.endswith(".safetensors"))
    assert str(tmp_path).encode() not in text
    named = json.loads(hub.files["adapter_config.json"])
    assert (named["base_model_name_or_path"], named["revision"]) == (hub_id, "a" * 40)
    fetched = tmp_path / "fetched"
    for name, content in hub.files.items():
        (fetched / name).parent.mkdir(parents=True, exist_ok=True)
        (fetched / name).write_bytes(content)
    shutil.rmtree(out)
    model, _ = ropewalk.load(fetched, device="cpu", dtype="float32")
    plan = ropewalk.plan(tied, "yarn", length=256)
    assert ropewalk.read_back(model).frequencies.difference(plan.frequencies) < 1e-6
    problems = [one.problem for one in ropewalk.verify(fetched).findings if one.severity == "error"]
    assert any("org/base" in problem for problem in problems)


def test_an_adapter_loads_after_its_base_has_moved_on_the_hub(hub: Hub, hub_id: str, tune: Tune, tmp_path: Path) -> None:
    out = tmp_path / "out"
    tune(out, start=hub_id, recipe="lora", steps=1)
    for weights in (out / "base").glob("*.safetensors"):
        weights.unlink()
    newer = tmp_path / "cache" / "snapshots" / ("b" * 40)
    parameters = {"rope_type": "default", "rope_theta": 50_000.0}
    write_tiny_checkpoint(newer, seed=1, tie_word_embeddings=True, rope_parameters=parameters)
    assert open_checkpoint(hub_id, weights=True).path == newer
    assert base_of(open_checkpoint(out)).path.name == "a" * 40
    ropewalk.load(out, device="cpu", dtype="float32")


def test_an_adapter_of_a_base_that_nobody_else_has_is_refused_before_a_folder_is_made(
    hub: Hub, tune: Tune, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="on this machine alone; say --merge"):
        tune(tmp_path / "out", recipe="lora", arguments=ASKED)
    assert not (tmp_path / "out").exists()
    assert not hub.made
    tune(tmp_path / "out", recipe="lora", steps=1, merge=True, arguments=ASKED)
    assert "model.safetensors" in hub.files
