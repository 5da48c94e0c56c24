"""A real SLURM on this machine: one controller and several nodes, each a daemon of its own."""

import contextlib
import getpass
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

PROGRAMS = ("slurmctld", "slurmd", "munged", "sbatch")
PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
FINAL = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY")

# A requeued job waits for the life of a credential and a second more: 121 s by default.
CONFIGURATION = """\
ClusterName=mv4d
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool/%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
MpiDefault=none
ReturnToService=2
KillWait=5
JobRequeue=1
SlurmdParameters=config_overrides
SchedulerParameters=batch_sched_delay=0,sched_min_interval=0,sched_interval=2
{nodes}
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


def missing_programs() -> list[str]:
    """What SLURM lacks on this machine."""
    return [name for name in PROGRAMS if shutil.which(name, path=PATH) is None]


@dataclass
class Slurm:
    """A running cluster. Its commands work with `environment`."""

    folder: Path
    nodes: tuple[str, ...]
    environment: dict[str, str]
    daemons: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def run(self, *command: str, check: bool = True) -> str:
        """What one of SLURM's commands says."""
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0 or not check, f"{command}: {done.stdout}{done.stderr}{self.logs()}"
        return done.stdout.strip()

    def state(self, job: str) -> str:
        """Of a job: PENDING, RUNNING, COMPLETED, …"""
        return self.of_job(job)["JobState"]

    def of_job(self, job: str) -> dict[str, str]:
        """What the controller knows of a job."""
        words = self.run("scontrol", "show", "job", "-o", job).split()
        return dict(word.split("=", 1) for word in words if "=" in word)

    def wait_for(self, job: str, states: Sequence[str] = FINAL, *, timeout_s: float = 900) -> str:
        """The state of a job as soon as it is one of some."""
        deadline = time.monotonic() + timeout_s
        while (state := self.state(job)) not in states:
            assert time.monotonic() < deadline, f"job {job} is {state}\n{self.logs()}"
            time.sleep(0.3)
        return state

    def logs(self) -> str:
        """The ends of all logs."""
        return "".join(
            f"\n== {path.name}\n{path.read_text(errors='replace')[-1500:]}"
            for path in sorted(self.folder.glob("*.log"))
        )


@contextlib.contextmanager
def slurm(num_nodes: int = 2, cpus: int = 2) -> Iterator[Slurm]:
    """A cluster for as long as the block lasts."""
    # Sockets have short names only, and munge wants its folders to be nobody else's.
    with tempfile.TemporaryDirectory(prefix="mv4d-slurm-") as name:
        folder = Path(name)
        nodes = tuple(f"n{number + 1}" for number in range(num_nodes))
        for part in ("state", "spool"):
            (folder / part).mkdir()
        cluster = Slurm(
            folder=folder,
            nodes=nodes,
            environment={**os.environ, "PATH": PATH, "SLURM_CONF": str(folder / "slurm.conf")},
        )
        _configure(folder, nodes, cpus)
        try:
            _start(cluster)
            yield cluster
        finally:
            _stop(cluster)


def _configure(folder: Path, nodes: Sequence[str], cpus: int) -> None:
    host = socket.gethostname()
    ports = _free_ports(len(nodes) + 1)
    lines = [
        f"NodeName={node} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs={cpus} RealMemory=8000"
        for node, port in zip(nodes, ports[1:], strict=True)
    ]
    (folder / "slurm.conf").write_text(
        CONFIGURATION.format(host=host, port=ports[0], user=getpass.getuser(), folder=folder, nodes="\n".join(lines))
    )
    key = folder / "munge.key"
    key.write_bytes(os.urandom(64))
    key.chmod(0o400)


def _start(cluster: Slurm) -> None:
    folder = cluster.folder
    munge = ["--foreground", "--force", "--num-threads=2", f"--key-file={folder}/munge.key"]
    munge += [f"--{what}={folder}/munge.{end}" for what, end in (("socket", "socket"), ("pid-file", "pid"))]
    munge += [f"--seed-file={folder}/munge.seed", f"--log-file={folder}/munge.log"]
    _daemon(cluster, "munged", *munge)
    _until(cluster, (folder / "munge.socket").exists, "munge")
    _daemon(cluster, "slurmctld", "-D", "-c", "-f", str(folder / "slurm.conf"))
    for node in cluster.nodes:
        _daemon(cluster, "slurmd", "-D", "-N", node, "-f", str(folder / "slurm.conf"))

    def all_idle() -> bool:
        states = cluster.run("sinfo", "--noheader", "--Node", "--format=%T", check=False).split()
        return states == ["idle"] * len(cluster.nodes)

    _until(cluster, all_idle, "all nodes to be idle")


def _daemon(cluster: Slurm, program: str, *options: str) -> None:
    path = shutil.which(program, path=PATH)
    assert path
    with (cluster.folder / f"{program}-{len(cluster.daemons)}.out.log").open("wb") as out:
        cluster.daemons.append(
            subprocess.Popen([path, *options], env=cluster.environment, stdout=out, stderr=subprocess.STDOUT)
        )


def _until(cluster: Slurm, true: Callable[[], bool], what: str, timeout_s: float = 60) -> None:
    deadline = time.monotonic() + timeout_s
    while not true():
        assert time.monotonic() < deadline, f"waited for {what}\n{cluster.logs()}"
        time.sleep(0.1)


def _stop(cluster: Slurm) -> None:
    with contextlib.suppress(AssertionError, subprocess.TimeoutExpired):
        cluster.run("scancel", "--full", f"--user={getpass.getuser()}", check=False)
        _until(cluster, lambda: not cluster.run("squeue", "--noheader", check=False), "jobs to end", timeout_s=20)
    for daemon in reversed(cluster.daemons):
        daemon.terminate()
    for daemon in cluster.daemons:
        try:
            daemon.wait(timeout=10)
        except subprocess.TimeoutExpired:
            daemon.kill()
            daemon.wait()


def _free_ports(number: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(number)]
        for listener in sockets:
            listener.bind(("127.0.0.1", 0))
        return [int(listener.getsockname()[1]) for listener in sockets]
