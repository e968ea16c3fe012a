"""The numbers of memory in the pages are those of the arithmetic: the table of what fits, and figures in the text.

A table that is not current is printed as it should be.
"""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from ropewalk.core.budget import Sizes, Training, budget, tokens_within, without_runtime
from ropewalk.tune.presets import names, read

DOCS = Path(__file__).parents[1] / "docs"
MODELS = {
    "Llama-3.2-1B": Sizes(
        hidden=2048, intermediate=8192, num_layers=16, num_heads=32, query=2048, key=512, vocabulary=128256, tied=True
    ),
    "Llama-2-7B": Sizes(
        hidden=4096, intermediate=11008, num_layers=32, num_heads=32, query=4096, key=4096, vocabulary=32000, tied=False
    ),
    "Llama-3.1-8B": Sizes(
        hidden=4096, intermediate=14336, num_layers=32, num_heads=32, query=4096, key=1024, vocabulary=128256, tied=False
    ),
}  # fmt: skip
SMOLLM2 = Sizes(
    hidden=576, intermediate=1536, num_layers=30, num_heads=9, query=576, key=192, vocabulary=49152, tied=True
)  # fmt: skip
ROWS, CARDS = (2, 8, 16, 32, 64), (24, 48, 80)


def page(name: str) -> str:
    return " ".join((DOCS / name).read_text(encoding="utf-8").split())


def gigabytes(sizes: Sizes, training: Training, tokens: int) -> float:
    return without_runtime(budget(sizes, training, tokens)).total / 10**9


def lines() -> Iterator[str]:
    """The table of what fits."""
    heads = ["model", "recipe", *(f"rows of {rows}k" for rows in ROWS), *(f"longest in {card} GB" for card in CARDS)]
    yield "| " + " | ".join(heads) + " |"
    yield "| " + " | ".join(["---"] * len(heads)) + " |"
    for name, sizes in MODELS.items():
        for recipe in ("full", "longlora", "lora"):
            training = Training(recipe=recipe, half=True, accumulated=True)
            needs = [f"{gigabytes(sizes, training, rows * 1024):.0f}" for rows in ROWS]
            fits = [tokens_within(card * 10**9, sizes, training) // 1024 for card in CARDS]
            cells = [name, f"`{recipe}`", *needs, *(f"{k}k" if k else "none" for k in fits)]
            yield "| " + " | ".join(cells) + " |"


def test_the_table_of_what_fits_is_current() -> None:
    made = "\n".join(lines())
    found = re.search(r"<!-- memory -->\n(.*?)\n<!-- /memory -->", (DOCS / "tune.md").read_text(), flags=re.DOTALL)
    assert found is not None
    assert found[1] == made, f"docs/tune.md should have\n{made}"


def test_sizes_are_those_of_the_models() -> None:
    """Parameters as published: 1.24, 6.74 and 8.03 billion."""
    assert [round(sizes.num_parameters / 10**9, 2) for sizes in MODELS.values()] == [1.24, 6.74, 8.03]


def test_figures_of_checkpointing_are_those_of_the_arithmetic() -> None:
    needs = [gigabytes(SMOLLM2, Training(checkpoint_every=every), 8192) for every in (1, 2, 4, 0)]
    one, two, four, none = (f"{need:.1f}" for need in needs)
    assert f"{one} GB at 1, {two} at 2, {four} at 4, {none} at 0" in page("tune.md")
    assert f"({gigabytes(SMOLLM2, Training(selective=True), 8192):.1f} GB here)" in page("tune.md")
    lean = gigabytes(MODELS["Llama-2-7B"], Training(half=True, accumulated=True, optimizer_bytes=0), 2048)
    assert f"at least {lean:.0f} GB for Llama-2-7B at 2k" in page("tune.md")


def test_figures_beside_the_peers_are_those_of_the_arithmetic() -> None:
    words = page("../benchmarks/README.md")
    near, far = (budget(SMOLLM2, Training(), rows * 1024).total / 10**9 for rows in (8, 64))
    most = tokens_within(24 * 10**9, SMOLLM2, Training())
    assert f"{near:.1f} GB at 8k, {far:.1f} GB at 64k and 24 GB at {most // 1024}k tokens" in words
    token = budget(SMOLLM2, Training(), 2**16 + 1).total - budget(SMOLLM2, Training(), 2**16).total
    assert f"one more token costs {token / 1000:.0f} KB" in words


@pytest.mark.parametrize("name", names())
def test_tokens_of_a_preset_are_those_of_its_file(name: str) -> None:
    """The page that says which recipe to take has a line for each run of a preset, of the tokens of a step and the steps."""
    for run in read(name).runs:
        rows = run["batch_size"] * run["accumulate"]
        window = str(run.get("window", run["length"]))
        tokens = rows * (int(window[:-1]) * 1024 if window.endswith("k") else int(window))
        cells = [f"{rows} x {window}", told(tokens), f"{run['steps']:,}", told(tokens * run["steps"])]
        rate = f"{run['learning_rate']:g}".replace("e-0", "e-")
        line = rf"\| `{name}`[^|]*\| [^|]* \| {re.escape(' | '.join([*cells, rate]))} \|"
        assert re.search(line, page("choosing.md")), line


def told(tokens: int) -> str:
    """Two digits of a number of tokens."""
    for size, unit in ((10**9, "B"), (10**6, "M"), (10**3, "k")):
        if tokens >= size:
            return f"{tokens / size:.2g}{unit}" if tokens < 100 * size else f"{tokens / size:.0f}{unit}"
    return str(tokens)
