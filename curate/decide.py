"""Keep or drop every scored clip by the rules of a preset: one query over the score tables, seconds for millions of
clips.

Nothing is measured or rendered again and nothing is deleted: `decisions` is the result of the query, one file that each
run replaces whole.
"""

import contextlib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from curate.rules import Preset, Rule
from curate.scores_view import KEYS, SCORES, Scope, Source, connect_scores
from pipeline.records import Decision, arrow_schema, content_id
from pipeline.tables import Tables

STAGE = "curate.decide"
CURRENT = f"tables/{Decision.table}/current.parquet"
BATCH_ROWS = 250_000
"""Decisions pass through memory in batches of so many rows."""
NUM_EXAMPLES = 10
_REPETITIVE = ["preset", "reason", "reasons.list.element", "made_by", "made_from"]
"""Columns worth a dictionary. One over the ids, which are all different, would cost a quarter of the writing."""


@dataclass(frozen=True, kw_only=True)
class Summary:
    """What a decision run decided."""

    preset: str
    """`name@hash`."""
    num_clips: int
    """Clips decided on."""
    num_kept: int
    by_reason: Mapping[str, int]
    """Dropped clips by their first failing rule's reason, most frequent first."""
    by_any_reason: Mapping[str, int]
    """Dropped clips by every reason that applies: what each rule would turn away alone."""
    num_unread: int
    """Clips in scope that scoring turned away: their files cannot be read."""
    num_waiting: int
    """Clips in scope without scores: not decided."""


@dataclass(frozen=True, kw_only=True)
class Changes:
    """How decisions would differ from those that stand now."""

    before: str
    """Preset of the present decisions; empty if there are none."""
    after: str
    num_same: int
    dropped: Mapping[str, int]
    """Kept now, dropped then: by the reason they would be dropped for."""
    restored: Mapping[str, int]
    """Dropped now, kept then: by the reason they are dropped for now."""
    regrouped: Mapping[tuple[str, str], int]
    """Dropped now and then, for another reason: (now, then)."""
    added_kept: int
    """Clips without a decision now."""
    added_dropped: Mapping[str, int]
    removed: int
    """Clips with a decision now and none then."""
    examples: Mapping[str, tuple[str, ...]]
    """Some clip ids of `dropped` and `restored`."""

    @property
    def any(self) -> bool:
        """True if a decision would change, come or go."""
        return bool(
            self.dropped or self.restored or self.regrouped or self.added_kept or self.added_dropped or self.removed
        )


def decide(tables: Tables, preset: Preset, scope: Scope | None = None) -> Summary:
    """Decide on every clip in scope and replace the table `decisions`.

    Clips out of scope and clips without scores have no decision. A score that is missing never fails a rule.

    Raises:
        ValueError: The scope does not say which of several scores to take.
    """
    scope = scope or Scope()
    reasons: Counter[str] = Counter()
    any_reason: Counter[str] = Counter()
    with _connect(tables, preset, scope, save=True) as con, tables.store.writer(CURRENT) as file:
        schema = _schema()
        with pq.ParquetWriter(file, schema, compression="zstd", use_dictionary=_REPETITIVE) as writer:
            for batch, masks in _decisions(con, preset, scope):
                for mask, count in masks.items():
                    failing = _reasons(preset, mask)
                    reasons[failing[0] if failing else ""] += count
                    any_reason.update(dict.fromkeys(failing, count))
                writer.write_batch(batch)
        num_kept = reasons.pop("", 0)
        num_clips = num_kept + reasons.total()
        num_unread, num_waiting = _not_decided(con, scope, num_clips)
    return Summary(
        preset=preset.preset_id,
        num_clips=num_clips,
        num_kept=num_kept,
        by_reason=dict(reasons.most_common()),
        by_any_reason=dict(any_reason.most_common()),
        num_unread=num_unread,
        num_waiting=num_waiting,
    )


def preview(tables: Tables, preset: Preset, scope: Scope | None = None) -> Changes:
    """What `decide` would change, without writing anything.

    Raises:
        ValueError: The scope does not say which of several scores to take.
    """
    scope = scope or Scope()
    with _connect(tables, preset, scope, save=False) as con:
        batches = [batch.select(["clip_id", "keep", "reason"]) for batch, _ in _decisions(con, preset, scope)]
        schema = pa.schema([field for field in _schema() if field.name in ("clip_id", "keep", "reason")])
        con.register("fresh", pa.Table.from_batches(batches, schema))
        present = con.execute("SELECT coalesce(max(preset), '') FROM decisions").fetchall()[0][0]
        con.execute("""
            CREATE TEMP TABLE change AS SELECT clip_id, now.reason AS now, fresh.reason AS fresh FROM (SELECT DISTINCT
            ON (clip_id) clip_id, reason FROM decisions) AS now FULL JOIN fresh USING (clip_id)""")
        counts = con.execute("SELECT now, fresh, count(*) FROM change GROUP BY ALL ORDER BY 3 DESC, 1, 2").fetchall()
        examples = {
            kind: tuple(row[0] for row in con.execute(f"""
                SELECT clip_id FROM change WHERE {condition} ORDER BY clip_id LIMIT {NUM_EXAMPLES}""").fetchall())
            for kind, condition in (("dropped", "now = '' AND fresh <> ''"), ("restored", "now <> '' AND fresh = ''"))
        }  # fmt: skip
    by_change: dict[tuple[str | None, str | None], int] = {(row[0], row[1]): row[2] for row in counts}
    return Changes(
        before=present,
        after=preset.preset_id,
        num_same=sum(n for (now, fresh), n in by_change.items() if now == fresh),
        dropped={fresh: n for (now, fresh), n in by_change.items() if now == "" and fresh},
        restored={now: n for (now, fresh), n in by_change.items() if now and fresh == ""},
        regrouped={(now, fresh): n for (now, fresh), n in by_change.items() if now and fresh and now != fresh},
        added_kept=by_change.get((None, ""), 0),
        added_dropped={fresh: n for (now, fresh), n in by_change.items() if now is None and fresh},
        removed=sum(n for (_, fresh), n in by_change.items() if fresh is None),
        examples=examples,
    )


