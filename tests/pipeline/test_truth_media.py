import io

import cv2
import numpy as np
import pytest
from PIL import Image

from pipeline.truth_media import (
    FLOW,
    HIDDEN,
    NO_FLOW,
    NORMAL,
    PASSES,
    SEEN,
    decode_flow,
    decode_map,
    decode_tracks,
    decode_values,
    encode_flow,
    encode_map,
    encode_tracks,
    passes_of,
    scale_between,
)

SHAPE = (3, 5, 7)


def some(low: float, high: float, *shape: int) -> np.ndarray:
    """Numbers between two, a third of them missing."""
    rng = np.random.default_rng(3)
    values = rng.uniform(low, high, shape)
    values[rng.uniform(size=shape[:3]) < 0.3] = np.nan
    return values


def test_depth_comes_back_within_half_a_step_and_nothing_stays_nothing() -> None:
    values, scale = some(2.0, 4.0, *SHAPE), scale_between(2.0, 4.0)
    found = decode_values(encode_map(scale.stored(values)), SHAPE[0], scale)
    assert np.array_equal(np.isnan(found), np.isnan(values))
    assert scale.step == pytest.approx(2.0 / 65534)
    assert np.nanmax(np.abs(found - values)) <= scale.step / 2 + 1e-6


def test_the_ends_of_a_range_are_values_and_what_lies_beyond_is_its_end() -> None:
    scale = scale_between(-1.0, 1.0)
    stored = scale.stored(np.array([-1.0, 1.0, -5.0, 5.0, np.nan]))
    assert stored.tolist() == [1, 65535, 1, 65535, 0]
    assert scale.value(stored)[:2] == pytest.approx([-1.0, 1.0])


def test_normals_come_back_within_four_tenths_of_a_degree() -> None:
    normals = np.random.default_rng(0).normal(size=(2, 40, 50, 3))
    normals /= np.linalg.norm(normals, axis=-1, keepdims=True)
    content = encode_map(NORMAL.stored(normals))
    found = decode_values(content, 2, NORMAL)
    found /= np.linalg.norm(found, axis=-1, keepdims=True)
    cosine = np.einsum("fhwc,fhwc->fhw", normals, found)
    assert np.degrees(np.arccos(np.clip(cosine, -1, 1))).max() < 0.4
    with Image.open(io.BytesIO(content)) as image:  # channels are x, y, z for everybody
        assert np.array_equal(np.asarray(image).reshape(2, 40, 50, 3), NORMAL.stored(normals))


def test_flow_is_a_kitti_file() -> None:
    flow = some(-300.0, 300.0, *SHAPE, 2)
    state = np.where(np.isnan(flow[..., 0]), NO_FLOW, SEEN).astype(np.uint8)
    state[0, 0, 0], flow[0, 0, 0] = HIDDEN, (1.5, -2.25)
    content = encode_flow(flow, state)
    found, found_state = decode_flow(content, SHAPE[0])
    assert np.array_equal(found_state, state)
    assert np.array_equal(np.isnan(found[..., 0]), state == NO_FLOW)
    assert np.nanmax(np.abs(found - flow)) <= FLOW.step / 2
    raw = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_ANYDEPTH | cv2.IMREAD_COLOR)
    kitti = (raw[..., 2::-1].astype(np.float64)[..., :2] - 2**15) / 64  # as KITTI's development kit reads them
    assert kitti.reshape(*SHAPE, 2)[0, 0, 0].tolist() == [1.5, -2.25]
    assert (raw[..., 0] > 0).reshape(SHAPE)[0, 0, 0]


def test_flow_beyond_the_format_is_left_out_and_not_cut_short() -> None:
    flow = np.zeros((1, 1, 2, 2))
    flow[0, 0, 1] = 600.0, 0.0
    found, state = decode_flow(encode_flow(flow, np.full((1, 1, 2), SEEN, np.uint8)), 1)
    assert state[0, 0].tolist() == [SEEN, NO_FLOW]
    assert np.isnan(found[0, 0, 1]).all()


@pytest.mark.parametrize("num_frames", [1, 6])
def test_tracks_come_back_within_the_error_they_state(num_frames: int) -> None:
    rng = np.random.default_rng(1)
    positions = rng.uniform(-1, 1, (1, 50, 3)) + np.cumsum(rng.normal(0, 0.02, (num_frames, 50, 3)), axis=0)
    triangles, objects, materials = rng.integers(0, 50, (30, 3)), rng.integers(0, 4, 30), rng.integers(-1, 3, 30)
    content = encode_tracks(positions, triangles, objects, materials)
    found = decode_tracks(content)
    assert np.abs(found.positions - positions).max() <= found.max_error
    assert found.max_error < 3e-5
    assert np.array_equal(found.triangles, triangles)
    assert np.array_equal(found.objects, objects)
    assert np.array_equal(found.materials, materials)
    assert encode_tracks(positions, triangles, objects, materials) == content


def test_what_does_not_move_and_what_is_flat_is_tracked_too() -> None:
    positions = np.zeros((3, 4, 3))
    positions[..., 0] = [0.0, 0.5, 0.5, 1.0]
    found = decode_tracks(encode_tracks(positions, np.zeros((1, 3)), np.zeros(1), np.zeros(1)))
    assert np.abs(found.positions - positions).max() < 1e-5


def test_a_strip_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="not a PNG"):
        decode_map(b"", 1)
    with pytest.raises(ValueError, match="not a PNG"):
        decode_map(b"GIF89a", 1)
    with pytest.raises(ValueError, match="does not hold 4 frames"):
        decode_map(encode_map(np.ones(SHAPE, np.uint16)), 4)


def test_tracks_that_are_none_or_would_run_something_are_refused() -> None:
    with pytest.raises(ValueError, match="no tracks"):
        decode_tracks(b"PK")
    evil = io.BytesIO()
    np.savez(evil, moved=np.array([object()], dtype=object), low=np.zeros(3), step=np.ones(3))
    with pytest.raises(ValueError, match=r"pickle|no tracks"):
        decode_tracks(evil.getvalue())
    with pytest.raises(ValueError, match="a vertex that is not there"):
        decode_tracks(encode_tracks(np.zeros((1, 2, 3)), np.full((1, 3), 2), np.zeros(1), np.zeros(1)))


def test_passes_have_groups_and_one_order() -> None:
    assert passes_of("") == ()
    assert passes_of("tracks, depth") == ("depth", "tracks")
    assert passes_of("flow,flow_forward,ids") == ("flow_forward", "flow_backward", "object", "material")
    assert passes_of("all") == PASSES
    with pytest.raises(ValueError, match="no such pass: 'albedo'"):
        passes_of("depth,albedo")
