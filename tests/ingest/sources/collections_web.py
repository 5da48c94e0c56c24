"""The published collections as a server of ours shows them: the same paths, columns and file formats."""

import gzip
import hashlib
import io
import json
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ingest.fetch import FetchSettings
from ingest.sources.lists import Sites
from tests.ingest.tiny import triangle_glb
from tests.ingest.web import Web

QUICK = FetchSettings(
    attempts=2, first_wait_s=0.01, longest_wait_s=0.02, timeout_s=5.0, deadline_s=20.0, allow_private=True
)
COMMIT = "0123456789abcdef0123456789abcdef01234567"


def sites_of(web: Web) -> Sites:
    return Sites(
        objaverse=f"{web.url}/datasets/allenai/objaverse/resolve/main",
        objaverse_xl=f"{web.url}/datasets/allenai/objaverse-xl/resolve/main",
        sketchfab=f"{web.url}/v3",
        thingiverse=f"{web.url}/thingiverse",
        github_raw=f"{web.url}/raw",
        github_media=f"{web.url}/media",
    )


def uid(number: int) -> str:
    return hashlib.md5(str(number).encode()).hexdigest()


def about(number: int, **changes: Any) -> dict[str, Any]:
    """One object's metadata, with Sketchfab's keys."""
    values = {
        "uri": f"https://api.sketchfab.com/v3/models/{uid(number)}", "uid": uid(number), "name": f"Thing {number}",
        "animationCount": number % 2, "viewerUrl": f"https://sketchfab.com/3d-models/thing-{number}-{uid(number)}",
        "license": "by", "tags": [{"name": "Walk", "slug": "walk", "uri": "x"}],
        "categories": [{"name": "animals-pets"}], "user": {"username": "ann", "displayName": f"Ann {number}"},
    }  # fmt: skip
    return values | changes


def serve_objaverse(
    web: Web, objects: list[dict[str, Any]], *, per_folder: int = 2, num_bytes: int = 0, redirect: bool = False
) -> None:
    """`object-paths.json.gz`, `metadata/000-00x.json.gz`, and the files.

    Args:
        web: What serves them.
        objects: Their metadata.
        per_folder: Objects that share a metadata file.
        num_bytes: To make the files larger by.
        redirect: Answer with the place where the file really is, as Hugging Face does.
    """
    root = "/datasets/allenai/objaverse/resolve/main"
    paths = {}
    folders: dict[str, dict[str, Any]] = {}
    for place, metadata in enumerate(objects):
        folder = f"000-{place // per_folder:03d}"
        paths[metadata["uid"]] = f"glbs/{folder}/{metadata['uid']}.glb"
        folders.setdefault(folder, {})[metadata["uid"]] = metadata
        path = f"{root}/{paths[metadata['uid']]}"
        if redirect:
            web.redirects[path] = f"/cdn/{metadata['uid']}"
            path = web.redirects[path]
        web.files[path] = triangle_glb(seed=place, num_bytes=num_bytes)
    web.files[f"{root}/object-paths.json.gz"] = gzip.compress(json.dumps(paths).encode())
    for folder, content in folders.items():
        web.files[f"{root}/metadata/{folder}.json.gz"] = gzip.compress(json.dumps(content).encode())


def serve_xl(web: Web, part: str, rows: list[dict[str, Any]]) -> None:
    """The annotation Parquet of a part."""
    buffer = io.BytesIO()
    columns = ("fileIdentifier", "source", "license", "fileType", "sha256", "metadata")
    pq.write_table(pa.table({name: [row.get(name) for row in rows] for name in columns}), buffer)
    web.files[f"/datasets/allenai/objaverse-xl/resolve/main/{part}/{part}.parquet"] = buffer.getvalue()


def github_row(path: str, content: bytes, **changes: Any) -> dict[str, Any]:
    values = {
        "fileIdentifier": f"https://github.com/ann/models/blob/{COMMIT}/{path}", "source": "github",
        "license": "MIT License", "fileType": path.rpartition(".")[2],
        "sha256": hashlib.sha256(content).hexdigest(), "metadata": "{}",
    }  # fmt: skip
    return values | changes
