"""Whatever is typed and whatever a config holds: a sentence, never a traceback."""

import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
from command import snapshot
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ropewalk.cli import main, make_parser, verbs

WORDS = st.sampled_from(
    [
        *verbs(make_parser()),
        *{option for parser in verbs(make_parser()).values() for option in parser.options()},
        "-h", "--", "-1", "0", "64", "65", "256", "4k", "8m", "pi", "yarn:beta_fast=2", "yarn:beta_fast=1,pi", "dynamic:",
        "none,crop", "longrope", "trained", "runtime", "auto", "cpu", "meta", "float32", "float13", "out", "out/in", ".",
        "..", "/", "", "@", "a/b", "tiny", "tiny/config.json", "short.txt", "text.gguf", "broken", "run",
    ]
)  # fmt: skip
ANY_TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=()), max_size=8)
ANY_WORD = st.one_of(WORDS, WORDS, WORDS, ANY_TEXT)
MEANT = st.sampled_from(
    [
        "methods yarn --json",
        "inspect tiny --lineage trained --json",
        "extend tiny --method yarn --length 256 --out out --force",
        "extend tiny --method dynamic:ntk --length 4k --dry-run",
        "convert text.gguf --out out --dtype float16",
        "compare tiny --methods pi;abf --length 256 --text short.txt --out out --lengths 256 --retrieval none --depths 1",
        "measure tiny --method pi --length 40 --text short.txt --out out --protocol disjoint --window 8 --dtype float32",
        "report run --json",
    ]
).map(str.split)


@st.composite
def slips(draw: st.DrawFn) -> list[str]:
    """A line that was meant, with a few pieces left out, replaced or put in."""
    line = list(draw(MEANT))
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(line)))
        line[at : at + draw(st.integers(0, 1))] = draw(st.lists(ANY_WORD, max_size=1))
    return line


LINES = st.one_of(st.lists(ANY_WORD, max_size=10), slips(), slips())


@pytest.fixture(scope="module")
def arena(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with something of everything."""
    folder = tmp_path_factory.mktemp("arena")
    (folder / "tiny").symlink_to(tiny_checkpoint)
    (folder / "short.txt").write_text("forty-two tokens of text are not so many.\n")
    (folder / "text.gguf").write_text("GGUF, it says")
    (folder / "broken").mkdir()
    (folder / "broken" / "config.json").write_text('{"model_type": "llama"')
    (folder / "run").mkdir()
    (folder / "run" / "card.json").write_text("{}")
    return folder


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(line=LINES)
def test_no_command_line_ends_in_a_traceback(line: list[str], arena: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(arena)
    # verify --execute is to find no engine that is set up.
    monkeypatch.setenv("ROPEWALK_ENGINES", "engines")
    before = snapshot(arena)
    try:
        code = main(line)
    except SystemExit as stop:
        code = int(stop.code or 0)
    assert code in (0, 2) or (code in (1, 3) and "verify" in line)
    if code in (2, 3):
        assert snapshot(arena) == before
    else:
        # A line that happens to mean something may make its folder.
        for name in set(snapshot(arena)) - set(before):
            made = arena / name.partition("/")[0]
            if made.exists():
                made.rename(Path(tempfile.mkdtemp(dir=arena.parent)) / "made")


FAMILIES = [
    "llama",
    "qwen3",
    "phi3",
    "gemma3_text",
    "deepseek_v3",
    "gpt_neox",
    "gpt_oss",
    "olmo3",
    "qwen3_5_text",
    "smollm3",
]
VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5), st.lists(st.integers(), max_size=2),
    st.sampled_from([10**400, -1, 0, 1, 2**31, 0.5, 1e308]),
    st.sampled_from(["yarn", "llama3", "longrope", "dynamic", "linear", "default", {}]),
)  # fmt: skip
ROPE = st.dictionaries(
    st.sampled_from(
        [
            "rope_type", "type", "factor", "rope_theta", "original_max_position_embeddings", "beta_fast", "beta_slow",
            "attention_factor", "mscale", "mscale_all_dim", "low_freq_factor", "high_freq_factor", "long_factor",
            "short_factor", "partial_rotary_factor", "truncate", "mrope_section", "full_attention",
        ]
    ),
    VALUES,
    max_size=5,
)  # fmt: skip
CONFIG = st.dictionaries(
    st.sampled_from(
        [
            "model_type", "rope_theta", "rope_scaling", "rope_parameters", "max_position_embeddings", "hidden_size",
            "num_attention_heads", "num_key_value_heads", "num_hidden_layers", "head_dim", "sliding_window", "layer_types",
            "partial_rotary_factor", "text_config", "ropewalk", "quantization_config",
        ]
    ),
    st.one_of(VALUES, ROPE),
    max_size=4,
)  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(
    changes=CONFIG, family=st.sampled_from(["llama", "qwen3", "phi3", "gemma3_text", "deepseek_v3", "gpt_neox", "gpt_oss"])
)
def test_no_config_ends_in_a_traceback(
    changes: dict[str, Any], family: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("fuzz")
    content = {"model_type": family, "max_position_embeddings": 64, "hidden_size": 32, "num_attention_heads": 2}
    (folder / "config.json").write_text(json.dumps(content | changes))
    assert main(["inspect", str(folder), "--json"]) in (0, 2)
    line = ["extend", str(folder), "--method", "yarn", "--length", "512", "--out", str(folder / "out")]
    code = main(line)
    assert code in (0, 2)
    assert (folder / "out").exists() == (code == 0)
