"""What others fell into, each shown on the naive way first."""

from pathlib import Path

import pytest
import torch
from small import Tune
from streams import Counting
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM

import ropewalk
from ropewalk.attention.registered import put_on
from ropewalk.data.positions import pose
from ropewalk.data.rows import Row, make_row
from ropewalk.hosts import folder, live
from ropewalk.tune.batches import collate
from ropewalk.tune.learner import Learner

YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}


def model_of(path: Path) -> torch.nn.Module:
    model, _ = live.load(path, dtype=torch.float32, device="cpu")
    return model  # type: ignore[no-any-return]


# --- the base is never lost ---------------------------------------------------------------------------------------------


def test_a_new_rope_scaling_loses_the_base_in_transformers(tied: Path) -> None:
    config = AutoConfig.from_pretrained(tied)
    assert config.rope_parameters["rope_theta"] == 50_000.0
    with pytest.warns(FutureWarning, match="rope_scaling"):
        config.rope_scaling = dict(YARN)
    assert config.rope_parameters.get("rope_theta") is None


LONGROPE = f"longrope:short_factor={'|'.join(['1'] * 8)},long_factor={'|'.join(['4'] * 8)}"


@pytest.mark.parametrize("method", ["yarn", "pi", "ntk", "abf", LONGROPE], ids=lambda method: method.partition(":")[0])
def test_the_trained_model_turns_by_the_plan_of_its_own_base(method: str, tied: Path, tune: Tune, tmp_path: Path) -> None:
    plan = ropewalk.plan(tied, method, length=256)
    # Rows beyond the old length of 64, so that a plan of two regimes trains the second.
    tune(tmp_path / "out", method=method, steps=1, window=80)
    used = ropewalk.read_back(model_of(tmp_path / "out")).frequencies
    # At the declared length, where a plan of two regimes is in the second.
    assert used.difference(plan.at(256).frequencies) < 1e-5
    found = ropewalk.verify(tmp_path / "out")
    assert [verdict.status for verdict in found.verdicts if verdict.engine == "transformers"] == ["exact"]


def test_without_a_method_the_source_keeps_what_it_carries(tied: Path, tune: Tune, tmp_path: Path) -> None:
    ropewalk.extend(tied, "yarn", length=256, out=tmp_path / "extended")
    assert ropewalk.geometry(tmp_path / "extended").lineage == "runtime"
    tune(tmp_path / "out", start=tmp_path / "extended", method=None, steps=1)
    assert ropewalk.geometry(tmp_path / "out").lineage == "trained"
    assert ropewalk.geometry(tmp_path / "out").trained_length == 256


# --- the plan is on before the model is built, and read back ---------------------------------------------------------------


