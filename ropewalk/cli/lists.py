"""What there is to choose from in a training: `tune --preset help` and `tune --recipe help`."""

import argparse

from ropewalk.cli.options import print_json


def list_presets(args: argparse.Namespace) -> int:
    """`ropewalk tune --preset help`."""
    from ropewalk.api.tuning import preset, preset_names, presets_told

    if args.json:
        found = [preset(name) for name in preset_names()]
        return print_json({"presets": [{"name": p.name, "source": p.source, "runs": [*p.runs]} for p in found]})
    print(presets_told())
    return 0


def list_recipes(args: argparse.Namespace) -> int:
    """`ropewalk tune --recipe help`."""
    from ropewalk.api.tuning import recipes

    told = recipes()
    if args.json:
        return print_json({"recipes": told})
    width = max(len(recipe["name"]) for recipe in told)
    for recipe in told:
        print(f"{recipe['name']:<{width}}  {recipe['trains']}; leaves {recipe['leaves']}")
    return 0
