"""From a word on the command line to a source."""

from pathlib import Path

from ingest.fetch import FetchSettings
from ingest.sequences import is_sequence
from ingest.sniff import SUFFIXES as ASSET_SUFFIXES
from ingest.sources.folder import Folder
from ingest.sources.lists import Lists, Only, Sites
from ingest.sources.manifest import SUFFIXES as MANIFEST_SUFFIXES
from ingest.sources.manifest import Manifest
from ingest.sources.objaverse import Objaverse
from ingest.sources.objaverse_xl import ObjaverseXl
from ingest.sources.samples import Samples, default_cache
from ingest.sources.sketchfab import Sketchfab
from ingest.sources.source import Source

COLLECTIONS = ("objaverse", "objaverse-xl", "sketchfab")
"""Words for what is listed on the web."""


def open_source(
    spec: str,
    *,
    licence: str = "",
    author: str = "",
    noai: bool | None = None,
    cache: Path | None = None,
    only: Only | None = None,
    sites: Sites | None = None,
    fetch: FetchSettings | None = None,
) -> Source:
    """The source that an argument means: `samples`, a collection on the web, a folder, a 3D file, or a manifest.

    Args:
        spec: The argument.
        licence: Claimed for items of which nothing else is said.
        author: For items that do not name one.
        noai: Opt-out of the items that do not say.
        cache: Where samples and lists are kept; a folder of the user's by default.
        only: Which objects of a collection.
        sites: Where collections are.
        fetch: How their lists are downloaded.

    Raises:
        ValueError: It means none of these.
    """
    if spec == "samples":
        return Samples(cache=cache or default_cache())
    if spec == "sketchfab":
        return Sketchfab(sites=sites or Sites(), only=only or Only(), fetch=fetch or FetchSettings())
    if spec in COLLECTIONS:
        lists = Lists(cache=cache or default_cache(), fetch=fetch or FetchSettings())
        collection = Objaverse if spec == "objaverse" else ObjaverseXl
        return collection(lists=lists, sites=sites or Sites(), only=only or Only())
    path = Path(spec).expanduser()
    if path.is_dir():
        return Folder(path=path, licence=licence, author=author, noai=noai)
    if path.is_file() and path.suffix.lower() in MANIFEST_SUFFIXES:
        return Manifest(path=path, licence=licence, author=author, noai=noai)
    if is_sequence(path) or (path.is_file() and path.suffix.lower() in ASSET_SUFFIXES):
        return Folder(path=path.parent, only=path.name, licence=licence, author=author, noai=noai)
    if path.is_file():
        raise ValueError(
            f"{spec} is neither a manifest ({', '.join(MANIFEST_SUFFIXES)}) nor a 3D file ({', '.join(ASSET_SUFFIXES)})"
        )
    words = ", ".join(f"`{word}`" for word in ("samples", *COLLECTIONS))
    raise ValueError(f"no source {spec!r}: give a folder, a manifest, a 3D file, or one of the words {words}")
