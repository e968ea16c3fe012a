"""PoSE on a real model: short rows with positions to 32k, beside untuned methods at their own best factor.

    python -m experiments.miniature smollm2

NTK-aware and YaRN are given the best of three factors, by NLL beyond the window on one document that serves nothing else.
The tuned arm is YaRN at its formula's factor, all weights, rows of 2,048 tokens. Every arm is read on the same documents
beside cropping; then a needle is asked for at half the length and at all of it. A reading of a document, the training and a
needle run are cells of their own: a killed run goes on.

Given up: more than one seed of training, the paper's 1,000 steps of 64 rows, the tuned arm's own search of a factor, and the
model as it is past its window (cropping is how it is read). By the rate of reading (200 s for 32k tokens on two cores) all
of it is two hours: the grid 20 minutes, three arms on four documents 40, cropping 10, the training 8, needles 39.
"""

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import ropewalk
from experiments.miniature import reading
from experiments.miniature.intervals import over_documents
from experiments.miniature.locks import alone
from experiments.miniature.sizes import FULL, Sizes

METHODS = ("ntk", "yarn")
TABLE = "table.md"


@dataclass(frozen=True, kw_only=True)
class Asked:
    """The whole experiment."""

    model: Path
    train: tuple[Path, ...]
    choose: Path
    """The document that factors are chosen on."""
    texts: tuple[Path, ...]
    """What everything is read on at the end."""
    out: Path
    trained: int = 8192
    length: int = 32768
    window: int = 2048
    steps: int = 120
    rate: float = 2e-5
    factors: tuple[float, ...] = (4.0, 6.0, 8.0)
    crop_stride: int = 4096
    samples: int = 3
    depths: int = 5
    dtype: str = "bfloat16"

    @property
    def sizes(self) -> Sizes:
        """What `reading` goes by."""
        return dataclasses.replace(
            FULL, window=self.trained, lengths=(self.length, self.length), crop_stride=self.crop_stride
        )

    @property
    def tuned(self) -> Path:
        """The folder of the trained model."""
        return self.out / f"pose-{self.length}-{self.steps}steps"


def train(asked: Asked) -> None:
    """The arm with skipped positions, where it is not there yet."""
    with alone(asked.tuned):
        if (asked.tuned / "config.json").is_file():
            return
        ropewalk.tune(
            asked.model, [str(path) for path in asked.train], length=asked.length, method="yarn", out=asked.tuned,
            steps=asked.steps, window=asked.window, positions="pose", recipe="full", learning_rate=asked.rate,
            warmup_steps=min(10, asked.steps), batch_size=1, dtype=asked.dtype, device="cpu", save_every=20,
            resume=asked.tuned.exists(),
        )  # fmt: skip


def read(asked: Asked, method: str, text: Path, make: bool) -> reading.Curves | None:
    """NLL of a document's tokens under a method, `crop`, or `tuned`; None where it is not there and is not to be made."""
    path = asked.out / "read" / f"{text.stem}~{method.replace(':', '_').replace('=', '_')}.npy"
    with alone(path):
        if not path.is_file():
            if not make:
                return None
            curves = _curves(asked, method, text)
            np.save(path.with_suffix(".part.npy"), curves)
            path.with_suffix(".part.npy").replace(path)
        found: reading.Curves = np.load(path)
    return found


def _curves(asked: Asked, method: str, text: Path) -> reading.Curves:
    source = asked.tuned if method == "tuned" else asked.model
    model, tokenizer = ropewalk.load(source, dtype=asked.dtype, device="cpu")
    ids = np.asarray(tokenizer(text.read_text(encoding="utf-8"))["input_ids"], dtype=np.int64)
    if ids.size < asked.length:
        raise SystemExit(f"{text} has {ids.size} tokens, fewer than {asked.length}; give a longer one")
    documents: Any = {text.stem: ids}
    if method == "crop":
        return reading.cropped(model, documents, asked.sizes)
    if method == "tuned":
        return reading.as_loaded(model, documents, asked.sizes)
    return reading.under(model, ropewalk.plan(source, method, length=asked.length), documents, asked.sizes)


def best(asked: Asked, make: bool) -> dict[str, str]:
    """Each untuned method with the factor that reads the choosing document best; empty where that is not known."""
    chosen = {}
    for method in METHODS:
        options = [f"{method}:factor={factor:g}" for factor in asked.factors]
        found = {o: curves for o in options if (curves := read(asked, o, asked.choose, make)) is not None}
        if len(found) < len(options):
            return {}
        chosen[method] = min(found, key=lambda o: float(reading.beyond(found[o], asked.sizes, asked.length).mean()))
    return chosen


