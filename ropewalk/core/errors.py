"""Everything that can go wrong, as one tree.

    RopewalkError(ValueError)          base; carries the exit code of the command line
      InputError                 2     the user's input is wrong
        SourceError              2     not a checkpoint, or a broken one
        UnsupportedError         2     a position scheme or family that is named but not supported yet
        LengthError              2     a length that cannot be meant
        MethodError              2     unknown method, unknown option, bad value of an option
        TextError                2     a text that is too short or cannot be read
        OutputError              2     an output folder that exists, or cannot be made
        PlanError                2     a plan that contradicts itself or the model it is for
      HostError                  2     a host cannot carry the plan faithfully; what would be lost is said
      MachineError               3     the machine or a service failed; `--resume` goes on from there

Each message is one sentence: what was got, what was expected, what to do. Our own mistakes are `assert`, never one of these.
"""

import difflib
from collections.abc import Iterable

from ropewalk.core.other_names import other_name


class RopewalkError(ValueError):
    """Base of every error that ropewalk raises on purpose."""

    exit_code = 2


class InputError(RopewalkError):
    """What the user gave is wrong."""


class SourceError(InputError):
    """The source is not a checkpoint, or is a broken one."""


class UnsupportedError(InputError):
    """A position scheme, family or file format that ropewalk names but does not support."""


class LengthError(InputError):
    """A length that cannot be meant: not a number, absurd, or not above the trained length."""


class MethodError(InputError):
    """An unknown method, an option the method does not take, or a bad value of an option."""


class TextError(InputError):
    """A text that cannot be read or is too short for the length asked."""


class OutputError(InputError):
    """The output folder exists already, or cannot be made."""


class PlanError(InputError):
    """A plan that contradicts itself, or does not fit the model it is put on."""


class HostError(RopewalkError):
    """A host cannot carry the plan: the numbers read back from it differ from the plan."""


class MachineError(RopewalkError):
    """The machine or a service failed (disk full, out of memory); a run can be resumed."""

    exit_code = 3


def near(name: str, known: Iterable[str], *, options: bool = True) -> str:
    """A tail for "unknown X" messages: what others call so (where options or settings are known), else the near names, else
    all of them."""
    names = sorted(known)
    other = other_name(name, names) if options else None
    if other is not None:
        return other
    close = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    if close:
        return f"did you mean {' or '.join(close)}?"
    return f"known are {', '.join(names)}"
