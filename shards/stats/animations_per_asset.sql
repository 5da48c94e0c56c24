-- How many assets have one animation, two, three, ...: as found, as planned, as packed.
WITH per_asset AS (
    SELECT
        f.asset_id,
        count(DISTINCT a.animation_id) AS found,
        count(DISTINCT p.animation_id) AS planned,
        count(DISTINCT c.animation_id) AS packed
    FROM probes AS f
    LEFT JOIN animations AS a USING (asset_id)
    LEFT JOIN plans AS p ON p.animation_id = a.animation_id
    LEFT JOIN (SELECT animation_id FROM clips JOIN samples USING (clip_id)) AS c ON c.animation_id = a.animation_id
    GROUP BY f.asset_id
),
numbers AS (
    SELECT found AS animations FROM per_asset UNION SELECT planned FROM per_asset UNION SELECT packed FROM per_asset
)
SELECT
    n.animations,
    (SELECT count(*) FROM per_asset WHERE found = n.animations) AS assets_found,
    (SELECT count(*) FROM per_asset WHERE planned = n.animations) AS assets_planned,
    (SELECT count(*) FROM per_asset WHERE packed = n.animations) AS assets_packed
FROM numbers AS n
ORDER BY n.animations;
