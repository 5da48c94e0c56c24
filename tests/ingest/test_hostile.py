"""Real assets, good and hostile, each with the outcome it must have."""

import csv
from pathlib import Path

import pytest

from ingest.register import register
from ingest.sources.manifest import Manifest
from ingest.stage import Ingest
from pipeline.records import Asset, Inspection, Rejected, SourceItem
from pipeline.tables import Tables

OUTCOMES = {
    "truncated.glb": "truncated",
    "bad_length_header.glb": "malformed",
    "nan_positions.glb": "non_finite",
    "nan_animation.glb": "non_finite",
    "inf_positions.glb": "non_finite",
    "million_seconds.glb": "absurd_duration",
    "accessor_overrun.glb": "malformed",
    "node_cycle.glb": "malformed",
    "deep_chain.glb": "too_complex",
    "unknown_required_ext.glb": "unsupported_extension",
    "uri_traversal.glb": "unsafe_uri",
    "image_bomb.glb": "image_bomb",
    "no_mesh.glb": "no_mesh",
    "empty_scene.gltf": "no_mesh",
    "zero_bytes.glb": "empty_file",
    "html_404.glb": "not_an_asset",
    "bad_json.gltf": "malformed",
}
PASSING = {
    "constant_animation.glb",  # nothing moves: for the probe to see
    "teleport_key.glb",
    "leaves_frame.glb",
    "huge_scale.glb",
    "tiny_scale.glb",
    "missing_texture.glb",
    "quantized.glb",
    "draco.glb",
    "meshopt.glb",
}


@pytest.fixture(scope="module")
def outcome(real_assets: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[object]]:
    """Name to rows, for all of the catalogue."""
    stage = Ingest(data=str(tmp_path_factory.mktemp("data")))
    items = list(Manifest(path=real_assets / "catalog.csv").items())
    try:
        return {item.name: list(stage.process(item)) for item in items}
    finally:
        stage.close()


def test_the_catalogue_is_read_as_it_is(real_assets: Path, tables: Tables) -> None:
    items = list(register(tables, Manifest(path=real_assets / "catalog.csv")))
    assert len(items) == 84
    assert [item.seq for item in items] == list(range(84))
    horse = items[0]
    assert (horse.name, horse.spdx, horse.tags) == ("Horse.glb", "CC0-1.0", ("skinned", "multi-anim"))
    assert horse.source_url.startswith("https://github.com/trebeljahr/quaternius-showcase/blob/eab2e43a7e68/public/")
    assert tables.rows(SourceItem) == sorted(items, key=lambda item: item.item_id)


def test_every_hostile_file_ends_as_it_should(outcome: dict[str, list[object]]) -> None:
    hostile = {name.removeprefix("hostile/"): rows for name, rows in outcome.items() if name.startswith("hostile/")}
    found = {name: rows[0].reason for name, rows in hostile.items() if isinstance(rows[0], Rejected)}
    assert found == OUTCOMES
    assert hostile.keys() - found.keys() == PASSING


def test_a_missing_texture_is_a_tag_and_no_fault(outcome: dict[str, list[object]]) -> None:
    (found,) = (row for row in outcome["hostile/missing_texture.glb"] if isinstance(row, Inspection))
    assert found.missing_files == ("textures/not_there.png",)


def test_a_refusal_names_the_file_and_what_to_do(outcome: dict[str, list[object]]) -> None:
    for rows in outcome.values():
        for row in rows:
            if isinstance(row, Rejected):
                assert row.name in row.detail
                assert "; " in row.detail


def test_ordinary_assets_pass_and_static_ones_do_not(outcome: dict[str, list[object]]) -> None:
    refused = {
        name: rows[0].reason
        for name, rows in outcome.items()
        if isinstance(rows[0], Rejected) and not name.startswith("hostile/")
    }
    assert refused == {
        "Armor_Leather.glb": "no_animation",
        "BirchTree_3.glb": "no_animation",
        "maya_character_7500_ascii.fbx": "unsupported_format",
    }


def test_counts_agree_with_the_catalogue(outcome: dict[str, list[object]], real_assets: Path) -> None:
    with (real_assets / "catalog.csv").open(newline="") as file:
        rows = {row["file"]: row for row in csv.DictReader(file)}
    for name, made in outcome.items():
        for found in made:
            if isinstance(found, Inspection) and rows[name]["gltf_animations"]:
                assert len(found.animation_names) == int(rows[name]["gltf_animations"]), name
                assert found.num_skins == int(rows[name]["skins"]), name
                assert found.num_images == int(rows[name]["images"]), name


def test_licences_become_classes(outcome: dict[str, list[object]]) -> None:
    classes = {name: row.licence_class for name, rows in outcome.items() for row in rows if isinstance(row, Asset)}
    assert classes["Horse.glb"] == "cc0"
    assert classes["CesiumMan.glb"] == "by"
    assert classes["boxman.blend"] == "permissive"
    assert classes["maya_character_7500_binary.fbx"] == "permissive"
    formats = {row.format for rows in outcome.values() for row in rows if isinstance(row, Asset)}
    assert formats == {"glb", "gltf", "fbx", "blend"}
