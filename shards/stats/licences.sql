-- Licences: 3D models, clips and bytes under each, beside what MV-Video has published by class.
SELECT
    a.licence_class,
    a.spdx,
    count(DISTINCT a.asset_id) AS models,
    count(DISTINCT c.asset_id) FILTER (c.keep) AS models_kept,
    count(DISTINCT c.asset_id) FILTER (c.shard IS NOT NULL) AS models_packed,
    count(c.clip_id) FILTER (c.shard IS NOT NULL) AS clips_packed,
    coalesce(sum(c.num_bytes) FILTER (c.shard IS NOT NULL), 0)::BIGINT AS bytes_packed
FROM first_assets AS a
LEFT JOIN clips_full AS c USING (asset_id)
GROUP BY a.licence_class, a.spdx
ORDER BY models DESC, a.spdx;
