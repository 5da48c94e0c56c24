"""The real Blender child, taken over by glTF files whose `generator` says what to do.

Run as the supervisor runs the real one.
"""

import ctypes
import json
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

from render.blender import child


def take_over(order: str) -> None:
    """Do as an asset would that has found a hole in an importer."""
    libc = ctypes.CDLL(None)
    if order == "segfault":
        ctypes.string_at(0)
    elif order == "hang":
        signal.pthread_sigmask(signal.SIG_BLOCK, set(signal.Signals))
        libc.sleep(600)
    elif order in ("eat", "eat slowly"):
        hoard = []
        while True:
            hoard.append(bytearray(b"x" * (32 << 20)))
            time.sleep(0.0 if order == "eat" else 0.05)
    elif order == "fork":
        while True:
            os.fork()
    elif order == "threads":
        while True:
            threading.Thread(target=time.sleep, args=(600,), daemon=True).start()
    elif order == "kill":
        os.kill(os.getppid(), signal.SIGKILL)
    elif order == "write":
        os.write(2, b"x" * (1 << 20))
        for number in range(1000):
            Path(f"{number}.tmp").write_bytes(bytes(8 << 20))


def main() -> None:
    """The child's loop around a session that obeys."""
    serve = child.serve

    def obeying(requests: Any, send: child.Send, session: Any) -> None:
        load = session.load

        def load_and_obey(request: Any) -> Any:
            loaded = load(request)
            data = Path(request.path).read_bytes()
            document = json.loads(data[20 : 20 + int.from_bytes(data[12:16], "little")])
            take_over(document["asset"].get("generator", ""))
            return loaded

        session.load = load_and_obey
        serve(requests, send, session)

    child.serve = obeying
    child.main()


if __name__ == "__main__":
    sys.exit(main())
