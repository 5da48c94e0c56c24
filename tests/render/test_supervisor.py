import dataclasses
import errno
import io
import json
import logging
import os
import signal
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from pipeline.records import Probe, content_id
from pipeline.storage import Store
from render import scratch, supervisor
from render.protocol import BadAsset, Draw, Load
from render.scratch import Scratch
from render.supervisor import BlenderChild, BlenderSettings, BlenderUnavailable, MachineFault, child_for, close_child

HERE = Path(__file__).parent


def stored(store: Store, content: bytes, *, main_file: str = "", suffix: str = "glb") -> Probe:
    """A row that points at the bytes."""
    blob = f"blobs/{content_id(content.hex())}.{suffix}"
    store.write_bytes(blob, content)
    return Probe(
        asset_id=content_id(content.hex(), main_file, suffix), blob=blob, format=suffix, main_file=main_file,
        blender_version="", num_actions=0, num_vertices=0, num_triangles=0, num_objects=0, num_materials=0,
        num_images=0, image_pixels=0, missing_textures=(), family_id="", scene_fps=24.0,
    )  # fmt: skip


def asset(store: Store, do: str = "", **order: Any) -> Probe:
    return stored(store, json.dumps({"do": do, **order}).encode())


def drawing(**fields: Any) -> Draw:
    """A request that nobody means to carry out."""
    empty: dict[str, Any] = {field.name: None for field in dataclasses.fields(Draw)}
    return Draw(**(empty | {"times_s": [], "views": [], "size_px": 8, "samples": 1} | fields))


MakeChild = Callable[..., BlenderChild]


@pytest.fixture
def make_child() -> Iterator[MakeChild]:
    made = []

    def make(**settings: Any) -> BlenderChild:
        fast = {"load_s": 1.0, "image_s": 1.0, "memory_mb": 512} | settings
        made.append(BlenderChild(BlenderSettings(**fast), module="fake_child", readable=(HERE,)))
        return made[-1]

    yield make
    for child in made:
        child.close()


def group_is_gone(pid: int) -> bool:
    """Nobody of the process group lives; what init has not reaped yet does not count."""
    deadline = time.monotonic() + 2.0
    while any(_lives_in_group(process, pid) for process in psutil.process_iter()):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def _lives_in_group(process: psutil.Process, group: int) -> bool:
    try:
        return os.getpgid(process.pid) == group and process.status() != psutil.STATUS_ZOMBIE
    except (ProcessLookupError, psutil.Error):
        return False


def folders() -> set[str]:
    return {str(path) for parent in ("/dev/shm", "/tmp") for path in Path(parent).glob(f"{scratch.PREFIX}*")}


def assert_costs_one_asset(child: BlenderChild, store: Store, bad: Probe, reason: str, within_s: float) -> str:
    """The bad asset is turned away in bounded time, all its processes are gone, and the next asset is fine."""
    child.load(asset(store), store)
    pid = child.pid
    assert pid is not None
    before = folders()
    started = time.monotonic()
    with pytest.raises(BadAsset) as caught:
        child.load(bad, store)
    assert caught.value.reason == reason
    assert time.monotonic() - started < within_s
    assert child.pid is None
    assert group_is_gone(pid)
    assert len(before - folders()) == 1
    assert child.load(asset(store), store).num_vertices == 3
    return caught.value.detail


def test_a_hanging_asset_is_ended_at_its_deadline(make_child: MakeChild, store: Store) -> None:
    detail = assert_costs_one_asset(make_child(), store, asset(store, "hang"), "deadline", within_s=2.0)
    assert "during load" in detail
    assert "about to hang" in detail


def test_what_a_child_forked_ends_with_it(make_child: MakeChild, store: Store) -> None:
    child = make_child(sandbox="off")
    assert_costs_one_asset(child, store, asset(store, "hang_with_offspring"), "deadline", within_s=2.0)


def test_a_crash_costs_the_asset_and_gives_the_last_words(make_child: MakeChild, store: Store) -> None:
    detail = assert_costs_one_asset(make_child(), store, asset(store, "segfault"), "blender_crashed", within_s=3.0)
    assert "SIGSEGV" in detail
    assert "about to fall" in detail


def test_an_early_exit_is_a_crash(make_child: MakeChild, store: Store) -> None:
    detail = assert_costs_one_asset(make_child(), store, asset(store, "exit"), "blender_crashed", within_s=3.0)
    assert "exit status 3" in detail


