"""Append-only Parquet tables under a data root, and the ledger of what is done.

A table is the folder `tables/<name>/` of Parquet fragments. A fragment holds the rows that one stage made from one
input, or from a few that were worked on side by side, and its name says so: whoever does the same work again writes the
same file. The ledger's fragment (`done`) is written last: an input without one is done again.
Two columns stand in every table beside the record's own: `made_by` (`stage@settings_id`) and `made_from` (input id).
"""

import contextlib
import io
import json
import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.records import (
    RECORDS,
    Asset,
    Decision,
    Done,
    Record,
    Rejected,
    Sample,
    SourceItem,
    StageSettings,
    arrow_schema,
    content_id,
    from_dict,
    to_table,
)
from pipeline.stage import Stage
from pipeline.storage import Store

R = TypeVar("R", bound=Record)

MERGED_PREFIX = "merged-"
MERGING = ".merging"
JOURNAL = "tables/merging.json"
REQUEUED = "tables/requeued.json"
REWRITTEN = (Sample, Decision)
"""Tables whose writers replace their fragments when they decide anew; they are few, and never merged."""
REJECTED_NAMED = """
CREATE VIEW rejected_named AS
SELECT rejected.* REPLACE (coalesce(replace(rejected.name, first.blob, first.name), rejected.name) AS name)
FROM rejected LEFT JOIN (
    SELECT DISTINCT ON (asset_id) blob, name FROM assets WHERE blob <> '' ORDER BY asset_id, seq, item_id
) AS first ON first.blob = split_part(rejected.name, ': ', 1)
"""
"""`rejected` for people. The rows themselves name an asset by its content, because which of two equal files was met
first is decided by the order of the input and not by who was faster."""
CROSSWALK = r"""
CREATE VIEW crosswalk AS
SELECT DISTINCT
    asset_id, source, uid, source_url AS url, sha256,
    -- Cap3D names models of Objaverse 1.0 by their uid and the others of Objaverse-XL by their sha256.
    coalesce(nullif(uid, ''), sha256) AS cap3d_key
FROM (
    SELECT DISTINCT ON (a.item_id)
        a.asset_id, a.source, a.source_url,
        regexp_extract(a.source_url, '(?i)sketchfab\.com/(?:.*[^0-9a-f])?([0-9a-f]{32})(?:[/?#]|$)', 1) AS uid,
        coalesce(
            nullif(i.expected_sha256, ''), CASE WHEN a.blob <> '' AND a.main_file = '' THEN a.asset_id END, ''
        ) AS sha256
    FROM assets AS a LEFT JOIN items AS i USING (item_id)
    ORDER BY a.item_id
)
"""
"""By which names an asset is known elsewhere: one row an asset, more where it was listed under several names."""
CROSSWALK_COLUMNS = {
    "asset_id": "Of the asset.",
    "source": "Where it was listed.",
    "uid": "Sketchfab's, which Objaverse 1.0, MV-Video and Diffusion4D go by; empty for others.",
    "url": "The page of the asset.",
    "sha256": "Of the model's main file, as its source states it or as it was fetched; empty if neither is known.",
    "cap3d_key": "The first column of Cap3D's lists: the uid or, without one, the sha256.",
}
_FILES_HELD = threading.RLock()
"""Held while this process reads the tables' files, or merges them. Other processes may see a table while it is merged:
then rows stand in it twice for a moment, and never not at all."""


class DamagedTable(RuntimeError):
    """A fragment cannot be read."""


class OldTable(DamagedTable, ValueError):
    """A table without a column of this version; a ValueError too, as whoever named its folder named the wrong one."""


def check_columns(named: str, table: pa.Table, wanted: Iterable[pa.Field]) -> None:
    """See that a table has columns, and in them a value wherever there must be one.

    Args:
        named: The table, and where it lies, for the message.
        table: What was read. Where fragments of two versions were read as one, rows of the older one have no value.
        wanted: Columns that must be there; others are passed over.

    Raises:
        OldTable: Some are not: an older version wrote it, or part of it.
    """
    missing: list[str] = []
    for field in wanted:
        if field.name not in table.column_names:
            missing.append(field.name)
            continue
        column = table[field.name]
        missing += _absent(field.name, field.type, column.type)
        if not field.nullable and column.null_count:
            missing.append(field.name)
    if missing:
        raise OldTable(
            f"{named} was made by an older version of mv4d, without {', '.join(missing)}: make it anew with this "
            "version in another folder, or go on with the version that made it"
        )


