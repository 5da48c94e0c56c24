"""The wide view: every score that a rule may use, in one row a clip, and which clips are judged at all.

Scores live in several tables: those of the pictures by clip, those of the mesh by animation, those of the file by
asset, and duplicates are found by comparing clips. `SCORES` says where each comes from.
"""

import contextlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Literal

import duckdb

from curate.duplicates import provide_duplicates
from pipeline.records import ImageMotion
from pipeline.storage import Store
from pipeline.tables import Tables

Source = Literal["image_motion", "visibility", "appearance", "animations", "probes", "duplicates"]

KEYS: dict[Source, str] = {
    "image_motion": "clip_id",
    "visibility": "clip_id",
    "appearance": "clip_id",
    "duplicates": "clip_id",
    "animations": "animation_id",
    "probes": "asset_id",
}
"""The column by which a source's rows find their clips."""

PICTURE_TABLES: tuple[Source, ...] = ("image_motion", "visibility", "appearance")


@dataclass(frozen=True)
class ScoreColumn:
    """A number about a clip."""

    source: Source
    sql: str
    """DOUBLE, over the source's columns. NULL, NaN and infinity mean that it could not be measured."""
    help: str


SCORES: dict[str, ScoreColumn] = {
    "m": ScoreColumn("image_motion", "m", "mean square difference to the frozen object, over the whole picture"),
    "m_floor": ScoreColumn("image_motion", "m_floor", "the same for the first frame alone: render noise"),
    "m_object": ScoreColumn("image_motion", "m_object", "mean square difference to the frozen object, on the object"),
    "ssim_still": ScoreColumn("image_motion", "ssim_still", "smaller of the SSIMs of frame 0 to T/4 and to T/2"),
    "flow_px": ScoreColumn("image_motion", "flow_px", "optical flow on the object, pixels a frame at 256 px"),
    "coverage_min": ScoreColumn("visibility", "coverage_min", "smallest share of a picture that the object covers"),
    "coverage_mean": ScoreColumn("visibility", "coverage_mean", "mean share of the picture that the object covers"),
    "coverage_max": ScoreColumn("visibility", "coverage_max", "largest share of a picture that the object covers"),
    "border_touch": ScoreColumn("visibility", "border_touch", "share of pictures whose border the object touches"),
    "luminance_mean": ScoreColumn("appearance", "luminance_mean", "mean luminance of the object"),
    "contrast": ScoreColumn("appearance", "contrast", "standard deviation of luminance over the object"),
    "colourfulness": ScoreColumn("appearance", "colourfulness", "Hasler and Süsstrunk's measure; 0 is grey"),
    "magenta_share": ScoreColumn("appearance", "magenta_share", "share of the object in missing-texture pink"),
    "motion_mean": ScoreColumn("animations", "motion_mean", "mean distance of the vertices from their first position"),
    "motion_p95": ScoreColumn("animations", "motion_p95", "95th percentile of the vertices' largest distance"),
    "path_length": ScoreColumn("animations", "path_length", "mean length of the vertices' ways"),
    "rigid_share": ScoreColumn("animations", "rigid_share", "share of the motion that one rigid move explains"),
    "loop_gap": ScoreColumn("animations", "loop_gap", "distance between the action's two ends; 0 is a perfect loop"),
    "moving_s": ScoreColumn("animations", "moving_end_s - moving_start_s", "seconds in which anything moves"),
    "duration_s": ScoreColumn("animations", "duration_s", "seconds of the clip"),
    "travel": ScoreColumn("animations", "travel", "box over all frames by the box of one; 1 stays in place"),
    "max_jump": ScoreColumn("animations", "max_jump", "largest step of the object's centre between frames"),
    "jump_ratio": ScoreColumn("animations", "jump_ratio", "largest step by the median step"),
    "max_stretch": ScoreColumn("animations", "max_stretch", "99.5th percentile of the edges' stretching"),
    "looped": ScoreColumn("animations", "looped::DOUBLE", "1 if a short action was repeated to fill the clip"),
    "missing_textures": ScoreColumn("probes", "len(missing_textures)::DOUBLE", "textures the file names and lacks"),
    "duplicate_animation": ScoreColumn(
        "duplicates", "duplicate_animation::DOUBLE", "1 if an earlier clip shows the same motion of the same mesh"
    ),
    "duplicate_look": ScoreColumn(
        "duplicates", "duplicate_look::DOUBLE", "1 if an earlier clip of the same geometry has the same fingerprint"
    ),
}
"""Every score that a rule may name. Lengths of the mesh are shares of its own box's diagonal."""


