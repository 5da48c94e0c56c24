-- File formats: how many assets of each, how many Blender could read, how many had an animation, how many were packed.
SELECT
    f.format,
    count(*) AS assets,
    count(p.asset_id) AS readable,
    count(*) FILTER (f.asset_id IN (SELECT asset_id FROM animations)) AS animated,
    count(*) FILTER (f.asset_id IN (SELECT asset_id FROM samples)) AS packed,
    sum(f.num_bytes)::BIGINT AS num_bytes
FROM first_assets AS f LEFT JOIN probes AS p USING (asset_id)
GROUP BY f.format
ORDER BY assets DESC, f.format;
