"""Holds written configs against the rotary modules of another transformers release: the oldest that is supported.

    .venv/bin/python tools/sweep_oldest.py .engines/transformers-oldest-*/bin/python

Every family, four methods at four times the trained length, spelled here and turned there. It prints the sentence that
tools/generate_families.py has on its page, and the families that the release does not have. The newest release has a larger
sweep in tests/engines/test_family_sweep.py; this one has no test, since its release lives in an environment of its own.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "engines")]

METHODS = ("pi", "ntk", "yarn", "ntk-mixed")
FACTOR = 4
TOLERANCE = 1e-6


def cases() -> list[dict[str, Any]]:
    """Configs that carry a plan, with the numbers that were planned. What a family refuses has none."""
    import tiny_families as tiny

    from ropewalk.core.errors import HostError, PlanError, UnsupportedError
    from ropewalk.core.method import find
    from ropewalk.engines.transformers import read, spell
    from ropewalk.engines.transformers.families import FAMILIES

    found = []
    for name in sorted(FAMILIES):
        config = tiny.fields(name)
        if name == "exaone4":
            config |= {"sliding_window": None, "layer_types": ["full_attention"] * tiny.LAYERS}
        geometry = read(config)
        for method in METHODS:
            try:
                plan = find(method).plan(geometry, FACTOR * geometry.start_length)
                config_of_plan = spell(config, plan)
            except (PlanError, UnsupportedError, HostError):
                continue
            words = {
                label: {"inv_freq": word.inv_freq.tolist(), "attention_factor": word.attention_factor}
                for label, word in plan.groups.items()
                if word is not None
            }
            found.append({"family": name, "method": method, "config": config_of_plan, "length": plan.length, "words": words})
    return found


def holds(case: dict[str, Any]) -> bool:
    """Whether the stock rotary module of a config turns by the numbers that were planned."""
    from rotary_probe import configure, turned

    built = configure(case["config"])
    for label, word in case["words"].items():
        got = turned(built, label, len(word["inv_freq"]), case["length"])
        close = np.allclose(got.inv_freq, word["inv_freq"], rtol=TOLERANCE, atol=0.0)
        if not close or abs(got.attention_factor / word["attention_factor"] - 1.0) > TOLERANCE:
            return False
    return True


def turn(given: list[dict[str, Any]]) -> int:
    """In the other release: counts, and says what was counted."""
    import transformers
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    transformers.logging.set_verbosity_error()
    known = [case for case in given if case["family"] in CONFIG_MAPPING]
    absent = sorted({case["family"] for case in given} - {case["family"] for case in known})
    wrong = [f"{case['family']} {case['method']}" for case in known if not holds(case)]
    same = len(known) - len(wrong)
    print(f"transformers {transformers.__version__}: {same} configs turn the same, {len(wrong)} do not")
    print(f"differ: {', '.join(wrong) or 'none'}\nit lacks: {', '.join(absent) or 'none'}")
    return 1 if wrong else 0


def main() -> int:
    """Writes the configs here and has them turned by the interpreter that is named."""
    if sys.argv[1:] == ["-"]:
        return turn(json.load(sys.stdin))
    if len(sys.argv) != 2:
        print("which interpreter? Give the path of one whose environment has the other release")
        return 2
    text = json.dumps(cases())
    quiet = {**os.environ, "PYTHONPATH": ""}
    return subprocess.run([sys.argv[1], __file__, "-"], input=text, text=True, env=quiet, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
