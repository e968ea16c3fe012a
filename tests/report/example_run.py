"""A plausible run folder, made without a model: `python tests/report/example_run.py OUT` writes the full-size example.

Loss is a level for each method and each stretch of positions (as seen on SmolLM2-135M) plus noise that all methods share, as
they do in truth, since they read the same tokens.
"""

import math
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from example_map import map_rows, map_settings
from numpy.typing import NDArray

from ropewalk.core.record import Card, Measurement
from ropewalk.core.run import Run

METHODS = ("none", "crop", "pi", "ntk", "yarn")
LEVELS = {
    "none": (3.86, 3.86, 5.6),
    "pi": (4.60, 4.70, 4.50),
    "ntk": (3.89, 3.80, 3.82),
    "yarn": (3.884, 3.80, 3.79),
    "crop": (3.86, 3.75, 3.75),
    "ntk-by-parts": (3.882, 3.79, 3.78),
}
"""Mean NLL inside, just beyond and at the end."""
KL = {"pi": 0.9, "ntk": 0.03, "yarn": 0.024, "ntk-by-parts": 0.02}
OLD = 100000.0 ** (-np.arange(0, 64, 2) / 64)
TURNS = 8192 * OLD / (2 * math.pi)
RAMP = np.clip((TURNS - 1) / 31, 0, 1)


def inv_freq(label: str, factor: float) -> NDArray[np.float64]:
    by_id = {
        "pi": OLD / factor,
        "yarn": OLD * (RAMP + (1 - RAMP) / factor),
        "ntk-by-parts": OLD * (RAMP + (1 - RAMP) / factor),
    }
    ntk = (100000.0 * factor ** (64 / 62)) ** (-np.arange(0, 64, 2) / 64)
    return by_id.get(base(label), OLD if base(label) in ("none", "crop") else ntk)


def base(label: str) -> str:
    return label.removeprefix("dynamic:").split(":")[0]


def plan(label: str, trained: int, length: int) -> dict[str, Any]:
    factor = 1.0 if label in ("none", "crop") else length / trained
    word = {
        "inv_freq": [float(x) for x in inv_freq(label, factor)],
        "attention_factor": 0.1 * math.log(factor) + 1 if base(label) == "yarn" else 1.0,
        "logit_scale": 1.0,
    }
    return {
        "method": label.split(":ramp")[0],
        "options": {"keep_last": trained} if label == "crop" else {},
        "kind": "dynamic" if label.startswith("dynamic:") else "static",
        "original_length": trained,
        "trained_length": trained,
        "length": length,
        "factor": factor,
        "groups": {"all": {"frequencies": word}},
    }


def make_card(methods: Iterable[str], trained: int, length: int, documents: list[str], **fields: Any) -> Card:
    geometry = {
        "model_type": "llama",
        "scheme": "default",
        "trained_length": trained,
        "original_length": trained,
        "declared_length": trained,
        "lineage": "plain",
        "num_layers": 30,
        "groups": [{"label": "all", "inv_freq": [float(x) for x in OLD], "position": "rope", "rotary_dim": 64}],
    }
    content: dict[str, Any] = {
        "verb": "compare",
        "model": "SmolLM2-135M-Instruct",
        "source": {"name": "smollm2-135m-instruct", "kind": "folder", "sha256": "5d" * 32},
        "config": {"methods": list(methods), "length": length, "crop_windows": 8, "seed": 0},
        "geometry": geometry,
        "plans": {label: plan(label, trained, length) for label in methods},
        "documents": [
            {"name": name, "num_tokens": 3 * length, "scored_tokens": length, "sha256": f"{i:02x}" * 32}
            for i, name in enumerate(documents)
        ],
        "seed": 0,
        "dtype": "bfloat16",
        "device": "cpu",
        "quantisation": "Q4_1, dequantised",
        "versions": {"ropewalk": "0.1.0", "torch": "2.13.0", "transformers": "5.23.0"},
        "hardware": {"processor": "two cores", "memory_bytes": 8 * 2**30},
    }
    return Card(**(content | fields))


