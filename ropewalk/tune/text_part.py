"""The part of a model that a text runs through: its decoder and its head, without towers for images and sound.

Rows of a training are text, so a tower gets no gradient. What would train there is frozen with `full`, and has no adapter
with the others: it would only make states and adapters larger. PEFT finds layers by the ends of their names, and a vision
tower's attention has a `q_proj` as well; where an end is met outside the text, whole names take its place. Elsewhere ends
stay, so adapters of models that read text alone are named as they always were.

Given up: training a tower, which takes rows with images.
"""

import re
from collections.abc import Iterator, Sequence
from typing import Any

from torch import nn
from transformers import PreTrainedModel

from ropewalk.hosts.live import decoder_of


def text_modules(model: Any) -> dict[str, nn.Module]:
    """The modules that a text runs through, by name."""
    decoder = decoder_of(model)
    if decoder is model:
        # It has no decoder apart from its head, which is refused where the loss is made.
        return dict(model.named_modules())
    unseen = {id(part) for branch in _unseen(decoder) for part in branch.modules()}
    seen = {id(part) for part in decoder.modules()} - unseen
    head = model.get_output_embeddings()
    seen |= set() if head is None else {id(part) for part in head.modules()}
    return {name: module for name, module in model.named_modules() if id(module) in seen}


def _unseen(decoder: nn.Module) -> Iterator[nn.Module]:
    """Branches of a decoder that no text comes to."""
    # Phi-4 Multimodal keeps its towers beside its layers; a layer of text is never a model of its own.
    for child in decoder.children():
        if any(isinstance(part, PreTrainedModel) for part in child.modules()):
            yield child


def freeze_the_rest(model: Any) -> None:
    """Lets all train that a text runs through, and nothing else."""
    model.requires_grad_(False)
    for module in text_modules(model).values():
        for parameter in module.parameters(recurse=False):
            parameter.requires_grad_(True)


def num_unseen(model: Any) -> int:
    """Parameters that no text comes to, tied ones counted once."""
    seen = {id(p) for module in text_modules(model).values() for p in module.parameters(recurse=False)}
    return sum(p.numel() for p in model.parameters() if id(p) not in seen)


def adapted(model: Any, ends: Sequence[str]) -> list[str] | str:
    """PEFT's `target_modules` for layers of these ends: the ends, or where others have them too an expression."""
    found = [name for name in text_modules(model) if name.rpartition(".")[2] in ends]
    if not any(name.rpartition(".")[2] in ends for name in _others(model)):
        return list(ends)
    # One alternative for the same place of all layers: a model of 60 layers would have some hundred names.
    return "|".join(sorted({re.sub(r"\d+", r"\\d+", re.escape(name)) for name in found}))


def kept_whole(model: Any, ends: Sequence[str]) -> list[str]:
    """PEFT's `modules_to_save` for modules of these ends: an end, or where others have it too all names, sorted."""
    others, found = _others(model), set()
    for end in ends:
        # PEFT looks at letters here and not at parts: `soft_emb_norm` ends in `norm`.
        if any(name.endswith(end) for name in others):
            found |= {name for name in text_modules(model) if name.rpartition(".")[2] == end}
        else:
            found.add(end)
    return sorted(found)


def _others(model: nn.Module) -> list[str]:
    text = text_modules(model)
    return [name for name, _ in model.named_modules() if name and name not in text]
