"""The miniature's path on toy sizes: corpus, rows, bases, cells, tables and page, offline and in seconds."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import ropewalk
from experiments.miniature import __main__ as command
from experiments.miniature import crossings, probe, reading, smollm2
from experiments.miniature.arms import TABLES, Claim, Line, tuned, watched
from experiments.miniature.cells import Arm, Cells, Reading
from experiments.miniature.corpus import Corpus, corpus
from experiments.miniature.figures import gain, verdict
from experiments.miniature.intervals import over_documents, over_seeds
from experiments.miniature.page import write
from experiments.miniature.published import PUBLISHED
from experiments.miniature.sizes import TOY, Sizes
from experiments.miniature.windows import Windows
from ropewalk.core.errors import InputError
from ropewalk.data.rows import Row

SHORT, LONG = TOY.lengths


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Cells:
    """A toy corpus of code, with nothing trained yet."""
    out = tmp_path_factory.mktemp("miniature") / "toy"
    out.mkdir()
    return Cells(out=out, sizes=TOY, corpus=corpus(out, TOY, out, ("code",)), watched=watched(TOY))


def test_splits_are_whole_documents_and_apart(made: Cells) -> None:
    found = made.corpus
    card = json.loads((made.out / "corpus" / "corpus.json").read_text())
    names = [set(card["train"]), set(found.held_out), set(found.validation)]
    assert [len(each) for each in names] == [
        TOY.most_documents - TOY.held_out - TOY.validation,
        TOY.held_out,
        TOY.validation,
    ]
    assert len(set.union(*names)) == TOY.most_documents
    assert found.ends[-1] == found.train.size
    assert all(ids.size >= TOY.longest for ids in (*found.held_out.values(), *found.validation.values()))


def test_the_corpus_is_read_back_as_it_was_made(made: Cells) -> None:
    again = corpus(made.out, TOY, made.out, ("code",))
    assert again.fingerprint == made.corpus.fingerprint
    assert np.array_equal(again.train, made.corpus.train)


def test_another_size_is_refused_in_a_folder_that_is_there(made: Cells) -> None:
    with pytest.raises(SystemExit, match="another tune_rate; give another --out"):
        Cells(out=made.out, sizes=replace(TOY, tune_rate=1e-3), corpus=made.corpus, watched=watched(TOY))


def spans(found: Corpus, rows: Windows, count: int) -> list[tuple[int, int]]:
    """Where in the training text the first rows lie."""
    out = []
    for index in range(count):
        ids = rows.row(index).ids.astype(found.train.dtype)
        places = [int(s) for s in rows.starts if np.array_equal(found.train[s : s + rows.window], ids)]
        out.append((places[0], places[0] + rows.window))
    return out


def test_rows_lie_inside_one_document_and_each_comes_once_an_epoch(made: Cells) -> None:
    rows = Windows(made.corpus, SHORT, seed=3)
    assert all(
        not np.any((made.corpus.ends > low) & (made.corpus.ends < high)) for low, high in spans(made.corpus, rows, 12)
    )
    starts = {Windows(made.corpus, SHORT, seed=3).row(index).ids.tobytes() for index in range(len(rows))}
    assert len(starts) >= len(rows) - 2
    first, again = rows.row(5), Windows(made.corpus, SHORT, seed=3).row(5)
    assert np.array_equal(first.ids, again.ids)
    assert not np.array_equal(first.ids, Windows(made.corpus, SHORT, seed=4).row(5).ids)
    assert not np.array_equal(first.ids, rows.row(5 + len(rows)).ids)


@pytest.mark.parametrize("positions", ["full", "pose"])
def test_rows_go_on_after_those_that_were_read(made: Cells, positions: str) -> None:
    whole = Windows(made.corpus, SHORT, seed=3, positions=positions, target_length=LONG)
    rest = Windows(made.corpus, SHORT, seed=3, positions=positions, target_length=LONG, first=4)
    for index in range(3):
        assert np.array_equal(rest.row(index).ids, whole.row(4 + index).ids)
        assert np.array_equal(rest.row(index).position_ids, whole.row(4 + index).position_ids)
    assert rest.fingerprint != whole.fingerprint


def test_skipped_positions_reach_the_length_on_the_same_text(made: Cells) -> None:
    plain = Windows(made.corpus, TOY.window, seed=0)
    skipped = Windows(made.corpus, TOY.window, seed=0, positions="pose", target_length=LONG)
    last = [int(skipped.row(index).position_ids[-1]) for index in range(40)]
    assert all(np.array_equal(plain.row(i).ids, skipped.row(i).ids) for i in range(5))
    assert max(last) > 3 * LONG // 4
    assert max(last) < LONG
    assert len(set(last)) > 20


def test_cropping_is_the_untouched_model_in_its_window(made: Cells) -> None:
    crop, plain = made.read(0, Reading(method="crop")), made.read(0, Reading(method="none"))
    assert crop is not None
    assert plain is not None
    assert np.allclose(crop[:, 1 : TOY.window], plain[:, 1 : TOY.window], atol=1e-5)
    assert np.isnan(crop[:, 0]).all()
    # The last tokens, read alone in the last window.
    model, _ = ropewalk.load(made.base(0), dtype="float32", device="cpu")
    name, ids = next(iter(made.corpus.held_out.items()))
    end = ids[: TOY.longest][-TOY.window :]
    alone = reading.as_loaded(model, {name: end}, replace(TOY, lengths=(TOY.window, TOY.window)))
    assert np.allclose(crop[0, -TOY.crop_stride :], alone[0, -TOY.crop_stride :], atol=1e-5)


def test_a_dynamic_plan_is_read_at_each_length_with_its_own_numbers(made: Cells) -> None:
    moving = made.read(0, Reading(method="dynamic:yarn", length=LONG))
    for length in (SHORT, LONG):
        still = made.read(0, Reading(method="yarn", length=length))
        assert moving is not None
        assert still is not None
        assert np.allclose(reading.octave(moving, length), reading.octave(still, length), atol=1e-5)
    plain = made.read(0, Reading(method="none"))
    assert plain is not None
    assert np.allclose(reading.inside(moving, TOY), reading.inside(plain, TOY), atol=1e-5)


def test_an_arm_carries_its_plan_and_a_transfer_departs_from_the_origin(made: Cells) -> None:
    # Of the table of steps, but for its length: one that is watched.
    first = tuned(TOY, "yarn", SHORT)
    second = Arm(method="yarn", length=LONG, window=SHORT, steps=2, parent=first)
    for arm in (first, second):
        model, _ = ropewalk.load(made.tuned(0, arm), dtype="float32", device="cpu")
        asked = ropewalk.plan(made.base(0), "yarn", length=arm.length).frequencies
        held = ropewalk.read_back(model).frequencies
        assert np.allclose(held.inv_freq, asked.inv_freq, rtol=1e-6)
        assert held.attention_factor == pytest.approx(asked.attention_factor)
    curve = made.validations(0, first)
    assert [step for step, _ in curve] == [0, TOY.validate_every, TOY.tune_steps]
    assert made.validations(0, second) == []
    # The last validation is the reading of what was written: in float32, whatever training multiplied in.
    held = made.read(0, Reading(arm=first), split="validation")
    assert held is not None
    assert curve[-1][1] == pytest.approx(float(reading.beyond(held, TOY, SHORT).mean()), abs=1e-5)


def test_a_childs_rows_are_none_of_its_parents(made: Cells, monkeypatch: pytest.MonkeyPatch) -> None:
    read: dict[str, list[bytes]] = {}
    first = Arm(method="yarn", length=SHORT, window=SHORT, steps=1)
    second = Arm(method="yarn", length=LONG, window=SHORT, steps=1, parent=first)
    whole = Arm(method="yarn", length=LONG, window=SHORT, steps=2)
    row = Windows.row

    def seen(self: Windows, index: int) -> Row:
        found = row(self, index)
        read[name].append(found.ids.tobytes())
        return found

    monkeypatch.setattr(Windows, "row", seen)
    for name, arm in (("first", first), ("second", second), ("whole", whole)):
        read[name] = []
        made.tuned(0, arm)
    assert len(set(read["second"])) == TOY.step_tokens // SHORT
    assert not set(read["first"]) & set(read["second"])
    # One that was tuned on as many steps in one go has read the same.
    assert set(read["whole"]) == set(read["first"]) | set(read["second"])


def test_a_child_with_other_rows_than_its_parents_is_refused() -> None:
    with pytest.raises(InputError, match="rows of 256 tokens after a parent's of 128"):
        Arm(method="yarn", length=LONG, window=LONG, steps=2, parent=Arm(method="pi", length=SHORT, window=SHORT, steps=2))


def test_only_trainings_whose_validations_are_used_are_validated() -> None:
    asked = watched(Sizes())
    assert {arm.method for arm in asked} == {"pi", "yarn"}
    assert len(asked) == 4
    assert [name for name, make in TABLES.items() if make(Sizes()).curves] == ["steps"]


def test_cells_are_made_once(made: Cells) -> None:
    made.read(0, Reading(method="none"))
    told = (made.out / "times.jsonl").read_text()
    made.read(0, Reading(method="none"))
    assert (made.out / "times.jsonl").read_text() == told
    assert replace(made, make=False).read(0, Reading(method="pi", length=LONG)) is None
    assert replace(made, only="yarn").read(0, Reading(method="pi", length=LONG)) is None


def test_the_two_texts_of_the_probe_differ_in_their_beginning_alone() -> None:
    ids, blank = np.arange(1000), np.asarray([-1])
    with_it, without = probe.texts(ids, 100, 128, blank)
    assert with_it.size == without.size == 128
    again = probe.CUE + probe.SCORED
    assert np.array_equal(with_it[-again:], without[-again:])
    assert np.array_equal(with_it[:again], with_it[-again:])
    assert not set(without[-again:]) & set(without[:-again])
    assert np.array_equal(with_it[again:], without[again:])
    with pytest.raises(InputError, match="a document has 200 tokens, and the probe at 128 needs 227"):
        probe.texts(np.arange(200), 100, 128, blank)


def test_the_probe_is_what_the_beginning_saves() -> None:
    found = np.zeros((2, len(probe.lengths(TOY)), 3), dtype=np.float32)
    found[:, -1, 0], found[:, -1, 1] = 2.0, [2.5, 3.0]
    assert probe.saved(found, TOY, LONG).tolist() == [0.5, 1.0]
    assert probe.saved(found, TOY, TOY.window).tolist() == [0.0, 0.0]


# --- arithmetic, on readings that are written by hand -----------------------------------------------------------------


def test_intervals_over_three_seeds_and_over_documents() -> None:
    found = over_seeds([1.0, 2.0, 3.0])
    assert found is not None
    # 4.303 standard errors of 1 / sqrt(3).
    assert (found.value, found.high - found.value) == (2.0, pytest.approx(4.303 / np.sqrt(3), abs=1e-3))
    one = over_seeds([1.0])
    assert one is not None
    assert str(one) == "1.000 (1 seed)"
    both = over_documents([np.asarray([1.0, 3.0]), np.asarray([3.0, 5.0])])
    assert both is not None
    assert (both.value, both.num_seeds) == (3.0, 2)
    assert over_seeds([]) is None


def test_steps_between_validations_by_a_straight_line() -> None:
    curve = [(0, 4.0), (10, 3.0), (20, 2.5)]
    assert crossings.steps_to(curve, 3.5) == 5.0
    assert crossings.steps_to(curve, 2.5) == 20.0
    assert crossings.steps_to(curve, 4.5) == 0.0
    assert crossings.steps_to(curve, 2.0) == float("inf")


def falling(start: float, noise: np.random.Generator | None = None, pace: float = 0.1) -> list[tuple[int, float]]:
    """A curve that is flat at its end."""
    drawn = noise.normal(0.0, 0.003, 20) if noise else np.zeros(20)
    return [(0, start), *((5 * k, 2.0 + (start - 2.0) * float(np.exp(-pace * 5 * k)) + drawn[k - 1]) for k in range(1, 21))]


def test_one_and_the_same_curve_needs_one_times_fewer_steps() -> None:
    same = falling(5.0)
    flat = [(0, 5.0), *((5 * k, max(2.0, 5.0 - 0.3 * k)) for k in range(1, 21))]
    for curve in (same, flat):
        for line in crossings.rows("256", [(curve, curve)] * 3, 512):
            untrained = "untrained" in line
            assert line.endswith("|  |" if untrained else "| 1.00 [1.00, 1.00] |")
            steps, again = line.split(" | ")[3:5]
            assert steps == again


def test_the_ratio_of_two_noisy_runs_of_one_method_is_one_in_the_mean() -> None:
    noise, found = np.random.default_rng(0), []
    for _ in range(400):
        slow, fast = falling(5.0, noise), falling(5.0, noise)
        level, _, last, *_ = crossings.targets((slow, fast))
        for target in (level, last):
            ratio = crossings.ratio([crossings.steps_to(slow, target)], [crossings.steps_to(fast, target)])
            found += [np.log(ratio.value)] if ratio else []
    assert len(found) > 700
    assert abs(np.mean(found)) < 0.03


def test_a_method_that_is_faster_or_below_before_training_or_never_there() -> None:
    slow = falling(5.0)
    fast = [(step // 2, nll) for step, nll in slow if step % 10 == 0]
    half = [(step, nll) for step, nll in slow if step % 10 == 0]
    assert crossings.rows("256", [(half, fast)], 512)[0].endswith("| 2.00 (1 seed) |")
    below = crossings.rows("256", [(slow, fast), (slow, falling(3.0)), (slow, falling(4.0))], 512)[0]
    assert below.endswith("| there before training in 1 of 3 seeds |  |")
    never = [(0, 5.0), (50, 4.5), (100, 4.4)]
    assert crossings.rows("256", [(slow, never)], 512)[0].endswith("| not within its steps in 1 of 1 seeds |  |")
    # Tokens are steps times a step's.
    steps, tokens = crossings.told([10.0, 20.0], 512).rsplit(", ", 1)
    assert steps.startswith("15.0 [")
    assert tokens == "7,680"


def put(cells: Cells, cell: Reading, levels: tuple[float, ...]) -> None:
    """Readings by hand: for each seed one NLL for every token of two documents, the second harder by 1."""
    for seed, level in enumerate(levels):
        path = cells.path(seed, cell)
        path.parent.mkdir(exist_ok=True)
        np.save(path, np.full((2, LONG), level, dtype=np.float32) + np.asarray([[0.0], [1.0]], dtype=np.float32))


def test_a_claim_is_judged_by_paired_differences_over_seeds(made: Cells, tmp_path: Path) -> None:
    cells = replace(made, out=tmp_path, make=False)
    low, high, mixed = (Reading(method=name, length=LONG) for name in ("yarn", "pi", "ntk"))
    put(cells, low, (1.0, 2.0, 3.0))
    put(cells, high, (1.5, 2.6, 3.4))
    put(cells, mixed, (0.5, 2.5, 3.1))
    seeds = (0, 1, 2)
    agrees = verdict(cells, seeds, Claim(says="", better=low, worse=high, length=LONG))
    # Levels differ by 2 between seeds, and the differences by 0.2 only: unpaired, this would be open.
    assert agrees[0] == "agrees"
    assert agrees[1].startswith("+0.500 [+0.25")
    assert verdict(cells, seeds, Claim(says="", better=high, worse=low, length=LONG))[0] == "disagrees"
    assert verdict(cells, seeds, Claim(says="", better=low, worse=mixed, length=LONG))[0].startswith("open")
    assert verdict(cells, (0,), Claim(says="", better=low, worse=high, length=LONG))[0] == "one seed, no interval"
    assert verdict(cells, seeds, Claim(says="", better=low, worse=Reading(method="crop"), length=LONG))[0] == "not run"
    line = Line(label="", cell=low, length=LONG, crop=high)
    found = gain(cells, seeds, line)
    assert found is not None
    assert found.value == pytest.approx(0.5, abs=1e-6)


def test_the_page_names_what_was_not_run_and_shows_what_was(made: Cells, tmp_path: Path) -> None:
    cells = replace(made, out=tmp_path, make=False)
    for source in (made.out / "corpus").rglob("*.json"):
        target = tmp_path / "corpus" / source.name
        target.parent.mkdir(exist_ok=True)
        target.write_bytes(source.read_bytes())
    for line in TABLES["dynamic"](TOY).lines:
        put(cells, line.cell, (2.0, 2.5, 3.0))
    write(cells, (0, 1, 2), tmp_path / "docs" / "page.md", tmp_path / "docs" / "images")
    text = (tmp_path / "docs" / "page.md").read_text()
    parts = {part.split("\n")[0]: part for part in text.split("\n## ")[1:]}
    assert "Not run. The papers" in parts["Transfer from s to 2s"]
    assert "Tables. Run: `dynamic`. Begun: `stretched`. Not run: `steps`, `train-short`," in text
    assert "| 2.500 [" not in parts["Transfer from s to 2s"]
    assert "| 256 | dynamic yarn | 3.000 [1.758, 4.242] |" in parts["Dynamic, without tuning"]
    assert "Not run" not in parts["Dynamic, without tuning"]
    assert (tmp_path / "docs" / "images" / "miniature-dynamic.png").stat().st_size > 1000
    assert "![" not in parts["Adapters with and without embeddings and norms"]
    # Readings that two tables share stand in both, with how many seeds the rest has.
    assert "yarn, tuned (256) 0 of 3" in parts["Stretched: untuned, and tuned at the same budget"]


def test_every_table_has_the_papers_figures_and_unique_cells() -> None:
    for name, make in TABLES.items():
        for sizes in (TOY, Sizes()):
            table = make(sizes)
            assert (table.id, table.published) == (name, PUBLISHED[name])
            kept: dict[str, Reading] = {}
            for line in table.lines:
                assert kept.setdefault(line.cell.name, line.cell) == line.cell
                assert line.cell.arm is None or sizes.step_tokens % line.cell.arm.window == 0


def test_arms_are_shared_by_tables() -> None:
    names = [{line.cell.name for line in make(Sizes()).lines if line.cell.arm} for make in TABLES.values()]
    assert names[0] & names[1]
    assert tuned(Sizes(), "pi", 4096).name == "pi-4096-w4096-50steps"


def test_the_command_makes_a_table_and_a_second_time_nothing(
    made: Cells, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "page.md"
    words = ["miniature", "dynamic", "--size", "toy", "--seeds", "0", "--kinds", "code"]
    monkeypatch.setattr(sys, "argv", [*words, "--out", str(made.out.parent), "--page", str(page)])
    assert command.main() == 0
    told, text = (made.out / "times.jsonl").read_text(), page.read_text()
    assert "| 256 | dynamic ntk |" in text
    assert command.main() == 0
    assert (made.out / "times.jsonl").read_text() == told
    assert page.read_text() == text
    assert capsys.readouterr().out.strip().endswith(str(page))


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("dynamic", "--seeds", "3"), "got 3; the page has seeds 0, 1 and 2"),
        (("dynamic", "--seeds", "0,x"), "got 0,x; the page has seeds"),
        (("dynamic", "--cells", "yarm"), "no cell of dynamic has yarm in its name; it has base~crop, base~dynamic_ntk-256"),
        (("bases", "--cells", "yarn"), "--cells would change nothing"),
        (("smollm2", "--seeds", "1"), "--seeds would change nothing: smollm2"),
        (("dynamic", "--table-only", "--seeds", "1"), "--seeds would change nothing: --table-only"),
    ],
)
def test_options_that_would_do_nothing_are_refused_before_anything_is_made(
    words: tuple[str, ...], sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setattr(sys, "argv", ["miniature", *words, "--size", "toy", "--out", str(tmp_path / "out")])
    with pytest.raises(SystemExit, match="2"):
        command.main()
    assert sentence in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "out").exists()


def test_skipped_positions_on_a_model_that_is_brought(tiny_checkpoint: Path, long_text: Path, tmp_path: Path) -> None:
    half = long_text.read_text()[18_000:]
    other = tmp_path / "other.txt"
    other.write_text(half)
    asked = smollm2.Asked(
        model=tiny_checkpoint, train=(long_text,), choose=other, texts=(long_text, other), out=tmp_path / "out", trained=64,
        length=1024, window=64, steps=2, factors=(16.0, 20.0), crop_stride=32, samples=1, depths=1, dtype="float32",
    )  # fmt: skip
    lines = smollm2.run(asked).read_text().splitlines()
    table = {line.split("|")[1].strip(): [cell.strip() for cell in line.split("|")[2:-1]] for line in lines if "|" in line}
    assert "One seed of training" in lines[0]
    names = list(table)[2:]
    assert names[0] == "crop"
    assert names[1].startswith("ntk, untuned (ntk:factor=")
    assert names[2].startswith("yarn, untuned (yarn:factor=")
    assert names[3] == "yarn, PoSE"
    assert table["crop"][1].startswith("+0.000")
    crop, own = (np.concatenate([smollm2.read(asked, m, t, False) for t in asked.texts]) for m in ("crop", "tuned"))
    gains = reading.beyond(crop, asked.sizes, 1024) - reading.beyond(own, asked.sizes, 1024)
    assert table["yarn, PoSE"][3].split()[0] == f"{gains.mean():+.3f}"
    assert all(cells[4] not in ("not run", "") for name, cells in table.items() if name in names[1:])
    # Nothing is made twice: without making, the same table comes of what is there.
    assert [line for line in lines if line.startswith("|")] == list(smollm2.rows(asked, False))
