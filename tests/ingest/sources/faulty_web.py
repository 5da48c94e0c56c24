"""All collections on one server, hundreds of objects each, of which three in ten come to harm on the way.

Each object is known by its name in the tables, and so is what must become of it.
"""

import hashlib
import io
import json
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import cycle
from typing import Any

from ingest.sources.lists import Sites
from tests.ingest.sources.collections_web import COMMIT, about, github_row, serve_objaverse, serve_xl, sites_of, uid
from tests.ingest.tiny import triangle, triangle_glb
from tests.ingest.web import Web

TOKEN = "s3cret-t0ken-0123456789"
MAX_BYTES = 100_000
STORED = "stored"
PAGE = 24
"""Models on a page of the search."""

PASSING = ("503x1", "429x1", "busyx1", "500x1", "408x1", "cutx1", "dropx1", "halfx1")
"""Faults that are over when the file is asked for again."""
LASTING = {
    "404": "not_found", "410": "not_found", "403": "login_needed", "418": "fetch_failed", "503": "fetch_failed",
    "cut": "fetch_failed", "drop": "fetch_failed", "slow": "fetch_failed", "round": "fetch_failed",
    "to:file:///etc/passwd": "fetch_failed", "to:http://127.0.0.1:9/a.glb": "private_address",
    "to:http://169.254.169.254/latest/meta-data": "private_address", "to:http://[::1]:9/": "private_address",
    "html": "not_an_asset", "endless": "too_large", "noai": "noai",
}  # fmt: skip
"""Those that are not, and the reason that must be given."""


@dataclass
class World:
    """What is on the server."""

    web: Web
    expected: dict[str, str] = field(default_factory=dict)
    """Name of each item to the reason for which it is turned away, or `stored`."""
    num_faults: int = 0

    @property
    def sites(self) -> Sites:
        """Base addresses on the server."""
        return sites_of(self.web)

    def strike(self, path: str, fault: str) -> str:
        """Let a fault happen to a file; gives what becomes of its object."""
        self.web.faults[path] = fault
        if fault.startswith("half"):
            self.web.etags[path] = f'"{path}"'
        self.num_faults += 1
        return STORED if fault in PASSING else LASTING[fault]


def build_world(web: Web, *, objaverse: int, github: int, sketchfab: int) -> World:
    """Fill a server; gives what must become of everything."""
    world = World(web)
    _objaverse(world, objaverse)
    _github(world, github)
    _sketchfab(world, sketchfab)
    return world


def _faults(extra: tuple[str, ...] = ()) -> Iterator[str]:
    """The fault of each object in turn, empty for none: 3 in 10, of which two thirds pass."""
    passing, lasting = cycle(PASSING), cycle((*extra, *LASTING))
    for place in cycle(range(10)):
        if place in (2, 5):
            yield next(passing)
        elif place == 8:
            yield next(lasting)
        else:
            yield ""


