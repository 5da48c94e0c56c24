-- Rigs and sizes: how many clips of each were rendered, kept and packed.
SELECT
    rig, quality, num_views, num_frames, width, height,
    count(*) AS clips, count(*) FILTER (keep) AS kept, count(shard) AS packed
FROM clips_full
GROUP BY ALL
ORDER BY clips DESC, rig, quality, num_views, num_frames, width, height;
