"""The spectrum: how far each pair of dimensions turns, and what each method does to it.

A pair with frequency f has the wavelength 2 pi / f tokens and makes L f / 2 pi turns inside the trained length L (YaRN,
arXiv:2309.00071, eq. 17). Pairs that turn less than once never met all their angles in training.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from ropewalk.report.facts import Facts, Vector
from ropewalk.report.html import Table
from ropewalk.report.plots.plot import Plot, legend_beside, method_name, plain_ticks
from ropewalk.report.theme import Theme, printable, strokes
from ropewalk.report.words import small, tokens


class _Spectrum(Plot):
    """Wavelength and rotations of each pair of dimensions, and each method's change to it."""

    name = "spectrum"
    title = "What each method does to the frequencies"

    def missing(self, facts: Facts) -> str | None:
        return None if groups(facts) else "the card has no plan that says frequencies"

    def size(self, facts: Facts) -> tuple[float, float]:
        return (8.6, 0.9 + 4.9 * len(groups(facts)))

    def draw(self, figure: Any, facts: Facts, theme: Theme) -> None:
        found = groups(facts)
        panels = figure.subplots(2 * len(found), 1, squeeze=False)[:, 0]
        for index, group in enumerate(found):
            above, below = panels[2 * index], panels[2 * index + 1]
            name = f"layers: {printable(group.label)}" if len(found) > 1 else ""
            draw_wavelengths(above, group, facts.trained_length, theme)
            above.set_title(name)
            draw_ratios(below, group, facts, theme)
            for axes in (above, below):
                axes.set_xlim(-0.5, group.old.size - 0.5)
            legend_beside(below)
            below.set_xlabel("pair of dimensions (0 turns fastest)")

    def caption(self, facts: Facts) -> str:
        group = groups(facts)[0]
        slow = int((turns(group.old, facts.trained_length) < 1.0).sum())
        return (
            f"Above: the wavelength of each pair and the turns it makes inside {tokens(facts.trained_length)} tokens; "
            f"{slow} of {group.old.size} pairs make less than one turn, so beyond that length they show the model angles it "
            "has never seen. Below: the new frequency over the old one; 1 leaves a pair as it is, 1/factor interpolates it "
            "fully. The attention factor multiplies cos and sin."
        )

    def alt(self, facts: Facts) -> str:
        group = groups(facts)[0]
        parts = [
            f"{label} from {small(float(ratio.max()))} to {small(float(ratio.min()))}"
            for label, ratio in group.ratios.items()
        ]
        return f"New over old frequency of {group.old.size} pairs of dimensions: {'; '.join(parts)}."

    def numbers(self, facts: Facts) -> Table:
        rows = []
        found = groups(facts)
        labels = list(dict.fromkeys(label for group in found for label in group.ratios))
        for group in found:
            turned = turns(group.old, facts.trained_length)
            for i, frequency in enumerate(group.old):
                wave = small(2 * math.pi / frequency) if frequency else "∞"
                changes = [small(float(group.ratios[label][i])) if label in group.ratios else "" for label in labels]
                rows.append([f"{group.label} {i}", wave, small(float(turned[i])), *changes])
        columns = ["pair", "wavelength (tokens)", "turns inside", *labels]
        return Table(columns=columns, rows=rows, caption="New over old frequency by pair of dimensions")


@dataclass(frozen=True, kw_only=True, eq=False)
class Spectral:
    """One group of layers: its frequencies, and what the plans do to them."""

    label: str
    old: Vector
    """float64 [rotary_dim/2], radians per token."""
    ratios: dict[str, Vector]
    """Method to new over old, same shape; only methods that change the model."""
    attention_factor: dict[str, float]
    logit_scale: dict[str, float]


