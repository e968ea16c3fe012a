"""Attention inside segments against its naive twin: values and gradients, shared keys, odd lengths, every dtype, a prefix.

Fresh memory is NaN in every test here (see `conftest`), so an output that nobody wrote would show.
"""

import itertools

import naive_attention
import pytest
import torch
from tolerances import RELATIVE
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from ropewalk.attention import segments
from ropewalk.attention.segments import until
from ropewalk.attention.shifted import Shifted
from ropewalk.core.errors import UnsupportedError

SHAPES = {
    "one head each": (4, 4),
    "shared keys": (4, 2),
    "one key": (4, 1),
    "halves cut a group": (9, 3),
    "odd heads": (3, 3),
}
LAYOUTS = {
    "one document": [[until([13])]],
    "packs": [[until([4, 5, 13])]],
    "rows cut alike": [[until([6, 13])]] * 3,
    "rows cut differently": [[until([6, 13])], [until([13])], [until([1, 2, 3, 13])]],
    "two parts": [[until([5, 10, 13]), until([2, 7, 12, 13])]] * 2,
    "two parts, rows cut differently": [[until([5, 10, 13]), until([2, 7, 13])], [until([3, 13]), until([13])]],
    "wrapped": [[until([4, 8, 13]), (((2, 7),), ((7, 13), (0, 2)))]] * 2,
}


def inputs(
    rows: int, heads: tuple[int, int], length: int, *, prefix: int = 0, width: int = 8, dtype: torch.dtype
) -> list[Tensor]:
    generator = torch.Generator().manual_seed(7)
    shapes = [(rows, heads[0], length, 8), (rows, heads[1], prefix + length, 8), (rows, heads[1], prefix + length, width)]
    return [torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype).requires_grad_() for shape in shapes]


def gap(got: Tensor, expected: Tensor) -> float:
    """Largest difference, relative to the largest number expected. NaN stays NaN, and is below no tolerance."""
    expected = expected.detach().double()
    return float((got.detach().double() - expected).abs().max() / expected.abs().max().clamp(min=1e-3))


def agree(given: list[Tensor], layouts: list[list[segments.Segments]], *, scale: float | None = None) -> bool:
    """Whether the output and the three gradients of the fast one are those of the naive one, to what their dtype allows."""
    tolerance = RELATIVE[str(given[0].dtype).removeprefix("torch.")]
    twins = [tensor.detach().double().requires_grad_() for tensor in given]
    fast = segments.attend(*given, layouts, scale=scale)
    slow = naive_attention.attend(*twins, layouts, scale=scale)
    weights = torch.linspace(-1.0, 1.0, slow.numel(), dtype=torch.float64).view(slow.shape)
    fast.backward(weights.to(fast.dtype))
    slow.backward(weights.to(fast.dtype).double())
    pairs = [(fast, slow), *((one.grad, two.grad) for one, two in zip(given, twins, strict=True))]
    return all(gap(one, two) < tolerance for one, two in pairs)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_fast_equals_naive_in_value_and_gradient(layout: str, shape: str) -> None:
    layouts = LAYOUTS[layout]
    given = inputs(len(layouts), SHAPES[shape], 13, dtype=torch.float64)
    assert agree(given, layouts)


@pytest.mark.parametrize("length", [1, 2, 3, 17, 33, 64])
def test_odd_lengths(length: int) -> None:
    layouts = [list(Shifted().parts([length], 0))]
    assert agree(inputs(1, (4, 2), length, dtype=torch.float64), layouts)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_every_dtype(dtype: torch.dtype) -> None:
    layouts = [list(Shifted().parts([37], 0)), [until([7, 37])] * 2]
    assert agree(inputs(2, (4, 2), 37, dtype=dtype), layouts)


@pytest.mark.parametrize("width", [4, 12])
def test_values_of_another_width_and_a_scale_of_its_own(width: int) -> None:
    given = inputs(2, (4, 2), 13, width=width, dtype=torch.float64)
    assert agree(given, LAYOUTS["two parts, rows cut differently"], scale=0.7)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_segment_sees_a_prefix(layout: str) -> None:
    layouts = LAYOUTS[layout]
    given = inputs(len(layouts), (4, 2), 13, prefix=3, dtype=torch.float64)
    assert agree(given, layouts)


def test_nothing_outside_a_segment_is_read() -> None:
    query, key, value = (tensor.detach() for tensor in inputs(1, (2, 2), 12, dtype=torch.float32))
    for tensor in (query, key, value):
        tensor[:, :, 5:8] = torch.nan
    out = segments.attend(query, key, value, [[until([5, 8, 12])]])
    assert out[:, :5].isfinite().all()
    assert out[:, 8:].isfinite().all()
    assert out[:, 5:8].isnan().all()


class Largest(TorchDispatchMode):
    """The most numbers that any tensor holds which an operation makes."""

    def __init__(self) -> None:
        super().__init__()
        self.numbers = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        made = func(*args, **(kwargs or {}))
        for tensor in made if isinstance(made, tuple | list) else (made,):
            if isinstance(tensor, Tensor):
                self.numbers = max(self.numbers, tensor.numel())
        return made


@pytest.mark.parametrize("shape", ["shared keys", "halves cut a group"])
@pytest.mark.parametrize("width", [4, 8])
def test_no_tensor_is_as_large_as_a_mask(shape: str, width: int) -> None:
    length, heads = 1024, SHAPES[shape]
    given = inputs(1, heads, length, width=width, dtype=torch.float32)
    with Largest() as seen:
        out = segments.attend(*given, [[until([256, 512, 768, 1024]), until([100, 900, 1024])]])
        out.sum().backward()
    assert seen.numbers <= heads[0] * length * 8 < length * length // 8


class KeyHeads(TorchDispatchMode):
    """Heads of the keys that the kernel is given."""

    def __init__(self) -> None:
        super().__init__()
        self.found: set[int] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        if "flash_attention_for_cpu" in str(func) and "backward" not in str(func):
            self.found.add(args[1].shape[1])
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(("shape", "num_keys"), [("shared keys", {1}), ("one key", {1}), ("halves cut a group", {4, 5})])
def test_keys_are_repeated_only_where_halves_cut_a_group(shape: str, num_keys: set[int]) -> None:
    given = inputs(1, SHAPES[shape], 13, dtype=torch.float32)
    with KeyHeads() as seen:
        segments.attend(*given, LAYOUTS["two parts"][:1])
    assert seen.found == num_keys


def test_parts_need_as_many_heads() -> None:
    given = inputs(1, (1, 1), 8, dtype=torch.float32)
    with pytest.raises(UnsupportedError, match="2 parts of the heads got 1 heads; use a pattern that takes all heads alike"):
        segments.attend(*given, [[until([8]), until([4, 8])]])


def test_no_token_of_a_pack_is_lost() -> None:
    wraps = ("separate", "swap", "rolled")
    for group, ends, wrap in itertools.product((2, 3, 5), ([11], [1, 11], [4, 5, 11]), wraps):
        for part in Shifted(group=group, wrap=wrap).parts(ends, 0):  # type: ignore[arg-type]
            assert sorted(t for segment in part for a, b in segment for t in range(a, b)) == list(range(11))
