"""Ingest: a listed item -> a licensed, checked asset in the blob store."""

import contextlib
import dataclasses
import itertools
import os
import tempfile
import threading
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import ClassVar, Literal

from ingest import sequences
from ingest.blobs import Blob, put_blob, sha256_of, write_tar
from ingest.fbx import check_fbx
from ingest.fetch import Fetched, Fetcher, FetchSettings, beside, local_path
from ingest.gltf import SideFile, read_gltf
from ingest.inspect import Limits, check_json, inspect_gltf
from ingest.licence import Licence, LicencePolicy, PolicyName, attribution
from ingest.refused import Refused
from ingest.side_files import material_files, texture_files
from ingest.sniff import Kind, sniff
from ingest.sources.lists import Sites
from ingest.sources.sketchfab import download, is_download
from ingest.taken_down import TakenDown
from ingest.texture_names import PICTURES_BESIDE, places, texture_names
from pipeline.records import Asset, Inspection, Record, Rejected, SourceItem, content_id
from pipeline.stage import Stage, rejected
from pipeline.tables import Tables

_MOST_ASKED = 50
"""Pictures that a server is asked for in vain, at worst twice each: files name what never left their author's disk."""
_AT_WORK = threading.BoundedSemaphore(4 * (os.cpu_count() or 1))
"""Held while a file is read and judged: downloads are many at once, but what they brought takes a core and memory."""
LFS_POINTER = b"version https://git-lfs.github.com/spec/"
MAX_POINTER_BYTES = 1024


