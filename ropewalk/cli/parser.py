"""The parser of every verb: its mistakes are one sentence and exit code 2, and it knows its own options.

Given up: argparse's own usage text on a mistake, which buries the one line that matters.
"""

import argparse
import re
from typing import NoReturn

KINDS = {"int": "a whole number", "float": "a number"}
BARE = re.compile(r"argument (\S+): invalid (int|float) value: (.*)", re.DOTALL)
"""What argparse says of a value that its type does not take: the name of a function, which is no word for users."""
OURS = re.compile(r"argument (\S+): (is .*)", re.DOTALL)
"""What a type of ours says: the rest of a sentence about its option."""


class Parser(argparse.ArgumentParser):
    """An argument parser whose mistakes are one sentence and exit code 2."""

    def error(self, message: str) -> NoReturn:
        """One line instead of the whole usage."""
        if found := BARE.fullmatch(message):
            message = f"{found[1]} is {KINDS[found[2]]}, got {found[3]}"
        elif found := OURS.fullmatch(message):
            message = f"{found[1]} {found[2]}"
        self.exit(2, f"ropewalk: {message}; see {self.prog} --help\n")

    def options(self) -> list[str]:
        """Every long option it takes."""
        return [name for name in self._option_string_actions if name.startswith("--")]
