"""Makes scores.json and structure.json in tests/golden/tasks by running the originals' scorers and generators.

    python tests/data/make_tasks_golden.py RULER INFINITEBENCH BABILONG LONGCHAT

where the four are checkouts of github.com/NVIDIA/RULER (c3f5e3b), OpenBMB/InfiniteBench (88b3daa), booydar/babilong
(7a6efee) and DachengLi1/LongChat (4b5faa5). Run it with a Python that has numpy and rouge-score 0.1.2. What the originals
import only to read tokenizers, word lists or essays is stood in for here: a tokenizer of words, made-up words and sentences,
and zeta(2) as pi^2/6. The answers that are scored are ours; of the generators' output only numbers are kept.
"""

import ast
import contextlib
import json
import math
import re
import sys
import types
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

OUT = Path(__file__).resolve().parents[1] / "golden" / "tasks"
SOURCES = {
    "all, any, structure": "NVIDIA/RULER c3f5e3b4f87f97e048793bb510a3a6b19a46bf3a",
    "first-integer": "OpenBMB/InfiniteBench 88b3daa6989da2fbe0077170d7a3c84c25d5ae58",
    "label": "booydar/babilong 7a6efee29f5cac03c3c410e6799c80fd2ffe3610",
    "last-integer": "DachengLi1/LongChat 4b5faa52fda961b8ea5125b15ae984ff0d1c0f9d (its rule, repeated here)",
    "rouge-l": "rouge-score 0.1.2",
}
FOUND = [
    ("The numbers are 12, 345 and 678.", ["12", "345", "999"]),
    ("VAULT AMBER-HERON, answer abc-DEF", ["ABC-def"]),
    ("nothing at all", ["x", "nothing", "ALL"]),
    ("", ["x"]),
    ("  one\x02two\n", ["one", "two", "onetwo"]),
    ("1. oak 2. elm 3. ash", ["ash", "oak", "fir", "elm", "yew"]),
]
INTEGERS = [
    "The key is 12345.", "012345", "none", "12 345", "no. 7: 12345", "x12345y", "", "12345", "12345 67", "67 then 012345",
]  # fmt: skip
LABELS = ["kitchen", "garden", "office", "Bill", "Mary"]
NAMED = [
    ("In the Kitchen.", "kitchen"), ("The kitchen or the garden.", "kitchen"), ("The kitchen. Not the garden.", "kitchen"),
    ("bill went", "Bill"), ("I do not know", "office"), ("Mary, and Mary again", "Mary"), ("Mary gave it to Bill", "Bill"),
]  # fmt: skip
SENTENCES = [
    ("The old keeper wrote down seven ships.", "The old keeper of the light wrote down seven ships and a gull."),
    ("ships seven down wrote", "wrote down seven ships"),
    ("Don't-stop; 7 ships!", "don t stop 7 SHIPS"),
    ("nothing alike", "some other words"),
    ("", "some words"),
    ("running runs", "run running"),
]


def main(ruler: Path, infinite: Path, babilong: Path, longchat: Path) -> None:
    """Writes both files."""
    OUT.mkdir(parents=True, exist_ok=True)
    for name, made in (
        ("scores", scores(ruler, infinite, babilong, longchat)), ("structure", structure(ruler / "scripts/data/synthetic")),
    ):  # fmt: skip
        made = {"source": SOURCES, "maker": "tests/data/make_tasks_golden.py", **made}
        (OUT / f"{name}.json").write_text(json.dumps(made, indent=1) + "\n", encoding="utf-8")


def scores(ruler: Path, infinite: Path, babilong: Path, longchat: Path) -> dict[str, Any]:
    """What the originals' scorers say of the answers above."""
    from rouge_score.rouge_scorer import RougeScorer

    matches = functions(ruler / "scripts/eval/synthetic/constants.py", "string_match_all", "string_match_part")
    first = functions(infinite / "src/compute_scores.py", "first_int_match")["first_int_match"]
    compare = functions(babilong / "babilong/metrics.py", "compare_answers", "preprocess_output")["compare_answers"]
    rouge = RougeScorer(["rougeL"], use_stemmer=False)
    assert r're.findall("\d+", output)' in (longchat / "longeval/utils.py").read_text(), "LongEval's rule has changed"
    last = [re.findall(r"\d+", answer) for answer in INTEGERS]
    return {
        "all": [[a, refs, matches["string_match_all"]([a], [refs]) / 100] for a, refs in FOUND],
        "any": [[a, refs, matches["string_match_part"]([a], [refs]) / 100] for a, refs in FOUND],
        "first-integer": [[a, ["12345"], float(first(a) == "12345")] for a in INTEGERS],
        "last-integer": [
            [a, ["12345"], float(bool(f) and int(f[-1]) == 12345)] for a, f in zip(INTEGERS, last, strict=True)
        ],
        "label": [[a, [right], float(compare(right, a, "", LABELS))] for a, right in NAMED],
        "labels": LABELS,
        "rouge-l": [[a, [ref], rouge.score(ref, a)["rougeL"].fmeasure] for a, ref in SENTENCES],
    }