@dataclass(frozen=True, kw_only=True)
class Ingest(Stage[SourceItem, Asset | Inspection]):
    """Admit an item by its licence, fetch it, see that it is what it should be, and store it by content.

    The licence is judged before any byte is fetched. Of a glTF, everything that its JSON and buffers tell is checked;
    of an FBX, that its records and arrays fit together. Other formats are recognised by their first bytes, and Blender
    has the last word on them.
    """

    name: ClassVar[str] = "ingest"
    version: ClassVar[int] = 2
    writes: ClassVar[tuple[type[Record], ...]] = (Asset, Inspection)
    resource: ClassVar[Literal["io", "cpu", "blender"]] = "io"
    machine_fields: ClassVar[frozenset[str]] = frozenset({"data", "fetch", "sites"})

    policy: PolicyName = "open"
    """`open`: CC0, permissive, CC BY, CC BY-SA. `commercial_safe`: without BY-SA. `permissive_only`: without CC BY too.
    `research`: NC as well. `custom`: only what `allow` names."""
    allow: str = ""
    """SPDX ids or licence classes admitted beside the policy's own, by commas: `CC-BY-NC-4.0,LicenseRef-Ours`."""
    honour_noai: bool = True
    """Leave out what its author reserved from generative AI, by tag or by HTTP header."""
    max_bytes: int = 1 << 30
    """Of one asset, its side files included."""
    sequence_fps: float = 24.0
    """Frames per second of a sequence of .obj files, which do not say."""
    limits: Limits = field(default_factory=Limits)
    """What a glTF may ask of the machine."""
    fetch: FetchSettings = field(default_factory=FetchSettings)
    sites: Sites = field(default_factory=Sites)
    """Where collections are read from."""

    def __post_init__(self) -> None:
        if self.max_bytes < 1:
            raise ValueError(f"max_bytes must be positive, got {self.max_bytes}")
        if not 1.0 <= self.sequence_fps <= 1000.0:
            raise ValueError(f"sequence_fps must lie in 1..1000, got {self.sequence_fps}")
        _ = self._licence_policy

    @property
    def at_once(self) -> int:
        """As many as connections."""
        return self.fetch.connections

    @property
    def byte_budget(self) -> int:
        """As the settings of downloads say."""
        return self.fetch.byte_budget

    @classmethod
    def inputs(cls, rows: Sequence[Record]) -> list[SourceItem]:
        """The listed items."""
        return [row for row in rows if isinstance(row, SourceItem)]

    def process(self, item: SourceItem) -> Iterator[Asset | Inspection | Rejected]:
        """The asset and, of a glTF, what it says of itself; or why it was turned away."""
        try:
            yield from self._ingest(item)
        except Refused as refused:
            detail = f"{item.uri or item.name}: {refused.detail}"
            yield rejected(self, item.item_id, refused.reason, detail, item.name)

    def close(self) -> None:
        """Close the connections, if any were opened."""
        fetcher = self.__dict__.pop("_fetcher", None)
        if fetcher:
            fetcher.close()

    def _ingest(self, item: SourceItem) -> Iterator[Asset | Inspection]:
        if not item.uri:
            raise Refused("not_found", "its list gives neither a file nor a URL for it", "check the name or id")
        self._taken_down.check_item(item)
        licence = self._licence_policy.admit(item, honour_noai=self.honour_noai)
        with tempfile.TemporaryDirectory(prefix="mv4d-ingest-") as folder:
            frames = self._frames(item.uri)
            uri, main = self._fetch_main(str(frames[0]) if frames else item.uri, Path(folder))
            kind = sniff(main.path, uri)
            if item.expected_sha256 and item.expected_sha256 != main.sha256:
                raise Refused("checksum_mismatch", f"its sha256 is {main.sha256}, promised was {item.expected_sha256}")
            files: dict[str, Path] = {}
            inspection = None
            if kind.format in ("glb", "gltf"):
                with _AT_WORK:
                    gltf = read_gltf(main.path, max_json_bytes=self.limits.max_json_bytes)
                    check_json(gltf, self.limits)
                files = self._fetch_beside(uri, gltf.side_files, main.num_bytes, Path(folder))
                with _AT_WORK:
                    inspection = inspect_gltf(gltf.with_files(files), self.limits)
            elif kind.format == "fbx":
                with _AT_WORK:
                    check_fbx(main.path)
            elif kind.format == "obj":
                files = self._fetch_materials(uri, main, Path(folder))
                if frames:
                    files |= sequences.members(frames, self.sequence_fps, Path(folder))
            if kind.format in PICTURES_BESIDE:
                files = self._fetch_pictures(uri, main, kind, Path(folder))
            blob, main_file = self._store(kind, main, files, Path(folder))
            asset = _asset(item, licence, kind, blob, main_file)
            yield asset
            if inspection:
                yield dataclasses.replace(inspection, asset_id=asset.asset_id)

    def _frames(self, uri: str) -> list[Path]:
        """The files of a sequence on this machine; none if it is an ordinary file."""
        path = local_path(uri)
        if path is None or not sequences.is_sequence(path):
            return []
        frames = sequences.frames_of(path)
        for frame in frames:
            _check_inside(frame, frames[0])
        num_bytes = sum(frame.stat().st_size for frame in frames)
        if num_bytes > self.max_bytes:
            found = f"its {len(frames)} frames have {num_bytes} bytes; the limit is {self.max_bytes}"
            raise Refused("too_large", found)
        return frames

    def _fetch_main(self, uri: str, folder: Path) -> tuple[str, Fetched]:
        """The file, and what its side files are relative to.

        Of a file that GitHub keeps in Git LFS, the one that its pointer stands for; of a model of Sketchfab, the glTF
        of its archive.
        """
        if is_download(uri, self.sites):
            main = download(self._fetcher, uri, folder, max_bytes=self.max_bytes)
            return str(main.path), main
        main = self._fetcher.fetch(uri, folder / "main", max_bytes=self.max_bytes)
        raw = f"{self.sites.github_raw}/"
        if uri.startswith(raw) and _is_lfs_pointer(main):
            uri = f"{self.sites.github_media}/{uri.removeprefix(raw)}"
            main = self._fetcher.fetch(uri, folder / "main", max_bytes=self.max_bytes)
        return uri, main

    def _fetch_beside(self, uri: str, named: Iterable[SideFile], num_bytes: int, folder: Path) -> dict[str, Path]:
        """Those of the named files that are there."""
        found: dict[str, Path] = {}
        for side in named:
            target = folder / content_id(side.path)
            with contextlib.suppress(_Absent):
                fetched = self._fetch_side(uri, side, target, self.max_bytes - num_bytes)
                found[side.path] = fetched.path
                num_bytes += fetched.num_bytes
        return found

    def _fetch_side(self, uri: str, side: SideFile, target: Path, max_bytes: int) -> Fetched:
        is_local = local_path(uri) is not None
        where = beside(uri, side.path)
        if is_local:
            _check_inside(Path(where), Path(local_path(uri) or ""))
        try:
            return self._fetcher.fetch(where, target, max_bytes=max_bytes)
        except Refused as refused:
            if refused.reason == "not_found" or (refused.reason == "not_an_asset" and not side.needed):
                raise _Absent from None
            raise Refused(refused.reason, f"its side file {side.path}: {refused.found}", refused.advice) from None

    def _fetch_materials(self, uri: str, main: Fetched, folder: Path) -> dict[str, Path]:
        """An OBJ's material libraries, and the textures that these name."""

        def named(paths: Iterable[str]) -> list[SideFile]:
            return [SideFile(path, needed=False) for path in paths]

        libraries = self._fetch_beside(uri, named(material_files(main.path)), main.num_bytes, folder)
        textures = dict.fromkeys(texture for library in libraries.values() for texture in texture_files(library))
        taken = main.num_bytes + sum(path.stat().st_size for path in libraries.values())
        return libraries | self._fetch_beside(uri, named(textures), taken, folder)

    def _fetch_pictures(self, uri: str, main: Fetched, kind: Kind, folder: Path) -> dict[str, Path]:
        """The pictures beside an FBX, a USD or a .blend that it names: for each, the first place that has one."""
        found: dict[str, Path] = {}
        num_bytes = main.num_bytes
        is_local = local_path(uri) is not None
        for name in texture_names(main.path, kind.format)[: None if is_local else _MOST_ASKED]:
            for place in places(name)[: None if is_local else 2]:
                if place not in found:
                    found |= self._fetch_beside(uri, [SideFile(place, needed=False)], num_bytes, folder)
                if place in found:
                    break
            num_bytes = main.num_bytes + sum(path.stat().st_size for path in found.values())
        return found

    def _store(self, kind: Kind, main: Fetched, files: dict[str, Path], folder: Path) -> tuple[Blob, str]:
        """The blob, and the main file's name in it if it is a tar."""
        if not files:
            self._taken_down.check_bytes(main.sha256)
            return put_blob(self.store, main.path, kind.suffix, sha256=main.sha256), ""
        # Always the same name, so that equal contents are equal bytes.
        main_file = sequences.frame_name(0) if sequences.FACTS in files else f"asset.{kind.suffix}"
        while main_file in files:
            main_file = f"_{main_file}"
        write_tar(folder / "asset.tar", {**files, main_file: main.path})
        sha256 = sha256_of(folder / "asset.tar")
        self._taken_down.check_bytes(sha256)
        return put_blob(self.store, folder / "asset.tar", f"{kind.suffix}.tar", sha256=sha256), main_file

    @cached_property
    def _licence_policy(self) -> LicencePolicy:
        allow = tuple(entry.strip() for entry in self.allow.split(",") if entry.strip())
        return LicencePolicy(name=self.policy, allow=allow)

    @cached_property
    def _taken_down(self) -> TakenDown:
        return TakenDown(Tables(self.store))

    @cached_property
    def _fetcher(self) -> Fetcher:
        return Fetcher(self.fetch, honour_noai=self.honour_noai)

    def dry_run(self, items: Iterable[SourceItem], *, ask_servers: bool = False) -> "DryRun":
        """What ingesting would admit and fetch, by source, licence and suffix; nothing is fetched or written.

        Args:
            items: As a source lists them.
            ask_servers: Send a HEAD request for each admitted URL whose size its source does not state.
        """
        result = DryRun()
        items = iter(items)
        weigh = partial(self._weigh, ask_servers=ask_servers)
        with ThreadPoolExecutor(self.fetch.connections) as pool:
            while batch := list(itertools.islice(items, 1000)):
                for item, (is_admitted, why, num_bytes) in zip(batch, pool.map(weigh, batch), strict=True):
                    suffix = Path(item.uri.partition("?")[0]).suffix.lower().lstrip(".") or "unknown"
                    tally = (result.admitted if is_admitted else result.turned_away)[item.source, why, suffix]
                    tally.num_files += 1
                    tally.num_bytes += num_bytes or 0
                    tally.num_unknown_size += num_bytes is None
        self.close()
        return result

    def _weigh(self, item: SourceItem, *, ask_servers: bool) -> tuple[bool, str, int | None]:
        """Whether an item is admitted, its licence class or why not, and its size as far as it is known."""
        try:
            licence_class = self._licence_policy.admit(item, honour_noai=self.honour_noai).licence_class
        except Refused as refused:
            return False, refused.reason, item.num_bytes
        may_ask = item.uri and (ask_servers or local_path(item.uri) is not None)
        num_bytes = self._fetcher.size(item.uri) if may_ask and item.num_bytes is None else item.num_bytes
        return True, licence_class, num_bytes


