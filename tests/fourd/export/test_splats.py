"""Compact splat sequences."""

import json
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from fourd.export.errors import ExportError
from fourd.export.splats import (
    SplatSequence,
    pack_rotations,
    read_splats,
    unpack_rotations,
    write_ply_frames,
    write_splats,
)
from fourd.gaussians import Gaussians
from fourd.objects.ply import read_ply


def cloud(num_frames: int = 4, count: int = 200, num_coefficients: int = 4) -> SplatSequence:
    rng = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=rng)

    start, drift, sh = normal(count, 3) * 0.4, normal(count, 3) * 0.05, normal(count, num_coefficients, 3)
    log_scales, logits = normal(count, 3) - 4, normal(count)
    frames = tuple(
        Gaussians(
            means=start + index * drift,
            quats=normal(count, 4),
            log_scales=log_scales,
            opacity_logits=logits,
            sh=sh,
        )
        for index in range(num_frames)
    )
    return SplatSequence(frames=frames, fps=8.0)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    sequence = cloud()
    size = write_splats(sequence, tmp_path / "cloud.splats.safetensors")
    back = read_splats(tmp_path / "cloud.splats.safetensors")
    assert back.fps == 8.0
    assert len(back.frames) == 4
    for was, now in zip(sequence.frames, back.frames, strict=True):
        assert (now.means - was.means).abs().max() < 1e-4
        assert (now.log_scales - was.log_scales).abs().max() < 1e-3
        assert (now.opacity_logits.sigmoid() - was.opacity_logits.sigmoid()).abs().max() < 2.1 / 255
        assert (now.sh - was.sh).abs().max() < 2e-3
        aligned = (now.quats * torch.nn.functional.normalize(was.quats, dim=1)).sum(dim=1).abs()
        assert torch.rad2deg(2 * torch.acos(aligned.clamp(max=1))).max() < 0.3
    plain = 4 * 200 * 4 * (3 + 4 + 3 + 1 + 12)
    assert size < plain / 4


def test_what_changes_is_kept_a_frame_and_what_does_not_once(tmp_path: Path) -> None:
    sequence = cloud()
    path = tmp_path / "cloud.splats.safetensors"
    write_splats(sequence, path)
    shapes = {name: value.shape[0] for name, value in load_file(path).items()}
    assert shapes == {
        "bounds": 4, "positions": 4, "rotations": 4, "log_scale_bounds": 2, "log_scales": 1, "opacities": 1, "sh": 1,
    }  # fmt: skip
    grown = tuple(
        Gaussians(**{**vars(frame), "log_scales": frame.log_scales + 0.1 * index})
        for index, frame in enumerate(sequence.frames)
    )
    write_splats(SplatSequence(frames=grown, fps=8.0), path)
    assert (read_splats(path).frames[3].log_scales - grown[3].log_scales).abs().max() < 1e-3


def test_a_ply_a_frame_sorts_into_order(tmp_path: Path) -> None:
    sequence = cloud(num_frames=12, count=10)
    paths = write_ply_frames(sequence, tmp_path / "plys")
    assert sorted((tmp_path / "plys").iterdir()) == paths
    for path, frame in zip(paths, sequence.frames, strict=True):
        assert torch.equal(read_ply(path).means, frame.means)


def test_rotations_come_back_whatever_their_sign_and_length() -> None:
    rng = np.random.default_rng(0)
    quats = rng.normal(size=(1000, 4)) * rng.uniform(0.01, 100, size=(1000, 1))
    quats[:4] = np.eye(4)
    quats[4:8] = -np.eye(4)
    back = unpack_rotations(pack_rotations(quats))
    unit = quats / np.linalg.norm(quats, axis=1, keepdims=True)
    assert np.degrees(2 * np.arccos(np.abs((back * unit).sum(axis=1)).clip(max=1))).max() < 0.3


@pytest.mark.parametrize("fault", ["not_finite", "mismatch", "empty"])
def test_frames_that_are_no_sequence_are_refused(fault: str) -> None:
    frames = list(cloud().frames)
    if fault == "not_finite":
        frames[2].means[5, 1] = torch.nan
    elif fault == "mismatch":
        frames[2] = cloud(count=199).frames[0]
    else:
        frames = []
    with pytest.raises(ExportError) as caught:
        SplatSequence(frames=tuple(frames), fps=8.0)
    assert caught.value.reason == ("not_finite" if fault == "not_finite" else "mismatch")


def header(changes: dict[str, object]) -> bytes:
    text = json.dumps(
        {"__metadata__": {"format": "mv4d.splats", "version": "1", "fps": "8", "num_frames": "4"}} | changes
    )
    return struct.pack("<Q", len(text)) + text.encode()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "malformed"),
        (b"ply\nformat binary_little_endian 1.0\n", "malformed"),
        (header({}), "malformed"),
        (header({"__metadata__": {"format": "else"}}), "unsupported"),
        (header({"positions": {"dtype": "U16", "shape": [4, 2**40, 3], "data_offsets": [0, 24 << 40]}}), "malformed"),
    ],
)
def test_broken_files_are_refused_by_name(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "bad.splats.safetensors"
    path.write_bytes(content)
    with pytest.raises(ExportError, match="bad") as caught:
        read_splats(path)
    assert caught.value.reason == reason


@pytest.mark.parametrize("change", ["shape", "dtype", "nan", "frames"])
def test_tensors_that_do_not_fit_together_are_refused(tmp_path: Path, change: str) -> None:
    path = tmp_path / "bad.splats.safetensors"
    write_splats(cloud(), path)
    tensors = load_file(path)
    if change == "shape":
        tensors["rotations"] = tensors["rotations"][:, :-1].copy()
    elif change == "dtype":
        tensors["sh"] = tensors["sh"].astype(np.float32)
    elif change == "nan":
        tensors["bounds"][1, 0, 0] = np.inf
    num_frames = "1000000" if change == "frames" else "4"
    save_file(tensors, path, {"format": "mv4d.splats", "version": "1", "fps": "8", "num_frames": num_frames})
    with pytest.raises(ExportError) as caught:
        read_splats(path)
    assert caught.value.reason == "malformed"
