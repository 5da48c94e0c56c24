"""A child that speaks the protocol and does what the bytes of its asset say: good manners and bad ones.

Run as the supervisor runs the real one. Standard library only.
"""

import ctypes
import itertools
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import zlib
from pathlib import Path
from typing import Any

LOADED = {
    "actions": [], "num_vertices": 3, "num_triangles": 1, "num_objects": 1, "num_materials": 0, "num_images": 0,
    "image_pixels": 0, "largest_picture_px": 0, "missing_textures": [], "family_id": "f", "scene_fps": 24.0,
}  # fmt: skip
WELCOME = {"blender_version": "none", "python_version": "3", "draco": False}

MEASURED = {
    "motion_mean": 0.1, "motion_p95": 0.2, "path_length": 0.3, "rigid_share": 0.1, "loop_gap": 0.2,
    "moving_start_s": 0.0, "moving_end_s": 1.0, "travel": 1.1, "max_jump": 0.01, "jump_ratio": 1.0,
    "max_stretch": 1.1, "rest_diagonal": 2.0, "box_min": [0.0, 0.0, 0.0], "box_max": [1.0, 1.0, 1.0],
    "finite": True, "motion_id": "m",
}  # fmt: skip

num_loads = 0


def say(message: dict[str, Any]) -> None:
    sys.stdout.buffer.write(json.dumps(message).encode() + b"\n")
    sys.stdout.buffer.flush()


def obey(order: dict[str, Any], message_id: int, path: str) -> dict[str, Any]:  # noqa: PLR0912
    """What the asset does to us."""
    do = order.get("do")
    if do == "hang":
        print("about to hang", file=sys.stderr, flush=True)
        signal.pthread_sigmask(signal.SIG_BLOCK, set(signal.Signals))
        ctypes.CDLL(None).sleep(60)
    elif do == "hang_with_offspring":
        os.fork()
        time.sleep(60)
    elif do == "be_slow":
        for done in range(5):
            time.sleep(0.3)
            say({"id": message_id, "event": "image", "done": done, "total": 5})
    elif do == "segfault":
        print("about to fall", file=sys.stderr, flush=True)
        ctypes.string_at(0)
    elif do == "segfault_unless_first" and num_loads > 1:
        os.kill(os.getpid(), signal.SIGSEGV)
    elif do == "exit":
        print(order.get("detail"), file=sys.stderr)
        sys.exit(3)
    elif do == "eat":
        hoard = []
        while True:
            hoard.append(bytearray(b"x" * order["bite"]))
            time.sleep(0.01)
    elif do == "gulp":
        bytearray(16 << 30)
    elif do == "babble":
        sys.stdout.write("Read prefs: /home/x\n")
        sys.stdout.flush()
        time.sleep(60)
    elif do == "answer_another":
        say({"id": message_id + 1, "ok": {}})
        time.sleep(60)
    elif do == "refuse":
        reason, detail = order.get("reason", "import_failed"), order.get("detail", "no such mesh")
        return {"id": message_id, "error": {"reason": reason, "detail": detail}}
    elif do == "try":
        detail = json.dumps({name: attempt(name, argument) for name, argument in order["what"].items()})
        return {"id": message_id, "error": {"reason": "import_failed", "detail": detail}}
    else:
        attack(do, order, message_id)
    return {"id": message_id, "ok": LOADED | {"family_id": str(num_loads), "missing_textures": [path]}}


def attack(do: str | None, order: dict[str, Any], message_id: int) -> None:  # noqa: PLR0912
    """What an asset may do that has taken over its child."""
    if do == "eat_for_a_moment":
        bytearray(b"x" * order["bite"])
    elif do == "fork_bomb":
        while True:
            os.fork()
    elif do == "thread_bomb":
        while True:
            threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
    elif do == "flood_the_log":
        until = time.monotonic() + 1.5
        while time.monotonic() < until:
            os.write(2, b"no such bone\n" * 500)
            time.sleep(0.001)
        os.write(2, b"the last word\n")
        sys.exit(3)
    elif do == "flood_the_answers":
        while True:
            say({"id": message_id, "event": "image", "done": 1, "total": 2})
    elif do == "fill_the_disk":
        for number in itertools.count():
            Path(f"{number}.tmp").write_bytes(bytes(8 << 20))
    elif do == "fill_the_disk_unseen":
        with Path("unseen").open("wb") as file:
            os.unlink("unseen")
            while True:
                file.write(bytes(8 << 20))
    elif do == "kill_the_parent":
        os.kill(os.getppid(), signal.SIGKILL)
    elif do == "kill_everybody":
        os.kill(-1, signal.SIGKILL)
    elif do == "connect":
        socket.create_connection(("127.0.0.1", 9))
    elif do == "read_outside":
        Path("/etc/passwd").read_bytes()


