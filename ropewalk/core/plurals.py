"""Numbers of things in words: `1 row`, `2,000 rows`."""


def counted(number: int, thing: str, things: str | None = None) -> str:
    """`1 row`, `2,000 rows`; `things` is a plural that is more than an s."""
    return f"{number:,} {thing if number == 1 else things or thing + 's'}"
