import numpy as np

from curate.silhouette import cut_out


def scene(noise: float) -> tuple[np.ndarray, np.ndarray]:
    """A red square that moves before grey, opaque; and where it is. Shapes (4, 32, 32, 4) and (4, 32, 32)."""
    rng = np.random.default_rng(0)
    frames = np.full((4, 32, 32, 4), 127.0)
    where = np.zeros((4, 32, 32), bool)
    for frame in range(4):
        where[frame, 8:18, 5 + 3 * frame : 15 + 3 * frame] = True
    frames[where] = [200, 60, 60, 0]
    frames += rng.uniform(-noise, noise, frames.shape)
    frames[..., 3] = 255
    return np.rint(frames).astype(np.uint8), where


def test_the_object_is_found_and_the_codecs_noise_is_not() -> None:
    frames, where = scene(noise=8.0)
    found = cut_out(frames, "#7f7f7f")[..., 3] > 0
    # The median rounds the corners.
    assert (found ^ where).sum() <= 4 * 4
    assert not found[:, :6].any()


def test_colours_stay_and_the_clip_itself_is_not_touched() -> None:
    frames, _ = scene(noise=0.0)
    before = frames.copy()
    found = cut_out(frames, "#7f7f7f")
    np.testing.assert_array_equal(found[..., :3], frames[..., :3])
    np.testing.assert_array_equal(frames, before)


def test_another_backdrop_is_everything_but_the_object() -> None:
    frames, where = scene(noise=0.0)
    assert (cut_out(frames, "#c83c3c")[..., 3] > 0)[~where].mean() > 0.98
    assert not (cut_out(frames, "#c83c3c")[..., 3] > 0)[:, 9:17, 15].all()
