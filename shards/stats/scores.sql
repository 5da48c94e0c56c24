-- How the scores are spread over the rendered clips: least, quartiles, most.
WITH long AS (
    UNPIVOT (
        SELECT motion_mean, motion_p95, path_length, rigid_share, loop_gap, travel, max_jump, max_stretch,
            m, m_object, ssim_still, flow_px, coverage_mean, border_touch, contrast, colourfulness
        FROM clips_full
    )
    ON COLUMNS(*) INTO NAME score VALUE value
)
SELECT
    score, count(*) AS clips, min(value) AS least, quantile_cont(value, 0.25) AS lower, median(value) AS median,
    quantile_cont(value, 0.75) AS upper, max(value) AS most
FROM long
WHERE isfinite(value)
GROUP BY score
ORDER BY score;
