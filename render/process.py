"""A child process that speaks JSON lines: never blocks its parent, and ends with all its descendants."""

import contextlib
import json
import os
import selectors
import signal
import subprocess
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

from render.protocol import to_line

POLL_S = 0.2
EXIT_GRACE_S = 2.0
STANDSTILL_S = 5.0
"""Who has not come to look for so long was stopped, and so was the child, most likely: a paused container, a closed
lid. That time does not count against it."""
MAX_LINE_BYTES = 64 << 20


class Ended(Exception):
    """The process is gone; `code` is its exit status, or minus the signal that ended it."""

    def __init__(self, code: int) -> None:
        super().__init__(f"signal {signal.Signals(-code).name}" if code < 0 else f"exit status {code}")
        self.code = code


class Silent(Exception):
    """Nothing was heard for longer than the deadline."""


class Nonsense(Exception):
    """It said something that is no message, too much, or the answer to a question that nobody asked."""


class LineProcess:
    """A program with pipes for JSON lines, in a process group of its own.

    The group is killed when the object is closed or garbage, and when this interpreter ends.
    """

    def __init__(
        self, command: list[str], *, log: Path, cwd: Path, env: dict[str, str], after: Callable[[], None]
    ) -> None:
        """Start it.

        Args:
            command: Program and arguments.
            log: File to which its stderr is appended.
            cwd: Working folder.
            env: The whole environment.
            after: Called once the process has ended.

        Raises:
            OSError: The program cannot be run.
        """
        with log.open("ab") as stderr:
            pipe = subprocess.PIPE
            self._popen = subprocess.Popen(
                command, stdin=pipe, stdout=pipe, stderr=stderr, cwd=cwd, env=env, start_new_session=True
            )
        self.pid = self._popen.pid
        self.close = weakref.finalize(self, _end, self._popen, after, os.getpid())
        self._stdin, self._stdout = (_fd(self._popen.stdin), _fd(self._popen.stdout))
        os.set_blocking(self._stdin, False)
        os.set_blocking(self._stdout, False)
        self._heard = b""

    def ask(
        self,
        message: dict[str, Any],
        *,
        deadline_s: float,
        most_events: int,
        on_event: Callable[[dict[str, Any]], None],
        on_poll: Callable[[], None],
    ) -> dict[str, Any]:
        """Send a message and give the answer to it.

        Args:
            message: With an `id`.
            deadline_s: Longest silence, from now and from each event.
            most_events: Before the answer: nobody buys time for ever.
            on_event: Called with each event before the answer.
            on_poll: Called every `POLL_S` while waiting; an exception from it ends the wait.

        Raises:
            Ended, Silent, Nonsense: The process is of no more use.
        """
        unsent = memoryview(to_line(message))
        until, next_poll, num_events = time.monotonic() + deadline_s, time.monotonic(), 0
        looked = time.monotonic()
        with selectors.DefaultSelector() as selector:
            selector.register(self._stdout, selectors.EVENT_READ)
            selector.register(self._stdin, selectors.EVENT_WRITE)
            while True:
                ready = selector.select(POLL_S)
                if time.monotonic() - looked > STANDSTILL_S:
                    until += time.monotonic() - looked
                looked = time.monotonic()
                for key, _ in ready:
                    if key.fd == self._stdin:
                        unsent = _write_some(self._stdin, unsent)
                        if not unsent:
                            selector.unregister(self._stdin)
                        continue
                    for answer in self._read_some(message["id"]):
                        if "event" not in answer:
                            return answer
                        until = time.monotonic() + deadline_s
                        num_events += 1
                        if num_events > most_events:
                            raise Nonsense(f"more than {most_events} events")
                        on_event(answer)
                now = time.monotonic()
                if now >= next_poll:
                    next_poll = now + POLL_S
                    on_poll()
                    code = None if ready else _exit_code(self._popen, 0.0)
                    if code is not None:  # its pipe does not tell: something that it forked holds the other end
                        raise Ended(code)
                if now > until:
                    raise Silent(f"no sign of life for {deadline_s:g} s")

    def _read_some(self, message_id: int) -> list[dict[str, Any]]:
        chunk = os.read(self._stdout, 1 << 20)
        if not chunk:
            code = _exit_code(self._popen, EXIT_GRACE_S)
            if code is None:
                raise Nonsense("it closed its output")
            raise Ended(code)
        *lines, self._heard = (self._heard + chunk).split(b"\n")
        if len(self._heard) > MAX_LINE_BYTES:
            raise Nonsense(f"a line longer than {MAX_LINE_BYTES} bytes")
        return [_message(line, message_id) for line in lines]


def _message(line: bytes, message_id: int) -> dict[str, Any]:
    try:
        message = json.loads(line)
    except ValueError as error:
        raise Nonsense(f"no JSON: {line[:200]!r}") from error
    if not isinstance(message, dict) or message.get("id") != message_id:
        raise Nonsense(f"no answer to message {message_id}: {line[:200]!r}")
    return message


def _write_some(fd: int, unsent: memoryview) -> memoryview:
    """What is left to send; nothing if the reader is gone, which is noticed when reading."""
    try:
        return unsent[os.write(fd, unsent[: 1 << 16]) :]
    except BlockingIOError:
        return unsent
    except BrokenPipeError:
        return unsent[len(unsent) :]


def _fd(pipe: Any) -> int:
    return int(pipe.fileno())


def _exit_code(popen: subprocess.Popen[bytes], wait_s: float) -> int | None:
    """Exit status or minus the signal; None while it runs.

    It is not reaped: a zombie keeps its process group's number from going to somebody else before we kill the group.
    """
    until = time.monotonic() + wait_s
    while True:
        try:
            ended = os.waitid(os.P_PID, popen.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG)
        except ChildProcessError:
            return popen.returncode or 0
        if ended:
            return ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status
        if time.monotonic() >= until:
            return None
        time.sleep(0.01)


def _end(popen: subprocess.Popen[bytes], after: Callable[[], None], owner: int) -> None:
    if os.getpid() != owner:  # a fork of the driver ends, not the driver
        return
    for pipe in (popen.stdin, popen.stdout):
        with contextlib.suppress(OSError):
            if pipe:
                pipe.close()
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(popen.pid, signal.SIGKILL)  # it has nothing to save, and its folder is ours to remove
    with contextlib.suppress(subprocess.TimeoutExpired):
        popen.wait(10)
    after()
