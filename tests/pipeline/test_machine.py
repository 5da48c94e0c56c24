from pathlib import Path

import psutil
import pytest

from pipeline import machine


@pytest.fixture
def cgroups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty tree of control groups that stands for the kernel's; the machine itself has 32 GB, half of it free."""
    memory = psutil.virtual_memory()._replace(total=32768 << 20, available=16384 << 20)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: memory)
    monkeypatch.setattr(machine, "CGROUPS", tmp_path / "cgroup")
    monkeypatch.setattr(machine, "OWN_CGROUPS", tmp_path / "own")
    return tmp_path


def group(folder: Path, names: tuple[str, str], limit: str, used_mb: int, cache: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / names[0]).write_text(f"{limit}\n")
    (folder / names[1]).write_text(f"{used_mb << 20}\n")
    (folder / "memory.stat").write_text(f"anon 5\n{cache}\n")


V1 = ("memory.limit_in_bytes", "memory.usage_in_bytes")
V2 = ("memory.max", "memory.current")


def test_without_control_groups_it_is_the_machines(cgroups: Path) -> None:
    assert (machine.total_memory_mb(), machine.free_memory_mb()) == (32768, 16384)


def test_a_batch_job_gets_its_own_limit_and_those_above_it(cgroups: Path) -> None:
    (cgroups / "own").write_text("0::/slurm/job7/step0\n")
    group(cgroups / "cgroup/slurm/job7/step0", V2, "max", 100, "inactive_file 0")
    group(cgroups / "cgroup/slurm/job7", V2, str(4096 << 20), 1024, f"inactive_file {512 << 20}")
    group(cgroups / "cgroup/slurm", V2, str(65536 << 20), 1024, "inactive_file 0")
    assert machine.total_memory_mb() == 4096
    assert machine.free_memory_mb() == 4096 - 1024 + 512


def test_inside_a_container_its_group_is_the_root(cgroups: Path) -> None:
    (cgroups / "own").write_text("4:memory:/docker/abc\n0::/\n")
    group(cgroups / "cgroup/memory", V1, str(2048 << 20), 3000, "total_inactive_file 0")
    assert machine.total_memory_mb() == 2048
    assert machine.free_memory_mb() == 0


def test_no_limit_is_no_limit(cgroups: Path) -> None:
    (cgroups / "own").write_text("4:memory:/\n0::/\n")
    group(cgroups / "cgroup/memory", V1, str(2**63 - 4096), 3000, "total_inactive_file 0")
    group(cgroups / "cgroup", V2, "max", 100, "inactive_file 0")
    assert (machine.total_memory_mb(), machine.free_memory_mb()) == (32768, 16384)
