"""The launch line that makes a running engine compute a plan from an unchanged checkpoint.

vLLM (0.33) sets each overridden field of the config, so an object of rope fields is replaced whole, after the config was
standardised: it must be complete. Inside `text_config` it merges instead. SGLang (0.5.23) does it the other way round: it
merges at the top and replaces inside `text_config`. llama.cpp (commit 0c1e57098) has flags, and `--override-kv` for what
they do not reach. transformers takes fields as keyword arguments of `from_pretrained`.

`apply_launch` does what the engine does with its line, so that the same reader that judges checkpoints judges the line.
"""

import ast
import copy
import json
from collections.abc import Callable, Mapping
from typing import Any

from ropewalk.core.errors import InputError, near
from ropewalk.core.geometry import Geometry
from ropewalk.core.plan import Plan
from ropewalk.engines import transformers
from ropewalk.engines.computed import Launch
from ropewalk.engines.llamacpp import flags
from ropewalk.engines.transformers import block
from ropewalk.engines.transformers.families import enter
from ropewalk.engines.transformers.reading import measure, parameters
from ropewalk.engines.transformers.spellings import FULL

ORIGINAL = "original_max_position_embeddings"
LEFTOVERS = ("attention_factor", "attn_factor", "mscale", "mscale_all_dim", "short_mscale", "long_mscale")
"""Fields that would go on counting where an override is merged into an object that has them."""
CONTEXT = {"vllm": "--max-model-len", "sglang": "--context-length"}
OVERRIDES = {"vllm": "--hf-overrides", "sglang": "--json-model-override-args"}
ATTENTION = "--yarn-attn-factor is overwritten by llama.cpp itself, so the factor on cos and sin goes through --override-kv"
OLLAMA = "Ollama has no such flags: for it the plan must be in the GGUF file (ropewalk extend model.gguf --out new.gguf)"


def launch(config: Mapping[str, Any], plan: Plan, engine: str, *, geometry: Geometry | None = None) -> Launch:
    """The arguments with which `engine` computes `plan` from the checkpoint of `config`.

    `geometry` is what the plan was made from, where the user said more than the config does. Raises `HostError` where no
    line says the plan, with what would be lost, and `InputError` for an unknown engine.
    """
    if engine not in WRITERS:
        raise InputError(f"no launch line is known for {engine!r}; {near(engine, WRITERS)}")
    spelled = transformers.spell(config, plan, geometry=geometry)
    return WRITERS[engine](config, spelled, plan)


def apply_launch(config: Mapping[str, Any], launch: Launch, engine: str) -> dict[str, Any]:
    """What the engine sees once its line was read: a config, or for llama.cpp the metadata of the file it loads."""
    if engine == "llama.cpp":
        return flags.apply_flags(flags.file_of(config)[0], launch.arguments)
    new = standard(config)
    if engine == "transformers":
        overrides = {key: ast.literal_eval(value) for key, _, value in (a.partition("=") for a in launch.arguments)}
    else:
        overrides = json.loads(launch.arguments[launch.arguments.index(OVERRIDES[engine]) + 1])
    for key, value in overrides.items():
        if key == "text_config" and isinstance(new.get(key), dict):
            _update(new[key], value, merge=engine == "vllm")
        else:
            _update(new, {key: value}, merge=engine == "sglang")
    return new


def _update(target: dict[str, Any], values: Mapping[str, Any], *, merge: bool) -> None:
    for key, value in values.items():
        old = target.get(key)
        merged = merge and isinstance(value, dict) and isinstance(old, dict)
        target[key] = {**old, **value} if merged else copy.deepcopy(value)  # type: ignore[dict-item]


def standard(config: Mapping[str, Any]) -> dict[str, Any]:
    """A config as its class holds it once it was read: one spelling, the base inside; our own block gone."""
    new: dict[str, Any] = copy.deepcopy(dict(config))
    new.pop(block.KEY, None)
    _, _, nested = enter(config)
    shape = measure(config)
    params, family = parameters(shape), shape.family
    text = new.setdefault("text_config", {}) if nested else new
    for key in ("rope_scaling", "rope_theta", family.base_key, family.local_base_key):
        if key is not None:
            text.pop(key, None)
    text["rope_parameters"] = params.by_type if family.typed else params.by_type[""]
    if family.typed and not params.truncate:
        text["rope_parameters"] = {**params.by_type, "truncate": False}
    return new


