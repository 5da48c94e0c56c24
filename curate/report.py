"""The contact sheet of a data root: its clips, the preset's rules as sliders, what was turned away, and the funnel."""

import contextlib
import logging
import os
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import numpy as np

from curate.contact_sheet import SheetClip, SheetReject, SheetRule, SheetStep, sprite, write_contact_sheet
from curate.decide import decision_query
from curate.rules import Preset, Rule
from curate.scores_view import SCORES, Scope, connect_scores, scores_query
from pipeline.media import read_view
from pipeline.progress_bar import OnProgress, progress_bar
from pipeline.reasons import explain
from pipeline.records import Clip
from pipeline.revoked import deny_list
from pipeline.storage import Store
from pipeline.tables import Tables

logger = logging.getLogger("mv4d.report")

PAGE = "report.html"
SPRITE_VIEWS = 4
KEPT_SHARE = 0.25
"""Of a full page, at least so much shows kept clips, if there are so many."""
MAX_STRIP_PX = 16383
"""WebP's limit."""
SCORE_TAGS = {"missing_texture": "missing_textures", "looped": "looped"}
"""Tag: the score that is not 0 where it applies."""
UNREADABLE = "picture_unreadable"


@dataclass(frozen=True, kw_only=True)
class ReportSettings:
    """What the contact sheet shows, and where it is written."""

    out: str = ""
    """The .html file; empty is `report.html` in the data root."""
    max_clips: int = 2000
    """Most clips on the page. Dropped ones go first, evenly over the reasons, but leave a quarter for kept ones."""
    max_rejects: int = 2000
    """Most files and animations listed that never became a clip, evenly over the reasons."""
    thumb_px: int = 64
    """Side of a picture on the page."""
    heading: str = ""
    """Empty is the name of the data root."""

    def __post_init__(self) -> None:
        if self.max_clips < 1 or self.max_rejects < 0:
            raise ValueError(f"need max_clips >= 1 and max_rejects >= 0, got {self.max_clips} and {self.max_rejects}")
        if not 8 <= self.thumb_px <= 1024:
            raise ValueError(f"thumb_px must lie in 8..1024, got {self.thumb_px}")


def write_report(
    tables: Tables,
    preset: Preset,
    settings: ReportSettings | None = None,
    scope: Scope | None = None,
    *,
    quiet: bool = False,
) -> str:
    """Write the contact sheet of all scored clips in scope; returns its path. What was taken down is not shown.

    Clips are shown as `preset` judges them, whatever `decisions` says now.

    Raises:
        ValueError: The scope does not say which of several scores to take.
    """
    settings, scope = settings or ReportSettings(), scope or Scope()
    with connect_scores(tables, scope, SCORES, save=False) as con:
        num_clips = choose_clips(con, preset, scope, settings.max_clips)
        rows = _clip_rows(con, scope)
        rejects, num_rejects = _rejects(con, settings.max_rejects)
        funnel = _funnel(con)
        ids = con.sql("SELECT clip_id FROM chosen").to_arrow_table()["clip_id"].to_pylist()
    clips = tables.rows(Clip, "clip_id IN (SELECT unnest(?))", [ids])
    denied = deny_list(tables.store.root)
    gone = {clip.clip_id for clip in clips if denied.has(clip.asset_id, clip.clip_id)}
    rows = [row for row in rows if row["clip_id"] not in gone]
    shown = _notes(clips=(len(rows), num_clips), rejects=(len(rejects), num_rejects))
    if shown:
        logger.info("the page shows %s", shown)
    heading = settings.heading or os.path.basename(tables.store.path("").rstrip("/"))
    with (
        _page_file(tables.store, settings.out) as (file, name),
        progress_bar("the page", "clips", quiet=quiet) as on_progress,
    ):
        sheet_clips = _sheet_clips(tables.store, rows, clips, settings.thumb_px)
        write_contact_sheet(
            file,
            clips=_counted(sheet_clips, len(rows), on_progress),
            rules=[_sheet_rule(rule) for rule in preset.rules],
            rejects=rejects,
            funnel=funnel,
            preset=preset.preset_id,
            heading=f"{heading} (shown: {shown})" if shown else heading,
        )
    return name


