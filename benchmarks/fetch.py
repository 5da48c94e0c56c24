"""How fast does a collection come in, beside the downloader that was published with it?

A server of this machine's own gives Objaverse in its real layout: a file is asked for, and asked for again where the
first answer says; each answer takes 50 ms. `mv4d ingest objaverse` judges licences, downloads with 64 connections,
checks every file and stores it with its rows; `objaverse.load_objects` only downloads, with as many processes as there
are cores, which is what its guide says, and with 64. Then again with faults in 30 % of the files.
Usage: python -m benchmarks.fetch [files]
"""

import contextlib
import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from datetime import datetime
from multiprocessing.connection import Connection
from pathlib import Path

from benchmarks.measured import REPOSITORY, last_line, say
from pipeline.records import Asset, Rejected
from pipeline.storage import Store
from pipeline.tables import Tables
from tests.ingest.sources.collections_web import about, serve_objaverse
from tests.ingest.web import serve

LATENCY_S = 0.05
CONNECTIONS = 64
FILE_BYTES = 100_000
FAULTS = ("503x1", "cutx1", "dropx1", "429x1", "404", "html")
"""One of them for each third file or so; the last two never end."""
RESOLVE = "/datasets/allenai/objaverse/resolve/main"
OBJAVERSE = """
import multiprocessing, sys, time, urllib.request
import objaverse
base, folder, processes = sys.argv[1:]
objaverse._VERSIONED_PATH = folder
retrieve = urllib.request.urlretrieve
urllib.request.urlretrieve = lambda url, path: retrieve(url.replace("https://huggingface.co", base), path)
started = time.monotonic()
try:
    objaverse.load_objects(objaverse.load_uids(), download_processes=int(processes))
finally:
    print("seconds", time.monotonic() - started)
"""
INGEST = """
import sys, time
from ingest.__main__ import main
started = time.monotonic()
main(sys.argv[1:])
print("seconds", time.monotonic() - started)
"""


@contextlib.contextmanager
def server(num_files: int, *, with_faults: bool) -> Iterator[str]:
    """The URL of a server in a process of its own."""
    spawn = multiprocessing.get_context("spawn")
    ours, its = spawn.Pipe()
    process = spawn.Process(target=_serve, args=(its, num_files, with_faults), daemon=True)
    process.start()
    yield str(ours.recv())
    process.terminate()
    process.join()


def _serve(connection: Connection, num_files: int, with_faults: bool) -> None:
    with serve() as web:
        objects = [about(2 * number + 1) for number in range(num_files)]
        serve_objaverse(web, objects, per_folder=num_files, num_bytes=FILE_BYTES, redirect=True)
        if with_faults:
            # Every third and then some: 3 of 10.
            unlucky = [metadata for place, metadata in enumerate(objects) if place % 10 in (3, 6, 9)]
            for place, metadata in enumerate(unlucky):
                web.faults[f"/cdn/{metadata['uid']}"] = FAULTS[place % len(FAULTS)]
        web.latency_s = LATENCY_S
        connection.send(web.url)
        with contextlib.suppress(EOFError):
            connection.recv()


def ours(url: str, folder: Path) -> tuple[float, float, Counter[str]]:
    """Seconds of the whole command, seconds of the downloads in it, and what became of the files."""
    done = _run(
        INGEST, "objaverse", "--data", f"{folder}/data", "--sites.objaverse", url + RESOLVE, "--quiet", "true",
        "--fetch.private_hosts", url.removeprefix("http://"), "--fetch.connections", str(CONNECTIONS),
        "--fetch.per_host", str(CONNECTIONS), "--fetch.first_wait_s", "0.2", XDG_CACHE_HOME=f"{folder}/cache",
    )  # fmt: skip
    tables = Tables(Store(f"{folder}/data"))
    outcomes = Counter(row.reason for row in tables.rows(Rejected))
    outcomes["stored"] = len(tables.rows(Asset))
    (events,) = (folder / "data" / "runs").glob("*/events.jsonl")
    done_at = [datetime.fromisoformat(json.loads(line)["time"]) for line in events.read_text().splitlines()]
    return _seconds(done), (done_at[-1] - done_at[0]).total_seconds(), outcomes


def theirs(url: str, folder: Path, processes: int) -> tuple[float, int, str]:
    """Seconds, files that came, and the error it ended with, if any."""
    done = _run(OBJAVERSE, url, f"{folder}/objaverse", str(processes))
    num_files = len(list((folder / "objaverse" / "glbs").glob("*/*.glb")))
    return _seconds(done), num_files, "" if done.returncode == 0 else done.stderr.strip().splitlines()[-1]


def _run(script: str, *arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    everything = {**os.environ, "NO_PROXY": "127.0.0.1", "PYTHONPATH": str(REPOSITORY), **environment}
    command = [sys.executable, "-c", script, *arguments]
    return subprocess.run(command, env=everything, cwd=REPOSITORY, capture_output=True, text=True, check=False)


def _seconds(done: "subprocess.CompletedProcess[str]") -> float:
    if not done.stdout.rpartition("seconds ")[1]:
        raise RuntimeError(done.stderr[-2000:])
    return float(done.stdout.rpartition("seconds ")[2])


def main(num_files: int) -> None:
    cores = os.cpu_count() or 1
    with tempfile.TemporaryDirectory(prefix="mv4d-bench-") as scratch, server(num_files, with_faults=False) as url:
        whole_s, downloads_s, outcomes = ours(url, Path(scratch))
        say(f"mv4d ingest, {CONNECTIONS} connections: {num_files / whole_s:.1f} files/s with listing and tables, "
            f"{num_files / downloads_s:.1f} while it downloads; {dict(outcomes)}")  # fmt: skip
        assert outcomes == {"stored": num_files}
        rates = {}
        for processes in (cores, CONNECTIONS):
            seconds, num_came, error = theirs(url, Path(scratch) / str(processes), processes)
            rates[processes] = num_came / seconds
            say(f"objaverse, {processes} processes: {rates[processes]:.1f} files/s; {num_came} came {error}")
            assert num_came == num_files
    with tempfile.TemporaryDirectory(prefix="mv4d-bench-") as scratch, server(num_files, with_faults=True) as url:
        seconds, _, outcomes = ours(url, Path(scratch))
        say(f"with faults, mv4d ingest: {seconds:.0f} s, {dict(outcomes)}")
        assert outcomes.total() == num_files
        _, num_came, error = theirs(url, Path(scratch), cores)
        say(f"with faults, objaverse, {cores} processes: {num_came} of {num_files} came, then {error!r}")
    last_line(
        name="fetch",
        value=num_files / downloads_s / rates[cores],
        unit="times the files per second of the objaverse package, while downloading",
        baseline=f"{num_files} files of 0.1 MB in two answers of {1000 * LATENCY_S:.0f} ms: {cores} processes "
        f"{rates[cores]:.1f}/s, {CONNECTIONS} processes {rates[CONNECTIONS]:.1f}/s; with faults {num_came} came. "
        f"mv4d with listing and tables: {num_files / whole_s / rates[cores]:.2f} times",
        goal=">= 5, and every file accounted for in spite of faults",
    )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 500)
