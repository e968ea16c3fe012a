"""The chunked loss against the naive one, in value and gradient, for both ways of computing it."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional
from torch.profiler import ProfilerActivity, profile

from ropewalk.tune.loss import HeadForm, has_torch_chunks, num_learned, operator_serves, summed_loss
from ropewalk.tune.measured import peak_of

FORMS = {"plain": HeadForm(), "multiplier": HeadForm(multiplier=0.25), "softcap": HeadForm(softcap=3.0)}
WAYS = [True, False] if has_torch_chunks() else [True]


def problem(*, bias: bool, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """Hidden states [2, 9, 6], labels [2, 9] with holes, weight [11, 6], bias."""
    torch.manual_seed(3)
    hidden = torch.randn(2, 9, 6, dtype=dtype, requires_grad=True)
    weight = torch.randn(11, 6, dtype=dtype, requires_grad=True)
    labels = torch.randint(0, 11, (2, 9))
    labels[0, 0], labels[1, 4], labels[1, 5] = -100, -100, -100
    return hidden, labels, weight, torch.randn(11, dtype=dtype, requires_grad=True) if bias else None


def naive(hidden: Tensor, labels: Tensor, weight: Tensor, bias: Tensor | None, form: HeadForm) -> Tensor:
    """All logits at once, as transformers does it."""
    logits = functional.linear(hidden, weight, bias) * form.multiplier
    if form.softcap:
        logits = torch.tanh(logits / form.softcap) * form.softcap
    return functional.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), reduction="sum")


@pytest.mark.parametrize("own_loop", WAYS)
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("name", FORMS)
def test_equal_to_the_naive_loss_in_value_and_gradient(name: str, bias: bool, own_loop: bool) -> None:
    hidden, labels, weight, offset = problem(bias=bias, dtype=torch.float32)
    leaves = [x for x in (hidden, weight, offset) if x is not None]
    expected = naive(hidden, labels, weight, offset, FORMS[name])
    wanted = torch.autograd.grad(expected / 7, leaves)
    # Three rows a chunk: sixteen rows less three end in a short chunk.
    got = summed_loss(hidden, labels, weight, offset, form=FORMS[name], chunk_bytes=3 * 4 * 11, own_loop=own_loop)
    torch.testing.assert_close(got, expected)
    for mine, theirs in zip(torch.autograd.grad(got / 7, leaves), wanted, strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("own_loop", WAYS)
def test_a_frozen_head_gets_no_gradient_and_the_hidden_states_do(own_loop: bool) -> None:
    hidden, labels, weight, _ = problem(bias=False, dtype=torch.float32)
    frozen = weight.detach()
    (wanted,) = torch.autograd.grad(naive(hidden, labels, frozen, None, HeadForm()), [hidden])
    loss = summed_loss(hidden, labels, frozen, chunk_bytes=1, own_loop=own_loop)
    (got,) = torch.autograd.grad(loss, [hidden])
    torch.testing.assert_close(got, wanted, atol=1e-6, rtol=1e-5)


def test_a_tied_weight_gets_both_of_its_gradients() -> None:
    _, labels, weight, _ = problem(bias=False, dtype=torch.float32)
    ids = labels.clamp(min=0)

    def gradient(chunked: bool) -> Tensor:
        hidden = functional.embedding(ids, weight).cumsum(1)
        form = HeadForm()
        loss = (
            summed_loss(hidden, labels, weight, chunk_bytes=1, own_loop=True)
            if chunked
            else naive(hidden, labels, weight, None, form)
        )
        return torch.autograd.grad(loss, [weight])[0]

    torch.testing.assert_close(gradient(True), gradient(False), atol=1e-5, rtol=1e-5)


def test_no_learned_token_is_a_zero_that_still_has_a_gradient() -> None:
    hidden, labels, weight, _ = problem(bias=False)
    loss = summed_loss(hidden, torch.full_like(labels, -100), weight)
    assert loss.item() == 0.0
    assert all(grad.abs().max() == 0 for grad in torch.autograd.grad(loss, [hidden, weight]))


def test_the_first_label_of_a_row_is_never_counted() -> None:
    _, labels, _, _ = problem(bias=False)
    labels[0, 0] = 5
    assert num_learned(labels) == 2 * 8 - 2


def test_our_loop_holds_one_chunk_of_logits_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    inner = HeadForm.logits

    def watched(self: HeadForm, hidden: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        seen.append(hidden.shape[0])
        return inner(self, hidden, weight, bias)

    monkeypatch.setattr(HeadForm, "logits", watched)
    hidden, labels, weight, _ = problem(bias=False)
    summed_loss(hidden, labels, weight, chunk_bytes=4 * 4 * 11, own_loop=True)
    assert seen == [4, 4, 4, 2]


def test_in_half_precision_the_sum_over_many_chunks_loses_nothing() -> None:
    torch.manual_seed(0)
    hidden = torch.rand(1, 2049, 4).bfloat16().requires_grad_()
    weight = torch.randn(11, 4).bfloat16().requires_grad_()
    labels = torch.randint(0, 11, (1, 2049))
    (got,) = torch.autograd.grad(summed_loss(hidden, labels, weight, chunk_bytes=1), [weight])
    exact = weight.detach().float().requires_grad_()
    (wanted,) = torch.autograd.grad(naive(hidden.detach().float(), labels, exact, None, HeadForm()), [exact])
    assert got.dtype == torch.bfloat16
    # Sums kept in bfloat16 fail here.
    assert (got.float() - wanted).abs().max() < 0.01 * wanted.abs().max()


def test_in_half_precision_the_loss_is_added_up_in_float32() -> None:
    """16k tokens of 5 nats: a sum in bfloat16 has steps of 512 at its end, and stops growing before."""
    torch.manual_seed(0)
    hidden, weight = torch.randn(1, 16385, 16).bfloat16(), torch.randn(150, 16).bfloat16()
    labels = torch.randint(0, 150, (1, 16385))
    wanted = naive(hidden.float(), labels, weight.float(), None, HeadForm()) / 16384
    got = summed_loss(hidden, labels, weight, chunk_bytes=4 * 150 * 64)
    assert got.dtype == torch.float32
    assert abs(got / 16384 - wanted) < 2e-3 * wanted


@pytest.mark.parametrize(("dtype", "form", "autocast", "serves"), [
    (torch.float32, HeadForm(), False, True), (torch.float32, HeadForm(softcap=30.0), False, False),
    (torch.float32, HeadForm(), True, False), (torch.bfloat16, HeadForm(), False, False),
])  # fmt: skip
def test_the_operator_is_taken_for_float32_off_the_cpu(
    dtype: torch.dtype, form: HeadForm, autocast: bool, serves: bool
) -> None:
    assert operator_serves(torch.empty(2, 4, dtype=dtype, device="meta"), form, autocast=autocast) is serves
    assert not operator_serves(torch.empty(2, 4, dtype=dtype), form, autocast=autocast)


def in_half(hidden: Tensor, labels: Tensor, weight: Tensor, *, chunk_bytes: int) -> list[Tensor]:
    """Loss and gradients under autocast."""
    with torch.autocast("cpu", torch.bfloat16):
        loss = summed_loss(hidden, labels, weight, chunk_bytes=chunk_bytes, own_loop=True)
    return [loss, *torch.autograd.grad(loss, [hidden, weight])]


def test_under_autocast_chunks_are_multiplied_as_the_whole_is() -> None:
    hidden, labels, weight, _ = problem(bias=False, dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        wanted = naive(hidden, labels, weight, None, HeadForm())
    wholes = [wanted, *torch.autograd.grad(wanted, [hidden, weight])]
    for got, whole in zip(in_half(hidden, labels, weight, chunk_bytes=4 * 4 * 11), wholes, strict=True):
        assert got.dtype == torch.float32
        assert (got - whole).abs().max() < 0.01 * whole.abs().max()
    # Something was rounded: it is not float32 that is compared.
    assert not torch.equal(wholes[0], naive(hidden, labels, weight, None, HeadForm()))


def test_under_autocast_no_copy_of_the_head_is_kept_for_each_chunk() -> None:
    """The weight in bfloat16 is 256 KB: 64 chunks held 16 MB of it, beside logits of 32 KB."""
    weight = torch.randn(2048, 64, requires_grad=True)
    hidden, labels = torch.randn(1, 257, 64, requires_grad=True), torch.randint(0, 2048, (1, 257))
    peaks = []
    for num_chunks in (1, 64):
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as watched:
            in_half(hidden, labels, weight, chunk_bytes=4 * 2048 * 256 // num_chunks)
        peaks.append(peak_of(watched))
    assert peaks[1] < peaks[0]
