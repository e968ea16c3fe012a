"""llama.cpp's command line over a GGUF file: what a context computes when flags overrule the file.

Read in `src/llama-context.cpp` and `common/arg.cpp` at commit 0c1e57098: each rope flag takes the place of the file's key,
`--yarn-attn-factor` is overwritten where YaRN is on, `--override-kv` changes keys before anything reads them, and a YaRN
scale that is not the file's sets the trained context to original / (1/s) in float32, rounded down. Flags do not reach
sliding-window layers, which have the file's own base and scale.

Given up: `--rope-freq-scale` and `--yarn-ext-factor`, which say again what others say.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ropewalk.core.errors import HostError, InputError, PlanError
from ropewalk.core.geometry import Vector
from ropewalk.core.plan import Plan
from ropewalk.engines.computed import Computed
from ropewalk.engines.llamacpp.architectures import ARCHITECTURES, OF_MODEL_TYPE, windowed
from ropewalk.engines.llamacpp.compute import compute_metadata
from ropewalk.engines.llamacpp.conversion import Refused, as_converted
from ropewalk.engines.transformers import formulas
from ropewalk.engines.transformers.reading import make_groups, measure, parameters

ORIGINAL = "original_max_position_embeddings"
KEYS = {
    "--rope-scaling": "rope.scaling.type",
    "--rope-scale": "rope.scaling.factor",
    "--rope-freq-base": "rope.freq_base",
    "--yarn-orig-ctx": "rope.scaling.original_context_length",
    "--yarn-beta-fast": "flags.yarn_beta_fast",
    "--yarn-beta-slow": "flags.yarn_beta_slow",
}
"""Flag to the key that it overrules. Betas on the command line reach every architecture, those in a file only some."""


def file_of(config: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Vector]]:
    """Metadata and factor tensors of the file that the stock converter makes of a config. Raises `HostError`."""
    shape = measure(config)
    if shape.model_type not in OF_MODEL_TYPE:
        raise HostError(f"llama.cpp's code for {shape.model_type} was not read, so no launch line is known for it")
    params = parameters(shape)
    try:
        made = as_converted(OF_MODEL_TYPE[shape.model_type], shape, params, make_groups(shape, params, shape.declared))
    except Refused as error:
        raise HostError(f"no GGUF file can be made of this checkpoint: {error}") from error
    return made.metadata, made.factors


def arguments_for(metadata: Mapping[str, Any], section: Mapping[str, Any], plan: Plan) -> list[str]:
    """The flags by which llama.cpp computes `plan` from a file, given the plan's rope parameters as transformers has them.

    Raises `HostError` for what no flag says.
    """
    name, kind = str(metadata.get("general.architecture")), str(section["rope_type"])
    if name not in ARCHITECTURES:
        raise HostError(f"llama.cpp's code for architecture {name!r} was not read, so no launch line is known for it")
    _check_sayable(name, kind, section, metadata)
    flags = ["--rope-freq-base", text_of(float(section["rope_theta"]))]
    overrides = [f"{name}.context_length=int:{plan.length}"]
    if kind == "default":
        return ["--rope-scaling", "none", *flags, *_tail(overrides, plan)]
    factor = float(section["factor"])
    if kind == "yarn":
        original = int(section[ORIGINAL])
        flags += ["--yarn-orig-ctx", str(original)]
        for key, flag in (("beta_fast", "--yarn-beta-fast"), ("beta_slow", "--yarn-beta-slow")):
            flags += [flag, text_of(float(section[key]))] if section.get(key) is not None else []
        key, times = f"{name}.rope.scaling.attn_factor", _attention(plan) / formulas.temperature(factor)
        if times != metadata.get(key, 1.0):
            overrides.append(f"{key}=float:{text_of(times)}")
        if _trained_context(original, factor) < plan.length:
            # In float32 the context would come out a token short; in the file's own keys nothing is divided.
            overrides += [f"{name}.rope.scaling.type=str:yarn", f"{name}.rope.scaling.factor=float:{text_of(factor)}"]
            return [*flags, *_tail(overrides, plan)]
    return ["--rope-scaling", kind, "--rope-scale", text_of(factor), *flags, *_tail(overrides, plan)]


def _tail(overrides: list[str], plan: Plan) -> list[str]:
    return ["--override-kv", ",".join(overrides), "--ctx-size", str(plan.length)]


def _check_sayable(name: str, kind: str, section: Mapping[str, Any], metadata: Mapping[str, Any]) -> None:
    if kind not in ("default", "linear", "yarn"):
        raise HostError(
            f"llama.cpp has no flags for {kind} scaling, and its factor for each dimension would be lost; write a GGUF file "
            "that has them: ropewalk extend MODEL.gguf --out NEW.gguf"
        )
    if section.get("truncate") is False:
        raise HostError("llama.cpp always rounds the ends of YaRN's ramp, so truncate=false would be lost; plan without it")
    window = ARCHITECTURES[name].window
    if any(windowed(name, metadata)) and (window == "same" or (window == "plain" and kind == "default")):
        raise HostError(
            f"llama.cpp's flags do not reach the sliding-window layers of {name}, which share this plan; write a GGUF file "
            "with it: ropewalk extend MODEL.gguf --out NEW.gguf"
        )


def _attention(plan: Plan) -> float:
    words = [word for word in plan.groups.values() if word is not None]
    if len({(word.attention_factor, word.logit_scale) for word in words}) != 1 or words[0].logit_scale != 1.0:
        raise HostError("llama.cpp has one factor for all layers, on cos and sin; plan with temperature_on=rotated")
    return words[0].attention_factor


def _trained_context(original: int, factor: float) -> int:
    """What llama.cpp makes of the trained context under a YaRN scale from the command line."""
    return int(np.float32(original) / (np.float32(1.0) / np.float32(factor)))


def apply_flags(metadata: Mapping[str, Any], arguments: Sequence[str]) -> dict[str, Any]:
    """The metadata as the context sees it under a command line. Raises `InputError` for a flag that is not known here."""
    new, name = dict(metadata), str(metadata["general.architecture"])
    given = dict(zip(arguments[::2], arguments[1::2], strict=True))
    for override in filter(None, given.pop("--override-kv", "").split(",")):
        key, _, value = override.partition("=")
        kind, _, content = value.partition(":")
        new[key] = int(content) if kind == "int" else _single(content) if kind == "float" else content
    given.pop("--ctx-size", None)
    scale = given.get("--rope-scale")
    unchanged = scale is None or _single(scale) == new.get(f"{name}.rope.scaling.factor", 1.0)
    for flag, value in given.items():
        if flag not in KEYS:
            raise InputError(f"the flag {flag!r} of llama.cpp is not one of {', '.join(KEYS)}, --override-kv, --ctx-size")
        number = _single if flag not in ("--rope-scaling", "--yarn-orig-ctx") else None
        new[f"{name}.{KEYS[flag]}"] = number(value) if number else value if flag == "--rope-scaling" else int(value)
    if given.get("--rope-scaling") == "yarn" and not unchanged:
        assert scale is not None
        new[f"{name}.context_length"] = _trained_context(new[f"{name}.rope.scaling.original_context_length"], float(scale))
    return new


def compute_flags(
    metadata: Mapping[str, Any], factors: Mapping[str, Vector], arguments: Sequence[str], *, length: int
) -> Computed:
    """What llama.cpp computes from a file under a command line."""
    return compute_metadata(apply_flags(metadata, arguments), length=length, factors=factors)


def _single(value: str | float) -> float:
    return float(np.float32(value))


def text_of(value: float) -> str:
    """The shortest text that reads back as the same number, without an exponent where a parser might stumble."""
    if not np.isfinite(value):
        raise PlanError(f"a flag needs a number, got {value}")
    return f"{value:.1f}" if value == int(value) and abs(value) < 1e15 else repr(float(value))
