-- Where everything went: at each step what comes in, what goes on, and why the rest was turned away.
-- A row is an outcome: `in`, `on`, `turned away` (with its reason), `waiting` (neither yet), or `unknown`: an id among
-- the results or the rejected that never came in. in = on + turned away + waiting, and unknown = 0, or something is lost.
-- What went on is not counted as turned away, even if other settings had turned it away before.
-- Of a data set that others rendered an item is a clip: it comes in at step 1, its model at step 2, its clip at step 7.
WITH steps (step, unit, arrives, leaves) AS (
    VALUES
        (1, 'item', 'items', 'licensed and fetched'),
        (2, 'asset', 'fetched', 'unique assets'),
        (3, 'asset', 'unique assets', 'readable'),
        (4, 'asset', 'readable', 'animated'),
        (5, 'animation', 'animations', 'planned'),
        (6, 'clip', 'plans', 'rendered'),
        (7, 'clip', 'clips', 'kept'),
        (8, 'clip', 'kept', 'packed')
),
duplicates AS (
    SELECT rejected_id, reason FROM rejected WHERE stage = 'ingest.duplicates'
),
unmarked AS (
    SELECT a.item_id, a.asset_id, row_number() OVER (PARTITION BY a.asset_id ORDER BY a.seq, a.item_id) AS place
    FROM assets AS a
    WHERE a.blob <> ''
    UNION ALL
    SELECT min(item_id), asset_id, 1 FROM assets WHERE blob = '' GROUP BY asset_id
),
probe_rejects AS (
    SELECT r.rejected_id, r.reason, u.asset_id IS NOT NULL AS is_asset
    FROM rejected AS r
    LEFT JOIN (SELECT DISTINCT asset_id FROM assets) AS u ON u.asset_id = r.rejected_id
    WHERE r.stage = 'render.probe'
),
arrivals (step, id) AS (
    SELECT 1, item_id FROM items
    UNION ALL
    SELECT 2, item_id FROM unmarked
    UNION ALL
    SELECT DISTINCT 3, asset_id FROM assets
    UNION ALL
    SELECT 4, asset_id FROM probes
    UNION ALL
    SELECT 5, animation_id FROM animations WHERE made_by NOT LIKE 'ingest.%'
    UNION ALL
    SELECT 5, rejected_id FROM probe_rejects
    WHERE NOT is_asset AND rejected_id NOT IN (SELECT animation_id FROM animations)
    UNION ALL
    SELECT 6, clip_id FROM plans
    UNION ALL
    SELECT 7, clip_id FROM clips
    UNION ALL
    SELECT 8, clip_id FROM decisions WHERE keep
),
results (step, id) AS (
    SELECT 1, item_id FROM assets
    UNION ALL
    SELECT 2, item_id FROM unmarked WHERE place = 1
    UNION ALL
    SELECT 3, asset_id FROM probes
    UNION ALL
    SELECT DISTINCT 4, asset_id FROM animations
    UNION ALL
    SELECT DISTINCT 5, animation_id FROM plans
    UNION ALL
    SELECT 6, clip_id FROM clips WHERE made_by NOT LIKE 'ingest.%'
    UNION ALL
    SELECT 7, clip_id FROM decisions WHERE keep
    UNION ALL
    SELECT 8, clip_id FROM samples
),
refusals (step, id, reason) AS (
    SELECT 1, rejected_id, reason FROM rejected
    WHERE stage IN ('ingest', 'ingest.mv_video', 'ingest.diffusion4d')
    UNION ALL
    SELECT 2, u.item_id, coalesce(d.reason, 'duplicate_bytes')
    FROM unmarked AS u LEFT JOIN duplicates AS d ON d.rejected_id = u.item_id
    WHERE u.place > 1
    UNION ALL
    SELECT 3, rejected_id, reason FROM probe_rejects
    WHERE is_asset AND rejected_id NOT IN (SELECT asset_id FROM probes)
    UNION ALL
    -- A file whose actions were all turned away by themselves, or that has none.
    SELECT 4, p.asset_id, coalesce(r.reason, 'no_animation')
    FROM probes AS p
    LEFT JOIN probe_rejects AS r ON r.rejected_id = p.asset_id
    WHERE r.reason IS NOT NULL OR p.asset_id IN (SELECT input_id FROM done WHERE stage = 'render.probe')
    UNION ALL
    SELECT 5, rejected_id, reason FROM probe_rejects WHERE NOT is_asset
    UNION ALL
    SELECT 5, rejected_id, reason FROM rejected
    WHERE stage = 'render.plan' AND split_part(rejected_id, ':', 1) NOT IN (SELECT asset_id FROM probes)
    UNION ALL
    -- The planner works on whole assets (`asset_id:hash`): a fault of the machine there is one of all their animations.
    SELECT 5, a.animation_id, r.reason
    FROM rejected AS r JOIN animations AS a ON a.asset_id = split_part(r.rejected_id, ':', 1)
    WHERE r.stage = 'render.plan'
    UNION ALL
    SELECT 6, rejected_id, reason FROM rejected WHERE stage = 'render.draw'
    UNION ALL
    SELECT 7, clip_id, reason FROM decisions WHERE NOT keep
    UNION ALL
    SELECT 7, rejected_id, reason FROM rejected WHERE stage = 'curate.score'
    UNION ALL
    SELECT 8, rejected_id, reason FROM rejected
    WHERE stage = 'shards.pack' AND rejected_id NOT IN (SELECT clip_id FROM decisions WHERE NOT keep)
),
refused AS (
    SELECT step, id, min(reason) AS reason FROM refusals ANTI JOIN results USING (step, id) GROUP BY ALL
),
outcomes AS (
    SELECT step, 'in' AS outcome, '' AS reason, count(*) AS num FROM arrivals GROUP BY ALL
    UNION ALL
    SELECT step, 'on', '', count(*) FROM results GROUP BY ALL
    UNION ALL
    SELECT step, 'turned away', reason, count(*) FROM refused GROUP BY ALL
    UNION ALL
    SELECT step, 'waiting', '', count(*)
    FROM arrivals ANTI JOIN results USING (step, id) ANTI JOIN refused USING (step, id) GROUP BY ALL
    UNION ALL
    SELECT step, 'unknown', '', count(*)
    FROM (FROM results UNION ALL SELECT step, id FROM refused) ANTI JOIN arrivals USING (step, id) GROUP BY ALL
)
SELECT
    step, unit, arrives, leaves, coalesce(outcome, 'in') AS outcome, coalesce(reason, '') AS reason,
    coalesce(num, 0) AS num
FROM steps LEFT JOIN outcomes USING (step)
ORDER BY step, list_position(['in', 'on', 'turned away', 'waiting', 'unknown'], outcome), num DESC, reason;
