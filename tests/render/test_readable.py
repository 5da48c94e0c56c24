"""Rewriting a glTF before the import, on good and broken files; no Blender."""

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from render.blender import gltf_file
from render.blender.readable import readable
from render.protocol import BadAsset
from tests.render.gltf_reference import GltfReference

FOLDER = Path(__file__).parent / "compressed"
FUZZ = settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))


def sheet() -> dict[str, Any]:
    """The compressed sheet with all that would have it rewritten."""
    root: dict[str, Any] = json.loads((FOLDER / "sheet_khr_meshopt.gltf").read_text())
    sampler = root["animations"][0]["samplers"][0]
    sampler["interpolation"] = "CUBICSPLINE"
    times = copy.deepcopy(root["accessors"][sampler["input"]])
    root["accessors"].append({**times, "count": 5})
    sampler["input"] = len(root["accessors"]) - 1
    root["images"] = [{"uri": "colours_etc1s.ktx2"}]
    root["textures"] = [{"extensions": {"KHR_texture_basisu": {"source": 0}}}]
    root["scenes"].append({"nodes": []})
    root.pop("scene", None)
    return root


def test_a_file_that_needs_nothing_is_left_alone(tmp_path: Path) -> None:
    assert readable(str(FOLDER / "sheet.glb"), str(tmp_path)) == str(FOLDER / "sheet.glb")
    assert not list(tmp_path.iterdir())


def test_a_rewritten_file_holds_what_the_original_held(tmp_path: Path) -> None:
    original = GltfReference(FOLDER / "sheet.glb")
    copied = GltfReference(Path(readable(str(FOLDER / "sheet_khr_meshopt.gltf"), str(tmp_path))))
    assert copied.names == original.names
    assert "extensionsRequired" not in copied.document or not copied.document["extensionsRequired"]
    for animation in range(3):
        for time_s in (0.0, 0.7, 2.0):
            expected = original.points(animation, time_s)
            assert copied.points(animation, time_s) == pytest.approx(expected, abs=1e-6)


def test_all_changes_go_together_and_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    (tmp_path / "colours_etc1s.ktx2").write_bytes((FOLDER / "colours_etc1s.ktx2").read_bytes())
    (tmp_path / "a.gltf").write_text(json.dumps(sheet()))
    copy_path = Path(readable(str(tmp_path / "a.gltf"), str(tmp_path)))
    first = copy_path.read_bytes()
    assert Path(readable(str(tmp_path / "a.gltf"), str(tmp_path))).read_bytes() == first
    root = gltf_file.read(str(copy_path)).root
    assert (root["scene"], root["textures"], root["extensionsRequired"]) == (0, [{"extensions": {}, "source": 0}], [])
    assert root["images"][0]["mimeType"] == "image/png"
    assert "CUBICSPLINE" not in json.dumps(root)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path of every value in some JSON."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path] + [found for key, child in inner for found in places(child, (*path, key))]


PLACES = [path for path in places(sheet()) if path]
VALUES = (
    st.sampled_from([None, True, -1, 0, 1, 3, 7, 2**31, 2**53, 10**30, 0.5, 1e308, "", "x", "../x.ktx2", [], {}, [[]]])
    | st.integers(-5, 200)
    | st.text(max_size=4)
)


@FUZZ
@given(st.lists(st.tuples(st.sampled_from(PLACES), VALUES), min_size=1, max_size=3), st.booleans())
def test_any_value_anywhere_gives_a_file_or_a_reason(
    tmp_path: Path, changes: list[tuple[tuple[Any, ...], Any]], remove: bool
) -> None:
    (tmp_path / "colours_etc1s.ktx2").write_bytes((FOLDER / "colours_etc1s.ktx2").read_bytes())
    root = sheet()
    for path, value in changes:
        place: Any = root
        try:
            for key in path[:-1]:
                place = place[key]
            if remove:
                del place[path[-1]]
            else:
                place[path[-1]] = value
        except (KeyError, IndexError, TypeError):
            continue  # an earlier change took the place away
    (tmp_path / "a.gltf").write_text(json.dumps(root))
    try:
        assert Path(readable(str(tmp_path / "a.gltf"), str(tmp_path))).is_file()
    except BadAsset as refused:
        reason = refused.reason
        allowed = {"malformed", "image_bomb", "too_complex", "unsupported_extension"}
        if reason not in allowed:
            raise


def test_numbers_come_out_as_gltf_means_them() -> None:
    file = gltf_file.GltfFile({}, "", memoryview(b""))
    view = file.add_view(np.array([0, 64, 127, -128, -127, 5], np.int8).tobytes())
    file.root["accessors"] = [
        {"bufferView": view, "componentType": 5120, "count": 2, "type": "VEC3", "normalized": True},
        {"componentType": 5126, "count": 2, "type": "SCALAR"},
    ]
    assert file.numbers(0) == pytest.approx(np.array([[0, 64 / 127, 1.0], [-1.0, -1.0, 5 / 127]]))
    assert file.numbers(1).tolist() == [[0.0], [0.0]]