@dataclass(frozen=True, kw_only=True)
class Scope:
    """Which clips are judged: scored ones, all of them unless a field says otherwise."""

    up_to_seq: int | None = None
    """Only clips of assets whose first place in the input is below this. Their decisions do not depend on later
    ones."""
    rendered_by: str = ""
    """Only clips that this stage made, as `made_by` has it: `stage@settings_id`."""
    scored_by: str = ""
    """Only scores that this stage made. Needed where clips were scored under several settings."""

    def table(self, name: str) -> str:
        """SQL of a table's rows as far as they were made by the stages asked for."""
        made_by = self.scored_by if name in PICTURE_TABLES else self.rendered_by if name == "clips" else ""
        return f"(FROM {name} WHERE made_by = {_quoted(made_by)})" if made_by else name

    def clips_sql(self) -> str:
        """SQL of the clips in scope, scored or not."""
        late = "" if self.up_to_seq is None else " ANTI JOIN late USING (clip_id)"
        return f"(FROM {self.table('clips')}{late})"

    def scored_sql(self) -> str:
        """SQL of the ids of all clips that are judged, each once."""
        rendered = f" SEMI JOIN {self.table('clips')} AS rendered USING (clip_id)" if self.rendered_by else ""
        late = "" if self.up_to_seq is None else " ANTI JOIN late USING (clip_id)"
        return (
            f"SELECT clip_id FROM {self.table('image_motion')} ANTI JOIN recent USING (clip_id){rendered}{late} "
            f"UNION ALL SELECT clip_id FROM recent{rendered}{late}"
        )

    def find_recent(self, con: duckdb.DuckDBPyConnection, store: Store) -> None:
        """Make the temporary table `recent` of the clips whose scores stand outside the largest file of the table.

        A row may stand in two files: while another process merges, or after a crash until the next merge. In one file
        it stands once. So it is enough to compare the few ids of the small files with the rest, at a third of the
        cost of grouping all.
        """
        files = store.list_files(f"tables/{ImageMotion.table}", ".parquet")
        small = sorted(files, key=store.size)[:-1]
        con.execute("CREATE TEMP TABLE recent (clip_id VARCHAR)").fetchall()
        if small:
            paths = [store.path(file) for file in small]
            listed = ", ".join(_quoted(path if store.is_local else store.fs.unstrip_protocol(path)) for path in paths)
            made_by = f"WHERE made_by = {_quoted(self.scored_by)}" if self.scored_by else ""
            con.execute(
                f"INSERT INTO recent SELECT DISTINCT clip_id FROM read_parquet([{listed}]) {made_by}"
            ).fetchall()

    def find_late(self, con: duckdb.DuckDBPyConnection) -> None:
        """Make the temporary table `late` of the clips whose assets come too late, or are not known yet.

        A clip may have scores and no row: that was lost, and it is being drawn again.
        """
        if self.up_to_seq is not None:
            early = f"SELECT asset_id FROM assets WHERE seq < {int(self.up_to_seq)}"
            con.execute(f"""
                CREATE TEMP TABLE late AS SELECT clip_id FROM (
                    SELECT clip_id FROM clips UNION SELECT clip_id FROM image_motion
                ) ANTI JOIN (SELECT clip_id FROM clips SEMI JOIN ({early}) USING (asset_id)) USING (clip_id)
            """).fetchall()

    def check(self, con: duckdb.DuckDBPyConnection) -> None:
        """Refuse to mix scores that do not mean the same.

        Raises:
            ValueError: Clips were scored under several settings, and `scored_by` does not choose.
        """
        if self.scored_by:
            return
        # One commit of the scoring stage fills all three tables, so one of them tells.
        makers = con.execute("SELECT DISTINCT made_by FROM image_motion ORDER BY made_by").fetchall()
        if len(makers) > 1:
            names = ", ".join(row[0] for row in makers)
            raise ValueError(f"clips were scored under several settings; choose one with scored_by: {names}")


@contextlib.contextmanager
def connect_scores(
    tables: Tables, scope: Scope, scores: Iterable[str], *, save: bool
) -> Iterator[duckdb.DuckDBPyConnection]:
    """DuckDB with all tables, and `duplicates` if a score comes from there: only clips that are one have a row in it.

    Args:
        tables: Of the data root.
        scope: Which clips are compared.
        scores: Keys of `SCORES`: those that queries will ask for.
        save: Whether what was found about duplicates may be written to the data root, for the next time.

    Raises:
        ValueError: The scope does not say which of several scores to take.
    """
    with tables.connect() as con:
        scope.check(con)
        scope.find_recent(con, tables.store)
        scope.find_late(con)
        if any(SCORES[name].source == "duplicates" for name in scores):
            provide_duplicates(
                con,
                tables.store,
                # Later clips change nothing about earlier ones, so they may stay in: what is found serves every scope.
                scored=replace(scope, up_to_seq=None).scored_sql(),
                clips=scope.table("clips"),
                appearance=scope.table("appearance"),
                save=save,
            )
        yield con


def scores_query(names: Iterable[str] = tuple(SCORES), scope: Scope | None = None, among: str = "") -> str:
    """SQL of the wide view: `clip_id` and the named scores, a row for each clip that is judged.

    Args:
        names: Keys of `SCORES`, as given to `connect_scores`.
        scope: The same as there.
        among: A table of `clip_id` to choose from; all clips if empty.
    """
    scope = scope or Scope()
    wanted = list(dict.fromkeys(names))
    sources = list(dict.fromkeys(SCORES[name].source for name in wanted))
    joins = []
    for source in sources:
        key = KEYS[source]
        values = ", ".join(f"{SCORES[name].sql} AS {name}" for name in wanted if SCORES[name].source == source)
        unique = f"SELECT DISTINCT ON ({key}) {key}, {values} FROM {scope.table(source)}"
        joins.append(f"LEFT JOIN ({unique}) AS {source} USING ({key})")
    columns = [f"coalesce({name}, 0.0) AS {name}" if SCORES[name].source == "duplicates" else name for name in wanted]
    chosen = f" SEMI JOIN {among} USING (clip_id)" if among else ""
    scored = f"SELECT clip_id FROM ({scope.scored_sql()}){chosen}"
    ids = f"SELECT DISTINCT ON (clip_id) clip_id, animation_id, asset_id FROM {scope.table('clips')}"
    return (
        f"SELECT {', '.join(['clip_id', *columns])} FROM ({scored}) LEFT JOIN ({ids}) USING (clip_id) {' '.join(joins)}"
    )


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