def attempt(name: str, argument: Any) -> str:  # noqa: PLR0912
    """Do something that may be forbidden, and say what came of it."""
    try:
        if name.startswith("read"):
            Path(argument).read_bytes()
        elif name.startswith("list"):
            os.listdir(argument)
        elif name.startswith("write"):
            Path(argument).write_bytes(b"x")
        elif name.startswith("truncate"):
            os.truncate(argument, 0)
        elif name.startswith("chmod"):
            os.chmod(argument, 0o777)
        elif name.startswith("unlink"):
            os.unlink(argument)
        elif name.startswith("link"):
            os.link(argument, "linked")
        elif name.startswith("symlink"):
            os.symlink(argument, "symlinked")
        elif name.startswith("connect"):
            socket.create_connection(("127.0.0.1", argument), timeout=2).close()
        elif name.startswith("unix"):
            socket.socket(socket.AF_UNIX).connect(argument)
        elif name.startswith("udp"):
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        elif name.startswith("run"):
            subprocess.run(argument, check=True)
        elif name.startswith("kill"):
            os.kill(argument, 0)
        elif name.startswith("thread"):
            threading.Thread(target=time.time).start()
        elif name.startswith("environ"):
            return ",".join(sorted(os.environ))
        elif name.startswith("syscall"):
            libc = ctypes.CDLL(None, use_errno=True)
            done = libc.syscall(*(ctypes.c_long(value) for value in argument))
            return "done" if done >= 0 else os.strerror(ctypes.get_errno())
    except OSError as error:
        return type(error).__name__
    return "done"


def measure(order: dict[str, Any], message: dict[str, Any]) -> dict[str, Any]:
    """What the asset says of one of its actions, or does to us when asked."""
    action = order["actions"][message["with"]["action_index"]]
    reply = obey(action, message["id"], "")
    return reply if "error" in reply else {"id": message["id"], "ok": MEASURED | action.get("measured", {})}


def draw(order: dict[str, Any], message: dict[str, Any], texture_limit_px: int) -> dict[str, Any]:
    """Grey pictures with something else in each."""
    wanted = message["with"]
    if "fits_px" in order and not 0 < texture_limit_px <= order["fits_px"]:
        attack("eat_for_a_moment", {"bite": 600 << 20}, message["id"])
    reply = obey(order.get("draw", {}), message["id"], "")
    if "error" in reply:
        return reply
    size = order.get("draw", {}).get("size_px", wanted["size_px"])
    for number, view in enumerate(wanted["views"]):
        for frame in range(len(wanted["times_s"])):
            path = Path(wanted["out_folder"]) / f"{view['name']}_{frame:03d}.png"
            path.write_bytes(png(size, (20 * frame, 40 * number, 7, 255)))
            say({"id": message["id"], "event": "image", "done": frame, "total": len(wanted["times_s"])})
    drawn = {"world_scale": 0.5, "world_centre": [1.0, 2.0, 3.0], "own_light": False}
    drawn |= {"draw_s": 0.1, "prepare_s": 0.1, "outside_px": 0.0}
    return {"id": message["id"], "ok": drawn | order.get("drawn", {})}


def png(size: int, colour: tuple[int, ...]) -> bytes:
    """A square of one colour."""
    header = struct.pack(">IIBBBBB", size, size, 8, 6, 0, 0, 0)
    body = zlib.compress((b"\0" + bytes(value % 256 for value in colour) * size) * size)
    chunks = ((b"IHDR", header), (b"IDAT", body), (b"IEND", b""))
    parts = [struct.pack(">I", len(c)) + n + c + struct.pack(">I", zlib.crc32(n + c)) for n, c in chunks]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def main() -> None:
    """Answer until nobody asks."""
    global num_loads  # noqa: PLW0603
    order: dict[str, Any] = {}
    texture_limit_px = 0
    for line in sys.stdin.buffer:
        message = json.loads(line)
        number, call = message["id"], message["call"]
        if call == "hello":
            say({"id": number, "ok": WELCOME})
        elif call == "load":
            num_loads += 1
            path, texture_limit_px = message["with"]["path"], message["with"]["texture_limit_px"]
            order = json.loads(Path(path).read_bytes())
            reply = obey(order, number, path)
            if "ok" in reply:
                actions = [
                    {"index": index, "name": action["name"], "start_s": action["start_s"], "end_s": action["end_s"]}
                    for index, action in enumerate(order.get("actions", ()))
                ]
                reply["ok"] = reply["ok"] | {"actions": actions} | order.get("loaded", {})
            say(reply)
        else:
            say(measure(order, message) if call == "measure" else draw(order, message, texture_limit_px))


if __name__ == "__main__":
    main()
