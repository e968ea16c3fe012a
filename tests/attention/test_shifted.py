"""Shifted sparse attention: its groups as pictures, its published form against the paper's own algorithm, and its leak."""

from typing import Any

import naive_attention
import pytest
import torch
from naive_attention import picture
from torch import Tensor, nn
from torch.nn import functional

from ropewalk.attention import segments
from ropewalk.attention.documents import EndsOfBatch
from ropewalk.attention.registered import forward
from ropewalk.attention.segments import until
from ropewalk.attention.shifted import Shifted
from ropewalk.core.errors import InputError

LENGTH = 8
STRAIGHT = [
    "#.......",
    "##......",
    "###.....",
    "####....",
    "....#...",
    "....##..",
    "....###.",
    "....####",
]
SHIFTED = {
    "separate": [
        "#.......",
        "##......",
        "..#.....",
        "..##....",
        "..###...",
        "..####..",
        "......#.",
        "......##",
    ],
    "swap": [
        "#.......",
        "##......",
        "..#.....",
        "..##....",
        "..###...",
        "..####..",
        "##....#.",
        "##....##",
    ],
    "rolled": [
        "#.....##",
        "##....##",
        "..#.....",
        "..##....",
        "..###...",
        "..####..",
        "......#.",
        "......##",
    ],
}


@pytest.mark.parametrize("wrap", SHIFTED)
def test_what_each_half_of_the_heads_sees(wrap: Any) -> None:
    straight, moved = Shifted(group=4, wrap=wrap).parts([LENGTH], 0)
    assert picture(straight, LENGTH) == STRAIGHT
    assert picture(moved, LENGTH) == SHIFTED[wrap]


def test_patterns() -> None:
    straight, moved = Shifted(group=4).parts([LENGTH], 0)
    for pattern, layers in {
        "layers": [(straight,), (moved,)],
        "unshifted": [(straight,)] * 2,
        "shifted": [(moved,)] * 2,
    }.items():
        setting = Shifted(group=4, pattern=pattern)  # type: ignore[arg-type]
        assert [setting.parts([LENGTH], layer) for layer in (0, 1)] == layers
    assert Shifted(group=4).parts([LENGTH], 1) == (straight, moved)


def test_a_share_becomes_tokens_once_from_the_rows_of_a_stage() -> None:
    assert [Shifted().at(window).group for window in (1, 2, 8, 9, 16_384)] == [2, 2, 2, 3, 4096]
    assert [Shifted(group=100).at(window).group for window in (1, 99, 101)] == [100, 100, 100]
    assert Shifted(group=0.5, wrap="swap").at(7) == Shifted(group=4, wrap="swap")


def test_groups_and_their_shift_begin_anew_at_each_document() -> None:
    straight, moved = Shifted(group=4).parts([5, 7, 17], 0)
    assert straight == until([4, 5, 7, 11, 15, 17])
    # The second document is one group: there is nothing to shift it against.
    assert moved == until([2, 5, 7, 9, 13, 17])
    assert Shifted(group=4, wrap="rolled").parts([3, 11], 0)[1] == (((0, 3),), ((5, 9),), ((9, 11), (3, 5)))
    assert Shifted(group=4).parts([3, 7], 0) == (until([3, 7]),)


def test_the_last_groups_of_an_odd_row_are_shorter() -> None:
    straight, moved = Shifted(group=4).parts([11], 0)
    assert straight == until([4, 8, 11])
    assert moved == until([2, 6, 10, 11])
    assert Shifted(group=4, wrap="rolled").parts([9], 0)[1] == (((2, 6),), ((6, 9), (0, 1)), ((1, 2),))


@pytest.mark.parametrize("pattern", ["heads", "layers", "unshifted", "shifted"])
@pytest.mark.parametrize("wrap", ["separate", "swap", "rolled"])
def test_one_group_is_full_attention(pattern: Any, wrap: Any) -> None:
    for group in (1.0, 13, 50):
        assert Shifted(group=group, pattern=pattern, wrap=wrap).parts([13], 1) == (until([13]),)