def _objaverse(world: World, number: int) -> None:
    """Objaverse 1.0 as on Hugging Face: gzipped lists, and files that are somewhere else."""
    objects = [about(2 * place + 1) for place in range(number)]
    serve_objaverse(world.web, objects, per_folder=max(1, number // 8), redirect=True)
    for metadata, fault in zip(objects, _faults(), strict=False):
        name = str(metadata["uid"])
        world.expected[name] = world.strike(f"/cdn/{name}", fault) if fault else STORED


def _github(world: World, number: int) -> None:
    """Objaverse-XL's annotations, single files at a commit, some in Git LFS; and one page of the Smithsonian's."""
    web, rows = world.web, []
    for place, fault in zip(range(number), _faults(("wrong", "short")), strict=False):
        content = triangle_glb(seed=10_000 + place)
        name = f"dir {place % 7}/thing_{place}.glb"
        row = github_row(name, content)
        path = f"/ann/models/{COMMIT}/dir%20{place % 7}/thing_{place}.glb"
        page = str(row["fileIdentifier"])
        outcome = STORED
        if place % 5 == 1:
            pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{row['sha256']}\nsize {len(content)}\n"
            web.files[f"/raw{path}"] = pointer.encode()
            path = f"/media{path}"
        else:
            path = f"/raw{path}"
        if fault == "short":
            content, outcome = content[:-20], "truncated"
            row["sha256"] = hashlib.sha256(content).hexdigest()
            world.num_faults += 1
        elif fault == "wrong":
            web.faults[path], outcome = fault, "checksum_mismatch"
            world.num_faults += 1
        elif fault:
            outcome = world.strike(path, fault)
        web.files[path] = content
        world.expected[page] = outcome
        rows.append(row)
    serve_xl(web, "github", rows)
    serve_xl(web, "sketchfab", [])
    bison = triangle_glb(seed=99_999)
    web.files["/smithsonian/bison.glb"] = bison
    page = f"{web.url}/smithsonian/bison.glb"
    world.expected[page] = STORED
    digest = hashlib.sha256(bison).hexdigest()
    row = {"fileIdentifier": page, "license": "CC0", "fileType": "glb", "sha256": digest, "metadata": "{}"}
    serve_xl(web, "smithsonian", [row])


def _sketchfab(world: World, number: int) -> None:
    """Sketchfab's search, page after page, and its downloads, for whoever has the token."""
    web = world.web
    models = []
    for place, fault in zip(range(number), _faults((*ARCHIVES, "401", "no_gltf")), strict=False):
        name = uid(1_000_000 + place)
        models.append(
            {
                "uid": name, "name": f"Model {place}", "animationCount": 1, "isDownloadable": True,
                "license": {"label": "CC Attribution", "slug": "by"}, "tags": [{"name": "walk"}],
                "user": {"username": "bea", "displayName": "Bea"}, "viewerUrl": f"https://sketchfab.com/3d-models/{name}",
            }
        )  # fmt: skip
        download, archive = f"/v3/models/{name}/download", f"/archives/{name}.zip?Expires=1&Signature=x"
        web.tokens[download] = f"Token {TOKEN}"
        content, outcome = zipped(gltf_files(20_000 + place)), STORED
        answer: dict[str, Any] = {"gltf": {"url": f"{web.url}{archive}", "size": len(content), "expires": 300}}
        if fault in ARCHIVES:
            content, outcome = ARCHIVES[fault][0](), ARCHIVES[fault][1]
            world.num_faults += 1
        elif fault == "401":
            web.faults[download], outcome = fault, "login_needed"
            world.num_faults += 1
        elif fault == "no_gltf":
            answer, outcome = {"usdz": answer["gltf"]}, "unsupported_format"
            world.num_faults += 1
        elif fault:
            # The API and the place of the files come to harm by turns.
            outcome = world.strike(download if place % 20 < 10 and fault in PASSING else archive, fault)
        web.files[archive] = content
        web.files[download] = json.dumps(answer).encode()
        world.expected[name] = outcome
    first = "/v3/search?type=models&downloadable=true&count=24&animated=true"
    pages = [models[start : start + PAGE] for start in range(0, max(1, len(models)), PAGE)]
    paths = [first, *(f"/v3/search?cursor={place}" for place in range(1, len(pages)))]
    for place, (path, page) in enumerate(zip(paths, pages, strict=True)):
        following = f"{web.url}{paths[place + 1]}" if place + 1 < len(paths) else None
        web.files[path] = json.dumps({"results": page, "next": following}).encode()
    for path in paths[1::2]:
        web.faults[path] = "429x1"


def gltf_files(seed: int) -> dict[str, bytes]:
    """An animated triangle as a .gltf and its buffer."""
    root, buffer = triangle()
    root["buffers"][0]["uri"] = "scene.bin"
    root["asset"]["generator"] = f"by hand {seed}"
    noise = b"".join(hashlib.sha256(f"{seed} {place}".encode()).digest() for place in range(64))
    return {"scene.gltf": json.dumps(root).encode(), "scene.bin": bytes(buffer), "noise.txt": noise}


def zipped(files: dict[str, bytes]) -> bytes:
    """A ZIP of some files."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as opened:
        for name, content in files.items():
            opened.writestr(name, content)
    return buffer.getvalue()


ARCHIVES: dict[str, tuple[Callable[[], bytes], str]] = {
    "bomb": (lambda: zipped({"scene.gltf": bytes(20 * MAX_BYTES)}), "too_large"),
    "traversal": (lambda: zipped({"../../escaped.gltf": b"{}"}), "unsafe_uri"),
    "absolute": (lambda: zipped({"/tmp/escaped.gltf": b"{}"}), "unsafe_uri"),
    "cut zip": (lambda: zipped(gltf_files(0))[:-30], "malformed"),
    "no model": (lambda: zipped({"readme.txt": b"hello"}), "malformed"),
}
"""Hostile archives, and the reason that must be given."""
