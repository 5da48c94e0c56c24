-- What is in the shards, by split and in all.
WITH packed AS (
    SELECT s.split, s.asset_id, s.num_bytes, c.family_id, c.animation_id, c.num_views, c.num_frames, c.fps
    FROM samples AS s
    JOIN clips_full AS c USING (clip_id)
)
SELECT
    coalesce(split, 'all') AS split,
    count(DISTINCT asset_id) AS assets,
    count(DISTINCT family_id) AS families,
    count(DISTINCT animation_id) AS animations,
    count(*) AS samples,
    coalesce(sum(num_views), 0)::BIGINT AS videos,
    coalesce(sum(num_views * num_frames), 0)::BIGINT AS pictures,
    coalesce(sum(num_views * num_frames / nullif(fps, 0)) / 3600, 0) AS hours,
    coalesce(sum(num_bytes), 0)::BIGINT AS num_bytes
FROM packed
GROUP BY GROUPING SETS ((packed.split), ())
HAVING count(*) > 0
ORDER BY packed.split IS NULL, packed.split;
