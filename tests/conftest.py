"""What every test has: no network, no progress bars, fresh memory full of NaN, and one tiny checkpoint with a text.

The checkpoint is a random Llama of 20,000 weights with a byte-level tokenizer, trained (it says) to 64 tokens, saved the
way people save theirs. It reads nothing well; what is tested with it is the way from an input to a record.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from command import Command, Result
from tiny import TEXT_TOKENS, write_tiny_checkpoint

pytest_plugins = ("required_engines",)
# Read when huggingface_hub and transformers are imported, so before any test imports them.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"


@pytest.fixture(autouse=True, scope="session")
def fresh_memory_is_nan() -> Iterator[None]:
    """Memory that was never written reads as NaN, so that using it shows; operations without a fixed order warn."""
    import torch

    torch.set_num_threads(1)
    before = torch.utils.deterministic.fill_uninitialized_memory
    torch.utils.deterministic.fill_uninitialized_memory = True
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)
    torch.utils.deterministic.fill_uninitialized_memory = before


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint folder that says it was trained to 64 tokens. Shared: never written to."""
    return write_tiny_checkpoint(tmp_path_factory.mktemp("source") / "tiny-llama")


@pytest.fixture(scope="session")
def long_text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40,000 characters of ASCII, which are as many tokens of the tiny tokenizer, in sentences that never repeat whole."""
    path = tmp_path_factory.mktemp("texts") / "long.txt"
    lines, size = [], 0
    while size < TEXT_TOKENS:
        number = len(lines)
        lines.append(f"Keeper {number} of the light wrote down {number * 7919 % 1009} ships and {number % 13} gulls.\n")
        size += len(lines[-1])
    path.write_text("".join(lines)[:TEXT_TOKENS], encoding="ascii")
    return path


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Command:
    """Runs one command line in this process, as a shell would see it."""
    from ropewalk.cli import main

    def run(*arguments: object) -> Result:
        capsys.readouterr()
        try:
            code = main([str(argument) for argument in arguments])
        except SystemExit as stop:
            code = int(stop.code or 0)
        captured = capsys.readouterr()
        return Result(code, captured.out, captured.err)

    return run
