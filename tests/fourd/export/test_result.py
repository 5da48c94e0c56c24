from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fourd.export.errors import ExportError
from fourd.export.glb import GlbSettings
from fourd.export.result import ExportSettings, export_result
from fourd.export.skeleton import SkeletonSettings
from fourd.export.splats import read_splats
from fourd.export.video import VideoSettings
from fourd.gaussians import Gaussians
from fourd.gltf import read_glb
from fourd.objects.static import StaticObject
from tests.fourd.export.objects import bent, static_of, write_toy

NUM_FRAMES, FPS = 4, 8.0
SMALL = VideoSettings(size_px=16, fixed_azimuths_deg=(90.0,), seconds_a_turn=0.5)


@pytest.fixture(scope="module")
def static(tmp_path_factory: pytest.TempPathFactory) -> StaticObject:
    return static_of(write_toy(tmp_path_factory.mktemp("toy") / "toy.glb"))


def frames(tracks: np.ndarray) -> list[Gaussians]:
    count = tracks.shape[1]
    return [
        Gaussians(
            means=torch.as_tensor(points), quats=torch.tensor([[1.0, 0, 0, 0]]).repeat(count, 1),
            log_scales=torch.full((count, 3), -3.0), opacity_logits=torch.full((count,), 3.0),
            sh=torch.zeros(count, 1, 3),
        )
        for points in tracks
    ]  # fmt: skip


def test_everything_is_written_the_page_first(static: StaticObject, tmp_path: Path) -> None:
    tracks = bent(static.vertices, NUM_FRAMES)
    settings = ExportSettings(ply=True, video=SMALL)
    written = export_result(tmp_path, frames(tracks), FPS, static=static, tracks=tracks, settings=settings)
    names = [str(path.relative_to(tmp_path)) for path in written]
    plys = [f"ply/frame_{frame:03d}.ply" for frame in range(NUM_FRAMES)]
    assert names == ["view.html", "animated.glb", "object.splats.safetensors", *plys, "turntable.mp4", "view_090.mp4"]
    assert all(path.stat().st_size > 0 for path in written)
    document = read_glb(tmp_path / "animated.glb").document
    assert "skins" not in document
    assert any("targets" in part for mesh in document["meshes"] for part in mesh["primitives"])
    assert document["asset"]["extras"]["mv4d"]["fps"] == FPS
    sequence = read_splats(tmp_path / "object.splats.safetensors")
    assert (len(sequence.frames), sequence.fps) == (NUM_FRAMES, FPS)
    page = (tmp_path / "view.html").read_text()
    assert 'id="glb"' in page
    assert 'id="splats-file"' in page


def test_a_skeleton_is_written_if_asked_for(static: StaticObject, tmp_path: Path) -> None:
    tracks = bent(static.vertices, NUM_FRAMES)
    settings = ExportSettings(mesh="skeleton", videos=False)
    written = export_result(tmp_path, frames(tracks), FPS, static=static, tracks=tracks, settings=settings)
    assert [path.suffix for path in written] == [".html", ".glb", ".safetensors"]
    assert "skins" in read_glb(tmp_path / "animated.glb").document


def test_the_settings_of_the_mesh_are_those_of_its_writer(static: StaticObject, tmp_path: Path) -> None:
    tracks = bent(static.vertices, NUM_FRAMES)

    def document(name: str, **changes: Any) -> dict[str, Any]:
        settings = ExportSettings(videos=False, **changes)
        export_result(tmp_path / name, frames(tracks), FPS, static=static, tracks=tracks, settings=settings)
        return read_glb(tmp_path / name / "animated.glb").document

    quantised = document("a", glb=GlbSettings(quantise=True))
    assert "KHR_mesh_quantization" in quantised["extensionsRequired"]
    many, few = (
        max(len(skin["joints"]) for skin in document(name, mesh="skeleton", skeleton=bones)["skins"])
        for name, bones in (("b", SkeletonSettings()), ("c", SkeletonSettings(max_bones=1)))
    )
    assert few < many


def test_a_mesh_without_tracks_is_no_animation(static: StaticObject, tmp_path: Path) -> None:
    written = export_result(
        tmp_path, frames(bent(static.vertices, NUM_FRAMES)), FPS, static=static, settings=ExportSettings(videos=False)
    )
    assert [path.name for path in written] == ["view.html", "object.splats.safetensors"]


def test_without_a_mesh_the_page_shows_splats_alone(static: StaticObject, tmp_path: Path) -> None:
    tracks = bent(static.vertices, NUM_FRAMES)
    written = export_result(tmp_path, frames(tracks), FPS, settings=ExportSettings(videos=False))
    assert [path.name for path in written] == ["view.html", "object.splats.safetensors"]
    page = (tmp_path / "view.html").read_text()
    assert 'id="glb"' not in page
    assert 'id="splats-file"' in page


def test_tracks_of_another_object_are_refused_before_anything_is_written(static: StaticObject, tmp_path: Path) -> None:
    tracks = bent(static.vertices, NUM_FRAMES)
    with pytest.raises(ExportError, match="another object") as caught:
        export_result(tmp_path, frames(tracks), FPS, static=static, tracks=tracks[:, 1:])
    assert caught.value.reason == "mismatch"
    assert list(tmp_path.iterdir()) == []
