import json
import os
import platform
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.storage import Store
from render import sandbox
from render.protocol import BadAsset
from render.supervisor import BlenderChild, BlenderSettings, BlenderUnavailable
from tests.render.test_supervisor import HERE, asset

LAUNCH = [sys.executable, "-m", "render.sandbox"]


def missing_here() -> list[str]:
    """What this machine's kernel does not offer."""
    done = subprocess.run(
        [*LAUNCH, "--read", str(HERE), "--", "json"], capture_output=True, text=True, cwd=HERE.parents[1], check=False
    )
    return list(json.loads(done.stdout.splitlines()[0])["missing"])


needs_kernel = pytest.mark.skipif(bool(missing_here()), reason=f"this kernel does not offer {missing_here()}")


@pytest.fixture
def jailed() -> Iterator[BlenderChild]:
    settings = BlenderSettings(sandbox="require")
    child = BlenderChild(settings, module="fake_child", readable=(HERE,))
    yield child
    child.close()


def outcomes(child: BlenderChild, store: Store, what: dict[str, Any]) -> dict[str, str]:
    """What a hostile asset gets for each of the things that it tries."""
    with pytest.raises(BadAsset) as caught:
        child.load(asset(store, "try", what=what), store)
    found: dict[str, str] = json.loads(caught.value.detail)
    return found


@needs_kernel
def test_the_child_reads_its_inbox_and_nothing_else_of_ours(jailed: BlenderChild, store: Store, tmp_path: Path) -> None:
    scratch = jailed.out.parent
    (tmp_path / "secret").write_text("x")
    (scratch / "beside").write_text("x")
    (scratch / "inbox" / "link").symlink_to("/etc/passwd")
    what = {
        "read passwd": "/etc/passwd",
        "read through proc": "/proc/self/root/etc/passwd",
        "read the parent": f"/proc/{os.getpid()}/environ",
        "read a file of the user": str(tmp_path / "secret"),
        "read beside the inbox": str(scratch / "beside"),
        "read the log": str(scratch / "log"),
        "read another blob": store.path("blobs"),
        "list home": str(Path.home()),
        "list the root": "/",
        "list the repository": str(HERE.parents[1]),
        "read the interpreter": os.path.realpath(sys.executable),
        "read the cpu": "/proc/cpuinfo",
        "list the inbox": str(scratch / "inbox"),
    }
    found = outcomes(jailed, store, what)
    allowed = {"read the interpreter", "read the cpu", "list the inbox"}
    assert found == {name: "done" if name in allowed else "PermissionError" for name in what}


@needs_kernel
def test_a_link_in_the_inbox_leads_nowhere(jailed: BlenderChild, store: Store) -> None:
    inside = jailed.out.parent / "home" / "link"
    inside.symlink_to("/etc/passwd")
    assert outcomes(jailed, store, {"read": str(inside)}) == {"read": "PermissionError"}


