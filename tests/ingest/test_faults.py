"""More than a thousand objects of all collections, three in ten of which come to harm: what becomes of them."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from pipeline.cli import EXIT_MACHINE, EXIT_OK
from pipeline.records import Asset, Done, Rejected, SourceItem
from pipeline.storage import PARTIAL, Store
from pipeline.tables import Tables
from tests.conftest import REPOSITORY
from tests.ingest.sources.faulty_web import MAX_BYTES, STORED, TOKEN, World, build_world
from tests.ingest.web import Web
from tests.ledger import num_done

SOURCES = ("objaverse", "objaverse-xl", "sketchfab")
MB = 1e6
DEADLINE_S = 20


def start(world: World, data: Path, *more: str) -> "subprocess.Popen[bytes]":
    """`mv4d ingest` of all collections, in a process of its own."""
    world.web.trickle_s = DEADLINE_S / 200  # no file is so short that it would come in time
    options = {
        "data": data, "max_bytes": MAX_BYTES, "quiet": "true", "fetch.attempts": 3, "fetch.first_wait_s": 0.01,
        "fetch.longest_wait_s": 0.05, "fetch.timeout_s": 20, "fetch.deadline_s": DEADLINE_S, "fetch.per_host": 64,
        "fetch.private_hosts": world.web.url.removeprefix("http://"),
        **{f"sites.{name}": url for name, url in vars(world.sites).items()},
    }  # fmt: skip
    given = [text for name, value in options.items() for text in (f"--{name}", str(value))]
    return subprocess.Popen(
        [sys.executable, "-m", "pipeline", "ingest", *SOURCES, *given, *more],
        cwd=REPOSITORY,
        env={**os.environ, "SKETCHFAB_TOKEN": TOKEN, "XDG_CACHE_HOME": str(data.parent / "cache")},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def finish(process: "subprocess.Popen[bytes]") -> str:
    """Wait for its end; gives all that it said."""
    said, errors = process.communicate(timeout=1500)
    text = (said + errors).decode()
    assert process.returncode == EXIT_OK, text[-3000:]
    return text


def wait_for(process: "subprocess.Popen[bytes]", data: Path, number: int) -> None:
    deadline = time.monotonic() + 1000
    while num_done(data) < number:
        assert process.poll() is None, "it ended too soon"
        assert time.monotonic() < deadline
        time.sleep(0.05)


def outcomes(data: Path) -> dict[str, list[str]]:
    """Name of each item to all that became of it."""
    tables = Tables(Store(str(data)))
    names = {item.item_id: item.name for item in tables.rows(SourceItem)}
    found: dict[str, list[str]] = {name: [] for name in names.values()}
    for asset in tables.rows(Asset):
        found[names[asset.item_id]].append(STORED)
    for row in tables.rows(Rejected):
        found[names[row.rejected_id]].append(row.reason)
    return found


def check(world: World, data: Path) -> None:
    """Nothing is lost, nothing is there twice, and each failure has its right reason."""
    found = outcomes(data)
    assert found.keys() == world.expected.keys()
    assert {name: entries for name, entries in found.items() if len(entries) != 1} == {}
    wrong = {name: (entries[0], world.expected[name]) for name, entries in found.items()}
    assert {name: pair for name, pair in wrong.items() if pair[0] != pair[1]} == {}
    tables = Tables(Store(str(data)))
    with tables.connect([Asset, Done]) as con:
        (num_ids,) = con.execute("SELECT count(DISTINCT item_id) FROM assets").fetchone() or (0,)
        (num_rows,) = con.execute("SELECT count(*) FROM assets").fetchone() or (0,)
        (num_done,) = con.execute("SELECT count(*) FROM done WHERE stage = 'ingest'").fetchone() or (0,)
    assert num_ids == num_rows == Counter(world.expected.values())[STORED]
    assert num_done == len(world.expected)
    for asset in tables.rows(Asset):
        assert (data / asset.blob).stat().st_size == asset.num_bytes
    stored = {asset.blob for asset in tables.rows(Asset)}
    assert {str(path.relative_to(data)) for path in (data / "blobs").rglob("*") if path.is_file()} == stored
    assert not [path for path in data.rglob("*") if path.name.endswith(PARTIAL)]


def check_secret(folder: Path, said: str) -> None:
    """The token stands in no file and in nothing that was said."""
    assert TOKEN not in said
    for path in folder.rglob("*"):
        if path.is_file():
            assert TOKEN.encode() not in path.read_bytes(), path


def test_every_fault_ends_as_it_should(web: Web, tmp_path: Path) -> None:
    world = build_world(web, objaverse=160, github=40, sketchfab=80)
    data = tmp_path / "data"
    said = finish(start(world, data))
    check(world, data)
    assert world.num_faults >= 0.3 * len(world.expected) - 1
    assert len(set(world.expected.values())) >= 12
    # Every model's download was asked for with the token, and nothing else was.
    assert {token for _, token in web.sent_tokens} == {f"Token {TOKEN}"}
    assert {path.rpartition("/")[2] for path, _ in web.sent_tokens} == {"download"}
    check_secret(tmp_path, said)


class Memory:
    """Resident memory of a process while it runs, in MB, with the number of objects done."""

    def __init__(self, process: "subprocess.Popen[bytes]", data: Path) -> None:
        self.seen: list[tuple[int, float]] = []
        self._process, self._data = psutil.Process(process.pid), data
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        while True:
            try:
                self.seen.append((num_done(self._data), self._process.memory_info().rss / MB))
            except (psutil.NoSuchProcess, FileNotFoundError):
                return
            time.sleep(0.2)

    def most(self, begin: int, end: int) -> float:
        """The most while so many objects were done."""
        return max(rss for number, rss in self.seen if begin <= number < end)


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_a_thousand_objects_a_kill_and_a_second_driver(web: Web, tmp_path: Path) -> None:
    world = build_world(web, objaverse=500, github=500, sketchfab=300)
    total = len(world.expected)
    assert total > 1000
    data = tmp_path / "data"
    first = start(world, data)
    wait_for(first, data, total // 4)
    second = start(world, data)
    _, errors = second.communicate(timeout=100)
    assert second.returncode == EXIT_MACHINE
    assert f"process {first.pid} on" in " ".join(errors.decode().split())
    wait_for(first, data, total // 3)
    first.send_signal(signal.SIGKILL)
    first.communicate()
    process = start(world, data)
    memory = Memory(process, data)
    said = finish(process)
    check(world, data)
    check_secret(tmp_path, said + errors.decode())
    # The merging of tables at the end is another matter.
    early, late = memory.most(total // 2, 5 * total // 8), memory.most(7 * total // 8, total - 1)
    assert late < early + 40


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MB, in memory."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(folder)]
    if os.geteuid() or subprocess.run(mount, check=False).returncode:
        pytest.skip("only root may mount a small disk")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def test_a_full_disk_ends_the_downloads_and_with_room_they_go_on(web: Web, tmp_path: Path, small_disk: Path) -> None:
    world = build_world(web, objaverse=40, github=150, sketchfab=40)
    data = small_disk / "data"
    process = start(world, data)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == EXIT_MACHINE, errors.decode()[-2000:]
    assert "No space left" in errors.decode()
    assert not Tables(Store(str(data))).rows(Rejected, "reason = 'machine_fault'")
    subprocess.run(["mount", "-o", "remount,size=50m", small_disk], check=True)
    finish(start(world, data))
    check(world, data)


def test_a_byte_budget_leaves_the_rest_to_do(web: Web, tmp_path: Path) -> None:
    world = build_world(web, objaverse=40, github=40, sketchfab=0)
    data = tmp_path / "data"
    sizes = [len(content) for path, content in web.files.items() if "/cdn/" in path]
    budget = 12 * sizes[0]
    for _ in range(2):  # the second time there is nothing left to spend
        said = finish(start(world, data, "--fetch.byte_budget", str(budget)))
        assert "byte budget is spent" in said
        tables = Tables(Store(str(data)))
        stored = sum(asset.num_bytes for asset in tables.rows(Asset))
        assert budget <= stored <= budget + 2 * sizes[0]
        assert len(tables.rows(SourceItem)) == len(world.expected)
        left = [name for name, entries in outcomes(data).items() if not entries]
        assert len(left) > 30
        assert f"{len(left)} inputs stay to do" in " ".join(said.split())
    (spent,) = (line for line in _events(data) if line["event"] == "byte_budget_spent")
    assert spent["num_bytes"] >= budget
    asked = web.asked.copy()
    finish(start(world, data, "--fetch.byte_budget", "10000000"))
    check(world, data)
    again = [path for path in asked if path.startswith("/cdn/") and web.asked[path] != asked[path]]
    assert again == []


def _events(data: Path) -> list[dict[str, object]]:
    first, *_ = sorted((data / "runs").iterdir())
    return [json.loads(line) for line in (first / "events.jsonl").read_text().splitlines()]
