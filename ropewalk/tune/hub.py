"""The result of a run, uploaded to the Hugging Face hub at its end, where that was asked for.

Trainer pushes its own output folder and checkpoints, which are not what `tune` writes; so its arguments `push_to_hub`,
`hub_model_id`, `hub_token`, `hub_private_repo` and `hub_revision` are read here, and `huggingface_hub` uploads the result.
What belongs to the model goes, by name: weights, and the configuration and tokenizer that the run began with. All else stays
here, whoever put it there: states, the log, tokenized texts, the card with its paths, trackers' files, a measurement beside
them. Of an adapter folder the weights of the base stay here as well, see `ropewalk.hosts.folder.shared`. The token is
written nowhere.

Given up: pushing while training goes on; a branch that is not there yet is made by hand.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from glob import escape
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ropewalk.core.errors import InputError, MachineError
from ropewalk.core.network import of_a_network
from ropewalk.hosts.folder import check_shared, write_shared
from ropewalk.hosts.folder.checkpoint import PLANNED

WRITTEN = re.compile(
    r"model(-\d+-of-\d+)?\.safetensors|model\.safetensors\.index\.json|adapter_model\.safetensors|adapter_config\.json"
)
"""What of a model the run writes beside configuration and tokenizer."""


@dataclass(frozen=True, kw_only=True)
class Upload:
    """Where a result is to go."""

    repository: str
    token: str | None = field(default=None, repr=False)
    private: bool | None = None
    """None leaves it to the hub's own default."""
    revision: str | None = None

    def prepare(self) -> None:
        """Makes the repository where it is not there, before an hour is spent. Raises what `push` does."""
        self._call(lambda api: api.create_repo(self.repository, private=self.private, exist_ok=True))

    def push(self, folder: Path, start: Path) -> None:
        """Uploads a result of a run that began with the configuration and tokenizer in `start`.

        Raises `MachineError` where the hub cannot be reached, `InputError` where it refuses.
        """
        if not (folder / "adapter_config.json").is_file():
            self._upload(folder, belonging(folder, start))
            return
        with TemporaryDirectory(prefix="ropewalk-") as stage:
            write_shared(folder, Path(stage))
            # The card that is written for others is no file of the run.
            self._upload(Path(stage), [*belonging(Path(stage), start), "README.md"])

    def _upload(self, folder: Path, names: Sequence[str]) -> None:
        self._call(
            lambda api: api.upload_folder(
                repo_id=self.repository, folder_path=folder, allow_patterns=[escape(name) for name in names],
                revision=self.revision, commit_message="Model trained with ropewalk tune",
            )
        )  # fmt: skip

    def _call(self, work: Any) -> None:
        from huggingface_hub import HfApi
        from huggingface_hub.errors import HfHubHTTPError

        try:
            work(HfApi(token=self.token))
        except HfHubHTTPError as error:
            status = getattr(error.response, "status_code", 500)
            if status in (400, 401, 403, 404, 409, 422):
                raise InputError(
                    f"the hub refuses an upload to {self.repository} (status {status}); look at the name and the rights of "
                    "the token, and run again with --resume"
                ) from error
            raise self._not_reached(f"status {status}") from error
        except OSError as error:
            raise self._not_reached(type(error).__name__) from error
        except Exception as error:
            if not of_a_network(error):
                raise
            raise self._not_reached(type(error).__name__) from error

    def _not_reached(self, why: str) -> MachineError:
        return MachineError(
            f"the hub was not reached for {self.repository} ({why}); nothing is lost: run again with --resume, which uploads"
        )


def belonging(folder: Path, start: Path) -> list[str]:
    """The files of `folder` that belong to the model of a run that began with what is in `start`."""
    carried = {path.relative_to(start).as_posix() for path in start.rglob("*") if path.is_file()}
    files = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return [name for name in files if name.removeprefix(f"{PLANNED}/") in carried or WRITTEN.fullmatch(name)]


def check_result(extra: Mapping[str, Any], source: str | Path, *, recipe: str, merge: bool) -> None:
    """Raises `InputError` where an upload is asked for of an adapter that nobody else could load."""
    if extra.get("push_to_hub") and recipe != "full" and not merge:
        check_shared(source)


def asked(extra: Mapping[str, Any]) -> Upload | None:
    """The upload that training arguments ask for, None without one. Raises `InputError` where it cannot work."""
    if not extra.get("push_to_hub"):
        return None
    repository = extra.get("hub_model_id")
    if not repository:
        raise InputError("push_to_hub needs a name for the repository; give hub_model_id, such as me/my-model")
    from huggingface_hub import constants, get_token

    if constants.HF_HUB_OFFLINE:
        raise InputError("push_to_hub needs the hub, and HF_HUB_OFFLINE says to stay away from it; unset one of them")
    token = extra.get("hub_token")
    if not (token or get_token()):
        raise InputError("push_to_hub needs a token; log in with hf auth login, set HF_TOKEN, or give hub_token")
    return Upload(
        repository=str(repository), token=token, private=extra.get("hub_private_repo"), revision=extra.get("hub_revision")
    )
