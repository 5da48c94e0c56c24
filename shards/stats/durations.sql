-- How long the actions are that animations were cut from, and how many of them were looped.
WITH bins (low, high) AS (
    VALUES (0.0::DOUBLE, 0.5), (0.5, 1.0), (1.0, 2.0), (2.0, 4.0), (4.0, 8.0), (8.0, 16.0), (16.0, 60.0), (60.0, 'infinity'::DOUBLE)
)
SELECT low, high, count(animation_id) AS animations, count(animation_id) FILTER (looped) AS looped
FROM bins LEFT JOIN animations ON action_duration_s >= low AND action_duration_s < high
GROUP BY low, high
ORDER BY low;
