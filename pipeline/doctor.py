"""`mv4d doctor`: what this machine has, what is missing, and the command that installs it."""

import importlib.metadata
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import psutil
from rich.console import Console
from rich.table import Table

from pipeline.cli import EXIT_FINDINGS, EXIT_OK, command_parser, parse

ROOT = Path(__file__).resolve().parent.parent
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


def examine(data: str, blender_python: str, device: str) -> Iterator[Finding]:
    """Look at everything a run needs, cheapest first."""
    version = ".".join(map(str, sys.version_info[:3]))
    yield Finding(
        what="Python",
        state="ok" if sys.version_info[:2] == (3, 11) else "note",
        found=version,
        advice="" if sys.version_info[:2] == (3, 11) else "Blender's wheel is for 3.11: pass --blender_python",
    )
    yield from _packages()
    yield from _rendering(blender_python, device)
    yield from _second_blender()
    yield from _machine(data)
    yield _ray()
    yield _chromium()


def _packages() -> Iterator[Finding]:
    for package in ("numpy", "pyarrow", "duckdb", "webdataset", "mlcroissant"):
        if importlib.util.find_spec(package) is None:
            yield Finding(what=package, state="missing", found="not installed", advice="pip install 'mv4d[data]'")
        else:
            yield Finding(what=package, state="ok", found=importlib.metadata.version(package))


def _rendering(python: str, device: str) -> Iterator[Finding]:
    """What the render stage finds when it starts Blender in its sandbox, as it would for a run."""
    command = [sys.executable, "-m", "render.preflight", "--blender_python", python, "--device", device]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=1200, check=False)
        report = json.loads(done.stdout)
    except (OSError, subprocess.TimeoutExpired, ValueError) as error:
        yield Finding(what="Blender", state="missing", found=str(error), advice="check --blender_python")
        return
    yield _blender(report, python or sys.executable)
    yield _sandbox(report)
    if report["blender_version"] and not report["problem"]:
        yield _cycles(report)
        yield _eevee(report)


def _blender(report: dict[str, Any], python: str) -> Finding:
    if report["blender_version"] and not report["problem"]:
        found = f"{report['blender_version']} with Python {report['python_version']}, {python}"
        return Finding(what="Blender (bpy)", state="ok", found=found)
    libraries = "cannot open shared object" in report["problem"]
    advice = f"sudo apt-get install -y {APT_LIBRARIES}" if libraries else "pip install bpy==4.5.15 (Python 3.11)"
    return Finding(what="Blender (bpy)", state="missing", found=report["problem"], advice=advice)


def _sandbox(report: dict[str, Any]) -> Finding:
    kernel = f"kernel {os.uname().release}"
    if not report["blender_version"]:
        return Finding(what="Sandbox", state="note", found=f"{kernel}; not tried, as Blender does not start")
    if not report["sandbox_lacks"]:
        return Finding(what="Sandbox", state="ok", found=f"Landlock, seccomp and no capabilities, {kernel}")
    return Finding(
        what="Sandbox",
        state="note",
        found=f"without {', '.join(report['sandbox_lacks'])}, {kernel}",
        advice="files from strangers reach more than they should: use Linux 6.2 or newer, or a container",
    )


def _cycles(report: dict[str, Any]) -> Finding:
    what = "Cycles draws on"
    if not report["device"]:
        return Finding(what=what, state="missing", found="nothing", advice=report["why"])
    others = [gpu for gpu in report["gpus"] if gpu != report["device"]]
    found = f"{report['device']}: {report['why']}"
    if report["device"] == "CPU" and (report["gpu_files"] or others):
        return Finding(what=what, state="note", found=found, advice="mend the GPU's driver, or pass --device cpu")
    return Finding(what=what, state="ok", found=found)


def _eevee(report: dict[str, Any]) -> Finding:
    if not report["gl_problem"]:
        return Finding(what="EEVEE draws on", state="ok", found=report["gl"])
    return Finding(
        what="EEVEE draws on",
        state="note",
        found=f"nothing: OpenGL is {report['gl']}, no GPU's",
        advice="only --look.engine eevee needs it: a GPU, its driver and libEGL",
    )


def _second_blender() -> Iterator[Finding]:
    """Of `make venv-bpy5`, for the tests that compare two versions."""
    python = os.environ.get("MV4D_BPY5_PYTHON") or str(ROOT / ".venv-bpy5" / "bin" / "python")
    if os.access(python, os.X_OK):
        script = "import bpy; print('mv4d', bpy.app.version_string)"
        done = subprocess.run([python, "-c", script], capture_output=True, text=True, timeout=120, check=False)
        last = (done.stdout.strip().splitlines() or [""])[-1]
        works = done.returncode == 0 and last.startswith("mv4d ")
        found = f"{last.removeprefix('mv4d ')}, {python}" if works else f"{python} has no bpy that works"
        advice = "" if works else "make venv-bpy5"
        yield Finding(what="Blender 5 (tests only)", state="ok" if works else "note", found=found, advice=advice)


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
    parser.add_argument(
        "--device", type=str, default="auto", help="What Cycles should draw on, as in --blender.device."
    )
    options = parse(parser, arguments)
    table = Table(box=None, pad_edge=False)
    for column in ("", "what", "found", "what to do"):
        table.add_column(column, overflow="fold")
    marks = {"ok": "[green]ok[/]", "note": "[yellow]note[/]", "missing": "[red]missing[/]"}
    findings = list(examine(options.data, options.blender_python, options.device))
    for finding in findings:
        table.add_row(marks[finding.state], finding.what, finding.found, finding.advice)
    Console().print(table)
    return EXIT_FINDINGS if any(finding.state == "missing" for finding in findings) else EXIT_OK


if __name__ == "__main__":
    sys.exit(main())
