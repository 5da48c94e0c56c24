"""From a word on the command line to a source."""

from pathlib import Path

from ingest.sniff import SUFFIXES as ASSET_SUFFIXES
from ingest.sources.folder import Folder
from ingest.sources.manifest import SUFFIXES as MANIFEST_SUFFIXES
from ingest.sources.manifest import Manifest
from ingest.sources.samples import Samples, default_cache
from ingest.sources.source import Source


def open_source(
    spec: str, *, licence: str = "", author: str = "", noai: bool | None = None, cache: Path | None = None
) -> Source:
    """The source that an argument means: `samples`, a folder, a 3D file, or a manifest.

    Args:
        spec: The argument.
        licence: Claimed for items of which nothing else is said.
        author: For items that do not name one.
        noai: Opt-out of the items that do not say.
        cache: Where samples are kept; a folder of the user's by default.

    Raises:
        ValueError: It means none of these.
    """
    if spec == "samples":
        return Samples(cache=cache or default_cache())
    path = Path(spec).expanduser()
    if path.is_dir():
        return Folder(path=path, licence=licence, author=author, noai=noai)
    if path.is_file() and path.suffix.lower() in MANIFEST_SUFFIXES:
        return Manifest(path=path, licence=licence, author=author, noai=noai)
    if path.is_file() and path.suffix.lower() in ASSET_SUFFIXES:
        return Folder(path=path.parent, only=path.name, licence=licence, author=author, noai=noai)
    if path.is_file():
        raise ValueError(
            f"{spec} is neither a manifest ({', '.join(MANIFEST_SUFFIXES)}) nor a 3D file ({', '.join(ASSET_SUFFIXES)})"
        )
    raise ValueError(f"no source {spec!r}: give a folder, a manifest, a 3D file, or the word `samples`")
