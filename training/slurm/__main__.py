"""`python -m training.slurm`: write the job of a training run, and submit it."""

import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from rich.console import Console

from pipeline.cli import EXIT_MACHINE, EXIT_OK, command_parser, parse, pick, usage_error

_TIME = re.compile(r"(\d+-)?\d+(:\d{1,2}){0,2}")


@dataclass(frozen=True, kw_only=True)
class Job:
    """What is asked of the cluster."""

    nodes: int = 1
    ranks: int = 1
    """Processes a node, one a GPU."""
    gpus: bool = True
    """Ask for as many GPUs a node as there are ranks; `false` trains on CPUs."""
    cpus: int = 0
    """Cores a rank, for the processes that read and decode; 0 is the cluster's default."""
    memory: str = ""
    """A node's, such as `200G`; empty is the cluster's default."""
    time: str = "24:00:00"
    """Limit of one stretch; the job is queued again when it is reached. As SLURM writes it: `minutes`, `h:mm:ss`,
    `days-h`."""
    save_s: int = 300
    """Seconds before the limit at which the run saves and stops; SLURM may be a minute early."""
    partition: str = ""
    account: str = ""
    qos: str = ""
    constraint: str = ""
    """Features that the nodes must have."""
    name: str = "mv4d-train"
    setup: str = ""
    """Shell commands to run first on the first node, such as `module load cuda`."""
    max_faults: int = 3
    """How often a run that fails, other than by wrong usage, is tried again."""

    def __post_init__(self) -> None:
        if self.nodes < 1 or self.ranks < 1 or self.cpus < 0 or self.save_s < 1 or self.max_faults < 0:
            raise ValueError("nodes, ranks and save_s must be at least 1, cpus and max_faults at least 0")
        if not _TIME.fullmatch(self.time):
            raise ValueError(f"time must be minutes, h:mm:ss or days-h, got {self.time!r}")
        if self.name in ("", "bash", "interactive"):
            raise ValueError(f"a job named {self.name!r} would be taken for an interactive one")
        for field in ("memory", "partition", "account", "qos", "constraint", "name"):
            if re.search(r"\s", getattr(self, field)):
                raise ValueError(f"{field} must not hold blanks, got {getattr(self, field)!r}")

    def options(self, folder: Path) -> dict[str, str]:
        """For sbatch, by name without dashes; those that are empty are left out."""
        options = {
            "job-name": self.name,
            "nodes": str(self.nodes),
            "ntasks-per-node": str(self.ranks),
            "gpus-per-node": str(self.ranks) if self.gpus else "",
            "cpus-per-task": str(self.cpus or ""),
            "mem": self.memory,
            "time": self.time,
            "signal": f"SIGUSR1@{self.save_s}",
            "partition": self.partition,
            "account": self.account,
            "qos": self.qos,
            "constraint": self.constraint,
            "output": f"{folder}/slurm-%j.log",
        }
        return {name: value for name, value in options.items() if value}


def job_script(job: Job, folder: Path, arguments: Sequence[str]) -> str:
    """`train.sbatch` with other options and a run's arguments.

    Args:
        job: What is asked of the cluster.
        folder: Of the run.
        arguments: Of `mv4d train`.
    """
    shipped = (files("training.slurm") / "train.sbatch").read_text()
    options = job.options(folder)
    lines = []
    for line in shipped.splitlines():
        match = re.match(r"#SBATCH --([a-z-]+)", line)
        if not match or match[1] not in options:
            lines.append(line)
    header = [f"#SBATCH --{name}={value}" for name, value in options.items()]
    settings = [
        f"MV4D_PYTHON={shlex.quote(sys.executable)}",
        f"MV4D_MAX_FAULTS={job.max_faults}",
        f"MV4D_FAULTS={shlex.quote(str(folder))}/slurm-faults-$SLURM_JOB_ID",
        f"set -- {shlex.join(arguments)}",
    ]
    if job.setup:
        settings.insert(0, job.setup)
    body = next(number for number, line in enumerate(lines) if not line.startswith("#"))
    return "\n".join([lines[0], *header, *lines[1:body], "", *settings, *lines[body:]]) + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """Write a job and submit it; returns the exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    cut = given.index("--") if "--" in given else len(given)
    parser = command_parser(
        "slurm",
        "Write the SLURM job of a training run into the run's folder, and submit it. Behind `--` stand the arguments "
        "of `mv4d train`. The job is queued again until the run is done; submit it anew with other --nodes to go on "
        "with more or fewer.",
        """python -m training.slurm --run runs/paper --nodes 4 --ranks 8 -- --config training/configs/paper.yaml
        python -m training.slurm --run runs/small --partition gpu --time 8:00:00 -- --config training/configs/small.yaml
        python -m training.slurm --run runs/small --dry_run -- --config training/configs/small.yaml""",
    )
    parser.add_argument("--run", type=str, required=True, help="Folder of the run, the same on all nodes.")
    parser.add_argument("--dry_run", action="store_true", help="Write the job and do not submit it.")
    parser.add_class_arguments(Job, None)
    namespace = parse(parser, given[:cut])
    job = pick(Job, namespace)
    if not given[cut + 1 :]:
        usage_error("what is to be trained? Give the arguments of `mv4d train` behind `--`")
    folder = Path(namespace.run).resolve()
    if re.search(r"\s", str(folder)):
        usage_error(f"SLURM cannot write its log into a folder with blanks: {folder}")
    folder.mkdir(parents=True, exist_ok=True)
    script = folder / "train.sbatch"
    script.write_text(job_script(job, folder, [*given[cut + 1 :], f"--trainer.default_root_dir={folder}"]))
    console = Console(highlight=False, soft_wrap=True)
    if namespace.dry_run:
        console.print(f"{script}: submit it with `sbatch {script}`")
        return EXIT_OK
    return _submit(script, console)


def _submit(script: Path, console: Console) -> int:
    if shutil.which("sbatch") is None:
        usage_error(f"there is no sbatch here: run `sbatch {script}` where there is")
    done = subprocess.run(["sbatch", "--parsable", str(script)], capture_output=True, text=True, check=False)
    if done.returncode:
        Console(stderr=True).print(f"[bold red]sbatch:[/] {done.stderr.strip()}", highlight=False)
        return EXIT_MACHINE
    number = done.stdout.strip().partition(";")[0]
    console.print(
        f"job {number}; its log is {script.parent}/slurm-{number}.log\n"
        f"  squeue --job {number}\n  scancel {number}    [dim]# stops it; it saves, and is not queued again[/]"
    )
    return EXIT_OK


if __name__ == "__main__":
    sys.exit(main())
