"""The built-in samples: the same bytes every time, wide enough in what they cover, and as their manifest says."""

import csv
import hashlib
import json
import os
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.reasons import REASONS
from tests.conftest import REPOSITORY

pytestmark = pytest.mark.blender

Row = dict[str, str]

COUNT_ACTIONS = """
import os, sys
out = os.dup(1); os.dup2(2, 1)  # Blender prints to descriptor 1
import bpy
path = sys.argv[1]
if path.endswith(".blend"):
    bpy.ops.wm.open_mainfile(filepath=path)
else:
    bpy.ops.wm.read_factory_settings(use_empty=True)
    (bpy.ops.import_scene.fbx if path.endswith(".fbx") else bpy.ops.wm.usd_import)(filepath=path)
# FBX: one action an object and stack, named "object|stack".
names = {action.name.split("|", 1)[-1] for action in bpy.data.actions}
os.write(out, str(len(names)).encode())
"""


def make_samples(out_dir: Path, hash_seed: str) -> Path:
    """Run the command in a process of its own."""
    subprocess.run(
        [sys.executable, "-m", "render.blender.make_samples", str(out_dir)],
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONHASHSEED": hash_seed, "OMP_NUM_THREADS": "1"},
        check=True,
        capture_output=True,
    )
    return out_dir


@pytest.fixture(scope="session")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_samples(tmp_path_factory.mktemp("samples") / "first", hash_seed="1")


@pytest.fixture(scope="session")
def rows(samples: Path) -> list[Row]:
    with (samples / "manifest.csv").open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def digests(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def gltf_json(path: Path) -> dict[str, object]:
    content = path.read_bytes()
    if path.suffix == ".glb":
        (size,) = struct.unpack_from("<I", content, 12)
        content = content[20 : 20 + size]
    return dict(json.loads(content))


def test_two_processes_write_the_same_bytes(samples: Path, tmp_path: Path) -> None:
    # Another hash seed, folder, and time of day: what exporters let slip into files.
    again = make_samples(tmp_path / "somewhere" / "else", hash_seed="2")
    assert digests(samples) == digests(again)


def test_making_them_again_in_place_changes_nothing(samples: Path) -> None:
    before = digests(samples)
    make_samples(samples, hash_seed="3")
    assert digests(samples) == before


def test_the_set_is_wide(rows: list[Row]) -> None:
    clips = [row for row in rows if row["expect"].startswith("clips")]
    tags = {tag for row in clips for tag in row["tags"].split(";")}
    counts = [int(row["expect_actions"]) for row in clips]
    assert len(rows) >= 22
    assert len(clips) >= 12
    assert {".glb", ".gltf", ".fbx", ".usdc", ".usdz", ".blend"} <= {Path(row["file"]).suffix for row in clips}
    assert {"skinned", "morph targets", "rigid parts", "textured", "vertex colours", "several materials"} <= tags
    assert max(counts) == 8
    assert sum(count >= 3 for count in counts) >= 3


def test_every_fault_is_there(rows: list[Row]) -> None:
    faults = {
        "no_animation", "too_still", "leaves_frame", "rigid_only", "teleport", "non_finite", "truncated", "empty_file",
        "not_an_asset", "licence_not_allowed", "noai", "licence_unknown", "duplicate_bytes",
    }  # fmt: skip
    expected = {row["expect"] for row in rows}
    assert {f"rejected:{fault}" for fault in faults} | {"clips", "clips:missing_texture"} == expected
    assert faults <= set(REASONS)


def test_the_manifest_is_well_formed(samples: Path, rows: list[Row]) -> None:
    assert len({row["file"] for row in rows}) == len(rows)
    for row in rows:
        assert (samples / row["file"]).is_file()
        assert row["title"]
        assert row["author"] == "mv4d"
        assert row["noai"] in ("", "true", "false")
        assert (row["spdx"] == "CC0-1.0") == row["licence_url"].endswith("/publicdomain/zero/1.0/")
    unlicensed = {row["expect"] for row in rows if row["spdx"] != "CC0-1.0"}
    assert unlicensed == {"rejected:licence_not_allowed", "rejected:noai", "rejected:licence_unknown"}


def test_only_the_announced_copy_repeats_bytes(samples: Path, rows: list[Row]) -> None:
    seen: set[str] = set()
    for row in rows:
        digest = hashlib.sha256((samples / row["file"]).read_bytes()).hexdigest()
        assert (digest in seen) == (row["expect"] == "rejected:duplicate_bytes"), row["file"]
        seen.add(digest)


def test_gltf_files_hold_the_animations_they_announce(samples: Path, rows: list[Row]) -> None:
    checked = 0
    for row in rows:
        if row["expect_actions"] and row["file"].endswith((".glb", ".gltf")):
            animations = gltf_json(samples / row["file"]).get("animations", [])
            assert isinstance(animations, list)
            assert len(animations) == int(row["expect_actions"]), row["file"]
            checked += 1
    assert checked >= 15


def test_lengths_cover_less_than_a_window_and_two_windows(samples: Path, rows: list[Row]) -> None:
    """A window is 2 s; an animation over 4 s gives two."""
    lengths = {}
    for row in rows:
        if row["expect"] == "clips" and row["file"].endswith((".glb", ".gltf")):
            document: dict = gltf_json(samples / row["file"])
            for animation in document["animations"]:
                ends = [document["accessors"][sampler["input"]]["max"][0] for sampler in animation["samplers"]]
                lengths[row["file"], animation["name"]] = max(ends)
    assert min(lengths.values()) < 2.0
    assert max(lengths.values()) > 4.0


@pytest.mark.parametrize("suffix", [".fbx", ".usdc", ".usdz", ".blend"])
def test_blender_reads_the_announced_animations_back(samples: Path, rows: list[Row], suffix: str) -> None:
    for row in rows:
        if row["file"].endswith(suffix):
            command = [sys.executable, "-c", COUNT_ACTIONS, str(samples / row["file"])]
            counted = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            assert counted == row["expect_actions"], row["file"]


def test_a_missing_picture_is_named_but_absent(samples: Path, rows: list[Row]) -> None:
    (row,) = [row for row in rows if row["expect"] == "clips:missing_texture"]
    document: dict = gltf_json(samples / row["file"])
    assert document["images"]
    assert not list((samples / row["file"]).parent.glob("*.png"))


def test_a_cut_off_file_announces_more_than_it_holds(samples: Path, rows: list[Row]) -> None:
    (row,) = [row for row in rows if row["expect"] == "rejected:truncated"]
    content = (samples / row["file"]).read_bytes()
    assert struct.unpack_from("<I", content, 8)[0] > len(content)