def choose_clips(con: duckdb.DuckDBPyConnection, preset: Preset, scope: Scope, max_clips: int) -> int:
    """Make the temporary table `chosen` (`clip_id`, `mask`) of at most `max_clips` clips; returns how many there are.

    The same clips for the same tables: ids are hashes, so those that come first by id are a fair sample.
    """
    con.execute(f"CREATE TEMP TABLE judged AS {decision_query(preset, scope)}").fetchall()
    num_clips, num_kept = con.execute("SELECT count(*), count(*) FILTER (mask = 0) FROM judged").fetchall()[0]
    num_dropped = max_clips - min(num_kept, int(KEPT_SHARE * max_clips))
    # The lowest bit of a mask is the first rule that fails, the reason the page shows.
    con.execute(f"""
        CREATE TEMP TABLE chosen AS
        WITH dropped AS (
            SELECT clip_id, mask FROM judged WHERE mask <> 0
            ORDER BY row_number() OVER (PARTITION BY mask & -mask ORDER BY clip_id), clip_id LIMIT {num_dropped}
        ), kept AS (
            SELECT clip_id, mask FROM judged WHERE mask = 0 ORDER BY clip_id
            LIMIT {max_clips} - (SELECT count(*) FROM dropped)
        )
        FROM dropped UNION ALL FROM kept""").fetchall()
    return int(num_clips)


def _clip_rows(con: duckdb.DuckDBPyConnection, scope: Scope) -> list[dict[str, Any]]:
    """What the page says of the chosen clips, in the order of the input."""
    query = f"""
        WITH asset AS (SELECT DISTINCT ON (asset_id) * FROM assets ORDER BY asset_id, seq, item_id)
        SELECT scores.*, asset.seq, coalesce(nullif(title, ''), asset.name, '') AS title,
            coalesce(action_name, '') AS animation, rig, coalesce(spdx, '') AS licence, coalesce(author, '') AS author,
            coalesce(source_url, '') AS source_url, coalesce(asset.tags, []) AS tags, action_index, "window"
        FROM ({scores_query(SCORES, scope, among="chosen")}) AS scores
            JOIN (SELECT DISTINCT ON (clip_id) clip_id, animation_id, asset_id, rig
                FROM {scope.table("clips")} SEMI JOIN chosen USING (clip_id)) USING (clip_id)
            LEFT JOIN (SELECT DISTINCT ON (animation_id) animation_id, action_name, action_index, "window"
                FROM animations) USING (animation_id)
            LEFT JOIN asset USING (asset_id)
        ORDER BY asset.seq, action_index, "window", clip_id"""
    return con.sql(query).to_arrow_table().to_pylist()


def _sheet_clips(store: Store, rows: list[dict[str, Any]], clips: list[Clip], thumb_px: int) -> Iterator[SheetClip]:
    by_id = {clip.clip_id: clip for clip in clips}
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        yield from pool.map(lambda row: _sheet_clip(store, row, by_id[row["clip_id"]], thumb_px), rows)


