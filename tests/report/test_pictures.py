"""What can be checked of a picture without eyes: its colours, its words, its numbers."""

import re
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
from example_run import METHODS, make_tasks_run

from ropewalk.core.record import Record
from ropewalk.report.facts import Facts
from ropewalk.report.page import PLOTS, pictures
from ropewalk.report.plots.gain import GAIN, clipped, limits
from ropewalk.report.plots.likelihood import close_up
from ropewalk.report.plots.price import PRICE
from ropewalk.report.plots.retrieval import maps
from ropewalk.report.plots.spectrum import groups, turns
from ropewalk.report.style import STYLE, variables
from ropewalk.report.theme import DARK, LIGHT, PREFERRED, printable, strokes
from ropewalk.report.vector import inlined
from ropewalk.report.words import basis, number, short_tokens, small

Make = Callable[..., Path]


def facts(folder: Path) -> Facts:
    return Facts.of(Record.read(folder))


def test_a_method_keeps_its_colour_whoever_stands_beside_it() -> None:
    few = strokes(("none", "crop", "yarn"), LIGHT)
    many = strokes(("none", "crop", "yarn:ramp=rotations", "dynamic:ntk", "pi", "yarn"), LIGHT)
    assert few["yarn"].colour == many["yarn"].colour == PREFERRED["yarn"]
    assert many["pi"].colour == PREFERRED["pi"]
    assert few["none"].colour == LIGHT.ink
    assert few["crop"].dash != "-"


def test_no_two_methods_look_alike() -> None:
    labels = ("none", "crop", *PREFERRED, *(f"yarn:beta_fast={i}" for i in range(3)))
    found = strokes(labels, LIGHT)
    assert len({(s.colour, str(s.dash), s.marker) for s in found.values()}) == len(labels)
    assert len({found[label].colour for label in ("none", "crop", *PREFERRED)}) == 2 + len(PREFERRED)


def test_pictures_take_the_pages_colours_in_light_and_dark(tmp_path: Path) -> None:
    found = facts(make_tasks_run(tmp_path / "run", documents=1, methods=METHODS))
    own = [getattr(LIGHT, field.name) for field in fields(LIGHT) if field.name != "name"]
    for plot in PLOTS:
        shown = inlined(pictures(plot, found)[1], plot.name, "words")
        assert not [colour for colour in own if colour in shown]
        assert set(re.findall(r"var\((--\w+)\)", shown)) <= {f"--{field.name}" for field in fields(LIGHT)}
    for theme in (LIGHT, DARK):
        assert variables(theme) in STYLE
        assert f"--shade: {theme.shade};" in variables(theme)


SVG = """<svg xmlns:xlink="http://www.w3.org/1999/xlink" viewBox="0 0 72 36" xmlns="http://www.w3.org/2000/svg">
 <metadata><x/></metadata><defs><clipPath id="pf0"><rect x="1.23456" y="-0.00001" width="2" height="3"/></clipPath></defs>
 <g id="figure_1"><!-- words --><g id="empty"/>
  <path d="M 10.00049 20.126
L 1 2 z" clip-path="url(#pf0)" style="fill: #ffffff; stroke: #abcdef; stroke-linejoin: round"/>
  <g transform="rotate(-0 1 2)"><text style="font-family: 'X'; font-size: 9px">a &lt;b&gt; &amp;</text></g>
  <use xlink:href="#pf0" transform="scale(0.015625)"/>
 </g></svg>"""


def test_a_picture_is_written_short_with_ids_of_its_own() -> None:
    assert inlined(SVG.encode(), "nll", 'say "x"') == (
        '<svg viewBox="0 0 72 36" width="96" role="img" aria-label="say &quot;x&quot;">'
        '<defs><clipPath id="nll-1"><rect x="1.23" y="0" width="2" height="3"></rect></clipPath></defs>'
        '<path d="M10 20.13L1 2z" clip-path="url(#nll-1)" style="fill:var(--surface);stroke:#abcdef"></path>'
        '<text style="font-size:9px">a &lt;b&gt; &amp;</text>'
        '<use href="#nll-1" transform="scale(0.0156)"></use></svg>'
    )


def test_an_element_that_could_run_does_not_reach_the_page() -> None:
    with pytest.raises(AssertionError, match="script"):
        inlined(b'<svg viewBox="0 0 1 1"><script>1</script></svg>', "nll", "words")


