"""A peer in its own environment, kept alive between runs so that loading is never timed, and taken in turns with ours."""

import json
import subprocess
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from ropewalk.hosts.executed.child import bare_environment

SCRIPTS = Path(__file__).parent / "peers"


class Peer:
    """A process that has read the job and runs it when told to. A context manager: it ends with the block."""

    def __init__(self, name: str, python: Path, job: dict[str, Any]) -> None:
        """Starts `peers/NAME_peer.py` with another environment's Python and waits until it is ready."""
        self.name, self.words = name, tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115
        self.child = subprocess.Popen(
            [str(python), "-E", "-s", str(SCRIPTS / f"{name}_peer.py")], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=self.words, env=bare_environment(int(job["threads"])), text=True,
        )  # fmt: skip
        self.first = self._ask(json.dumps(job))
        self.version = str(self.first["version"])

    def run(self, part: str = "all") -> dict[str, Any]:
        """`seconds`, `cpu_seconds` and what was `said` to each question."""
        return self._ask(part)

    def _ask(self, line: str) -> dict[str, Any]:
        assert self.child.stdin is not None
        assert self.child.stdout is not None
        self.child.stdin.write(line + "\n")
        self.child.stdin.flush()
        answer = self.child.stdout.readline()
        if not answer:
            self.words.seek(0)
            raise SystemExit(f"{self.name} ended without an answer:\n{self.words.read()[-4000:]}")
        content: dict[str, Any] = json.loads(answer)
        return content

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.child.kill()
        self.child.wait()
        self.words.close()


def job_of(stacks: list[Any], **more: Any) -> dict[str, Any]:
    """What a peer is asked, as JSON: contexts, where stages end, and stage by stage each question's ids and answer size."""
    told = [
        {
            "context": stack.context.tolist(),
            "cuts": list(stack.cuts),
            "questions": [
                {"stage": one.stage, "ids": one.question.tolist(), "num_new": int(one.answer.size)}
                for one in sorted(stack.questions, key=lambda question: question.stage)
            ],
        }
        for stack in stacks
    ]
    return {"stacks": told, "max_length": max(stack.length for stack in stacks), **more}