class Example:
    """Writes the cells and the rows of one run."""

    def __init__(self, out: Path, card: Card, *, trained: int, length: int, window: int, seed: int = 0) -> None:
        self.run = Run.open(out, card)
        self.card, self.trained, self.length, self.window = card, trained, length, window
        self.names = [str(document["name"]) for document in card.documents]
        self.rng = np.random.default_rng(seed)
        ends = np.linspace(trained, length, 9)[1:].round().astype(int)
        self.windows = [(int(end) - window, int(end)) for end in ends]
        self.blocks = len(self.names) < 5
        self.rows: list[Measurement] = []

    def write(self) -> None:
        self.run.append("measurements.jsonl", [row.to_dict() for row in self.rows])

    def level(self, label: str, document: int) -> NDArray[np.float64]:
        inside, beyond, end = LEVELS.get(label) or LEVELS[base(label)]
        p = np.arange(1, self.length)
        rise = np.clip((p - self.trained) / (self.length - self.trained), 0, 1)
        shape = rise**0.6 if label == "none" else rise
        text = 0.12 * np.sin(p / self.length * 19 + document) + 0.05 * document - 0.1 * rise
        return np.where(p < self.trained, inside, beyond + (end - beyond) * shape) + text

    def arrays(self, *, until: int | None = None) -> None:
        # The control is kept beside the methods, and is none of them.
        self.run.save("nll", "none@float32", self.names[0], np.full(self.trained // 2, 3.9, dtype=np.float32))
        cells = 0
        for index, name in enumerate(self.names):
            p = np.arange(1, self.length)
            shared = self.rng.gamma(2.0, 0.5, self.length - 1) - 1.0
            for label in self.card.plans:
                if until is not None and cells >= until:
                    return
                noise = self.rng.normal(0, 0.25, self.length - 1)
                nll = np.maximum(self.level(label, index) + 1.5 * shared + noise, 0.0)
                if label == "crop" or label.startswith("dynamic:"):
                    scored = np.zeros(self.length - 1, dtype=bool)
                    for low, high in self.windows:
                        scored |= (p >= low) & (p < high)
                    nll = np.where(scored, nll, np.nan)
                self.run.save("nll", label, name, nll.astype(np.float32))
                cells += 1

    def nll(self, label: str, low: int, high: int) -> NDArray[np.float64]:
        """Mean of each document over the positions."""
        rows = [self.run.load("nll", label, name)[low - 1 : high - 1] for name in self.names]
        return np.array([np.nanmean(row) for row in rows], dtype=np.float64)

    def row(
        self, metric: str, protocol: str, label: str, value: float | None, half: float | None = None, **more: Any
    ) -> None:
        around = (
            {} if half is None or value is None else {"stderr": half / 2, "ci_low": value - half, "ci_high": value + half}
        )
        content: dict[str, Any] = {
            "metric": metric,
            "protocol": protocol,
            "unit": "nats/token",
            "value": value,
            "n": len(self.names),
            "num_clusters": 8 if self.blocks else len(self.names),
            "num_tokens": self.length,
            "model": self.card.model,
            "method": label,
            "card": self.card.hash,
            "dtype": self.card.dtype,
            "device": self.card.device,
            "note": "within-document: t over 8 windows of 512 tokens; weights: Q4_1, dequantised" if self.blocks else None,
        }
        self.rows.append(Measurement(**(content | around | more)))

    def likelihood(self) -> None:
        for label in self.card.plans:
            for name, low, high in (("inside", 1, self.trained), ("beyond", self.trained, self.length)):
                if name == "beyond" or not (label == "crop" or label.startswith("dynamic:")):
                    where = {"position_low": low, "position_high": high, "seconds": 57.0}
                    self.row(f"nll_{name}", "prefix", label, float(self.nll(label, low, high).mean()), 0.06, **where)
            if label == "crop" or label.startswith("dynamic:"):
                protocol = "crop-window" if label == "crop" else "by-length"
                for low, high in self.windows:
                    value = float(self.nll(label, low, high).mean())
                    self.row("nll", protocol, label, value, 0.09, position_low=low, position_high=high)
                continue
            array = np.mean([self.run.load("nll", label, name) for name in self.names], axis=0)
            for point in range(1, 65):
                high = self.length * point // 64
                value = math.exp(float(array[: high - 1].mean()))
                self.row("perplexity", "prefix", label, value, unit="perplexity", position_low=1, position_high=high)

    def gains(self) -> None:
        for label in self.card.plans:
            if label == "crop":
                continue
            all_gains = []
            for low, high in self.windows:
                gain = float((self.nll("crop", low, high) - self.nll(label, low, high)).mean())
                all_gains.append(gain)
                where = {"position_low": low, "position_high": high, "reference": "crop"}
                self.row("net_gain", "crop-window", label, gain, 0.035, **where)
            where = {"position_low": self.trained, "position_high": self.length, "reference": "crop"}
            self.row("net_gain", "crop-window", label, float(np.mean(all_gains)), 0.014, **where)

    def prices(self) -> None:
        where = {"position_low": 1, "position_high": self.trained, "reference": "none"}
        for label in self.card.plans:
            if label in ("none", "crop") or label.startswith("dynamic:"):
                continue
            cost = float((self.nll(label, 1, self.trained) - self.nll("none", 1, self.trained)).mean())
            kl = KL.get(label) or KL[base(label)]
            self.row("price_nll", "prefix", label, cost, 0.006, **where)
            self.row("price_kl_mean", "prefix", label, kl, 0.04 * kl, unit="nats", **where)
            self.row("price_kl_p999", "prefix", label, 12 * kl, unit="nats", **where)
            self.row("price_top1", "prefix", label, 1 - 0.9 * kl**0.6 / 2, 0.004, unit="share", **where)

    def control(self) -> None:
        where = {"position_low": 0, "position_high": self.trained // 2, "reference": "none@float32"}
        self.row("control_nll", "prefix", "none", 0.0006, 0.0005, **where)
        self.row("control_kl_mean", "prefix", "none", 0.0007, unit="nats", **where)
        self.row("control_kl_p999", "prefix", "none", 0.009, unit="nats", **where)
        self.row("control_top1", "prefix", "none", 0.988, unit="share", **where)

    def retrieval(self, labels: Iterable[str] = ("none", "crop", "yarn"), *, single: bool = True) -> None:
        depths = (0.1, 0.3, 0.5, 0.7, 0.9)
        for label in labels:
            for length in (self.trained // 2, self.length):
                found = [self.share(label, length, depth) for depth in depths]
                for depth, share in zip(depths, found, strict=True):
                    self.answers("multikey-branch", label, share, 16, length, depth)
                self.answers("multikey-branch", label, float(np.mean(found)), 80, length, None, half=0.09)
                if single:
                    for depth, share in zip(depths, found, strict=True):
                        self.answers("single-key", label, min(1.0, share + 0.15), 4, length, depth)

        self.answers("no-context", "none", 0.04, 80, self.trained // 2, None, half=0.04)

    def tasks(self) -> None:
        """Several tasks, families and protocols: certified, censored and refused effective lengths among them."""
        engine = "vllm 0.11" if "served" in self.card.plans else "transformers"
        settings = map_settings(self.card.plans, self.trained, self.length, **self.card.config.get("example_map", {}))
        self.rows += map_rows(self.run, settings, self.trained, self.length, engine)

    def reach(self) -> None:
        for label in self.card.plans:
            if label != "crop":
                note = "up to here reading all is nowhere worse than cropping by more than 0.05 nats/token"
                more = {"ci_low": float(self.trained), "ci_high": float(self.length), "note": note}
                self.row("safe_length", "prefix", label, float(self.trained), unit="tokens", **more)
                self.row(
                    "use_length",
                    "prefix",
                    label,
                    None,
                    unit="tokens",
                    note="none of 8 lengths is certified; the rule is by the lower ends",
                )

    def share(self, label: str, length: int, depth: float) -> float:
        if length <= self.trained:
            return 0.9 - 0.1 * float(depth == 0.5)
        kept = depth > 1 - self.trained / self.length
        return {"none": 0.02, "crop": 0.85 if kept else 0.05}.get(label, 0.5 + 0.35 * abs(depth - 0.5))

    def answers(
        self, protocol: str, label: str, share: float, n: int, length: int, depth: float | None, half: float | None = None
    ) -> None:
        where = {"length": length, "depth": depth, "task": "needle", "n": n, "num_clusters": 4, "note": None}
        self.row("retrieval_exact", protocol, label, share, half, unit="share", **where)
        self.row("retrieval_logprob", protocol, label, -0.2 - 6.0 * (1 - share), unit="nats", **where)


def make_example(
    out: Path,
    *,
    methods: Iterable[str] = METHODS,
    documents: int | list[str] = 1,
    trained: int = 512,
    length: int = 1024,
    window: int = 32,
    parts: Iterable[str] = ("likelihood", "gains", "prices", "control", "retrieval"),
    status: str = "done",
    until: int | None = None,
    **fields: Any,
) -> Path:
    """A run folder at `out`. `until` leaves the run after so many cells; `parts` are the kinds of rows written."""
    names = [f"document {i + 1}" for i in range(documents)] if isinstance(documents, int) else documents
    card = make_card(methods, trained, length, names, **fields)
    example = Example(out, card, trained=trained, length=length, window=window)
    if card.documents:
        example.arrays(until=until)
    for part in parts if until is None else ():
        getattr(example, part)()
    example.write()
    example.run.save_card(status)
    return out


def make_tasks_run(out: Path, *, documents: int = 0, methods: Iterable[str] = ("none", "crop", "yarn"), **more: Any) -> Path:
    """A run of `measure --tasks`, without texts where no documents are asked."""
    parts = [*(("likelihood", "gains", "prices", "control", "reach") if documents else ()), "tasks"]
    return make_example(out, methods=methods, documents=documents, parts=parts, verb="measure", **more)


if __name__ == "__main__" and sys.argv[1] == "tasks":
    config = {"example_map": {"num_depths": 11, "num_haystacks": 24, "modes": ("fixed", "grow", "single")}}
    documents = int(sys.argv[3]) if len(sys.argv) > 3 else 0
    make_tasks_run(Path(sys.argv[2]), documents=documents, trained=8192, length=16384, window=512, config=config)
elif __name__ == "__main__":
    make_example(
        Path(sys.argv[1]),
        documents=int(sys.argv[2]) if len(sys.argv) > 2 else 1,
        trained=8192,
        length=16384,
        window=512,
        methods=(*METHODS, *sys.argv[3:]),
    )