def test_alts_and_captions_carry_numbers(tmp_path: Path) -> None:
    found = facts(make_tasks_run(tmp_path / "run", documents=1, methods=METHODS))
    for plot in PLOTS:
        assert plot.missing(found) is None
        assert any(c.isdigit() for c in plot.alt(found))
        assert len(plot.caption(found)) > 80
        table = plot.numbers(found)
        assert table.rows
        assert all(len(row) == len(table.columns) for row in table.rows)


def test_a_collapse_does_not_flatten_the_others_but_is_named(example: Make) -> None:
    found = facts(example())
    low, high = limits(found)
    assert low > -0.4
    assert high > 0.0
    assert [text.split()[0] for text in clipped(found)] == ["none", "pi"]
    assert "Below the picture: none" in GAIN.caption(found)


def test_the_close_up_holds_the_untouched_model_inside_and_crop_beyond(example: Make) -> None:
    found = facts(example())
    limits_found = close_up(found)
    assert limits_found is not None
    low, high = limits_found
    inside = [p.value for p in found.curve("none") if p.high <= 512]
    assert all(low < value < high for value in inside + [p.value for p in found.curve("crop")])
    assert max(p.value for p in found.curve("none")) > high


def test_crop_is_points_at_its_targets_also_before_rows_are_written(example: Make) -> None:
    written = facts(example())
    (written.record.path / "measurements.jsonl").unlink()
    bare = facts(written.record.path)
    assert [(p.low, p.high) for p in bare.curve("crop")] == [(p.low, p.high) for p in written.curve("crop")]
    assert [p.value for p in bare.curve("crop")] == pytest.approx([p.value for p in written.curve("crop")], abs=1e-5)


def test_the_spectrum_is_new_over_old(example: Make) -> None:
    (group,) = groups(facts(example()))
    assert set(group.ratios) == {"pi", "ntk", "yarn"}
    np.testing.assert_allclose(group.ratios["pi"], 0.5, rtol=1e-12)
    assert group.ratios["yarn"][0] == 1.0
    assert group.attention_factor["yarn"] == pytest.approx(1.0693, abs=1e-4)
    assert turns(np.array([2 * np.pi / 512]), 512)[0] == pytest.approx(1.0, abs=1e-12)


def test_groups_that_a_plan_leaves_alone_are_not_drawn(example: Make) -> None:
    found = facts(example())
    content = found.record.card.geometry
    content["groups"].append({"label": "window", "inv_freq": [1.0, 0.1]})
    content["groups"].append({"label": "recurrent", "inv_freq": None})
    for plan in found.plans.values():
        plan["groups"] |= {"window": None, "recurrent": None}
    assert [group.label for group in groups(found)] == ["all"]


def test_the_control_without_text_stands_under_the_map(example: Make) -> None:
    bands = maps(facts(example()))
    assert [(b.protocol, b.kind) for b in bands] == [
        ("multikey-branch", "score"),
        ("single-key", "score"),
        ("multikey-branch", "logprob"),
    ]
    assert bands[0].depths == (0.1, 0.3, 0.5, 0.7, 0.9, None)
    assert bands[0].cells["none", 256, None].value == 0.04


def test_the_price_table_ends_with_the_control(example: Make) -> None:
    rows = PRICE.numbers(facts(example())).rows
    assert rows[-1][0] == "control: the untouched model in bfloat16 against itself in float32"
    assert rows[-1][1].startswith("+0.0006 [+0.0001, +0.0011]")


@pytest.mark.parametrize(
    ("value", "text"), [(-0.0004, "0.000"), (-1.25, "−1.250"), (0.5, "+0.500"), (None, "–"), (0.0, "0.000")]
)
def test_numbers_have_real_minus_signs_and_no_negative_zero(value: float | None, text: str) -> None:
    assert number(value, sign=True) == text


def test_words_for_small_numbers_and_lengths() -> None:
    assert [small(x) for x in (0.0, 0.0007, 0.02411, 3e-6)] == ["0", "0.0007", "0.0241", "3.0e−6"]
    assert [short_tokens(x) for x in (0, 1024, 16384, 1000)] == ["0", "1k", "16k", "1,000"]
    assert printable("a\nb\x07 漢") == "a b  ?"


def test_the_basis_of_an_interval_is_said(example: Make) -> None:
    gain = facts(example()).net_gain("yarn")
    assert gain is not None
    assert basis(gain) == "within-document, 8 blocks"
