"""Generated pages are current, links lead somewhere, and one idea has one word."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[1]
GENERATOR = ROOT / "tools" / "generate_docs.py"
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "benchmarks").glob("*.md")])
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate_docs", GENERATOR)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", sorted(f"docs/{page}.md" for page in ("methods", "tasks", "papers", "cli", "combinations")))
def test_a_generated_page_is_current(name: str) -> None:
    made = generator().PAGES[name]()
    assert (ROOT / name).read_text(encoding="utf-8") == made, f"run {sys.executable} tools/generate_docs.py"


def test_the_check_finds_a_page_that_is_not_current(tmp_path: Path) -> None:
    (tmp_path / "tools").mkdir()
    (tmp_path / "docs").mkdir()
    (tmp_path / "tools" / "generate_docs.py").write_text(GENERATOR.read_text())
    command = [sys.executable, str(tmp_path / "tools" / "generate_docs.py")]
    stale = subprocess.run([*command, "--check"], capture_output=True, text=True, timeout=60)
    assert (stale.returncode, stale.stdout.count("is not current")) == (1, len(generator().PAGES))
    assert subprocess.run(command, capture_output=True, timeout=60).returncode == 0
    assert subprocess.run([*command, "--check"], capture_output=True, timeout=60).returncode == 0


def test_a_paper_without_a_title_stops_the_generator(monkeypatch: pytest.MonkeyPatch) -> None:
    module = generator()
    monkeypatch.delitem(module.TITLES, "2309.00071")
    with pytest.raises(SystemExit, match=r"no title for 2309\.00071"):
        module.papers_page()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_inside_the_repository_lead_somewhere(page: Path) -> None:
    targets = [target.partition("#")[0] for target in LINK.findall(page.read_text(encoding="utf-8"))]
    missing = [t for t in targets if t and "://" not in t and not (page.parent / t).exists()]
    assert missing == []


def test_the_glossary_defines_each_word_once_and_in_order() -> None:
    words = re.findall(r"^\*\*(.+?)\*\*", (ROOT / "docs" / "glossary.md").read_text(), flags=re.MULTILINE)
    assert len(words) > 30
    assert len(set(words)) == len(words)
    assert words == sorted(words, key=str.lower)


def test_every_dependency_has_its_reason() -> None:
    import tomllib

    reasons = (ROOT / "docs" / "design" / "dependencies.md").read_text()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wanted = [
        *project["project"]["dependencies"],
        *project["dependency-groups"]["dev"],
        *project["build-system"]["requires"],
    ]
    for extra in project["project"]["optional-dependencies"].values():
        wanted += [name for name in extra if not name.startswith("ropewalk")]
    names = {re.split(r"[^A-Za-z0-9_-]", requirement)[0] for requirement in wanted}
    assert names
    assert [name for name in sorted(names) if f"| `{name}` |" not in reasons] == []


def test_the_method_of_the_contributing_page_works(tmp_path: Path, tiny_checkpoint: Path) -> None:
    import ropewalk
    from ropewalk.core.method import Method, describe

    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "CONTRIBUTING.md").read_text(), flags=re.DOTALL)
    path = tmp_path / "halved.py"
    path.write_text(code)
    spec = importlib.util.spec_from_file_location("halved", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["halved"] = module
    try:
        spec.loader.exec_module(module)
        method = module.Halved()
        assert isinstance(method, Method)
        plan = ropewalk.plan(tiny_checkpoint, method, length=128)
        assert plan.difference(ropewalk.plan(tiny_checkpoint, "pi", length=128)) == 0.0
        assert describe(module.Halved)["options"][0]["help"] == "What every frequency is multiplied with."
    finally:
        del sys.modules["halved"]


def test_the_tree_in_the_readme_is_current() -> None:
    command = [sys.executable, str(ROOT / "tools" / "generate_tree.py"), "--check"]
    assert subprocess.run(command, check=False).returncode == 0, "run python tools/generate_tree.py"
