"""Errors of a network, whichever library raised them.

The hub's client is of another library in each generation (requests, then httpx, then httpx2), and its errors of a connection
are no `OSError`. So they are known by the library's name, and none of these needs to be installed.
"""

LIBRARIES = ("requests", "urllib3", "httpx", "httpcore", "hf_xet")
"""How the names of such libraries begin: `httpx2` and `httpcore2` are meant too."""


def of_a_network(error: BaseException) -> bool:
    """Whether a library that talks to a network raised it."""
    return type(error).__module__.partition(".")[0].startswith(LIBRARIES)
