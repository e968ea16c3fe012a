"""Sequential stops: what a look decides must hold in the row that is written, at the error that is stated."""

import numpy as np
import pytest
from calibration import CURVES, LENGTHS, Design, draw, planted

from ropewalk.measure.effective import THRESHOLD, effective_length
from ropewalk.measure.maps import Cell
from ropewalk.measure.sequential import NUM_LOOKS, Stop
from ropewalk.measure.settings import MULTIKEY, MapSettings
from ropewalk.measure.shares import POCOCK, correlation, ratio, share


def sample(method, length, index, found):
    return {
        "task": "needle", "protocol": MULTIKEY, "method": method, "asked_length": length, "haystack": index, "found": found,
    }  # fmt: skip


def samples(method, length, cell, begin=0):
    return [sample(method, length, begin + i, x) for i, haystack in enumerate(cell) for x in haystack]


def stopped_run(rng, curve, design):
    """A run whose cells stop: the untouched model's short cell, and what was asked of the method's at each length."""
    settings = MapSettings(
        methods=("none", "yarn"), lengths=LENGTHS, num_haystacks=design.num_haystacks, num_depths=design.num_questions,
        stop_early=True,
    )  # fmt: skip
    base = draw(rng, design.base, design).tolist()
    stop, cells, step = Stop(settings, samples("none", LENGTHS[0], base)), [], design.num_haystacks // NUM_LOOKS
    for length, part in zip(LENGTHS, curve, strict=True):
        whole, asked = draw(rng, design.base * part, design).tolist(), 0
        while asked < design.num_haystacks:
            cell = Cell(label="yarn", task="needle", protocol=MULTIKEY, lengths=(length,), index=asked, depths=())
            if stop.decided(cell):
                break
            stop.add(samples("yarn", length, whole[asked : asked + step], asked))
            asked += step
        cells.append(whole[:asked])
    return base, cells


def rows(base, cells):
    """The shares as the rows have them."""
    rho = correlation(cells)
    shares = {length: share(cell, rho=rho, z=POCOCK) for length, cell in zip(LENGTHS, cells, strict=True)}
    return shares, share(base, rho=correlation([base]), z=POCOCK)


@pytest.mark.slow
@pytest.mark.parametrize("design", [Design(), Design(rho=0.4, base=0.9)], ids=["usual", "clustered"])
def test_calibrated_with_stops(design):
    """Coverage, false certification, and stopped cells whose row is not clear of the threshold after all."""
    coverage, false, covered, unclear, used = [], [], [], [], []
    for index, curve in enumerate(CURVES.values()):
        rng, true = np.random.default_rng([7, index]), planted(curve)
        for _ in range(100):
            base, cells = stopped_run(rng, curve, design)
            shares, short = rows(base, cells)
            found = effective_length(shares, short)
            means = [design.base * part for part in curve]
            coverage += [s.low <= m + 1e-12 and s.high >= m - 1e-12 for s, m in zip(shares.values(), means, strict=True)]
            false.append((found.value or 0) > (true or 0))
            if found.refused is None:
                covered.append((found.low or 0) <= (true or 0) <= (found.high or 0))
            used += [len(cell) / design.num_haystacks for cell in cells]
            for cell, length in zip(cells, LENGTHS, strict=True):
                if len(cell) < design.num_haystacks:
                    low, high = ratio(shares[length], short)
                    unclear.append(low < THRESHOLD <= high)
    print(
        f"{design}: coverage {np.mean(coverage):.4f}, false {np.mean(false):.4f}, effective {np.mean(covered):.4f}, "
        f"asked {np.mean(used):.2f}, stopped {len(unclear)}, not clear in the row {np.mean(unclear):.3f}"
    )
    assert np.mean(coverage) >= 0.95 - 0.014
    assert np.mean(false) <= 0.05
    assert np.mean(covered) >= 0.95 - 0.014
    assert np.mean(unclear) <= 0.1


def test_a_look_takes_the_correlation_of_the_lengths_before_it():
    """A cell that looks even by luck is not clear where every cell before it was clustered."""
    settings = MapSettings(methods=("none", "yarn"), lengths=LENGTHS, num_haystacks=24, num_depths=11, stop_early=True)
    base = samples("none", LENGTHS[0], [[1.0] * 11] * 24)
    even = samples("yarn", LENGTHS[2], [[1.0] * 11] * 12)
    cell = Cell(label="yarn", task="needle", protocol=MULTIKEY, lengths=(LENGTHS[2],), index=12, depths=())
    clustered = [[1.0] * 11 if index % 6 else [0.0] * 11 for index in range(24)]
    before = [s for length in LENGTHS[:2] for s in samples("yarn", length, clustered)]
    assert Stop(settings, base + even).decided(cell)
    assert not Stop(settings, base + before + even).decided(cell)


def test_what_comes_later_decides_nothing():
    """Longer lengths that are on disk already, as after a resume, do not move a stop."""
    settings = MapSettings(methods=("none", "yarn"), lengths=LENGTHS, num_haystacks=24, num_depths=11, stop_early=True)
    base = samples("none", LENGTHS[0], [[1.0] * 11] * 24)
    even = samples("yarn", LENGTHS[1], [[1.0] * 11] * 12)
    clustered = [[1.0] * 11 if index % 6 else [0.0] * 11 for index in range(24)]
    later = [s for method in ("none", "yarn") for s in samples(method, LENGTHS[3], clustered)]
    cell = Cell(label="yarn", task="needle", protocol=MULTIKEY, lengths=(LENGTHS[1],), index=12, depths=())
    assert Stop(settings, base + even).decided(cell)
    assert Stop(settings, base + even + later).decided(cell)
