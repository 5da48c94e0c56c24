-- How much there is, of what was rendered, kept and packed, beside what MV-Video has published.
-- MV-Video: its paper and card; single-view videos are animations times 16 views.
WITH stages (stage, clip_id) AS (
    SELECT 'rendered', clip_id FROM clips
    UNION ALL
    SELECT 'kept', clip_id FROM decisions WHERE keep
    UNION ALL
    SELECT 'packed', clip_id FROM samples
),
these AS (
    SELECT stages.stage, c.*
    FROM stages JOIN clips_full AS c ON c.clip_id = stages.clip_id
),
an_asset AS (
    SELECT stage, asset_id, count(DISTINCT animation_id) AS animations FROM these GROUP BY ALL
),
counts AS (
    SELECT
        stage,
        count(DISTINCT asset_id)::DOUBLE AS models,
        count(DISTINCT family_id)::DOUBLE AS families,
        count(DISTINCT animation_id)::DOUBLE AS animations,
        count(*)::DOUBLE AS clips,
        sum(num_views)::DOUBLE AS videos,
        sum(num_views * num_frames)::DOUBLE AS pictures,
        sum(num_views * num_frames / nullif(fps, 0)) / 3600 AS hours,
        sum(num_bytes)::DOUBLE AS bytes
    FROM these
    GROUP BY stage
),
means AS (
    SELECT
        stage, avg(animations) AS mean, median(animations)::DOUBLE AS median, max(animations)::DOUBLE AS largest
    FROM an_asset
    GROUP BY stage
),
long (stage, place, figure, value) AS (
    SELECT stage, 1, '3D models', models FROM counts
    UNION ALL SELECT stage, 2, 'families of equal geometry', families FROM counts
    UNION ALL SELECT stage, 3, 'animations', animations FROM counts
    UNION ALL SELECT stage, 4, 'animations a model, mean', mean FROM means
    UNION ALL SELECT stage, 5, 'animations a model, median', median FROM means
    UNION ALL SELECT stage, 6, 'animations a model, most', largest FROM means
    UNION ALL SELECT stage, 7, 'multi-view clips', clips FROM counts
    UNION ALL SELECT stage, 8, 'single-view videos', videos FROM counts
    UNION ALL SELECT stage, 9, 'pictures', pictures FROM counts
    UNION ALL SELECT stage, 10, 'hours of single-view video', hours FROM counts
    UNION ALL SELECT stage, 11, 'bytes of pictures', bytes FROM counts
),
figures (place, figure, mv_video) AS (
    VALUES
        (1, '3D models', 53340), (2, 'families of equal geometry', NULL), (3, 'animations', 115566),
        (4, 'animations a model, mean', 2.2), (5, 'animations a model, median', NULL),
        (6, 'animations a model, most', 6), (7, 'multi-view clips', 115566), (8, 'single-view videos', 1849056),
        (9, 'pictures', NULL), (10, 'hours of single-view video', NULL), (11, 'bytes of pictures', NULL)
)
SELECT
    f.figure,
    coalesce(max(value) FILTER (stage = 'rendered'), 0) AS rendered,
    coalesce(max(value) FILTER (stage = 'kept'), 0) AS kept,
    coalesce(max(value) FILTER (stage = 'packed'), 0) AS packed,
    f.mv_video::DOUBLE AS mv_video
FROM figures AS f LEFT JOIN long USING (place)
GROUP BY f.place, f.figure, f.mv_video
ORDER BY f.place;
