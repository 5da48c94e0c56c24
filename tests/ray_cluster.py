"""A real Ray cluster of two nodes on this machine, one of which may be killed and replaced."""

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.conftest import REPOSITORY

BIN = Path(sys.executable).parent
ENVIRONMENT = {
    **os.environ,
    "RAY_USAGE_STATS_ENABLED": "0",
    "OMP_NUM_THREADS": "1",
    "RAY_AUTH_MODE": "token",
    "RAY_AUTH_TOKEN": uuid.uuid4().hex,
}


@dataclass
class Cluster:
    """A head with one core and a second node with two."""

    port: int
    dashboard: str
    temp: Path
    head: subprocess.Popen[bytes]
    second: subprocess.Popen[bytes]

    @property
    def address(self) -> str:
        """For other nodes."""
        return f"127.0.0.1:{self.port}"

    def submit(self, *command: str, timeout_s: float = 500) -> str:
        """Run a module as a job that must succeed; gives what it said."""
        for _ in range(20):
            done = subprocess.run(
                self.submission(*command),
                cwd=REPOSITORY, env=ENVIRONMENT, capture_output=True, text=True, timeout=timeout_s, check=False,
            )  # fmt: skip
            if "No available agent to submit job" not in done.stdout + done.stderr:
                break
            time.sleep(3.0)  # a node's agent comes up after the node
        assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
        return done.stdout

    def submission(self, *command: str, runtime_env: str = "{}") -> list[str]:
        """The command line that runs a module as a job and waits for it."""
        submit = [str(BIN / "ray"), "job", "submit", "--address", self.dashboard, "--working-dir", "."]
        return [*submit, "--runtime-env-json", runtime_env, "--", sys.executable, "-m", *command]

    def workers(self) -> list[int]:
        """Process ids of our actors on both nodes."""
        raylets = self._raylets(f"{self.temp}")
        listed = psutil.process_iter(["cmdline", "ppid"])
        return [
            process.pid
            for process in listed
            if process.info["ppid"] in raylets and "_RayWorker" in " ".join(process.info["cmdline"] or [])
        ]

    def kill_second(self) -> None:
        """All processes of the second node at once, as if its power went."""
        for raylet in self._raylets(f"{self.temp}-2/"):
            with contextlib.suppress(psutil.NoSuchProcess):
                for process in [*psutil.Process(raylet).children(recursive=True), psutil.Process(raylet)]:
                    with contextlib.suppress(psutil.NoSuchProcess):
                        process.kill()
        self.second.kill()
        self.second.wait(timeout=30)

    def _raylets(self, folder: str) -> list[int]:
        """Ray's own process on each node whose files lie in the folder."""
        found = []
        for process in psutil.process_iter(["cmdline"]):
            command = process.info["cmdline"] or []
            if command and command[0].endswith("/raylet") and folder in " ".join(command):
                found.append(int(process.pid))
        return found

    def start_second(self) -> None:
        """Another second node, after the last was killed."""
        self.second = _second_node(self.port, self.temp)


@contextlib.contextmanager
def two_nodes() -> Iterator[Cluster]:
    """A cluster for as long as the block lasts."""
    # Sockets have short names only: pytest's own folders are too deep.
    temp = Path(f"/tmp/mv4d-ray-{os.getpid()}-{uuid.uuid4().hex[:4]}")
    port, dashboard = free_port(), free_port()
    head = start_node(
        "--head", f"--port={port}", f"--dashboard-port={dashboard}", "--dashboard-host=127.0.0.1", "--num-cpus=1",
        f"--temp-dir={temp}", "--object-store-memory=100000000",
    )  # fmt: skip
    cluster = Cluster(port, f"http://127.0.0.1:{dashboard}", temp, head, _second_node(port, temp))
    try:
        yield cluster
    finally:
        for node in (cluster.second, head):
            node.terminate()
        for node in (cluster.second, head):
            try:
                node.wait(timeout=30)
            except subprocess.TimeoutExpired:
                node.kill()
        for folder in (temp, Path(f"{temp}-2")):
            shutil.rmtree(folder, ignore_errors=True)


def _second_node(port: int, temp: Path) -> subprocess.Popen[bytes]:
    # Nodes of one machine would share the unpacked working directory, and one would delete it under the other's job.
    return start_node(
        f"--address=127.0.0.1:{port}", "--num-cpus=2", "--object-store-memory=100000000", f"--temp-dir={temp}-2"
    )


def start_node(*arguments: str) -> subprocess.Popen[bytes]:
    """`ray start`, in the foreground of a process of its own; returns once the node is up.

    On a busy machine a node may not be up within the half minute that Ray grants it, and ends: it is tried again.
    """
    for _ in range(4):
        node = subprocess.Popen(
            [BIN / "ray", "start", "--block", "--node-ip-address", "127.0.0.1", *arguments],
            env={**ENVIRONMENT, "PYTHONUNBUFFERED": "1"}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        assert node.stdout
        said = b""
        for line in node.stdout:
            said += line
            if b"Ray runtime started" in line:
                threading.Thread(target=node.stdout.read, daemon=True).start()  # so that it never waits for a reader
                return node
        node.wait()
    raise TimeoutError(said.decode()[-2000:])


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
