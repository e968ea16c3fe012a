"""Wordings: our own, those of an installed package, and those of a user's file.

What a task says around its haystack is data: an opening, a needle, a question, the start of the answer. Ours are written
by us, one for each split. Where numbers are to be held against others', the published wording is read at run time from
the package that ships it (lm-eval has RULER's): its files are parsed, never imported or executed. Given up: nothing
checks that the package's own generator would have used the strings in this way beyond the tests that read a stored copy
of its sources' shape.
"""

import ast
import importlib.metadata
import importlib.util
import json
import string
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from ropewalk.core.errors import InputError, near
from ropewalk.data.tasks.task import Ask, Split, find_task

PLACES = {
    "question": {"query"},
    "start": {"query", "num"},
    "needle": {"key", "value", "index", "document"},
    "link": {"key", "previous"},
}
"""What may stand in braces in each part of a wording; in the others nothing may."""


@dataclass(frozen=True, kw_only=True)
class Wording:
    """What a task says around its haystack. Braces hold what `PLACES` says."""

    opening: str
    """Before the haystack, with the line break that ends it."""
    question: str
    """After the haystack."""
    start: str
    """What the answer begins with; the first token looked for follows it after a space."""
    needle: str = ""
    """The line that is hidden, or the form of one piece of the haystack; without a line break at its end."""
    link: str = ""
    """The line that passes a value on, where there are chains."""
    noise: str = ""
    """What noise lines say."""
    between: str = ","
    """What stands between the items of an answer."""
    name: str = "own"
    """Whose it is; written into rows."""

    def __post_init__(self) -> None:
        """Raises `InputError` where braces hold something else."""
        for one in fields(self):
            if not isinstance(getattr(self, one.name), str):
                raise InputError(f"the wording's {one.name} is {getattr(self, one.name)!r}, expected text")
            odd = self.places(one.name) - PLACES.get(one.name, set())
            if odd:
                raise InputError(
                    f"the wording's {one.name} has {{{min(odd)}}} in it; {near(min(odd), PLACES.get(one.name, ()))}"
                )

    def places(self, part: str) -> set[str]:
        """What stands in braces in a part."""
        try:
            return {place for _, place, _, _ in string.Formatter().parse(getattr(self, part)) if place is not None}
        except ValueError as error:
            raise InputError(f"the wording's {part} cannot be read ({error}); write a brace that is text twice") from error


def wording(ask: Ask, task: str, own: Mapping[Split, Wording]) -> Wording:
    """The wording of a task: the one handed in under its id, else our own of the split."""
    ours, given = own[ask.split], ask.sources.get("templates", {}).get(task)
    if given is None:
        return ours
    given = given if isinstance(given, Wording) else _from_dict(task, given)
    for part in ("question", "needle", "link", "noise"):
        if given.places(part) != ours.places(part) or bool(getattr(given, part)) < bool(getattr(ours, part)):
            needed = " and ".join(f"{{{place}}}" for place in sorted(ours.places(part))) or "text and no braces"
            raise InputError(f"the wording of {task} has {getattr(given, part)!r} for its {part}; it needs {needed}")
    return given


def read_wordings(path: Path) -> dict[str, Wording]:
    """Wordings by task id from a JSON file. Raises `InputError` where it is not one."""
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read as JSON ({error}); expected task ids with their wordings") from error
    if not isinstance(told, dict):
        raise InputError(f"{path} holds a {type(told).__name__}, expected an object of task ids with their wordings")
    for task in told:
        find_task(task)
    return {task: _from_dict(task, {"name": path.name, **_object(task, given)}) for task, given in told.items()}


def _object(task: str, given: Any) -> dict[str, Any]:
    if not isinstance(given, dict):
        raise InputError(
            f"the wording of {task} is a {type(given).__name__}, expected opening, question and start in an object"
        )
    return given


def _from_dict(task: str, given: Any) -> Wording:
    known = {one.name for one in fields(Wording)}
    given = _object(task, given)
    for name in given:
        if name not in known:
            raise InputError(f"the wording of {task} has an unknown part {name!r}; {near(name, known)}")
    missing = {"opening", "question", "start"} - given.keys()
    if missing:
        raise InputError(f"the wording of {task} has no {sorted(missing)[0]}; it needs opening, question and start")
    return Wording(**given)


def lm_eval_wordings() -> dict[str, Wording]:
    """RULER's wordings as the installed lm-eval ships them. Raises `InputError` where it is not installed."""
    spec = importlib.util.find_spec("lm_eval")
    if spec is None or not spec.submodule_search_locations:
        raise InputError("RULER's published wording is read from lm-eval, which is not installed; pip install lm-eval")
    folder = Path(spec.submodule_search_locations[0]) / "tasks" / "ruler"
    return read_ruler(folder, name=f"lm-eval {importlib.metadata.version('lm_eval')}")


