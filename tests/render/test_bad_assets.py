"""What one asset does to its child costs that asset, in a real run of two workers, and nobody else."""

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from pipeline.backends import LocalBackend, RetryPolicy
from pipeline.events import EventLog
from pipeline.records import Animation, Asset, Probe, Rejected
from pipeline.runner import Runner
from pipeline.storage import Store
from pipeline.tables import Tables
from render import draw, probe, scratch
from render.probe import ProbeAsset
from render.supervisor import BlenderChild, BlenderSettings
from tests.render.rows import action, asset_of, toy_asset
from tests.render.test_sandbox import needs_kernel
from tests.render.tiny_gltf import TinyGltf

HERE = Path(__file__).parent
pytestmark = [needs_kernel, pytest.mark.slow]


@dataclass
class Ran:
    """What came of a run."""

    reasons: dict[str, str]
    details: dict[str, str]
    num_probes: int
    num_animations: int


Run = Callable[[str, BlenderSettings, Sequence[Asset]], Ran]


@pytest.fixture
def run(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    """Probe assets with two workers, each with a child of the named module; nothing may be left of them."""
    folders = tmp_path / "scratch"
    folders.mkdir()
    monkeypatch.setattr(scratch, "_roomy_folder", lambda: str(folders))
    mine = psutil.Process()
    before = {child.pid for child in mine.children(recursive=True)}

    def run_assets(module: str, settings: BlenderSettings, assets: Sequence[Asset]) -> Ran:
        held = threading.local()

        def child_for(settings: BlenderSettings) -> BlenderChild:
            if not hasattr(held, "child"):
                held.child = BlenderChild(settings, module=module, readable=(HERE,))
            child: BlenderChild = held.child
            return child

        for stage in (probe, draw):
            monkeypatch.setattr(stage, "child_for", child_for)
            monkeypatch.setattr(stage, "close_child", lambda settings: child_for(settings).close())
        policy = RetryPolicy(attempts=2, first_wait_s=0.01)
        stages = (ProbeAsset(data=store.root, blender=settings),)
        backend = LocalBackend(store, stages, 2, policy)
        try:
            Runner(Tables(store), stages, backend, policy=policy, events=EventLog(store)).run(iter(assets))
        finally:
            backend.close()
        tables = Tables(store)
        rejected = tables.rows(Rejected)
        return Ran(
            reasons={row.name.rpartition(".")[0]: row.reason for row in rejected},
            details={row.name.rpartition(".")[0]: row.detail for row in rejected},
            num_probes=len(tables.rows(Probe)),
            num_animations=len(tables.rows(Animation)),
        )

    yield run_assets
    assert {child.pid for child in mine.children(recursive=True)} <= before
    assert not list(folders.iterdir())


WANTED = {
    "segfault": "blender_crashed",
    "hang": "deadline",
    "eat": "out_of_memory",
    "gulp": "out_of_memory",
    "fork_bomb": "blender_crashed",
    "thread_bomb": "blender_crashed",
    "babble": "blender_crashed",
    "flood_the_log": "blender_crashed",
    "flood_the_answers": "blender_crashed",
    "fill_the_disk": "disk_quota",
    "kill_the_parent": "blender_crashed",
    "kill_everybody": "blender_crashed",
    "connect": "blender_crashed",
    "read_outside": "blender_crashed",
}


def test_each_bad_asset_costs_itself_and_the_run_goes_on(run: Run, store: Store) -> None:
    bad = {do: toy_asset(store, action("a", 0.0, 2.0), do=do, bite=8 << 20) for do in WANTED}
    good = [toy_asset(store, action(f"walk {number}", 0.0, 2.0)) for number in range(len(bad))]
    assets = [asset for pair in zip(bad.values(), good, strict=True) for asset in pair]
    settings = BlenderSettings(memory_mb=512, scratch_mb=100, load_s=4.0, sandbox="require")
    ran = run("fake_child", settings, assets)
    found = {do: ran.reasons[asset.blob.rpartition(".")[0]] for do, asset in bad.items()}
    assert found == WANTED
    assert ran.num_probes == ran.num_animations == len(good)


GENERATORS = {
    "segfault": "blender_crashed",
    "hang": "deadline",
    "eat": "out_of_memory",
    "eat slowly": "out_of_memory",
    "fork": "import_failed",
    "threads": "import_failed",
    "kill": "import_failed",
    "write": "disk_quota",
}
"""What the asset does, and what it is turned away for: where the kernel says no, the importer fails."""


def moving_cube(generator: str, place: float) -> bytes:
    gltf = TinyGltf()
    gltf.document["asset"]["generator"] = generator
    node = gltf.node(mesh=gltf.cube(gltf.material((0.5, 0.1, 0.1))))
    gltf.animate("slide", (node, "translation", [0.0, 2.0], [[0.0, 0.0, 0.0], [place, 1.0, 0.0]]))
    return gltf.bytes()


@pytest.mark.blender
def test_the_same_holds_inside_blender(run: Run, store: Store) -> None:
    bad = {name: asset_of(store, moving_cube(name, 1.0), name=name) for name in GENERATORS}
    good = [asset_of(store, moving_cube("", float(place))) for place in range(4)]
    settings = BlenderSettings(memory_mb=600, scratch_mb=100, load_s=15.0, sandbox="require")
    ran = run("hostile_blender", settings, [*bad.values(), *good])
    assert {name: ran.reasons[asset.blob.rpartition(".")[0]] for name, asset in bad.items()} == GENERATORS
    assert ran.num_probes == len(good)
    hung = ran.details[bad["hang"].blob.rpartition(".")[0]]
    assert hung.startswith("no sign of life for 15")
    assert "during load" in hung
