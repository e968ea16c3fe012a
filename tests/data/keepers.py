"""Documents with one fact in each sentence, and a writer that asks and answers by rule, as a good model would."""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np

FACT = re.compile(r"Keeper (\d+) wrote down (\d+) ships")


def fact(number: int, seed: int = 0) -> str:
    """One sentence; no two keepers saw the same number of ships."""
    return f"Keeper {number} wrote down {1000 + 7 * number + 5000 * seed} ships and went to bed."


def documents(folder: Path, num: int = 4, sentences: int = 40) -> Path:
    """Texts whose keepers are all different, each text of `sentences` sentences."""
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(num):
        keepers = np.random.default_rng(index).permutation(sentences) + index * sentences
        (folder / f"light{index}.txt").write_text(" ".join(fact(int(keeper)) for keeper in keepers))
    return folder


def writer(prompt: str, seed: int) -> str:
    """Asks about the first fact, and answers by whatever facts stand in the prompt."""
    if "Write one question" in prompt:
        number = FACT.search(prompt)
        return f"Question: How many ships did keeper {number[1]} write down?" if number else "I see no fact."
    asked = re.search(r"keeper (\d+|x)\b", prompt)
    assert asked, prompt
    if "in other words" in prompt:
        return f"What number of ships did keeper {asked[1]} write down?"
    if "Make one sentence" in prompt:
        answer = re.search(r"Answer: (\d+)", prompt)
        assert answer
        return f"The number of ships that keeper {asked[1]} wrote down is {answer[1]}."
    facts = FACT.findall(prompt)
    if asked[1] == "x":
        ships = re.findall(r"(?:answer to it is:|wrote down is) (\d+)", prompt)
        found = [keeper for keeper, number in facts if number in ships]
    else:
        found = [number for keeper, number in facts if keeper == asked[1]]
    return found[0] if found else "Not stated."


def counting(write: Callable[[str, int], str]) -> tuple[Callable[[str, int], str], list[str]]:
    """The same writer, and the prompts that it was asked."""
    prompts: list[str] = []

    def counted(prompt: str, seed: int) -> str:
        prompts.append(prompt)
        return write(prompt, seed)

    return counted, prompts