@dataclass
class Tally:
    """Files of one kind."""

    num_files: int = 0
    num_bytes: int = 0
    """Of those whose size is known; side files are not counted."""
    num_unknown_size: int = 0
    """Absent files, and URLs whose size neither the source nor, if it was asked, the server has told."""


@dataclass
class DryRun:
    """Counts and bytes of what ingesting would do."""

    admitted: dict[tuple[str, str, str], Tally] = field(default_factory=lambda: defaultdict(Tally))
    """(source, licence class, suffix): what the policy admits, to fetch or copy."""
    turned_away: dict[tuple[str, str, str], Tally] = field(default_factory=lambda: defaultdict(Tally))
    """(source, reason, suffix): what would be rejected unseen."""

    @property
    def total(self) -> Tally:
        """Of all that is admitted."""
        tallies = self.admitted.values()
        return Tally(
            num_files=sum(tally.num_files for tally in tallies),
            num_bytes=sum(tally.num_bytes for tally in tallies),
            num_unknown_size=sum(tally.num_unknown_size for tally in tallies),
        )


class _Absent(Exception):
    """A side file is not there."""


def _is_lfs_pointer(file: Fetched) -> bool:
    return file.num_bytes < MAX_POINTER_BYTES and file.path.read_bytes().startswith(LFS_POINTER)