def test_a_growing_asset_is_ended_at_the_memory_limit(make_child: MakeChild, store: Store) -> None:
    child = make_child(load_s=30.0)
    detail = assert_costs_one_asset(child, store, asset(store, "eat", bite=16 << 20), "out_of_memory", within_s=10.0)
    assert "more than 512 MB during load" in detail


def test_a_peak_between_two_looks_counts(make_child: MakeChild, store: Store) -> None:
    bad = asset(store, "eat_for_a_moment", bite=600 << 20)
    detail = assert_costs_one_asset(make_child(load_s=30.0), store, bad, "out_of_memory", within_s=5.0)
    assert "more than 512 MB during load" in detail


@pytest.mark.parametrize("do", ["fill_the_disk", "fill_the_disk_unseen"])
def test_too_many_temporary_files_cost_the_asset(make_child: MakeChild, store: Store, do: str) -> None:
    child = make_child(load_s=30.0, scratch_mb=100)
    detail = assert_costs_one_asset(child, store, asset(store, do), "disk_quota", within_s=8.0)
    assert detail.startswith("more than 100 MB of files during load")


def test_a_flooded_log_stays_small_and_keeps_its_end(
    make_child: MakeChild, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    cut = []
    monkeypatch.setattr(scratch, "MAX_LOG_BYTES", 1 << 20)
    monkeypatch.setattr(os, "truncate", lambda path, size, cut_to=os.truncate: (cut.append(path), cut_to(path, size)))
    bad = asset(store, "flood_the_log")
    detail = assert_costs_one_asset(make_child(load_s=30.0), store, bad, "blender_crashed", within_s=8.0)
    assert detail.endswith("the last word")
    assert len(cut) >= 4  # each load begins with an empty one


def test_nobody_buys_time_for_ever(make_child: MakeChild, store: Store) -> None:
    child = make_child(load_s=30.0)
    detail = assert_costs_one_asset(child, store, asset(store, "flood_the_answers"), "blender_crashed", within_s=5.0)
    assert "more than 1000 events" in detail


def test_large_files_and_large_pictures_get_more_time() -> None:
    settings = BlenderSettings(load_s=100.0, load_s_per_mb=2.0, image_s=50.0)
    assert settings.deadline_s(Load(path="a.glb", format="glb"), inbox_mb=0.1) == pytest.approx(100.2)
    assert settings.deadline_s(Load(path="a.glb", format="glb"), inbox_mb=500.0) == pytest.approx(1100.0)
    small, large = (drawing(size_px=size_px, samples=128) for size_px in (64, 4096))
    assert settings.deadline_s(small, inbox_mb=500.0) == pytest.approx(50.0, abs=5.0)
    assert settings.deadline_s(large, inbox_mb=0.1) > 16_000.0


def test_a_machine_with_little_memory_has_a_lower_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "_machine_mb", lambda: 2000.0)
    assert supervisor.memory_limit_mb(BlenderSettings(memory_mb=6000)) == 1800
    assert supervisor.memory_limit_mb(BlenderSettings(memory_mb=600)) == 600


def test_one_huge_allocation_is_refused_by_the_kernel(make_child: MakeChild, store: Store) -> None:
    child = make_child(load_s=30.0)
    detail = assert_costs_one_asset(child, store, asset(store, "gulp"), "out_of_memory", within_s=5.0)
    assert "MemoryError" in detail


@pytest.mark.parametrize("do", ["babble", "answer_another"])
def test_nonsense_on_the_pipe_ends_the_child(make_child: MakeChild, store: Store, do: str) -> None:
    assert_costs_one_asset(make_child(load_s=30.0), store, asset(store, do), "blender_crashed", within_s=3.0)


def test_a_refused_asset_does_not_cost_the_child(make_child: MakeChild, store: Store) -> None:
    child = make_child()
    child.load(asset(store), store)
    pid = child.pid
    with pytest.raises(BadAsset, match="import_failed: no such mesh"):
        child.load(asset(store, "refuse"), store)
    assert child.pid == pid


def test_each_event_restarts_the_deadline(make_child: MakeChild, store: Store) -> None:
    started = time.monotonic()
    make_child(load_s=0.7).load(asset(store, "be_slow"), store)
    assert time.monotonic() - started > 1.4


def test_a_request_larger_than_the_pipe_cannot_block_the_parent(make_child: MakeChild, store: Store) -> None:
    child = make_child(image_s=1.5)
    child.load(asset(store), store)
    os.kill(child.pid or 0, signal.SIGSTOP)
    request = drawing(times_s=[0.0] * 200_000)
    started = time.monotonic()
    with pytest.raises(MachineFault, match="no sign of life"):
        child.call(request)
    assert time.monotonic() - started < 6.0


