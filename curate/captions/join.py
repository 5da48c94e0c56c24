"""Captions from a list that names models: Cap3D's, or any CSV or Parquet with a column of ids and one of text."""

import csv
import hashlib
from dataclasses import dataclass
from pathlib import Path

import duckdb

from pipeline.records import Asset, Caption, Clip, SourceItem, StageSettings, content_id
from pipeline.tables import Tables

STAGE = "caption.file"
SUFFIXES = (".csv", ".parquet")
ID_COLUMNS = (
    "clip_id", "animation_id", "asset_id", "uid", "sha256", "cap3d_key", "fileidentifier", "url", "object_id", "key",
    "id",
)  # fmt: skip
"""Names of the column of ids, in any case; the first that is there counts."""
TEXT_COLUMNS = ("caption", "text", "text_prompt", "description", "captions", "prompt")
MAX_CHARACTERS = 2000
BATCH = 100_000


@dataclass(frozen=True)
class Joined:
    """What a list gave."""

    source: str
    num_rows: int
    """Rows of the list with an id and a text."""
    num_used: int
    """Those of them that name something of the data root."""
    num_captions: int
    """Clips that have a caption of the list now."""
    num_clips: int
    """Of the data root."""


def join_captions(tables: Tables, path: Path, name: str = "") -> Joined:
    """Give clips the captions of a list, by any id that the cross-walk knows.

    Of several rows for a clip the most exact one counts (the clip's own, its animation's, then its model's), then the
    first. What an earlier list of the same name gave is replaced.

    Args:
        tables: Of the data root.
        path: The list. A CSV needs no header if its columns are id and caption, as Cap3D's.
        name: What the captions are called by; the file's name without its suffix if empty.

    Raises:
        ValueError: The list cannot be read, or has no column of ids or of text; says which file and what to do.
    """
    source = name.strip() or path.stem
    settings = _settings(path, source)
    settings_id = content_id(STAGE, settings, length=10)
    with tables.connect([Clip, Asset, SourceItem]) as con:
        reader = _reader(con, path)
        try:
            con.execute(f"CREATE TEMP TABLE list AS SELECT row_number() OVER () AS line, * FROM ({reader})")
        except duckdb.Error as error:
            raise ValueError(f"{path} cannot be read: {str(error)[:500]}; save it as UTF-8, cells in quotes") from None
        _find(con)
        (num_rows,) = con.execute("SELECT count(*) FROM list").fetchall()[0]
        (num_used,) = con.execute("SELECT count(DISTINCT line) FROM found").fetchall()[0]
        (num_clips,) = con.execute("SELECT count(DISTINCT clip_id) FROM clips").fetchall()[0]
        result = con.execute(
            "SELECT DISTINCT ON (clip_id) clip_id, text, kind || ' ' || id FROM found ORDER BY clip_id, rank, line"
        )
        made_by = f"{STAGE}@{settings_id}"
        num_captions = 0
        while batch := result.fetchmany(BATCH):
            rows = [
                Caption(clip_id=clip_id, kind="file", source=source, text=text, about=about)
                for clip_id, text, about in batch
            ]
            fragment = f"{STAGE}-{settings_id}-{num_captions // BATCH:05d}"
            tables.write(Caption, fragment, rows, made_by=made_by, made_from=source)
            num_captions += len(rows)
    row = StageSettings(stage=STAGE, settings_id=settings_id, settings=settings)
    tables.write(StageSettings, f"{STAGE}-{settings_id}", [row], made_by=made_by, made_from="")
    tables.remove(
        Caption, lambda maker, origin: maker.startswith(f"{STAGE}@") and maker != made_by and origin == source
    )
    return Joined(source, num_rows, num_used, num_captions, num_clips)


