"""An adapter folder of ours as others get it: without the base's weights, and without this machine's paths.

`DIR/base` holds links to somebody else's weights, and the adapter names it by its path here. Neither is for others: the base
has a home and a licence of its own, and a path means nothing elsewhere. So what is shared names the base by its hub id and
revision, keeps the plan in `base/config.json`, and says on its card that stock PEFT puts the adapter on the base as the hub
has it, without the plan.

Given up: sharing an adapter of a base that is a folder here. Nobody else has it, so `--merge` is the way.
"""

import shutil
from pathlib import Path

from ropewalk.core.errors import InputError
from ropewalk.hosts.folder.adapter import NAMED
from ropewalk.hosts.folder.checkpoint import ADAPTER, BASE, CONFIG, PLANNED, read_json
from ropewalk.hosts.folder.files import write_json

WEIGHTS = ("*.safetensors", "*.safetensors.index.json")
"""Of the base. An index without its files would be taken for a broken download."""
CARD = """---
base_model: {base}
library_name: peft
tags: [ropewalk]
---

An adapter for `{base}` at revision `{revision}`, trained with ropewalk for {length} tokens with the plan in
`base/config.json`.

Load it with `ropewalk.load(FOLDER)`, which puts the plan on the base, or write whole weights with
`ropewalk tune FOLDER --merge --out NEW`. Stock PEFT and transformers load the base as it is on the hub: without the plan,
at positions that this adapter was not trained for.
"""


def check_shared(source: str | Path) -> None:
    """Raises `InputError` where an adapter of `source` would be of no use to others."""
    if Path(source).expanduser().exists():
        raise InputError(
            f"an adapter that is uploaded names its base, and {source} is a folder on this machine alone; say --merge, "
            "which uploads whole weights, or train from a hub id"
        )


def write_shared(folder: Path, stage: Path) -> None:
    """The adapter folder `folder` as others get it, into the new folder `stage`. Raises `InputError` for a local base."""
    config, adapter = read_json(folder / PLANNED / CONFIG), read_json(folder / ADAPTER)
    named = config[BASE]
    check_shared(named["source"])
    shutil.copytree(folder / PLANNED, stage / PLANNED, ignore=shutil.ignore_patterns(*WEIGHTS))
    for path in folder.iterdir():
        if path.is_file() and path.name != ADAPTER:
            # The adapter may be large: embeddings train whole.
            (stage / path.name).symlink_to(path.resolve())
    revision = named.get("revision")
    write_json(stage / ADAPTER, {**adapter, NAMED: named["source"], "revision": revision})
    length = config.get("ropewalk", {}).get("length", "its own number of")
    (stage / "README.md").unlink(missing_ok=True)
    (stage / "README.md").write_text(
        CARD.format(base=named["source"], revision=revision or "main", length=length), encoding="utf-8"
    )
