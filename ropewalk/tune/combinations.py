"""What goes with what in a tuning run, and why the rest is refused: one table, from which the docs are generated too.

A rule names two choices that do not go together and the reason. What depends on the machine (CUDA, bitsandbytes) or on the
model (layers with windows) is refused where it is found out: by `recipes` and by the attention room.
"""

from dataclasses import dataclass

from ropewalk.core.errors import InputError
from ropewalk.tune.settings import ATTENTIONS, POSITIONS, RECIPES, Settings

Choice = tuple[str, str]
"""An option and a value of it."""
PLANS = ("static", "switched", "dynamic")
DATA = ("packed",)
BATCHES = ("several rows",)
CHECKPOINTING = ("on",)
ROWS = ("short",)
"""No longer than the text that a switched plan's first numbers are for."""
OPTIONS: dict[str, tuple[str, ...]] = {
    "recipe": RECIPES, "positions": POSITIONS, "attention": ATTENTIONS, "plan": PLANS, "data": DATA,
    "checkpointing": CHECKPOINTING, "batch": BATCHES, "rows": ROWS, "result": ("adapter", "full checkpoint"),
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Rule:
    """Two choices that do not go together."""

    one: Choice
    other: Choice
    reason: str
    mend: str


RULES = (
    Rule(
        one=("positions", "pose"), other=("data", "packed"),
        reason="a jump between documents that do not see each other says nothing",
        mend="give rows of one document",
    ),
    Rule(
        one=("positions", "randomized"), other=("data", "packed"),
        reason="positions drawn over a whole row put the documents of a pack at places that no reading has",
        mend="give rows of one document",
    ),
    Rule(
        one=("positions", "pose"), other=("attention", "s2"),
        reason="a group that lies inside one chunk never sees the jump",
        mend="say --attention full: PoSE's rows are short anyway",
    ),
    Rule(
        one=("positions", "randomized"), other=("attention", "s2"),
        reason="groups keep tokens from the distances that random positions are drawn for",
        mend="say --attention full",
    ),
    Rule(
        one=("positions", "pose"), other=("attention", "own"),
        reason="the model's own attention takes a jump of positions for the beginning of another document",
        mend="say --attention full",
    ),
    Rule(
        one=("positions", "randomized"), other=("attention", "own"),
        reason="the model's own attention takes a jump of positions for the beginning of another document",
        mend="say --attention full",
    ),
    Rule(
        one=("attention", "own"), other=("data", "packed"),
        reason="documents of a pack would see each other",
        mend="say --attention full, or give rows of one document",
    ),
    *(
        Rule(
            one=("plan", "dynamic"), other=("recipe", recipe),
            reason="a plan with other numbers for every length has no one vector to train at",
            mend="say --freeze, with a --method",
        )
        for recipe in RECIPES
    ),
    Rule(
        one=("plan", "switched"), other=("positions", "pose"),
        reason="the model chooses its numbers by the largest position, so short texts would train the long regime only",
        mend="take a static plan such as yarn",
    ),
    Rule(
        one=("plan", "switched"), other=("positions", "randomized"),
        reason="the model chooses its numbers by the largest position, so short texts would train the long regime only",
        mend="take a static plan such as yarn",
    ),
    Rule(
        one=("plan", "switched"), other=("data", "packed"),
        reason="the model chooses its numbers by the largest position of a batch, so a short document beside a long one "
        "would turn by the long numbers",
        mend="give one document in a row, and --batch-size 1 with a larger --accumulate",
    ),
    Rule(
        one=("plan", "switched"), other=("batch", "several rows"),
        reason="the model chooses its numbers by the largest position of a batch, so a short document beside a long one "
        "would turn by the long numbers",
        mend="give one document in a row, and --batch-size 1 with a larger --accumulate",
    ),
    Rule(
        one=("plan", "switched"), other=("rows", "short"),
        reason="rows that never pass the old length turn by the short numbers alone, and the long ones are never trained",
        mend="give a --window beyond the old length",
    ),
    Rule(
        one=("recipe", "prefix"), other=("checkpointing", "on"),
        reason="a layer that runs again in the backward pass leaves out keys and values before the text",
        mend="say --checkpoint-every 0",
    ),
    Rule(
        one=("recipe", "prefix"), other=("positions", "pose"),
        reason="positions are drawn up to the length, and the prefix takes the first of them",
        mend="say --positions full",
    ),
    Rule(
        one=("recipe", "prefix"), other=("positions", "randomized"),
        reason="positions are drawn up to the length, and the prefix takes the first of them",
        mend="say --positions full",
    ),
    Rule(
        one=("recipe", "prefix"), other=("result", "full checkpoint"),
        reason="keys and values before a text are no weights of a model", mend="keep the adapter",
    ),
    Rule(
        one=("recipe", "full"), other=("result", "adapter"),
        reason="all weights change, so there is no adapter", mend="say --recipe longlora",
    ),
)  # fmt: skip


def choices(settings: Settings, *, plan: str, switch: int | None, packed: bool, merge: bool) -> set[Choice]:
    """What a run has chosen, in the words of the table."""
    full = merge or settings.recipe == "full"
    short = switch is not None and max(stage.window for stage in settings.stages) <= switch
    return {
        ("recipe", settings.recipe), ("positions", settings.positions), ("attention", settings.attention), ("plan", plan),
        ("result", "full checkpoint" if full else "adapter"), *([("data", "packed")] if packed else []),
        *([("checkpointing", "on")] if settings.checkpoint_every else []),
        *([("batch", "several rows")] if settings.batch_size > 1 else []), *([("rows", "short")] if short else []),
    }  # fmt: skip


def check(
    settings: Settings, *, plan: str = "static", switch: int | None = None, packed: bool = False, merge: bool = False
) -> None:
    """Raises `InputError` for the first rule that a run breaks. `switch` is the longest text that a switched plan's first
    numbers are for."""
    chosen = choices(settings, plan=plan, switch=switch, packed=packed, merge=merge)
    for rule in RULES:
        if rule.one in chosen and rule.other in chosen:
            raise InputError(f"{_say(rule.one)} and {_say(rule.other)} do not go together: {rule.reason}; {rule.mend}")


def _say(choice: Choice) -> str:
    return f"{choice[0]} {choice[1]}"


def table() -> str:
    """The table as Markdown: a row for each choice, what it refuses, and why."""
    lines = ["| choice | not with | because | instead |", "| --- | --- | --- | --- |"]
    merged: dict[tuple[Choice, str], list[Rule]] = {}
    for rule in RULES:
        merged.setdefault((rule.one, rule.reason), []).append(rule)
    for (one, reason), rules in merged.items():
        others = ", ".join(f"`{rule.other[0]} {rule.other[1]}`" for rule in rules)
        lines.append(f"| `{one[0]} {one[1]}` | {others} | {reason} | {rules[0].mend} |")
    return "\n".join(lines) + "\n"
