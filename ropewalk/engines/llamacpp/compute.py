"""What llama.cpp computes from a GGUF file's metadata and factor tensors, or from what its stock converter would write.

Read in llama.cpp at commit 0c1e57098 (October 2026) and held against the library itself, tensor by tensor
(tests/golden/engines/llamacpp.json). The angle of pair i at position p is p * w_i / f_i, then divided by the factor s, or
for YaRN mixed with the undivided one along the ramp; ramp ends are always rounded. On cos and sin stands

    A = m(s, 1) / m(s, log_multiplier) * rope.scaling.attn_factor          m(s, c) = 0.1 c ln s + 1

for YaRN and `attn_factor` alone for every other type. The context divides 1 + 0.1 ln s out of A and ggml multiplies it in
again, so a sliding-window layer that is not stretched keeps `attn_factor` and loses m. A file without a type is linear; a
request never changes the numbers, only the context that a deployment is given does.

Given up: float32 rounding of angles at far positions. What a command line changes is in `flags`.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ropewalk.core.errors import RopewalkError, SourceError
from ropewalk.core.geometry import Vector, geometric
from ropewalk.core.plan import Frequencies
from ropewalk.engines.computed import Computed
from ropewalk.engines.llamacpp.architectures import ARCHITECTURES, OF_MODEL_TYPE, Architecture, windowed
from ropewalk.engines.llamacpp.conversion import Refused, as_converted
from ropewalk.engines.llamacpp.reading import DIVISORS, LONG, SHORT
from ropewalk.engines.transformers.reading import make_groups, measure, parameters

NAME = "llama.cpp"
VERSIONS = "commit 0c1e57098 (October 2026)"
TYPES = ("none", "linear", "yarn", "longrope")
_PAD = 256
"""llama.cpp rounds a context up to a multiple of this, and compares the rounded one with the original length."""
_SAME = "the same numbers at every length"
_BY_CONTEXT = "the long factors for every request where the context is beyond the original length, else the short ones"


@dataclass(frozen=True, kw_only=True)
class Layers:
    """What each layer turns by, and how that was chosen."""

    words: list[Frequencies | None]
    """[num_layers]; None for a layer without positions."""
    labels: list[str]
    """[num_layers]; what a geometry calls the layer's group."""
    windowed: list[bool]
    """[num_layers]; which llama.cpp takes for sliding-window layers with numbers of their own."""
    by_context: bool
    unused: tuple[str, ...]
    max_length: int


def compute(
    config: Mapping[str, Any], *, length: int, tokenizer_config: Mapping[str, Any] | None = None
) -> Computed:  # fmt: skip
    """What llama.cpp computes after its stock converter took this transformers config, context at the longest length.

    `length` and the tokenizer's length change nothing here. Never raises on a config: what would stop the converter or
    the loader is `refuses`, what cannot be told is `unsupported`.
    """
    try:
        shape = measure(config)
        if shape.model_type not in OF_MODEL_TYPE:
            return _nothing(unsupported=f"llama.cpp's code for {shape.model_type} was not read")
        params = parameters(shape)
        groups = make_groups(shape, params, shape.declared)
        made = as_converted(OF_MODEL_TYPE[shape.model_type], shape, params, groups)
        layers = layers_of(Scaling(made.metadata, made.factors))
    except Refused as error:
        return _nothing(refuses=str(error))
    except (RopewalkError, OverflowError, ZeroDivisionError) as error:
        return _nothing(unsupported=f"no numbers can be told: {error}")
    words: dict[str, Frequencies | None] = {}
    notes = [*made.notes]
    for group in groups:
        words[group.label], odd = _word_of(group.layers, layers.words)
        if odd:
            notes.append(f"llama.cpp treats layers of the group {group.label} differently: {odd}")
    return _computed(words, layers, ignored=made.ignored, notes=notes)