def needles(asked: Asked, method: str, make: bool) -> list[str]:
    """Share of needles that are the first choice at half the length and at all of it, with their intervals."""
    out = asked.out / f"needle-{method.replace(':', '_').replace('=', '_')}"
    tuned, lengths = method == "tuned", [asked.length // 2, asked.length]
    if not make and not (out / "card.json").is_file():
        return ["not run"] * 2
    if make:
        ropewalk.measure(
            asked.tuned if tuned else asked.model, out=out, text=[asked.choose], method=None if tuned else method,
            tasks="needle", lengths=lengths, depths=asked.depths, samples=asked.samples, dtype=asked.dtype, device="cpu",
            resume=out.exists(),
        )  # fmt: skip
    from ropewalk.core.record import Record

    found = {row.length: row for row in Record.read(out).rows("retrieval_exact", depth=None, task="needle")}
    return [_share(found.get(length)) for length in lengths]


def _share(row: Any) -> str:
    if row is None or row.value is None:
        return "none"
    ends = "" if row.ci_low is None or row.ci_high is None else f" [{row.ci_low:.2f}, {row.ci_high:.2f}]"
    return f"{row.value:.2f}{ends}"


def means(asked: Asked, method: str, make: bool) -> dict[str, NDArray[np.float64]] | None:
    """NLL inside the window and beyond it, a number a document; None unless all documents are there."""
    curves = [read(asked, method, text, make) for text in asked.texts]
    kept = [one for one in curves if one is not None]
    if len(kept) < len(curves):
        return None
    whole, sizes = np.concatenate(kept), asked.sizes
    return {"inside": reading.inside(whole, sizes), "beyond": reading.beyond(whole, sizes, asked.length)}


def rows(asked: Asked, make: bool) -> Iterator[str]:
    """The table."""
    crop, chosen = means(asked, "crop", make), best(asked, make)
    yield "| arm | inside | price inside | beyond | gain over cropping | needle at half | needle at all |"
    yield "|" + " --- |" * 7
    if make:
        train(asked)
    arms = {"crop": "crop", **{f"{name}, untuned": option for name, option in chosen.items()}}
    for label, method in {**arms, "yarn, PoSE": "tuned"}.items():
        own = means(asked, method, make)
        if own is None or crop is None:
            yield f"| {label} | not run | | | | | |"
            continue
        price, gain = over_documents([own["inside"] - crop["inside"]]), over_documents([crop["beyond"] - own["beyond"]])
        told = ["", ""] if method == "crop" else needles(asked, method, make)
        name = f"{label} ({method})" if "=" in method else label
        figures = [f"{own['inside'].mean():.3f}", _text(price), f"{own['beyond'].mean():.3f}", _text(gain), *told]
        yield f"| {name} | {' | '.join(figures)} |"


def run(asked: Asked) -> Path:
    """Makes what is missing and writes the table, which the page takes in."""
    path = asked.out / TABLE
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [
        f"{len(asked.texts)} documents of {asked.length:,} tokens, {asked.dtype}; {asked.steps} steps of one row of "
        f"{asked.window:,} tokens. One seed of training: brackets are 95% intervals over documents, of needles over "
        "haystacks, and say nothing of training anew.", "",
        *rows(asked, True), "",
    ]  # fmt: skip
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def _text(estimate: Any) -> str:
    """A difference with its interval over documents."""
    if estimate.num_seeds < 2:
        return f"{estimate.value:+.3f}"
    return f"{estimate.value:+.3f} [{estimate.low:+.3f}, {estimate.high:+.3f}]"


def asked_of(out: Path, inputs: Path) -> Asked:
    """The experiment on the packaged model; training texts are none of those that are read. Both are made where missing."""
    from examples.demo import model_folder
    from experiments.miniature.corpus import modules
    from experiments.texts import CODE, speeches, texts

    read_on = {path.stem: path for path in texts(inputs / "texts")}
    chosen = ("prose-novel", "prose-speech-1946", "code-turtle", "manual-2")
    folder = inputs / "miniature" / "smollm2"
    if not folder.is_dir():
        part = folder.with_name(".smollm2.part")
        part.mkdir(parents=True, exist_ok=True)
        measured = [path.removesuffix("*.py") for paths in CODE.values() for path in paths]
        kept = {n: t for n, t in speeches(inputs / "miniature").items() if not n.startswith(("1946", "1981"))}
        kept |= {n: t for n, t in modules().items() if not n.startswith(tuple(measured))}
        for name, text in kept.items():
            if len(text) >= FULL.least_bytes:
                (part / (name.replace("/", "-").rsplit(".", 1)[0] + ".txt")).write_text(text, encoding="utf-8")
        part.rename(folder)
    return Asked(
        model=model_folder(inputs), train=tuple(sorted(folder.glob("*.txt"))), choose=read_on["manual-1"],
        texts=tuple(read_on[name] for name in chosen), out=out / "smollm2",
    )  # fmt: skip
