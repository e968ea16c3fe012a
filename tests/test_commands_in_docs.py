"""Commands that the pages show are commands: all of them parse, and those of the pages on engines do what is shown.

A page's blocks of `sh` are read in order. What follows in a block of `text` is what was printed, trimmed at the end of a
line; every line of it must begin one that is printed now. The model of these tests has the positions of SmolLM2-135M and no
more: launch lines and verdicts hang on nothing else. Servers and `curl` are not started here.
"""

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

import pytest
from command import Command
from tiny import write_tiny_checkpoint

from ropewalk.cli import make_parser
from ropewalk.core.method import find
from ropewalk.core.plan import parse_length

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "benchmarks").glob("*.md")])
ENGINES = sorted(page for page in (ROOT / "docs" / "engines").glob("*.md") if page.name != "methods.md")
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", flags=re.DOTALL | re.MULTILINE)
INNER = re.compile(r"\$\((ropewalk [^)]*)\)")
WRITTEN = re.compile(r"`(ropewalk [a-z]+ [^`]*)`")
NAME = "SmolLM2-135M-Instruct"
ELSEWHERE = ("convert", "compare", "measure", "report")
"""Verbs that need more than positions: their commands are parsed, and run in tests of their own."""


def commands(text: str) -> list[str]:
    """The lines of a block that start with `ropewalk`, and those inside `$(...)`; continued lines are one."""
    lines = [line.strip() for line in text.replace("\\\n", " ").splitlines()]
    found: list[str] = []
    for line in lines:
        found += [line] if line.startswith("ropewalk ") else INNER.findall(line)
    return found


def shown(page: Path) -> list[str]:
    """Every command of a page, in blocks and in the running text; `...` in one stands for what the reader adds."""
    text = page.read_text(encoding="utf-8")
    in_blocks = [one for kind, body in BLOCK.findall(text) if kind == "sh" for one in commands(body)]
    in_text = WRITTEN.findall(BLOCK.sub("", text).replace("\n", " "))
    return in_blocks + [one for one in in_text if "..." not in one]


ALL = [pytest.param(one, id=f"{page.relative_to(ROOT)}: {one}") for page in PAGES for one in dict.fromkeys(shown(page))]


@pytest.mark.parametrize("line", ALL)
def test_a_command_of_the_pages_parses(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    _, *arguments = shlex.split(line, comments=True)
    partial = arguments[0] == "extend" and not {"--method", "--length"} & set(arguments)
    # In running text a command may leave out what the page has just said.
    arguments += ["--method", "yarn", "--length", "16k"] if partial else []
    try:
        args, rest = make_parser().parse_known_args(arguments)
    except SystemExit:
        pytest.fail(f"{line}: {capsys.readouterr().err}")
    assert rest == [], line
    if getattr(args, "length", None):
        assert parse_length(args.length) > 0
    if getattr(args, "method", None) and args.method not in ("METHOD", "M"):
        assert find(args.method)


def test_commands_are_found_where_they_stand() -> None:
    assert len(ALL) > 25
    assert commands('eval serve x \\\n  "$(ropewalk extend x --flags vllm)"') == ["ropewalk extend x --flags vllm"]
    assert commands("ropewalk inspect X  # what\ncurl x") == ["ropewalk inspect X  # what"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a checkpoint and a GGUF file of SmolLM2's positions, under the names that the pages use."""
    import sys

    sys.path.insert(0, str(ROOT / "tests" / "hosts"))
    try:
        from gguf_files import tiny, write_gguf
    finally:
        sys.path.pop(0)
    folder = tmp_path_factory.mktemp("pages")
    rope = {"rope_type": "default", "rope_theta": 100000.0}
    shape = {"num_attention_heads": 1, "num_key_value_heads": 1, "head_dim": 64, "max_position_embeddings": 8192}
    write_tiny_checkpoint(folder / NAME, rope_parameters=rope, **shape)
    model = tiny("llama", rope, **shape)
    write_gguf(model, folder / f"{NAME}.Q4_1.gguf", "llama", tokenizer=True)
    write_gguf(model, folder / "SmolLM2.gguf", "llama", tokenizer=True)
    return folder


@dataclass(frozen=True)
class Step:
    commands: list[str]
    printed: list[str]


def steps(page: Path) -> list[Step]:
    """Blocks of commands, each with what the page shows as printed by it."""
    found: list[Step] = []
    for kind, body in BLOCK.findall(page.read_text(encoding="utf-8")):
        if kind == "text" and found:
            found[-1].printed.extend(body.splitlines())
        else:
            # What Python prints is nobody's output here: its step has no command and is left out below.
            found.append(Step(commands(body) if kind == "sh" else [], []))
    return [step for step in found if step.commands]


@pytest.mark.parametrize("page", ENGINES, ids=lambda page: page.stem)
def test_a_page_on_an_engine_shows_what_is_printed(
    page: Path, place: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(place)
    for step in steps(page):
        said: list[str] = []
        for line in step.commands:
            _, *arguments = shlex.split(line, comments=True)
            if arguments[0] in ELSEWHERE:
                continue
            result = command(*arguments, *(["--force"] if "--out" in arguments else []))
            assert result.code == 0, (line, result.err)
            said += [*result.out.splitlines(), *result.err.splitlines()]
        missing = [one for one in step.printed if one != "..." and not any(line.startswith(one) for line in said)]
        assert missing == [], said


def test_the_pages_on_engines_are_linked_from_the_readme() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert [page.name for page in ENGINES if f"docs/engines/{page.name}" not in text] == []
    assert "docs/engines/methods.md" in text
