import hashlib
from pathlib import Path
from typing import Any

import pytest

from ingest.sources.lists import Lists, Only
from ingest.sources.objaverse_xl import ObjaverseXl
from ingest.stage import Ingest
from pipeline.records import Asset, Rejected
from tests.ingest.sources.collections_web import (
    COMMIT,
    QUICK,
    about,
    github_row,
    serve_objaverse,
    serve_xl,
    sites_of,
    uid,
)
from tests.ingest.tiny import triangle_glb
from tests.ingest.web import Web

FOX, OWL = triangle_glb(seed=1), triangle_glb(seed=2)


def source(web: Web, tmp_path: Path, **only: Any) -> ObjaverseXl:
    return ObjaverseXl(lists=Lists(cache=tmp_path / "cache", fetch=QUICK), sites=sites_of(web), only=Only(**only))


def ingested(web: Web, tmp_path: Path, found: ObjaverseXl) -> dict[str, str]:
    """Name of each item to its format, or the reason for which it was turned away."""
    stage = Ingest(data=str(tmp_path / "data"), fetch=QUICK, sites=sites_of(web))
    outcomes = {}
    for item in found.items():
        row = next(iter(stage.process(item)))
        assert isinstance(row, Asset | Rejected)
        outcomes[item.name.rpartition("/")[2]] = row.reason if isinstance(row, Rejected) else row.format
    return outcomes


@pytest.fixture
def xl(web: Web) -> Web:
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:aa\nsize 3\n"
    web.files |= {
        f"/raw/ann/models/{COMMIT}/fox.glb": FOX,
        f"/raw/ann/models/{COMMIT}/changed.glb": OWL,
        f"/raw/ann/models/{COMMIT}/a%20b/big.glb": pointer,
        f"/media/ann/models/{COMMIT}/a%20b/big.glb": OWL,
    }
    serve_xl(
        web,
        "github",
        [
            github_row("fox.glb", FOX),
            github_row("changed.glb", FOX),
            github_row("gone.glb", FOX, sha256="b" * 64),
            github_row("a b/big.glb", OWL),
            github_row("table.stl", FOX),
            github_row("free.fbx", FOX, license=None),
        ],
    )
    serve_objaverse(web, [about(1), about(2), about(3)])
    digest = hashlib.sha256(triangle_glb(seed=0)).hexdigest()
    sketchfab = [(1, digest), (2, digest), (3, "c" * 64)]
    serve_xl(
        web,
        "sketchfab",
        [{"fileIdentifier": f"https://sketchfab.com/3d-models/{uid(n)}", "sha256": sha} for n, sha in sketchfab],
    )
    page = f"{web.url}/smithsonian/bison.glb"
    web.files["/smithsonian/bison.glb"] = triangle_glb(seed=9)
    serve_xl(
        web,
        "smithsonian",
        [{"fileIdentifier": page, "license": "CC0", "fileType": "glb", "sha256": "", "metadata": '{"title": "Bison"}'}],
    )
    return web


def test_every_object_ends_as_found_modified_or_missing(xl: Web, tmp_path: Path) -> None:
    assert ingested(xl, tmp_path, source(xl, tmp_path)) == {
        "fox.glb": "glb",
        "changed.glb": "checksum_mismatch",
        "gone.glb": "not_found",
        "big.glb": "glb",
        "free.fbx": "licence_unknown",
        uid(1): "glb",
        uid(3): "checksum_mismatch",
        "bison.glb": "glb",
    }


def test_github_objects_are_single_files_at_their_commit(xl: Web, tmp_path: Path) -> None:
    item = next(item for item in source(xl, tmp_path).items() if item.name.endswith("big.glb"))
    assert item.uri == f"{xl.url}/raw/ann/models/{COMMIT}/a%20b/big.glb"
    assert item.source_url == f"https://github.com/ann/models/blob/{COMMIT}/a b/big.glb"
    assert (item.author, item.spdx, item.checked_on) == ("ann", "MIT License", "2023-07-11")


def test_ids_are_file_identifiers_or_hashes_and_missing_ones_are_told(xl: Web, tmp_path: Path) -> None:
    fox = hashlib.sha256(FOX).hexdigest()
    ids = tmp_path / "ids.csv"
    ids.write_text(f"sha256,score\n{'b' * 64},1\n{'9' * 64},2\n")
    names = [item.name.rpartition("/")[2] for item in source(xl, tmp_path, ids=str(ids)).items()]
    assert names == ["gone.glb", "9" * 64]
    ids.write_text(f"https://sketchfab.com/3d-models/{uid(1)}\n{fox}\n")
    found = list(source(xl, tmp_path, ids=str(ids)).items())
    assert sorted(item.name.rpartition("/")[2] for item in found) == sorted(
        ["fox.glb", "changed.glb", "free.fbx", uid(1)]
    )


def test_the_first_so_many(xl: Web, tmp_path: Path) -> None:
    assert len(list(source(xl, tmp_path, max_items=2).items())) == 2
    # Nothing of a later part is asked for.
    assert not [path for path in xl.asked if "sketchfab" in path]


def test_things_that_do_not_move_are_listed_only_if_they_are_wanted(xl: Web, tmp_path: Path) -> None:
    page = "https://www.thingiverse.com/thing:12345/files?fileId=678"
    serve_xl(xl, "thingiverse", [{"fileIdentifier": page, "license": "CC BY 4.0", "fileType": "stl", "sha256": ""}])
    assert not [item for item in source(xl, tmp_path).items() if item.source_url == page]
    (item,) = (item for item in source(xl, tmp_path, animated=False).items() if item.source_url == page)
    assert item.uri == f"{xl.url}/thingiverse/download:678"


def test_annotations_without_their_column_are_refused(web: Web, tmp_path: Path) -> None:
    web.files["/datasets/allenai/objaverse-xl/resolve/main/github/github.parquet"] = b"PAR1 no table PAR1"
    with pytest.raises(ValueError, match=r"github\.parquet is no Parquet"):
        list(source(web, tmp_path).items())
