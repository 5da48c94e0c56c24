"""Clips that show what an earlier clip shows.

- duplicate_animation: an earlier clip has the same `motion_id`, the same motion of the same mesh.
- duplicate_look: an earlier clip has the same fingerprint, and its asset the same geometry (`family_id`).

Earlier means: its asset comes first in the input; then its action, its window, its id. So the judgement of a clip
depends on nothing that is added later, and on no threshold: the first of two is the first whether or not it is kept.
Only clips of one rig are compared, for two rigs of one animation are wanted, and never clips of one and the same
animation.
"""

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.records import Animation, Appearance, Asset, Clip, ImageMotion, Probe, content_id
from pipeline.storage import Store

CACHE = "cache/duplicates.parquet"
_READ = (Asset, Probe, Animation, Clip, ImageMotion, Appearance)
_INPUTS = b"inputs"


def provide_duplicates(
    con: duckdb.DuckDBPyConnection, store: Store, *, scored: str, clips: str, appearance: str, save: bool
) -> None:
    """`find_duplicates`, or what it found in the same files before: that takes longer than deciding does.

    The answer is kept in `cache/`, with the names of all fragments it was found in. A fragment's name says what is in
    it, so equal names are equal rows.

    Args:
        con: From `Tables.connect`.
        store: The data root.
        scored: As for `find_duplicates`.
        clips: The same.
        appearance: The same.
        save: Whether a new answer may be written to the data root.
    """
    files = [store.list_files(f"tables/{record.table}", ".parquet") for record in _READ]
    inputs = content_id(files, scored, clips, appearance, length=32).encode()
    if store.exists(CACHE):
        with store.open(CACHE) as file:
            known = pq.read_table(file)
        if (known.schema.metadata or {}).get(_INPUTS) == inputs:
            con.register("duplicates", known)
            return
    find_duplicates(con, scored=scored, clips=clips, appearance=appearance)
    if save:
        found: pa.Table = con.sql("FROM duplicates ORDER BY clip_id").to_arrow_table()
        with store.writer(CACHE) as file:
            pq.write_table(found.replace_schema_metadata({_INPUTS: inputs}), file, compression="zstd")


def find_duplicates(con: duckdb.DuckDBPyConnection, *, scored: str, clips: str, appearance: str) -> None:
    """Make the temporary table `duplicates`: `clip_id`, `duplicate_animation`, `duplicate_look`; others have no row.

    Candidates come first, by counting one column, and all that costs is done for them alone. In steps, because the size
    of each tells DuckDB how to join the next: as one query it took a quarter longer (2 million clips).

    Args:
        con: From `Tables.connect`.
        scored: SQL of the ids of all clips to compare.
        clips: SQL of the rows of `clips` to compare.
        appearance: SQL of the rows of `appearance` to compare.
    """
    earlier = 'seq, action_index, "window", clip_id'
    steps = {
        "motion": "SELECT motion_id FROM animations GROUP BY motion_id HAVING count(*) > 1 AND motion_id <> ''",
        "moving": """
            SELECT DISTINCT animation_id, motion_id, action_index, "window"
            FROM animations SEMI JOIN motion USING (motion_id)""",
        "same_motion": f"""
            SELECT clip_id, animation_id, asset_id, rig, motion_id, action_index, "window"
            FROM {clips} JOIN moving USING (animation_id)""",
        "look": f"SELECT fingerprint FROM {appearance} GROUP BY fingerprint HAVING count(*) > 1 AND fingerprint <> ''",
        "looking": f"SELECT clip_id, fingerprint FROM {appearance} SEMI JOIN look USING (fingerprint)",
        "same_look": f"""
            SELECT clip_id, animation_id, asset_id, rig, fingerprint FROM {clips} JOIN looking USING (clip_id)""",
        "candidate": """
            SELECT clip_id, asset_id, animation_id FROM same_motion
            UNION SELECT clip_id, asset_id, animation_id FROM same_look""",
        "judged": f"SELECT clip_id FROM candidate SEMI JOIN ({scored}) USING (clip_id)",
        "first_seen": """
            SELECT asset_id, min(seq) AS seq FROM assets SEMI JOIN candidate USING (asset_id) GROUP BY asset_id""",
        "family": """
            SELECT DISTINCT asset_id, family_id
            FROM probes SEMI JOIN same_look USING (asset_id) WHERE family_id <> ''""",
        "place": """
            SELECT DISTINCT animation_id, action_index, "window"
            FROM animations SEMI JOIN same_look USING (animation_id)""",
        "later_motion": f"""
            SELECT clip_id FROM same_motion SEMI JOIN judged USING (clip_id) LEFT JOIN first_seen USING (asset_id)
            QUALIFY animation_id <> first_value(animation_id) OVER (PARTITION BY motion_id, rig ORDER BY {earlier})""",
        "later_look": f"""
            SELECT clip_id FROM same_look SEMI JOIN judged USING (clip_id) JOIN family USING (asset_id)
                LEFT JOIN first_seen USING (asset_id) LEFT JOIN place USING (animation_id)
            QUALIFY animation_id <> first_value(animation_id)
                OVER (PARTITION BY fingerprint, family_id, rig ORDER BY {earlier})""",
        "duplicates": """
            SELECT clip_id, bool_or(by_motion) AS duplicate_animation, bool_or(NOT by_motion) AS duplicate_look
            FROM (SELECT clip_id, true AS by_motion FROM later_motion UNION ALL SELECT clip_id, false FROM later_look)
            GROUP BY clip_id""",
    }  # fmt: skip
    for name, query in steps.items():
        con.execute(f"CREATE TEMP TABLE {name} AS {query}").fetchall()
    for name in steps:
        if name != "duplicates":
            con.execute(f"DROP TABLE temp.{name}").fetchall()