@needs_kernel
def test_the_child_writes_only_into_its_own_folders(jailed: BlenderChild, store: Store, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    victim.chmod(0o600)
    scratch = jailed.out.parent
    what = {
        "write outside": str(tmp_path / "new"),
        "write over": str(victim),
        "truncate": str(victim),
        "chmod": str(victim),
        "unlink": str(victim),
        "link": str(victim),
        "symlink": "/etc/passwd",
        "write into the inbox": str(scratch / "inbox" / "new"),
        "write into the package": str(HERE / "new"),
        "write out": str(scratch / "out" / "new"),
        "write home": str(scratch / "home" / "new"),
    }
    found = outcomes(jailed, store, what)
    allowed = {"write out", "write home"}
    assert {name for name, outcome in found.items() if outcome == "done"} == allowed
    assert victim.read_text() == "precious"
    assert victim.stat().st_mode & 0o777 == 0o600


@needs_kernel
def test_the_child_reaches_no_network_and_no_other_process(jailed: BlenderChild, store: Store, tmp_path: Path) -> None:
    _, pid = jailed.out, jailed.pid
    with socket.create_server(("127.0.0.1", 0)) as tcp, socket.socket(socket.AF_UNIX) as unix:
        unix.bind(str(tmp_path / "s"))
        unix.listen()
        what = {
            "connect": tcp.getsockname()[1],
            "unix": str(tmp_path / "s"),
            "udp": 0,
            "run": ["/bin/true"],
            "kill the parent": os.getpid(),
            "kill itself": pid,
        }
        found = outcomes(jailed, store, what)
    assert found == {name: "done" if name == "kill itself" else "PermissionError" for name in what}


@needs_kernel
@pytest.mark.skipif(platform.machine() != "x86_64", reason="numbers of x86_64")
def test_there_is_no_back_door_past_the_filter(jailed: BlenderChild, store: Store) -> None:
    what = {
        "syscall socket": [41, 2, 1, 0],
        "syscall socket by its x32 number": [0x40000000 + 41, 2, 1, 0],
        "syscall io_uring_setup": [425, 8, 0],
        "syscall ptrace": [101, 16, os.getpid(), 0, 0],
        "syscall unshare": [272, 0x10000000],
        "syscall pidfd_send_signal": [424, 0, 0, 0, 0],
        "syscall fork": [57],
        "syscall vfork": [58],
        "syscall clone without a thread": [56, 17, 0, 0, 0, 0],
        "syscall memfd_create": [319, 0, 0],
        "syscall shmget": [29, 0, 4096, 0o1600],
        "syscall prctl: outlive the parent": [157, 1, 0, 0, 0, 0],
        "syscall fcntl: whom to signal": [72, 0, 8, os.getpid()],
        "syscall prlimit of the parent": [302, os.getpid(), 0, 0, 0],
        "syscall setpriority": [141, 0, os.getpid(), 19],
        "syscall sched_setaffinity of the parent": [203, os.getpid(), 8, 0],
    }
    assert set(outcomes(jailed, store, what).values()) <= {"Permission denied", "Operation not permitted"}
    what = {"thread": None, "syscall prlimit of itself": [302, 0, 0, 0, 0], "syscall getppid": [110]}
    assert set(outcomes(jailed, store, what).values()) == {"done"}


def test_without_the_sandbox_all_this_would_work(store: Store) -> None:
    child = BlenderChild(BlenderSettings(sandbox="off"), module="fake_child", readable=(HERE,))
    what = {"read passwd": "/etc/passwd", "udp": 0, "run": ["/bin/true"], "kill the parent": os.getpid()}
    found = outcomes(child, store, what)
    child.close()
    assert set(found.values()) == {"done"}


def run_filter(program: bytes, machine: int, number: int, *arguments: int) -> int:
    """What a classic BPF program answers: a plain twin of the kernel's machine."""
    data = struct.pack("iIQ6Q", number, machine, 0, *arguments, *(0,) * (6 - len(arguments)))
    at, accumulator = 0, 0
    while True:
        code, if_true, if_false, value = struct.unpack_from("HBBI", program, 8 * at)
        at += 1
        if code == 0x20:
            accumulator = struct.unpack_from("I", data, value)[0]
        elif code == 0x06:
            return int(value)
        else:
            holds = {0x15: accumulator == value, 0x35: accumulator >= value, 0x45: bool(accumulator & value)}[code]
            at += if_true if holds else if_false


ALLOW = 0x7FFF0000


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_the_filter_forbids_what_it_lists_and_nothing_else(machine: str) -> None:
    program, arch = sandbox.filter_program(machine, 77), sandbox.AUDIT_ARCH[machine]
    refused = {*sandbox.FORBIDDEN[machine].values(), *sandbox.TO_ITSELF_ONLY[machine].values()}
    refused |= {*sandbox.OF_ITSELF_ONLY[machine].values(), sandbox.CLONE[machine], sandbox.CLONE3[machine]}
    for number in range(500):
        assert (run_filter(program, arch, number, 5, 5) != ALLOW) == (number in refused), number
    assert run_filter(program, 0x40000003, 1) != ALLOW  # a 32-bit call


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_some_calls_are_judged_by_their_arguments(machine: str) -> None:
    program, arch = sandbox.filter_program(machine, 77), sandbox.AUDIT_ARCH[machine]

    def allowed(number: int, *arguments: int) -> bool:
        return run_filter(program, arch, number, *arguments) == ALLOW

    for number in sandbox.TO_ITSELF_ONLY[machine].values():
        assert [allowed(number, pid) for pid in (77, 78, 0)] == [True, False, False]
    for number in sandbox.OF_ITSELF_ONLY[machine].values():
        assert [allowed(number, pid) for pid in (77, 78, 0)] == [True, False, True]
    (fcntl, _, owners), (prctl, _, _) = sandbox.NEVER_WITH[machine]
    assert [allowed(fcntl, 1, command) for command in (2, *owners, 1030)] == [True, *[False] * len(owners), True]
    assert [allowed(prctl, option) for option in (1, 15)] == [False, True]
    threads, vfork = 0x3D0F00, 0x4111
    assert [allowed(sandbox.CLONE[machine], flags) for flags in (threads, vfork, 17)] == [True, False, False]
    assert run_filter(program, arch, sandbox.CLONE3[machine]) & 0xFFFF == 38


def test_what_is_missing_is_named_and_may_be_required(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "_landlock", lambda libc, *paths: False)
    monkeypatch.setattr(sandbox, "_drop_capabilities", lambda libc, number: True)
    monkeypatch.setattr(sandbox, "_seccomp", lambda libc, program: True)
    monkeypatch.setattr(sandbox, "_call", lambda function, *arguments: 0)
    monkeypatch.setattr(sandbox, "limit_resources", lambda data_mb: None)  # of this process it would be for good
    assert sandbox.restrict("best", [], [], []) == ["landlock"]
    assert sandbox.restrict("off", [], [], []) == []
    monkeypatch.setattr(sys, "argv", ["sandbox", "--mode", "require", "--", "json"])
    with pytest.raises(SystemExit) as caught:
        sandbox.main()
    assert caught.value.code == sandbox.EXIT_REFUSED


def test_a_refusal_is_a_fault_of_the_machine(tmp_path: Path) -> None:
    (tmp_path / "refused.py").write_text(
        f"import sys\nprint('sandbox: this kernel does not offer landlock', file=sys.stderr)\nsys.exit({78})\n"
    )
    child = BlenderChild(BlenderSettings(), module="refused", readable=(tmp_path,))
    with pytest.raises(BlenderUnavailable, match="does not offer landlock"):
        child.memory_mb() or child.out


RENDER = """
import bpy, sys
bpy.ops.wm.read_factory_settings(use_empty=False)
scene = bpy.context.scene
scene.render.engine, scene.cycles.samples, scene.cycles.use_denoising = "CYCLES", 1, True
scene.render.resolution_x = scene.render.resolution_y = 16
scene.render.filepath = sys.argv[1]
bpy.ops.render.render(write_still=True)
"""


@needs_kernel
@pytest.mark.blender
def test_blender_draws_inside_the_sandbox(tmp_path: Path) -> None:
    for name in ("code", "out", "home"):
        (tmp_path / name).mkdir()
    (tmp_path / "code" / "draw_cube.py").write_text(RENDER)
    home, root = str(tmp_path / "home"), HERE.parents[1]
    done = subprocess.run(
        [*LAUNCH, "--mode", "require", "--read", str(tmp_path / "code"), "--read", str(root / "render"),
         "--write", str(tmp_path / "out"), "--write", home, "--", "draw_cube", str(tmp_path / "out" / "a.png")],
        cwd=home, env={"HOME": home, "TMPDIR": home, "PYTHONPATH": f"{root}:{tmp_path / 'code'}"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "a.png").read_bytes().startswith(b"\x89PNG")
