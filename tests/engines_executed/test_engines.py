"""Real engines on a real model: what `exact` claims, and that a wrong checkpoint does not pass for it.

`make engines` sets the engines up and runs this. For each engine four runs of nearly ten thousand tokens, probed at the same
sixteen positions inside and beyond the trained window: the plan, the control (a changed base, which cannot be misread), the
plan off, one wrong checkpoint. The other wrong ones are in `benchmarks/engines.py`.
"""

from pathlib import Path

import pytest

from benchmarks.engine_cases import positions, token_ids
from benchmarks.engine_runs import MARGIN, NUM_INSIDE, ROUNDING, TIMES_CONTROL, Runs
from ropewalk.hosts.executed import python_of

LONGEST = 9984
ENGINES = ("vllm", "llama.cpp", "transformers-oldest")

pytestmark = [pytest.mark.engine, pytest.mark.slow]


@pytest.fixture(scope="module")
def runs() -> Runs:
    return Runs(Path("runs/engines"), token_ids(LONGEST), positions(LONGEST), lambda line: print(line, flush=True))


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest) -> str:
    if python_of(request.param) is None:
        pytest.skip(f"{request.param} is not set up here; make engines does it")
    return str(request.param)


def test_the_plan_costs_no_more_than_twice_the_control(runs, engine):
    plan, control = runs.divergence(engine, "yarn x2").mean(), runs.divergence(engine, "control").mean()
    print(f"{engine}: plan {plan:.2e}, control {control:.2e} nats")
    assert plan <= max(TIMES_CONTROL * control, ROUNDING)


def test_the_plan_is_no_no_op_beyond_the_window(runs, engine):
    on, off = runs.divergence(engine, "yarn x2")[NUM_INSIDE:].mean(), runs.divergence(engine, "off")[NUM_INSIDE:].mean()
    print(f"{engine}: beyond the window on {on:.2e}, off {off:.2e} nats")
    assert off >= MARGIN * max(on, ROUNDING)


def test_a_wrong_checkpoint_is_caught(runs, engine):
    wrong, control = runs.divergence(engine, "attention factor dropped").mean(), runs.divergence(engine, "control").mean()
    print(f"{engine}: attention factor dropped {wrong:.2e}, control {control:.2e} nats")
    assert wrong >= MARGIN * max(control, ROUNDING)