@pytest.mark.parametrize("ends", [[16], [17], [5, 17], [1, 9, 13, 29]])
@pytest.mark.parametrize("group", [4, 5, 16])
def test_groups_by_arithmetic(ends: list[int], group: int) -> None:
    """Who sees whom from places in their documents alone, without a list of groups."""
    starts = [0, *ends[:-1]]
    place = [(number, token) for number, (a, b) in enumerate(zip(starts, ends, strict=True)) for token in range(b - a)]
    parts = Shifted(group=group).parts(ends, 0)
    for part, late in zip(parts, (0, group // 2), strict=False):
        expected = [
            "".join(
                ".#"[
                    mine == theirs
                    and j <= i
                    # A document of one group is not shifted.
                    and (ends[mine] - starts[mine] <= group or (i - late) // group == (j - late) // group)
                ]
                for theirs, j in place
            )
            for mine, i in place
        ]
        assert picture(part, ends[-1]) == expected


def as_published(query: Tensor, key: Tensor, value: Tensor, group: int) -> Tensor:
    """Algorithm 1 of the paper on [B, H, T, D], T a multiple of `group`: roll half of the heads, fold, attend, roll back."""
    rows, heads, length, width = query.shape

    def folded(tensor: Tensor) -> Tensor:
        still, rolling = tensor.chunk(2, dim=1)
        both = torch.cat((still, rolling.roll(-group // 2, dims=2)), dim=1)
        return both.view(rows, heads, length // group, group, width).transpose(1, 2).flatten(0, 1)

    scores = folded(query) @ folded(key).transpose(-1, -2) / width**0.5
    later = torch.ones(group, group, dtype=torch.bool).triu(1)
    out = functional.softmax(scores.masked_fill(later, float("-inf")), dim=-1) @ folded(value)
    still, rolling = out.unflatten(0, (rows, -1)).transpose(1, 2).flatten(2, 3).chunk(2, dim=1)
    return torch.cat((still, rolling.roll(group // 2, dims=2)), dim=1).transpose(1, 2)


def random(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)), dtype=torch.float64)


def test_rolled_is_the_published_algorithm() -> None:
    query, key, value = random(2, 4, 16, 8), random(2, 4, 16, 8).flip(0), random(2, 4, 16, 8).flip(2)
    parts = Shifted(group=4, wrap="rolled").parts([16], 0)
    out = segments.attend(query, key, value, [parts] * 2)
    published = as_published(query, key, value, 4)
    torch.testing.assert_close(out, published, rtol=1e-12, atol=1e-12)
    naive = naive_attention.attend(query, key, value, [list(parts)] * 2)
    torch.testing.assert_close(naive, published, rtol=1e-12, atol=1e-12)
    # As a model in training calls it, a document in a row.
    called, _ = forward(Shifted(group=4, wrap="rolled"), EndsOfBatch(), nn.Module(), query, key, value, None)
    torch.testing.assert_close(called, published, rtol=1e-12, atol=1e-12)


def leaks(setting: Shifted, length: int) -> list[int]:
    """Tokens whose output has a gradient with respect to a later token's value."""
    value = random(1, 4, length, 8).requires_grad_()
    out = segments.attend(random(1, 4, length, 8).flip(1), random(1, 4, length, 8), value, [setting.parts([length], 0)])
    found = []
    for token in range(length):
        (gradient,) = torch.autograd.grad(out[:, token].sum(), value, retain_graph=True)
        if gradient[:, :, token + 1 :].abs().sum() > 0:
            found.append(token)
    return found


@pytest.mark.parametrize("length", [16, 17, 19])
@pytest.mark.parametrize("pattern", ["heads", "shifted"])
def test_only_the_rolled_form_sees_the_future(length: int, pattern: Any) -> None:
    assert leaks(Shifted(group=4, pattern=pattern), length) == []
    assert leaks(Shifted(group=4, pattern=pattern, wrap="swap"), length) == []
    assert leaks(Shifted(group=4, pattern=pattern, wrap="rolled"), length) != []


def test_the_leak_is_the_first_half_group() -> None:
    assert leaks(Shifted(wrap="rolled"), 16) == [0, 1]


@pytest.mark.parametrize("group", [0, 1, -4, 0.0, 1.5, float("nan"), True, "quarter"])
def test_a_group_that_is_none_is_refused(group: Any) -> None:
    with pytest.raises(InputError, match=r"group is .*; give a whole number of tokens from 2, or a share of rows"):
        Shifted(group=group)


def test_unknown_names_are_refused_with_near_ones() -> None:
    with pytest.raises(InputError, match="pattern is 'head', which is unknown: did you mean heads"):
        Shifted(pattern="head")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="wrap is 'roll', which is unknown: did you mean rolled"):
        Shifted(wrap="roll")  # type: ignore[arg-type]


def test_settings_have_names_of_their_own() -> None:
    assert Shifted(group=2048).name == "ropewalk_s2_2048"
    assert Shifted(group=1024, wrap="rolled").name == "ropewalk_s2_1024_rolled"
    settings = [Shifted(group=group, pattern=pattern) for group in (2, 512) for pattern in ("heads", "layers")]  # type: ignore[arg-type]
    assert len({setting.name for setting in settings}) == 4
