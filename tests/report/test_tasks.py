"""The page and the terminal of a run with tasks: what is certified, what is refused and why, and what is not said."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from example_run import make_example, make_tasks_run
from test_page import HOSTILE, Reader, read

from ropewalk.core.record import Measurement, Record
from ropewalk.report import page, terminal_table, write_report
from ropewalk.report.cost import cost
from ropewalk.report.effective import Reading, reading
from ropewalk.report.facts import Facts
from ropewalk.report.headline import WIDTH
from ropewalk.report.inside import not_asked, retrieval
from ropewalk.report.plots.curves import CURVES, panels, short_score
from ropewalk.report.plots.effective import EFFECTIVE, every, lines
from ropewalk.report.plots.heat import Band, written
from ropewalk.report.plots.paired import PAIRED, rows, shown
from ropewalk.report.plots.retrieval import RETRIEVAL, TALLEST, maps, not_drawn
from ropewalk.report.reading_verdict import gains, reading_line, reads, unsaid
from ropewalk.report.verdict import verdict

Make = Callable[..., Path]
MODES = {"modes": ("fixed", "grow", "single")}


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> Record:
    """Five tasks of three families, no text."""
    return Record.read(make_tasks_run(tmp_path_factory.mktemp("tasks") / "run"))


@pytest.fixture
def facts(record: Record) -> Facts:
    return Facts.of(Record(path=record.path, card=record.card, measurements=list(record.measurements), samples=[]))


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page, "pictures", lambda plot, facts: (b"\x89PNG", b'<svg viewBox="0 0 1 1"/>'))


def row(**fields: Any) -> Measurement:
    content: dict[str, Any] = {
        "metric": "effective_length", "protocol": "multikey-branch", "unit": "tokens", "n": 280, "num_clusters": 8,
        "num_tokens": 0, "model": "m", "card": "c", "method": "yarn", "task": "needle",
    }  # fmt: skip
    return Measurement(**(content | fields))


def one(facts: Facts, title: str, method: str) -> Reading:
    return next(r for r in every(facts) if r.title == title and r.method == method)


# --- effective lengths ------------------------------------------------------------------------------------------------


def test_a_certified_length_is_read_with_its_interval_and_rulers_rule() -> None:
    note = (
        "tested to 16384; s0 0.97 [0.95, 0.99] at 2048; point estimates alone: 6144; RULER's rule (85.6% absolute): None; "
        "worst depth at 16384: 0.95 (0.62); family retrieval: needle; weights: Q4_1, dequantised"
    )
    found = reading(row(value=4096.0, ci_low=4096.0, ci_high=12288.0, note=note))
    assert (found.said, found.interval) == ("4,096 (12,288 not ruled out)", "[4,096, 12,288]")
    assert (found.ruler, found.point, found.short_score) == ("none", "6,144", "0.97 [0.95, 0.99] at 2048")
    assert (found.family, found.is_family, found.worst) == ("retrieval", False, "16384: 0.95 (0.62)")


def test_a_censored_length_says_at_least() -> None:
    note = "at least: the longest tested length is certified; family retrieval: needle, passkey"
    found = reading(row(value=16384.0, ci_low=16384.0, ci_high=16384.0, note=note, task="retrieval"))
    assert found.said == "at least 16,384"
    assert found.interval == "[16,384, end of the grid]"
    assert (found.title, found.plain) == ("all retrieval", "retrieval together (needle, passkey)")


def test_a_length_that_is_not_certified_at_all_is_no_zero() -> None:
    note = "not certified at the shortest tested length, 2048; family retrieval: needle"
    assert (
        reading(row(value=0.0, ci_low=0.0, ci_high=3072.0, note=note)).said == "not certified at 2,048 (3,072 not ruled out)"
    )


def test_a_short_score_from_elsewhere_is_said_and_drawn(facts: Facts) -> None:
    note = "tested to 1024; s0 0.90 [0.80, 0.95] at 128; s0 is the served model's own short score; family retrieval: passkey"
    measured = row(value=512.0, ci_low=512.0, ci_high=512.0, note=note, method="served", task="passkey")
    assert reading(measured).short_value == 0.9
    kept = [r for r in facts.record.measurements if r.method != "none" and r.metric != "effective_length"]
    alone = Facts.of(Record(path=facts.record.path, card=facts.record.card, measurements=[*kept, measured], samples=[]))
    assert short_score(alone, next(a for a in alone.asked if a.task == "passkey")) == 0.9
    assert short_score(facts, next(a for a in facts.asked if a.task == "passkey")) == 1.0
    assert "In the effective lengths s0 is the served model's own short score." in unsaid(alone)


def test_a_refusal_keeps_its_reason_and_nothing_else() -> None:
    found = reading(row(value=None, note="odd grid; got a gap at 3072; family retrieval: needle; weights: Q4_1"))
    assert (found.said, found.reason) == ("refused", "odd grid; got a gap at 3072")


def test_the_example_certifies_censors_and_refuses(facts: Facts) -> None:
    assert one(facts, "passkey", "yarn").said == "at least 1,024"
    assert one(facts, "passkey", "none").said == "512"
    assert "not above a guess" in one(facts, "association", "yarn").reason
    assert "cannot certify" in one(facts, "variable-tracking", "yarn").reason
    assert one(facts, "all retrieval", "crop").members == ("key-value", "needle", "passkey")


def test_families_stand_before_their_tasks_and_tasks_in_the_order_asked(facts: Facts) -> None:
    titles = list(dict.fromkeys(r.title for r in every(facts)))
    assert titles[0] == "all retrieval"
    assert titles[-2:] == ["variable-tracking", "association"]
    assert [r.method for r in every(facts)][:3] == ["none", "crop", "yarn"]


def test_lengths_from_the_likelihood_stand_beside_those_from_tasks(tmp_path: Path) -> None:
    found = Facts.of(Record.read(make_tasks_run(tmp_path / "run", documents=1)))
    assert one(found, "likelihood: safe", "yarn").said == "512 (1,024 not ruled out)"
    assert one(found, "likelihood: use", "yarn").said == "none"
    longest = row(
        metric="safe_length", value=1024.0, ci_low=1024.0, ci_high=1024.0, note="the longest that was tested: at least this"
    )
    assert reading(longest).said == "at least 1,024"
    assert "likelihood: safe" in EFFECTIVE.alt(found)


# --- words ------------------------------------------------------------------------------------------------------------


def test_the_first_sentence_says_who_reads_how_far_on_what(facts: Facts) -> None:
    said = verdict(facts)[0].text
    assert said.startswith("Certified to read: yarn to at least 1,024 tokens [1,024, end of the grid] on ")
    assert "the untouched model and cropping to 512 tokens [512, 512] on retrieval together" in said
    assert reading_line(facts) == said


def test_no_claim_is_made_without_an_interval_or_a_reason(facts: Facts) -> None:
    for reading_ in every(facts):
        assert reading_.interval or len(reading_.reason) > 20


def test_what_falls_short_of_its_family_is_said_beside_it(facts: Facts) -> None:
    short = one(facts, "key-value", "yarn")
    assert (short.value or 0) < (one(facts, "all retrieval", "yarn").value or 0)
    assert "though key-value alone falls short of it" in " ".join(reads(facts, "yarn"))


def test_what_the_run_does_not_say_is_said(facts: Facts) -> None:
    said = " ".join(unsaid(facts))
    assert "Nothing on aggregation (counting over the whole text) and conversation" in said
    assert "No claim on association by any method: the untouched model's short score is" in said
    assert "Nothing on the price inside the window in likelihood, which was not measured." in said
    assert "seed 0" in said
    assert verdict(facts)[-1].subject == "What this run does not say"


def test_choices_speak_where_nothing_is_ever_answered(facts: Facts) -> None:
    said = " ".join(unsaid(facts))
    assert "Exact answers are hardly ever given on association (the true one is the likeliest candidate" in said
    assert [panel.name for panel in panels(facts)].count("association, choice") == 1
    assert "needle, choice" not in [panel.name for panel in panels(facts)]
    assert "certify nothing" in said


def test_gains_over_cropping_are_paired_and_judged_by_their_interval(facts: Facts) -> None:
    more, *_ = gains(facts, "yarn")
    assert more.startswith("On identical prompts it finds more than cropping: ")
    assert "needle at 1,024 tokens +0." in more
    undecided = next(text for text in gains(facts, "yarn") if text.startswith("Not told apart"))
    assert "association at 1,024 tokens" in undecided


def test_one_reason_for_all_methods_is_said_once(facts: Facts) -> None:
    sentences = " ".join(s.text for s in verdict(facts))
    assert sentences.count("not above a guess") == 1


def test_a_run_that_certifies_nothing_says_why_after_what_it_found(tmp_path: Path) -> None:
    few = {"example_map": {"tasks": ("needle",), "num_haystacks": 1}}
    parts = ["likelihood", "gains", "tasks"]
    found = Facts.of(Record.read(make_example(tmp_path / "run", methods=("none", "crop", "yarn"), parts=parts, config=few)))
    whole = [s.text for s in verdict(found) if not s.subject]
    assert whole[-1].startswith("No effective length: an effective number of ")
    assert "cropping" in whole[0]
    assert EFFECTIVE.missing(found) == "no effective length can be had from this run, for the reasons in the table"


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("added", [(), (128,)])
def test_a_map_of_two_lengths_beside_likelihoods_has_no_refused_lengths(tmp_path: Path, added: tuple[int, ...]) -> None:
    # A length that was added for the price inside the window is none the user asked for.
    config = {"example_map": {"tasks": ("needle",), "lengths": (*added, 256, 1024)}, "map": {"inside": added}}
    out = make_tasks_run(tmp_path / "run", documents=1, config=config)
    found = Facts.of(Record.read(out))
    assert {r.value for r in map(reading, found.record.rows("effective_length"))} == {None}
    assert not [r for r in every(found) if r.row.metric == "effective_length"]
    said = terminal_table(found.record) + " ".join(s.text for s in verdict(found))
    assert "refused" not in said
    assert "No effective length" not in said
    content = read(write_report(out)).text
    assert "refused" not in content
    assert "Retrieval at a quarter and a half of the window" in content


def test_why_two_lengths_have_no_picture_of_effective_lengths(tmp_path: Path) -> None:
    config = {"example_map": {"tasks": ("needle",), "lengths": (256, 1024)}}
    parts = ["likelihood", "gains", "tasks"]
    found = Facts.of(
        Record.read(make_example(tmp_path / "run", methods=("none", "crop", "yarn"), parts=parts, config=config))
    )
    assert EFFECTIVE.missing(found) == (
        "tasks were asked at 2 lengths, too few for an effective length; give more with --lengths"
    )
    assert EFFECTIVE not in [plot for plot in page.PLOTS if page.shown(plot, found)]


def test_a_map_of_two_lengths_keeps_what_it_certifies(tmp_path: Path) -> None:
    config = {"example_map": {"tasks": ("needle",), "lengths": (256, 384)}}
    found = Facts.of(Record.read(make_tasks_run(tmp_path / "run", documents=1, config=config)))
    assert {one(found, "needle", method).said for method in ("none", "yarn")} == {"at least 384"}


def test_without_likelihoods_the_refusal_is_what_there_is_to_say(tmp_path: Path) -> None:
    config = {"example_map": {"tasks": ("needle",), "lengths": (256, 1024)}}
    record = Record.read(make_tasks_run(tmp_path / "run", config=config))
    assert "refused (1)" in terminal_table(record)
    assert "needs every length of the grid" in terminal_table(record)


# --- the price and the cost -------------------------------------------------------------------------------------------


def test_retrieval_inside_the_window_stands_beside_the_length(facts: Facts) -> None:
    table = retrieval(facts)
    assert {line[1] for line in table.rows} == {"128", "256"}
    assert all("[" in line[3] and "[" in line[4] for line in table.rows)
    assert not_asked(facts) == ""


def test_a_quarter_of_the_window_that_was_not_asked_is_named(facts: Facts) -> None:
    record = facts.record
    kept = [r for r in record.measurements if r.length != 128 or r.metric == "effective_length"]
    found = Facts.of(Record(path=record.path, card=record.card, measurements=kept, samples=[]))
    assert not_asked(found).startswith("Retrieval was not measured at a quarter of the window (128 tokens): needle, ")


def test_the_cost_counts_every_prompt_once(facts: Facts) -> None:
    *each, total = cost(facts).rows
    # 4 tasks x 5 depths + 1 without, 12 haystacks, 7 lengths; none also the controls and a haystack of stand-alone prompts.
    assert [line[4] for line in each] == [f"{21 * 12 * 7 + 21 * 12 + 5:,}", f"{21 * 12 * 7:,}", f"{21 * 12 * 7:,}"]
    assert total[3] == f"{(21 * 12 * 7 * 3 + 21 * 12 + 5) * 0.25:,.1f}"
    assert total[1] == "–"


# --- pictures ---------------------------------------------------------------------------------------------------------


def test_every_task_by_depth_has_a_map_and_those_without_depth_a_curve(facts: Facts) -> None:
    assert [band.name for band in maps(facts) if band.kind == "score"] == ["needle", "passkey", "key-value", "association"]
    assert "variable-tracking" in [panel.name for panel in panels(facts)]


def test_many_tasks_and_protocols_do_not_explode_the_page(tmp_path: Path) -> None:
    config = {"example_map": MODES | {"num_depths": 11, "num_haystacks": 2}}
    found = Facts.of(Record.read(make_tasks_run(tmp_path / "run", config=config)))
    for plot in (EFFECTIVE, CURVES, RETRIEVAL, PAIRED):
        assert plot.size(found)[1] <= TALLEST + 1.5
    assert "needle (multikey-grow)" in not_drawn(found)
    assert "Not drawn, in the table: needle (multikey-grow)" in RETRIEVAL.caption(found)
    assert {r.row.protocol for r in lines(found)} == {"multikey-branch", "one-question"}
    assert {line[1] for line in RETRIEVAL.numbers(found).rows} >= {"multikey-branch", "multikey-grow", "single-key"}
    assert len(shown(found)) <= 28


def test_a_growing_text_says_that_its_axis_is_a_distance(tmp_path: Path) -> None:
    config = {"example_map": {"modes": ("grow",), "tasks": ("needle",)}}
    found = Facts.of(Record.read(make_tasks_run(tmp_path / "run", config=config)))
    assert "the axis is the distance back to the key" in RETRIEVAL.caption(found)


def test_cells_carry_share_and_n_where_they_fit() -> None:
    cell = row(metric="retrieval_exact", unit="share", value=0.875, n=24)
    assert written(cell, 1.0, low=False)[0] == "0.88  n=24"
    assert written(cell, 0.4, low=False)[0] == "0.88\nn=24"
    assert written(cell, 0.25, low=False)[0] == ".88"
    assert written(cell, 0.1, low=False)[0] == ""


def test_what_was_not_measured_is_hatched(facts: Facts) -> None:
    from matplotlib.figure import Figure

    from ropewalk.report.plots.heat import draw_map
    from ropewalk.report.theme import LIGHT

    band: Band = maps(facts)[0]
    gone = ("yarn", band.lengths[0], band.depths[0])
    del band.cells[gone]
    axes = Figure().subplots()
    draw_map(axes, band, "yarn", lambda value: (value, value, value, 1.0), 1.0, LIGHT)
    assert [patch.get_hatch() for patch in axes.patches].count("////") == 1


def test_crop_is_not_compared_where_nothing_is_cropped(facts: Facts) -> None:
    assert {place.length for place, _, reference in rows(facts) if reference == "crop"} == {768, 1024}
    assert {place.length for place, _, reference in rows(facts) if reference == "none"} >= {128, 512, 1024}


# --- page and terminal ------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("undrawn")
def test_a_run_without_texts_has_its_tasks_first(facts: Facts) -> None:
    found = read(write_report(facts.record.path))
    assert found.ids.index("effective-length") < found.ids.index("nll")
    assert "headline" not in found.ids
    assert "Likelihood was not measured, as no text was given" in found.text
    assert "5 tasks asked to 1,024 tokens" in found.text
    assert "Not shown: no document has been read yet" in found.text
    assert "0 documents" not in found.text


@pytest.mark.usefixtures("undrawn")
def test_a_run_with_texts_keeps_its_headline_and_has_both(tmp_path: Path) -> None:
    found = read(write_report(make_tasks_run(tmp_path / "run", documents=1)))
    assert set(found.ids) >= {
        "headline",
        "nll",
        "price",
        "effective-length",
        "curves",
        "retrieval",
        "retrieval-gain",
        "cost",
    }
    assert "Likelihood on the first 512 tokens, against the untouched model, paired" in found.text


@pytest.mark.usefixtures("undrawn")
def test_a_served_model_needs_no_trained_length(tmp_path: Path) -> None:
    source = {"name": "http", "kind": "server"}
    config = {"example_map": {"tasks": ("needle", "association")}}
    out = make_tasks_run(tmp_path / "run", methods=("served",), geometry={}, source=source, config=config)
    found = read(write_report(out))
    assert "The answers are those of vllm 0.11" in found.text
    assert "does not say what its model was trained to" in found.text
    assert "the untouched model was not measured at the shortest length" in found.text
    assert "trained length not known" in terminal_table(Record.read(out))


@pytest.mark.usefixtures("undrawn")
def test_names_of_tasks_cannot_break_out(facts: Facts) -> None:
    named = [r for r in facts.record.measurements if r.task == "needle"]
    named = [Measurement.from_dict(r.to_dict() | {"task": HOSTILE, "note": HOSTILE}) for r in named]
    again = Facts.of(Record(path=facts.record.path, card=facts.record.card, measurements=named, samples=[]))
    found = Reader(page.render(again, {}))
    assert "script" not in found.tags
    assert '<script>alert("x")</script>' in found.text


def test_hostile_task_names_can_be_drawn(facts: Facts) -> None:
    kept = [
        Measurement.from_dict(r.to_dict() | {"task": HOSTILE})
        for r in facts.record.measurements
        if r.task == "needle" and (r.depth is None or r.length == 128)
    ]
    again = Facts.of(Record(path=facts.record.path, card=facts.record.card, measurements=kept, samples=[]))
    for plot in (EFFECTIVE, CURVES, RETRIEVAL, PAIRED):
        assert page.pictures(plot, again)[0].startswith(b"\x89PNG")


@pytest.mark.usefixtures("undrawn")
def test_a_number_that_no_picture_shows_stands_in_a_table(facts: Facts) -> None:
    facts.record.measurements.append(row(metric="longppl", protocol="prefix", unit="perplexity", value=9.25, task=None))
    found = Reader(page.render(facts, {}))
    assert "others" in found.ids
    assert "longppl" in found.text


def test_the_terminal_says_effective_lengths_in_a_short_aligned_table(record: Record) -> None:
    text = terminal_table(record)
    assert text.isascii()
    assert max(len(line) for line in text.splitlines()) <= WIDTH
    rule = next(i for i, line in enumerate(text.splitlines()) if set(line) == {"-"})
    lines_ = text.splitlines()
    assert lines_[rule - 1].split() == ["task", "none", "crop", "yarn"]
    assert {len(line) for line in lines_[rule + 1 : rule + 6]} == {len(lines_[rule])}
    passkey = next(line for line in lines_ if line.startswith("passkey"))
    assert passkey.endswith(">= 1k")
    assert next(line for line in lines_ if line.startswith("association")).split()[1:3] == ["refused", "(2)"]
    assert "(2) the untouched model's short score is" in text
    assert "not measured in likelihood" in text
    assert "prompts of" in text
    assert "net gain" not in text


def test_the_terminal_of_both_has_both(tmp_path: Path) -> None:
    text = terminal_table(Record.read(make_tasks_run(tmp_path / "run", documents=1)))
    assert "net gain over crop" in text
    assert "effective length: certified tokens" in text
