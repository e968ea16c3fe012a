"""A hub id to a local folder, through the ordinary client and its cache.

`HF_HUB_OFFLINE` is honoured by the client. The time limit is short, since a mistyped path looks like a hub id too.
"""

from pathlib import Path

from ropewalk.core.errors import SourceError

SECONDS = 5.0
"""How long the hub may take to answer for a file."""
SMALL = ("*.json", "*.jinja", "*.txt", "*.model", "*.tiktoken", "LICENSE*", "NOTICE*")
"""Configuration, tokenizer and licences; never code, never pickles."""


def fetch(name: str, *, weights: bool, revision: str | None = None) -> Path:
    """The folder of a hub id in the local cache, fetched where it is not there: of a commit, or the newest there is.

    Raises `SourceError`.
    """
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
    except ImportError as error:
        raise SourceError(
            f"{name} does not exist here; to look it up on the hub, install the hf extra: "
            "pip install '.[hf]' in a checkout of ropewalk"
        ) from error
    patterns = [*SMALL, "*.safetensors"] if weights else list(SMALL)
    # An index without the files it names would be taken for a broken download.
    ignored = [] if weights else ["*.safetensors.index.json"]
    try:
        # A snapshot asks once whether the name exists, then looks in the cache; a single file is asked for again and again.
        return Path(
            snapshot_download(
                name, revision=revision, allow_patterns=patterns, ignore_patterns=ignored, etag_timeout=SECONDS
            )
        )
    except (LocalEntryNotFoundError, ConnectionError, TimeoutError) as error:
        raise SourceError(
            f"{name} is no path here, and neither the hub (unreachable, or HF_HUB_OFFLINE set) nor the local cache has it; "
            "check the path, or fetch it first"
        ) from error
    except (HfHubHTTPError, HFValidationError) as error:
        reason = str(error).splitlines()[0]
        raise SourceError(f"{name} is no path here, and the hub does not give it ({reason}); check the name") from error
