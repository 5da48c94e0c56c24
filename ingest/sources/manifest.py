"""A list of files and URLs with their licences: CSV, JSON lines or Parquet."""

import csv
import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ingest.licence_files import Statement, statement_of
from ingest.sequences import is_pattern
from ingest.sources.source import COMMAND_LINE, Source, as_read, make_item, path_uri, printable
from pipeline.records import SourceItem

SUFFIXES = (".csv", ".jsonl", ".ndjson", ".parquet")

COLUMNS: dict[str, tuple[str, ...]] = {
    "file": ("file", "file_path", "filename", "path", "uri"),
    "url": ("url", "download_url", "file_url"),
    "model": ("uid", "fileidentifier", "file_identifier", "sha256", "url", "source_url", "page_url", "viewer_url"),
    "spdx": ("spdx", "license", "licence", "spdx_id"),
    "licence_text": ("licence_text", "license_text"),
    "licence_url": ("licence_url", "license_url"),
    "author": ("author", "creator", "artist"),
    "sha256": ("sha256", "checksum"),
    "num_bytes": ("num_bytes", "size_bytes", "file_size"),
    "noai": ("noai", "no_ai"),
    "title": ("title", "name", "display_name"),
    "tags": ("tags", "category", "categories"),
    "source_url": ("source_url", "page_url", "viewer_url", "homepage"),
    "checked_on": ("checked_on", "licence_checked_at", "license_checked_at"),
}
"""What a column may be called; the first that is there counts. A `url` beside a `file` is the page, not the file."""

_TRUE, _FALSE = ("true", "1", "yes", "y", "noai"), ("false", "0", "no", "n")


@dataclass(frozen=True, kw_only=True)
class Manifest(Source):
    """Lists the rows of a file. Paths are relative to the manifest; missing cells are empty.

    Raises:
        ValueError: It is not there, is no table, or has no column that says where the files are.
    """

    path: Path
    label: str = ""
    """Name of the source, if not the path."""
    licence: str = ""
    """Claimed for rows that state none, and of whose file nothing else is said."""
    author: str = ""
    noai: bool | None = None
    of_models: bool = False
    """Rows are about models that are known by uid, hash or page; where a file of theirs is does not matter."""

    def __post_init__(self) -> None:
        if self.path.suffix.lower() not in SUFFIXES:
            raise ValueError(f"{self.path}: a manifest ends in {', '.join(SUFFIXES)}")
        if not self.path.is_file():
            raise ValueError(f"{self.path} is not there: check the path")
        if self.path.suffix.lower() == ".csv":
            with self.path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
                header = next(csv.reader(file), [])
            _check_header(self.path, header, of_models=self.of_models)
        elif self.path.suffix.lower() == ".parquet":
            try:
                header = pq.read_schema(self.path).names
            except (pa.ArrowInvalid, OSError) as error:
                raise ValueError(f"{self.path} is no Parquet file: {error}") from None
            _check_header(self.path, header, of_models=self.of_models)

    @property
    def name(self) -> str:
        """The manifest's absolute path, or its label."""
        return self.label or printable(os.path.abspath(self.path))

    def items(self) -> Iterator[SourceItem]:
        """One item a row.

        Raises:
            ValueError: A row cannot be read; names the file, the line and what to do.
        """
        for line, row in self._rows():
            try:
                yield self._item(line, _Row(row))
            except ValueError as error:
                raise ValueError(f"{self.path}, line {line}: {error}") from None

    def _item(self, line: int, row: "_Row") -> SourceItem:
        file, url = row.text("file"), row.text("url")
        uri = self._absolute(file or url)
        # A page only if it is not the file itself.
        source_url = row.text("source_url") or (url if file or self.of_models else "") or row.github_url()
        if self.of_models and not source_url and "://" in row.text("model"):
            source_url = row.text("model")
        spdx, licence_url, text = row.text("spdx"), row.text("licence_url"), row.text("licence_text")
        said = Statement()
        is_here = bool(uri) and "://" not in uri and (os.path.isfile(uri) or is_pattern(Path(uri)))
        if is_here and not (spdx or licence_url):
            said = statement_of(Path(uri))
        evidence, evidence_text = f"{printable(self.path.name)}, line {line}", as_read(row.cells)
        if not (spdx or licence_url or text):
            evidence, evidence_text = said.found_in, said.licence_text
            if not said.licence_text:
                spdx, evidence = self.licence, COMMAND_LINE if self.licence else ""
        noai, name = row.truth("noai"), row.text("model") if self.of_models else file
        return make_item(
            source=self.name,
            uri=uri,
            name=name or row.text("title") or url or f"{self.path.name}:{line}",
            title=row.text("title") or said.title,
            spdx=spdx or said.spdx,
            licence_text=text or said.licence_text,
            licence_url=licence_url,
            author=row.text("author") or said.author or self.author,
            source_url=source_url or said.source_url,
            noai=self.noai if noai is None else noai,
            checked_on=row.date("checked_on"),
            evidence=evidence,
            evidence_text=evidence_text,
            expected_sha256=row.sha256(),
            num_bytes=row.number("num_bytes"),
            tags=row.words("tags"),
        )

    def _absolute(self, uri: str) -> str:
        if not uri or "://" in uri:
            return uri
        return path_uri(self.path.parent / uri)

    def _rows(self) -> Iterator[tuple[int, Mapping[str, Any]]]:
        suffix = self.path.suffix.lower()
        if suffix == ".csv":
            return self._csv_rows()
        return self._parquet_rows() if suffix == ".parquet" else self._json_rows()

    def _csv_rows(self) -> Iterator[tuple[int, Mapping[str, Any]]]:
        with self.path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True, restval="")
            line = 1
            try:
                for row in reader:
                    line = reader.line_num
                    if None in row:
                        extra = len(row.pop(None))
                        raise ValueError(
                            f"{self.path}, line {line}: {extra} cells more than the header has; "
                            "put cells with commas in quotes"
                        )
                    yield line, row
            except UnicodeDecodeError:
                raise ValueError(f"{self.path}, after line {line}: not UTF-8; save it as UTF-8") from None
            except csv.Error as error:
                raise ValueError(f"{self.path}, line {line + 1}: {error}; check the quotes") from None

    def _json_rows(self) -> Iterator[tuple[int, Mapping[str, Any]]]:
        with self.path.open("rb") as file:
            for line, text in enumerate(file, start=1):
                if not text.strip():
                    continue
                try:
                    row = json.loads(text.decode("utf-8-sig"))
                except (ValueError, RecursionError) as error:
                    raise ValueError(f"{self.path}, line {line}: no JSON: {error}; write one object a line") from None
                if not isinstance(row, dict):
                    raise ValueError(f"{self.path}, line {line}: no JSON object; write one object a line")
                yield line, row

    def _parquet_rows(self) -> Iterator[tuple[int, Mapping[str, Any]]]:
        line = 0
        with pq.ParquetFile(self.path) as file:
            for batch in file.iter_batches(batch_size=1000):
                for row in batch.to_pylist():
                    line += 1
                    yield line, row