def _check_inside(path: Path, main: Path) -> None:
    """Links may not lead out of the asset's folder, except together with the asset itself, as in a download cache."""
    real = os.path.realpath(path)
    folders = [os.path.realpath(main.parent), os.path.dirname(os.path.realpath(main))]
    if not any(real.startswith(folder.rstrip("/") + "/") for folder in folders):
        raise Refused("unsafe_uri", f"its side file {path.name} is a link that leads out of its folder")


def _asset(item: SourceItem, licence: Licence, kind: Kind, blob: Blob, main_file: str) -> Asset:
    return Asset(
        item_id=item.item_id,
        seq=item.seq,
        asset_id=blob.sha256,
        source=item.source,
        uri=item.uri,
        name=item.name,
        title=item.title,
        format=kind.format,
        num_bytes=blob.num_bytes,
        blob=blob.path,
        main_file=main_file,
        spdx=licence.spdx,
        licence_class=licence.licence_class,
        licence_text=item.licence_text,
        licence_url=licence.url,
        author=item.author,
        attribution=attribution(item, licence),
        source_url=item.source_url,
        noai=item.noai,
        checked_on=item.checked_on,
        evidence=item.evidence,
        evidence_sha256=item.evidence_sha256,
        noai_checked_on=item.noai_checked_on,
        tags=item.tags,
    )
