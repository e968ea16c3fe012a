"""Shifted sparse attention groups a document alike wherever it stands: alone, packed, padded, in a batch."""

from typing import Any

import pytest
import torch
from attention_models import VOCABULARY, close, documents, gradients, ids, llama, positions, sees
from torch import Tensor
from torch.nn import functional

from ropewalk.attention.registered import put_on
from ropewalk.attention.shifted import Shifted
from ropewalk.core.errors import InputError

LENGTHS = [11, 3, 4, 9, 1]
"""Three groups and less, less than one, one, two and a rest, a single token."""
WEIGHTS = torch.linspace(-1, 1, VOCABULARY)
SETTINGS = [
    Shifted(group=4, pattern=pattern, wrap=wrap)  # type: ignore[arg-type]
    for pattern in ("heads", "layers", "unshifted", "shifted")
    for wrap in ("separate", "swap", "rolled")
]


def learned(model: Any, row: Tensor, real: Tensor, **given: Tensor) -> tuple[Tensor, Tensor]:
    """The logits of the real tokens, in order, and a number made of them that has a gradient."""
    logits = model(row, use_cache=False, **given).logits[real]
    return logits, (logits @ WEIGHTS).square().sum()


def apart(model: Any, row: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """Each document in a pass of its own: all logits, and the sum of the gradients."""
    logits = []
    for document in row.split(LENGTHS, dim=1):
        own, loss = learned(model, document, torch.ones(document.shape, dtype=torch.bool))
        loss.backward()
        logits.append(own.detach())
    found = gradients(model)
    model.zero_grad()
    return torch.cat(logits), found


def padded(row: Tensor, length: int) -> tuple[Tensor, Tensor]:
    """A row for each document, filled with zeros at its end, and which tokens are real."""
    parts = row[0].split(LENGTHS)
    rows = torch.stack([functional.pad(part, (0, length - part.numel())) for part in parts])
    return rows, torch.arange(length) < torch.tensor(LENGTHS)[:, None]


def check(model: Any, got: tuple[Tensor, Tensor], expected: tuple[Tensor, dict[str, Tensor]]) -> None:
    logits, loss = got
    assert close(logits, expected[0])
    loss.backward()
    found = gradients(model)
    model.zero_grad()
    assert found.keys() == expected[1].keys()
    for name, gradient in found.items():
        assert close(gradient, expected[1][name]), name


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.name)
def test_alone_packed_and_padded_are_one(setting: Shifted) -> None:
    model, row = llama().train(), ids(1, sum(LENGTHS))
    with put_on(model, setting):
        expected = apart(model, row)
        everything = torch.ones(row.shape, dtype=torch.bool)
        pack = {"position_ids": positions(LENGTHS), "document_ids": documents(LENGTHS)}
        check(model, learned(model, row, everything, **pack), expected)
        for length in (11, 16):
            rows, real = padded(row, length)
            check(model, learned(model, rows, real, document_ids=(~real).long()), expected)
            check(model, learned(model, rows, real, attention_mask=real.long()), expected)


def test_a_share_of_a_batch_that_may_be_padded_is_refused(model: Any) -> None:
    share = Shifted(group=0.25)
    # The same document of 11 tokens, alone and padded to 16.
    assert share.at(11) != share.at(16)
    with pytest.raises(InputError, match=r"group is 0\.25, a share of rows whose length is not said"), put_on(model, share):
        pass


@pytest.mark.parametrize("heads", [(4, 4), (4, 1), (3, 3), (6, 3)])
def test_shared_keys_and_odd_heads(heads: tuple[int, int]) -> None:
    model = llama(hidden_size=8 * heads[0], num_attention_heads=heads[0], num_key_value_heads=heads[1]).train()
    row = ids(1, sum(LENGTHS))
    with put_on(model, Shifted(group=4)):
        expected = apart(model, row)
        pack = {"position_ids": positions(LENGTHS), "document_ids": documents(LENGTHS)}
        check(model, learned(model, row, torch.ones(row.shape, dtype=torch.bool), **pack), expected)


def test_rows_of_one_group_beside_rows_of_several(model: Any) -> None:
    """A batch whose rows have different numbers of parts."""
    model.train()
    rows, real = padded(ids(1, sum(LENGTHS)), 11)
    with put_on(model, Shifted(group=4)):
        together = model(rows, use_cache=False, document_ids=(~real).long()).logits
        for index, length in enumerate(LENGTHS):
            alone = model(rows[index : index + 1, :length], use_cache=False).logits
            assert close(together[index, :length], alone[0])


@pytest.mark.parametrize("wrap", ["separate", "swap", "rolled"])
def test_one_group_for_each_document_is_full_attention_inside_documents(model: Any, wrap: Any) -> None:
    model.train()
    row = ids(1, sum(LENGTHS))
    given = {"position_ids": positions(LENGTHS), "document_ids": documents(LENGTHS), "use_cache": False}
    with put_on(model):
        full = model(row, **given).logits
    with put_on(model, Shifted(group=11, wrap=wrap)):
        assert close(model(row, **given).logits, full)
    with put_on(model, Shifted(group=10, wrap=wrap)):
        assert not close(model(row, **given).logits, full)


def test_the_rolled_form_leaks_inside_a_document_only(model: Any) -> None:
    model.train()
    lengths, row = [8, 8], ids(1, 16)
    given = {"position_ids": positions(lengths), "document_ids": documents(lengths)}
    with put_on(model, Shifted(group=4, wrap="rolled")):
        # The last half group, and through the second layer what its own group says of the half before it.
        assert [late for late in range(1, 16) if sees(model, row, 0, late, **given)] == [4, 5, 6, 7]
        assert [late for late in range(9, 16) if sees(model, row, 8, late, **given)] == [12, 13, 14, 15]
    with put_on(model, Shifted(group=4)):
        assert not any(sees(model, row, 0, late, **given) for late in range(1, 16))