def _absent(name: str, wanted: pa.DataType, found: pa.DataType) -> list[str]:
    """Fields within structs that are not there, as `parts.crc32`."""
    if pa.types.is_list(wanted) and pa.types.is_list(found):
        return _absent(name, wanted.value_type, found.value_type)
    if not (pa.types.is_struct(wanted) and pa.types.is_struct(found)):
        return []
    there = {field.name: field.type for field in found}
    absent = []
    for field in wanted:
        inner = f"{name}.{field.name}"
        absent += _absent(inner, field.type, there[field.name]) if field.name in there else [inner]
    return absent


@dataclass(frozen=True)
class Tables:
    """The tables of one data root."""

    store: Store

    def commit(self, stage: Stage[Any, Any], input_id: str, rows: Sequence[Record]) -> None:
        """Write the rows that a stage made from one input, then its line in the ledger."""
        self.commit_together(stage, [(input_id, rows)])

    def commit_together(self, stage: Stage[Any, Any], made: Sequence[tuple[str, Sequence[Record]]]) -> None:
        """Write the rows that a stage made from some inputs, each table's in one fragment, then the ledger's.

        If the fragment of the ledger is not written any more, the inputs are done again, and their rows may stand in a
        second fragment until the tables are merged, at the end of the run; `rows` gives each once.

        Args:
            stage: Under its present settings.
            made: Of each input, its id and its rows.
        """
        by_type: dict[type[Record], list[tuple[str, Record]]] = defaultdict(list)
        done = []
        for input_id, rows in made:
            for row in rows:
                by_type[type(row)].append((input_id, row))
            num_rejected = sum(isinstance(row, Rejected) for row in rows)
            done.append(
                Done(
                    stage=stage.name,
                    settings_id=stage.settings_id,
                    input_id=input_id,
                    num_rows=len(rows) - num_rejected,
                    num_rejected=num_rejected,
                )
            )
        made_by = f"{stage.name}@{stage.settings_id}"
        ids = [input_id for input_id, _ in made]
        fragment = f"{stage.name}-{stage.settings_id}-{content_id(*ids, length=20)}"
        for record, group in by_type.items():
            origins = [input_id for input_id, _ in group]
            self.write(record, fragment, [row for _, row in group], made_by=made_by, made_from=origins)
        self.write(Done, fragment, done, made_by=made_by, made_from=ids)

    def write(
        self, record: type[R], fragment: str, rows: Sequence[R], *, made_by: str, made_from: str | Sequence[str]
    ) -> None:
        """Write one fragment; an older one of the same name is replaced.

        Args:
            record: What the rows are.
            fragment: Its name.
            rows: Of one stage.
            made_by: The stage, with the id of its settings.
            made_from: The input of all rows, or of each.
        """
        table = to_table(list(rows), record)
        origins = [made_from] * len(rows) if isinstance(made_from, str) else list(made_from)
        for name, values in (("made_by", [made_by] * len(rows)), ("made_from", origins)):
            table = table.append_column(pa.field(name, pa.string(), False), pa.array(values, pa.string()))
        self.store.write_bytes(_fragment_path(record, fragment), _parquet_bytes(table))

    def remember_settings(self, stages: Iterable[Stage[Any, Any]]) -> None:
        """Store the resolved settings of stages beside what they make."""
        for stage in stages:
            row = StageSettings(stage=stage.name, settings_id=stage.settings_id, settings=stage.settings)
            self.write(
                StageSettings,
                f"{stage.name}-{stage.settings_id}",
                [row],
                made_by=f"{stage.name}@{stage.settings_id}",
                made_from="",
            )

    def done(self, stage: Stage[Any, Any]) -> set[str]:
        """Ids of the inputs that the stage has dealt with under its present settings."""
        query = "SELECT input_id FROM done WHERE stage = ? AND settings_id = ?"
        with self.connect([Done]) as con:
            return {row[0] for row in con.execute(query, [stage.name, stage.settings_id]).fetchall()}

    def requeue(self, stages: Iterable[Stage[Any, Any]], reasons: Sequence[str]) -> int:
        """Forget that stages turned inputs away for some reasons, so that the next run looks at them again.

        Only what was rejected under the stages' present settings. A journal makes it safe to kill, as with `compact`.

        Returns:
            How many inputs wait to be looked at again.
        """
        self.recover()
        query = f"made_by = ? AND reason IN ({', '.join('?' * len(reasons))})"
        inputs = []
        for stage in stages:
            made_by = f"{stage.name}@{stage.settings_id}"
            found = self._keyed_rows(Rejected, query, [made_by, *reasons]) if reasons else iter(())
            inputs += sorted({(made_by, input_id) for input_id, _ in found})
        if inputs:
            self.store.write_bytes(REQUEUED, json.dumps(inputs).encode())
            self.recover()
        return len(inputs)

    def recover(self) -> None:
        """Bring to its end what a killed process left half done. Only the driver of a run may do so."""
        with _FILES_HELD:
            self._finish_merge()
            if self.store.exists(REQUEUED):
                inputs = {tuple(pair) for pair in json.loads(self.store.read_bytes(REQUEUED))}
                # The ledger last: until then they count as done, and a second call finds the same inputs.
                for record in (Rejected, Done):
                    self.remove(record, lambda made_by, made_from: (made_by, made_from) in inputs)
                self.store.remove(REQUEUED)

    def remove(self, record: type[Record], is_stale: Callable[[str, str], bool]) -> None:
        """Remove rows of a table by `made_by` and `made_from`. Only the driver of a run may do so; safe to repeat."""
        with _FILES_HELD:
            self._remove_rows(record, is_stale)

    def _remove_rows(self, record: type[Record], is_stale: Callable[[str, str], bool]) -> None:
        for file in self.store.list_files(f"tables/{record.table}", ".parquet"):
            table = pq.read_table(io.BytesIO(self.store.read_bytes(file)))
            origins = zip(table["made_by"].to_pylist(), table["made_from"].to_pylist(), strict=True)
            keep = pa.array([not is_stale(*origin) for origin in origins], pa.bool_())
            kept = table.filter(keep)
            if kept.num_rows == 0:
                self.store.remove(file)
            elif kept.num_rows < table.num_rows:
                self.store.write_bytes(file, _parquet_bytes(kept))

    def rows(self, record: type[R], where: str = "true", parameters: Sequence[Any] = ()) -> list[R]:
        """The rows of a table, each key once, sorted by key.

        Raises:
            DamagedTable: A fragment cannot be read, or is of an older version (`OldTable`).
        """
        return [row for _, row in self._keyed_rows(record, where, parameters)]

    def made_from(self, stage: Stage[Any, Any]) -> dict[str, list[Record]]:
        """What the stage has made under its present settings: input id to rows, rejected ones left out."""
        made: dict[str, list[Record]] = defaultdict(list)
        for record in stage.writes:
            for input_id, row in self._keyed_rows(record, "made_by = ?", [f"{stage.name}@{stage.settings_id}"]):
                made[input_id].append(row)
        return made

    def _keyed_rows(self, record: type[R], where: str, parameters: Sequence[Any]) -> Iterator[tuple[str, R]]:
        key = ", ".join(record.key)
        query = f"SELECT DISTINCT ON ({key}) * FROM {record.table} WHERE {where} ORDER BY {key}"
        named, columns = f"table {record.table} of {self.store.root}", arrow_schema(record)
        with self.connect([record]) as con:
            # Before the query, which may ask for a column that is not there.
            check_columns(named, _arrow(con, f"FROM {record.table} LIMIT 0"), columns)
            found = _arrow(con, query, parameters)
        check_columns(named, found, columns)
        for row in found.to_pylist():
            yield row["made_from"], from_dict(record, row)

    @contextlib.contextmanager
    def connect(self, records: Iterable[type[Record]] = RECORDS) -> Iterator[duckdb.DuckDBPyConnection]:
        """DuckDB in memory, with a view of each table under its own name. A table without rows is there, empty.

        Beside them `rejected_named` and `crosswalk`, if the tables are asked for that they need.
        """
        records = tuple(records)
        with _FILES_HELD, contextlib.closing(duckdb.connect()) as con:
            if not self.store.is_local:
                con.register_filesystem(self.store.fs)
            for record in records:
                files = self.store.list_files(f"tables/{record.table}", ".parquet")
                if files:
                    self._view_of_files(con, record.table, files)
                else:
                    con.register(record.table, _with_origin(arrow_schema(record)).empty_table())
            if {Rejected, Asset} <= set(records):
                con.execute(REJECTED_NAMED)
            if {SourceItem, Asset} <= set(records):
                con.execute(CROSSWALK)
            yield con

    def _view_of_files(self, con: duckdb.DuckDBPyConnection, table: str, files: list[str]) -> None:
        protocol = "" if self.store.is_local else f"{_protocol(self.store)}://"
        paths = [protocol + self.store.path(file) for file in files]
        listed = ", ".join("'" + path.replace("'", "''") + "'" for path in paths)
        try:
            con.execute(f"CREATE VIEW {table} AS SELECT * FROM read_parquet([{listed}], union_by_name = true)")
        except duckdb.Error as error:
            raise DamagedTable(self._advice(files) or str(error)) from error

    def _advice(self, files: list[str]) -> str:
        """Which of a table's files are no Parquet, and how to get their rows again; empty if all are."""
        damaged = [file for file in files if not self._is_parquet(file)]
        # The ledger's file has the name of those that it speaks of, until both are merged.
        ledger = {f"tables/{Done.table}/{file.rpartition('/')[2]}" for file in damaged}
        ledger = {file if self.store.exists(file) else f"tables/{Done.table}" for file in ledger}
        return (
            f"{', '.join(damaged)} in {self.store.root}: not written by mv4d, or cut short since. Restore what is "
            f"damaged from a copy; or delete it and {', '.join(sorted(ledger))}, and what it said is made again"
            if damaged
            else ""
        )

    def _is_parquet(self, file: str) -> bool:
        try:
            with self.store.open(file) as opened:
                pq.read_metadata(opened)
        except (pa.ArrowException, OSError):
            return False
        return True

    def compact(self, *, at_least: int = 64, wait: bool = True) -> int:
        """Merge the small fragments of each table into one, so that queries stay fast. Returns files merged.

        A journal makes it safe to kill: what is listed there is deleted by the next call, whoever makes it.
        Only one process may compact a data root at a time: the run's driver does. Without `wait` nothing happens while
        another thread reads.
        """
        if not _FILES_HELD.acquire(blocking=wait):
            return 0
        try:
            return self._merge_tables(at_least)
        finally:
            _FILES_HELD.release()

    def _merge_tables(self, at_least: int) -> int:
        merged = self._finish_merge()
        for record in RECORDS:
            if record in REWRITTEN:
                continue
            listed = self.store.list_files(f"tables/{record.table}")
            for stale in (file for file in listed if file.endswith(MERGING)):
                self.store.remove(stale)  # of one who was killed before the journal told of it
            files = [file for file in listed if file.endswith(".parquet")]
            if len(files) < at_least:
                continue
            key = ", ".join(record.key)
            with self.connect([record]) as con:
                query = f"SELECT DISTINCT ON ({key}, made_by) * FROM {record.table} ORDER BY {key}, made_by, made_from"
                table = _arrow(con, query).cast(_with_origin(arrow_schema(record)))
            content = _parquet_bytes(table)
            target = _fragment_path(record, MERGED_PREFIX + content_id(files, len(content)))
            journal = {"target": target, "files": [file for file in files if file != target]}
            self.store.write_bytes(f"{target}{MERGING}", content)
            self.store.write_bytes(JOURNAL, json.dumps(journal).encode())
            merged += self._finish_merge()
        return merged

    def _finish_merge(self) -> int:
        if not self.store.exists(JOURNAL):
            return 0
        journal = json.loads(self.store.read_bytes(JOURNAL))
        pending = f"{journal['target']}{MERGING}"
        if self.store.exists(pending):
            self.store.fs.mv(self.store.path(pending), self.store.path(journal["target"]))
        with ThreadPoolExecutor(16) as pool:  # disks and object stores take their time for each
            list(pool.map(self.store.remove, journal["files"]))
        self.store.remove(JOURNAL)
        return len(journal["files"])


def _arrow(con: duckdb.DuckDBPyConnection, query: str, parameters: Sequence[Any] = ()) -> pa.Table:
    return con.sql(query, params=list(parameters)).to_arrow_table()


def _fragment_path(record: type[Record], fragment: str) -> str:
    return f"tables/{record.table}/{fragment}.parquet"


def _parquet_bytes(table: pa.Table) -> bytes:
    buffer = io.BytesIO()
    # A fragment of a few rows is smaller without either, and written in 0.6 ms instead of 1.5; merging packs it well.
    is_small = table.num_rows < 100
    pq.write_table(table, buffer, compression="none" if is_small else "zstd", use_dictionary=not is_small)
    return buffer.getvalue()


def _with_origin(schema: pa.Schema) -> pa.Schema:
    return schema.append(pa.field("made_by", pa.string(), False)).append(pa.field("made_from", pa.string(), False))


def _protocol(store: Store) -> str:
    protocol = store.fs.protocol
    return str(protocol if isinstance(protocol, str) else protocol[0])
