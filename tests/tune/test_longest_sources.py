"""`--longest` on the sources that `tune` trains: plans of two regimes, families without sdpa, layers with windows."""

from pathlib import Path
from typing import Any

import pytest
import torch
from test_longest import fake
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, MistralConfig, MistralForCausalLM

import ropewalk
from ropewalk.api.training_longest import longest
from ropewalk.core.budget import GIGABYTE
from ropewalk.core.errors import InputError
from ropewalk.tune.longest import Search
from ropewalk.tune.measured import measured, plain
from ropewalk.tune.settings import Settings, Stage

SHAPE: dict[str, Any] = {
    "vocab_size": 258, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 4, "num_attention_heads": 2,
    "num_key_value_heads": 1, "head_dim": 16, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1,
}  # fmt: skip
LONGROPE = f"longrope:short_factor={'|'.join(['1'] * 8)},long_factor={'|'.join(['4'] * 8)}"
ON_CPU: dict[str, Any] = {"device": "cpu", "dtype": "float32", "confirm": False}


@pytest.fixture
def fits(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that counts 1000 bytes for each token of a layer, at once."""

    def child(search: Search, kind: str, **job: Any) -> Any:
        return fake(holds=2**40)((), {"kind": kind, **job}, limit_bytes=2**40)

    monkeypatch.setattr(Search, "_child", child)


@pytest.fixture
def longrope(tied: Path, tmp_path: Path) -> Path:
    """Switches after 64 tokens, reads 256."""
    ropewalk.extend(tied, LONGROPE, length=256, out=tmp_path / "longrope")
    return tmp_path / "longrope"


@pytest.mark.usefixtures("fits")
def test_a_plan_of_two_regimes_is_asked_for(longrope: Path, capsys: pytest.CaptureFixture[str]) -> None:
    # Two layers of 1000 bytes a token.
    assert longest(longrope, memory="2048K", **ON_CPU).length == 1024
    for row in (80, 256, 512):
        assert longest(longrope, memory="1G", length=row, **ON_CPU).length == row
    assert "old length" not in capsys.readouterr().err
    with pytest.raises(InputError, match="give a --window beyond the old length"):
        longest(longrope, memory="1G", length=64, **ON_CPU)


@pytest.mark.usefixtures("fits")
def test_rows_that_do_not_pass_the_switch_are_said_to_train_nothing(
    longrope: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert longest(longrope, memory="97K", **ON_CPU).length == 48
    assert "rows of 48 tokens never pass the old length of 64" in capsys.readouterr().err


@pytest.fixture
def mistral(tied: Path, tmp_path: Path) -> Path:
    """Every layer has a window, and the config lists no kinds of layers, as of Mistral 7B v0.1."""
    torch.manual_seed(0)
    config = MistralConfig(**SHAPE, max_position_embeddings=256, sliding_window=64)
    MistralForCausalLM(config).save_pretrained(tmp_path / "mistral")
    AutoTokenizer.from_pretrained(tied).save_pretrained(tmp_path / "mistral")
    return tmp_path / "mistral"


@pytest.mark.usefixtures("fits")
def test_rows_beyond_the_layers_windows_are_refused_before_anything_is_measured(mistral: Path) -> None:
    for row in (None, 65, 512):
        with pytest.raises(InputError, match=r"see 64 tokens, fewer than a row of .*--attention own"):
            longest(mistral, memory="1G", length=row, **ON_CPU)
        assert longest(mistral, memory="1G", length=row, attention="own", **ON_CPU).length >= (row or 1024)
    assert longest(mistral, memory="1G", length=64, **ON_CPU).length == 64


@pytest.mark.usefixtures("fits")
@pytest.mark.parametrize("settings", [{"positions": "pose"}, {"recipe": "prefix", "checkpoint_every": 0}], ids=str)
def test_what_takes_shorter_rows_than_the_length_is_asked_for(settings: dict[str, Any], tied: Path) -> None:
    for row in (None, 64, 4096):
        assert longest(tied, memory="1G", length=row, **ON_CPU, **settings).length >= (row or 1024)


@pytest.mark.parametrize("depth", [2, None], ids=["a few layers", "the whole model"])
def test_a_family_without_sdpa_is_measured_with_the_attention_that_it_trains_with(
    depth: int | None, tied: Path, tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    more = {"sliding_window": 16, "rope_parameters": {"rope_type": "default", "rope_theta": 5e4}}
    config = AutoConfig.for_model("gemma2", **SHAPE, **more, max_position_embeddings=64)
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "gemma2")
    AutoTokenizer.from_pretrained(tied).save_pretrained(tmp_path / "gemma2")
    settings = Settings(length=64, stages=(Stage(window=16, steps=1),), attention="own")
    job = {
        "source": str(tmp_path / "gemma2"), "device": "cpu", "bfloat16": False, "settings": plain(settings),
        "limit_bytes": GIGABYTE,
    }  # fmt: skip
    found = measured(job, num_layers=depth, window=48, counted=False)
    assert (found["num_layers"], found["tokens"]) == (depth or 4, 48)