def _fields(config: Mapping[str, Any], spelled: Mapping[str, Any], plan: Plan) -> tuple[dict[str, Any], bool]:
    """The fields to override, and whether they lie in `text_config`."""
    _, new, nested = enter(spelled)
    _, old, _ = enter(config)
    fields = {"rope_parameters": new["rope_parameters"], "max_position_embeddings": new["max_position_embeddings"]}
    if ORIGINAL in new or ORIGINAL in old:
        # A copy beside the rope parameters overrules the one inside, so the override must reach both.
        fields[ORIGINAL] = new.get(ORIGINAL) or _main(new["rope_parameters"]).get(ORIGINAL, plan.length)
    if new.get("head_dim") != old.get("head_dim"):
        fields["head_dim"] = new["head_dim"]
    return fields, nested


def _main(parameters: Mapping[str, Any]) -> Mapping[str, Any]:
    """The rope fields of the layers that see the whole text."""
    inner = parameters.get(FULL)
    return inner if isinstance(inner, Mapping) else parameters


def _without_leftovers(config: Mapping[str, Any], fields: dict[str, Any]) -> dict[str, Any]:
    """The same fields for an engine that merges: what the old object has and the new one has not is set to null."""
    _, held, _ = enter(standard(config))
    new, old = fields["rope_parameters"], held["rope_parameters"]
    gone = {key: None for key in LEFTOVERS if old.get(key) is not None and key not in new}
    return {**fields, "rope_parameters": {**new, **gone}}


def _vllm(config: Mapping[str, Any], spelled: Mapping[str, Any], plan: Plan) -> Launch:
    fields, nested = _fields(config, spelled, plan)
    said = {"text_config": _without_leftovers(config, fields)} if nested else fields
    return Launch(
        engine="vllm",
        arguments=(OVERRIDES["vllm"], _json(said), CONTEXT["vllm"], str(plan.length)),
        says=(
            "vLLM replaces the whole of rope_parameters, so the line repeats the base and the type; the length goes with "
            "it, since a stretch does not raise it",
        ),
    )


def _sglang(config: Mapping[str, Any], spelled: Mapping[str, Any], plan: Plan) -> Launch:
    fields, nested = _fields(config, spelled, plan)
    said = {"text_config": fields} if nested else _without_leftovers(config, fields)
    return Launch(
        engine="sglang",
        arguments=(OVERRIDES["sglang"], _json(said), CONTEXT["sglang"], str(plan.length)),
        says=("SGLang merges the override into rope_parameters: fields that are not named stay as they were",),
    )


def _transformers(config: Mapping[str, Any], spelled: Mapping[str, Any], plan: Plan) -> Launch:
    fields, nested = _fields(config, spelled, plan)
    said = {"text_config": fields} if nested else fields
    return Launch(
        engine="transformers",
        arguments=tuple(f"{key}={value!r}" for key, value in said.items()),
        says=("Python: keyword arguments of from_pretrained, which replace the whole of rope_parameters",),
    )


def _llamacpp(config: Mapping[str, Any], spelled: Mapping[str, Any], plan: Plan) -> Launch:
    return llamacpp_launch(flags.file_of(config)[0], spelled, plan)


def llamacpp_launch(metadata: Mapping[str, Any], spelled: Mapping[str, Any], plan: Plan) -> Launch:
    """Flags for llama-server and llama-cli over a file with this metadata. Raises `HostError` for what no flag says."""
    _, new, _ = enter(spelled)
    arguments = tuple(flags.arguments_for(metadata, _main(new["rope_parameters"]), plan))
    overridden = any(".rope.scaling.attn_factor=" in argument for argument in arguments)
    return Launch(engine="llama.cpp", arguments=arguments, says=(*[ATTENTION] * overridden, OLLAMA))


def _json(content: Mapping[str, Any]) -> str:
    return json.dumps(content, allow_nan=False)


WRITERS: dict[str, Callable[[Mapping[str, Any], Mapping[str, Any], Plan], Launch]] = {
    "vllm": _vllm,
    "sglang": _sglang,
    "llama.cpp": _llamacpp,
    "transformers": _transformers,
}
