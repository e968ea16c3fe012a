"""`report`: the page and the pictures of a run folder."""

import argparse
from typing import Any

from ropewalk.cli.options import add_json, print_json


def add_report(verbs: Any) -> None:
    """The arguments of `report`."""
    parser = verbs.add_parser("report", help="draw report.html and its pictures from a run folder")
    parser.add_argument("folder", help="a run folder that compare or measure wrote")
    add_json(parser)
    parser.set_defaults(verb=run_report)


def run_report(args: argparse.Namespace) -> int:
    """`ropewalk report DIR`."""
    from ropewalk.api.runs import report

    page = report(args.folder)
    if args.json:
        return print_json({"report": str(page)})
    print(page)
    return 0
