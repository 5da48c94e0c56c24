"""Mutated files end as rows: none stops the run, hangs, or eats the machine."""

from collections import Counter
from pathlib import Path

import pytest
from rich.console import Console

from pipeline.records import SourceItem
from pipeline.storage import Store
from pipeline.tables import Tables
from tests.fuzz.campaign import BLENDER, Report, print_report, run
from tests.fuzz.mutants import mutant, sources_in

pytestmark = pytest.mark.blender
FAST = 60
DRAWN = ("kept", "curate")


@pytest.fixture(scope="module")
def sources(request: pytest.FixtureRequest, samples: Path) -> list[Path]:
    """Samples, and real assets where there are some."""
    try:
        real_assets: Path | None = request.getfixturevalue("real_assets")
    except pytest.skip.Exception:
        real_assets = None
    return sources_in(samples, real_assets)


def assert_all_is_well(report: Report, count: int) -> None:
    print_report(report, Console(width=120))
    assert len(report.ends) == count
    outcomes = report.outcomes
    assert sum(count for outcome, count in outcomes.items() if outcome.startswith(DRAWN)) > 0.2 * count
    assert outcomes["lost"] == 0
    assert not [outcome for outcome in outcomes if "blender_crashed" in outcome or "deadline" in outcome]
    assert not [outcome for outcome in outcomes if "machine_fault" in outcome]
    assert report.odd == []
    assert report.child_peak_mb < BLENDER.memory_mb + 500
    assert report.driver_growth_mb < 150
    assert max(end.seconds for end in report.ends) < 3 * BLENDER.load_s


def test_mutants_are_the_same_everywhere_and_mostly_differ_from_their_sources(sources: list[Path]) -> None:
    originals = {path.read_bytes() for path in sources}
    made = [mutant(sources, number) for number in range(20)]
    assert made == [mutant(sources, number) for number in range(20)]
    assert sum(entry.content in originals for entry in made) < 4
    assert Counter(entry.name.rpartition(".")[2] for entry in made).keys() == {"glb", "fbx"}


def test_sixty_mutants_end_as_rows_and_a_second_run_resumes(sources: list[Path], tmp_path: Path) -> None:
    run(tmp_path, sources, range(FAST // 2))
    report = run(tmp_path, sources, range(FAST))
    assert_all_is_well(report, FAST)
    assert len(Tables(Store(str(tmp_path / "data"))).rows(SourceItem)) == FAST


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_thousand_mutants_end_as_rows(sources: list[Path], tmp_path: Path) -> None:
    assert_all_is_well(run(tmp_path, sources, range(1000), workers=2), 1000)
