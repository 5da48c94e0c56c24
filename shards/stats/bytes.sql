-- Where the bytes are: 3D files, rendered clips, shards.
SELECT '3D files' AS what, count(*) AS files, coalesce(sum(num_bytes), 0)::BIGINT AS num_bytes FROM first_assets
UNION ALL
SELECT 'rendered clips', coalesce(sum(len(parts)), 0)::BIGINT,
    coalesce(sum(list_sum([part.num_bytes for part in parts])), 0)::BIGINT
FROM clips
UNION ALL
SELECT 'shards', count(*), coalesce(sum(num_bytes), 0)::BIGINT FROM shards;
