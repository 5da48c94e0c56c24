"""The real Blender child on a pair of pipes, without the parent's supervision."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pipeline.cameras import look_at_origin
from render.lights import light_of
from render.protocol import Drawn, Loaded, Measured, Paths, View, fields_of, read_reply

REPOSITORY = Path(__file__).resolve().parents[2]
DRAWING = {
    "size_px": 48, "fov_deg": 40.0, "samples": 4, "denoise": "none", "paths": fields_of(Paths()),
    "light": fields_of(light_of("studio", "test")), "view_transform": "standard", "framing": "all_frames", "seed": 7,
    "threads": 1,
}  # fmt: skip


class Failed(Exception):
    """The child answered with an error."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


class BlenderProcess:
    """A running child."""

    def __init__(self, log: Path, python: str = sys.executable, threads: int = 1) -> None:
        with log.open("ab") as stderr:
            self._process = subprocess.Popen(
                [python, "-m", "render.blender.child"], cwd=REPOSITORY, stdin=subprocess.PIPE,
                stdout=subprocess.PIPE, stderr=stderr, env={**os.environ, "OMP_NUM_THREADS": str(threads)},
            )  # fmt: skip
        self.pid = self._process.pid
        self.events: list[dict[str, Any]] = []

    def ask(self, call: str, **values: Any) -> Any:
        """The reply to a call.

        Raises:
            Failed: The child says so.
        """
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps({"id": 1, "call": call, "with": values}).encode() + b"\n")
        self._process.stdin.flush()
        self.events = []
        while True:
            line = self._process.stdout.readline()
            assert line, f"the child ended with status {self._process.wait()}"
            answer = json.loads(line)
            if "error" in answer:
                raise Failed(**answer["error"])
            if "ok" in answer:
                return read_reply(call, answer["ok"])
            self.events.append(answer)

    def load(self, path: Path) -> Loaded:
        """Load a file by its suffix."""
        loaded: Loaded = self.ask("load", path=str(path), format=path.suffix[1:].lower())
        return loaded

    def measure(self, action_index: int, times_s: list[float]) -> Measured:
        """Measure an action."""
        measured: Measured = self.ask("measure", action_index=action_index, times_s=times_s)
        return measured

    def draw(self, folder: Path, action_index: int, times_s: list[float], views: list[View], **changes: Any) -> Drawn:
        """Draw an action into a folder."""
        folder.mkdir(parents=True, exist_ok=True)
        options = {**DRAWING, **changes, "views": [fields_of(view) for view in views], "out_folder": str(folder)}
        drawn: Drawn = self.ask("draw", action_index=action_index, times_s=times_s, **options)
        return drawn

    def close(self) -> int:
        """End its input; gives its exit status."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.close()
        status = self._process.wait(30)
        self._process.stdout.close()
        return status


def view(azimuth_deg: float, elevation_deg: float = 0.0, *, frozen: bool = False, name: str = "") -> View:
    """A camera that stands still, as the parent would send it."""
    c2w = look_at_origin(azimuth_deg, elevation_deg, 3.0)
    return View(name=name or f"v{azimuth_deg:03.0f}", c2w=[c2w.ravel().tolist()], frozen=frozen)


def picture(folder: Path, name: str, frame: int = 0) -> np.ndarray:
    """RGBA as floats in 0..1, shape (height, width, 4)."""
    with Image.open(folder / f"{name}_{frame:03d}.png") as image:
        assert image.mode == "RGBA"
        return np.asarray(image, dtype=np.float64) / 255


def colour(rgba: np.ndarray) -> np.ndarray:
    """Mean colour of what the picture shows. Shape (3,)."""
    solid = rgba[..., 3] > 0.99
    assert solid.any(), "nothing is drawn"
    return np.asarray(rgba[solid][:, :3].mean(axis=0))


def make_files(module: str, folder: Path) -> None:
    """Have a module of the tests write its files with a Blender of its own."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", module, str(folder)]
    subprocess.run(command, cwd=REPOSITORY, env=environment, check=True, stdout=subprocess.DEVNULL, timeout=120)