class _Row:
    """A row under whatever names its columns have."""

    def __init__(self, row: Mapping[str, Any]) -> None:
        self.cells = {_column(key): value for key, value in row.items() if value is not None}

    def _get(self, column: str) -> Any:
        for name in COLUMNS[column]:
            if name in self.cells:
                return self.cells[name]
        return ""

    def text(self, column: str) -> str:
        value = self._get(column)
        if isinstance(value, dict | list):
            raise ValueError(f"`{column}` is not text; give a string")
        return printable(str(value).strip())

    def words(self, column: str) -> tuple[str, ...]:
        value = self._get(column)
        parts = value if isinstance(value, list) else re.split(r"[,;|]", str(value))
        return tuple(dict.fromkeys(word for part in parts if (word := printable(str(part).strip()))))

    def truth(self, column: str) -> bool | None:
        text = self.text(column).lower()
        if text in _TRUE or text in _FALSE:
            return text in _TRUE
        if text in ("", "none", "null", "unknown"):
            return None
        raise ValueError(f"`{column}` is {text[:40]!r}; write true, false or nothing")

    def sha256(self) -> str:
        text = self.text("sha256").lower().removeprefix("sha256:")
        if text and not re.fullmatch(r"[0-9a-f]{64}", text):
            raise ValueError(f"`sha256` is {text[:80]!r}; it has 64 hexadecimal digits, or is left empty")
        return text

    def number(self, column: str) -> int | None:
        text = self.text(column)
        if text and not re.fullmatch(r"\d{1,15}(\.0)?", text):
            raise ValueError(f"`{column}` is {text[:40]!r}; write a whole number or nothing")
        return int(text.partition(".")[0]) if text else None

    def date(self, column: str) -> str:
        text = self.text(column)[:10]
        if text and not re.fullmatch(r"\d{4}-\d{2}-\d{2}", text):
            raise ValueError(f"`{column}` is {text!r}; write a date as 2026-01-31")
        return text

    def github_url(self) -> str:
        """Where `repo` (owner/name), `commit` and `path` together point."""
        repo, commit, path = (str(self.cells.get(key, "")).strip() for key in ("repo", "commit", "path"))
        if re.fullmatch(r"[\w.-]+/[\w.-]+", repo) and re.fullmatch(r"[0-9a-f]{7,40}", commit) and path:
            return f"https://github.com/{repo}/blob/{commit}/{path}"
        return ""


def _check_header(path: Path, header: list[str], *, of_models: bool) -> None:
    columns = {_column(name) for name in header}
    wanted = COLUMNS["model"] if of_models else (*COLUMNS["file"], *COLUMNS["url"])
    if not columns.intersection(wanted):
        found = ", ".join(map(str, header))[:200] or "nothing"
        what, name = ("which model is meant", "`uid`, `sha256`") if of_models else ("where the files are", "`file`")
        raise ValueError(f"{path}, line 1: no column says {what}; found {found}; name one {name} or `url`")


def _column(name: Any) -> str:
    return re.sub(r"[^a-z0-9]+", "_", str(name).strip().lower()).strip("_")