def functions(path: Path, *names: str) -> dict[str, Callable[..., Any]]:
    """Functions of a file, without the rest of it."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    tree.body = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name in names]
    space: dict[str, Any] = {"re": re}
    exec(compile(tree, str(path), "exec"), space)
    return {name: space[name] for name in names}


def structure(folder: Path) -> dict[str, Any]:
    """Numbers of what RULER's generators make."""
    made: dict[str, Any] = {"niah": {}, "common-words": {}, "frequent-words": []}
    for task, options in {
        "niah-single-1": "noise words numbers 1 1 1", "niah-multikey-2": "needle words numbers 1 1 1",
        "niah-multikey-3": "needle uuids uuids 1 1 1", "niah-multikey-1": "essay words numbers 4 1 1",
        "niah-multivalue": "essay words numbers 1 4 1", "niah-multiquery": "essay words numbers 1 1 4",
    }.items():  # fmt: skip
        made["niah"][task] = niah(folder, options.split())
    tracing = generator(
        folder / "variable_tracking.py", ["--template", "{context}\nASK {query} {num_v}", "--max_seq_length", "4096"]
    )
    for name, example in (("chain", False), ("example", True)):
        text, names = tracing["generate_input_output"](20, 1, 4, is_icl=example)
        lines = [line for line in text.split("\n") if line.startswith("VAR")]
        made[name] = {
            "names": len(names), "letters": len(names[0]), "lines": len(lines),
            "in order": lines == sorted(lines, key=lambda line: names.index(line.split()[1])),
            "stands": [len(re.findall(rf"\b{one}\b", "\n".join(lines))) for one in names],
        }  # fmt: skip
    for length in (2048, 4096):
        common = generator(
            folder / "common_words_extraction.py", ["--template", "LIST {context}", "--max_seq_length", str(length)]
        )
        text, answer = common["generate_input_output"](100)
        example, listed = text.split("\nLIST ")
        made["common-words"][str(length)] = {
            "list": times(listed),
            "example": times(example.removeprefix("LIST ").rsplit(" 1. ", 1)[0]),
            "asked": len(answer),
        }
    frequent = generator(folder / "freq_words_extraction.py", ["--template", "{context}", "--max_seq_length", "4096"])
    for num, size in ((74, 20), (500, 40), (3000, 81)):
        text, answer, _ = frequent["generate_input_output"](10**9, num_words=num, vocab_size=size)
        counted = Counter(text.split())
        made["frequent-words"].append(
            {
                "num": num,
                "size": size,
                "counts": sorted(counted.values(), reverse=True),
                "asked": [counted[word] for word in answer],
                "dots": counted["..."],
            }
        )
    return made


def times(listed: str) -> list[list[int]]:
    """[how often, how many words stand so often] of a numbered list."""
    counted = Counter(re.findall(r"\d+\. (\S+)", listed))
    return sorted([often, num] for often, num in Counter(counted.values()).items())


def niah(folder: Path, options: list[str]) -> dict[str, Any]:
    """Needles, answers and the shape of keys and values of one needle task."""
    names = ("type_haystack", "type_needle_k", "type_needle_v", "num_needle_k", "num_needle_v", "num_needle_q")
    told = [part for name, value in zip(names, options, strict=True) for part in (f"--{name}", value)]
    space = generator(folder / "niah.py", [*told, "--template", "{context}\nASK {query}", "--max_seq_length", "4096"])
    text, answers = space["generate_input_output"](30)
    context, asked = text.rsplit("\nASK ", 1)
    keys = re.findall("[^, ]+", asked.replace(" and ", " "))
    return {
        "needles": context.count("One of the"), "answers": len(answers), "keys asked": len(keys),
        "stands": [context.count(answer) for answer in answers], "key stands": [context.count(key) for key in keys],
        "value": re.sub("[a-z0-9]", "x", answers[0]), "hyphens in key": keys[0].count("-"),
    }  # fmt: skip


def generator(path: Path, options: list[str]) -> dict[str, Any]:
    """The names of one of RULER's generators, loaded with stand-ins for what it does not compute."""
    stand_in(
        "wonderwords",
        random_word=types.SimpleNamespace(_get_words_from_text_file=lambda name: [f"{name[:4]}x{i}" for i in range(300)]),
    )
    stand_in("tokenizer", select_tokenizer=lambda *_: types.SimpleNamespace(text_to_tokens=str.split))
    stand_in("manifest_utils", write_manifest=None)
    stand_in("tqdm", tqdm=list)
    stand_in("nltk")
    stand_in("nltk.tokenize", sent_tokenize=lambda text: text.split(". "))
    stand_in("scipy")
    stand_in("scipy.special", zeta=lambda alpha: {2.0: math.pi**2 / 6}[alpha])
    told = [
        "--save_dir",
        "x",
        "--save_name",
        "x",
        "--tokenizer_path",
        "x",
        "--num_samples",
        "1",
        "--tokens_to_generate",
        "1",
        *options,
    ]
    sys.argv = [str(path), *told]
    source = path.read_text(encoding="utf-8").replace("list(json.load(f).values())", "[]")
    source = source.replace("json.load(open(essay))['text']", repr("It was so. " * 500))
    sys.path.insert(0, str(path.parent))
    space: dict[str, Any] = {"__file__": str(path), "__name__": "generator"}
    with contextlib.redirect_stderr(None):
        exec(compile(source, str(path), "exec"), space)
    return space


def stand_in(name: str, **content: Any) -> None:
    """A module of that name with that content."""
    module = types.ModuleType(name)
    vars(module).update(content)
    sys.modules[name] = module


if __name__ == "__main__":
    main(*(Path(argument) for argument in sys.argv[1:]))
