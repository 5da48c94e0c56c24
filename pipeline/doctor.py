"""`mv4d doctor`: what this machine has, what is missing, and the command that installs it."""

import importlib.metadata
import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import psutil
from rich.console import Console
from rich.table import Table

from pipeline.cli import EXIT_FINDINGS, EXIT_OK, command_parser, parse

APT_LIBRARIES = (
    "libgl1 libegl1 libice6 libsm6 libx11-6 libxext6 libxfixes3 libxi6 libxkbcommon0 libxrender1 libxxf86vm1 libgomp1"
)


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing looked at."""

    what: str
    state: Literal["ok", "note", "missing"]
    found: str
    advice: str = ""


def examine(data: str, blender_python: str) -> Iterator[Finding]:
    """Look at everything a run needs, cheapest first."""
    version = ".".join(map(str, sys.version_info[:3]))
    yield Finding(
        what="Python",
        state="ok" if sys.version_info[:2] == (3, 11) else "note",
        found=version,
        advice="" if sys.version_info[:2] == (3, 11) else "Blender's wheel is for 3.11: pass --blender_python",
    )
    yield from _packages()
    yield from _blender(blender_python or sys.executable)
    yield from _machine(data)
    yield _sandbox()
    yield _gpu()
    yield _ray()
    yield _chromium()


def _packages() -> Iterator[Finding]:
    for package in ("numpy", "pyarrow", "duckdb", "webdataset", "mlcroissant"):
        if importlib.util.find_spec(package) is None:
            yield Finding(what=package, state="missing", found="not installed", advice="pip install 'mv4d[data]'")
        else:
            yield Finding(what=package, state="ok", found=importlib.metadata.version(package))


def _blender(python: str) -> Iterator[Finding]:
    script = "import bpy; print('mv4d', bpy.app.version_string)"
    try:
        done = subprocess.run([python, "-c", script], capture_output=True, text=True, timeout=120, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        yield Finding(what="Blender", state="missing", found=str(error), advice="check --blender_python")
        return
    last = (done.stdout.strip().splitlines() or [""])[-1]
    if done.returncode == 0 and last.startswith("mv4d "):
        yield Finding(what="Blender (bpy)", state="ok", found=last.removeprefix("mv4d "))
        return
    reason = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
    libraries = "cannot open shared object" in reason
    advice = f"sudo apt-get install -y {APT_LIBRARIES}" if libraries else "pip install bpy==4.5.15 (Python 3.11)"
    yield Finding(what="Blender (bpy)", state="missing", found=reason, advice=advice)


def _machine(data: str) -> Iterator[Finding]:
    memory_gb = psutil.virtual_memory().total / 2**30
    cores = os.cpu_count() or 1
    yield Finding(
        what="Cores and memory",
        state="ok" if memory_gb >= 2 * cores else "note",
        found=f"{cores} cores, {memory_gb:.0f} GB",
        advice="" if memory_gb >= 2 * cores else "a renderer takes 1 to 2 GB: use fewer --workers",
    )
    if "://" not in data:
        folder = os.path.abspath(data)
        while not os.path.isdir(folder):
            folder = os.path.dirname(folder)
        free_gb = shutil.disk_usage(folder).free / 2**30
        yield Finding(
            what="Disk for the data root",
            state="ok" if free_gb > 10 else "note",
            found=f"{free_gb:.0f} GB free in {folder}",
            advice="" if free_gb > 10 else "a 16-view clip of 256 px takes 2 to 4 MB",
        )


def _sandbox() -> Finding:
    try:
        with open("/sys/kernel/security/lsm", encoding="ascii") as file:
            has_landlock = "landlock" in file.read()
    except OSError:
        # securityfs is often not mounted in containers; the kernel's version is the next best witness.
        major, minor = (int(part) for part in os.uname().release.split(".")[:2])
        has_landlock = (major, minor) >= (5, 13)
    if has_landlock:
        return Finding(what="Sandbox (Landlock)", state="ok", found=f"kernel {os.uname().release}")
    return Finding(
        what="Sandbox (Landlock)",
        state="note",
        found=f"kernel {os.uname().release}",
        advice="Blender can read any file that you can: run untrusted assets in a container",
    )


def _gpu() -> Finding:
    if shutil.which("nvidia-smi") is None:
        return Finding(what="GPU", state="note", found="none", advice="Cycles renders on the CPU")
    query = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    names = subprocess.run(query, capture_output=True, text=True, check=False).stdout.split("\n")
    return Finding(
        what="GPU", state="note", found=", ".join(filter(None, names)), advice="rendering uses the CPU for now"
    )


def _ray() -> Finding:
    if importlib.util.find_spec("ray") is None:
        return Finding(what="Ray", state="note", found="not installed", advice="only for clusters: mv4d[cluster]")
    return Finding(what="Ray", state="ok", found=importlib.metadata.version("ray"))


def _chromium() -> Finding:
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if found:
        return Finding(what="Chromium (tests only)", state="ok", found=found)
    return Finding(what="Chromium (tests only)", state="note", found="none", advice="sudo apt-get install -y chromium")


def main(arguments: Sequence[str] | None = None) -> int:
    """`mv4d doctor`."""
    parser = command_parser(
        "doctor",
        "Check this machine for everything a run needs, and say what to install.",
        """mv4d doctor
        mv4d doctor --data /mnt/big/mv4d""",
    )
    parser.add_argument("--data", type=str, default="data", help="Data root whose disk to look at.")
    parser.add_argument("--blender_python", type=str, default="", help="Interpreter that has bpy; empty: this one.")
    options = parse(parser, arguments)
    table = Table(box=None, pad_edge=False)
    for column in ("", "what", "found", "what to do"):
        table.add_column(column, overflow="fold")
    marks = {"ok": "[green]ok[/]", "note": "[yellow]note[/]", "missing": "[red]missing[/]"}
    findings = list(examine(options.data, options.blender_python))
    for finding in findings:
        table.add_row(marks[finding.state], finding.what, finding.found, finding.advice)
    Console().print(table)
    return EXIT_FINDINGS if any(finding.state == "missing" for finding in findings) else EXIT_OK


if __name__ == "__main__":
    sys.exit(main())
