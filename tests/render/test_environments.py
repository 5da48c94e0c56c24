"""Pictures of surroundings on their way from a folder into the data root, decoded by the sandboxed child."""

import dataclasses
import hashlib
from pathlib import Path

import numpy as np
import pytest

from pipeline.storage import Store
from render.environments import blob_of, copy_pictures, with_pictures
from render.look import Look
from render.supervisor import BlenderSettings
from tests.render.panoramas import openexr, radiance, sky

pytestmark = pytest.mark.blender

BLENDER = BlenderSettings(memory_mb=2000)


def folder_of(path: Path, **files: bytes) -> Look:
    path.mkdir(exist_ok=True)
    for name, content in files.items():
        (path / name.replace("_", ".")).write_bytes(content)
    return Look(lights="hdri", hdri_folder=str(path))


def test_content_decides_not_the_path(store: Store, tmp_path: Path) -> None:
    evening, noon = radiance(sky(90)), openexr(sky())
    first = with_pictures(folder_of(tmp_path / "a", one_hdr=evening, two_exr=noon), store, BLENDER)
    second = with_pictures(folder_of(tmp_path / "b", x_HDR=evening, y_exr=noon), store, BLENDER)
    assert first == second
    assert first.hdri_folder == ""
    assert set(first.hdris) == {
        f"{hashlib.sha256(evening).hexdigest()}.hdr",
        f"{hashlib.sha256(noon).hexdigest()}.exr",
    }
    assert {store.read_bytes(blob_of(name)) for name in first.hdris} == {evening, noon}
    other = Store(str(tmp_path / "elsewhere"))
    copy_pictures(first, store, other)
    assert other.list_files("") == store.list_files("environments")


def test_what_was_looked_at_is_not_looked_at_again(store: Store, tmp_path: Path) -> None:
    look = folder_of(tmp_path / "a", one_hdr=radiance(sky()))
    taken = with_pictures(look, store, BLENDER)
    nobody = dataclasses.replace(BLENDER, blender_python="/nowhere/python")
    assert with_pictures(look, store, nobody) == taken


def a_nan() -> np.ndarray:
    pixels = sky()
    pixels[3, 3] = np.nan
    return pixels


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("broken_hdr", b"no picture", "no HDR picture"),
        ("bomb_hdr", b"#?RADIANCE\n\n-Y 60000 +X 120000\n", "120000 x 60000 pixels, the limit is 8192"),
        ("truncated_exr", openexr(sky())[:900], "no HDR picture"),
        ("square_hdr", radiance(sky()[:, :16]), "no panorama: 16 x 16"),
        ("nan_exr", openexr(a_nan()), "infinite"),
        ("negative_exr", openexr(sky() - 1.0), "infinite"),
        ("night_hdr", radiance(np.zeros((16, 32, 3), np.float32)), "gives no light"),
    ],
)
def test_a_bad_picture_is_a_bad_setting(
    store: Store, tmp_path: Path, name: str, content: bytes, complaint: str
) -> None:
    with pytest.raises(ValueError, match=complaint):
        with_pictures(folder_of(tmp_path / "a", **{name: content}), store, BLENDER)
    assert not store.list_files("environments")


def test_a_folder_without_pictures_is_refused(store: Store, tmp_path: Path) -> None:
    for look in (folder_of(tmp_path / "a", sky_png=b"x"), Look(lights="hdri", hdri_folder=str(tmp_path / "absent"))):
        with pytest.raises(ValueError, match=r"no \.hdr or \.exr"):
            with_pictures(look, store, BLENDER)
