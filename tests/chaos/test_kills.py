"""Kill drivers and Blender at chosen and at random moments: the result is that of an undisturbed run."""

import json
import random
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.chaos.builds import assert_equal_builds, assert_no_orphans, finish, start
from tests.chaos.doomed import PHASES, Moment

pytestmark = pytest.mark.blender

ORDER = (
    "register", "ingest", "load", "probe", "plan", "draw", "encode", "store", "score", "commit", "pack", "compact",
    "decide", "pack", "compact", "cards",
)  # fmt: skip
"""The phases in which the driver of a data root dies, one after the other. Those of one input come early, as a later
run has less of them to do."""


def struck(log: Path) -> list[dict[str, Any]]:
    return (
        [line for text in log.read_text().splitlines() if (line := json.loads(text))["struck"]] if log.exists() else []
    )


def live(manifest: Path, data: Path, moments: list[Moment], log: Path) -> None:
    """One driver's life; it may end before its moment comes."""
    process = start(manifest, data, moments=moments, log=log)
    _, errors = process.communicate(timeout=400)
    assert process.returncode in (0, -signal.SIGKILL), errors.decode()[-3000:]
    assert_no_orphans(process.pid)


def driver_dies(phase: str, rng: random.Random, most: int = 6) -> Moment:
    delay_s = rng.choice((0.0, 0.0, rng.uniform(0.01, 0.3)))
    return Moment(phase=phase, nth=rng.randint(1, most), delay_s=delay_s, torn=not delay_s and rng.random() < 0.7)


def child_dies(rng: random.Random) -> Moment:
    """While it loads, measures or draws: within a second of being told to."""
    return Moment(
        phase=rng.choice(("load", "draw")), nth=rng.randint(1, 3), victim="child", delay_s=rng.uniform(0.01, 1.0)
    )


def test_killed_in_each_part_of_a_run_it_ends_like_an_undisturbed_run(few: Path, calm: Path, tmp_path: Path) -> None:
    rough, log = tmp_path / "rough", tmp_path / "log"
    lives = [
        [Moment(phase="ingest", nth=3, torn=True)],
        [Moment(phase="load", nth=1, victim="child", delay_s=0.1), Moment(phase="probe", nth=6, torn=True)],
        [Moment(phase="draw", nth=1, victim="child", delay_s=0.1), Moment(phase="store", nth=6, torn=True)],
        [Moment(phase="commit", nth=4)],
        [Moment(phase="compact", nth=4)],
        [Moment(phase="pack", nth=3, torn=True)],
    ]
    for moments in lives:
        live(few, rough, moments, log)
    assert Counter(strike["victim"] for strike in struck(log)) == {"driver": 6, "child": 2}
    finish(start(few, rough))
    assert_equal_builds(calm, rough)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_fifty_random_moments_over_real_assets(real_manifest: Path, calm_real: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    for number in range(6):
        rng = random.Random(number)
        rough = tmp_path / f"rough{number}"
        for phase in ORDER:
            children = [child_dies(rng) for _ in range(rng.randint(0, 2))] if phase != "register" else []
            live(real_manifest, rough, [*children, driver_dies(phase, rng, 1 if phase == "register" else 6)], log)
        finish(start(real_manifest, rough))
        assert_equal_builds(calm_real, rough)
        if len(struck(log)) >= 50:
            break
    done = struck(log)
    victims, phases = Counter(strike["victim"] for strike in done), Counter(strike["phase"] for strike in done)
    print(dict(victims), dict(phases))
    assert len(done) >= 50
    assert victims["child"] >= 10
    assert set(phases) == set(PHASES)
