-- The largest families of equal geometry: re-uploads and re-coloured copies, which always stand in one split.
SELECT
    family_id, count(DISTINCT p.asset_id) AS assets, count(DISTINCT s.sample_key) AS samples,
    string_agg(DISTINCT s.split, ', ') AS split, min(f.title) AS example
FROM probes AS p
LEFT JOIN first_assets AS f USING (asset_id)
LEFT JOIN samples AS s USING (asset_id)
GROUP BY family_id
HAVING count(DISTINCT p.asset_id) > 1
ORDER BY assets DESC, family_id
LIMIT 50;
