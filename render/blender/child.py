"""The Blender process: answers the requests of `render.protocol`, one JSON object a line, until its input ends.

`python -m render.blender.child`. Requests come on standard input, answers go to what was standard output at the start.
What Blender prints itself ends up on standard error.
"""

import json
import os
import shutil
import sys
import tempfile
import traceback
from collections.abc import Callable
from typing import IO, Any, Protocol

from render.protocol import BadAsset, DeviceFault, fields_of, read_request, to_line

Send = Callable[[dict[str, Any]], None]
LAST_WORDS = 500
"""Characters of a traceback that are worth telling: its end."""


class Answers(Protocol):
    """`session.Session`, which cannot be imported before descriptor 1 is out of Blender's reach."""

    def answer(self, request: Any, on_image: Callable[[int, int], None]) -> Any:
        """The reply to a request."""


def main() -> None:
    """Serve until the input ends."""
    answers = os.fdopen(os.dup(1), "wb", buffering=0)
    _divert_prints("")
    nobody = tempfile.mkdtemp(prefix="mv4d-")
    os.environ["BLENDER_USER_RESOURCES"] = nobody  # no add-ons and start-up files of whoever runs this
    cores = _show_few_cores(int(os.environ.get("OMP_NUM_THREADS", "0")))
    import bpy

    from render.blender.session import Session

    _show_cores(cores)
    serve(sys.stdin.buffer, lambda message: _write_all(answers, to_line(message)), Session())
    for folder in (nobody, bpy.app.tempdir):
        shutil.rmtree(folder, ignore_errors=True)
    sys.stderr.flush()
    os._exit(0)  # Blender's exit handlers free everything at leisure, and may crash over a broken asset


def _show_few_cores(count: int) -> set[int]:
    """Let this process see no more cores than so many, or than there are if 0; gives those that it saw.

    Blender starts a worker for each core that it sees in the beginning, whatever threads a render is allowed, and they
    burn as much time in looking for work as the render takes itself. Where it may run later, it does not care.
    """
    if not hasattr(os, "sched_getaffinity"):
        return set()
    cores = os.sched_getaffinity(0)
    _show_cores(set(sorted(cores)[: count or None]))
    return cores


def _show_cores(cores: set[int]) -> None:
    if cores:
        os.sched_setaffinity(0, cores)


def serve(requests: IO[bytes], send: Send, session: Answers) -> None:
    """Answer each line of the requests."""
    for line in requests:
        if line.strip():
            _answer_one(line, send, session)


def _answer_one(line: bytes, send: Send, session: Answers) -> None:
    number, call = None, ""
    try:
        message = json.loads(line)
        number, call = message["id"], message["call"]
        _divert_prints(os.devnull if call == "draw" else "")
        request = read_request(call, message["with"])

        def on_image(done: int, total: int) -> None:
            send({"id": number, "event": "image", "done": done, "total": total})

        answer = {"id": number, "ok": fields_of(session.answer(request, on_image))}
        to_line(answer)
    except Exception as error:
        if not isinstance(error, BadAsset):
            traceback.print_exc()
        reason, detail = explain(error, call)
        answer = {"id": number, "error": {"reason": reason, "detail": detail}}
    send(answer)


def _divert_prints(path: str) -> None:
    """Send what Blender prints to a file, or to standard error if none is given.

    Cycles writes sixty lines of progress a picture; complaints go to descriptor 2 all the same.
    """
    target = os.open(path, os.O_WRONLY) if path else os.dup(2)
    os.dup2(target, 1)
    os.close(target)


def explain(error: Exception, call: str) -> tuple[str, str]:
    """Reason and detail for what went wrong in a call."""
    if isinstance(error, BadAsset):
        return error.reason, error.detail
    if isinstance(error, DeviceFault):
        return "device_fault", str(error)
    words = traceback.format_exception(error)[-2:]
    detail = " | ".join(part.strip() for word in words for part in word.splitlines())[-LAST_WORDS:]
    if isinstance(error, MemoryError):
        return "out_of_memory", detail
    if call == "load":
        return "import_failed", detail
    if isinstance(error, OSError):
        return "machine_fault", detail
    return "blender_crashed", detail


def _write_all(answers: IO[bytes], data: bytes) -> None:
    unsent = memoryview(data)
    while unsent:
        unsent = unsent[answers.write(unsent) :]


if __name__ == "__main__":
    main()
