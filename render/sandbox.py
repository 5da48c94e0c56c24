"""Runs a module in a process that cannot reach the network, start programs, or read other files than its own.

`python -m render.sandbox --mode best --read INBOX --write OUT -- render.blender.child` shuts itself in and
then runs the module in the same process. Assets are files from strangers, and the importers that read them
were not written against them.

- Landlock: reading is allowed below the interpreter, the system's libraries, a few device and cpu files and
  `--read`; writing only below `--write`.
- seccomp: no sockets, no new programs or processes (threads are allowed), no signals to others by any way, no tracing,
  no change of owners, modes, priorities or limits of others, no memory that counts for nobody.
- No capabilities and no way to win them back, so that it also holds for root in a container.
- The process is killed when its parent dies, which it cannot undo, dumps no core, and has a ceiling on its memory.

What the kernel does not offer is named in one line on stdout, before the module starts:
`{"id": 0, "event": "sandbox", "missing": […]}`. With `--mode require` the process ends instead, with status
78. Standard library only.
"""

import argparse
import contextlib
import ctypes
import importlib
import json
import os
import platform
import resource
import runpy
import signal
import site
import struct
import sys
import sysconfig
from collections.abc import Sequence
from typing import Any

EXIT_REFUSED = 78
"""EX_CONFIG of sysexits.h: `--mode require` and the kernel lacks a part."""

MAX_FILE_BYTES = 1 << 30
PR_SET_PDEATHSIG, PR_SET_SECCOMP, PR_SET_NO_NEW_PRIVS, SECCOMP_MODE_FILTER = 1, 22, 38, 2
EPERM, EACCES, ENOSYS = 1, 13, 38
CLONE_THREAD = 0x10000

# Landlock's rights, as bits of access_fs (linux/landlock.h). The kernel's ABI says which of them it knows.
READ_FILE, READ_DIR = 1 << 2, 1 << 3
ON_FILES = 1 << 0 | 1 << 1 | READ_FILE | 1 << 14 | 1 << 15
"""Rights that make sense on a file: execute, write, read, truncate, ioctl of devices."""
WRITE = (1 << 1) | (1 << 4) | (1 << 5) | (1 << 7) | (1 << 8) | (1 << 13) | (1 << 14)
"""Write and truncate files; make, remove and move files and folders. No devices, sockets, pipes, symlinks."""
KNOWN_BITS_BY_ABI = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16}
CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446
CAPSET = {"x86_64": 126, "aarch64": 91}

AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
FORBIDDEN: dict[str, dict[str, int]] = {
    "x86_64": {
        "socket": 41, "execve": 59, "execveat": 322, "ptrace": 101, "process_vm_readv": 310,
        "process_vm_writev": 311, "io_uring_setup": 425, "truncate": 76, "chmod": 90, "fchmod": 91,
        "fchmodat": 268, "fchmodat2": 452, "chown": 92, "fchown": 93, "lchown": 94, "fchownat": 260,
        "setxattr": 188, "lsetxattr": 189, "fsetxattr": 190, "unshare": 272, "setns": 308, "bpf": 321,
        "perf_event_open": 298, "userfaultfd": 323, "add_key": 248, "request_key": 249, "keyctl": 250,
        "tkill": 200, "rt_sigqueueinfo": 129, "rt_tgsigqueueinfo": 297, "pidfd_send_signal": 424,
        "pidfd_getfd": 438, "fork": 57, "vfork": 58, "memfd_create": 319, "memfd_secret": 447, "shmget": 29,
        "semget": 64, "msgget": 68, "mq_open": 240, "setpriority": 141, "ioprio_set": 251, "sched_setparam": 142,
        "sched_setscheduler": 144, "sched_setattr": 314,
    },
    "aarch64": {
        "socket": 198, "execve": 221, "execveat": 281, "ptrace": 117, "process_vm_readv": 270,
        "process_vm_writev": 271, "io_uring_setup": 425, "truncate": 45, "fchmod": 52, "fchmodat": 53,
        "fchmodat2": 452, "fchownat": 54, "fchown": 55, "setxattr": 5, "lsetxattr": 6, "fsetxattr": 7,
        "unshare": 97, "setns": 268, "bpf": 280, "perf_event_open": 241, "userfaultfd": 282, "add_key": 217,
        "request_key": 218, "keyctl": 219, "tkill": 130, "rt_sigqueueinfo": 138, "rt_tgsigqueueinfo": 240,
        "pidfd_send_signal": 424, "pidfd_getfd": 438, "memfd_create": 279, "memfd_secret": 447, "shmget": 194,
        "semget": 190, "msgget": 186, "mq_open": 180, "setpriority": 140, "ioprio_set": 30, "sched_setparam": 118,
        "sched_setscheduler": 119, "sched_setattr": 274,
    },
}  # fmt: skip
"""Get EACCES. io_uring would open sockets behind seccomp's back; modes and owners Landlock does not watch; files and
segments that live in memory alone count for no process and no folder."""
TO_ITSELF_ONLY = {"x86_64": {"kill": 62, "tgkill": 234}, "aarch64": {"kill": 129, "tgkill": 131}}
"""Their first argument must be this process."""
OF_ITSELF_ONLY = {
    "x86_64": {"prlimit64": 302, "sched_setaffinity": 203},
    "aarch64": {"prlimit64": 261, "sched_setaffinity": 122},
}
"""The same, where 0 stands for this process too."""
NEVER_WITH: dict[str, tuple[tuple[int, int, tuple[int, ...]], ...]] = {
    "x86_64": ((72, 1, (8, 10, 15)), (157, 0, (PR_SET_PDEATHSIG,))),
    "aarch64": ((25, 1, (8, 10, 15)), (167, 0, (PR_SET_PDEATHSIG,))),
}
"""Call, argument, values it must not have. fcntl's F_SETOWN, F_SETSIG and F_SETOWN_EX have the kernel signal others."""
CLONE = {"x86_64": 56, "aarch64": 220}
CLONE3 = {"x86_64": 435, "aarch64": 435}
"""Its flags lie in memory, where a filter cannot look. Told that it is unknown, the C library takes `clone`."""

SYSTEM_READ = (
    "/usr", "/lib", "/lib32", "/lib64", "/etc/ld.so.cache", "/etc/localtime", "/etc/fonts", "/proc/self",
    "/proc/meminfo", "/proc/cpuinfo", "/sys/devices/system", "/dev/urandom", "/dev/random", "/dev/zero",
)  # fmt: skip
SYSTEM_WRITE = ("/dev/null",)
USE_DEVICE = READ_FILE | READ_DIR | 1 << 1 | 1 << 15
"""Read, write and ioctl: what a GPU's driver does with its device files."""
DRIVER_READ = (
    "/proc/devices", "/proc/driver/nvidia", "/sys/bus/pci", "/sys/class/drm", "/sys/class/kfd", "/sys/dev/char",
    "/sys/devices", "/sys/module", "/etc/OpenCL", "/etc/glvnd", "/etc/vulkan", "/opt/rocm", "/run/opengl-driver",
)  # fmt: skip
DRIVER_CALLS = ("memfd_create",)
"""Forbidden, but for a child with a GPU: NVIDIA's libraries keep code that they make in such files."""