def test_changing_the_config_of_a_built_model_changes_nothing_in_transformers(tied: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(tied)
    before = model.model.rotary_emb.inv_freq.clone()
    model.config.rope_parameters = {**YARN, "rope_theta": 50_000.0}
    model(torch.arange(8)[None])
    assert torch.equal(model.model.rotary_emb.inv_freq, before)


def test_the_model_of_a_run_is_built_with_the_plan(tied: Path, tmp_path: Path) -> None:
    plan = ropewalk.plan(tied, "yarn", length=256)
    folder.write_start(folder.open_checkpoint(tied), plan, tmp_path / "plan", length=256)
    model, tokenizer = live.build(tied, tmp_path / "plan", dtype=torch.float32, device=torch.device("cpu"))
    assert ropewalk.read_back(model).frequencies.difference(plan.frequencies) < 1e-6
    assert tokenizer.model_max_length == 256


# --- PoSE ------------------------------------------------------------------------------------------------------------------


def posed() -> tuple[Row, int]:
    """A row whose positions jump, and where its second chunk begins."""
    import numpy as np

    row = pose(Counting(24).row(0), 256, np.random.default_rng(5))
    return row, int(np.flatnonzero(np.diff(row.position_ids) > 1)[0]) + 1


def reach(loss: Tensor, embedded: Tensor, upto: int) -> float:
    """How much a loss depends on the first `upto` tokens."""
    (gradient,) = torch.autograd.grad(loss, [embedded])
    return float(gradient[0, :upto].abs().max())


def last_logit(model: torch.nn.Module, row: Row, **told: Tensor) -> tuple[Tensor, Tensor]:
    """The last token's logits, summed in squares, and the embedded tokens they come from."""
    batch = collate([row])
    embedded = model.get_input_embeddings()(batch["input_ids"]).detach().requires_grad_(True)
    hidden = model.get_decoder()(inputs_embeds=embedded, position_ids=batch["position_ids"], use_cache=False, **told)
    return hidden.last_hidden_state[0, -1].square().sum() + hidden.last_hidden_state[0, -1, 0], embedded


def test_the_second_chunk_of_pose_sees_nothing_of_the_first_in_transformers(tied: Path) -> None:
    row, second = posed()
    assert reach(*last_logit(model_of(tied), row), second) == 0.0


def test_the_second_chunk_of_pose_attends_to_the_first(tied: Path) -> None:
    row, second = posed()
    model = model_of(tied).train()
    with put_on(model):
        loss, embedded = last_logit(model, row, document_ids=collate([row])["document_ids"])
        assert reach(loss, embedded, second) > 1e-6


# --- packed documents ------------------------------------------------------------------------------------------------------


def packed() -> tuple[Row, list[Row]]:
    """Three documents of different lengths in one row, and each alone."""
    pieces = []
    for index, size in enumerate((13, 8, 21)):
        ids = Counting(size).row(index).ids
        pieces.append((ids, ids >= 0))
    return make_row(pieces), [make_row([piece]) for piece in pieces]


def test_a_pack_is_its_documents_apart_in_loss_and_gradient(tied: Path) -> None:
    pack, alone = packed()
    model = model_of(tied).train().requires_grad_(True)
    with put_on(model):
        learner = Learner(model)
        together = learner(**collate([pack]))["loss"]
        wanted = torch.autograd.grad(together, list(learner.parameters()))
        separate = sum(learner(**collate([row]))["loss"] for row in alone)
        torch.testing.assert_close(together, separate)
        for got, expected in zip(torch.autograd.grad(separate, list(learner.parameters())), wanted, strict=True):
            torch.testing.assert_close(got, expected, atol=2e-5, rtol=1e-4)


def test_a_dense_causal_row_leaks_between_documents(tied: Path) -> None:
    pack, alone = packed()
    model = model_of(tied)
    learner, batch = Learner(model), collate([pack])
    batch["document_ids"], batch["position_ids"] = torch.zeros_like(batch["document_ids"]), torch.arange(42)[None]
    separate = sum(learner(**collate([row]))["loss"].item() for row in alone)
    assert abs(learner(**batch)["loss"].item() - separate) > 1e-2


def test_documents_of_a_pack_have_no_gradient_through_one_another(tied: Path) -> None:
    pack, _ = packed()
    model = model_of(tied).train()
    with put_on(model):
        loss, embedded = last_logit(model, pack, document_ids=collate([pack])["document_ids"])
        (gradient,) = torch.autograd.grad(loss, [embedded])
    assert float(gradient[0, :21].abs().max()) == 0.0
    assert float(gradient[0, 21:].abs().max()) > 1e-6


def test_the_first_token_of_each_document_is_never_learned(tied: Path) -> None:
    pack, _ = packed()
    batch = collate([pack])
    learner = Learner(model_of(tied))
    with put_on(learner.bare):
        whole = learner(**batch)["loss"]
        for first in (0, 13, 21):
            assert batch["labels"][0, first] == -100
        batch["labels"][0, 13] = batch["input_ids"][0, 13]
        assert not torch.isclose(learner(**batch)["loss"], whole)


def test_shorter_rows_are_padded_under_an_id_that_nobody_learns_from(tied: Path) -> None:
    rows = [Counting(24).row(0), Counting(9).row(1)]
    learner = Learner(model_of(tied))
    with put_on(learner.bare):
        together = learner(**collate(rows))["loss"]
        torch.testing.assert_close(together, sum(learner(**collate([row]))["loss"] for row in rows))
