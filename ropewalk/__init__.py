"""ropewalk: make a transformer language model read further than it was trained to, and show how far it really reads.

    import ropewalk
    plan = ropewalk.plan("path/to/checkpoint", "yarn", length=65536)

Nothing heavy is imported until a verb needs it: planning and inspecting need neither torch nor transformers.
"""

# Four verbs share their name with a room. The rooms are imported first, so that the verbs are what `ropewalk.NAME` means;
# inside the package, rooms are only ever reached by `from ropewalk.ROOM.FILE import ...`, which does not look here.
# The verb `data` is `prepare` here: users reach into its room, as in `ropewalk.data.stream`, which a function would hide.
import ropewalk.measure
import ropewalk.methods
import ropewalk.report
import ropewalk.tune  # noqa: F401
from ropewalk.api.checkpoints import apply, convert, extend, load, read_back
from ropewalk.api.data import prepare
from ropewalk.api.plans import geometry, methods, plan
from ropewalk.api.runs import compare, measure, report
from ropewalk.api.tuning import tune
from ropewalk.api.verification import verify
from ropewalk.core.errors import RopewalkError
from ropewalk.core.geometry import Geometry
from ropewalk.core.plan import Frequencies, Plan

__version__ = "0.1.0"

__all__ = [
    "Frequencies",
    "Geometry",
    "Plan",
    "RopewalkError",
    "apply",
    "compare",
    "convert",
    "extend",
    "geometry",
    "load",
    "measure",
    "methods",
    "plan",
    "prepare",
    "read_back",
    "report",
    "tune",
    "verify",
]