def decision_query(preset: Preset, scope: Scope) -> str:
    """SQL of `clip_id` and `mask`, in which bit n stands for the preset's n-th rule; 0 is a kept clip.

    A wide table would join every clip with every source of scores: 2 million keys a join. Few clips fail a rule, so
    each source is asked for its failing keys first, and only those are joined.
    """
    numbered: dict[Source, list[tuple[int, Rule]]] = {}
    for number, rule in enumerate(preset.rules):
        numbered.setdefault(SCORES[rule.score].source, []).append((number, rule))
    failing = []
    for source, rules in numbered.items():
        key = KEYS[source]
        bits = " | ".join(f"CASE WHEN {rule.sql} THEN {1 << number}::BIGINT ELSE 0 END" for number, rule in rules)
        sql = f"SELECT {key}, {bits} AS mask FROM {scope.table(source)} WHERE mask <> 0"
        if key != "clip_id":
            sql = f"SELECT clip_id, mask FROM {scope.table('clips')} JOIN ({sql}) USING ({key})"
        failing.append(sql)
    scored = scope.scored_sql()
    if not failing:
        return f"SELECT clip_id, 0::BIGINT AS mask FROM ({scored})"
    # A failing rule names a clip as often as its rows stand in the tables; or-ing does not mind.
    masks = f"SELECT clip_id, bit_or(mask) AS mask FROM ({' UNION ALL '.join(failing)}) GROUP BY clip_id"
    return f"SELECT clip_id, coalesce(mask, 0) AS mask FROM ({scored}) LEFT JOIN ({masks}) USING (clip_id)"


def _decisions(
    con: duckdb.DuckDBPyConnection, preset: Preset, scope: Scope
) -> Iterator[tuple[pa.RecordBatch, Counter[int]]]:
    """The rows of `decisions` in batches, each with how often every mask occurs in it."""
    schema = _schema()
    origin = f"{STAGE}@{content_id(preset.preset_id, repr(scope), length=10)}"
    reader = con.sql(decision_query(preset, scope)).to_arrow_reader(BATCH_ROWS)
    with contextlib.closing(reader):
        for batch in reader:
            if not len(batch):
                continue
            # A mask occurs often and there are few of them: reasons are looked up once a mask, then copied by Arrow.
            masks = batch["mask"].dictionary_encode()
            distinct = masks.dictionary.to_pylist()
            failing = [_reasons(preset, mask) for mask in distinct]
            first = pa.array([reasons[0] if reasons else "" for reasons in failing], pa.string())
            columns = {
                "clip_id": batch["clip_id"],
                "preset": pa.repeat(pa.scalar(preset.preset_id), len(batch)),
                "keep": pc.equal(batch["mask"], 0),
                "reason": first.take(masks.indices),
                "reasons": pa.array(failing, pa.list_(pa.string())).take(masks.indices),
                "made_by": pa.repeat(pa.scalar(origin), len(batch)),
                "made_from": pa.repeat(pa.scalar(""), len(batch)),
            }
            arrays = [columns[field.name].cast(field.type) for field in schema]
            counts = {entry["values"]: entry["counts"] for entry in masks.indices.value_counts().to_pylist()}
            yield (
                pa.RecordBatch.from_arrays(arrays, schema=schema),
                Counter({distinct[index]: count for index, count in counts.items()}),
            )


def _reasons(preset: Preset, mask: int) -> list[str]:
    """The reasons of a mask's rules in the preset's order, each once."""
    return list(dict.fromkeys(rule.reason for number, rule in enumerate(preset.rules) if mask >> number & 1))


def _not_decided(con: duckdb.DuckDBPyConnection, scope: Scope, num_decided: int) -> tuple[int, int]:
    """How many clips in scope scoring rejected, and how many have no scores yet."""
    clips = scope.clips_sql()
    if con.execute(f"SELECT count(*) FROM {clips}").fetchall()[0][0] == num_decided:
        return 0, 0
    rest = f"""
        SELECT count(*) FILTER (unread), count(*) FILTER (NOT unread) FROM (
            SELECT DISTINCT clip_id,
                clip_id IN (SELECT rejected_id FROM rejected WHERE stage = 'curate.score') AS unread
            FROM {clips} AS clip ANTI JOIN ({scope.scored_sql()}) AS scored USING (clip_id))"""
    num_unread, num_waiting = con.execute(rest).fetchall()[0]
    return num_unread, num_waiting


def _connect(
    tables: Tables, preset: Preset, scope: Scope, *, save: bool
) -> contextlib.AbstractContextManager[duckdb.DuckDBPyConnection]:
    return connect_scores(tables, scope, [rule.score for rule in preset.rules], save=save)


def _schema() -> pa.Schema:
    origin = [pa.field(name, pa.string(), False) for name in ("made_by", "made_from")]
    return pa.schema([*arrow_schema(Decision), *origin], metadata=arrow_schema(Decision).metadata)