def _find(con: duckdb.DuckDBPyConnection) -> None:
    """Make the temporary table `found`: what each row of the list is about."""
    con.execute("""
        CREATE TEMP TABLE known AS
        WITH models AS (
            SELECT asset_id, unnest([
                {'kind': 'asset', 'id': asset_id}, {'kind': 'uid', 'id': uid}, {'kind': 'sha256', 'id': sha256},
                {'kind': 'url', 'id': rtrim(url, '/')}
            ], recursive := true) FROM crosswalk
        )
        SELECT DISTINCT clip_id, 'clip' AS kind, clip_id AS id, 0 AS rank FROM clips
        UNION SELECT clip_id, 'animation', animation_id, 1 FROM clips
        UNION SELECT clip_id, kind, id, 2 FROM clips JOIN models USING (asset_id) WHERE id <> ''
    """)
    con.execute(r"""
        CREATE TEMP TABLE found AS
        WITH named AS (
            SELECT line, text, coalesce(
                nullif(regexp_extract(id, '(?i)sketchfab\.com/(?:.*[^0-9a-f])?([0-9a-f]{32})(?:[/?#]|$)', 1), ''),
                rtrim(id, '/')
            ) AS id FROM list
        )
        SELECT line, text, clip_id, kind, id, rank FROM named JOIN known USING (id)
    """)


def _reader(con: duckdb.DuckDBPyConnection, path: Path) -> str:
    """SQL of the list's rows as `id` and `text`.

    Raises:
        ValueError: As `join_captions`.
    """
    if path.suffix.lower() not in SUFFIXES or not path.is_file():
        raise ValueError(f"{path} is no list of captions: give a {' or '.join(SUFFIXES)} that is there")
    quoted = "'" + str(path).replace("'", "''") + "'"
    if path.suffix.lower() == ".parquet":
        table = f"read_parquet({quoted})"
        try:
            columns = [row[0] for row in con.execute(f"DESCRIBE SELECT * FROM {table}").fetchall()]
        except duckdb.Error as error:
            raise ValueError(f"{path} is no Parquet file: {str(error)[:300]}") from None
    else:
        columns, has_header = _csv_columns(path)
        names = ", ".join(f"'{column}': 'VARCHAR'" for column in _as_literals(columns))
        how = "delim = ',', quote = '\"', escape = '\"', strict_mode = false"
        table = f"read_csv({quoted}, header = {has_header}, columns = {{{names}}}, {how})"
    lower = {column.strip().lower().replace(" ", "_"): column for column in columns}
    key = next((lower[column] for column in ID_COLUMNS if column in lower), None)
    text = next((lower[column] for column in TEXT_COLUMNS if column in lower), None)
    if key is None or text is None:
        missing = f"ids ({', '.join(ID_COLUMNS)})" if key is None else f"text ({', '.join(TEXT_COLUMNS)})"
        raise ValueError(f"{path} has no column of {missing}; found {', '.join(columns)[:200]}: rename one")
    words = f"trim(regexp_replace(left({_quoted(text)}::VARCHAR, {MAX_CHARACTERS}), '\\s+', ' ', 'g'))"
    return (
        f"SELECT trim({_quoted(key)}::VARCHAR) AS id, {words} AS text FROM {table} "
        f"WHERE trim({_quoted(key)}::VARCHAR) <> '' AND {words} <> ''"
    )


def _csv_columns(path: Path) -> tuple[list[str], bool]:
    """The names of a CSV's columns, and whether it states them; two columns without a header are id and caption.

    Raises:
        ValueError: It is empty, not UTF-8, or has another number of columns and no header.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            first = next(csv.reader(file), [])
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path} is no CSV: {error}; save it as UTF-8") from None
    names = [cell.strip().lower().replace(" ", "_") for cell in first]
    if any(name in ID_COLUMNS for name in names):
        return first, True
    if len(first) == 2:
        return ["id", "caption"], False
    raise ValueError(
        f"{path} has no header that names a column of ids ({', '.join(ID_COLUMNS)}), and not the two columns id and "
        "caption either: write a first line with the names"
    )


def _settings(path: Path, source: str) -> str:
    if not path.is_file():
        raise ValueError(f"{path} is not there: check the path")
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    return f'{{"sha256": "{sha256}", "source": "{content_id(source)}"}}'


def _as_literals(columns: list[str]) -> list[str]:
    return [column.replace("'", "''") for column in columns]


def _quoted(column: str) -> str:
    return '"' + column.replace('"', '""') + '"'
