"""Any static object by its file."""

from pathlib import Path

import pytest
import torch

from fourd.gaussians import Gaussians
from fourd.objects.errors import ObjectError
from fourd.objects.glb import ReadObject
from fourd.objects.loading import load_object
from fourd.objects.ply import write_ply
from tests.fourd.objects.files import chair


def test_a_glb_is_a_mesh_and_a_ply_is_gaussians(tmp_path: Path) -> None:
    assert isinstance(load_object(chair(tmp_path / "a.GLB")), ReadObject)
    one = torch.ones(3, 1)
    gaussians = Gaussians(
        means=one.expand(3, 3), quats=one.expand(3, 4), log_scales=-one.expand(3, 3), opacity_logits=one[:, 0],
        sh=one[:, None].expand(3, 1, 3),
    )  # fmt: skip
    write_ply(gaussians, tmp_path / "a.ply")
    loaded = load_object(tmp_path / "a.ply")
    assert isinstance(loaded, Gaussians)
    assert len(loaded) == 3


@pytest.mark.parametrize(
    ("name", "reason", "advice"),
    [
        ("dragon.fbx", "unsupported", "mv4d object dragon.fbx --out dragon.glb"),
        ("dragon.gltf", "unsupported", "mv4d object"),
        ("dragon.txt", "unsupported", "give a .glb"),
        ("absent.glb", "not_found", "no such file"),
    ],
)
def test_other_files_are_refused_with_what_to_do(tmp_path: Path, name: str, reason: str, advice: str) -> None:
    if reason != "not_found":
        (tmp_path / name).write_bytes(b"dragon")
    with pytest.raises(ObjectError, match=advice) as caught:
        load_object(tmp_path / name)
    assert caught.value.reason == reason
