"""All 3D files below a folder."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ingest.licence_files import statement_of
from ingest.sequences import grouped
from ingest.sniff import SUFFIXES
from ingest.sources.source import COMMAND_LINE, Source, make_item, path_uri, printable
from pipeline.records import SourceItem


@dataclass(frozen=True, kw_only=True)
class Folder(Source):
    """Lists a folder and its subfolders, sorted by path; hidden files and folders are passed over.

    Numbered .obj files of the same faces are one item, named as in `walk_####.obj`.

    A file's licence is what its sidecar (`fox.glb.license`) says, or the glTF itself, or a `LICENSE` in the same
    folder; only where all are silent, `licence` counts.

    Raises:
        ValueError: There is no such folder.
    """

    path: Path
    only: str = ""
    """A file's name: list it alone."""
    licence: str = ""
    """Claimed for files of which nothing else is said."""
    author: str = ""
    """For files that do not name one."""
    noai: bool | None = None

    def __post_init__(self) -> None:
        if not self.path.is_dir():
            raise ValueError(f"{self.path} is not a folder: check the path")

    @property
    def name(self) -> str:
        """The folder's absolute path."""
        return printable(os.path.abspath(self.path))

    def items(self) -> Iterator[SourceItem]:
        """The 3D files."""
        found = [self.path / self.only] if self.only else self._files()
        for path in found:
            statement = statement_of(path)
            nothing_said = not statement.licence_text
            yield make_item(
                source=self.name,
                uri=path_uri(path),
                name=printable(path.relative_to(self.path).as_posix()),
                title=statement.title,
                spdx=self.licence if nothing_said else statement.spdx,
                licence_text=statement.licence_text,
                author=statement.author or self.author,
                source_url=statement.source_url,
                noai=self.noai,
                evidence=statement.found_in or (COMMAND_LINE if self.licence else ""),
                evidence_text=statement.licence_text,
            )

    def _files(self) -> Iterator[Path]:
        for folder, subfolders, files in os.walk(self.path):
            subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
            wanted = [name for name in sorted(files) if name.lower().endswith(SUFFIXES) and not name.startswith(".")]
            yield from grouped([Path(folder) / name for name in wanted])
