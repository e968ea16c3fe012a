"""What looks and plans starts without torch and transformers: in a process of its own, by what is in `sys.modules`."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ropewalk.cli import make_parser, verbs

PROBE = """
import json, sys
from ropewalk.cli import main
try:
    code = main(sys.argv[1:])
except SystemExit as stop:
    code = stop.code or 0
print(json.dumps({"code": code, "modules": sorted(name for name in sys.modules if "." not in name)}), file=sys.stderr)
"""
LISTS = f"longrope:short_factor={'|'.join('1' * 8)},long_factor={'|'.join('4' * 8)}"
HEAVY = {"torch", "transformers", "tokenizers", "safetensors", "matplotlib", "gguf", "huggingface_hub"}


def loaded(*arguments: str, folder: Path) -> tuple[str, set[str]]:
    """stdout of a command, and which heavy packages it imported."""
    done = subprocess.run(
        [sys.executable, "-c", PROBE, *arguments], cwd=folder, capture_output=True, text=True, check=True, timeout=60,
        env={**os.environ, "COLUMNS": "120"},
    )  # fmt: skip
    said = json.loads(done.stderr.splitlines()[-1])
    assert said["code"] == 0, done.stderr
    return done.stdout, HEAVY & set(said["modules"])


def test_the_probe_sees_what_is_imported(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", "import torch\n" + PROBE, "--version"],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=tmp_path,
    )
    assert "torch" in json.loads(done.stderr.splitlines()[-1])["modules"]


@pytest.mark.parametrize("verb", ["", *verbs(make_parser())])
def test_help_imports_nothing_heavy(verb: str, tmp_path: Path) -> None:
    out, heavy = loaded(*([verb] if verb else []), "--help", folder=tmp_path)
    assert out.startswith(f"usage: ropewalk {verb}".rstrip())
    assert heavy == set()


@pytest.mark.parametrize(
    "arguments",
    [
        ["methods"],
        ["methods", "--json"],
        ["methods", "yarn"],
        ["inspect", "tiny"],
        ["inspect", "tiny", "--json"],
        ["extend", "tiny", "--method", "yarn", "--length", "256", "--dry-run"],
        ["extend", "tiny", "--method", "yarn", "--length", "256", "--out", "out"],
        ["extend", "tiny", "--method", LISTS, "--length", "256", "--out", "out"],
    ],
    ids=" ".join,
)  # fmt: skip
def test_looking_and_planning_import_nothing_heavy(arguments: list[str], tmp_path: Path, tiny_checkpoint: Path) -> None:
    (tmp_path / "tiny").symlink_to(tiny_checkpoint)
    out, heavy = loaded(*arguments, folder=tmp_path)
    assert out
    assert heavy == set()


def test_inspect_of_a_gguf_file_imports_nothing_heavy(tmp_path: Path) -> None:
    from hosts.gguf_files import tiny, write_gguf

    write_gguf(tiny("llama"), tmp_path / "model.gguf", "llama", tokenizer=True)
    out, heavy = loaded("inspect", "model.gguf", folder=tmp_path)
    assert out.startswith("llama: 2 layers")
    assert heavy <= {"gguf"}


def test_importing_the_package_imports_nothing_heavy(tmp_path: Path) -> None:
    code = "import sys, ropewalk; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60, cwd=tmp_path)
    assert HEAVY & set(done.stdout.split()) == set()
