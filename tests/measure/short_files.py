"""A folder of task files for lm-eval with data of its own: three kinds of tasks that a tiny model answers in seconds."""

import json
import random
from pathlib import Path

NUM_DOCUMENTS = 24
WORDS = ("gull", "ship", "rope", "mast", "tide", "lamp", "oar", "net", "bell", "sand")


def documents() -> list[dict[str, object]]:
    """Questions of some forty letters, each with three choices of different lengths."""
    draw = random.Random(5)
    found = []
    for number in range(NUM_DOCUMENTS):
        choices = draw.sample(WORDS, 3)
        found.append(
            {
                "question": f"{number}: the {draw.choice(WORDS)} and the {draw.choice(WORDS)} met a",
                "choices": choices,
                "label": draw.randrange(3),
                "page": " ".join(draw.choices(WORDS, k=9)),
            }
        )
    return found


def write_task_folder(folder: Path) -> Path:
    """`short_choice`, `short_rolling`, `short_written` and the group `short_all` of the first two."""
    folder.mkdir(parents=True)
    data = folder / "documents.jsonl"
    data.write_text("".join(json.dumps(document) + "\n" for document in documents()), encoding="utf-8")
    common = (
        f"dataset_path: json\ndataset_kwargs:\n  data_files:\n    test: {json.dumps(str(data))}\n"
        f"  cache_dir: {json.dumps(str(folder / 'cache'))}\ntest_split: test\n"
    )
    (folder / "common.yaml").write_text(common, encoding="utf-8")
    files = {
        "short_choice": (
            "include: common.yaml\noutput_type: multiple_choice\ndoc_to_text: '{{question}}'\ndoc_to_choice: choices\n"
            "doc_to_target: label\nmetric_list:\n"
            "  - {metric: acc, aggregation: mean, higher_is_better: true}\n"
            "  - {metric: acc_norm, aggregation: mean, higher_is_better: true}\n"
        ),
        "short_rolling": (
            "include: common.yaml\noutput_type: loglikelihood_rolling\ndoc_to_text: ''\ndoc_to_target: '{{page}}'\n"
            "metric_list:\n  - {metric: byte_perplexity, aggregation: weighted_perplexity, higher_is_better: false}\n"
            "  - {metric: bits_per_byte, aggregation: bits_per_byte, higher_is_better: false}\n"
        ),
        "short_written": (
            "include: common.yaml\noutput_type: generate_until\ndoc_to_text: '{{question}}'\n"
            "doc_to_target: '{{choices[label]}}'\n"
            'generation_kwargs: {until: ["\\n"], max_gen_toks: 6, do_sample: false}\n'
            "metric_list:\n  - {metric: exact_match, aggregation: mean, higher_is_better: true}\n"
        ),
    }
    for name, content in files.items():
        (folder / f"{name}.yaml").write_text(f"task: {name}\n{content}", encoding="utf-8")
    group = "group: short_all\ntask: [short_choice, short_rolling]\n"
    (folder / "short_all.yaml").write_text(group, encoding="utf-8")
    return folder
