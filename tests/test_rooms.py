"""The import law: rooms import along the arrows of the architecture and no others, inside functions too.

`core.geometry` beside `core.record` and `core.errors` is not needed by `report`: a card holds its geometry as plain JSON.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import ropewalk

PACKAGE = Path(ropewalk.__file__).parent
ROOMS = ("core", "methods", "engines", "hosts", "attention", "data", "measure", "tune", "report", "api", "cli")
ARROWS: dict[str, tuple[str, ...]] = {
    "core": (),
    "methods": ("core",),
    "engines": ("core",),
    "hosts": ("core", "engines", "attention"),
    "attention": ("core",),
    "data": ("core",),
    "measure": ("core", "hosts", "data"),
    "tune": ("core", "hosts", "attention", "data"),
    "report": ("core.record", "core.errors"),
    "api": tuple(room for room in ROOMS if room != "cli"),
    "cli": ("api", "core"),
}
"""Room (or its part) to what it may import, itself always included."""
HEAVY = ("torch", "transformers")
LIGHT = ("core", "methods", "engines", "report", "cli", "api", "data.documents", "data.tasks")
"""Where nothing heavy may be imported when the module is."""
RUNNING = ("api.running",)
"""The one module of a light room that is imported by a running verb only."""


def imports(source: str, module: str) -> Iterator[tuple[str, bool]]:
    """Every imported name in full, and whether it is imported as soon as `module` is."""
    tree = ast.parse(source)
    inside = {id(node) for part in ast.walk(tree) if isinstance(part, SCOPES) for node in ast.walk(part)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = module.split(".")[: -node.level] if node.level else []
            stem = ".".join([*above, *([node.module] if node.module else [])])
            names = [f"{stem}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in ("importlib.import_module", "__import__"):
            # A name that is only known at run time would walk around the law.
            names = [str(getattr(node.args[0], "value", "ropewalk.UNKNOWN"))]
        else:
            continue
        yield from ((name, id(node) not in inside) for name in names)


SCOPES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)


def below(name: str, places: tuple[str, ...]) -> bool:
    """Whether the dotted `name` is one of `places` or lies inside one."""
    return any(name == place or name.startswith(f"{place}.") for place in places)


def violations(source: str, module: str) -> list[str]:
    """What in a module's source breaks the law, in words; `module` is its name inside the package (`core.plan`)."""
    room = module.partition(".")[0]
    allowed = (*ARROWS[room], room)
    found = []
    for name, at_once in imports(source, f"ropewalk.{module}"):
        top, _, ours = name.partition(".")
        if top == "ropewalk" and not below(ours, allowed):
            found.append(f"{module} imports {name}, and {room} may only import {', '.join(allowed)}")
        if top in HEAVY and room == "core":
            found.append(f"{module} imports {name}, and core is standard library and numpy")
        if top in HEAVY and at_once and below(module, LIGHT) and not below(module, RUNNING):
            found.append(f"{module} imports {name} at once; move it into the function that needs it")
        if top in HEAVY and room in ("methods", "engines", "report"):
            found.append(f"{module} imports {name}, and {room} is to work without it")
    return found


def modules() -> dict[str, Path]:
    """Name inside the package to file, the package's own `__init__` left out."""
    named = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        name = ".".join(part for part in parts if part != "__init__")
        if name:
            # Relative imports inside a package's __init__ count from the package itself.
            named[name if parts[-1] != "__init__" else f"{name}.__init__"] = path
    return named


def test_every_room_is_known() -> None:
    assert {name.partition(".")[0] for name in modules()} == set(ROOMS)


@pytest.mark.parametrize("module", modules())
def test_a_module_imports_along_the_arrows(module: str) -> None:
    assert violations(modules()[module].read_text(encoding="utf-8"), module) == []


def test_the_package_itself_imports_nothing_heavy() -> None:
    found = {name.partition(".")[0] for name, _ in imports((PACKAGE / "__init__.py").read_text(), "ropewalk.__init__")}
    assert found == {"ropewalk"}


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("core.plan", "from ropewalk.methods.yarn import Yarn"),
        ("core.plan", "import numpy\ndef late():\n    import ropewalk.hosts.live"),
        ("core.plan", "def late():\n    import torch"),
        ("core.plan", "from ..engines import transformers"),
        ("core.plan", "import ropewalk"),
        ("methods.yarn", "from ropewalk.hosts import live"),
        ("methods.yarn", "def late():\n    import torch.nn"),
        ("engines.llamacpp", "from ropewalk.methods import yarn"),
        ("hosts.live.carry", "from ropewalk.methods.yarn import Yarn"),
        ("hosts.live.carry", "from ropewalk.measure import rows"),
        ("attention.windows", "from ropewalk.hosts import live"),
        ("data.documents", "from ropewalk.measure import windows"),
        ("data.documents", "import torch"),
        ("measure.rows", "from ropewalk.methods import yarn"),
        ("measure.rows", "from ropewalk.tune import loss"),
        ("tune.loss", "from ropewalk.measure import forward"),
        ("measure.rows", "from ropewalk.engines import transformers"),
        ("measure.rows", "import importlib\nimportlib.import_module('ropewalk.report.page')"),
        ("measure.rows", "import importlib\nimportlib.import_module(name)"),
        ("report.page", "from ropewalk.core.plan import Plan"),
        ("report.page", "from ropewalk.core import plan"),
        ("report.page", "class Late:\n    def draw(self):\n        import torch"),
        ("cli", "from ropewalk.hosts import folder"),
        ("cli", "from ropewalk import plan"),
        ("cli", "import torch"),
        ("cli.checkpoints", "def run():\n    from ropewalk.hosts import folder"),
        ("cli.runs", "from ropewalk import compare"),
        ("cli.runs", "import torch"),
        ("api.runs", "if True:\n    import transformers"),
        ("api.plans", "class Early:\n    import torch"),
        ("api.plans", "from ropewalk.cli import main"),
    ],
)
def test_a_planted_violation_is_caught(module: str, source: str) -> None:
    assert violations(source, module)


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("core.plan", "from ropewalk.core.errors import near\nfrom . import geometry\nimport numpy.typing"),
        ("hosts.live.carry", "import torch\nfrom ropewalk.engines import transformers"),
        ("report.page", "from ropewalk.core.record import Record\nfrom ropewalk.report import html"),
        ("api.runs", "def late():\n    import torch\n    from ropewalk.measure import rows"),
        ("api.running", "import torch"),
        ("cli.__init__", "from ropewalk.cli import runs\nfrom ropewalk.core.errors import near"),
        ("cli.runs", "def run():\n    from ropewalk.api.runs import compare"),
        ("measure.rows", "import torch\nfrom ropewalk.data.tasks import needle"),
    ],
)
def test_what_the_law_allows_is_not_called_a_violation(module: str, source: str) -> None:
    assert violations(source, module) == []
