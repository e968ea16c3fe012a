"""Real servers on loopback, each in its engine's own environment, ended with everything they started."""

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

from ropewalk.hosts.executed import python_of
from ropewalk.hosts.executed.child import bare_environment

WATCHED = """
import os, signal, sys, threading, time

def leave_with(parent):
    while os.getppid() == parent:
        time.sleep(1.0)
    os.killpg(0, signal.SIGKILL)

threading.Thread(target=leave_with, args=(os.getppid(),), daemon=True).start()
"""
"""A killed test must not leave a server behind."""
VLLM = """
import runpy
sys.argv[0] = "api_server"
runpy.run_module("vllm.entrypoints.openai.api_server", run_name="__main__")
"""
LLAMA = """
import xllamacpp
made = xllamacpp.CommonParams()
made.model.path, made.port, made.n_ctx, made.n_parallel = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), 1
made.hostnames = ["127.0.0.1"]
made.n_gpu_layers, made.cache_ram_mib = 0, 0
made.cache_type_k = made.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
made.cpuparams.n_threads = made.cpuparams_batch.n_threads = 1
made.warmup = made.fit_params = made.ctx_shift = False
made.offline = True
server = xllamacpp.Server(made)
time.sleep(600)
"""
"""llama.cpp's server as `xllamacpp` has it, for at most ten minutes."""


@contextmanager
def vllm_server(folder: Path, length: int, log: Path) -> Iterator[str]:
    """vLLM on a folder, in float32 and in one process."""
    flags = ["--dtype", "float32", "--max-model-len", str(length), "--enforce-eager", "--enable-prefix-caching"]
    program = ["-c", WATCHED + VLLM, "--model", str(folder), "--host", "127.0.0.1"]
    with _running("vllm", [*program, *flags, "--port"], [], log) as url:
        yield url


@contextmanager
def llamacpp_server(file: Path, length: int, log: Path) -> Iterator[str]:
    """llama.cpp on a GGUF file."""
    with _running("llama.cpp", ["-c", WATCHED + LLAMA, str(file)], [str(length)], log) as url:
        yield url


@contextmanager
def _running(engine: str, before: Sequence[str], after: Sequence[str], log: Path) -> Iterator[str]:
    """A process whose arguments are `before`, a free port and `after`, once it lists its models."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = bare_environment(1) | {"VLLM_CPU_KVCACHE_SPACE": "1"}
    command = [str(python_of(engine)), "-E", "-s", *before, str(port), *after]
    with log.open("w") as words:
        child = subprocess.Popen(command, stdout=words, stderr=words, env=environment, start_new_session=True)
    try:
        _wait(f"http://127.0.0.1:{port}", child, log)
        yield f"http://127.0.0.1:{port}"
    finally:
        # The group is the child's own: it was made for it.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()


def _wait(url: str, child: subprocess.Popen[bytes], log: Path, seconds: float = 240.0) -> None:
    """Until the server answers. Raises `RuntimeError` with its last words where it ends first."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if child.poll() is not None:
            raise RuntimeError(f"the server ended: {log.read_text(errors='replace')[-2000:]}")
        with contextlib.suppress(HTTPError, OSError), urlopen(f"{url}/v1/models", timeout=5) as answer:
            answer.read()
            return
        time.sleep(0.3)
    raise RuntimeError(f"no answer within {seconds:.0f} s: {log.read_text(errors='replace')[-2000:]}")
