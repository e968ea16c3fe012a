"""Groups of shifted sparse attention follow the stages of a curriculum, in tokens, also after a kill."""

from pathlib import Path
from typing import Any

from small import Tune
from streams import Counting
from test_resume import At, killed
from transformers import TrainerCallback

from ropewalk.tune.attention import stage_groups
from ropewalk.tune.settings import Settings, Stage

CURRICULUM: dict[str, Any] = {
    "steps": None, "window": None, "stages": [(32, 2), (64, 3)], "attention": "s2", "save_every": 1, "recipe": "lora",
    "merge": True,
}  # fmt: skip


class Told(TrainerCallback):
    """Writes down which attention each step had."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        name = next(module.config._attn_implementation for module in model.modules() if hasattr(module, "layer_idx"))
        with self.path.open("a") as file:
            file.write(f"{state.global_step} {name}\n")


class Short(Counting):
    """Rows of half a window: a batch then says nothing of the stage's rows."""

    def __init__(self, window: int) -> None:
        super().__init__(window // 2)


def test_a_share_is_one_of_the_stages_rows() -> None:
    stages = (Stage(window=32, steps=1), Stage(window=100, steps=1))
    assert [s.group for s in stage_groups(Settings(length=100, stages=stages, attention="s2")) if s] == [8, 25]
    assert [s.group for s in stage_groups(Settings(length=100, stages=stages, attention="s2", group=12)) if s] == [12, 12]
    assert stage_groups(Settings(length=100, stages=stages)) == [None, None]


def test_groups_grow_with_the_rows_also_after_a_kill(tune: Tune, tmp_path: Path) -> None:
    expected = [f"{step} ropewalk_s2_{8 if step <= 2 else 16}" for step in range(1, 6)]
    for data in (Counting, Short):
        out, told = tmp_path / data.__name__, tmp_path / f"{data.__name__}.txt"
        tune(out, data=data, callbacks=[Told(told)], **CURRICULUM)
        assert told.read_text().splitlines() == expected
    again, told = tmp_path / "again", tmp_path / "again.txt"
    for step in (1, 3):
        callbacks = [Told(told), At("on_step_end", step)]
        assert killed(lambda given=callbacks, on=step > 1: tune(again, callbacks=given, resume=on, **CURRICULUM))
    tune(again, callbacks=[Told(told)], resume=True, **CURRICULUM)
    # A step that was taken and not saved is taken again.
    assert list(dict.fromkeys(told.read_text().splitlines())) == expected
    name = "model.safetensors"
    assert (again / name).read_bytes() == (tmp_path / "Counting" / name).read_bytes()
