"""The child's loop and what it says of failures, without Blender."""

import io
import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from render.blender import child, pictures
from render.blender.gltf import animation_names
from render.protocol import BadAsset, Hello, Load, Welcome, to_line
from tests.render.tiny_gltf import TinyGltf, png

WELCOME = Welcome(blender_version="4.5", python_version="3.11", draco=True)


class Answering:
    """A session that does one thing."""

    def __init__(self, does: Any) -> None:
        self.does = does
        self.asked: list[Any] = []

    def answer(self, request: Any, on_image: Any) -> Any:
        self.asked.append(request)
        on_image(1, 2)
        if isinstance(self.does, Exception):
            raise self.does
        return self.does


def conversation(session: Answering, *messages: dict[str, Any] | bytes) -> list[dict[str, Any]]:
    lines = b"".join(entry if isinstance(entry, bytes) else to_line(entry) for entry in messages)
    said: list[dict[str, Any]] = []
    child.serve(io.BytesIO(lines), said.append, session)
    return said


def test_each_request_is_answered_under_its_number_after_its_events() -> None:
    session = Answering(WELCOME)
    load = {"id": 8, "call": "load", "with": {"path": "a.glb", "format": "glb"}}
    said = conversation(session, {"id": 7, "call": "hello", "with": {}}, b"\n", load)
    assert [entry["id"] for entry in said] == [7, 7, 8, 8]
    assert said[0] == {"id": 7, "event": "image", "done": 1, "total": 2}
    assert said[1]["ok"]["blender_version"] == "4.5"
    assert session.asked == [Hello(), Load(path="a.glb", format="glb")]


@pytest.mark.parametrize(
    ("error", "call", "reason"),
    [
        (BadAsset("no_mesh", "nothing"), "load", "no_mesh"),
        (RuntimeError("odd"), "load", "import_failed"),
        (RecursionError("deep"), "load", "import_failed"),
        (KeyError("odd"), "measure", "blender_crashed"),
        (MemoryError(), "load", "out_of_memory"),
        (OSError(28, "No space left on device"), "draw", "machine_fault"),
    ],
)
def test_an_error_is_told_and_the_next_request_is_served(error: Exception, call: str, reason: str) -> None:
    assert child.explain(error, call)[0] == reason
    load = {"id": 1, "call": "load", "with": {"path": "a", "format": "glb"}}
    said = conversation(Answering(error), load, load)
    assert ["error" in entry for entry in said] == [False, True, False, True]


def test_a_line_that_is_no_request_does_not_end_the_child() -> None:
    said = conversation(Answering(WELCOME), b"not json\n", {"id": 2, "call": "hello", "with": {}})
    assert said[0]["id"] is None
    assert "error" in said[0]
    assert "ok" in said[-1]


def test_a_number_that_json_has_no_word_for_is_an_error_and_not_a_broken_line() -> None:
    broken = Welcome(blender_version="4.5", python_version="3.11", draco=float("nan"))  # type: ignore[arg-type]
    assert "error" in conversation(Answering(broken), {"id": 1, "call": "hello", "with": {}})[-1]


@pytest.mark.parametrize("kind", ["png", "jpeg", "webp", "bmp", "tga", "tiff", "dds"])
def test_a_picture_is_measured_without_decoding_it(kind: str) -> None:
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((35, 70, 3), dtype=np.uint8)).save(buffer, kind)
    assert pictures.size_of(buffer.getvalue()[: pictures.HEAD_BYTES]) == (70, 35)


def test_a_picture_may_lie_about_its_size_or_be_none() -> None:
    assert pictures.size_of(png(40_000, 30_000)) == (40_000, 30_000)
    assert pictures.size_of(
        b"\x76\x2f\x31\x01" + b"x" * 12 + b"dataWindow\0box2i\0" + struct.pack("<5i", 16, 1, 2, 64, 33)
    ) == (64, 32)
    assert pictures.size_of(b"#?RADIANCE\nFORMAT=32-bit_rle_rgbe\n\n-Y 35 +X 70\n") == (70, 35)
    for nothing in (b"", b"<html>", b"root:x:0:0:root:/root:/bin/bash\n", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"):
        assert pictures.size_of(nothing) is None


def test_animations_are_named_in_the_files_own_order(tmp_path: Path) -> None:
    tiny = TinyGltf()
    node = tiny.node(mesh=tiny.cube())
    for name in ("walk", "", "attack"):
        tiny.animate(name, (node, "translation", [0.0, 1.0], [[0, 0, 0], [1, 0, 0]]))
    tiny.save(tmp_path / "a.glb")
    assert animation_names(str(tmp_path / "a.glb")) == ["walk", "Anim_1", "attack"]
    (tmp_path / "b.gltf").write_text(json.dumps({"asset": {"version": "2.0"}, "animations": [{"name": "idle"}]}))
    assert animation_names(str(tmp_path / "b.gltf")) == ["idle"]
    (tmp_path / "c.glb").write_bytes(b"glTF")
    assert animation_names(str(tmp_path / "c.glb")) == []