def compute_metadata(metadata: Mapping[str, Any], *, length: int, factors: Mapping[str, Vector]) -> Computed:
    """What llama.cpp computes from a GGUF file's metadata and its factor tensors (`FACTOR_TENSORS`), by name.

    `factors` are float64 [rotary_dim/2]. `length` changes nothing: the context is `context_length`. Never raises on
    metadata: `refuses` where the loader would stop, `unsupported` where no numbers can be told.
    """
    architecture = metadata.get("general.architecture")
    if architecture not in ARCHITECTURES:
        return _nothing(unsupported=f"llama.cpp's code for architecture {architecture!r:.60} was not read")
    try:
        layers = layers_of(Scaling(metadata, factors))
    except Refused as error:
        return _nothing(refuses=str(error))
    except (RopewalkError, OverflowError, ZeroDivisionError) as error:
        return _nothing(unsupported=f"no numbers can be told: {error}")
    words = dict(zip(layers.labels, layers.words, strict=True))
    return _computed(words, layers, ignored=(), notes=[])


def _nothing(*, refuses: str | None = None, unsupported: str | None = None) -> Computed:
    return Computed(
        engine=NAME, versions=VERSIONS, groups={}, max_length=None, refuses=refuses, unsupported=unsupported
    )  # fmt: skip


def _computed(
    words: Mapping[str, Frequencies | None], layers: Layers, *, ignored: Iterable[str], notes: list[str]
) -> Computed:  # fmt: skip
    if any(word is not None and word.attention_factor != 1.0 for word in words.values()):
        notes.append("a context shift multiplies cached keys by the attention factor again; run with --no-context-shift")
    return Computed(
        engine=NAME,
        versions=VERSIONS,
        groups=dict(words),
        max_length=layers.max_length,
        depends_on="deployment" if layers.by_context else "nothing",
        short_request=_BY_CONTEXT if layers.by_context else _SAME,
        ignored=(*ignored, *layers.unused),
        notes=tuple(notes),
    )


def _word_of(indices: Iterable[int], words: list[Frequencies | None]) -> tuple[Frequencies | None, str]:
    """The word of a group's layers, and the layers that have another one, in words. Of several the rarest is shown."""
    by_word: dict[Frequencies | None, list[int]] = {}
    for layer in indices:
        by_word.setdefault(words[layer], []).append(layer)
    if len(by_word) == 1:
        return next(iter(by_word)), ""
    word, layers = min(by_word.items(), key=lambda item: len(item[1]))
    return word, f"layers {', '.join(map(str, layers[:8]))} turn by other numbers than the rest"


def layers_of(scaling: "Scaling") -> Layers:
    """What each layer of a file turns by. Raises `Refused` and `SourceError`."""
    metadata, row, full = scaling.metadata, scaling.row, scaling.word(window=False)
    flags = windowed(scaling.architecture, metadata)
    window = scaling.word(window=True) if any(flags) else full
    # Where families call all their rotated layers one group, windowed ones with numbers of their own are another.
    other = row.labels[1] if row.labels[0] != row.labels[1] or window == full else "sliding_attention"
    words: list[Frequencies | None] = []
    labels = []
    interval = metadata.get(f"{scaling.architecture}.full_attention_interval", 4)
    for layer, is_window in enumerate(flags):
        if row.no_rope_period and (layer + 1) % row.no_rope_period == 0:
            word, label = None, "none"
        elif row.recurrent and type(interval) is int and interval > 0 and (layer + 1) % interval:
            word, label = None, row.recurrent
        else:
            word, label = (window, other) if is_window else (full, row.labels[0])
        words.append(word)
        labels.append(label)
    return Layers(
        words=words,
        labels=labels,
        windowed=flags,
        by_context=scaling.by_context,
        unused=() if row.uses else scaling.loaded,
        max_length=scaling.context,
    )


