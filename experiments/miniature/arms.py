"""Every table: its lines, what is claimed in the papers of them, and the papers' own figures.

Arms are shared: one that two tables name is trained once. All tuned arms of a table have the same tokens, rate and
schedule; what they stand beside is cropping by a model that was tuned on as many tokens at its own window (`control`),
since a model of this size goes on learning whatever it reads.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from experiments.miniature.cells import Arm, Reading
from experiments.miniature.published import PUBLISHED
from experiments.miniature.sizes import Sizes

CROP, NONE = Reading(method="crop"), Reading(method="none")
FOUR = ("pi", "ntk", "ntk-by-parts", "yarn")


@dataclass(frozen=True, kw_only=True)
class Line:
    """A line of a table."""

    label: str
    cell: Reading
    length: int
    """What its figures go up to."""
    crop: Reading = CROP
    """What its gain is against."""


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A sentence of a paper as a difference of two cells."""

    says: str
    better: Reading
    worse: Reading
    length: int
    figure: str = "beyond"
    """`beyond`, `inside`, `octave` (the last half of the length) or `probe`."""


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table and what is beside it."""

    id: str
    title: str
    asks: str
    lines: tuple[Line, ...]
    columns: tuple[str, ...] = ("inside", "beyond", "gain")
    claims: tuple[Claim, ...] = ()
    published: str = ""
    """The papers' figures as Markdown, with their source."""
    curves: tuple[tuple[str, Arm], ...] = field(default=())
    """Trainings whose validations are drawn and counted."""


def tuned(sizes: Sizes, method: str, length: int, **others: object) -> Arm:
    """An arm with the experiment's steps, trained on rows of its whole length."""
    return Arm(method=method, length=length, **{"window": length, "steps": sizes.tune_steps, **others})  # type: ignore[arg-type]


def control(sizes: Sizes) -> Arm:
    """The base, tuned on as many tokens at its own window."""
    return Arm(method="none", length=sizes.window, window=sizes.window, steps=sizes.tune_steps)


def of(sizes: Sizes, method: str, length: int, label: str = "", **others: object) -> Line:
    """The line of a tuned arm."""
    arm, crop = tuned(sizes, method, length, **others), Reading(arm=control(sizes), method="crop")
    return Line(label=label or f"{method}, tuned", cell=Reading(arm=arm), length=length, crop=crop)


def baselines(sizes: Sizes, length: int) -> tuple[Line, ...]:
    """The untouched model, and cropping without and with more training at the window."""
    crop = Reading(arm=control(sizes), method="crop")
    return (
        Line(label="none", cell=NONE, length=length),
        Line(label="crop", cell=CROP, length=length),
        Line(label="crop, tuned at its window", cell=crop, length=length, crop=crop),
    )


# --- the tables, in the order of the experiment -----------------------------------------------------------------------


def stretched(sizes: Sizes) -> Table:
    """Four methods, untuned and tuned at one budget."""
    lines: list[Line] = []
    claims: list[Claim] = []
    for length in sizes.lengths:
        untuned = {m: Reading(method=m, length=length) for m in FOUR}
        arms = {m: Reading(arm=tuned(sizes, m, length)) for m in FOUR}
        lines += baselines(sizes, length)
        lines += [Line(label=f"{m}, untuned", cell=untuned[m], length=length) for m in FOUR]
        lines += [of(sizes, m, length) for m in FOUR]
        pairs = (
            ("YaRN below PI, untuned", untuned["yarn"], untuned["pi"]),
            ("YaRN below NTK-by-parts, untuned: the temperature", untuned["yarn"], untuned["ntk-by-parts"]),
            ("NTK-aware above YaRN, untuned, where it is given just the factor", untuned["yarn"], untuned["ntk"]),
            ("YaRN below PI, tuned", arms["yarn"], arms["pi"]),
            ("YaRN below NTK-aware, tuned", arms["yarn"], arms["ntk"]),
            ("tuning helps YaRN", arms["yarn"], untuned["yarn"]),
        )
        claims += [Claim(says=f"{says} ({length:,})", better=b, worse=w, length=length) for says, b, w in pairs]
    return Table(
        id="stretched", title="Stretched: untuned, and tuned at the same budget",
        asks="What each method costs and gains before and after the same few steps.",
        lines=tuple(lines), claims=tuple(claims), published=PUBLISHED["stretched"],
    )  # fmt: skip


