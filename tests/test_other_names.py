"""What users of other trainers type is answered with our name for it, or with why there is none."""

import pytest
from command import Command

from ropewalk.cli import make_parser, verbs
from ropewalk.core.errors import near
from ropewalk.core.other_names import IN_WORDS, OTHERS, other_name

TUNE = verbs(make_parser())["tune"].options()


@pytest.mark.parametrize(
    ("verb", "option", "words"),
    [
        ("tune", "--lr", "--lr is --learning-rate here"),
        ("tune", "--epochs", "--epochs is counted in --steps here"),
        ("tune", "--bf16", "--bf16 is --dtype bfloat16 here"),
        ("tune", "--fp16", "train in bfloat16 or float32"),
        ("tune", "--optim", "the optimizer is AdamW"),
        ("tune", "--fsdp", "--fsdp is not offered: parameters in shards are not"),
        ("tune", "--deepspeed", "--deepspeed is not offered"),
        ("tune", "--wandb", "--wandb is --report-to wandb here"),
        ("tune", "--max-steps", "--max-steps is --steps here"),
        ("tune", "--per-device-train-batch-size", "is --batch-size here"),
        ("tune", "--per_device_train_batch_size", "is --batch-size here"),
        ("tune", "--gradient-accumulation-steps", "is --accumulate here"),
        ("tune", "--model", "the model is the first word behind the verb"),
        ("data", "--model", "--model is --tokenizer here"),
        ("tune", "--output-dir", "--output-dir is --out here"),
        ("tune", "--max-seq-length", "--max-seq-length is --length here"),
        ("measure", "--max-length", "--max-length is --length here"),
        ("measure", "--context-length=4k", "--context-length is --length here"),
        ("measure", "--fsdp", "did you mean"),
    ],
)
def test_another_s_name_is_answered_with_ours(verb: str, option: str, words: str, command: Command) -> None:
    needed = ("--tokenizer", "x", "--length", "4k", "--out", "y") if verb == "data" else ()
    assert command(verb, "x", *needed, option).refused(f"does not take '{option}'; ", words)


def test_a_name_counts_only_where_ours_is_known() -> None:
    assert other_name("bf16", ["auto", "float32", "bfloat16"]) is None
    assert near("bf16", ["auto", "float32", "bfloat16"]) == "did you mean bfloat16?"
    assert near("lr", ["learning_rate", "steps"]) == "lr is learning_rate here"
    assert near("lr", ["rank"]) == "known are rank"


def test_no_name_of_ours_is_called_another_s() -> None:
    ours = {option.removeprefix("--") for verb in verbs(make_parser()).values() for option in verb.options()}
    assert set(OTHERS) <= ours
    assert {mine for mine, _ in IN_WORDS.values()} <= ours
    of_others = [name for names in (*OTHERS.values(), *IN_WORDS) for name in names]
    assert not set(of_others) & {option.removeprefix("--") for option in TUNE}


@pytest.mark.parametrize(("typed", "words"), [("train", "did you mean tune?"), ("mesure", "did you mean measure?")])
def test_a_verb_is_answered_with_a_verb(typed: str, words: str, command: Command) -> None:
    assert command(typed, "x").refused(f"unknown verb {typed!r}; {words}")


def test_names_that_are_no_options_are_not_taken_for_them() -> None:
    assert near("train", ["data", "books"], options=False) == "known are books, data"
