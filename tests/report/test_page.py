"""The page: whole without a network, whole with holes in the record, and safe whatever things are called."""

import re
import subprocess
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest
from example_run import METHODS, Example, make_card, make_example, make_tasks_run

from ropewalk.core.errors import InputError, MachineError, SourceError
from ropewalk.core.run import Run
from ropewalk.report import page, write_report
from ropewalk.report.page import PLOTS, TASKS

Make = Callable[..., Path]
SECTIONS = {"verdict", "headline", *(plot.name for plot in PLOTS), "run", "cost", "protocols", "findings"}


class Reader(HTMLParser):
    """Tags, addresses and text of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.addresses: list[str] = []
        self.alts: list[str] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attrs:
            assert not name.startswith("on"), f"{tag} has a handler {name}"
            if name in ("src", "srcset", "href", "action", "data"):
                self.addresses.append(value or "")
            if name == "id":
                self.ids.append(value or "")
            if name == "aria-label" and tag == "svg":
                self.alts.append(value or "")

    def handle_data(self, data: str) -> None:
        self.text += data


def read(path: Path) -> Reader:
    return Reader(path.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a run with likelihood and tasks, for tests that only read it."""
    return write_report(make_tasks_run(tmp_path_factory.mktemp("finished") / "run", documents=1, methods=METHODS))


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures are left out, for tests of the words around them: drawing takes nearly all of the time."""
    monkeypatch.setattr(page, "pictures", lambda plot, facts: (b"\x89PNG", b'<svg viewBox="0 0 1 1"/>'))


def test_the_page_is_one_file_that_needs_no_network(finished: Path) -> None:
    path, found = finished, read(finished)
    assert path.name == "report.html"
    assert found.addresses
    assert all(address.startswith(("#", "data:image/png;base64,")) for address in found.addresses)
    assert not {"script", "link", "foreignobject"} & set(found.tags)
    assert not re.search(r"https?://|url\((?!#)|@import", path.read_text(encoding="utf-8"))


def test_what_pictures_refer_to_is_in_the_page_once(finished: Path) -> None:
    found = read(finished)
    assert len(set(found.ids)) == len(found.ids)
    meant = {address[1:] for address in found.addresses if address.startswith("#")}
    clips = set(re.findall(r"url\(#([^)]*)\)", finished.read_text(encoding="utf-8")))
    assert meant
    assert clips
    assert meant | clips <= set(found.ids)


def test_a_page_of_five_tasks_stays_small(finished: Path) -> None:
    assert finished.stat().st_size < 800_000


def test_all_sections_and_pictures_are_there(finished: Path) -> None:
    folder, found = finished.parent, read(finished)
    assert set(found.ids) >= SECTIONS
    for plot in PLOTS:
        assert (folder / f"{plot.name}.png").read_bytes().startswith(b"\x89PNG")
    assert len(found.alts) == len(PLOTS)
    assert all(len(alt) > 40 for alt in found.alts)
    assert "Not shown" not in found.text
    assert not list(folder.glob(".*.part"))


def test_equal_records_give_equal_pages(finished: Path) -> None:
    first = finished.read_bytes()
    assert write_report(finished.parent).read_bytes() == first


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("status", ["running", "interrupted", "failed"])
def test_an_unfinished_run_says_so_first_and_shows_what_is_there(example: Make, status: str) -> None:
    found = read(write_report(example(until=3, status=status)))
    banner = {"running": "this run is still running", "interrupted": "was interrupted", "failed": "this run failed"}[status]
    assert banner in found.text
    assert found.text.index("Unfinished") < found.text.index("Verdict")
    assert "3 of 5 method-and-document cells" in found.text
    assert ("--resume" in found.text) == (status != "running")
    assert found.text.count("Not shown") == 7


def test_pictures_of_an_unfinished_run_are_drawn_from_what_is_there(example: Make) -> None:
    folder = example(until=3, status="running")
    found = read(write_report(folder))
    assert (folder / "nll.png").is_file()
    assert (folder / "spectrum.png").is_file()
    assert found.tags.count("svg") == 2


def test_a_run_that_has_only_begun_has_a_page(example: Make) -> None:
    folder = example(until=0, status="running")
    found = read(write_report(folder))
    assert "0 of 5" in found.text
    assert set(found.ids) >= SECTIONS
    assert not (folder / "nll.png").exists()


@pytest.mark.usefixtures("undrawn")
def test_methods_of_an_unfinished_run_are_averaged_over_the_documents_all_have_read(example: Make) -> None:
    found = read(write_report(example(documents=2, until=7, status="interrupted")))
    assert "over 1 document" in found.text


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("missing", ["likelihood", "gains", "prices", "control", "retrieval"])
def test_rows_that_are_optional_may_be_missing(example: Make, missing: str) -> None:
    parts = [part for part in ("likelihood", "gains", "prices", "control", "retrieval") if part != missing]
    found = read(write_report(example(parts=parts)))
    said = {
        "likelihood": "no perplexity has been written yet",
        "gains": "net gain needs a run of crop",
        "prices": "no method has been compared with the untouched model",
        "control": "No control was run",
        "retrieval": "retrieval was not measured",
    }
    assert said[missing] in found.text


@pytest.mark.usefixtures("undrawn")
def test_a_picture_that_cannot_be_drawn_any_more_goes_away(example: Make, tmp_path: Path) -> None:
    folder = example()
    write_report(folder)
    (folder / "measurements.jsonl").unlink()
    write_report(folder)
    assert not (folder / "net-gain.png").exists()
    assert (folder / "nll.png").exists()


@pytest.mark.parametrize(
    "methods", [("none",), ("yarn",), ("none", "crop"), ("none", "crop", "dynamic:ntk"), ("none", "yarn")]
)
def test_any_choice_of_methods_has_a_page(example: Make, methods: tuple[str, ...]) -> None:
    parts = ["likelihood"] + (["gains"] if "crop" in methods else [])
    assert read(write_report(example(methods=methods, parts=parts))).ids


@pytest.mark.usefixtures("undrawn")
def test_one_document_says_within_document_and_six_say_documents(tmp_path: Path) -> None:
    one = read(write_report(make_example(tmp_path / "one", documents=1))).text
    six = read(write_report(make_example(tmp_path / "six", documents=6))).text
    assert "within-document, 8 blocks" in one
    assert "within-document" not in six
    assert "(6 documents)" in six


def test_a_text_that_ends_inside_the_trained_length_has_a_page(example: Make) -> None:
    folder = example(methods=("none",), trained=4096, length=1024, parts=[])
    assert "nothing beyond them was read" in read(write_report(folder)).text


HOSTILE = '<script>alert("x")</script>&amp;"\'><img src=x onerror=alert(1)> $x^{2$ \x07 漢字 \N{PILE OF POO}'


def test_names_cannot_break_out_of_the_page(example: Make) -> None:
    folder = example(
        methods=("none", "crop", "yarn:" + HOSTILE),
        documents=[HOSTILE],
        model=HOSTILE,
        quantisation=HOSTILE,
        source={"name": HOSTILE, "path": HOSTILE},
        config={HOSTILE: HOSTILE},
        versions={HOSTILE: HOSTILE},
        hardware={"processor": HOSTILE},
        findings=[{"field": HOSTILE, "severity": "note", "problem": HOSTILE, "mend": HOSTILE}],
        parts=["likelihood", "gains", "prices", "control"],
    )
    found = read(write_report(folder))
    assert "script" not in found.tags
    assert "img" not in found.tags
    assert found.tags.count("svg") == len(PLOTS) - len(TASKS)
    assert '<script>alert("x")</script>' in found.text
    assert "漢字" in found.text


@pytest.mark.usefixtures("undrawn")
def test_a_document_name_that_no_encoding_can_write_is_shown_with_a_mark(example: Make) -> None:
    assert "text?" in read(write_report(example(documents=["text\udcff"]))).text


@pytest.mark.usefixtures("undrawn")
def test_rows_without_a_number_are_listed_with_their_reason(example: Make) -> None:
    folder = example(parts=["likelihood"])
    card = make_card(METHODS, 512, 1024, ["document 1"])
    rows = Example(folder.parent / "other", card, trained=512, length=1024, window=32)
    rows.run = Run(folder, card)
    where = {"position_low": 512, "position_high": 1024, "reference": "crop", "note": "the window was never read"}
    rows.row("net_gain", "crop-window", "yarn", None, **where)
    rows.write()
    text = read(write_report(folder)).text
    assert "Net gain over cropping could not be measured: the window was never read." in text
    assert "no number" in text


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="is not a run folder"):
        write_report(tmp_path)


def test_a_card_without_a_trained_length_is_refused_before_anything_is_written(example: Make) -> None:
    folder = example(geometry={})
    with pytest.raises(SourceError, match=r"geometry\.trained_length None, expected a number of tokens"):
        write_report(folder)
    assert not list(folder.glob("*.png"))


def test_without_matplotlib_one_sentence_says_what_to_install(example: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = example()
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(InputError, match=r"draws with matplotlib.*run pip install '\.\[report\]' in a checkout"):
        write_report(folder)
    assert not (folder / "report.html").exists()


@pytest.mark.usefixtures("undrawn")
def test_a_full_disk_is_told_and_the_old_page_stays(example: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = example(parts=[])
    before = write_report(folder).read_bytes()

    def full(self: Path, content: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(page.Path, "write_bytes", full)
    with pytest.raises(MachineError, match="the disk is full while writing"):
        write_report(folder)
    assert (folder / "report.html").read_bytes() == before


def test_drawing_leaves_the_users_matplotlib_alone(example: Make) -> None:
    import matplotlib

    with matplotlib.rc_context({"font.size": 31.0}):
        before = dict(matplotlib.rcParams)
        write_report(example(parts=[]))
        assert dict(matplotlib.rcParams) == before


def test_importing_the_report_imports_neither_torch_nor_matplotlib() -> None:
    code = "import sys, ropewalk.report; print([m for m in ('torch', 'transformers', 'matplotlib') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_making_a_report_imports_no_torch_and_no_global_figures(example: Make) -> None:
    code = (
        "import sys; from ropewalk.report import write_report; write_report(sys.argv[1]); "
        "print([m for m in ('torch', 'matplotlib.pyplot') if m in sys.modules])"
    )
    run = [sys.executable, "-c", code, str(example(parts=["retrieval"]))]
    done = subprocess.run(run, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