def groups(facts: Facts) -> list[Spectral]:
    """The groups that some plan speaks of."""
    found = []
    for group in facts.record.card.geometry.get("groups", ()):
        words = {
            label: word["frequencies"]
            for label in facts.extensions
            if (word := facts.plans.get(label, {}).get("groups", {}).get(group["label"])) is not None
        }
        old = None if group.get("inv_freq") is None else np.asarray(group["inv_freq"], dtype=np.float64)
        words = {label: word for label, word in words.items() if old is not None and len(word["inv_freq"]) == old.size}
        if old is None or not words:
            continue
        safe = np.where(old == 0.0, 1.0, old)
        found.append(
            Spectral(
                label=str(group["label"]),
                old=old,
                ratios={
                    label: np.where(old == 0.0, 1.0, np.asarray(word["inv_freq"], dtype=np.float64) / safe)
                    for label, word in words.items()
                },
                attention_factor={label: float(word["attention_factor"]) for label, word in words.items()},
                logit_scale={label: float(word["logit_scale"]) for label, word in words.items()},
            )
        )
    return found


def turns(inv_freq: Vector, length: int) -> Vector:
    """Full turns of each pair inside `length` tokens, same shape as `inv_freq`."""
    return np.asarray(inv_freq * length / (2.0 * math.pi), dtype=np.float64)


def draw_wavelengths(axes: Any, group: Spectral, trained_length: int, theme: Theme) -> None:
    """Wavelength by pair on a logarithmic axis, turns inside the trained length on the other side of the same axis."""
    turning = group.old > 0.0
    pairs = np.flatnonzero(turning)
    waves = 2.0 * math.pi / group.old[turning]
    axes.set_yscale("log")
    slow = waves > trained_length
    axes.plot(pairs, waves, color=theme.muted, linewidth=1.0, zorder=1)
    axes.plot(pairs[~slow], waves[~slow], "o", color=theme.ink, markersize=4)
    axes.plot(pairs[slow], waves[slow], "o", color=theme.ink, markersize=4.5, markerfacecolor=theme.surface)
    axes.axhline(trained_length, color=theme.muted, linewidth=1.1, linestyle=(0, (1, 1.5)))
    axes.annotate(
        f"trained to {trained_length:,}: one turn",
        (0.0, trained_length),
        xycoords=("axes fraction", "data"),
        xytext=(6, 3),
        textcoords="offset points",
        fontsize=8.5,
        color=theme.muted,
    )
    axes.set_ylabel("wavelength (tokens)")

    def swap(value: Any) -> Any:
        # Matplotlib also asks for zero, which no logarithmic axis shows.
        return trained_length / np.maximum(value, 1e-12)

    other = axes.secondary_yaxis("right", functions=(swap, swap))
    other.set_ylabel("turns inside trained length")
    plain_ticks(axes.yaxis)
    plain_ticks(other.yaxis)
    other.spines["right"].set_visible(True)


def draw_ratios(axes: Any, group: Spectral, facts: Facts, theme: Theme) -> None:
    """New over old frequency by pair, one line a method, its temperature in the legend."""
    for index, (label, ratio) in enumerate(group.ratios.items()):
        stroke = strokes(facts.labels, theme)[label]
        name = method_name(label)
        if group.attention_factor[label] != 1.0:
            name += f"\n  attention factor {group.attention_factor[label]:.3f}"
        if group.logit_scale[label] != 1.0:
            name += f"\n  logit scale {group.logit_scale[label]:.3f}"
        axes.plot(
            range(ratio.size),
            ratio,
            color=stroke.colour,
            linestyle=stroke.dash,
            marker=stroke.marker,
            markersize=3.2,
            label=name,
            # Equal lines stay visible: the later ones run inside the earlier.
            linewidth=1.6 + 1.1 * min(3, len(group.ratios) - 1 - index),
        )
    axes.axhline(1.0, color=theme.ink, linewidth=0.9)
    factors = sorted({f for label in group.ratios if (f := facts.factor(label)) is not None and f > 1.0})
    for factor in factors[:3]:
        axes.axhline(1.0 / factor, color=theme.muted, linewidth=0.9, linestyle=(0, (1, 1.5)))
        axes.annotate(
            f"1/{factor:g}",
            (0.0, 1.0 / factor),
            xycoords=("axes fraction", "data"),
            xytext=(6, 3),
            textcoords="offset points",
            fontsize=8.5,
            color=theme.muted,
        )
    axes.set_ylabel("new / old frequency")
    axes.margins(y=0.1)


SPECTRUM: Plot = _Spectrum()