def steps(sizes: Sizes) -> Table:
    """Steps that PI and YaRN need; at the shorter length PI is given four times as many, to see where it gets to."""
    short, long = sizes.lengths
    many = 4 * sizes.tune_steps
    slow = {short: tuned(sizes, "pi", short, steps=many), long: tuned(sizes, "pi", long)}
    lines = [of(sizes, m, length) for length in sizes.lengths for m in ("pi", "yarn")]
    # Four times the steps have no cropping tuned as long beside them.
    lines.insert(1, Line(label=f"pi, {many} steps", cell=Reading(arm=slow[short]), length=short))
    arms = [pair for n, arm in slow.items() for pair in ((f"pi {n:,}", arm), (f"yarn {n:,}", tuned(sizes, "yarn", n)))]
    return Table(
        id="steps", title="Steps and tokens to equal NLL",
        asks="How many steps PI and YaRN need to one NLL, on documents that are in neither split: both to their first "
        "crossing of the same target. A step has the same tokens for both, so tokens go as steps do. An *end* is the mean "
        "of the last validations, a *way* what lies between the untrained plan and that. PI is trained "
        f"{many} steps for {short:,} and {sizes.tune_steps} for {long:,}, YaRN {sizes.tune_steps}. "
        "Ratios are averaged over seeds as logarithms; where a seed has no steps on either side there is none.",
        lines=tuple(lines), columns=("beyond",), published=PUBLISHED["steps"], curves=tuple(arms),
    )  # fmt: skip


def train_short(sizes: Sizes) -> Table:
    """A plan for more than the rows hold."""
    short, long = sizes.lengths
    crop = Reading(arm=control(sizes), method="crop")
    lines = [*baselines(sizes, long)]
    claims = []
    for m in ("pi", "yarn"):
        whole = of(sizes, m, long, f"{m} for {long:,}, rows of {long:,}")
        part = of(sizes, m, long, f"{m} for {long:,}, rows of {short:,}", window=short)
        half = Line(label=f"{m} for {short:,}, rows of {short:,}", cell=Reading(arm=tuned(sizes, m, short)), length=long,
                    crop=crop)  # fmt: skip
        lines += [whole, part, half]
        claims.append(
            Claim(
                says=f"{m} trained on half the length reads the other half better than {m} planned for half",
                better=part.cell,
                worse=half.cell,
                length=long,
                figure="octave",
            )
        )
    return Table(
        id="train-short", title="Train short, test long", lines=tuple(lines), columns=("inside", "beyond", "octave", "gain"),
        asks="Whether a plan for twice the rows' length holds beyond the rows.", claims=tuple(claims),
        published=PUBLISHED["train-short"],
    )  # fmt: skip


def transfer(sizes: Sizes) -> Table:
    """From a plan at s to one at 2s."""
    short, long = sizes.lengths
    few, first = sizes.tune_steps // 2, tuned(sizes, "yarn", short)
    moved = Reading(arm=Arm(method="yarn", length=long, window=short, steps=few, parent=first))
    crop, all_steps = Reading(arm=control(sizes), method="crop"), sizes.tune_steps + few
    lines = [
        Line(label=f"yarn {short:,}, then {few} steps at {long:,}", cell=moved, length=long, crop=crop),
        of(sizes, "yarn", long, f"yarn {long:,}, {few} steps", window=short, steps=few),
        of(sizes, "yarn", long, f"yarn {long:,}, {all_steps} steps", window=short, steps=all_steps),
    ]
    claim = Claim(
        says="after the transfer, below as many steps from the base", better=moved, worse=lines[1].cell, length=long
    )
    return Table(
        id="transfer", title="Transfer from s to 2s", lines=tuple(lines), columns=("inside", "beyond", "octave", "gain"),
        asks="Whether half the steps suffice where a model was tuned at half the factor before. After the transfer the "
        "rows go on, so it has read those of the longest arm in the same order; only the plan of the first steps differs.",
        claims=(claim,),
        published=PUBLISHED["transfer"],
    )  # fmt: skip


def dynamic(sizes: Sizes) -> Table:
    """Dynamic plans without tuning."""
    long = sizes.longest
    cells = {m: Reading(method=f"dynamic:{m}", length=long) for m in FOUR}
    lines = [Line(label="none", cell=NONE, length=long), Line(label="crop", cell=CROP, length=long)]
    lines += [Line(label=f"dynamic {m}", cell=cell, length=long) for m, cell in cells.items()]
    lines += [Line(label=f"{m} for {long:,}", cell=Reading(method=m, length=long), length=long) for m in ("ntk", "yarn")]
    static = Reading(method="yarn", length=long)
    return Table(
        id="dynamic", title="Dynamic, without tuning", lines=tuple(lines), columns=("inside", "octaves"),
        asks="Every octave read with the factor of its own length.",
        claims=(
            Claim(says="dynamic YaRN below dynamic PI", better=cells["yarn"], worse=cells["pi"], length=long),
            Claim(says="dynamic YaRN below dynamic NTK-aware", better=cells["yarn"], worse=cells["ntk"], length=long),
            Claim(
                says="dynamic YaRN costs less inside the window than static", better=cells["yarn"], worse=static,
                length=long, figure="inside",
            ),
        ),
        published=PUBLISHED["dynamic"],
    )  # fmt: skip