def test_the_loaded_asset_is_not_loaded_again(make_child: MakeChild, store: Store) -> None:
    child = make_child()
    first, second = asset(store, "x"), asset(store, "y")
    assert child.load(first, store).family_id == "1"
    assert child.load(first, store).family_id == "1"
    assert child.load(second, store).family_id == "2"
    assert child.load(first, store).family_id == "3"


def test_a_child_is_replaced_after_enough_assets(make_child: MakeChild, store: Store) -> None:
    child = make_child(recycle_after=2)
    pids = []
    for number in range(5):
        child.load(asset(store, str(number)), store)
        pids.append(child.pid)
    assert pids[0] == pids[1] != pids[2] == pids[3] != pids[4]
    assert group_is_gone(pids[0] or 0)


def test_a_child_is_replaced_when_it_has_grown(make_child: MakeChild, store: Store) -> None:
    child = make_child(recycle_memory_mb=1)
    child.load(asset(store, "x"), store)
    pid = child.pid
    child.load(asset(store, "y"), store)
    assert child.pid != pid


def test_a_crash_that_another_asset_may_have_caused_is_tried_in_a_fresh_child(
    make_child: MakeChild, store: Store
) -> None:
    child = make_child()
    shy = asset(store, "segfault_unless_first")
    child.load(asset(store), store)
    assert child.settle(lambda: child.load(shy, store)).num_vertices == 3


def test_a_crash_in_a_fresh_child_is_final(make_child: MakeChild, store: Store) -> None:
    child = make_child()
    tries = []

    def work() -> None:
        tries.append(1)
        child.load(asset(store, "segfault"), store)

    with pytest.raises(BadAsset, match="blender_crashed"):
        child.settle(work)
    assert len(tries) == 1


def test_a_child_killed_by_others_is_no_fault_of_the_asset(make_child: MakeChild, store: Store) -> None:
    child = make_child(load_s=30.0)
    child.load(asset(store), store)
    pid = child.pid or 0
    threading.Timer(0.5, os.kill, (pid, signal.SIGKILL)).start()
    with pytest.raises(MachineFault, match="SIGKILL"):
        child.load(asset(store, "hang"), store)
    assert child.load(asset(store), store).num_vertices == 3


@pytest.mark.parametrize("how", ["refuse", "exit"])
def test_a_full_disk_is_no_fault_of_the_asset(make_child: MakeChild, store: Store, how: str) -> None:
    with pytest.raises(MachineFault, match="no room"):
        make_child().load(asset(store, how, detail=os.strerror(errno.ENOSPC)), store)


def test_an_interpreter_that_is_not_there_is_a_fault_of_the_machine() -> None:
    child = BlenderChild(BlenderSettings(blender_python="/no/such/python"))
    with pytest.raises(BlenderUnavailable, match="/no/such/python"):
        child.memory_mb() or child.out


def test_an_interpreter_without_bpy_is_named(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "bare")], check=True)
    (tmp_path / "bare_child.py").write_text("import bpy\n")
    settings = BlenderSettings(blender_python=str(tmp_path / "bare" / "bin" / "python"))
    child = BlenderChild(settings, module="bare_child", readable=(tmp_path,))
    with pytest.raises(BlenderUnavailable, match=r"has no bpy: install mv4d\[render\]"):
        child.memory_mb() or child.out


def test_the_child_dies_with_a_driver_that_is_killed(tmp_path: Path) -> None:
    script = (
        f"import sys, time; sys.path[:0] = [{str(supervisor.PACKAGE_ROOT)!r}]\n"
        "from pathlib import Path\n"
        "from render.supervisor import BlenderChild, BlenderSettings\n"
        f"child = BlenderChild(BlenderSettings(), module='fake_child', readable=(Path({str(HERE)!r}),))\n"
        "child.out; print(child.pid, flush=True); time.sleep(60)\n"
    )
    driver = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert driver.stdout is not None
    pid = int(driver.stdout.readline())
    left = next(folder for folder in folders() if _mentions(pid, folder))
    driver.kill()
    driver.wait()
    driver.stdout.close()
    psutil.wait_procs([psutil.Process(pid)] if psutil.pid_exists(pid) else [], timeout=5)
    assert group_is_gone(pid)
    # The folder that it left is swept up by whoever starts next, once it is old enough to be no newcomer's.
    os.utime(left, (0, 0))
    Scratch.make().remove()
    assert not Path(left).exists()


