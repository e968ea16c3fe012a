"""The parser of every verb: its mistakes are one sentence and exit code 2, and it knows its own options.

Given up: argparse's own usage text on a mistake, which buries the one line that matters.
"""

import argparse
from typing import NoReturn


class Parser(argparse.ArgumentParser):
    """An argument parser whose mistakes are one sentence and exit code 2."""

    def error(self, message: str) -> NoReturn:
        """One line instead of the whole usage."""
        self.exit(2, f"ropewalk: {message}; see {self.prog} --help\n")

    def options(self) -> list[str]:
        """Every long option it takes."""
        return [name for name in self._option_string_actions if name.startswith("--")]
