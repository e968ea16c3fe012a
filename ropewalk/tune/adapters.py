"""The adapters of PEFT that a run can train, by recipe: each one's configuration from a run's rank, alpha and dropout.

On attention's linear layers, which carry positions: LoRA (arXiv:2106.09685) and its kin rsLoRA (2312.03732), DoRA
(2402.09353), LoHa (2108.06098), LoKr (2212.10650), VeRA (2310.11454), OFT (2306.07280) and IA3 (2205.05638). Before every
text: a trained prefix of keys and values (Li and Liang, arXiv:2101.00190), without the paper's reparametrisation.

Only LoRA was tested for longer contexts by anyone we know of, and alone it hardly learns them (LongLoRA, table 2).

Given up, with reasons in `settings.LEFT_OUT`: kinds that need calls between steps, compile, or shift the text.
"""

from collections.abc import Callable
from typing import Any

from torch import nn

from ropewalk.core.errors import UnsupportedError
from ropewalk.tune.settings import Settings

Layers = list[str] | str
"""Layers as PEFT finds them: by the ends of their names, or by an expression for whole names."""
Kind = Callable[[Layers, Settings], Any]
"""From the layers and the settings to a configuration of PEFT."""


def _lora(names: Layers, settings: Settings, **more: Any) -> Any:
    from peft import LoraConfig

    return LoraConfig(
        r=settings.rank, lora_alpha=settings.alpha, lora_dropout=settings.dropout, target_modules=names,
        task_type="CAUSAL_LM", **more,
    )  # fmt: skip


def _dora(names: Layers, settings: Settings) -> Any:
    return _lora(names, settings, use_dora=True)


def _rslora(names: Layers, settings: Settings) -> Any:
    return _lora(names, settings, use_rslora=True)


def _loha(names: Layers, settings: Settings) -> Any:
    from peft import LoHaConfig

    return LoHaConfig(
        r=settings.rank, alpha=settings.alpha, rank_dropout=settings.dropout, target_modules=names, task_type="CAUSAL_LM"
    )


def _lokr(names: Layers, settings: Settings) -> Any:
    from peft import LoKrConfig

    return LoKrConfig(
        r=settings.rank, alpha=settings.alpha, rank_dropout=settings.dropout, target_modules=names, task_type="CAUSAL_LM"
    )


def _vera(names: Layers, settings: Settings) -> Any:
    from peft import VeraConfig

    # The shared random matrices are saved with the adapter: another version may draw others.
    return VeraConfig(
        r=settings.rank, vera_dropout=settings.dropout, target_modules=names, save_projection=True, task_type="CAUSAL_LM"
    )


def _oft(names: Layers, settings: Settings) -> Any:
    from peft import OFTConfig

    # PEFT takes a number of blocks or their size; the size is what a rank is elsewhere.
    return OFTConfig(
        r=0, oft_block_size=settings.rank, module_dropout=settings.dropout, target_modules=names, task_type="CAUSAL_LM"
    )


def _ia3(names: Layers, settings: Settings) -> Any:
    from peft import IA3Config

    return IA3Config(target_modules=names, feedforward_modules=[], task_type="CAUSAL_LM")


KINDS: dict[str, Kind] = {
    "dora": _dora, "rslora": _rslora, "loha": _loha, "lokr": _lokr, "vera": _vera, "oft": _oft, "ia3": _ia3,
}  # fmt: skip
"""Recipes beside `lora`, `longlora` and `qlora` that put adapters on linear layers."""


def config_of(model: nn.Module, settings: Settings, names: Layers, whole: list[str], *, tied: bool) -> Any:
    """PEFT's configuration of a recipe; `names` are of attention's linear layers, `whole` of modules that train whole."""
    if settings.recipe == "prefix":
        return prefix(model, settings)
    if settings.recipe in KINDS:
        return KINDS[settings.recipe](names, settings)
    return _lora(names, settings, modules_to_save=whole or None, ensure_weight_tying=bool(whole) and tied)


def prefix(model: Any, settings: Settings) -> Any:
    """A trained prefix as large as the model's own keys and values, which PEFT guesses from the hidden size.

    Raises `UnsupportedError` where layers have a window, out of which a prefix slides, or keep no keys.
    """
    from peft import PrefixTuningConfig

    text = model.config.get_text_config(decoder=True)
    others = sorted({kind for kind in getattr(text, "layer_types", None) or [] if kind != "full_attention"})
    if not getattr(text, "layer_types", None) and getattr(text, "sliding_window", None):
        others = ["sliding_attention"]
    if others:
        raise UnsupportedError(
            f"{text.model_type} has layers of the kind {', '.join(others)}, where not every token sees a prefix; say "
            "--recipe longlora"
        )
    heads = text.num_attention_heads
    shared = getattr(text, "num_key_value_heads", None) or heads
    size = getattr(text, "head_dim", None) or text.hidden_size // heads
    return PrefixTuningConfig(
        num_virtual_tokens=settings.num_virtual_tokens, num_layers=text.num_hidden_layers, num_attention_heads=shared,
        token_dim=shared * size, task_type="CAUSAL_LM",
    )  # fmt: skip