def restrict(mode: str, read: list[str], write: list[str], devices: list[str]) -> list[str]:
    """Shut this process in for good; gives the names of what could not be had.

    Args:
        mode: `off` does nothing.
        read: Files and folders to read, next to the interpreter's and the system's own.
        write: Folders to read and write.
        devices: Device files of GPUs to use, or folders of them.
    """
    if mode == "off":
        return []
    missing = []
    machine = platform.machine()
    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "prctl"):
        return ["landlock", "seccomp", "capabilities"]
    _call(libc.prctl, PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    read = [*interpreter_paths(), *SYSTEM_READ, *read, *(DRIVER_READ if devices else ())]
    if not _landlock(libc, read, [*SYSTEM_WRITE, *write], devices):
        missing.append("landlock")
    if machine not in CAPSET or not _drop_capabilities(libc, CAPSET[machine]):
        missing.append("capabilities")
    allowed = DRIVER_CALLS if devices else ()
    if machine not in FORBIDDEN or not _seccomp(libc, filter_program(machine, os.getpid(), allowed)):
        missing.append("seccomp")
    return missing


def interpreter_paths() -> list[str]:
    """The folders of this interpreter: prefixes, standard library and site-packages."""
    paths = {sys.prefix, sys.base_prefix, sys.exec_prefix, sys.base_exec_prefix, *site.getsitepackages()}
    paths |= {sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    return sorted(path for path in paths if path != "/")


def _landlock(libc: ctypes.CDLL, read: list[str], write: list[str], devices: list[str]) -> bool:
    abi = _call(libc.syscall, CREATE_RULESET, 0, 0, 1)
    if abi < 1:
        return False
    known = (1 << KNOWN_BITS_BY_ABI.get(abi, 16)) - 1
    # 3: bind and connect TCP; and the scopes of abstract sockets and signals
    attributes = struct.pack("QQQ", known, 3 if abi >= 4 else 0, 3 if abi >= 6 else 0)
    ruleset = _call(libc.syscall, CREATE_RULESET, attributes, 24 if abi >= 6 else (16 if abi >= 4 else 8), 0)
    if ruleset < 0:
        return False
    try:
        for paths, rights in (
            (read, READ_FILE | READ_DIR),
            (write, READ_FILE | READ_DIR | WRITE),
            (devices, USE_DEVICE),
        ):
            for path in paths:
                _allow(libc, ruleset, path, rights & known)
        return _call(libc.syscall, RESTRICT_SELF, ruleset, 0) == 0
    finally:
        os.close(ruleset)


def _allow(libc: ctypes.CDLL, ruleset: int, path: str, rights: int) -> None:
    try:
        parent = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:  # what is not there needs no right
        return
    try:
        allowed = rights if os.path.isdir(path) else rights & ON_FILES
        _call(libc.syscall, ADD_RULE, ruleset, 1, struct.pack("=Qi", allowed, parent), 0)
    finally:
        os.close(parent)


def _drop_capabilities(libc: ctypes.CDLL, number: int) -> bool:
    header = struct.pack("Ii", 0x20080522, 0)  # version 3, this process
    return _call(libc.syscall, number, header, bytes(24)) == 0


def filter_program(machine: str, pid: int, allowed: Sequence[str] = ()) -> bytes:
    """The seccomp filter as classic BPF: 8 bytes an instruction (linux/filter.h).

    Another architecture's calls are refused whole: their numbers mean other things.

    Args:
        machine: Architecture, as `platform.machine` calls it.
        pid: This process.
        allowed: Names in `FORBIDDEN` that are not, this time.
    """
    load, equal, at_least, has_bits, answer = 0x20, 0x15, 0x35, 0x45, 0x06
    allow, refuse = 0x7FFF0000, 0x00050000

    def op(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
        return struct.pack("HBBI", code, if_true, if_false, value)

    def unless(number: int, argument: int, tests: list[bytes]) -> list[bytes]:
        """Rules for one call: the tests jump to the last but one instruction to refuse, to the last to allow."""
        rules = [op(load, 16 + 8 * argument), *tests, op(answer, refuse | EPERM), op(answer, allow)]
        return [op(equal, number, 0, len(rules)), *rules]

    program = [op(load, 4), op(equal, AUDIT_ARCH[machine], 1, 0), op(answer, refuse | EPERM), op(load, 0)]
    if machine == "x86_64":  # the x32 numbers are the same calls by another name
        program += [op(at_least, 0x40000000, 0, 1), op(answer, refuse | EPERM)]
    for number in (number for name, number in FORBIDDEN[machine].items() if name not in allowed):
        program += [op(equal, number, 0, 1), op(answer, refuse | EACCES)]
    for number in TO_ITSELF_ONLY[machine].values():
        program += unless(number, 0, [op(equal, pid, 1, 0)])
    for number in OF_ITSELF_ONLY[machine].values():
        program += unless(number, 0, [op(equal, 0, 2, 0), op(equal, pid, 1, 0)])
    for number, argument, values in NEVER_WITH[machine]:
        tests = [op(equal, value, len(values) - 1 - place, 0) for place, value in enumerate(values[:-1])]
        program += unless(number, argument, [*tests, op(equal, values[-1], 0, 1)])
    program += unless(CLONE[machine], 0, [op(has_bits, CLONE_THREAD, 1, 0)])
    program += [op(equal, CLONE3[machine], 0, 1), op(answer, refuse | ENOSYS)]
    return b"".join([*program, op(answer, allow)])


def _seccomp(libc: ctypes.CDLL, program: bytes) -> bool:
    instructions = ctypes.create_string_buffer(program, len(program))
    header = struct.pack("HP", len(program) // 8, ctypes.addressof(instructions))
    return _call(libc.prctl, PR_SET_SECCOMP, SECCOMP_MODE_FILTER, header, 0, 0) == 0


def _call(function: Any, *arguments: int | bytes) -> int:
    """A C call of variable arguments, its numbers passed as whole registers."""
    return int(function(*(ctypes.c_long(value) if isinstance(value, int) else value for value in arguments)))


def tie_to_parent(parent: int) -> None:
    """Have the kernel kill this process when the thread that started it ends, however it ends."""
    libc = ctypes.CDLL(None)
    if hasattr(libc, "prctl"):
        _call(libc.prctl, PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if parent and os.getppid() != parent:  # it died before we asked
        raise SystemExit(0)


def limit_resources(data_mb: int) -> None:
    """No core files, no huge ones; a ceiling on private memory, for what grows faster than the parent looks.

    And if the machine runs out of memory, the kernel is to end this process rather than its parent.
    """
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
        file.write("800")
    _lower(resource.RLIMIT_CORE, 0)
    _lower(resource.RLIMIT_FSIZE, MAX_FILE_BYTES)
    if data_mb:
        _lower(resource.RLIMIT_DATA, data_mb * 1024 * 1024)


def _lower(limit: int, ceiling: int) -> None:
    hard = resource.getrlimit(limit)[1]
    if hard == resource.RLIM_INFINITY or ceiling < hard:
        resource.setrlimit(limit, (ceiling, ceiling))


def main() -> None:
    """Shut in, say what is missing, run the module."""
    parser = argparse.ArgumentParser(prog="python -m render.sandbox", description=__doc__.splitlines()[0])
    parser.add_argument("--mode", choices=("require", "best", "off"), default="best")
    parser.add_argument("--read", action="append", default=[], help="file or folder it may read")
    parser.add_argument("--write", action="append", default=[], help="folder it may read and write")
    parser.add_argument("--device", action="append", default=[], help="device file (or folder) of a GPU to use")
    parser.add_argument("--parent", type=int, default=0, help="process id whose end is the end of this one")
    parser.add_argument("--data_mb", type=int, default=0, help="ceiling on private memory; 0 for none")
    parser.add_argument("--core", action="append", default=[], type=int, help="core to stay on")
    parser.add_argument("module", help="what to run, as in python -m")
    parser.add_argument("arguments", nargs="*")
    options = parser.parse_args()
    tie_to_parent(options.parent)
    limit_resources(options.data_mb)
    if options.core:
        os.sched_setaffinity(0, options.core)
    importlib.import_module("pipeline")  # its parent folder, the data root perhaps, cannot be listed later
    missing = restrict(options.mode, options.read, options.write, options.device)
    if missing and options.mode == "require":
        print(f"sandbox: this kernel does not offer {', '.join(missing)}", file=sys.stderr)
        raise SystemExit(EXIT_REFUSED)
    print(json.dumps({"id": 0, "event": "sandbox", "missing": missing}), flush=True)
    sys.argv = [options.module, *options.arguments]
    runpy.run_module(options.module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