def _sheet_clip(store: Store, row: dict[str, Any], clip: Clip, thumb_px: int) -> SheetClip:
    count = min(clip.num_views, SPRITE_VIEWS)
    tags = [*row["tags"], *(tag for tag, score in SCORE_TAGS.items() if row[score])]
    try:
        views = [read_view(store, clip, i * clip.num_views // count) for i in range(count)]
    except (OSError, ValueError) as error:
        # The page is for looking at what went wrong, so one broken strip must not cost the page.
        logger.warning("%s: %s", clip.folder, error)
        views = [np.zeros((clip.num_frames, 1, 1, 4), np.uint8)] * count
        tags.append(UNREADABLE)
    return SheetClip(
        clip_id=clip.clip_id,
        title=row["title"],
        animation=row["animation"],
        rig=row["rig"],
        licence=row["licence"],
        author=row["author"],
        source_url=row["source_url"],
        scores={name: row[name] for name in SCORES},
        tags=tuple(dict.fromkeys(tags)),
        sprite=sprite(views, thumb_px=min(thumb_px, MAX_STRIP_PX // clip.num_frames), max_views=SPRITE_VIEWS),
        num_views=count,
        num_frames=clip.num_frames,
        fps=clip.fps,
    )


def _sheet_rule(rule: Rule) -> SheetRule:
    return SheetRule(
        reason=rule.reason,
        score=rule.score,
        op=rule.drop_if,
        threshold=rule.threshold,
        low=rule.low,
        high=rule.high,
        help=rule.help,
    )


def _rejects(con: duckdb.DuckDBPyConnection, most: int) -> tuple[list[SheetReject], int]:
    """At most so many rejects, evenly over the reasons, and how many there are."""
    once = "(SELECT DISTINCT ON (stage, rejected_id) * FROM rejected_named ORDER BY stage, rejected_id, made_by)"
    num_all = con.execute(f"SELECT count(*) FROM {once}").fetchall()[0][0]
    rows = con.execute(f"""
        FROM (
            SELECT name, stage, reason, detail FROM {once}
            ORDER BY row_number() OVER (PARTITION BY reason ORDER BY rejected_id, stage), reason LIMIT {most}
        ) ORDER BY name, stage, reason, detail""").fetchall()
    sheet = [
        SheetReject(name=name, stage=stage, reason=reason, detail=detail, advice=explain(reason))
        for name, stage, reason, detail in rows
    ]
    return sheet, int(num_all)


def _funnel(con: duckdb.DuckDBPyConnection) -> list[SheetStep]:
    """What came in and went out before curation, and why things were lost on the way."""
    files, assets, animations, clips, scored = con.execute("""
        SELECT (SELECT count(DISTINCT item_id) FROM items), (SELECT count(DISTINCT asset_id) FROM assets),
            (SELECT count(DISTINCT animation_id) FROM animations), (SELECT count(DISTINCT clip_id) FROM clips),
            (SELECT count(DISTINCT clip_id) FROM image_motion)""").fetchall()[0]
    losses = con.execute("""
        SELECT stage, reason, count(DISTINCT rejected_id) AS lost FROM rejected
        WHERE stage = 'ingest.duplicates' OR rejected_id NOT IN (
            -- What went on under other settings was not lost.
            SELECT item_id FROM assets UNION ALL SELECT asset_id FROM probes UNION ALL SELECT animation_id FROM plans
            UNION ALL SELECT clip_id FROM image_motion)
        GROUP BY stage, reason ORDER BY lost DESC, reason""").fetchall()
    steps = [
        ("files into assets", files, assets, ("ingest",)),
        ("assets into animations", assets, animations, ("render.probe",)),
        ("animations into clips", animations, clips, ("render.plan", "render.draw")),
        ("clips into scores", clips, scored, ("curate.score",)),
    ]
    return [
        SheetStep(
            label=label,
            num_in=num_in,
            num_out=num_out,
            losses=_sums((reason, lost) for stage, reason, lost in losses if stage.startswith(stages)),
        )
        for label, num_in, num_out, stages in steps
        if num_in
    ]


def _sums(losses: Iterable[tuple[str, int]]) -> dict[str, int]:
    sums: Counter[str] = Counter()
    for reason, lost in losses:
        sums[reason] += lost
    return dict(sums)


def _notes(**counts: tuple[int, int]) -> str:
    """What is left out: `2,000 of 31,415 clips`; empty if nothing is."""
    return ", ".join(f"{shown:,} of {there:,} {what}" for what, (shown, there) in counts.items() if shown < there)


@contextlib.contextmanager
def _page_file(store: Store, out: str) -> Iterator[tuple[Path, str]]:
    """Where to write the page, and what to call it. A page in a remote data root is written here and uploaded."""
    if out or store.is_local:
        path = Path(out or store.path(PAGE))
        yield path, str(path)
        return
    with tempfile.TemporaryDirectory(prefix="mv4d-") as folder:
        path = Path(folder) / PAGE
        yield path, f"{store.root.rstrip('/')}/{PAGE}"
        store.write_bytes(PAGE, path.read_bytes())


def _counted(clips: Iterable[SheetClip], total: int, on_progress: OnProgress) -> Iterator[SheetClip]:
    """The clips, each told of when the next one is asked for."""
    for number, clip in enumerate(clips, start=1):
        yield clip
        on_progress(number, total)