class Scaling:
    """The keys of one file as llama.cpp's loader reads them, and the numbers its context makes of them."""

    def __init__(self, metadata: Mapping[str, Any], factors: Mapping[str, Vector]) -> None:
        self.metadata, self.loaded = metadata, tuple(factors)
        self.architecture = str(metadata["general.architecture"])
        self.row: Architecture = ARCHITECTURES[self.architecture]
        self.context = self._whole("context_length")
        self.dim = self._rotary_dim()
        kind = metadata.get(f"{self.architecture}.rope.scaling.type", "linear")
        if not isinstance(kind, str) or kind not in TYPES:
            raise Refused(f"llama.cpp stops at rope.scaling.type {kind!r:.40}, known are {', '.join(TYPES)}")
        self.kind: str = kind
        said = self._number("rope.scaling.factor", self._number("rope.scale_linear", 0.0, least=0.0), least=0.0)
        self.trained_factor = said or 1.0
        self.factor = 1.0 if kind == "none" else self.trained_factor
        self.base = self._number("rope.freq_base", 10000.0)
        self.original = self._whole("rope.scaling.original_context_length", self.context)
        self.log_multiplier = self._log_multiplier()
        self.attention = self._attention()
        self.by_context = False
        self.divisors = self._divisors(factors)

    def word(self, *, window: bool) -> Frequencies:
        """What a layer turns by: one that sees the whole text, or a sliding-window one."""
        if not window:
            return self._turned(self.base, self.factor, self.divisors)
        if self.row.window == "plain":
            return Frequencies(inv_freq=geometric(self.base, self.dim))
        own = self.row.window == "own"
        return self._turned(self.window_base, 1.0 if own else self.trained_factor, None if own else self.divisors)

    @property
    def window_base(self) -> float:
        """The base of sliding-window layers."""
        if self.row.window == "plain":
            return self.base
        # Where they have their own, its default is set before the file's base is known.
        return self._number("rope.freq_base_swa", 10000.0 if self.row.window == "own" else self.base)

    def _turned(self, base: float, factor: float, divisors: Vector | None) -> Frequencies:
        undivided = geometric(base, self.dim) / (1.0 if divisors is None else divisors)
        divided = undivided / factor
        if self.kind != "yarn":
            return Frequencies(inv_freq=divided, attention_factor=self.attention, logit_scale=self._logit_scale(factor))
        ramp = self._ramp(base)
        return Frequencies(
            inv_freq=divided * ramp + undivided * (1.0 - ramp),
            attention_factor=self.attention * _grown(factor),
            logit_scale=self._logit_scale(factor),
        )

    def _ramp(self, base: float) -> Vector:
        """How much of each dimension is divided; ends are made in float32 and rounded, as ggml does."""
        fast, slow = self.row.beta_fast, 1.0
        if self.row.betas:
            fast = self._number("rope.scaling.yarn_beta_fast", fast)
            slow = self._number("rope.scaling.yarn_beta_slow", slow)
        # Betas from a command line (see `flags`) reach every architecture.
        fast = self._number("flags.yarn_beta_fast", fast)
        slow = self._number("flags.yarn_beta_slow", slow)

        def where(turns: float) -> float:
            turn = np.float32(turns) * np.float32(2.0) * np.float32(math.pi)
            rotations = np.log(np.float32(self.original) / turn)
            return float(np.float32(self.dim) * rotations / (np.float32(2.0) * np.log(np.float32(base))))

        if base <= 1.0:
            raise SourceError(f"rope.freq_base is {base:g}, and YaRN has no ramp for a base of 1 or less")
        low, high = max(0, math.floor(where(fast))), min(self.dim - 1, math.ceil(where(slow)))
        steps = (np.arange(self.dim // 2, dtype=np.float64) - low) / max(0.001, high - low)
        return np.asarray(np.clip(steps, 0.0, 1.0), dtype=np.float64)

    def _attention(self) -> float:
        """What the context hands to ggml, which multiplies 1 + 0.1 ln s back in where YaRN is on."""
        given = self._number("rope.scaling.attn_factor", 1.0)
        if self.kind != "yarn":
            return given
        multiplier = self.log_multiplier
        if not multiplier:
            return given * _temperature(self.factor, 1.0) / _grown(self.factor)
        top = multiplier if self.row.mla and multiplier != 1.0 else 1.0
        quotient = _temperature(self.factor, top) / _temperature(self.factor, multiplier)
        return given * quotient / _grown(self.factor)

    def _logit_scale(self, factor: float) -> float:
        if not self.row.mla:
            return 1.0
        return (self.attention * _grown(factor) * (1.0 + 0.1 * self.log_multiplier * math.log(factor))) ** 2

    def _log_multiplier(self) -> float:
        if not self.row.log_multiplier:
            return 0.0
        value = self._number("rope.scaling.yarn_log_multiplier", 0.0, least=-math.inf)
        # In float32, or a tenth of 1 times ten would not be 1, which llama.cpp asks for.
        return float(np.float32(value) / np.float32(0.1)) if self.row.log_multiplier == "tenth" else value

    def _divisors(self, factors: Mapping[str, Vector]) -> Vector | None:
        loaded = {
            "none": (),
            "divisors": (DIVISORS,),
            "divisors-or-longrope": (LONG, SHORT) if self.kind == "longrope" else (DIVISORS,),
            "longrope": (LONG, SHORT),
        }[self.row.loads]
        left = [name for name in factors if name not in loaded]
        if left:
            raise Refused(
                f"llama.cpp counts its tensors and stops: it loads no {' and no '.join(left)} for {self.architecture}"
                f" under rope scaling {self.kind}"
            )
        for name, vector in factors.items():
            if vector.shape != (self.dim // 2,):
                raise Refused(f"llama.cpp stops at {name} of shape {vector.shape}, it expects ({self.dim // 2},)")
            if not np.all(np.isfinite(vector)) or np.any(vector <= 0.0):
                raise SourceError(f"{name} holds numbers that nothing can be divided by")
        if not self.row.uses or not factors:
            return None
        if DIVISORS in factors:
            return factors[DIVISORS]
        self.by_context = True
        allocated = -(-self.context // _PAD) * _PAD
        return factors.get(LONG if allocated > self.original else SHORT)

    def _rotary_dim(self) -> int:
        said = self.metadata.get(f"{self.architecture}.rope.dimension_count")
        if said is None:
            said = self.metadata.get(f"{self.architecture}.attention.key_length")
        if said is None:
            said = self._whole("embedding_length") // self._whole("attention.head_count")
        if type(said) is not int or said < 2 or said % 2 or said > 1 << 16:
            raise SourceError(f"heads would rotate {said!r:.40} dimensions, expected an even number")
        whole = self.metadata.get(f"{self.architecture}.attention.key_length", said)
        if self.row.whole and (type(whole) is not int or whole != said):
            raise Refused(f"llama.cpp stops at {self.architecture}.rope.dimension_count = {said}, it expects {whole!r:.40}")
        return said

    def _whole(self, key: str, default: int | None = None) -> int:
        value = self.metadata.get(f"{self.architecture}.{key}", default)
        if type(value) is not int:
            raise Refused(f"llama.cpp stops at {self.architecture}.{key} = {value!r:.40}, it expects a whole number")
        if not 1 <= value < 2**32:
            raise SourceError(f"{self.architecture}.{key} is {value}, expected a length")
        return value

    def _number(self, key: str, default: float, *, least: float = 1e-12) -> float:
        value = self.metadata.get(f"{self.architecture}.{key}", default)
        if not isinstance(value, float):
            raise Refused(f"llama.cpp stops at {self.architecture}.{key} = {value!r:.40}, it expects a float32")
        if not math.isfinite(value) or value < least:
            raise SourceError(f"{self.architecture}.{key} is {value!r}, expected a number above 0")
        return value


def _temperature(factor: float, coefficient: float) -> float:
    return 1.0 if factor <= 1.0 else 0.1 * coefficient * math.log(factor) + 1.0


def _grown(factor: float) -> float:
    grown = 1.0 + 0.1 * math.log(factor)
    if grown <= 0.0:
        raise SourceError(f"rope.scaling.factor is {factor!r}, which turns the attention factor negative")
    return grown
