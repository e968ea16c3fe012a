"""Writes the tree in README.md: every file of the package with the first sentence of its docstring.

    python tools/generate_tree.py [--check]

With `--check` nothing is written and the exit code is 1 where the README is stale.
"""

import argparse
import ast
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
BEGIN, END = "<!-- tree -->", "<!-- end of tree -->"
REST = """tests/                     mirrors the rooms; golden/ holds other implementations' numbers with their provenance
benchmarks/                numbers beside a named peer, with command, versions and hardware
examples/demo.py           what `make demo` runs
tools/                     writes the generated pages, sets up engines
docs/                      glossary, methods, papers, command line, families, and design/ with the reasons"""
WIDTH, PHRASE = 28, 95


def phrase(path: Path) -> str:
    """The first sentence of a module's docstring, on one line."""
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    first = " ".join(text.split("\n\n")[0].split())
    end = first.find(". ")
    first = (first if end < 0 else first[:end]).rstrip(".:")
    return first if len(first) <= PHRASE else first[: PHRASE - 3].rsplit(" ", 1)[0] + " ..."


def lines(folder: Path, depth: int) -> list[str]:
    """A folder's files and then its folders, each with its phrase."""
    rows = []
    for path in sorted(folder.glob("*.py")):
        if path.name != "__init__.py":
            rows.append(f"{'  ' * depth + path.name:<{WIDTH}}{phrase(path)}")
    for inner in sorted(p for p in folder.iterdir() if (p / "__init__.py").is_file()):
        rows.append(f"{'  ' * depth + inner.name + '/':<{WIDTH}}{phrase(inner / '__init__.py')}")
        rows += lines(inner, depth + 1)
    return rows


def tree() -> str:
    """The whole tree as a code block."""
    return "\n".join([BEGIN, "```", "ropewalk/", *lines(ROOT / "ropewalk", 1), REST, "```", END])


def main() -> int:
    """Writes or checks the README."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    args = parser.parse_args()
    readme = ROOT / "README.md"
    old = readme.read_text(encoding="utf-8")
    head, _, rest = old.partition(BEGIN)
    new = head + tree() + rest.partition(END)[2]
    if args.check:
        return int(new != old)
    readme.write_text(new, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