def read_ruler(folder: Path, *, name: str) -> dict[str, Wording]:
    """RULER's wordings from the task files of lm-eval. Raises `InputError` where they have another shape."""
    try:
        niah, prepare = _parse(folder / "niah_utils.py"), _parse(folder / "prepare_niah.py")
        found = _niah(_constant(niah, "TEMPLATE"), _constant(prepare, "NEEDLE"), _prefixes(prepare), _noise(prepare))
        tracing = _parse(folder / "vt_utils.py")
        chain = [_template(one) for one in _joined(_function(tracing, "generate_chains"))]
        found["variable-tracking"] = replace(
            _split(_constant(tracing, "CONFIG")["variable_tracking"], num="{num}"), between="",
            needle=chain[0].format("{key}", "{value}"), link=chain[1].format("{key}", "{previous}").rstrip(),
            noise=_noise(tracing),
        )  # fmt: skip
        found["common-words"] = _split(_constant(_parse(folder / "cwe_utils.py"), "CONFIG"))
        found["frequent-words"] = _split(_constant(_parse(folder / "fwe_utils.py"), "CONFIG"))
        answers = _parse(folder / "qa_utils.py")
        document = _constant(answers, "DOCUMENT_PROMPT").replace("{i}", "{index}")
        found["qa"] = replace(_split(_constant(answers, "CONFIG")), needle=document)
    except (OSError, SyntaxError, LookupError, TypeError, AttributeError) as error:
        raise InputError(
            f"the task files in {folder} have another shape than lm-eval 0.4's ({error!r}); give the wording as a JSON file"
        ) from error
    return {task: replace(one, name=name) for task, one in found.items()}


def _niah(template: str, needle: str, prefixes: tuple[str, str], noise: str) -> dict[str, Wording]:
    """The eight needle tasks: one wording in four forms, for one value or several, numbers or UUIDs."""
    found = {}
    for task, kind, several in (
        ("niah-single-1", "numbers", False), ("niah-single-2", "numbers", False), ("niah-single-3", "uuids", False),
        ("niah-multikey-1", "numbers", False), ("niah-multikey-2", "numbers", False), ("niah-multikey-3", "uuids", False),
        ("niah-multivalue", "numbers", True), ("niah-multiquery", "numbers", True),
    ):  # fmt: skip
        text = template
        if not several:
            for many, one in (("Some", "A"), ("are all", "is"), ("are", "is"), ("answers", "answer")):
                text = text.replace(many, one)
        kinds = kind if several else kind[:-1]
        opening, question = text.replace("{type_needle_v}", kinds).split("{context}")
        start = prefixes[several].format(kinds, "{query}")
        found[task] = Wording(
            opening=opening, question=question, start=f" {start}", noise=noise,
            needle=needle.replace("{type_needle_v}", kind),
        )  # fmt: skip
    return found


def _split(config: Mapping[str, Any], *, num: str = "") -> Wording:
    """A template and an answer prefix as the three parts around a haystack."""
    opening, question = str(config["template"]).split("{context}")
    start = " " + str(config["answer_prefix"]).strip().replace("{num_v}", num)
    return Wording(opening=opening, question=question, start=start, between="")


def _parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def _constant(tree: ast.Module, name: str) -> Any:
    """The literal that a name is given at the top of a file."""
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id == name:
            return ast.literal_eval(node.value)
    raise LookupError(f"no {name}")


def _function(tree: ast.Module, name: str) -> ast.FunctionDef:
    return next(node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == name)


def _joined(tree: ast.AST) -> list[ast.JoinedStr]:
    return sorted((n for n in ast.walk(tree) if isinstance(n, ast.JoinedStr)), key=lambda n: (n.lineno, n.col_offset))


def _template(joined: ast.JoinedStr) -> str:
    """An f-string with its values as bare braces."""
    return "".join(str(part.value) if isinstance(part, ast.Constant) else "{}" for part in joined.values)


def _prefixes(tree: ast.Module) -> tuple[str, str]:
    """How the answer begins: where one value is asked for, and where several are."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Dict):
            for key, value in zip(node.keys, node.values, strict=True):
                if isinstance(key, ast.Constant) and key.value == "gen_prefix" and isinstance(value, ast.IfExp):
                    one, several = _joined(value.body)[0], _joined(value.orelse)[0]
                    return _template(one), _template(several)
    raise LookupError("no gen_prefix")


def _noise(tree: ast.Module) -> str:
    """The sentences that noise repeats: the one constant text given to `haystack` or `noise`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            target = node.targets[0]
            if isinstance(target, ast.Name) and target.id in ("haystack", "noise"):
                return node.value.value.strip()
    raise LookupError("no noise")
