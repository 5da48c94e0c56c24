"""The bundled sample assets, made by Blender on first use and kept in a cache."""

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ingest.sources.manifest import Manifest
from ingest.sources.source import Source
from pipeline.records import SourceItem

REPOSITORY = Path(__file__).resolve().parents[2]
MAKER = "render.blender.make_samples"


def default_cache() -> Path:
    """Where samples are kept between runs: below `XDG_CACHE_HOME`, or `~/.cache`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mv4d"


@dataclass(frozen=True, kw_only=True)
class Samples(Source):
    """Small animated assets under CC0, for a first run without any download."""

    cache: Path
    python: str = sys.executable
    """An interpreter that can import bpy."""
    deadline_s: float = 600.0

    @property
    def name(self) -> str:
        """Always `samples`."""
        return "samples"

    @property
    def manifest(self) -> Path:
        """The list of the samples, which also says what each should come to."""
        return self.cache / f"samples-{_version()}" / "manifest.csv"

    def items(self) -> Iterator[SourceItem]:
        """The samples; makes them first if they are not in the cache.

        Raises:
            RuntimeError: They cannot be made; says why.
        """
        if not self.manifest.exists():
            self._make(self.manifest.parent)
        yield from Manifest(path=self.manifest, label=self.name).items()

    def _make(self, folder: Path) -> None:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".samples-") as scratch:
            out = Path(scratch) / "samples"
            search = os.pathsep.join(filter(None, [str(REPOSITORY), os.environ.get("PYTHONPATH", "")]))
            try:
                subprocess.run(
                    [self.python, "-m", MAKER, str(out)],
                    env={**os.environ, "PYTHONPATH": search},
                    check=True,
                    capture_output=True,
                    timeout=self.deadline_s,
                    stdin=subprocess.DEVNULL,
                )
            except subprocess.CalledProcessError as error:
                last_words = error.stderr.decode("utf-8", "replace").strip()[-800:]
                raise RuntimeError(
                    f"the samples could not be made: {last_words}; `mv4d doctor` checks Blender"
                ) from None
            except subprocess.TimeoutExpired:
                raise RuntimeError(
                    f"the samples were not made in {self.deadline_s:.0f} s; `mv4d doctor` checks"
                ) from None
            try:
                out.rename(folder)
            except OSError:
                # Another process was faster; or an old folder is broken.
                if not (folder / "manifest.csv").exists():
                    shutil.rmtree(folder)
                    out.rename(folder)


def _version() -> str:
    """Hash of the maker's sources: samples are made anew when they change."""
    digest = hashlib.sha256()
    for source in sorted((REPOSITORY / "render" / "blender").glob("*sample*.py")):
        digest.update(source.read_bytes())
    return digest.hexdigest()[:10]
