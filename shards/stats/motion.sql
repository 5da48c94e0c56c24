-- How much things move: animations and kept clips by mean vertex displacement, as a share of the object's diagonal.
WITH bins (low, high) AS (
    VALUES
        (0.0::DOUBLE, 0.001), (0.001, 0.002), (0.002, 0.005), (0.005, 0.01), (0.01, 0.02), (0.02, 0.05), (0.05, 0.1),
        (0.1, 0.2), (0.2, 0.5), (0.5, 'infinity'::DOUBLE)
),
moving AS (
    SELECT
        animation_id, motion_mean,
        animation_id IN (SELECT animation_id FROM clips JOIN decisions USING (clip_id) WHERE keep) AS kept
    FROM animations
    WHERE isfinite(motion_mean)
)
SELECT
    low, high, count(animation_id) AS animations, count(animation_id) FILTER (kept) AS kept
FROM bins LEFT JOIN moving ON motion_mean >= low AND motion_mean < high
GROUP BY low, high
ORDER BY low;
