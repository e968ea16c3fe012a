"""What engines make of an adapter beside its base: which kinds they add at run time, and which they refuse.

Positions come from the base that an engine is started with, so verdicts are about that. Here is what is lost or refused of
the adapter itself, as findings, since weights are no matter of positions.

Read in vllm/lora/peft_helper.py (`_validate_features`: no `modules_to_save`, no DoRA), llama.cpp's convert_lora_to_gguf.py
(exits at trained embeddings and at whatever is no A or B), and SGLang's LoRAAdapter (asserts the type LORA).

Given up: saying which layers an engine can put an adapter on, which hangs on the family.
"""

from collections.abc import Mapping
from typing import Any

from ropewalk.core.geometry import Finding

MERGE = "write whole weights with ropewalk tune ADAPTER --merge --out NEW"
LORA = "LORA"
PREFIX = "PREFIX_TUNING"


def findings(adapter: Mapping[str, Any]) -> list[Finding]:
    """What other engines than transformers do not take of an adapter, by its adapter_config.json."""
    kind, whole = adapter.get("peft_type"), adapter.get("modules_to_save")
    found = []
    if kind == PREFIX:
        problem = "this is a trained prefix, which PEFT reads and vLLM, SGLang and llama.cpp do not"
        found.append(_finding("peft_type", problem, "read it with ropewalk or PEFT; a prefix cannot be merged"))
    elif kind != LORA:
        problem = f"this is an adapter of the kind {kind}, and vLLM, SGLang and llama.cpp add LoRA alone"
        found.append(_finding("peft_type", problem, MERGE))
    elif whole:
        problem = f"{', '.join(map(str, whole))} are trained whole: vLLM (--enable-lora) and llama.cpp refuse such adapters"
        found.append(_finding("modules_to_save", problem, MERGE))
    if adapter.get("use_dora"):
        problem = "this is DoRA, which vLLM refuses to add at run time and llama.cpp cannot convert"
        found.append(_finding("use_dora", problem, MERGE))
    return found


def _finding(field: str, problem: str, mend: str) -> Finding:
    return Finding(field=field, severity="warning", problem=problem, mend=mend)
