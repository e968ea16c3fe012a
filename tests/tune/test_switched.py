"""Plans that switch by length: transformers takes the numbers of a whole batch from its largest position.

What is refused (packs, several rows in a batch, rows that never pass the old length) is shown to differ, and what is allowed
to be what the text alone is turned by.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small import Tune
from streams import Counting
from torch import Tensor

import ropewalk
from ropewalk.api.training_request import request
from ropewalk.attention.registered import put_on
from ropewalk.core.errors import InputError
from ropewalk.data.rows import Row, make_row
from ropewalk.hosts import live
from ropewalk.tune.batches import collate
from ropewalk.tune.learner import Learner

OLD = 64
"""What the tiny model was trained for, and where the plan switches."""
LONGROPE = f"longrope:short_factor={'|'.join(['1'] * 8)},long_factor={'|'.join(['4'] * 8)}"


@pytest.fixture(scope="module")
def longrope(tied: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("longrope") / "model"
    ropewalk.extend(tied, LONGROPE, length=256, out=out)
    return out


@pytest.fixture
def model(longrope: Path) -> Any:
    return live.load(longrope, dtype=torch.float32, device="cpu")[0].train().requires_grad_(True)


def document(size: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    ids = np.random.default_rng(seed).integers(2, 200, size=size)
    return ids, np.ones(size, dtype=bool)


def row(*sizes: int, length: int = 0) -> Row:
    return make_row([document(size, size) for size in sizes], length=length)


def loss_and_gradient(model: Any, batches: list[list[Row]]) -> tuple[float, Tensor]:
    with put_on(model):
        learner = Learner(model)
        loss = sum(learner(**collate(batch))["loss"] for batch in batches)
        gradients = torch.autograd.grad(loss, list(learner.parameters()))
    return float(loss.detach()), torch.cat([gradient.flatten() for gradient in gradients])


def check_equal(model: Any, one: list[list[Row]], other: list[list[Row]]) -> None:
    (loss, gradient), (expected, wanted) = (loss_and_gradient(model, batches) for batches in (one, other))
    assert loss == pytest.approx(expected, rel=1e-6)
    assert float((gradient - wanted).abs().max()) < 1e-5 * float(wanted.abs().max())


def check_differs(model: Any, one: list[list[Row]], other: list[list[Row]]) -> None:
    (loss, gradient), (expected, wanted) = (loss_and_gradient(model, batches) for batches in (one, other))
    assert abs(loss - expected) > 1e-4 * expected
    assert float((gradient - wanted).abs().max()) > 1e-3 * float(wanted.abs().max())


def test_short_documents_beside_a_long_one_turn_otherwise(model: Any) -> None:
    alone = [[row(80)], [row(30)]]
    check_differs(model, [[row(80, 30)]], alone)
    check_differs(model, [[row(80), row(30)]], alone)


def test_one_document_in_a_row_and_one_row_in_a_batch_turn_as_the_text_alone(model: Any) -> None:
    """Whatever the row is padded to, also beyond the switch."""
    for size in (30, 64, 80):
        check_equal(model, [[row(size, length=112)]], [[row(size)]])
    # Padding beyond the switch at positions of its own would be taken for a long text.
    far = row(30, length=112)
    counted = Row(far.ids, far.labels, np.arange(112), far.document_ids)
    check_differs(model, [[counted]], [[row(30)]])


def test_rows_below_the_switch_never_train_the_long_numbers(model: Any, tied: Path) -> None:
    """They are those of the model as it was, but for the factor on cos and sin."""
    rotary = model.model.rotary_emb
    loss_and_gradient(model, [[row(64)]])
    plain = live.load(tied, dtype=torch.float32, device="cpu")[0].model.rotary_emb
    torch.testing.assert_close(rotary.inv_freq, plain.inv_freq)
    loss_and_gradient(model, [[row(65)]])
    torch.testing.assert_close(rotary.inv_freq, plain.inv_freq / 4)


def test_the_switch_is_known_of_plans_and_of_sources_that_carry_them(tied: Path, longrope: Path) -> None:
    asked = {"length": 256, "window": 80, "steps": 1, "device": "cpu"}
    planned, carried = request(tied, method=LONGROPE, **asked), request(longrope, **asked)
    assert [(one.kind, one.switch, one.apart) for one in (planned, carried)] == [("switched", OLD, True)] * 2
    plain = request(tied, method="yarn", **asked)
    assert (plain.kind, plain.switch, plain.apart) == ("static", None, False)


class Packs(Counting):
    """Two documents in each row."""

    def __init__(self, window: int) -> None:
        super().__init__(window, documents=2)


@pytest.mark.parametrize("method", [LONGROPE, None], ids=["planned", "carried"])
@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"data": Packs}, "plan switched and data packed do not go together: the model chooses its numbers by the largest"),
        ({"batch_size": 2}, "plan switched and batch several rows do not go together"),
        ({"window": OLD}, "plan switched and rows short do not go together: rows that never pass the old length"),
    ],
)
def test_what_would_differ_is_refused_before_anything_is_made(
    changes: dict[str, Any], words: str, method: str | None, tied: Path, longrope: Path, tune: Tune, tmp_path: Path
) -> None:
    start = longrope if method is None else tied
    with pytest.raises(InputError, match=words):
        tune(tmp_path / "out", start=start, **{"method": method, "window": 80, **changes})
    assert not list(tmp_path.iterdir())


def test_files_are_read_one_document_in_a_row(tied: Path, tune: Tune, tmp_path: Path) -> None:
    texts = tmp_path / "texts"
    texts.mkdir()
    for number in range(6):
        (texts / f"{number}.txt").write_text(" ".join(f"w{(number * i) % 50}" for i in range(60 + 20 * number)))
    options = {"data": texts, "window": 80, "data_options": {"allow_short": True}, "steps": 2}
    tune(tmp_path / "out", method=LONGROPE, **options)
    assert (tmp_path / "out" / "model.safetensors").is_file()