def test_the_kernel_takes_the_child_before_its_parent(make_child: MakeChild) -> None:
    child = make_child()
    assert child.out.exists()
    assert Path(f"/proc/{child.pid}/oom_score_adj").read_text().strip() == "800"
    assert int(Path("/proc/self/oom_score_adj").read_text()) < 800


def _mentions(pid: int, folder: str) -> bool:
    return folder in " ".join(psutil.Process(pid).cmdline())


def test_a_living_drivers_folder_is_not_swept_up() -> None:
    living = Scratch.make()
    os.utime(living.folder, (0, 0))
    Scratch.make().remove()
    assert living.folder.exists()
    living.remove()


def test_the_child_ends_with_its_thread(make_child: MakeChild, store: Store) -> None:
    pids = []

    def work() -> None:
        child = make_child()
        child.load(asset(store), store)
        pids.append(child.pid)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    deadline = time.monotonic() + 5
    while psutil.Process(pids[0]).status() != psutil.STATUS_ZOMBIE and time.monotonic() < deadline:
        time.sleep(0.05)
    assert psutil.Process(pids[0]).status() == psutil.STATUS_ZOMBIE


def test_stages_of_a_thread_share_a_child() -> None:
    settings = BlenderSettings(memory_mb=600)
    mine = child_for(settings)
    others: list[BlenderChild] = []
    thread = threading.Thread(target=lambda: others.append(child_for(settings)))
    thread.start()
    thread.join()
    assert child_for(BlenderSettings(memory_mb=600)) is mine
    assert others[0] is not mine
    close_child(settings)
    assert child_for(settings) is not mine
    close_child(settings)


def tar_of(*members: tuple[str, bytes | str]) -> bytes:
    """A tar; a member whose content is a string is a symbolic link to it."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            if isinstance(content, str):
                info.type, info.linkname = tarfile.SYMTYPE, content
                tar.addfile(info)
            else:
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def test_an_asset_with_side_files_is_unpacked(make_child: MakeChild, store: Store) -> None:
    content = tar_of(("scene.gltf", b"{}"), ("textures/a.png", b"png"))
    path = make_child().load(stored(store, content, main_file="scene.gltf", suffix="gltf"), store).missing_textures[0]
    assert Path(path).name == "scene.gltf"
    assert (Path(path).parent / "textures" / "a.png").read_bytes() == b"png"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (tar_of(("a.gltf", b"{}"), ("../evil", b"x")), "unsafe_uri"),
        (tar_of(("a.gltf", b"{}"), ("/tmp/evil", b"x")), "unsafe_uri"),
        (tar_of(("a.gltf", "/etc/passwd")), "unsafe_uri"),
        (tar_of(("d", "/etc"), ("d/x", b"x"), ("a.gltf", b"{}")), "unsafe_uri"),
        (tar_of(("b.gltf", b"{}")), "missing_file"),
        (tar_of(("a.gltf", b"{}"), ("a.gltf", b"{}")), "malformed"),
        (tar_of(("a.gltf", b"x" * 4000))[:2000], "malformed"),
        (b"no tar at all", "malformed"),
    ],
)
def test_a_bad_tar_is_turned_away(tmp_path: Path, store: Store, content: bytes, reason: str) -> None:
    place = Scratch.make()
    with pytest.raises(BadAsset) as caught:
        place.take_in(stored(store, content, main_file="a.gltf", suffix="gltf"), store)
    assert caught.value.reason == reason
    assert {path.name for path in place.folder.iterdir()} == {"inbox", "lent", "out", "home", "log", "lock"}
    place.remove()


def test_a_tar_bomb_is_turned_away(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scratch, "MAX_UNPACKED_BYTES", 1000)
    place = Scratch.make()
    with pytest.raises(BadAsset, match="too_large"):
        place.take_in(stored(store, tar_of(("a.gltf", b"x" * 2000)), main_file="a.gltf"), store)
    place.remove()


def test_the_child_sees_nothing_of_our_environment(
    make_child: MakeChild, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    with pytest.raises(BadAsset) as caught:
        make_child().load(asset(store, "try", what={"environ": ""}), store)
    assert "PYTHONPATH" in caught.value.detail
    assert "AWS" not in caught.value.detail


def test_a_start_is_an_event(make_child: MakeChild, store: Store, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "mv4d.render"):
        make_child().load(asset(store), store)
    assert [record.__dict__["event"]["kind"] for record in caplog.records] == ["blender_started"]


@pytest.mark.parametrize("bad", [{"memory_mb": 0}, {"load_s": 0.0}, {"recycle_after": 0}, {"threads": -1}])
def test_bad_settings_are_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"need|longer"):
        BlenderSettings(**bad)
