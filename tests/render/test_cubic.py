"""Cubic splines as polylines, against their formula; no Blender."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from render.blender import cubic
from render.blender.gltf_file import GltfFile

NUMBERS = arrays.arrays(np.float64, (4, 3, 2), elements=st.floats(-10, 10, width=32))
TIMES = np.array([0.0, 0.5, 2.0, 2.25])


def file_of(times: np.ndarray, keys: np.ndarray, path: str = "translation") -> GltfFile:
    file = GltfFile({}, "", memoryview(b""))
    padded = np.zeros((*keys.shape[:2], 3))
    padded[..., : keys.shape[2]] = keys
    sampler = {
        "input": file.add_accessor(times[:, None], "SCALAR"),
        "output": file.add_accessor(padded.reshape(-1, 3), "VEC3"),
        "interpolation": "CUBICSPLINE",
    }
    file.root["animations"] = [{"samplers": [sampler], "channels": [{"sampler": 0, "target": {"path": path}}]}]
    return file


def straightened(file: GltfFile) -> tuple[np.ndarray, np.ndarray]:
    cubic.straighten(file)
    (sampler,) = file.root["animations"][0]["samplers"]
    assert sampler["interpolation"] == "LINEAR"
    return file.numbers(sampler["input"])[:, 0], file.numbers(sampler["output"])


def formula(time: float, keys: np.ndarray) -> np.ndarray:
    """glTF 2.0, appendix C.5."""
    place = min(int(np.searchsorted(TIMES, time, side="right")) - 1, len(TIMES) - 2)
    length = TIMES[place + 1] - TIMES[place]
    t = (time - TIMES[place]) / length
    weights = [2 * t**3 - 3 * t**2 + 1, length * (t**3 - 2 * t**2 + t), -2 * t**3 + 3 * t**2, length * (t**3 - t**2)]
    parts = [keys[place, 1], keys[place, 2], keys[place + 1, 1], keys[place + 1, 0]]
    return np.asarray(sum(weight * part for weight, part in zip(weights, parts, strict=True)))


@given(NUMBERS)
def test_the_polyline_stays_close_to_the_curve(keys: np.ndarray) -> None:
    times, values = straightened(file_of(TIMES, keys))
    assert set(TIMES) <= set(times)
    assert (np.diff(times) > 0).all()
    exact = np.array([formula(time, keys) for time in np.linspace(0.0, 2.25, 300)])
    extent = max(float(np.ptp(exact, axis=0).max()), float(np.ptp(keys[:, 1], axis=0).max()), 1e-6)
    found = np.stack([np.interp(np.linspace(0.0, 2.25, 300), times, values[:, axis]) for axis in range(2)], axis=1)
    assert np.abs(found - exact).max() <= 20 * cubic.TOLERANCE * extent


def test_straight_lines_get_no_keys() -> None:
    keys = np.zeros((4, 3, 2))
    keys[:, 1, 0] = 3 * TIMES
    keys[:, [0, 2], 0] = 3.0
    times, _ = straightened(file_of(TIMES, keys))
    assert times == pytest.approx(TIMES)


def test_one_key_is_kept_as_it_is() -> None:
    times, values = straightened(file_of(TIMES[:1], np.ones((1, 3, 2))))
    assert times.tolist() == [0.0]
    assert values.tolist() == [[1.0, 1.0, 0.0]]


def test_many_curves_get_fewer_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    keys = np.random.default_rng(1).normal(size=(4, 3, 2))
    many = len(straightened(file_of(TIMES, keys))[0])
    monkeypatch.setattr(cubic, "MOST_NUMBERS", 60)
    assert len(TIMES) <= len(straightened(file_of(TIMES, keys))[0]) <= 21 < many


def test_rotations_are_unit_quaternions() -> None:
    file = GltfFile({}, "", memoryview(b""))
    keys = np.zeros((2, 3, 4))
    keys[0, 1], keys[1, 1], keys[0, 2] = [0, 0, 0, 1], [0, 0, 1, 0], [0, 3, 0, 0]
    sampler = {
        "input": file.add_accessor(np.array([[0.0], [1.0]]), "SCALAR"),
        "output": file.add_accessor(keys.reshape(-1, 4), "VEC4"),
        "interpolation": "CUBICSPLINE",
    }
    file.root["animations"] = [{"samplers": [sampler], "channels": [{"sampler": 0, "target": {"path": "rotation"}}]}]
    _, values = straightened(file)
    assert np.linalg.norm(values, axis=1) == pytest.approx(1.0, abs=1e-6)
    assert len(values) > 10