def lora(sizes: Sizes) -> Table:
    """Adapters with and without embeddings and norms."""
    short = sizes.lengths[0]
    lines = (
        *baselines(sizes, short), Line(label="pi, untuned", cell=Reading(method="pi", length=short), length=short),
        of(sizes, "pi", short, "pi, full"), of(sizes, "pi", short, "pi, adapters", recipe="lora"),
        of(sizes, "pi", short, "pi, adapters, embeddings, norms", recipe="longlora"),
    )  # fmt: skip
    full, plain, more = (line.cell for line in lines[-3:])
    return Table(
        id="lora", title="Adapters with and without embeddings and norms", lines=lines,
        asks="Adapters of rank 8 on attention; a head of 32 dimensions is a fourth of a real one, so rank 8 is much. "
        "Adapters train in float32, full training multiplies in " + sizes.dtype + ": not a difference of method alone.",
        claims=(
            Claim(says="adapters, embeddings and norms below adapters alone", better=more, worse=plain, length=short),
            Claim(says="full training is below adapters alone", better=full, worse=plain, length=short),
        ),
        published=PUBLISHED["lora"],
    )  # fmt: skip


def s2(sizes: Sizes) -> Table:
    """Shifted sparse attention against full, with its group sizes."""
    long = sizes.longest
    full = of(sizes, "pi", long, "pi, full attention")
    shares = {
        share: of(sizes, "pi", long, f"pi, groups of 1/{share}", attention="s2", group=long // share) for share in (2, 4, 8)
    }
    bare = of(sizes, "pi", long, "pi, groups of 1/4, unshifted", attention="s2", group=long // 4, pattern="unshifted")
    return Table(
        id="s2", title="Shifted sparse attention", lines=(full, *shares.values(), bare),
        asks="Trained in groups, read with full attention.", columns=("inside", "beyond", "octave", "gain"),
        claims=(
            Claim(says="groups of a quarter: shifted below unshifted", better=shares[4].cell, worse=bare.cell, length=long),
            Claim(says="full attention is below groups of an eighth", better=full.cell, worse=shares[8].cell, length=long),
        ),
        published=PUBLISHED["s2"],
    )  # fmt: skip


def pose(sizes: Sizes) -> Table:
    """Skipped positions in short rows against full length."""
    lines: list[Line] = []
    claims: list[Claim] = []
    for length in sizes.lengths:
        lines += baselines(sizes, length)
        for m in ("pi", "yarn"):
            whole = of(sizes, m, length, f"{m}, rows of {length:,}")
            skipped = of(sizes, m, length, f"{m}, PoSE, rows of {sizes.window}", window=sizes.window, positions="pose")
            lines += [whole, skipped]
            untuned = Reading(method=m, length=length)
            claims += [
                Claim(says=f"PoSE helps {m} ({length:,})", better=skipped.cell, worse=untuned, length=length),
                Claim(
                    says=f"full rows below PoSE's, {m} ({length:,})", better=whole.cell, worse=skipped.cell, length=length
                ),
            ]  # fmt: skip
    return Table(
        id="pose", title="PoSE against full length", lines=tuple(lines), claims=tuple(claims), published=PUBLISHED["pose"],
        asks="The same tokens, in rows of the old window with positions that jump.",
    )  # fmt: skip


def abf(sizes: Sizes) -> Table:
    """A larger base against interpolation, with the probe of reach."""
    long = sizes.longest
    lines = [of(sizes, m, long, f"{m}, tuned") for m in ("pi", "abf", "yarn")]
    probes = [Reading(arm=tuned(sizes, m, long), what="probe") for m in ("pi", "abf")]
    return Table(
        id="abf", title="A larger base against interpolation, and the first sentence",
        lines=(*baselines(sizes, long), *lines),
        asks="NLL, and what a model has of a text's beginning at its end: NLL saved by its being there, nats a token.",
        columns=("inside", "beyond", "gain", "probe"),
        claims=(
            Claim(says="ABF below PI in NLL", better=lines[1].cell, worse=lines[0].cell, length=long),
            Claim(says="ABF has more of the first sentence than PI", better=probes[1], worse=probes[0], length=long,
                  figure="probe"),
        ),
        published=PUBLISHED["abf"],
    )  # fmt: skip


TABLES: dict[str, Callable[[Sizes], Table]] = {
    "stretched": stretched, "steps": steps, "train-short": train_short, "transfer": transfer, "dynamic": dynamic,
    "lora": lora, "s2": s2, "pose": pose, "abf": abf,
}  # fmt: skip
"""In the order in which they are run; the tenth, on SmolLM2, is `smollm2`."""


def watched(sizes: Sizes) -> frozenset[Arm]:
    """The trainings whose validations some table uses; the others are not validated."""
    return frozenset(arm for make in TABLES.values() for _, arm in make(sizes).curves)
